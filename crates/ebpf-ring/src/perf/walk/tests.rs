use std::sync::atomic::Ordering;

use super::{Consumer, Pending, drain, look, pending};
use crate::perf::heap::{Fake, record};
use crate::walk::{Corrupt, CorruptKind, Look, Stop};

fn drain_all(fake: &Fake, consumer: &mut Consumer) -> Result<Vec<Vec<u8>>, Corrupt> {
    let mut found = Vec::new();
    let each = |bytes: &[u8]| found.push(bytes.to_vec());
    let stop = drain(fake, consumer, &mut Vec::new(), u64::MAX, each)?;
    assert_eq!(stop, Stop::Empty);
    Ok(found)
}

#[test]
fn samples_come_out_in_order_with_their_padding_and_free_their_space() {
    let mut fake = Fake::new(64, 0);
    let mut consumer = fake.consumer();
    for round in 0..50u8 {
        assert_eq!(look(&fake, consumer.position), Ok(Look::Empty));
        fake.push_sample(&[round; 4]);
        fake.push_sample(&[round; 5]);
        assert_eq!(look(&fake, consumer.position), Ok(Look::Ready));
        let found = drain_all(&fake, &mut consumer).expect("a sound buffer");
        let mut padded = vec![round; 5];
        padded.resize(12, 0);
        assert_eq!(found, [vec![round; 4], padded]);
        assert_eq!(fake.tail.load(Ordering::Relaxed), consumer.position);
    }
    assert_eq!((consumer.records, consumer.bytes), (100, 50 * 16));
}

#[test]
fn a_sample_that_wraps_is_whole_wherever_it_is_cut() {
    let raw: Vec<u8> = (0..44).collect();
    for before in 0..8u64 {
        // Also around the end of u64.
        for position in [0, u64::MAX - 7] {
            let mut fake = Fake::new(64, position.wrapping_add(before * 8));
            let mut consumer = fake.consumer();
            fake.push_sample(&raw);
            let found = drain_all(&fake, &mut consumer).expect("a sound buffer");
            assert_eq!(found, [&raw[..]], "{before} words before");
        }
    }
}

#[test]
fn what_does_not_wrap_is_not_copied() {
    let mut fake = Fake::new(64, 40);
    fake.push_sample(&[1; 12]);
    fake.push_sample(&[2; 12]);
    let mut consumer = fake.consumer();
    let mut scratch = Vec::new();
    let within = fake.data.as_ptr_range();
    let mut copied = Vec::new();
    let each = |bytes: &[u8]| copied.push(!within.contains(&bytes.as_ptr()));
    drain(&fake, &mut consumer, &mut scratch, u64::MAX, each).expect("a sound buffer");
    // The first ends with the data; the second starts at its start.
    assert_eq!(copied, [false, false]);
    fake.push_sample(&[3; 44]);
    let each = |bytes: &[u8]| assert_eq!(bytes, [3; 44]);
    drain(&fake, &mut consumer, &mut scratch, u64::MAX, each).expect("a sound buffer");
    assert_eq!(scratch, [3; 44]);
}

#[test]
fn lost_records_are_added_up_and_others_skipped() {
    let mut fake = Fake::new(128, 0);
    let mut consumer = fake.consumer();
    fake.push_lost(3);
    fake.push_sample(&[1; 4]);
    fake.push(&record(13, 8));
    fake.push_lost(4);
    fake.push_sample(&[2; 4]);
    let unread = Pending {
        records: 2,
        bytes: 24 + 16 + 8 + 24 + 16,
    };
    assert_eq!(pending(&fake, consumer.position), Ok(unread));
    let found = drain_all(&fake, &mut consumer).expect("a sound buffer");
    assert_eq!(found, [[1; 4], [2; 4]]);
    assert_eq!((consumer.lost, consumer.records, consumer.steps), (7, 2, 5));
}

#[test]
fn the_budget_bounds_a_drain() {
    let mut fake = Fake::new(128, 0);
    let mut consumer = fake.consumer();
    for n in 0..5 {
        fake.push_sample(&[n; 4]);
    }
    let mut found = Vec::new();
    let mut drain_by = |steps_max, found: &mut Vec<u8>| {
        let each = |bytes: &[u8]| found.push(bytes[0]);
        drain(&fake, &mut consumer, &mut Vec::new(), steps_max, each)
    };
    assert_eq!(drain_by(0, &mut found), Ok(Stop::Budget));
    assert_eq!(drain_by(3, &mut found), Ok(Stop::Budget));
    assert_eq!(fake.tail.load(Ordering::Relaxed), 48);
    assert_eq!(drain_by(3, &mut found), Ok(Stop::Empty));
    assert_eq!(found, [0, 1, 2, 3, 4]);
}

