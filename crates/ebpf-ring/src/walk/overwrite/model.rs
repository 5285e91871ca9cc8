//! The walker of a ring that overwrites beside a producer, in every order that loom finds.
//!
//! The producer's stores are releases: so x86-64 does them, and the kernel counts on no more.

use std::cell::Cell;

use loom::sync::Arc;
use loom::sync::atomic::AtomicBool;

use super::{Memory, Skipped, consumer, drain, pending};
use crate::sync::{AtomicU64, Ordering, fence};
use crate::walk::{BUSY, Stop};

/// With its header.
const RECORD_BYTES: u64 = 16;
/// Room for one record, as one byte stays free.
const WORDS: u64 = 4;

struct Ring {
    consumer: AtomicU64,
    producer: AtomicU64,
    overwrite: AtomicU64,
    words: Vec<AtomicU64>,
}

impl Ring {
    fn new() -> Self {
        Self {
            consumer: AtomicU64::new(0),
            producer: AtomicU64::new(0),
            overwrite: AtomicU64::new(0),
            words: (0..WORDS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn at(&self, position: u64) -> &AtomicU64 {
        &self.words[(position / 8 % WORDS) as usize]
    }

    /// Writes record `number`, from 1, as __bpf_ringbuf_reserve() and bpf_ringbuf_commit() do: whether
    /// the kernel wakes the consumer for it.
    fn push(&self, number: u64) -> bool {
        let position = (number - 1) * RECORD_BYTES;
        let header = |bits: u32| {
            let [a, b, c, d] = (8 | bits).to_ne_bytes();
            u64::from_ne_bytes([a, b, c, d, 0, 0, 0, 0])
        };
        self.overwrite.store(position, Ordering::Release);
        self.at(position).store(header(BUSY), Ordering::Release);
        let end = position + RECORD_BYTES;
        self.producer.store(end, Ordering::Release);
        self.at(position + 8).store(number, Ordering::Release);
        self.at(position).swap(header(0), Ordering::AcqRel);
        // The kernel's xchg is a full barrier.
        fence(Ordering::SeqCst);
        self.consumer.load(Ordering::Acquire) == position
    }
}

impl Memory for &Ring {
    fn size(&self) -> u64 {
        WORDS * 8
    }

    fn consumer(&self) -> &AtomicU64 {
        &self.consumer
    }

    fn producer(&self) -> &AtomicU64 {
        &self.producer
    }

    fn overwrite(&self) -> &AtomicU64 {
        &self.overwrite
    }

    fn word(&self, position: u64) -> &AtomicU64 {
        self.at(position)
    }
}

/// `numbers` are written beside a drain of at most `records_max` records, after which the rest is
/// drained. What comes out is whole, in order, not twice, and with what was skipped all that there was;
/// and whoever was told that there is no more is woken.
fn write_beside_a_drain(before: u64, last: u64, records_max: u64) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let ring = Arc::new(Ring::new());
        (1..=before).for_each(|number| {
            ring.push(number);
        });
        let woken = Arc::new(AtomicBool::new(false));
        let producer = {
            let (ring, woken) = (Arc::clone(&ring), Arc::clone(&woken));
            loom::thread::spawn(move || {
                for number in before + 1..=last {
                    if ring.push(number) {
                        woken.store(true, Ordering::Release);
                    }
                }
            })
        };
        let mut reader = consumer(&*ring).expect("a sound ring");
        let (mut skipped, mut scratch) = (Skipped::default(), Vec::new());
        let newest = Cell::new(0);
        let each = |bytes: &[u8]| {
            let number = u64::from_ne_bytes(bytes.try_into().expect("one word"));
            assert!(number > newest.get(), "{number} after {}", newest.get());
            newest.set(number);
        };
        let mut drain = |max| {
            let (reader, scratch) = (&mut reader, &mut scratch);
            let stop = drain(&*ring, reader, &mut skipped, scratch, max, each);
            (stop.expect("a sound ring"), reader.position)
        };
        let (stop, position) = drain(records_max);
        producer.join().expect("no panic");
        let is_left = pending(&*ring, position).expect("a sound ring").records > 0;
        if stop != Stop::Budget && is_left {
            assert!(woken.load(Ordering::Acquire), "asleep beside a record");
        }
        assert_eq!(drain(9).0, Stop::Empty);
        assert_eq!(newest.get(), last);
        let delivered = reader.records * RECORD_BYTES;
        assert_eq!(skipped.bytes + delivered, last * RECORD_BYTES);
    });
}

#[test]
fn nothing_is_torn_while_it_is_overwritten() {
    // The third record lies where the first one was.
    write_beside_a_drain(1, 3, 1);
}

#[test]
fn no_wake_up_is_lost_beside_an_overrun() {
    write_beside_a_drain(0, 2, 9);
}
