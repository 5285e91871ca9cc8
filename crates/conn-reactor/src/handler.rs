//! What a caller implements.

use std::io;
use std::net::SocketAddr;

use crate::{CloseReason, Io, TimerKey, Token};

/// What a shard does with its connections: one value per shard, used on that shard's thread only.
///
/// Callbacks never nest: what a callback asks for (a close, a connect) is answered by a later callback. A handler
/// only ever sees bytes that have arrived, never readiness, so the way they arrive can change beneath it.
///
/// A callback runs while its shard does nothing else: keep it short, and never block in it.
pub trait Handler: Sized + Send + 'static {
    /// The caller's state of one connection; it lives in the reactor's slab.
    type Conn;
    /// What a timer carries.
    type Timer;
    /// What other threads send to this shard.
    type Message: Send + 'static;

    /// The shard's loop begins: called once, before every other callback. Does nothing by default.
    fn started(&mut self, io: &mut Io<Self>) {
        let _ = io;
    }

    /// A connection was accepted, or an own connect finished. Returns the state of the connection, or `None` to
    /// close it at once (then [`closed`](Self::closed) is not called). `io.write(token, ..)` works already,
    /// `io.state(token)` only after this returned.
    fn opened(&mut self, io: &mut Io<Self>, token: Token, opened: Opened) -> Option<Self::Conn>;

    /// Bytes arrived. Returns how many of them, from the front, were consumed; the rest is kept and presented again
    /// in front of the next bytes (or alone after [`Io::resume_reading`]), so an incomplete frame is simply left.
    ///
    /// # Panics
    /// The shard panics when this returns more than `input.len()`.
    fn data(&mut self, io: &mut Io<Self>, token: Token, input: &[u8]) -> usize;

    /// The peer will send nothing more (FIN); what it sent before has been through [`data`](Self::data). What is
    /// written now is still sent before the connection closes. Does nothing by default.
    fn peer_finished(&mut self, io: &mut Io<Self>, token: Token) {
        let _ = (io, token);
    }

    /// The connection is gone: called exactly once for each `opened` that returned a state, and the token is stale.
    fn closed(&mut self, io: &mut Io<Self>, token: Token, conn: Self::Conn, reason: CloseReason);

    /// An own connect failed; `tag` is what [`Io::connect`] was given.
    fn connect_failed(&mut self, io: &mut Io<Self>, tag: u64, error: io::Error);

    /// A timer's deadline has passed. Its key is used up.
    fn timer(&mut self, io: &mut Io<Self>, key: TimerKey, timer: Self::Timer);

    /// A message from another thread.
    fn message(&mut self, io: &mut Io<Self>, message: Self::Message);

    /// The write queue of the connection was above `Options::write_low_bytes` and is no longer. Does nothing by default.
    fn drained(&mut self, io: &mut Io<Self>, token: Token) {
        let _ = (io, token);
    }

    /// A batch of events, messages and timers is done: the time to publish numbers. Does nothing by default.
    fn turn_ended(&mut self, io: &mut Io<Self>) {
        let _ = io;
    }
}

/// How a connection came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// A listener accepted it.
    Accepted {
        /// Which listener: its place in the order of [`Builder::listen`](crate::Builder::listen).
        listener: usize,
        /// The other end.
        peer: SocketAddr,
    },
    /// [`Io::connect`] finished.
    Connected {
        /// The tag given to [`Io::connect`].
        tag: u64,
        /// The other end.
        peer: SocketAddr,
    },
}

impl Opened {
    /// The other end.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        match self {
            Self::Accepted { peer, .. } | Self::Connected { peer, .. } => *peer,
        }
    }
}
