use crate::heap::Heap;
use crate::sync::Ordering;
use crate::walk::{Commit, Consumer, Corrupt, Stop};

fn drain(
    heap: &Heap,
    consumer: &mut Consumer,
    records_max: u64,
    each: impl FnMut(Vec<u32>),
) -> Result<Stop, Corrupt> {
    crate::walk::drain(heap, consumer, Commit::Quarter, records_max, each)
}

#[cfg(not(loom))]
mod plain {
    use super::*;
    use crate::walk::{BUSY, CorruptKind, DISCARD, Look, look, pending};

    fn drain_all(heap: &Heap, consumer: &mut Consumer) -> (Vec<Vec<u32>>, Stop) {
        let mut found = Vec::new();
        let stop = drain(heap, consumer, u64::MAX, |words| found.push(words)).expect("sound ring");
        (found, stop)
    }

    #[test]
    fn records_come_out_in_order_and_free_their_space() {
        let heap = Heap::new(64, 0);
        let mut consumer = Consumer::new(&heap).expect("fresh ring");
        for round in 0..100u32 {
            assert!(heap.push(&[round, 1]).is_some());
            assert!(heap.push(&[round, 2, 3]).is_some());
            let (found, stop) = drain_all(&heap, &mut consumer);
            assert_eq!(found, [vec![round, 1], vec![round, 2, 3]]);
            assert_eq!(stop, Stop::Empty);
            assert_eq!(heap.consumer.load(Ordering::Relaxed), consumer.position);
        }
        assert_eq!(
            (consumer.records, consumer.bytes, consumer.discarded),
            (200, 2000, 0)
        );
    }

    #[test]
    fn positions_may_wrap_around_u64() {
        let heap = Heap::new(64, u64::MAX - 23);
        let mut consumer = Consumer::new(&heap).expect("fresh ring");
        for round in 0..10 {
            assert!(heap.push(&[round, round]).is_some());
            assert_eq!(drain_all(&heap, &mut consumer).0, [vec![round, round]]);
        }
    }

    #[test]
    fn empty_records_are_records() {
        let heap = Heap::new(64, 0);
        let mut consumer = Consumer::new(&heap).expect("fresh ring");
        assert!(heap.push(&[]).is_some());
        assert_eq!(drain_all(&heap, &mut consumer).0, [Vec::<u32>::new()]);
    }

    #[test]
    fn discarded_records_are_skipped_and_counted() {
        let heap = Heap::new(64, 0);
        let mut consumer = Consumer::new(&heap).expect("fresh ring");
        let record = heap.reserve(4).expect("room");
        heap.commit(record, 4 | DISCARD);
        assert!(heap.push(&[7]).is_some());
        assert_eq!(
            pending(&heap, consumer.position).map(|p| (p.records, p.discarded)),
            Ok((1, 1))
        );
        assert_eq!(drain_all(&heap, &mut consumer).0, [vec![7]]);
        assert_eq!((consumer.records, consumer.discarded), (1, 1));
    }

    #[test]
    fn a_busy_head_stops_the_walk_and_is_pending() {
        let heap = Heap::new(64, 0);
        let mut consumer = Consumer::new(&heap).expect("fresh ring");
        let first = heap.reserve(4).expect("room");
        assert!(heap.push(&[2]).is_some());
        assert_eq!(drain_all(&heap, &mut consumer), (vec![], Stop::Busy));
        assert_eq!(look(&heap, consumer.position), Ok(Look::Busy));
        assert_eq!(
            pending(&heap, consumer.position).map(|p| (p.records, p.bytes)),
            Ok((2, 32))
        );
        heap.write(first, &[1]);
        heap.commit(first, 4);
        assert_eq!(
            drain_all(&heap, &mut consumer),
            (vec![vec![1], vec![2]], Stop::Empty)
        );
    }

    #[test]
    fn the_budget_bounds_a_drain() {
        let heap = Heap::new(128, 0);
        let mut consumer = Consumer::new(&heap).expect("fresh ring");
        for n in 0..5 {
            assert!(heap.push(&[n]).is_some());
        }
        let mut found = Vec::new();
        assert_eq!(
            drain(&heap, &mut consumer, 3, |w| found.push(w[0])),
            Ok(Stop::Budget)
        );
        assert_eq!(found, [0, 1, 2]);
        assert_eq!(heap.consumer.load(Ordering::Relaxed), 48);
        assert_eq!(
            drain(&heap, &mut consumer, 0, |_| unreachable!()),
            Ok(Stop::Budget)
        );
    }

    #[test]
    fn a_long_drain_gives_space_back_on_the_way() {
        let heap = Heap::new(128, 0);
        let mut consumer = Consumer::new(&heap).expect("fresh ring");
        for n in 0..7 {
            assert!(heap.push(&[n]).is_some());
        }
        let mut behind = Vec::new();
        drain(&heap, &mut consumer, 7, |w| {
            behind.push(u64::from(w[0]) * 16 - heap.consumer.load(Ordering::Relaxed));
        })
        .expect("sound ring");
        assert_eq!(
            behind,
            [0, 16, 0, 16, 0, 16, 0],
            "a quarter of 128 bytes is two records"
        );
    }

