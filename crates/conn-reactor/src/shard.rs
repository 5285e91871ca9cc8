//! One shard: its loop over events, messages and timers.

use std::collections::VecDeque;
use std::hash::RandomState;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use polling::Poller;
use timerwheel::Wheel;

use crate::interest::{Change, Interest};
use crate::io::{Listener, Patience};
use crate::mailbox::{Mailbox, Sender};
use crate::platform::{RawEvent, Registry};
use crate::slab::Slab;
use crate::steps::{CLOSING_KEPT, LIST_KEPT};
use crate::{CloseReason, Handler, Io, Options, Stats, TimerKey, Token};

/// One shard that does not run yet. [`Reactor::run`](crate::Reactor::run) gives each a thread of its own; to embed a
/// shard in a thread that exists already, take it from [`Reactor::into_shards`](crate::Reactor::into_shards).
pub struct Shard<H: Handler> {
    pub(crate) index: usize,
    pub(crate) handler: H,
    pub(crate) options: Options,
    pub(crate) epoch: Instant,
    pub(crate) listeners: Vec<Arc<OwnedFd>>,
    pub(crate) poller: Arc<Poller>,
    pub(crate) mailbox: Mailbox<H::Message>,
}

impl<H: Handler> Shard<H> {
    /// The shard's index, from 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Sends messages to this shard.
    #[must_use]
    pub fn sender(&self) -> Sender<H::Message> {
        self.mailbox.sender()
    }

    /// Runs the shard on the calling thread until it stops, and returns its handler.
    ///
    /// # Errors
    /// The poller cannot be used or a listener not be watched; nothing a peer does is an error here.
    ///
    /// # Panics
    /// When the handler panics; every descriptor is closed then, and senders are told `Stopped`.
    pub fn run_on_this_thread(self) -> io::Result<H> {
        self.start()?.run()
    }

    /// Watches what is there to be watched.
    pub(crate) fn start(self) -> io::Result<Running<H>> {
        let registry = Registry::new(self.poller, self.options.event_batch);
        for (index, listener) in self.listeners.iter().enumerate() {
            let token = Token::listener(index as u32);
            registry.change(listener.as_fd(), token, Change::Add(Interest::Both))?;
        }
        if let Some(source) = self.mailbox.waker().source() {
            registry.change(source, Token::waker(), Change::Add(Interest::Both))?;
        }
        let listeners = self
            .listeners
            .into_iter()
            .map(|socket| Listener {
                socket,
                pending: true,
            })
            .collect();
        let mut io = Io {
            conns: Slab::new(self.options.connections_max),
            registry,
            timers: Wheel::new(0),
            patience: Wheel::new(0),
            ready: Vec::with_capacity(LIST_KEPT),
            changed: Vec::with_capacity(LIST_KEPT),
            closing: VecDeque::with_capacity(CLOSING_KEPT),
            listeners,
            accept_retry: None,
            stats: Stats::default(),
            epoch: self.epoch,
            now_ms: 0,
            trace_key: RandomState::new(),
            shard: self.index,
            open: 0,
            stopping: false,
            options: self.options,
        };
        io.update_now();
        let buffer = vec![0; io.options.read_buffer_bytes].into_boxed_slice();
        let events = Vec::with_capacity(io.options.event_batch);
        Ok(Running {
            handler: self.handler,
            io,
            buffer,
            events,
            messages: VecDeque::new(),
            mailbox: self.mailbox,
            timers_left: false,
        })
    }
}

impl<H: Handler> std::fmt::Debug for Shard<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard")
            .field("index", &self.index)
            .field("listeners", &self.listeners.len())
            .finish_non_exhaustive()
    }
}

/// Far from every overflow, and from what some kernels refuse (Apple's kevent: above 100,000,000 s); to return early is only
/// one more turn.
const WAIT_MAX_MS: u64 = 3_600_000;

