//! The walker of a ring that overwrites, against the kernel's side of it on the heap.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use super::heap::Fake;
use super::{Skipped, behind, consumer, drain, look, pending};
use crate::walk::{BUSY, Consumer, Corrupt, CorruptKind, DISCARD, Look, Stop};

/// A consumer with what it found.
struct Reader {
    consumer: Consumer,
    skipped: Skipped,
}

impl Reader {
    fn new(fake: &Fake) -> Self {
        Self {
            consumer: consumer(fake).expect("a sound ring"),
            skipped: Skipped::default(),
        }
    }

    fn drain(&mut self, fake: &Fake, max: u64) -> Result<(Vec<Vec<u64>>, Stop), Corrupt> {
        let mut found = Vec::new();
        let each = |bytes: &[u8]| {
            let (words, rest) = bytes.as_chunks();
            assert!(rest.is_empty());
            found.push(words.iter().map(|word| u64::from_ne_bytes(*word)).collect());
        };
        let (consumer, skipped) = (&mut self.consumer, &mut self.skipped);
        let stop = drain(fake, consumer, skipped, &mut Vec::new(), max, each)?;
        assert_eq!(
            fake.consumer.load(Ordering::Relaxed),
            self.consumer.position
        );
        Ok((found, stop))
    }

    fn all(&mut self, fake: &Fake) -> Vec<Vec<u64>> {
        let (found, stop) = self.drain(fake, u64::MAX).expect("a sound ring");
        assert_eq!(stop, Stop::Empty);
        found
    }
}

/// A producer that needs most of a small ring.
fn from_the_side(fake: &Fake) {
    fake.push(&[77; 5]);
}

fn overrun(fake: &Fake) {
    (0..10).for_each(|index| fake.push(&[index]));
}

#[test]
fn what_fits_comes_out_as_from_any_ring() {
    let fake = Fake::new(64, u64::MAX - 23);
    let mut reader = Reader::new(&fake);
    for round in 0..20 {
        assert_eq!(look(&fake, reader.consumer.position), Ok(Look::Empty));
        fake.push(&[round, 1]);
        fake.push(&[]);
        assert_eq!(look(&fake, reader.consumer.position), Ok(Look::Ready));
        let counted = pending(&fake, reader.consumer.position).expect("sound");
        assert_eq!((counted.records, counted.bytes), (2, 32));
        assert_eq!(reader.all(&fake), [vec![round, 1], vec![]]);
    }
    assert_eq!((reader.consumer.records, reader.skipped.bytes), (40, 0));
}

/// The newest are there, the oldest are counted by their bytes.
#[test]
fn old_records_give_way_to_new_ones() {
    let fake = Fake::new(64, 0);
    let mut reader = Reader::new(&fake);
    for index in 0..10 {
        fake.push(&[index]);
    }
    // Of 63 usable bytes, 16 for each.
    let counted = pending(&fake, reader.consumer.position).expect("sound");
    assert_eq!((counted.records, counted.bytes), (3, 48));
    assert_eq!(behind(&fake, reader.consumer.position), Ok(7 * 16));
    assert_eq!(reader.all(&fake), [vec![7], vec![8], vec![9]]);
    assert_eq!(reader.skipped.bytes, 7 * 16);
    assert_eq!(behind(&fake, reader.consumer.position), Ok(0));
    // Another consumer starts at what is left, too.
    (0..10).for_each(|index| fake.push(&[index]));
    assert_eq!(Reader::new(&fake).all(&fake).len(), 3);
}

/// Nothing that is overwritten while it is counted is pending, neither as a record nor by its bytes.
#[test]
fn what_is_overwritten_under_the_count_is_not_pending() {
    let mut fewer = 0;
    // Beyond the bounds; up to the end that was seen, and over it.
    for (after, is_overrun) in (2..8).flat_map(|after| [(after, false), (after, true)]) {
        let fake = Fake::new(64, 0);
        (0..10).for_each(|index| fake.push(&[index]));
        fake.after(after, if is_overrun { overrun } else { from_the_side });
        let counted = pending(&fake, 0).expect("a sound ring");
        assert_eq!(counted.bytes, counted.records * 16, "after {after}");
        fewer += u32::from(counted.records < 3);
    }
    assert!(fewer > 2, "the test tests nothing");
}

