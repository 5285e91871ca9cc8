//! What is promised not to allocate, counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use timerwheel::Wheel;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is passed on to the system's allocator unchanged; `realloc` goes through `alloc`.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the pointer came from `alloc` above, which is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// As many timers as ever waited at a time come and go, and the allocator hears nothing of it.
#[test]
fn a_warm_wheel_allocates_nothing() {
    let mut wheel = Wheel::new(0);
    let mut keys = Vec::with_capacity(20_000);
    let mut life = |start: u64| {
        let before = COUNT.get();
        for n in 0..20_000 {
            keys.push(wheel.insert(start + n * 7_919 % 50_000, n));
        }
        for key in keys.drain(..).step_by(3) {
            wheel.cancel(key);
        }
        while wheel.advance(start + 50_000, 100, |_, _| ()).more_due {}
        assert!(wheel.is_empty());
        COUNT.get() - before
    };
    assert!(life(1 << 24) > 0);
    // The same again, seen from afar and from near.
    assert!(life(2 << 24) < 10);
    assert_eq!(life(3 << 24), 0);
}

/// On the shard's thread: taking timers over, sleeping, firing, finding the cancelled.
#[cfg(feature = "service")]
#[test]
fn a_warm_service_fires_without_allocating() {
    use std::sync::mpsc;
    use std::time::Duration;
    use timerwheel::service::{Config, TimerService};

    let mut config = Config::default();
    config.shards = 1;
    let (sender, fired) = mpsc::channel();
    let service = TimerService::start(config, |_| {
        let sender = sender.clone();
        let mut first = 0;
        // The first and the last of a round tell how often the thread called the allocator between them.
        move |(at, round): (u64, u64)| match at {
            0 => first = COUNT.get(),
            9_999 => sender.send((round, COUNT.get() - first)).expect("waits"),
            _ => {}
        }
    })
    .expect("threads");
    let mut counts = Vec::new();
    // At first twice as many, all of one instant and spread out, so that everything has grown beyond need.
    for (round, timers, apart_ns) in [
        (0, 20_000, 0),
        (1, 20_000, 20_000),
        (2, 10_000, 5_000),
        (3, 10_000, 9_000),
    ] {
        let start_ns = service.now_ns() + 300_000_000;
        let insert = |deadline_ns, at| loop {
            match service.at_ns(deadline_ns, (at, round)) {
                Ok(handle) => return handle,
                Err(_) => std::thread::yield_now(),
            }
        };
        for at in 0..timers {
            let handle = insert(start_ns + at * apart_ns, at.min(9_998));
            if at % 5 == 3 {
                assert!(handle.cancel());
            }
        }
        insert(start_ns + timers * apart_ns + 1, 9_999);
        let result = fired.recv_timeout(Duration::from_secs(60));
        let (of, count) = result.expect("the last one fires");
        assert_eq!(of, round);
        counts.push(count);
    }
    // Sending the result allocates, after counting.
    assert_eq!(counts[2..], [0; 2], "{counts:?}");
}
