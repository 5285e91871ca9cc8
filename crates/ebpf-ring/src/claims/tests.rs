use super::Claims;
use crate::heap::Heap;
use crate::walk::Consumer;

fn claims(heap: &Heap) -> Claims {
    Claims::new(Consumer::new(heap).expect("fresh ring"))
}

#[cfg(not(loom))]
mod plain {
    use super::*;
    use crate::sync::Ordering;
    use crate::walk::{DISCARD, Step};

    fn position(heap: &Heap) -> u64 {
        heap.consumer.load(Ordering::Relaxed)
    }

    fn five_records() -> Heap {
        let heap = Heap::new(128, 0);
        for n in 0..5 {
            assert!(heap.push(&[n]).is_some());
        }
        heap
    }

    #[test]
    fn space_goes_back_in_order_whoever_is_done_first() {
        let heap = five_records();
        let mut claims = claims(&heap);
        let mut claim = |max| claims.claim(&heap, max).expect("sound").expect("a record");
        let (a, b, c) = (claim(2), claim(1), claim(9));
        assert_eq!((a.records, b.records, c.records), (2, 1, 2));
        assert_eq!((a.end, b.end), (b.start, c.start));
        assert_eq!(claims.claim(&heap, 9), Ok(None));
        claims.finish(&heap, b);
        assert_eq!(position(&heap), 0, "the first run is still read");
        claims.finish(&heap, a);
        assert_eq!(position(&heap), 48, "both");
        assert!(claims.is_any_open());
        claims.finish(&heap, c);
        assert_eq!(position(&heap), 80);
        assert!(!claims.is_any_open());
        assert_eq!(claims.consumer.records, 5);
    }

    #[test]
    fn a_claim_holds_what_the_claimant_then_reads() {
        let heap = five_records();
        let mut claims = claims(&heap);
        let _first = claims.claim(&heap, 3).expect("sound").expect("a record");
        let span = claims.claim(&heap, 2).expect("sound").expect("a record");
        let mut at = Consumer::at(span.start);
        let mut found = Vec::new();
        while let Step::Record(words) = at.step(&heap, span.end).expect("sound") {
            found.extend(words);
        }
        assert_eq!(found, [3, 4]);
    }

    #[test]
    fn discarded_records_are_claimed_and_not_counted() {
        let heap = Heap::new(128, 0);
        let record = heap.reserve(4).expect("room");
        heap.commit(record, 4 | DISCARD);
        let mut claims = claims(&heap);
        let span = claims.claim(&heap, 9).expect("sound").expect("a run");
        assert_eq!(span.records, 0);
        claims.finish(&heap, span);
        assert_eq!(position(&heap), 16);
        assert_eq!(claims.consumer.discarded, 1);
    }

    #[test]
    fn a_busy_record_ends_a_claim() {
        let heap = Heap::new(128, 0);
        assert!(heap.push(&[1]).is_some());
        let busy = heap.reserve(4).expect("room");
        assert!(heap.push(&[3]).is_some());
        let mut claims = claims(&heap);
        let span = claims.claim(&heap, 9).expect("sound").expect("a record");
        assert_eq!((span.records, span.end), (1, busy));
        assert_eq!(claims.claim(&heap, 9), Ok(None));
    }

    #[test]
    fn what_comes_before_damage_is_claimed_and_then_the_damage_is_told() {
        let heap = Heap::new(128, 0);
        assert!(heap.push(&[1]).is_some());
        let record = heap.reserve(4).expect("room");
        heap.headers[heap.slot(record)].store(100, Ordering::Relaxed);
        let mut claims = claims(&heap);
        let span = claims
            .claim(&heap, 9)
            .expect("told later")
            .expect("a record");
        assert_eq!((span.records, span.end), (1, record));
        assert_eq!(claims.claim(&heap, 9).expect_err("now").position, record);
    }
}

#[cfg(loom)]
mod model {
    use loom::sync::{Arc, Mutex};

    use super::*;
    use crate::walk::Step;

    /// Two claimants beside a producer that reuses the space: every record is read whole, once.
    #[test]
    fn claimants_never_read_what_is_written_anew() {
        loom::model(|| {
            let heap = Arc::new(Heap::new(64, 0));
            let shared = Arc::new(Mutex::new(claims(&heap)));
            // With these the ring is nearly full: the producer's second needs the space of the first.
            for n in 1..=3 {
                assert!(heap.push(&[n, n]).is_some());
            }
            let take = |heap: &Heap, shared: &Mutex<Claims>| {
                let claim = shared.lock().expect("sound").claim(heap, 1);
                let Some(span) = claim.expect("sound ring") else {
                    return Vec::new();
                };
                let mut at = Consumer::at(span.start);
                let Ok(Step::Record(words)) = at.step(heap, span.end) else {
                    panic!("claimed records are submitted");
                };
                shared.lock().expect("sound").finish(heap, span);
                words
            };
            let other = {
                let (heap, shared) = (Arc::clone(&heap), Arc::clone(&shared));
                loom::thread::spawn(move || take(&heap, &shared))
            };
            let producer = {
                let heap = Arc::clone(&heap);
                loom::thread::spawn(move || {
                    for n in 4..=5 {
                        let _ = heap.push(&[n, n]);
                    }
                })
            };
            let mut found = [take(&heap, &shared), other.join().expect("no panic")];
            producer.join().expect("no panic");
            found.sort();
            assert_eq!(found, [[1, 1], [2, 2]]);
        });
    }
}