/// Whenever the producer comes between: what is handed out is whole, in order and not twice.
#[test]
fn a_record_that_is_overwritten_while_it_is_read_is_not_handed_out() {
    let mut skips = 0;
    for after in 0..80 {
        let fake = Fake::new(64, 0);
        let mut reader = Reader::new(&fake);
        (0..10).for_each(|index| fake.push(&[index, index]));
        fake.after(after, from_the_side);
        let mut found = reader.all(&fake);
        // It may come behind the last look.
        let came = fake.is_quiet();
        found.extend(reader.all(&fake));
        for record in &found {
            let torn = record.windows(2).any(|pair| pair[0] != pair[1]);
            assert!(!torn, "after {after}: {record:?}");
        }
        assert!(
            found.is_sorted_by(|one, other| one[0] < other[0]),
            "{found:?}"
        );
        // The side's record is the last, if it came at all.
        assert!(!came || found.last() == Some(&vec![77; 5]));
        let all = reader.consumer.position;
        let delivered: usize = found.iter().map(|record| 8 + record.len() * 8).sum();
        assert_eq!(reader.skipped.bytes + delivered as u64, all);
        skips += u32::from(reader.skipped.bytes > 8 * 24);
    }
    assert!(skips > 2, "the test tests nothing");
}

/// A producer that is always faster keeps no drain busy for ever.
#[test]
fn what_is_overwritten_under_the_reader_counts_against_its_budget() {
    let fake = Fake::new(64, 0);
    let mut reader = Reader::new(&fake);
    (0..10).for_each(|index| fake.push(&[index]));
    // Beyond the bounds, before the header.
    fake.after(3, from_the_side);
    let (found, stop) = reader.drain(&fake, 1).expect("a sound ring");
    assert_eq!((found.len(), stop), (0, Stop::Budget));
    assert_eq!(reader.all(&fake).last(), Some(&vec![77; 5]));
}

#[test]
fn a_record_that_is_written_stops_the_walk_and_discarded_ones_do_not() {
    let fake = Fake::new(128, 0);
    let mut reader = Reader::new(&fake);
    fake.reserve(&[1], DISCARD);
    fake.push(&[2]);
    let busy = fake.reserve(&[3], BUSY);
    fake.push(&[4]);
    let (found, stop) = reader.drain(&fake, 9).expect("a sound ring");
    assert_eq!((found, stop), (vec![vec![2]], Stop::Busy));
    assert_eq!(look(&fake, reader.consumer.position), Ok(Look::Busy));
    assert_eq!(reader.consumer.discarded, 1);
    fake.set_header(busy, 8);
    let (found, stop) = reader.drain(&fake, 1).expect("a sound ring");
    assert_eq!((found, stop), (vec![vec![3]], Stop::Budget));
    assert_eq!(reader.all(&fake), [vec![4]]);
}

#[test]
fn damage_is_an_error_where_it_is() {
    let fake = Fake::new(64, 0);
    let mut reader = Reader::new(&fake);
    fake.push(&[1]);
    let long = fake.reserve(&[2], 0);
    fake.set_header(long, 1 << 20);
    let error = reader.drain(&fake, 9).expect_err("beyond the producer");
    assert_eq!(
        (error.position, error.kind),
        (16, CorruptKind::Length(1 << 20))
    );
    assert_eq!(reader.consumer.records, 1);
    fake.producer.store(8, Ordering::Relaxed);
    assert!(reader.drain(&fake, 9).is_err(), "behind the consumer");
    fake.producer.store(4096, Ordering::Relaxed);
    let error = reader
        .drain(&fake, 9)
        .expect_err("more than the ring ahead");
    assert_eq!(error.kind, CorruptKind::Producer(4096));
    fake.producer.store(32, Ordering::Relaxed);
    assert!(consumer(&fake).is_ok());
    fake.consumer.store(3, Ordering::Relaxed);
    assert!(consumer(&fake).is_err());
}

/// A producer has moved on between the two loads.
#[test]
fn an_end_that_is_old_already_is_no_damage() {
    let fake = Fake::new(64, 0);
    let mut reader = Reader::new(&fake);
    fake.push(&[1]);
    fake.overwrite.store(32, Ordering::Relaxed);
    assert_eq!(look(&fake, 0), Ok(Look::Ready), "something is behind it");
    assert_eq!(behind(&fake, 0), Ok(32));
    fake.push(&[2]);
    fake.push(&[3]);
    assert_eq!(reader.all(&fake), [vec![3]]);
    assert_eq!(reader.skipped.bytes, 32);
}

