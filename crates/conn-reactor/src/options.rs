//! The limits and switches of a reactor.

use crate::budget::Budget;

/// Limits and switches of a [`Reactor`](crate::Reactor); every queue, buffer and batch has its bound here.
///
/// ```
/// # use conn_reactor::Options;
/// let options = Options { shards: 2, connections_max: 10_000, ..Options::default() };
/// assert_eq!(options.read_buffer_bytes, 64 * 1024);
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    /// Shards, each one thread with its own poller, slab, timers and listeners. Default: the cores this process may use.
    pub shards: usize,
    /// Connections that the kernel may hold for each listener before they are accepted (`listen(2)`, capped by
    /// `net.core.somaxconn`). Default 4096.
    pub backlog: u32,
    /// Connections per shard, own connects included. At the limit accepting pauses (new peers wait in the backlog)
    /// and [`Io::connect`](crate::Io::connect) fails. Default 1,000,000.
    pub connections_max: usize,
    /// Unconsumed input kept per connection. A connection whose handler leaves more is closed with
    /// [`CloseReason::InputTooLong`](crate::CloseReason::InputTooLong). Default 128 KiB.
    pub carry_bytes_max: usize,
    /// Output queued per connection while its socket is full. A write that does not fit is refused whole. Default 256 KiB.
    pub write_bytes_max: usize,
    /// What a write that does not fit does besides. Default [`WhenFull::Refuse`].
    pub when_full: WhenFull,
    /// When a queue that was above this mark falls to it, [`Handler::drained`](crate::Handler::drained) is called.
    /// Default 64 KiB.
    pub write_low_bytes: usize,
    /// The read buffer of a shard, shared by all its connections. Default 64 KiB.
    pub read_buffer_bytes: usize,
    /// What one connection may receive and send in one turn before the others get theirs; at least 2. One read, and what is sent of
    /// a write queue, are half of it at most. Bytes that a handler writes count, but are not held back: only the next read
    /// waits for them. Default 64 KiB.
    pub turn_budget_bytes: usize,
    /// Connections accepted per listener and turn. Default 64.
    pub accept_batch: usize,
    /// Messages delivered per turn. Default 256.
    pub message_batch: usize,
    /// Timers fired per turn. Default 1024.
    pub timer_batch: usize,
    /// Events fetched from the kernel per turn. Default 1024.
    pub event_batch: usize,
    /// Messages that may wait for a shard; [`Sender::try_send`](crate::Sender::try_send) gives the next one back. Default 65,536.
    pub mailbox_max: usize,
    /// How long an own connect may take before [`Handler::connect_failed`](crate::Handler::connect_failed) gets
    /// `TimedOut`. Default 10,000.
    pub connect_timeout_ms: u64,
    /// How long a connection may go on sending what is queued after its peer finished sending. Default 10,000.
    pub linger_timeout_ms: u64,
    /// How long accepting pauses when the process or the machine is out of descriptors or memory, or when the listener
    /// fails in a way that would repeat at once (it also resumes as soon as this shard closes a connection). Default 100.
    pub accept_retry_ms: u64,
    /// TCP_NODELAY: send small writes at once. Default true.
    pub nodelay: bool,
    /// TCP keepalive. Default 60 s idle, then 3 probes 10 s apart: a silent peer is found dead after 90 s.
    pub keepalive: Option<Keepalive>,
    /// TCP_USER_TIMEOUT (Linux): give a connection up when sent bytes stay unacknowledged this long, be it that the link is
    /// cut (which keepalive does not notice then) or that the peer reads nothing. Default none, since only the protocol can
    /// say how long a peer may read nothing; where none may for long, 90,000 goes with the default keepalive.
    pub user_timeout_ms: Option<u32>,
}

/// What becomes of a connection whose write queue has no room for a write.
///
/// The bytes are refused in each case. None drops what is queued to make room: the queue is a part of a byte stream, whose
/// front the peer may have read a half of, so it can only be sent on, or the connection be closed. Who may
/// drop old messages keeps them until [`Handler::drained`](crate::Handler::drained), and drops those.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// The handler decides: it may pause reading, wait for `drained`, or close.
    #[default]
    Refuse,
    /// Nothing more is read from the peer, as by [`Io::pause_reading`](crate::Io::pause_reading), until the queue has come down to
    /// [`Options::write_low_bytes`]: for answers to what a peer asks faster than it reads them. Input that the handler leaves
    /// unconsumed is presented again then. A handler's own pauses stay its own.
    PauseReading,
    /// The connection closes with [`CloseReason::SlowReader`](crate::CloseReason::SlowReader): for peers that have to keep up. What
    /// is queued is lost.
    Close,
}

/// When TCP asks a silent peer whether it still lives (`tcp(7)`: TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe, in seconds.
    pub idle_s: u32,
    /// Between two probes, in seconds.
    pub interval_s: u32,
    /// Probes without an answer before the connection is dead.
    pub count: u32,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self {
            idle_s: 60,
            interval_s: 10,
            count: 3,
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            shards: std::thread::available_parallelism().map_or(1, usize::from),
            backlog: 4096,
            connections_max: 1_000_000,
            carry_bytes_max: 128 * 1024,
            write_bytes_max: 256 * 1024,
            when_full: WhenFull::Refuse,
            write_low_bytes: 64 * 1024,
            read_buffer_bytes: 64 * 1024,
            turn_budget_bytes: 64 * 1024,
            accept_batch: 64,
            message_batch: 256,
            timer_batch: 1024,
            event_batch: 1024,
            mailbox_max: 65_536,
            connect_timeout_ms: 10_000,
            linger_timeout_ms: 10_000,
            accept_retry_ms: 100,
            nodelay: true,
            keepalive: Some(Keepalive::default()),
            user_timeout_ms: None,
        }
    }
}

impl Options {
    /// Refuses values that could not work: less than progress needs.
    pub(crate) fn check(&self) -> std::io::Result<()> {
        let bounded = [
            ("shards", self.shards, 1),
            ("connections_max", self.connections_max, 1),
            ("write_bytes_max", self.write_bytes_max, 1),
            ("read_buffer_bytes", self.read_buffer_bytes, 1),
            ("turn_budget_bytes", self.turn_budget_bytes, Budget::LEAST),
            ("accept_batch", self.accept_batch, 1),
            ("message_batch", self.message_batch, 1),
            ("timer_batch", self.timer_batch, 1),
            ("event_batch", self.event_batch, 1),
            ("mailbox_max", self.mailbox_max, 1),
        ];
        match bounded.iter().find(|(_, value, least)| value < least) {
            None => Ok(()),
            Some((name, value, least)) => Err(std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                format!("Options::{name} is {value}; give it at least {least}"),
            )),
        }
    }
}
