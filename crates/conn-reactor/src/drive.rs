//! How connections of a running shard begin, move bytes and end.
//!
//! From [`Running::serve_all`] down to the system calls the ways of a round trip, of an accept and of a close are `inline(always)`. The kernel's own
//! calls push a user's return addresses out of the processor's return stack, so each `ret` to a frame that was there
//! before a system call is mispredicted: 0.5 us on the processor that the benches run on, of 4 us for a whole round trip.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;

use rustix::io::Errno;

use crate::budget::Budget;
use crate::conn::Connection;
use crate::flags::Flags;
use crate::interest::Interest;
use crate::phase::{Act, Phase, Signal};
use crate::platform::Event;
use crate::shard::Running;
use crate::slab::shrunk;
use crate::steps::LIST_KEPT;
use crate::token::Source;
use crate::{CloseReason, Handler, Opened, Token, platform, sys};

impl<H: Handler> Running<H> {
    fn may_accept(&self) -> bool {
        self.io.accept_retry.is_none()
            && !self.io.stopping
            && self.io.conns.len() < self.io.options.connections_max
    }

    pub(crate) fn can_accept(&self) -> bool {
        self.may_accept() && self.io.listeners.iter().any(|listener| listener.pending)
    }

    pub(crate) fn accept(&mut self) {
        let mut index = 0;
        while index < self.io.listeners.len() {
            for _ in 0..self.io.options.accept_batch {
                if !self.may_accept()
                    || !self
                        .io
                        .listeners
                        .get(index)
                        .is_some_and(|listener| listener.pending)
                {
                    break;
                }
                self.accept_one(index);
            }
            index += 1;
        }
    }

    fn accept_one(&mut self, index: usize) {
        let listener = &mut self.io.listeners[index];
        match platform::accept(listener.socket.as_fd(), &self.io.options) {
            Ok((fd, peer)) => {
                self.io.stats.accepts += 1;
                let peer = peer.unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
                let connection = Connection::new(fd, Phase::Open);
                let Ok(token) = self.io.conns.insert(connection) else {
                    return;
                };
                self.io.want(token, Interest::Both);
                self.opened(
                    token,
                    Opened::Accepted {
                        listener: index,
                        peer,
                    },
                );
                self.finish_closes();
            }
            Err(Errno::AGAIN) => listener.pending = false,
            Err(error) => {
                self.io.stats.accept_errors += 1;
                if !took_a_connection(error) {
                    self.io.pause_accepting();
                }
            }
        }
    }

    /// Tells the handler about a new connection and keeps what it answers.
    fn opened(&mut self, token: Token, opened: Opened) {
        let conn = self.handler.opened(&mut self.io, token, opened);
        let connection = self
            .io
            .conns
            .get_mut(token)
            .expect("closes wait until the callback has returned");
        match conn {
            Some(conn) => {
                connection.conn = Some(conn);
                self.io.open += 1;
            }
            None => self.io.close(token, CloseReason::Local(0)),
        }
    }

    /// Serves each connection that has an event or was left unfinished by the turn before, once.
    ///
    /// An event is noted in its slot and served at once, while the slot is in the cache: between its event and its end
    /// a batch goes through some megabytes of the kernel's memory.
    pub(crate) fn serve_all(&mut self) {
        let mut unfinished = std::mem::take(&mut self.io.ready);
        let events = self.events.len();
        for at in 0..events + unfinished.len() {
            let token = match self.events.get(at) {
                None => unfinished[at - events],
                Some(event) => match self.note(Event::from(*event)) {
                    Some(token) => token,
                    None => continue,
                },
            };
            self.serve(token);
            self.close_what_was_asked();
        }
        unfinished.clear();
        // What is unfinished now stands in the new list.
        if self.io.ready.is_empty() {
            self.io.ready = shrunk(unfinished, LIST_KEPT);
        }
    }

    /// Notes what an event says. Returns the connection to serve now, if it does not have its place in this turn anyway.
    #[inline(always)]
    fn note(&mut self, event: Event) -> Option<Token> {
        match event.token.source() {
            Source::Connection(token) => {
                let Some(connection) = self.io.conns.get_mut(token) else {
                    self.io.stats.stale_tokens += 1;
                    return None;
                };
                let flags = &mut connection.flags;
                flags.note(event);
                (!flags.has(Flags::QUEUED)).then_some(token)
            }
            Source::Listener(index) => {
                self.io.listeners.get_mut(index)?.pending = true;
                None
            }
            Source::Waker => None,
        }
    }

    #[inline(always)]
    fn serve(&mut self, token: Token) {
        let Some(connection) = self.io.conns.get_mut(token) else {
            return;
        };
        connection.flags.clear(Flags::QUEUED);
        let budget = Budget::new(
            self.io.options.turn_budget_bytes,
            self.io.stats.bytes_moved(),
        );
        if connection.phase() == Phase::Connecting {
            connection.flags.clear(Flags::WRITABLE);
            self.finish_connect(token);
        } else if connection.flags.take(Flags::WRITABLE)
            && connection.extra.is_some()
            && self.io.flush(token, budget)
        {
            self.handler.drained(&mut self.io, token);
        }
        // Bytes may have come with the event that ended a connect.
        self.read(token, budget);
    }