/// "Empty" is a promise that the next record wakes. A reader that is behind would not be woken.
#[test]
fn nobody_sleeps_while_the_ring_is_overrun() {
    let fake = Fake::new(64, 0);
    let mut reader = Reader::new(&fake);
    fake.push(&[1]);
    fake.after(1, overrun);
    assert_eq!(look(&fake, reader.consumer.position), Ok(Look::Ready));
    fake.after(1, overrun);
    let (found, stop) = reader.drain(&fake, 9).expect("a sound ring");
    assert_eq!(
        (found, stop),
        (vec![vec![7], vec![8], vec![9]], Stop::Empty)
    );
    fake.after(1, overrun);
    let (found, stop) = reader.drain(&fake, 1).expect("a sound ring");
    assert_eq!((found, stop), (vec![], Stop::Budget));
}

/// It would not be woken by the record that is being written, nor by any later one.
#[test]
fn nobody_sleeps_behind_what_was_overwritten() {
    let fake = Fake::new(64, 0);
    let mut reader = Reader::new(&fake);
    fake.push(&[1]);
    let busy = fake.reserve(&[2; 6], BUSY);
    assert_eq!(look(&fake, reader.consumer.position), Ok(Look::Ready));
    let (found, stop) = reader.drain(&fake, 9).expect("a sound ring");
    assert_eq!((found.len(), stop), (0, Stop::Busy));
    assert_eq!(look(&fake, reader.consumer.position), Ok(Look::Busy));
    assert!(fake.commit(busy), "the kernel sees who waits for it");
}

/// The kernel wakes for a record whose place is the consumer's position when it is committed.
/// Whenever records come, replace others and are committed beside a drain: one of them wakes, or
/// the last was found.
#[test]
fn no_record_comes_unnoticed() {
    const ACCESSES: u32 = 16;
    let mut unwoken = 0;
    for first in 0..ACCESSES {
        for second in 0..ACCESSES {
            for committed in 0..ACCESSES {
                let fake = Fake::new(64, 0);
                let mut reader = Reader::new(&fake);
                fake.push(&[0]);
                let (busy, woken) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
                let wakes = Rc::clone(&woken);
                fake.after(first, move |fake| {
                    wakes.set(fake.commit(fake.reserve(&[1], BUSY)));
                });
                // It takes the place of all others.
                let at = Rc::clone(&busy);
                fake.after(second, move |fake| at.set(fake.reserve(&[2; 6], BUSY)));
                let wakes = Rc::clone(&woken);
                fake.after(committed, move |fake| {
                    wakes.set(fake.commit(busy.get()) || wakes.get());
                });
                let (found, stop) = reader.drain(&fake, 99).expect("a sound ring");
                assert_ne!(stop, Stop::Budget);
                if fake.is_quiet() && !woken.get() {
                    let last = found.last();
                    assert_eq!(last, Some(&vec![2; 6]), "{first}, {second}, {committed}");
                    unwoken += 1;
                }
            }
        }
    }
    assert!(unwoken > 2, "the test tests nothing");
}

/// Every way over memory that says anything ends, within the ring.
#[test]
fn no_memory_leads_out_of_it() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut delivered = 0;
    for _ in 0..20_000 {
        let fake = Fake::new(64, random() & !7);
        let position = fake.consumer.load(Ordering::Relaxed);
        let near = |random: u64| position.wrapping_add(random % 16 * 8).wrapping_sub(16);
        fake.producer.store(near(random()), Ordering::Relaxed);
        fake.overwrite.store(near(random()), Ordering::Relaxed);
        for word in &fake.words {
            let wild = random();
            let len = match wild & 7 {
                0 => wild >> 32,
                _ => wild >> 8 & 31,
            };
            let bits = (wild >> 16 & wild >> 18 & 3) << 30;
            word.store(len | bits, Ordering::Relaxed);
        }
        let Ok(consumer) = consumer(&fake) else {
            continue;
        };
        let _ = look(&fake, consumer.position);
        let _ = pending(&fake, consumer.position);
        let skipped = Skipped::default();
        let mut reader = Reader { consumer, skipped };
        let mut records = 0;
        let (consumer, skipped) = (&mut reader.consumer, &mut reader.skipped);
        let _ = drain(&fake, consumer, skipped, &mut Vec::new(), 99, |_| {
            records += 1
        });
        assert!(records <= 8, "{records} records in eight words");
        delivered += records;
    }
    assert!(delivered > 0, "the test tests nothing");
}
