//! A ring that overwrites, on the heap, for tests and the fuzz target.

#[cfg(test)]
use std::cell::Cell;
use std::sync::atomic::AtomicU64;
#[cfg(test)]
use std::sync::atomic::Ordering;

use super::Memory;
#[cfg(test)]
use crate::walk::{BUSY, DISCARD};

/// A ring and, in tests, the kernel's side of it.
pub(super) struct Fake {
    pub(super) consumer: AtomicU64,
    pub(super) producer: AtomicU64,
    pub(super) overwrite: AtomicU64,
    pub(super) words: Vec<AtomicU64>,
    /// After so many words were asked for, a record is pushed from the side.
    #[cfg(test)]
    pub(super) push_after: Cell<Option<u32>>,
    /// The next time that `overwrite` is asked for, ten records are pushed before.
    #[cfg(test)]
    pub(super) overrun_next_look: Cell<bool>,
    /// After the consumer's position was asked for so often, a record is pushed from the side.
    #[cfg(test)]
    pub(super) push_before_publishing: Cell<Option<u32>>,
    /// Whether the kernel would have woken somebody for that record.
    #[cfg(test)]
    pub(super) woke: Cell<bool>,
}

impl Fake {
    pub(super) fn new(size: usize, position: u64) -> Self {
        Self {
            consumer: AtomicU64::new(position),
            producer: AtomicU64::new(position),
            overwrite: AtomicU64::new(position),
            words: (0..size / 8).map(|_| AtomicU64::new(0)).collect(),
            #[cfg(test)]
            push_after: Cell::new(None),
            #[cfg(test)]
            overrun_next_look: Cell::new(false),
            #[cfg(test)]
            push_before_publishing: Cell::new(None),
            #[cfg(test)]
            woke: Cell::new(false),
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
}

impl Memory for &Fake {
    fn size(&self) -> u64 {
        Fake::size(self)
    }

    fn consumer(&self) -> &AtomicU64 {
        #[cfg(test)]
        if let Some(left) = self.push_before_publishing.get() {
            self.push_before_publishing.set(left.checked_sub(1));
            if left == 0 {
                let at = self.reserve(&[88], 0);
                self.woke.set(self.consumer.load(Ordering::Relaxed) == at);
            }
        }
        &self.consumer
    }

    fn producer(&self) -> &AtomicU64 {
        &self.producer
    }

    fn overwrite(&self) -> &AtomicU64 {
        #[cfg(test)]
        if self.overrun_next_look.take() {
            (0..10).for_each(|index| self.push(&[index]));
        }
        &self.overwrite
    }

    fn word(&self, position: u64) -> &AtomicU64 {
        #[cfg(test)]
        if let Some(left) = self.push_after.get() {
            self.push_after.set(left.checked_sub(1));
            if left == 0 {
                self.push(&[77; 5]);
            }
        }
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
