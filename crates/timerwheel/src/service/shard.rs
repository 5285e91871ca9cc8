//! A shard: one thread, one wheel.

use std::num::NonZeroU64;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::vec::Vec;

use crossbeam_queue::ArrayQueue;
use hdrhistogram::Histogram;

use super::Config;
use super::sleeper::Sleeper;
use super::slots::{Slots, Ticket};
use crate::{Key, OrderedWheel};

/// The wheel's tick: about a millisecond. What one tick holds is ordered to the nanosecond.
const TICK_NS: NonZeroU64 = NonZeroU64::new(1 << 20).expect("not zero");

/// Commands taken, and timers fired, before the other kind has its turn.
const TURN: usize = 256;

pub(crate) enum Command<T> {
    Insert(Timer<T>),
    Cancel(Ticket),
}

pub(crate) struct Timer<T> {
    pub(crate) deadline_ns: u64,
    pub(crate) ticket: Ticket,
    pub(crate) value: T,
}

/// What callers and the shard's thread share.
pub(crate) struct Shared<T> {
    pub(crate) slots: Slots,
    pub(crate) commands: ArrayQueue<Command<T>>,
    pub(crate) sleeper: Sleeper,
    pub(crate) stop: AtomicBool,
    pub(crate) wakeups: AtomicU64,
    pub(crate) lateness_ns: Mutex<Histogram<u64>>,
}

pub(crate) struct Shard<'a, T, F> {
    shared: &'a Shared<T>,
    config: &'a Config,
    wheel: OrderedWheel<Timer<T>>,
    /// The wheel's keys by ticket.
    keys: Vec<Option<Key>>,
    fire: F,
}

impl<'a, T, F: FnMut(T)> Shard<'a, T, F> {
    pub(crate) fn new(shared: &'a Shared<T>, config: &'a Config, fire: F) -> Self {
        Shard {
            shared,
            config,
            wheel: OrderedWheel::with_tick(config.clock.now_ns(), TICK_NS),
            keys: Vec::new(),
            fire,
        }
    }

    pub(crate) fn run(&mut self) {
        while !self.shared.stop.load(Ordering::SeqCst) {
            let commands = self.take_commands();
            let fired = self.fire_due();
            if commands < TURN && fired < TURN {
                self.wait();
            }
        }
    }

    fn take_commands(&mut self) -> usize {
        for taken in 0..TURN {
            match self.shared.commands.pop() {
                None => return taken,
                Some(Command::Insert(timer)) => self.insert(timer),
                Some(Command::Cancel(ticket)) => self.cancel(ticket),
            }
        }
        TURN
    }

    fn insert(&mut self, timer: Timer<T>) {
        let ticket = timer.ticket;
        if !self.shared.slots.is_waiting(ticket) {
            // Cancelled on the way. The command to do so may still come, and will find the ticket spent.
            self.shared.slots.release(ticket);
            return;
        }
        let at = ticket.index as usize;
        if at >= self.keys.len() {
            self.keys.resize(at + 1, None);
        }
        self.keys[at] = Some(self.wheel.insert(timer.deadline_ns, (), timer));
    }

    fn cancel(&mut self, ticket: Ticket) {
        if self.shared.slots.is_cancelled(ticket)
            && let Some(key) = self.keys.get(ticket.index as usize).copied().flatten()
            && self.wheel.cancel(key).is_some()
        {
            self.shared.slots.release(ticket);
        }
    }

    fn fire_due(&mut self) -> usize {
        for fired in 0..TURN {
            let now_ns = self.config.clock.now_ns();
            let Some((_, timer)) = self.wheel.pop_due(now_ns) else {
                return fired;
            };
            let fires = self.shared.slots.claim(timer.ticket);
            self.shared.slots.release(timer.ticket);
            if fires {
                // A poisoned histogram is still one.
                let mut lateness = match self.shared.lateness_ns.lock() {
                    Ok(lateness) => lateness,
                    Err(poisoned) => poisoned.into_inner(),
                };
                lateness.saturating_record(now_ns.saturating_sub(timer.deadline_ns));
                drop(lateness);
                (self.fire)(timer.value);
            }
        }
        TURN
    }

    /// Sleeps, then spins, until the next timer may fire or there is something to do.
    fn wait(&mut self) {
        let shared = self.shared;
        let has_work = || !shared.commands.is_empty() || shared.stop.load(Ordering::SeqCst);
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
