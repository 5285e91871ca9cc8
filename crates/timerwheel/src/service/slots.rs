//! Who may fire a timer and who may cancel it: one atomic state per timer, in memory that callers and the shard
//! share.

use std::boxed::Box;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::vec::Vec;

/// Names one timer of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) index: u32,
    /// Never used twice with the same index.
    generation: u64,
}

const STATES: u64 = 4;
const FREE: u64 = 0;
const WAITING: u64 = 1;
const CANCELLED: u64 = 2;

struct Slot {
    /// The generation times `STATES`, plus one of the states.
    state: AtomicU64,
    /// The next free slot's index plus one.
    next: AtomicU32,
}

const CHUNK: usize = 4096;

/// The slots of one shard.
pub(crate) struct Slots {
    chunks: Box<[OnceLock<Box<[Slot]>>]>,
    slots_max: u32,
    /// Slots from here on were never used.
    fresh: AtomicU32,
    /// A Treiber stack: the first free slot's index plus one below, above it a tag that changes with every push, so
    /// that a slot that left and came back is not mistaken for one that stayed.
    free: AtomicU64,
}

impl Slots {
    pub(crate) fn new(slots_max: u32) -> Self {
        let chunks: Vec<_> = (0..(slots_max as usize).div_ceil(CHUNK))
            .map(|_| OnceLock::new())
            .collect();
        Slots {
            chunks: chunks.into_boxed_slice(),
            slots_max,
            fresh: AtomicU32::new(0),
            free: AtomicU64::new(0),
        }
    }

    fn slot(&self, index: u32) -> &Slot {
        let chunk = self.chunks[index as usize / CHUNK].get_or_init(|| {
            (0..CHUNK)
                .map(|_| Slot {
                    state: AtomicU64::new(FREE),
                    next: AtomicU32::new(0),
                })
                .collect()
        });
        &chunk[index as usize % CHUNK]
    }

    /// Takes a free slot; `None` when `slots_max` are taken.
    pub(crate) fn take(&self) -> Option<Ticket> {
        let index = match self.pop() {
            Some(index) => index,
            None => self
                .fresh
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |fresh| {
                    (fresh < self.slots_max).then_some(fresh + 1)
                })
                .ok()?,
        };
        let slot = self.slot(index);
        let generation = slot.state.load(Ordering::Acquire) / STATES;
        slot.state
            .store(generation * STATES + WAITING, Ordering::Release);
        Some(Ticket { index, generation })
    }

    fn pop(&self) -> Option<u32> {
        let mut free = self.free.load(Ordering::Acquire);
        loop {
            let index = (free as u32).checked_sub(1)?;
            let next = self.slot(index).next.load(Ordering::Acquire);
            let rest = free >> 32 << 32 | u64::from(next);
            match self
                .free
                .compare_exchange_weak(free, rest, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return Some(index),
                Err(now) => free = now,
            }
        }
    }

    /// Gives a slot back; its tickets mean nothing from now on. Only the one who ended it may.
    pub(crate) fn release(&self, ticket: Ticket) {
        let slot = self.slot(ticket.index);
        slot.state
            .store((ticket.generation + 1) * STATES + FREE, Ordering::Release);
        let mut free = self.free.load(Ordering::Acquire);
        loop {
            slot.next.store(free as u32, Ordering::Release);
            let tag = (free >> 32).wrapping_add(1) << 32;
            match self.free.compare_exchange_weak(
                free,
                tag | u64::from(ticket.index + 1),
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return,
                Err(now) => free = now,
            }
        }
    }

    /// Ends the wait on behalf of the shard: true when the timer fires, false when it was cancelled before.
    pub(crate) fn claim(&self, ticket: Ticket) -> bool {
        self.change(ticket, WAITING, FREE)
    }

    /// Ends the wait on behalf of a handle: true when the timer will not fire.
    pub(crate) fn cancel(&self, ticket: Ticket) -> bool {
        self.change(ticket, WAITING, CANCELLED)
    }

    fn change(&self, ticket: Ticket, from: u64, to: u64) -> bool {
        let base = ticket.generation * STATES;
        self.slot(ticket.index)
            .state
            .compare_exchange(base + from, base + to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    pub(crate) fn is_waiting(&self, ticket: Ticket) -> bool {
        self.slot(ticket.index).state.load(Ordering::Acquire)
            == ticket.generation * STATES + WAITING
    }

    pub(crate) fn is_cancelled(&self, ticket: Ticket) -> bool {
        self.slot(ticket.index).state.load(Ordering::Acquire)
            == ticket.generation * STATES + CANCELLED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_ends_once() {
        let slots = Slots::new(2);
        let first = slots.take().expect("room");
        let second = slots.take().expect("room");
        assert!(slots.take().is_none());
        assert!(slots.cancel(first) && !slots.cancel(first) && !slots.claim(first));
        assert!(slots.claim(second) && !slots.cancel(second));
        slots.release(first);
        let third = slots.take().expect("room");
        assert_eq!(third.index, first.index);
        assert!(!slots.cancel(first) && slots.is_waiting(third));
    }

    #[test]
    fn many_threads_never_share_a_slot() {
        let slots = Slots::new(64);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let ticket = slots.take().expect("more slots than threads");
                        assert!(slots.claim(ticket));
                        slots.release(ticket);
                    }
                });
            }
        });
        assert!(slots.fresh.load(Ordering::Relaxed) <= 64);
    }
}
