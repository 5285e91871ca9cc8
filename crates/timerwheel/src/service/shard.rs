//! A shard: one thread, one wheel.

use std::io;
use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::vec::Vec;

use hdrhistogram::Histogram;

use super::sleeper::Sleeper;
use super::slots::{Cancelled, Slots, Ticket};
use super::sync::{ArrayQueue, AtomicBool, AtomicU64, Ordering};
use super::{Config, Refused};
use crate::{Key, OrderedWheel};

/// The wheel's tick: about a millisecond. What one tick holds is ordered to the nanosecond.
const TICK_NS: NonZeroU64 = NonZeroU64::new(1 << 20).expect("not zero");

/// New timers and cancelled ones taken, and timers fired, before the others have their turn.
const TURN: usize = 256;

pub(crate) struct Timer<T> {
    pub(crate) deadline_ns: u64,
    pub(crate) ticket: Ticket,
    pub(crate) value: T,
}

/// What callers and the shard's thread share.
pub(crate) struct Shared<T> {
    slots: Slots,
    inserts: ArrayQueue<Timer<T>>,
    sleeper: Sleeper,
    stop: AtomicBool,
    pub(crate) wakeups: AtomicU64,
    pub(crate) lateness_ns: Mutex<Histogram<u64>>,
}

impl<T> Shared<T> {
    pub(crate) fn new(config: &Config) -> io::Result<Self> {
        Ok(Shared {
            slots: Slots::new(config.timers_max),
            inserts: ArrayQueue::new(config.commands_max.max(1)),
            sleeper: Sleeper::new(config.clock)?,
            stop: AtomicBool::new(false),
            wakeups: AtomicU64::new(0),
            lateness_ns: Mutex::new(super::histogram()),
        })
    }

    /// Hands a timer to the shard, which need not wake up before `wake_ns` for it.
    pub(crate) fn insert(
        &self,
        deadline_ns: u64,
        wake_ns: u64,
        value: T,
    ) -> Result<Ticket, Refused<T>> {
        let Some(ticket) = self.slots.take() else {
            // The places of cancelled timers are free again when the shard has looked at them.
            if self.has_work() {
                self.sleeper.wake_now();
            }
            return Err(Refused::new(value, false));
        };
        let timer = Timer {
            deadline_ns,
            ticket,
            value,
        };
        if let Err(timer) = self.inserts.push(timer) {
            self.slots.release(ticket);
            self.sleeper.wake_now();
            return Err(Refused::new(timer.value, true));
        }
        let is_filling = self.inserts.len() > self.inserts.capacity() / 2;
        // `u64::MAX` is when a shard without timers would wake up: later than any.
        let wake_ns = if is_filling {
            0
        } else {
            wake_ns.min(u64::MAX - 1)
        };
        self.sleeper.wake_before(wake_ns);
        Ok(ticket)
    }

    /// True when the timer has not fired and never will.
    pub(crate) fn cancel(&self, ticket: Ticket) -> bool {
        let Some(cancelled) = self.slots.cancel(ticket) else {
            return false;
        };
        if cancelled as usize > self.inserts.capacity() / 2 {
            self.sleeper.wake_now();
        }
        true
    }

    pub(crate) fn is_waiting(&self, ticket: Ticket) -> bool {
        self.slots.is_waiting(ticket)
    }

    /// Ends the shard's thread.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.sleeper.wake();
    }

    /// Drops what the ended thread has not seen.
    pub(crate) fn drop_inserts(&self) {
        while self.inserts.pop().is_some() {}
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn has_work(&self) -> bool {
        !self.inserts.is_empty() || self.slots.has_cancelled()
    }
}

pub(crate) struct Shard<'a, T, F> {
    shared: &'a Shared<T>,
    config: &'a Config,
    wheel: OrderedWheel<Timer<T>>,
    /// The wheel's keys by ticket.
    keys: Vec<Option<Key>>,
    /// Taken from the callers and not looked at yet.
    cancelled: Cancelled,
    fire: F,
}

