//! What a handler can do: the shard's connections, timers and numbers.

use std::collections::VecDeque;
use std::hash::RandomState;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use timerwheel::Wheel;

use crate::conn::{Connecting, Connection, Deadline, Draining};
use crate::flags::Flags;
use crate::interest::{Change, Interest};
use crate::phase::{Act, Phase, Signal};
use crate::platform::Registry;
use crate::slab::Slab;
use crate::steps::send_all;
use crate::{CloseReason, Ctx, Handler, Options, Stats, Token, TraceId, WhenFull, WriteError, sys};

/// A shard, as its handler's callbacks see it.
pub struct Io<H: Handler> {
    pub(crate) conns: Slab<Connection<H::Conn>>,
    pub(crate) registry: Registry,
    /// The caller's timers; apart from the shard's own, so that each costs no more than what the caller puts into it.
    pub(crate) timers: Wheel<H::Timer>,
    pub(crate) patience: Wheel<Patience>,
    /// Connections with something to do in the next turn.
    pub(crate) ready: Vec<Token>,
    /// Connections of which the kernel may have to watch something else from the next wait on.
    pub(crate) changed: Vec<Token>,
    /// Connections to close when the running callback has returned.
    pub(crate) closing: VecDeque<(Token, CloseReason)>,
    pub(crate) listeners: Vec<Listener>,
    /// Out of descriptors or memory, or refused for good: no accepting before the retry timer fires or a connection closes.
    pub(crate) accept_retry: Option<timerwheel::Key>,
    pub(crate) options: Options,
    pub(crate) stats: Stats,
    pub(crate) epoch: Instant,
    pub(crate) now_ms: u64,
    /// The key of the connections' trace ids.
    pub(crate) trace_key: RandomState,
    pub(crate) shard: usize,
    /// Connections whose `opened` returned a state and whose `closed` is still to come.
    pub(crate) open: usize,
    pub(crate) stopping: bool,
}

/// A listening socket as one shard sees it.
pub(crate) struct Listener {
    pub(crate) socket: Arc<OwnedFd>,
    /// An edge came and `accept` has not said "nothing there" since.
    pub(crate) pending: bool,
}

/// What the shard itself waits for no longer than until a deadline.
pub(crate) enum Patience {
    /// A connection that drains.
    Drain(Token),
    /// An own connect.
    Connect(Token),
    /// A connection with a deadline.
    Deadline(Token),
    /// The pause between two tries to accept.
    AcceptRetry,
}

/// Names a timer of one shard. Stale once the timer has fired or was cancelled: then it names nothing, never another timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerKey(pub(crate) timerwheel::Key);

impl<H: Handler> Io<H> {
    /// Milliseconds since the reactor's epoch, the same for all its shards; monotonic, read once per turn.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The deadline that lies at least `delay_ms` after this very moment. Reads the clock: [`now_ms`](Self::now_ms)
    /// is the start of the turn, rounded down, so a deadline counted from that one may come a little sooner.
    #[must_use]
    pub fn deadline_after(&self, delay_ms: u64) -> u64 {
        let now_us = u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
        now_us.div_ceil(1000).saturating_add(delay_ms)
    }

    /// This shard's index, from 0.
    #[must_use]
    pub fn shard(&self) -> usize {
        self.shard
    }

