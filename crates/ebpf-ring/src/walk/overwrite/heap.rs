//! A ring that overwrites, on the heap, for tests and the fuzz target.

use std::sync::atomic::AtomicU64;
#[cfg(test)]
use std::sync::atomic::Ordering;
#[cfg(test)]
use std::{cell::RefCell, collections::VecDeque};

use super::Memory;
#[cfg(test)]
use crate::walk::{BUSY, DISCARD};

/// After so many more accesses of the walker, this happens.
#[cfg(test)]
type Event = (u32, Box<dyn FnOnce(&Fake)>);

/// A ring and, in tests, the kernel's side of it.
pub(super) struct Fake {
    pub(super) consumer: AtomicU64,
    pub(super) producer: AtomicU64,
    pub(super) overwrite: AtomicU64,
    pub(super) words: Vec<AtomicU64>,
    /// What producers do while the walker is at work.
    #[cfg(test)]
    pending: RefCell<VecDeque<Event>>,
}

impl Fake {
    pub(super) fn new(size: usize, position: u64) -> Self {
        Self {
            consumer: AtomicU64::new(position),
            producer: AtomicU64::new(position),
            overwrite: AtomicU64::new(position),
            words: (0..size / 8).map(|_| AtomicU64::new(0)).collect(),
            #[cfg(test)]
            pending: RefCell::default(),
        }
    }

    fn at(&self, position: u64) -> &AtomicU64 {
        assert!(position.is_multiple_of(8), "a word at {position}");
        &self.words[(position / 8) as usize % self.words.len()]
    }

    fn size(&self) -> u64 {
        self.words.len() as u64 * 8
    }
}

#[cfg(test)]
impl Fake {
    fn header(&self, position: u64) -> u32 {
        let [a, b, c, d, ..] = self.at(position).load(Ordering::Relaxed).to_ne_bytes();
        u32::from_ne_bytes([a, b, c, d])
    }

    pub(super) fn set_header(&self, position: u64, word: u32) {
        let [a, b, c, d] = word.to_ne_bytes();
        let header = u64::from_ne_bytes([a, b, c, d, 0, 0, 0, 0]);
        self.at(position).store(header, Ordering::Relaxed);
    }

    /// As __bpf_ringbuf_reserve(): room is made of whole records, the oldest first.
    pub(super) fn reserve(&self, words: &[u64], bits: u32) -> u64 {
        let position = self.producer.load(Ordering::Relaxed);
        let next = position.wrapping_add(8 + words.len() as u64 * 8);
        let mut oldest = self.overwrite.load(Ordering::Relaxed);
        while next.wrapping_sub(oldest) > self.size() - 1 {
            let len = self.header(oldest) & !(BUSY | DISCARD);
            oldest = oldest.wrapping_add((u64::from(len) + 8).next_multiple_of(8));
        }
        self.overwrite.store(oldest, Ordering::Relaxed);
        self.set_header(position, (words.len() as u32 * 8) | bits);
        for (index, word) in words.iter().enumerate() {
            let at = position.wrapping_add(8 + index as u64 * 8);
            self.at(at).store(*word, Ordering::Relaxed);
        }
        self.producer.store(next, Ordering::Release);
        position
    }

    pub(super) fn push(&self, words: &[u64]) {
        self.reserve(words, 0);
    }

    /// Hands a record that is `BUSY` over: whether the kernel wakes the consumer for it.
    pub(super) fn commit(&self, position: u64) -> bool {
        self.set_header(position, self.header(position) & !BUSY);
        self.consumer.load(Ordering::Relaxed) == position
    }

    /// After `accesses` more of the walker, counted from the event before, `event` happens.
    pub(super) fn after(&self, accesses: u32, event: impl FnOnce(&Self) + 'static) {
        let mut pending = self.pending.borrow_mut();
        pending.push_back((accesses, Box::new(event)));
    }

    /// Whether all that was to happen has happened.
    pub(super) fn is_quiet(&self) -> bool {
        self.pending.borrow().is_empty()
    }

    fn accessed(&self) {
        loop {
            let mut pending = self.pending.borrow_mut();
            match pending.front_mut() {
                Some((accesses @ 1.., _)) => return *accesses -= 1,
                None => return,
                Some(_) => {}
            }
            let event = pending.pop_front();
            drop(pending);
            if let Some((_, happen)) = event {
                happen(self);
            }
        }
    }
}

impl Memory for &Fake {
    fn size(&self) -> u64 {
        Fake::size(self)
    }

    fn consumer(&self) -> &AtomicU64 {
        #[cfg(test)]
        self.accessed();
        &self.consumer
    }

    fn producer(&self) -> &AtomicU64 {
        #[cfg(test)]
        self.accessed();
        &self.producer
    }

    fn overwrite(&self) -> &AtomicU64 {
        #[cfg(test)]
        self.accessed();
        &self.overwrite
    }

    fn word(&self, position: u64) -> &AtomicU64 {
        #[cfg(test)]
        self.accessed();
        self.at(position)
    }
}

/// Every way over memory that says anything: the asserts of `at` find a step out of it, and each walk
/// must end. `positions`: of consumer, overwriting and producer.
#[cfg(fuzzing)]
pub(crate) fn walk_hostile_overwriting(positions: [u64; 3], words: &[u64]) {
    use super::{Skipped, behind, consumer, drain, look, pending};
    use std::sync::atomic::Ordering;

    let fake = Fake::new(words.len().next_power_of_two() * 8, 0);
    let [consumer_pos, overwrite_pos, producer_pos] = positions;
    fake.consumer.store(consumer_pos, Ordering::Relaxed);
    fake.overwrite.store(overwrite_pos, Ordering::Relaxed);
    fake.producer.store(producer_pos, Ordering::Relaxed);
    for (to, word) in fake.words.iter().zip(words) {
        to.store(*word, Ordering::Relaxed);
    }
    let Ok(mut consumer) = consumer(&fake) else {
        return;
    };
    let _ = look(&fake, consumer.position);
    let _ = behind(&fake, consumer.position);
    let counted = pending(&fake, consumer.position);
    let (mut skipped, mut records) = (Skipped::default(), 0);
    let _ = drain(
        &fake,
        &mut consumer,
        &mut skipped,
        &mut Vec::new(),
        u64::MAX,
        |_| records += 1,
    );
    assert!(records <= fake.words.len());
    assert_eq!(consumer.records, records as u64);
    if let Ok(counted) = counted {
        assert!(consumer.records + consumer.discarded <= counted.records + counted.discarded);
    }
}