impl<'a, T, F: FnMut(T)> Shard<'a, T, F> {
    pub(crate) fn new(shared: &'a Shared<T>, config: &'a Config, fire: F) -> Self {
        Shard {
            shared,
            config,
            wheel: OrderedWheel::with_tick(config.clock.now_ns(), TICK_NS),
            keys: Vec::new(),
            cancelled: Cancelled::default(),
            fire,
        }
    }

    pub(crate) fn run(&mut self) {
        while !self.shared.is_stopped() {
            let inserted = self.take_inserts();
            let cancelled = self.take_cancelled();
            let fired = self.fire_due();
            if inserted.max(cancelled).max(fired) < TURN {
                self.wait();
            }
        }
    }

    fn take_inserts(&mut self) -> usize {
        for taken in 0..TURN {
            let Some(timer) = self.shared.inserts.pop() else {
                return taken;
            };
            self.insert(timer);
        }
        TURN
    }

    fn insert(&mut self, timer: Timer<T>) {
        let ticket = timer.ticket;
        if !self.shared.is_waiting(ticket) {
            // Cancelled on the way.
            self.shared.slots.part(ticket);
            return;
        }
        let at = ticket.index as usize;
        if at >= self.keys.len() {
            self.keys.resize(at + 1, None);
        }
        self.keys[at] = Some(self.wheel.insert(timer.deadline_ns, (), timer));
    }

    fn take_cancelled(&mut self) -> usize {
        for taken in 0..TURN {
            let Some(ticket) = self.shared.slots.next_cancelled(&mut self.cancelled) else {
                return taken;
            };
            // A slot's former timers have left the wheel, so their keys do no harm.
            let key = self.keys.get(ticket.index as usize).copied().flatten();
            if key.and_then(|key| self.wheel.cancel(key)).is_some() {
                self.shared.slots.release(ticket);
            } else {
                self.shared.slots.part(ticket);
            }
        }
        TURN
    }

    fn fire_due(&mut self) -> usize {
        for fired in 0..TURN {
            let now_ns = self.config.clock.now_ns();
            let Some((_, timer)) = self.wheel.pop_due(now_ns) else {
                return fired;
            };
            if !self.shared.slots.claim(timer.ticket) {
                // Cancelled, and the shard has not come to look at that.
                self.shared.slots.part(timer.ticket);
                continue;
            }
            self.shared.slots.release(timer.ticket);
            self.record(now_ns.saturating_sub(timer.deadline_ns));
            // Whatever it left behind is its own; the timers behind it are others'.
            let _ = catch_unwind(AssertUnwindSafe(|| (self.fire)(timer.value)));
        }
        TURN
    }

    fn record(&self, late_ns: u64) {
        // A poisoned histogram is still one.
        let lateness = self.shared.lateness_ns.lock();
        let mut lateness = lateness.unwrap_or_else(PoisonError::into_inner);
        lateness.saturating_record(late_ns);
    }

    /// Sleeps, then spins, until the next timer may fire or there is something to do.
    fn wait(&mut self) {
        let shared = self.shared;
        let has_work = || shared.has_work() || shared.is_stopped();
        let Some(deadline_ns) = self.wheel.look_ahead() else {
            self.sleep(u64::MAX, has_work);
            return;
        };
        let wake_ns = deadline_ns.saturating_add(self.config.slack_ns);
        let sleep_ns = wake_ns.saturating_sub(self.config.spin_ns);
        if sleep_ns > self.config.clock.now_ns() && self.sleep(sleep_ns, has_work) && has_work() {
            return;
        }
        let spins = |now_ns: u64| now_ns < wake_ns && wake_ns - now_ns <= self.config.spin_ns;
        while spins(self.config.clock.now_ns()) && !has_work() {
            core::hint::spin_loop();
        }
    }

    fn sleep(&self, until_ns: u64, has_work: impl Fn() -> bool) -> bool {
        let slept = self.shared.sleeper.sleep(until_ns, has_work);
        if slept {
            self.shared.wakeups.fetch_add(1, Ordering::Relaxed);
        }
        slept
    }
}