    /// Reads until nothing is left or the connection's share of the turn is used up.
    #[inline(always)]
    fn read(&mut self, token: Token, budget: Budget) {
        let mut carry_presented = false;
        loop {
            let Some(connection) = self.io.conns.get_mut(token) else {
                return;
            };
            let phase = connection.phase();
            if !phase.reads() {
                return;
            }
            let (fd, flags) = connection.parts();
            if flags.has(Flags::PAUSED) {
                return self.look_at_paused(token);
            }
            if !flags.has(Flags::INPUT) {
                return;
            }
            let step = budget.step(self.io.stats.bytes_moved());
            if step == 0 {
                // No new edge will come for what is left.
                return self.io.queue_ready(token);
            }
            let count = if flags.has(Flags::PRESENT_CARRY) {
                if std::mem::replace(&mut carry_presented, true) {
                    // Resumed by what it was presented to. That moves no bytes, so no budget would end it; it has its
                    // place in the next turn.
                    return;
                }
                flags.clear(Flags::PRESENT_CARRY);
                0
            } else {
                self.io.stats.reads += 1;
                let room = step.min(self.buffer.len());
                match sys::recv(fd, &mut self.buffer[..room]) {
                    Ok(0) => {
                        flags.clear(Flags::READABLE);
                        return self.peer_finished(token);
                    }
                    Ok(count) => {
                        flags.after_read(count, room);
                        count
                    }
                    Err(Errno::AGAIN) => return flags.clear(Flags::READABLE),
                    Err(error) => return self.io.close(token, CloseReason::of(error)),
                }
            };
            self.io.stats.bytes_in += count as u64;
            if phase.presents_input() {
                self.present(token, count);
            }
        }
    }

    /// Nobody reads, so an error would wait unseen; a FIN may wait until reading resumes. Input that comes meanwhile
    /// shall wake the shard no more.
    #[inline(never)]
    fn look_at_paused(&mut self, token: Token) {
        let Some(connection) = self.io.conns.get(token) else {
            return;
        };
        if connection.flags.has(Flags::TO_THE_END)
            && let Some(error) = sys::pending_error(connection.fd())
        {
            self.io.close(token, CloseReason::of(error));
        } else if connection.flags.has(Flags::READABLE) {
            self.io.want(token, Interest::Output);
        }
    }

    /// Shows the handler `count` new bytes of the buffer, behind what it left before, and keeps what it leaves now.
    ///
    /// The one place that calls [`Handler::data`]: a small one is then inlined without being asked to.
    #[inline(always)]
    fn present(&mut self, token: Token, count: usize) {
        let fresh = &self.buffer[..count];
        let joined = self.io.join_carry(token, fresh);
        let input = joined.as_deref().unwrap_or(fresh);
        if input.is_empty() {
            return;
        }
        let consumed = self.handler.data(&mut self.io, token, input);
        assert!(
            consumed <= input.len(),
            "Handler::data consumed {consumed} of {} bytes",
            input.len()
        );
        match joined {
            Some(joined) => self.io.keep_carry(token, joined, consumed),
            None if consumed == count => {}
            None => self.io.keep_carry(token, fresh[consumed..].to_vec(), 0),
        }
    }

    /// The peer's FIN was read: what is queued is still sent, then the connection closes.
    fn peer_finished(&mut self, token: Token) {
        if self.io.advance(token, Signal::PeerFinished) == Act::TellPeerFinished {
            self.handler.peer_finished(&mut self.io, token);
            self.io.end_after_peer(token);
        }
    }

    /// Something happened to an own connect: it is done, or it failed, or neither yet.
    fn finish_connect(&mut self, token: Token) {
        let Some(connection) = self.io.conns.get_mut(token) else {
            return;
        };
        let peer = match sys::connect_result(connection.fd()) {
            None => return,
            Some(Err(error)) => return self.connect_failed(token, error),
            Some(Ok(peer)) => peer,
        };
        connection.step(Signal::Connected);
        let connecting = connection
            .extra
            .as_mut()
            .and_then(|extra| extra.connecting.take());
        let connecting = connecting.expect("set as long as the phase is Connecting");
        connection.trim();
        self.io.patience.cancel(connecting.deadline);
        self.opened(
            token,
            Opened::Connected {
                tag: connecting.tag,
                peer,
            },
        );
    }

    pub(crate) fn connect_failed(&mut self, token: Token, error: io::Error) {
        let Some(connection) = self.io.conns.remove(token) else {
            return;
        };
        self.io.forget(&connection);
        let (extra, _) = connection.shut();
        let connecting = extra.and_then(|extra| extra.connecting);
        let connecting = connecting.expect("only a connecting connection comes here");
        self.io.patience.cancel(connecting.deadline);
        self.io.stats.connect_errors += 1;
        self.io.resume_accepting();
        self.handler
            .connect_failed(&mut self.io, connecting.tag, error);
    }

    /// Closes what callbacks asked to close. A callback never runs inside another one: this is called between them.
    #[inline(never)]
    pub(crate) fn finish_closes(&mut self) {
        self.close_what_was_asked();
    }