/// A shard on its thread.
pub(crate) struct Running<H: Handler> {
    pub(crate) handler: H,
    pub(crate) io: Io<H>,
    /// Where every connection's input is read to.
    pub(crate) buffer: Box<[u8]>,
    /// What the last wait fetched.
    pub(crate) events: Vec<RawEvent>,
    /// Messages taken from the mailbox and not delivered yet.
    messages: VecDeque<H::Message>,
    mailbox: Mailbox<H::Message>,
    /// The last turn's timers were more than its share.
    timers_left: bool,
}

impl<H: Handler> Running<H> {
    fn run(mut self) -> io::Result<H> {
        self.begin();
        while !self.io.stopping {
            let timeout_ms = self.timeout_ms();
            self.turn(timeout_ms)?;
        }
        self.close_everything();
        Ok(self.handler)
    }

    /// Tells the handler that the loop begins.
    pub(crate) fn begin(&mut self) {
        self.handler.started(&mut self.io);
        self.finish_closes();
    }

    /// Waits for events at most `timeout_ms` (`None`: as long as it takes) and does what they and the time ask for.
    pub(crate) fn turn(&mut self, timeout_ms: Option<u64>) -> io::Result<()> {
        self.wait(timeout_ms)?;
        self.serve_all();
        self.accept();
        self.deliver_messages();
        self.fire_timers();
        self.handler.turn_ended(&mut self.io);
        self.finish_closes();
        self.tell_kernel();
        self.io.end_turn();
        Ok(())
    }

    /// Waits for events.
    fn wait(&mut self, timeout_ms: Option<u64>) -> io::Result<()> {
        self.io.stats.waits += 1;
        let timeout_ms = timeout_ms.map(|timeout_ms| timeout_ms.min(WAIT_MAX_MS));
        self.io.registry.wait(&mut self.events, timeout_ms)?;
        self.io.stats.events += self.events.len() as u64;
        self.mailbox.wake_up();
        self.io.update_now();
        Ok(())
    }

    /// How long to wait: not at all while there is work, else until the next deadline, rounded up.
    pub(crate) fn timeout_ms(&self) -> Option<u64> {
        let busy = !self.io.ready.is_empty()
            || !self.io.changed.is_empty()
            || !self.messages.is_empty()
            || self.timers_left
            || self.can_accept();
        if busy || !self.mailbox.fall_asleep() {
            return Some(0);
        }
        let own = self.io.patience.next_deadline();
        let deadline_ms = own
            .into_iter()
            .chain(self.io.timers.next_deadline())
            .min()?;
        let elapsed_us = u64::try_from(self.io.epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
        Some(
            deadline_ms
                .saturating_mul(1000)
                .saturating_sub(elapsed_us)
                .div_ceil(1000),
        )
    }

    fn deliver_messages(&mut self) {
        if self.messages.is_empty() {
            let stop = self
                .mailbox
                .take(&mut self.messages, self.io.options.message_batch);
            self.io.stopping |= stop;
        }
        while let Some(message) = self.messages.pop_front() {
            self.io.stats.messages += 1;
            self.handler.message(&mut self.io, message);
            self.finish_closes();
        }
    }

    fn fire_timers(&mut self) {
        let now_ms = self.io.now_ms;
        for _ in 0..self.io.options.timer_batch {
            if let Some((_, ended)) = self.io.patience.pop_due(now_ms) {
                self.end_patience(ended);
            } else if let Some((key, deadline_ms, timer)) =
                self.io.timers.pop_due_with_deadline(now_ms)
            {
                self.io.stats.timers_fired += 1;
                let late_us = (now_ms - deadline_ms) * 1000 + self.io.turn_fraction_us();
                self.io.stats.timer_lateness.record(late_us);
                self.handler.timer(&mut self.io, TimerKey(key), timer);
            } else {
                self.timers_left = false;
                return;
            }
            self.finish_closes();
        }
        self.timers_left = true;
    }

    fn end_patience(&mut self, ended: Patience) {
        match ended {
            Patience::Drain(token) => self.io.drain_timed_out(token),
            Patience::Connect(token) => {
                self.connect_failed(token, io::ErrorKind::TimedOut.into());
            }
            Patience::Deadline(token) => self.io.close(token, CloseReason::DeadlinePassed),
            Patience::AcceptRetry => self.io.accept_retry = None,
        }
    }
}
