//! Who may fire a timer and who may cancel it: one atomic state per timer, in memory that callers and the shard
//! share.
//!
//! A cancelled slot is on its way back along two roads: the timer itself, which the shard finds in its commands or
//! its wheel, and the list of the cancelled, which the slot was put on by who cancelled. The shard frees the slot at
//! the end of both, in whatever order they end. The list goes through the slots themselves: it has room for all, so
//! that no cancellation is ever lost.

use std::boxed::Box;
use std::sync::OnceLock;
use std::vec::Vec;

use super::sync::{AtomicU32, AtomicU64, Ordering};

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
/// Cancelled, and neither road has ended.
const CANCELLED: u64 = 2;
/// Cancelled, and one road has ended.
const LEAVING: u64 = 3;

struct Slot {
    /// The generation times `STATES`, plus one of the states.
    state: AtomicU64,
    /// Index plus one of the next slot that is free, or cancelled, as this one is; 0 for none.
    next: AtomicU32,
}

/// Slots that are allocated at once. Few in a model, which watches each.
const CHUNK: usize = if cfg!(loom) { 2 } else { 4096 };

/// The slots of one shard.
pub(crate) struct Slots {
    chunks: Box<[OnceLock<Box<[Slot]>>]>,
    slots_max: u32,
    /// Slots from here on were never used.
    fresh: AtomicU32,
    /// A Treiber stack: the first free slot's index plus one below, above it a tag that changes with every push, so
    /// that a slot that left and came back is not mistaken for one that stayed.
    free: AtomicU64,
    /// The same of cancelled slots, with their number above. The shard takes all at once, so there is nothing to
    /// mistake.
    cancelled: AtomicU64,
}

/// Cancelled slots that the shard has taken.
#[derive(Default)]
pub(crate) struct Cancelled {
    /// Index plus one.
    first: u32,
}

impl Slots {
    pub(crate) fn new(slots_max: u32) -> Self {
        let chunks: Vec<_> = (0..(slots_max as usize).div_ceil(CHUNK))
            .map(|_| OnceLock::new())
            .collect();
        let slots = Slots {
            chunks: chunks.into_boxed_slice(),
            slots_max,
            fresh: AtomicU32::new(0),
            free: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
        };
        // What `OnceLock` orders, a model does not see.
        let at_once = if cfg!(loom) { slots_max } else { 0 };
        (0..at_once).for_each(|index| _ = slots.slot(index));
        slots
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

    /// Ends the wait on behalf of a handle: when the timer will not fire for that, how many cancelled slots the
    /// shard has to look at.
    pub(crate) fn cancel(&self, ticket: Ticket) -> Option<u32> {
        if !self.change(ticket, WAITING, CANCELLED) {
            return None;
        }
        let slot = self.slot(ticket.index);
        let mut top = self.cancelled.load(Ordering::Relaxed);
        loop {
            slot.next.store(top as u32, Ordering::Relaxed);
            let count = (top >> 32) + 1;
            // Release: the shard that takes the list sees `next` and the state.
            match self.cancelled.compare_exchange_weak(
                top,
                count << 32 | u64::from(ticket.index + 1),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(count as u32),
                Err(now) => top = now,
            }
        }
    }

    /// Whether slots were cancelled that the shard has not taken.
    pub(crate) fn has_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst) != 0
    }

    /// The next slot that was cancelled; for the shard, which keeps `taken` between calls. To be followed by
    /// [`part`](Self::part) or [`release`](Self::release).
    pub(crate) fn next_cancelled(&self, taken: &mut Cancelled) -> Option<Ticket> {
        if taken.first == 0 && self.has_cancelled() {
            taken.first = self.cancelled.swap(0, Ordering::Acquire) as u32;
        }
        let index = taken.first.checked_sub(1)?;
        let slot = self.slot(index);
        taken.first = slot.next.load(Ordering::Relaxed);
        let generation = slot.state.load(Ordering::Relaxed) / STATES;
        Some(Ticket { index, generation })
    }

    /// One of the roads of a cancelled slot has ended; frees it when the other had. For the shard.
    pub(crate) fn part(&self, ticket: Ticket) {
        if !self.change(ticket, CANCELLED, LEAVING) {
            self.release(ticket);
        }
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
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_ends_once() {
        let slots = Slots::new(2);
        let first = slots.take().expect("room");
        let second = slots.take().expect("room");
        assert!(slots.take().is_none());
        assert_eq!(slots.cancel(first), Some(1));
        assert!(slots.cancel(first).is_none() && !slots.claim(first));
        assert!(slots.claim(second) && slots.cancel(second).is_none());
        slots.release(second);
        let third = slots.take().expect("room");
        assert_eq!(third.index, second.index);
        assert!(slots.cancel(second).is_none() && slots.is_waiting(third));
    }

    #[test]
    fn a_cancelled_slot_is_free_when_timer_and_notice_have_come() {
        let slots = Slots::new(3);
        let tickets = [0; 3].map(|_| slots.take().expect("room"));
        for (ticket, count) in tickets.iter().zip(1..) {
            assert_eq!(slots.cancel(*ticket), Some(count));
        }
        let mut taken = Cancelled::default();
        let mut notices = Vec::new();
        while let Some(ticket) = slots.next_cancelled(&mut taken) {
            notices.push(ticket);
        }
        assert!(!slots.has_cancelled());
        assert!(notices.iter().eq(tickets.iter().rev()));
        for ticket in tickets {
            assert!(slots.take().is_none());
            slots.part(ticket);
            assert!(slots.take().is_none());
            slots.part(ticket);
            assert!(slots.take().is_some());
        }
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
