//! The service on real threads and clocks. Nothing here asserts how fast the machine is.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use timerwheel::service::{Clock, Config, FdTimers, Handle, TimerService};

fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    config.shards = 1;
    change(&mut config);
    config
}

/// The first test that was written: in no mode and on no clock does a timer fire before its deadline.
#[test]
fn never_early_in_any_mode() {
    type Change = fn(&mut Config);
    let modes: [(&str, Change); 6] = [
        ("sleep", |_| ()),
        ("spin", |config| config.spin_ns = 60_000),
        ("slack", |config| config.slack_ns = 1_000_000),
        ("slack and spin", |config| {
            (config.slack_ns, config.spin_ns) = (300_000, 200_000);
        }),
        ("boottime", |config| config.clock = Clock::Boottime),
        ("boottime, slack", |config| {
            (config.clock, config.slack_ns) = (Clock::Boottime, 700_000);
        }),
    ];
    for (name, change) in modes {
        let config = config(change);
        let clock = config.clock;
        let (sender, fired) = mpsc::channel();
        let service = TimerService::start(config, |_| {
            let sender = sender.clone();
            move |deadline_ns: u64| sender.send((deadline_ns, clock.now_ns())).expect("waits")
        })
        .expect("threads");
        let start = service.now_ns();
        let mut random = 1_u64;
        for n in 0..2_000 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(n);
            let deadline_ns = start + (random >> 33) % 60_000_000;
            service.at_ns(deadline_ns, deadline_ns).expect("room");
        }
        for _ in 0..2_000 {
            let (deadline_ns, now_ns) = fired.recv().expect("fires");
            assert!(deadline_ns <= now_ns, "{name}: {deadline_ns} at {now_ns}");
        }
        assert_eq!(service.lateness_ns().len(), 2_000, "{name}");
    }
}

#[test]
fn a_panic_costs_no_other_timer() {
    let (sender, fired) = mpsc::channel();
    let service = TimerService::start(config(|_| ()), |_| {
        let sender = sender.clone();
        move |n: u32| {
            sender.send(n).expect("waits");
            assert_ne!(n, 1, "on purpose");
        }
    })
    .expect("threads");
    drop(sender);
    let now = service.now_ns();
    for n in 1..=3 {
        service.at_ns(now + u64::from(n), n).expect("room");
    }
    assert!(fired.iter().take(3).eq(1..=3));
}

#[test]
fn one_batch_fires_in_order() {
    let (sender, fired) = mpsc::channel();
    let service = TimerService::start(config(|_| ()), |_| {
        let sender = sender.clone();
        move |n: u64| sender.send(n).expect("waits")
    })
    .expect("threads");
    let start = service.now_ns() + 50_000_000;
    for n in [5, 3, 9, 1, 7, 2, 8, 0, 6, 4] {
        service.at_ns(start + n, n).expect("room");
    }
    assert!((0..10).eq(fired.iter().take(10)));
}

#[test]
fn an_earlier_timer_wakes_a_sleeping_shard() {
    let (sender, fired) = mpsc::channel();
    let service = TimerService::start(config(|_| ()), |_| {
        let sender = sender.clone();
        move |name: &'static str| sender.send(name).expect("waits")
    })
    .expect("threads");
    let hour = service
        .after(Duration::from_secs(3_600), "hour")
        .expect("room");
    let start = Instant::now();
    service.at(start, "now").expect("room");
    assert_eq!(fired.recv(), Ok("now"));
    assert!(hour.is_waiting());
    assert!(start.elapsed() < Duration::from_secs(3_000));
}

#[test]
fn a_cancelled_timer_never_fires_and_its_value_is_freed() {
    let (sender, fired) = mpsc::channel();
    let service = TimerService::start(config(|_| ()), |_| {
        let sender = sender.clone();
        move |value: Arc<&'static str>| sender.send(*value).expect("waits")
    })
    .expect("threads");
    let value = Arc::new("cancelled");
    let far = service
        .after(Duration::from_secs(3_600), value.clone())
        .expect("room");
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(far.cancel()));
    });
    assert!(!far.cancel() && !far.is_waiting());
    // The shard takes its commands in order: what comes later proves that the cancel was seen.
    let last = service
        .after(Duration::ZERO, Arc::new("last"))
        .expect("room");
    assert_eq!(fired.recv(), Ok("last"));
    assert_eq!(Arc::strong_count(&value), 1);
    assert!(!last.cancel());
}

#[test]
fn every_timer_either_fires_or_was_cancelled() {
    let fired = Arc::new(Mutex::new(vec![0_u8; 40_000]));
    let service = TimerService::start(
        config(|config| (config.shards, config.commands_max) = (2, 64)),
        |_| {
            let fired = fired.clone();
            move |n: usize| fired.lock().expect("no panic")[n] += 1
        },
    )
    .expect("threads");
    let cancelled = Mutex::new(vec![0_u8; 40_000]);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (service, cancelled) = (&service, &cancelled);
            scope.spawn(move || {
                for n in (thread..40_000).step_by(4) {
                    let delay = Duration::from_micros(n as u64 % 500);
                    let handle = loop {
                        match service.after(delay, n) {
                            Ok(handle) => break handle,
                            Err(refused) => {
                                assert!(refused.is_queue_full() && refused.into_value() == n);
                                std::thread::yield_now();
                            }
                        }
                    };
                    if n % 3 == 0 && handle.cancel() {
                        cancelled.lock().expect("no panic")[n] += 1;
                    }
                }
            });
        }
    });
    let cancelled = cancelled.into_inner().expect("no panic");
    let all_done = || {
        let fired = fired.lock().expect("no panic");
        let mut pairs = fired.iter().zip(&cancelled);
        assert!(
            pairs
                .clone()
                .all(|(fired, cancelled)| fired + cancelled <= 1)
        );
        pairs.all(|(fired, cancelled)| fired + cancelled == 1)
    };
    while !all_done() {
        std::thread::yield_now();
    }
}