    /// Connections that are open on this shard.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.open
    }

    /// Descriptors that this shard holds: its connections and own connects, its listeners, its poller and its waker.
    /// What a process has open beyond its shards' is somebody else's: see
    /// [`descriptors`](crate::descriptors::Growth).
    #[must_use]
    pub fn descriptors(&self) -> usize {
        const POLLER_AND_WAKER: usize = 2;
        self.conns.len() + self.listeners.len() + POLLER_AND_WAKER
    }

    /// The tokens of all open connections, to do something to each: say goodbye, check an age. Walks the slab: O(slots).
    #[must_use]
    pub fn tokens(&self) -> Vec<Token> {
        let mut tokens = self.conns.tokens();
        tokens.retain(|token| {
            self.conns
                .get(*token)
                .is_some_and(|connection| connection.conn.is_some())
        });
        tokens
    }

    /// What this shard counted so far.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The caller's state of a connection; `None` for a stale token, and during `opened`.
    #[inline]
    pub fn state(&mut self, token: Token) -> Option<&mut H::Conn> {
        match self.conns.get_mut(token) {
            Some(connection) => connection.conn.as_mut(),
            None => {
                self.stats.stale_tokens += 1;
                None
            }
        }
    }

    /// The other end of a connection (a system call; keep the address from `opened` if it is needed often).
    pub fn peer(&self, token: Token) -> Option<SocketAddr> {
        self.conns
            .get(token)
            .and_then(|connection| sys::peer_addr(connection.fd()))
    }

    /// Bytes that wait in the connection's write queue; 0 for a stale token.
    pub fn queued_bytes(&self, token: Token) -> usize {
        self.conns.get(token).map_or(0, Connection::queued_bytes)
    }

    /// Sends bytes, all or nothing: what the socket does not take at once is queued, up to
    /// `Options::write_bytes_max` queued bytes, and sent as the socket empties.
    ///
    /// When nothing is queued the socket is tried at once: one `send` per call, so join small pieces before.
    ///
    /// # Errors
    /// [`WriteError::is_full`]: the bytes (or more than `write_bytes_max` of them) do not fit; nothing of them was
    /// taken, and `Options::when_full` says what follows. [`WriteError::is_stale`]: no such connection.
    /// [`WriteError::is_closing`]: it is closing, or the socket failed just now; `closed` follows.
    #[inline(always)]
    pub fn write(&mut self, token: Token, bytes: &[u8]) -> Result<(), WriteError> {
        let Some(connection) = self.conns.get_mut(token) else {
            self.stats.stale_tokens += 1;
            return Err(WriteError::STALE);
        };
        if connection.extra.is_some()
            || !connection.phase().takes_output()
            || bytes.len() > self.options.write_bytes_max
        {
            return self.write_slow(token, bytes);
        }
        match send_all(connection, &mut self.stats, bytes) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(sent) => {
                self.enqueue(token, &bytes[sent..]);
                Ok(())
            }
            Err(error) => {
                self.close(token, CloseReason::of(error));
                Err(WriteError::CLOSING)
            }
        }
    }

    /// The same for a connection with something about it, as a queue.
    #[inline(never)]
    fn write_slow(&mut self, token: Token, bytes: &[u8]) -> Result<(), WriteError> {
        let Some(connection) = self.conns.get_mut(token) else {
            return Err(WriteError::STALE);
        };
        if !connection.phase().takes_output() {
            return Err(WriteError::CLOSING);
        }
        let queued = connection.queued_bytes();
        if bytes.len() > self.options.write_bytes_max - queued.min(self.options.write_bytes_max) {
            return Err(self.refuse_write(token));
        }
        let mut sent = 0;
        if queued == 0 {
            match send_all(connection, &mut self.stats, bytes) {
                Ok(count) => sent = count,
                Err(error) => {
                    self.close(token, CloseReason::of(error));
                    return Err(WriteError::CLOSING);
                }
            }
        }
        if sent < bytes.len() {
            self.enqueue(token, &bytes[sent..]);
        }
        Ok(())
    }

    /// A write did not fit: does what `Options::when_full` says.
    fn refuse_write(&mut self, token: Token) -> WriteError {
        self.stats.writes_refused += 1;
        let Some(connection) = self.conns.get_mut(token) else {
            return WriteError::STALE;
        };
        connection.flags.set(Flags::ABOVE_LOW);
        match self.options.when_full {
            WhenFull::Close => {
                self.close(token, CloseReason::SlowReader);
                return WriteError::CLOSING;
            }
            // Nothing would end the pause of a connection without a queue.
            WhenFull::PauseReading
                if connection.queued_bytes() > 0 && !connection.flags.has(Flags::PAUSED) =>
            {
                self.pause_reading(token);
                if let Some(connection) = self.conns.get_mut(token) {
                    connection.extra_mut().paused_by_queue = true;
                }
            }
            WhenFull::PauseReading | WhenFull::Refuse => {}
        }
        WriteError::FULL
    }

    /// Puts what the socket did not take into the queue.
    #[inline(never)]
    fn enqueue(&mut self, token: Token, rest: &[u8]) {
        let Some(connection) = self.conns.get_mut(token) else {
            return;
        };
        let queue = &mut connection.extra_mut().queue;
        queue.push(rest);
        if queue.len() > self.options.write_low_bytes {
            connection.flags.set(Flags::ABOVE_LOW);
        }
    }

    /// Closes a connection: what is queued is thrown away, the descriptor is closed and `closed` called when the
    /// running callback has returned. If the peer sent something that was not read, TCP resets the connection, and
    /// the peer may lose what it has not read either: to part in peace, use
    /// [`close_after_flush`](Self::close_after_flush). Later closes of the same connection, and stale tokens, change nothing.
    pub fn close(&mut self, token: Token, reason: CloseReason) {
        let Some(connection) = self.conns.get_mut(token) else {
            self.stats.stale_tokens += 1;
            return;
        };
        if connection.step(Signal::Close) == Act::Close {
            self.closing.push_back((token, reason));
        }
    }

    /// Closes a connection once what is queued has been sent: then says FIN and waits for the peer's. Input is
    /// thrown away from here on. When this takes longer than `timeout_ms` the connection is closed as it is, with
    /// [`CloseReason::FlushTimeout`] if bytes were still queued, else with `reason`.
    pub fn close_after_flush(&mut self, token: Token, reason: CloseReason, timeout_ms: u64) {
        let Some(connection) = self.conns.get_mut(token) else {
            self.stats.stale_tokens += 1;
            return;
        };
        if !connection.phase().takes_output() {
            return;
        }
        connection.step(Signal::Drain);
        let deadline = self.patience.insert(
            self.now_ms.saturating_add(timeout_ms),
            Patience::Drain(token),
        );
        let extra = connection.extra_mut();
        extra.draining = Some(Draining { reason, deadline });
        extra.carry = Vec::new();
        let nothing_queued = extra.queue.is_empty();
        // The end of the peer's stream may wait unread behind a pause.
        connection.flags.clear(Flags::PAUSED);
        self.want(token, Interest::Both);
        self.queue_ready(token);
        if nothing_queued {
            self.advance(token, Signal::Flushed);
        }
    }

    /// Takes no more input from a connection until [`resume_reading`](Self::resume_reading): the peer's sends then
    /// fill the kernel's buffer and TCP slows it down. A FIN is noticed only after resuming; a reset at once.
    ///
    /// The kernel is told only when input comes during the pause, so one that ends before costs no system call.
    pub fn pause_reading(&mut self, token: Token) {
        if let Some(connection) = self.conns.get_mut(token)
            && !connection.phase().is_draining()
        {
            connection.flags.set(Flags::PAUSED);
            if let Some(extra) = &mut connection.extra {
                extra.paused_by_queue = false;
            }
        }
    }

    /// Takes input again. What the handler left unconsumed is presented once more, even if nothing new came.
    pub fn resume_reading(&mut self, token: Token) {
        let Some(connection) = self.conns.get_mut(token) else {
            return;
        };
        if connection.flags.take(Flags::PAUSED) {
            connection.flags.set(Flags::PRESENT_CARRY);
            self.want(token, Interest::Both);
            self.queue_ready(token);
        }
    }

    /// What goes along with a connection: its trace id and its deadline. `None` for a stale token.
    #[must_use]
    pub fn ctx(&self, token: Token) -> Option<Ctx> {
        let connection = self.conns.get(token)?;
        let extra = connection.extra.as_ref();
        let deadline = extra.and_then(|extra| extra.deadline.as_ref());
        Some(Ctx {
            token,
            trace_id: TraceId::new(&self.trace_key, token),
            deadline_ms: deadline.map(|deadline| deadline.at_ms),
        })
    }

    /// Closes a connection with [`CloseReason::DeadlinePassed`] at `deadline_ms` (on the clock of
    /// [`now_ms`](Self::now_ms)), whatever it is doing then; `None` takes an earlier deadline back. While one is set
    /// the connection holds about 150 bytes more. Does nothing to a stale token.
    pub fn set_deadline(&mut self, token: Token, deadline_ms: Option<u64>) {
        let Some(connection) = self.conns.get_mut(token) else {
            self.stats.stale_tokens += 1;
            return;
        };
        if let Some(old) = connection
            .extra
            .as_mut()
            .and_then(|extra| extra.deadline.take())
        {
            self.patience.cancel(old.timer);
        }
        let Some(at_ms) = deadline_ms else {
            return connection.trim();
        };
        let timer = self
            .patience
            .insert(at_ms.max(self.now_ms), Patience::Deadline(token));
        connection.extra_mut().deadline = Some(Deadline { at_ms, timer });
    }

    /// Calls [`Handler::timer`] at `deadline_ms` (on the clock of [`now_ms`](Self::now_ms)) or as soon after as this
    /// shard can, never before. A deadline that has passed is due at once.
    pub fn set_timer(&mut self, deadline_ms: u64, timer: H::Timer) -> TimerKey {
        let deadline_ms = deadline_ms.max(self.now_ms);
        TimerKey(self.timers.insert(deadline_ms, timer))
    }

    /// Takes a timer back; `None` when it has fired or was cancelled.
    pub fn cancel_timer(&mut self, key: TimerKey) -> Option<H::Timer> {
        self.timers.cancel(key.0)
    }

    /// Moves a timer; `false` when it has fired or was cancelled.
    pub fn reschedule_timer(&mut self, key: TimerKey, deadline_ms: u64) -> bool {
        self.timers.reschedule(key.0, deadline_ms.max(self.now_ms))
    }

    /// Starts a connection to `addr`, from the local address `bind` if given. When this returns `Ok`, exactly one
    /// of `opened(Connected)` and `connect_failed` follows, with this `tag`.
    ///
    /// # Errors
    /// What the kernel refuses at once (no descriptor, no route, no free port); `QuotaExceeded` when the shard has
    /// `Options::connections_max` connections; `ConnectionAborted` when it is stopping.
    pub fn connect(
        &mut self,
        addr: SocketAddr,
        bind: Option<SocketAddr>,
        tag: u64,
    ) -> io::Result<()> {
        if self.stopping {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the shard is stopping",
            ));
        }
        if self.conns.len() >= self.options.connections_max {
            return Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                "the shard has connections_max connections",
            ));
        }
        let fd = sys::connect(addr, bind, &self.options)?;
        self.stats.connects += 1;
        let Ok(token) = self.conns.insert(Connection::new(fd, Phase::Connecting)) else {
            return Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                "the shard's slab is full",
            ));
        };
        let connection = self.conns.get_mut(token).expect("inserted above");
        let deadline = self.patience.insert(
            self.now_ms.saturating_add(self.options.connect_timeout_ms),
            Patience::Connect(token),
        );
        connection.extra_mut().connecting = Some(Connecting { tag, deadline });
        self.want(token, Interest::Both);
        Ok(())
    }

    /// Closes this shard's listeners: the kernel refuses new connections once all shards did so.
    pub fn stop_accepting(&mut self) {
        for (index, listener) in self.listeners.drain(..).enumerate() {
            // Where shards share a listener it stays open elsewhere, so closing alone would not end its events.
            let token = Token::listener(index as u32);
            let _ = self
                .registry
                .change(listener.socket.as_fd(), token, Change::Delete);
        }
    }

    /// Ends this shard's loop after this turn: each connection is closed with [`CloseReason::Shutdown`].
    pub fn stop(&mut self) {
        self.stopping = true;
    }
}

impl<H: Handler> std::fmt::Debug for Io<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Io")
            .field("shard", &self.shard)
            .field("connections", &self.open)
            .finish_non_exhaustive()
    }
}