    #[test]
    fn a_panicking_callback_loses_only_its_record() {
        let heap = Heap::new(64, 0);
        let mut consumer = Consumer::new(&heap).expect("fresh ring");
        for n in 0..3 {
            assert!(heap.push(&[n]).is_some());
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            drain(&heap, &mut consumer, 3, |w| {
                assert_ne!(w[0], 1, "the second record")
            })
        }));
        assert!(outcome.is_err());
        assert_eq!(consumer.records, 2);
        assert_eq!(heap.consumer.load(Ordering::Relaxed), 32);
        assert_eq!(drain_all(&heap, &mut consumer).0, [vec![2]]);
    }

    #[test]
    fn a_length_beyond_the_producer_is_damage_and_is_not_followed() {
        // Each flag in front of each lie: 25 bytes do not fit into the 24 that were reserved.
        for len in [17, 1000, !(BUSY | DISCARD)] {
            for flags in [0, BUSY, DISCARD, BUSY | DISCARD] {
                let heap = Heap::new(64, 0);
                let mut consumer = Consumer::new(&heap).expect("fresh ring");
                assert!(heap.push(&[1]).is_some());
                let record = heap.reserve(16).expect("room");
                heap.headers[heap.slot(record)].store(len | flags, Ordering::Relaxed);
                let mut found = Vec::new();
                let damage = drain(&heap, &mut consumer, 9, |w| found.push(w)).expect_err("a lie");
                assert_eq!(
                    (damage.position, damage.kind),
                    (16, CorruptKind::Length(len))
                );
                assert_eq!(found, [vec![1]], "what came before the damage is delivered");
                assert_eq!(consumer.position, 16);
                assert_eq!(pending(&heap, 16), Err(damage));
                assert_eq!(look(&heap, 16), Err(damage));
            }
        }
    }

    #[test]
    fn an_impossible_producer_is_damage() {
        for lie in [u64::MAX, 8 + 72, 8 + 7, 0] {
            let heap = Heap::new(64, 8);
            let mut consumer = Consumer::new(&heap).expect("fresh ring");
            heap.producer.store(lie, Ordering::Relaxed);
            let damage = drain(&heap, &mut consumer, 9, |_| ()).expect_err("a lie");
            assert_eq!(
                (damage.position, damage.kind),
                (8, CorruptKind::Producer(lie))
            );
            assert!(Consumer::new(&heap).is_err());
        }
    }

    /// Random memory behind random positions: an error or records, never out of bounds (the
    /// asserts of `Heap`), and never without end.
    #[test]
    fn hostile_memory_never_leads_out_of_bounds() {
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        let mut errors = 0;
        for _ in 0..20_000 {
            let heap = Heap::new(128, random() & !7);
            for header in &heap.headers {
                let small = u32::try_from(random() % 48).expect("small");
                let any = u32::try_from(random() >> 32).expect("32 bits");
                let flags = if random() % 8 == 0 {
                    any & (BUSY | DISCARD)
                } else {
                    0
                };
                let len = if random() % 16 == 0 { any } else { small };
                header.store(len | flags, Ordering::Relaxed);
            }
            let mut consumer = Consumer::new(&heap).expect("fresh ring");
            let ahead = if random() % 8 == 0 {
                random()
            } else {
                random() % 17 * 8
            };
            heap.producer
                .store(consumer.position.wrapping_add(ahead), Ordering::Relaxed);
            errors += u32::from(pending(&heap, consumer.position).is_err());
            let mut records = 0u64;
            let _ = drain(&heap, &mut consumer, 100, |_| records += 1);
            assert!(records <= 16, "{records} records in 128 bytes");
        }
        assert!(errors > 1_000, "the lies must be found: {errors}");
    }
}

#[cfg(loom)]
mod model {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicBool;

    /// A producer's bytes are seen whole, in order, once, while the space is reused.
    #[test]
    fn no_record_is_torn_or_lost() {
        loom::model(|| {
            let heap = Arc::new(Heap::new(32, 0));
            let mut consumer = Consumer::new(&*heap).expect("fresh ring");
            let producer = {
                let heap = Arc::clone(&heap);
                loom::thread::spawn(move || {
                    (1..=2).filter(|n| heap.push(&[*n, *n]).is_some()).count()
                })
            };
            let mut found = Vec::new();
            drain(&*heap, &mut consumer, 2, |w| found.push(w)).expect("sound ring");
            let written = producer.join().expect("no panic");
            drain(&*heap, &mut consumer, 9, |w| found.push(w)).expect("sound ring");
            assert_eq!(found.len(), written);
            for words in found {
                assert!(words == [1, 1] || words == [2, 2], "{words:?}");
            }
        });
    }

    /// Edge-triggered sleeping: when `drain` says Empty or Busy and the consumer goes to sleep,
    /// the commit that makes a record readable wakes it.
    #[test]
    fn no_wake_up_is_lost() {
        loom::model(|| {
            let heap = Arc::new(Heap::new(64, 0));
            let woken = Arc::new(AtomicBool::new(false));
            let mut consumer = Consumer::new(&*heap).expect("fresh ring");
            let producer = {
                let (heap, woken) = (Arc::clone(&heap), Arc::clone(&woken));
                loom::thread::spawn(move || {
                    let _ = heap.push(&[1]);
                    let record = heap.reserve(4).expect("room for two");
                    heap.write(record, &[2]);
                    if heap.commit(record, 4) {
                        woken.store(true, Ordering::SeqCst);
                    }
                })
            };
            let mut found = 0;
            let stop = drain(&*heap, &mut consumer, 9, |_| found += 1).expect("sound ring");
            assert_ne!(stop, Stop::Budget);
            producer.join().expect("no panic");
            // With one record read, only the second one's commit can wake.
            if found == 1 {
                assert!(
                    woken.load(Ordering::SeqCst),
                    "asleep for ever with a record to read"
                );
            }
        });
    }
}