#[test]
fn a_long_drain_gives_space_back_on_the_way_and_a_panic_at_its_end() {
    let mut fake = Fake::new(128, 0);
    for n in 0..8 {
        fake.push_sample(&[n; 4]);
    }
    let mut consumer = fake.consumer();
    let mut tails = Vec::new();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let each = |bytes: &[u8]| {
            tails.push(fake.tail.load(Ordering::Relaxed));
            assert_ne!(bytes[0], 5, "the callback's own trouble");
        };
        drain(&fake, &mut consumer, &mut Vec::new(), u64::MAX, each)
    }));
    assert!(panicked.is_err());
    assert_eq!(tails, [0, 0, 32, 32, 64, 64]);
    assert_eq!(fake.tail.load(Ordering::Relaxed), 96);
    let rest = drain_all(&fake, &mut consumer).expect("a sound buffer");
    assert_eq!(rest, [[6; 4], [7; 4]]);
}

#[test]
fn damage_is_an_error_and_the_consumer_stays_there() {
    let sample = |size: u16, raw_size: u32, bytes: usize| {
        let mut record = record(9, size);
        record.extend(raw_size.to_ne_bytes());
        record.resize(bytes, 0);
        record
    };
    for (bytes, kind) in [
        (record(9, 0), CorruptKind::Size(0)),
        (record(1, 4), CorruptKind::Size(4)),
        (sample(12, 0, 16), CorruptKind::Size(12)),
        ([record(1, 12), vec![0; 8]].concat(), CorruptKind::Size(12)),
        (sample(24, 12, 16), CorruptKind::Length(24)),
        (sample(u16::MAX, 4, 16), CorruptKind::Length(0xffff)),
        (record(9, 8), CorruptKind::Size(8)),
        (sample(16, 5, 16), CorruptKind::Size(5)),
        (sample(16, u32::MAX, 16), CorruptKind::Size(u32::MAX)),
        (sample(32, 64, 32), CorruptKind::Size(64)),
        ([record(2, 16), vec![0; 8]].concat(), CorruptKind::Size(16)),
    ] {
        let mut fake = Fake::new(64, 0);
        let mut consumer = fake.consumer();
        fake.push_sample(&[1; 4]);
        fake.push(&bytes);
        let position = 16;
        let corrupt = Corrupt { position, kind };
        let mut found = 0;
        for _ in 0..2 {
            let each = |_: &[u8]| found += 1;
            let drained = drain(&fake, &mut consumer, &mut Vec::new(), 10, each);
            assert_eq!(drained, Err(corrupt));
            assert_eq!(pending(&fake, consumer.position), Err(corrupt));
        }
        assert_eq!((found, fake.tail.load(Ordering::Relaxed)), (1, 16));
    }
}

#[test]
fn a_head_that_cannot_be_is_an_error() {
    for (tail, head) in [(0, 72), (0, 4), (8, 0), (64, 1 << 63), (4, 4)] {
        let fake = Fake::new(64, tail);
        fake.head.store(head, Ordering::Relaxed);
        let kind = CorruptKind::Producer(head);
        let position = tail;
        assert_eq!(Consumer::new(&fake), Err(Corrupt { position, kind }));
    }
}

/// Any bytes: never out of what lies between tail and head, which the fake asserts.
#[test]
fn noise_ends() {
    let mut state = 1u64;
    for _ in 0..20_000 {
        let mut fake = Fake::new(64, 0);
        let mut bytes = Vec::new();
        while bytes.len() < 64 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
            let any = (state >> 33) as u32;
            // Often nearly sound.
            let size = if any & 1 == 0 {
                (any >> 8) as u16
            } else {
                (any >> 8) as u16 & 0x38
            };
            bytes.extend(record(if any & 2 == 0 { 9 } else { any >> 28 }, size));
        }
        fake.push(&bytes);
        let mut consumer = fake.consumer();
        let before = pending(&fake, consumer.position);
        let drained = drain_all(&fake, &mut consumer);
        assert_eq!(before.is_ok(), drained.is_ok());
    }
}
