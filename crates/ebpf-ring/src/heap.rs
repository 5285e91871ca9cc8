//! A fake producer and a ring on the heap: the walker's whole life without a kernel, and under loom.

use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::walk::{BUSY, Memory};

/// A ring on the heap, with the data area twice as the kernel maps it.
///
/// Bytes are atomics, so a walker that reads what it must not is a wrong value, not undefined
/// behaviour.
pub(crate) struct Heap {
    size: u64,
    pub(crate) consumer: AtomicU64,
    pub(crate) producer: AtomicU64,
    /// The producer's own copy of its position. Never a loom atomic: loom's partial-order
    /// reduction remembers one access per object, so a producer that loaded its own position
    /// before storing it would hide that the consumer had loaded it too.
    reserved: std::sync::atomic::AtomicU64,
    pub(crate) headers: Vec<AtomicU32>,
    bytes: Vec<AtomicU32>,
}

impl Heap {
    pub(crate) fn new(size: u64, position: u64) -> Self {
        Self {
            size,
            consumer: AtomicU64::new(position),
            producer: AtomicU64::new(position),
            reserved: std::sync::atomic::AtomicU64::new(position),
            headers: (0..size / 8).map(|_| AtomicU32::new(0)).collect(),
            bytes: (0..size / 4).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    pub(crate) fn slot(&self, position: u64) -> usize {
        usize::try_from((position & (self.size - 1)) / 8).expect("small")
    }

    /// As __bpf_ringbuf_reserve(): the header first, then the position.
    pub(crate) fn reserve(&self, len: u32) -> Option<u64> {
        let at = self.reserved.load(Ordering::Relaxed);
        let next = at.wrapping_add((u64::from(len) + 8).next_multiple_of(8));
        if next.wrapping_sub(self.consumer.load(Ordering::Acquire)) > self.size - 1 {
            return None;
        }
        self.headers[self.slot(at)].store(len | BUSY, Ordering::Relaxed);
        self.reserved.store(next, Ordering::Relaxed);
        self.producer.store(next, Ordering::Release);
        Some(at)
    }

    pub(crate) fn write(&self, record: u64, words: &[u32]) {
        for (index, word) in words.iter().enumerate() {
            let at = (self.slot(record) * 2 + 2 + index) % self.bytes.len();
            self.bytes[at].store(*word, Ordering::Relaxed);
        }
    }

    /// As bpf_ringbuf_commit(): true when the consumer must be woken.
    pub(crate) fn commit(&self, record: u64, len: u32) -> bool {
        self.headers[self.slot(record)].swap(len, Ordering::AcqRel);
        // The kernel's xchg is a full barrier.
        crate::sync::fence(Ordering::SeqCst);
        self.consumer.load(Ordering::Acquire) == record
    }

    pub(crate) fn push(&self, words: &[u32]) -> Option<u64> {
        let len = u32::try_from(words.len() * 4).expect("small");
        let record = self.reserve(len)?;
        self.write(record, words);
        self.commit(record, len);
        Some(record)
    }
}

impl Memory for &Heap {
    /// The words, loaded when the record is handed out.
    type Bytes = Vec<u32>;

    fn size(&self) -> u64 {
        self.size
    }

    fn consumer(&self) -> &AtomicU64 {
        &self.consumer
    }

    fn producer(&self) -> &AtomicU64 {
        &self.producer
    }

    fn header(&self, position: u64) -> &AtomicU32 {
        assert!(position.is_multiple_of(8), "header at {position}");
        &self.headers[self.slot(position)]
    }

    fn bytes(&self, position: u64, len: u64) -> Vec<u32> {
        assert!(
            len + 8 <= self.size,
            "{len} bytes at {position} are more than the ring"
        );
        let first = self.slot(position) * 2 + 2;
        let words = usize::try_from(len / 4).expect("small");
        (first..first + words)
            .map(|at| self.bytes[at % self.bytes.len()].load(Ordering::Relaxed))
            .collect()
    }
}

/// Every way over memory that says anything: the asserts above find a step out of it, and each walk
/// must end.
#[cfg(fuzzing)]
pub(crate) fn walk_hostile_memory(consumer_pos: u64, producer_pos: u64, headers: &[u32]) {
    use crate::claims::Claims;
    use crate::walk::{Commit, Consumer, drain, look, pending};

    let heap = &Heap::new(headers.len().next_power_of_two().max(2) as u64 * 8, 0);
    heap.consumer.store(consumer_pos, Ordering::Relaxed);
    heap.producer.store(producer_pos, Ordering::Relaxed);
    for (header, word) in heap.headers.iter().zip(headers) {
        header.store(*word, Ordering::Relaxed);
    }
    let Ok(mut consumer) = Consumer::new(heap) else {
        return;
    };
    let _ = look(heap, consumer.position);
    let _ = pending(heap, consumer.position);
    let mut claims = Claims::new(consumer);
    while let Ok(Some(span)) = claims.claim(heap, 3) {
        assert!(span.records <= 3);
        claims.finish(heap, span);
    }
    heap.consumer.store(consumer_pos, Ordering::Relaxed);
    let mut records = 0;
    let _ = drain(heap, &mut consumer, Commit::Quarter, u64::MAX, |_| {
        records += 1
    });
    assert!(records <= heap.headers.len());
    assert_eq!(heap.consumer.load(Ordering::Relaxed), consumer.position);
}