#[test]
fn nothing_wakes_up_while_nothing_waits() {
    let (sender, fired) = mpsc::channel();
    let service = TimerService::start(config(|_| ()), |_| {
        let sender = sender.clone();
        move |()| sender.send(()).expect("waits")
    })
    .expect("threads");
    service.after(Duration::ZERO, ()).expect("room");
    fired.recv().expect("fires");
    let before = service.wakeups();
    // Another service counts the time; the silent one must not stir.
    let (ring, rings) = mpsc::channel();
    let other = TimerService::start(config(|_| ()), |_| {
        let ring = ring.clone();
        move |()| ring.send(()).expect("waits")
    })
    .expect("threads");
    other.after(Duration::from_millis(300), ()).expect("room");
    rings.recv().expect("rings");
    assert!(service.wakeups() <= before + 1, "{before}");
}

#[test]
fn a_full_shard_refuses_and_gives_the_value_back() {
    let service = TimerService::start(config(|config| config.timers_max = 2), |_| |_: u8| ())
        .expect("threads");
    let hour = Duration::from_secs(3_600);
    let first = service.after(hour, 1).expect("room");
    let second = service.after(hour, 2).expect("room");
    let refused = service.after(hour, 3).expect_err("full");
    assert!(refused.is_too_many());
    assert!(refused.to_string().contains("timers_max"));
    assert_eq!(refused.into_value(), 3);
    assert!(first.cancel());
    // The shard sleeps for an hour; being refused calls it, and it gives the place back.
    let mut waiting = std::collections::VecDeque::from([second, accepted(&service, hour)]);
    for _ in 0..2_000 {
        assert!(waiting.pop_front().expect("two").cancel());
        waiting.push_back(accepted(&service, hour));
    }
}

/// A cancelled timer gives its place back however many are cancelled at a time.
#[test]
fn cancelling_everything_makes_room_for_everything() {
    let change = |config: &mut Config| (config.timers_max, config.commands_max) = (3_000, 8);
    let service = TimerService::start(config(change), |_| |_: u8| ()).expect("threads");
    let hour = Duration::from_secs(3_600);
    for _ in 0..3 {
        let handles: Vec<_> = (0..3_000).map(|_| accepted(&service, hour)).collect();
        assert!(service.after(hour, 5).is_err());
        assert!(handles.iter().all(Handle::cancel));
    }
}

#[test]
fn a_full_queue_is_looked_at_before_the_first_deadline() {
    let service = TimerService::start(config(|config| config.commands_max = 2), |_| |_: u8| ())
        .expect("threads");
    for n in 0..1_000 {
        accepted(&service, Duration::from_secs(3_600 + n));
    }
}

#[test]
fn a_service_that_ends_drops_every_value() {
    let value = Arc::new(());
    for _ in 0..100 {
        let service = TimerService::start(config(|_| ()), |_| |_: Arc<()>| ()).expect("threads");
        let handles = [9, 8, 10].map(|hours| {
            let delay = Duration::from_secs(3_600 * hours);
            service.after(delay, value.clone()).expect("room")
        });
        drop(service);
        assert_eq!(Arc::strong_count(&value), 1);
        assert!(handles.iter().all(Handle::is_waiting));
    }
}

/// Tries until there is room.
fn accepted(service: &TimerService<u8>, delay: Duration) -> Handle<u8> {
    loop {
        match service.after(delay, 4) {
            Ok(handle) => return handle,
            Err(_) => std::thread::yield_now(),
        }
    }
}

#[test]
fn what_is_not_permitted_is_a_warning() {
    let service = TimerService::start(
        config(|config| {
            config.pin = true;
            // No such priority: refused even to root.
            config.fifo_priority = Some(200);
        }),
        |_| |()| (),
    )
    .expect("threads");
    let warnings = service.warnings();
    assert!(
        warnings
            .iter()
            .any(|warning| warning.contains("SCHED_FIFO")),
        "{warnings:?}"
    );
}

#[test]
fn a_descriptor_is_readable_when_a_timer_is_due() {
    for clock in [Clock::Monotonic, Clock::Boottime] {
        let mut timers = FdTimers::new(clock).expect("a descriptor");
        let start = clock.now_ns();
        for n in [3, 1, 2] {
            timers.at_ns(start + n * 2_000_000, n).expect("armed");
        }
        let never = timers.at_ns(start + 1, 0).expect("armed");
        assert_eq!(timers.cancel(never), Some(0));
        let mut fired = Vec::new();
        while !timers.is_empty() {
            poll(&mut [PollFd::new(&timers, PollFlags::IN)], None).expect("polls");
            let now_ns = clock.now_ns();
            timers
                .fire(2, |_, n| {
                    assert!(start + n * 2_000_000 <= clock.now_ns(), "early");
                    fired.push(n);
                })
                .expect("armed");
            assert!(now_ns > start);
        }
        assert_eq!(fired, [1, 2, 3]);
        // Nothing waits: not readable.
        let none = rustix::time::Timespec::default();
        let ready = poll(&mut [PollFd::new(&timers, PollFlags::IN)], Some(&none));
        assert_eq!(ready, Ok(0));
    }
}
