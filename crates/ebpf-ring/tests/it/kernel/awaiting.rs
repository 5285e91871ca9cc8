//! Readers awaited on tokio.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Wake};
use std::time::Duration;

use ebpf_ring::{AsyncReader, PerfOptions, PerfReader, RingSet};

use super::Flood;

/// Which only a lost wake-up reaches.
const DEADLINE: Duration = Duration::from_secs(30);

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().expect("a runtime");
    let bounded = async { tokio::time::timeout(DEADLINE, future).await };
    runtime.block_on(bounded).expect("a wake-up was lost")
}

/// Single records, each of which may be the one for which the reader sleeps.
#[test]
fn no_wake_up_is_lost() {
    // Fewer than the ring holds: none is lost, so each must be found.
    const RECORDS: u32 = 2_000;
    const ROUNDS: u32 = 10;
    let flood = flood_or_skip!();
    for _ in 0..ROUNDS {
        std::thread::scope(|scope| {
            scope.spawn(|| (0..RECORDS).for_each(|_| flood.write(1)));
            block_on(async {
                let mut ring = AsyncReader::new(flood.reader()).expect("a runtime");
                let mut found = 0;
                while found < u64::from(RECORDS) {
                    assert!(ring.ready().await.expect("a sound ring"));
                    let drained = ring.get_mut().drain(u64::MAX, |_| ());
                    found += drained.expect("a sound ring").records;
                }
                assert_eq!(ring.get_ref().stats().expect("sound").pending, 0);
            });
        });
    }
    let mut ring = flood.reader();
    assert_eq!(ring.drain(1, |_| ()).expect("a sound ring").records, 0);
    assert_eq!(ring.stats().expect("sound").dropped(), Some(0));
}

/// How often somebody was woken.
#[derive(Default)]
struct Wakes(AtomicU64);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// An edge is one: whoever has seen it and finds nothing sleeps, and does not ask again and again.
#[test]
fn an_empty_ring_is_awaited_asleep() {
    let flood = flood_or_skip!();
    block_on(async {
        let mut ring = AsyncReader::new(flood.reader()).expect("a runtime");
        flood.write(1);
        assert!(ring.ready().await.expect("a sound ring"));
        let drained = ring.get_mut().drain(9, |_| ()).expect("a sound ring");
        assert_eq!(drained.records, 1);
        // The runtime learns of the edge.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        let wakes = Arc::new(Wakes::default());
        let waker = Arc::clone(&wakes).into();
        let polled = std::pin::pin!(ring.ready()).poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        assert_eq!(
            wakes.0.load(Ordering::Relaxed),
            0,
            "it asks for another turn"
        );
    });
}

#[test]
fn a_set_is_awaited_as_a_ring_is() {
    let flood = flood_or_skip!();
    let set = RingSet::new(vec![flood.reader()]).expect("one is left");
    std::thread::scope(|scope| {
        scope.spawn(|| (0..500).for_each(|_| flood.write(1)));
        block_on(async {
            let mut set = AsyncReader::new(set).expect("a runtime");
            let mut found = 0;
            while found < 500 {
                assert!(set.ready().await.expect("sound rings"));
                let drained = set.get_mut().drain(u64::MAX, |_, _| ());
                found += drained.expect("sound rings").records;
            }
        });
    });
}

#[test]
fn closing_ends_an_await() {
    let flood = flood_or_skip!();
    block_on(async {
        let mut ring = AsyncReader::new(flood.reader()).expect("a runtime");
        let closer = ring.get_mut().closer().expect("one is left");
        let closing = std::thread::spawn(move || closer.close());
        assert!(!ring.ready().await.expect("a sound ring"));
        closing.join().expect("no panic");
        // And every later one, with records in it.
        flood.write(1);
        assert!(!ring.ready().await.expect("a sound ring"));
        let rest = ring.into_inner().drain(9, |_| ());
        assert_eq!(rest.expect("a sound ring").records, 1);
    });
    let mut perf = PerfReader::open(PerfOptions::default()).expect("root may");
    perf.closer().expect("one is left").close();
    block_on(async {
        let mut perf = AsyncReader::new(perf).expect("a runtime");
        assert!(!perf.ready().await.expect("sound buffers"));
    });
}
