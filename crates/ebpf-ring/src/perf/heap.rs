//! A perf buffer without a kernel, for tests and the fuzz target.

use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(test)]
use super::walk::Consumer;
use super::walk::Memory;

/// A perf buffer on the heap and the kernel's side of it.
pub(super) struct Fake {
    pub(super) head: AtomicU64,
    pub(super) tail: AtomicU64,
    pub(super) data: Vec<u8>,
}

impl Fake {
    pub(super) fn new(size: usize, position: u64) -> Self {
        Self {
            head: AtomicU64::new(position),
            tail: AtomicU64::new(position),
            data: vec![0; size],
        }
    }
}

#[cfg(test)]
impl Fake {
    /// Writes bytes at the head, whatever they say, and moves it.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        assert_eq!(bytes.len() % 8, 0);
        let head = *self.head.get_mut();
        let next = head.wrapping_add(bytes.len() as u64);
        assert!(next.wrapping_sub(*self.tail.get_mut()) <= self.data.len() as u64);
        for (index, byte) in bytes.iter().enumerate() {
            let at = head.wrapping_add(index as u64) & (self.data.len() as u64 - 1);
            self.data[at as usize] = *byte;
        }
        *self.head.get_mut() = next;
    }

    /// As perf_prepare_sample(): the raw bytes fill the last word.
    pub(super) fn push_sample(&mut self, raw: &[u8]) {
        let size = (12 + raw.len()).next_multiple_of(8);
        let mut bytes = record(9, size as u16);
        bytes.extend(((size - 12) as u32).to_ne_bytes());
        bytes.extend(raw);
        bytes.resize(size, 0);
        self.push(&bytes);
    }

    pub(super) fn push_lost(&mut self, lost: u64) {
        let mut bytes = record(2, 24);
        bytes.extend(7u64.to_ne_bytes());
        bytes.extend(lost.to_ne_bytes());
        self.push(&bytes);
    }

    pub(super) fn consumer(&self) -> Consumer {
        Consumer::new(self).expect("a sound buffer")
    }
}

impl Memory for &Fake {
    fn size(&self) -> u64 {
        self.data.len() as u64
    }

    fn head(&self) -> &AtomicU64 {
        &self.head
    }

    fn tail(&self) -> &AtomicU64 {
        &self.tail
    }

    fn bytes(&self, position: u64, len: u64) -> &[u8] {
        let used = self.head.load(Ordering::Relaxed).wrapping_sub(position);
        assert!(len <= used, "{len} bytes at {position} are beyond the head");
        let at = (position & (self.data.len() as u64 - 1)) as usize;
        &self.data[at..at + len as usize]
    }
}

/// A header.
#[cfg(test)]
pub(super) fn record(kind: u32, size: u16) -> Vec<u8> {
    let mut bytes = kind.to_ne_bytes().to_vec();
    bytes.extend([0; 2]);
    bytes.extend(size.to_ne_bytes());
    bytes
}

/// Every way over a buffer that says anything: the asserts of `bytes` find a step out of it, and each
/// walk must end.
#[cfg(fuzzing)]
pub(crate) fn walk_hostile_buffer(tail: u64, head: u64, data: &[u8]) {
    use super::walk::{Consumer, drain, look, pending};

    let mut fake = Fake::new(data.len().next_power_of_two().max(8), tail);
    fake.data[..data.len()].copy_from_slice(data);
    fake.head.store(head, Ordering::Relaxed);
    let Ok(mut consumer) = Consumer::new(&fake) else {
        return;
    };
    let _ = look(&fake, consumer.position);
    let expected = pending(&fake, consumer.position);
    let (mut scratch, mut bytes) = (Vec::new(), 0);
    let mut each = |record: &[u8]| bytes += record.len() as u64;
    // In two drains, so that the second takes over from the first.
    let _ = drain(&fake, &mut consumer, &mut scratch, 3, &mut each);
    let stop = drain(&fake, &mut consumer, &mut scratch, u64::MAX, &mut each);
    assert_eq!(stop.is_ok(), expected.is_ok(), "both meet the same damage");
    if let Ok(expected) = expected {
        assert_eq!(
            (consumer.records, consumer.position),
            (expected.records, head)
        );
    }
    assert_eq!(consumer.bytes, bytes);
    assert_eq!(fake.tail.load(Ordering::Relaxed), consumer.position);
}
