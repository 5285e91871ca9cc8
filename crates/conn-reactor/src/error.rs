//! Why a connection ended, a write was refused, a message came back.

use std::fmt;
use std::io;

/// Why a connection was closed, as given to [`Handler::closed`](crate::Handler::closed).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer finished sending (FIN) and everything queued for it was sent.
    PeerClosed,
    /// The peer reset the connection, or was already gone when it was written to.
    Reset,
    /// TCP gave up: no answer to keepalive probes or to sent data.
    TimedOut,
    /// Another error of the socket: the raw OS error number.
    Io(i32),
    /// The handler left more input unconsumed than `Options::carry_bytes_max`.
    InputTooLong,
    /// A write did not fit into its queue, and [`WhenFull::Close`](crate::WhenFull::Close) was asked for.
    SlowReader,
    /// The time for flushing ran out with bytes still queued.
    FlushTimeout,
    /// The deadline that [`Io::set_deadline`](crate::Io::set_deadline) gave it has passed.
    DeadlinePassed,
    /// The shard stopped.
    Shutdown,
    /// The caller closed it, with a number of its own.
    Local(u16),
}

impl CloseReason {
    pub(crate) fn of(error: rustix::io::Errno) -> Self {
        use rustix::io::Errno;
        match error {
            Errno::CONNRESET | Errno::PIPE => Self::Reset,
            Errno::TIMEDOUT => Self::TimedOut,
            other => Self::Io(other.raw_os_error()),
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerClosed => f.write_str("the peer closed the connection"),
            Self::Reset => f.write_str("the peer reset the connection"),
            Self::TimedOut => f.write_str("the peer stopped answering and TCP gave up"),
            Self::Io(code) => write!(
                f,
                "the socket failed: {}",
                io::Error::from_raw_os_error(*code)
            ),
            Self::InputTooLong => {
                f.write_str("the peer sent a longer frame than carry_bytes_max allows")
            }
            Self::SlowReader => f.write_str("the peer does not read what it is sent"),
            Self::FlushTimeout => f.write_str("the peer did not take the queued bytes in time"),
            Self::DeadlinePassed => f.write_str("the connection's deadline has passed"),
            Self::Shutdown => f.write_str("the shard stopped"),
            Self::Local(code) => write!(f, "closed by this side with code {code}"),
        }
    }
}

/// Why [`Io::write`](crate::Io::write) took nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteError(WriteRefused);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteRefused {
    Full,
    Stale,
    Closing,
}

impl WriteError {
    pub(crate) const FULL: Self = Self(WriteRefused::Full);
    pub(crate) const STALE: Self = Self(WriteRefused::Stale);
    pub(crate) const CLOSING: Self = Self(WriteRefused::Closing);

    /// The bytes do not fit in what is left of `Options::write_bytes_max`; nothing of them was taken.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0 == WriteRefused::Full
    }

    /// The token names no connection any more.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.0 == WriteRefused::Stale
    }

    /// The connection is about to close (it failed just now, or was told to), so nothing can be written any more.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.0 == WriteRefused::Closing
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            WriteRefused::Full => {
                "the write queue is full; wait for drained() or close the connection"
            }
            WriteRefused::Stale => "the connection has been closed; drop its token",
            WriteRefused::Closing => "the connection is closing; write nothing more to it",
        })
    }
}

impl std::error::Error for WriteError {}

/// Gives a message back that [`Sender::try_send`](crate::Sender::try_send) could not hand over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SendError<M> {
    /// `Options::mailbox_max` messages wait already; try later or drop it.
    Full(M),
    /// The shard has stopped; nothing will be delivered any more.
    Stopped(M),
}

impl<M> SendError<M> {
    /// The mailbox is full.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full(_))
    }

    /// The shard has stopped.
    pub fn is_stopped(&self) -> bool {
        matches!(self, Self::Stopped(_))
    }

    /// The message.
    pub fn into_message(self) -> M {
        match self {
            Self::Full(message) | Self::Stopped(message) => message,
        }
    }
}

impl<M> fmt::Debug for SendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "SendError::Full(..)",
            Self::Stopped(_) => "SendError::Stopped(..)",
        })
    }
}

impl<M> fmt::Display for SendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "the shard's mailbox is full; send again later",
            Self::Stopped(_) => "the shard has stopped; send nothing more to it",
        })
    }
}

impl<M> std::error::Error for SendError<M> {}