    #[inline(always)]
    fn close_what_was_asked(&mut self) {
        while let Some((token, reason)) = self.io.closing.pop_front() {
            let Some(connection) = self.io.conns.remove(token) else {
                continue;
            };
            self.io.forget(&connection);
            let (extra, conn) = connection.shut();
            if let Some(extra) = extra {
                for timer in extra.timers() {
                    self.io.patience.cancel(timer);
                }
            }
            self.io.resume_accepting();
            self.io.stats.closes += 1;
            if let Some(conn) = conn {
                self.io.open -= 1;
                self.handler.closed(&mut self.io, token, conn, reason);
            }
        }
    }

    /// Tells the kernel what it shall watch from the next wait on. What callbacks ask for meanwhile waits for the next turn.
    pub(crate) fn tell_kernel(&mut self) {
        let mut changed = std::mem::take(&mut self.io.changed);
        for token in changed.drain(..) {
            let Err(error) = self.io.tell_kernel(token) else {
                continue;
            };
            if self.io.is_connecting(token) {
                self.connect_failed(token, error);
            } else {
                let code = error.raw_os_error().unwrap_or(0);
                self.io.close(token, CloseReason::Io(code));
                self.finish_closes();
            }
        }
        if self.io.changed.is_empty() {
            self.io.changed = shrunk(changed, LIST_KEPT);
        }
    }

    pub(crate) fn close_everything(&mut self) {
        self.io.stop_accepting();
        for token in self.io.conns.tokens() {
            if self.io.is_connecting(token) {
                self.connect_failed(
                    token,
                    io::Error::new(io::ErrorKind::ConnectionAborted, "the shard stopped"),
                );
            } else if self.io.conns.get(token).is_some() {
                self.io.close(token, CloseReason::Shutdown);
            }
            self.finish_closes();
        }
    }
}

/// Whether a failed accept took a connection that died in the backlog, or whose network did: the next one is another
/// (accept(2)). Everything else would fail again at once: descriptors or memory have run out, a security module says
/// no, the listener is broken.
fn took_a_connection(error: Errno) -> bool {
    matches!(
        error,
        Errno::CONNABORTED
            | Errno::INTR
            | Errno::PROTO
            | Errno::NOPROTOOPT
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::TIMEDOUT
            | Errno::CONNRESET
    )
}

// Elsewhere a listener cannot be shut down.
#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    use std::net::{Ipv4Addr, TcpStream};
    use std::os::fd::AsFd;
    use std::time::Duration;

    use rustix::net::{Shutdown, shutdown};

    use crate::{CloseReason, Handler, Io, Opened, Options, Reactor, Stats, TimerKey, Token};

    /// Answers its messages with what was counted.
    struct Quiet;

    impl Handler for Quiet {
        type Conn = ();
        type Timer = ();
        type Message = std::sync::mpsc::Sender<Stats>;

        fn opened(&mut self, _: &mut Io<Self>, _: Token, _: Opened) -> Option<()> {
            None
        }

        fn data(&mut self, _: &mut Io<Self>, _: Token, input: &[u8]) -> usize {
            input.len()
        }

        fn closed(&mut self, _: &mut Io<Self>, _: Token, (): (), _: CloseReason) {}

        fn connect_failed(&mut self, _: &mut Io<Self>, _: u64, _: std::io::Error) {}

        fn timer(&mut self, _: &mut Io<Self>, _: TimerKey, (): ()) {}

        fn message(&mut self, io: &mut Io<Self>, answer: Self::Message) {
            answer
                .send(io.stats().clone())
                .expect("the test waits for it");
        }
    }

    #[test]
    fn a_listener_that_is_broken_does_not_make_the_loop_spin() {
        let options = Options {
            shards: 1,
            accept_retry_ms: 20,
            ..Options::default()
        };
        let reactor = Reactor::builder(options)
            .listen((Ipv4Addr::LOCALHOST, 0).into())
            .build(|_| Quiet)
            .unwrap();
        let (addr, senders) = (reactor.local_addrs()[0], reactor.senders());
        let shards = reactor.into_shards();
        // Its accept says EINVAL from now on.
        shutdown(shards[0].listeners[0].as_fd(), Shutdown::Both).unwrap();
        assert!(TcpStream::connect(addr).is_err());
        let threads: Vec<_> = shards
            .into_iter()
            .map(|shard| std::thread::spawn(|| shard.run_on_this_thread().map(drop)))
            .collect();
        let stats = || {
            let (stats_in, stats) = std::sync::mpsc::channel();
            senders[0].try_send(stats_in).unwrap();
            stats.recv_timeout(Duration::from_secs(120)).unwrap()
        };
        let paused = (0..24_000).any(|_| {
            std::thread::sleep(Duration::from_millis(5));
            stats().accept_pauses >= 3
        });
        let stats = stats();
        assert!(paused, "{} errors and no pause", stats.accept_errors);
        assert_eq!(stats.accept_errors, stats.accept_pauses, "one try a pause");
        senders[0].stop();
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
    }
}
