//! How late timers fire, and what it costs: real threads, real clock.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mainstay_benches::random::Random;
use rustix::thread::clock_nanosleep_absolute;
use rustix::time::{ClockId, Timespec, clock_gettime};
use timerwheel::service::{Clock, Config, TimerService};

/// Deadlines on CLOCK_MONOTONIC.
struct Load {
    deadlines: Vec<u64>,
}

/// How late each timer was.
struct Late {
    histogram: Histogram<u64>,
    early: u64,
}

impl Late {
    fn new() -> Self {
        Late {
            histogram: Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("right bounds"),
            early: 0,
        }
    }

    fn fired(&mut self, deadline_ns: u64) {
        let now_ns = Clock::Monotonic.now_ns();
        self.early += u64::from(now_ns < deadline_ns);
        self.histogram
            .saturating_record(now_ns.saturating_sub(deadline_ns));
    }
}

pub(crate) fn table(timers: usize, seconds: u64, only: &str) {
    type Run = fn(&Load) -> Late;
    let all: [(&str, Run); 8] = [
        ("sorted list, clock_nanosleep", |load| list(load, 0)),
        ("TimerService", |load| service(load, |_| ())),
        ("sorted list, 60 µs of spin", |load| list(load, 60_000)),
        ("TimerService, 60 µs of spin", |load| {
            service(load, |config| config.spin_ns = 60_000)
        }),
        ("TimerService, 950 µs of slack", |load| {
            service(load, |config| config.slack_ns = 950_000)
        }),
        ("timerwheel futures, a task each", sleeps),
        ("tokio::time, a task each", tokio_tasks),
        ("tokio_util DelayQueue", delay_queue),
    ];
    println!("### {timers} timers over {seconds} s\n");
    println!("| | p50 µs | p99 | p99.9 | max | CPU s | early |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for (name, run) in all.into_iter().filter(|(name, _)| name.contains(only)) {
        let mut random = Random(3);
        // Time to hand them all over before the first is due.
        let start_ns = Clock::Monotonic.now_ns() + 100_000_000 + 2_000 * timers as u64;
        let span_ns = seconds * 1_000_000_000;
        let deadlines = (0..timers)
            .map(|_| start_ns + random.below(span_ns))
            .collect();
        let load = Load { deadlines };
        let cpu = cpu_from(start_ns - 1_000_000);
        let late = run(&load);
        let cpu = process_cpu() - cpu.join().expect("no panic");
        assert_eq!(late.histogram.len() as usize, timers, "{name}");
        let us = |quantile| late.histogram.value_at_quantile(quantile) as f64 / 1e3;
        println!(
            "| {name} | {:.1} | {:.1} | {:.1} | {:.0} | {:.2} | {} |",
            us(0.5),
            us(0.99),
            us(0.999),
            late.histogram.max() as f64 / 1e3,
            cpu.as_secs_f64(),
            late.early,
        );
    }
    println!();
}

/// The CPU time that the process has used when the load begins.
fn cpu_from(start_ns: u64) -> std::thread::JoinHandle<Duration> {
    std::thread::spawn(move || {
        sleep_until(start_ns);
        process_cpu()
    })
}

fn process_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn sleep_until(ns: u64) {
    let request = Timespec {
        tv_sec: (ns / 1_000_000_000) as i64,
        tv_nsec: (ns % 1_000_000_000) as i64,
    };
    while clock_nanosleep_absolute(ClockId::Monotonic, &request).is_err() {}
}

/// The floor: no insertions, no cancellations, no other threads.
fn list(load: &Load, spin_ns: u64) -> Late {
    rustix::thread::set_current_timer_slack(Some(std::num::NonZeroU64::MIN)).expect("allowed");
    let mut sorted = load.deadlines.clone();
    sorted.sort_unstable();
    let mut late = Late::new();
    for deadline_ns in sorted {
        if Clock::Monotonic.now_ns() + spin_ns < deadline_ns {
            sleep_until(deadline_ns - spin_ns);
        }
        while Clock::Monotonic.now_ns() < deadline_ns {
            std::hint::spin_loop();
        }
        late.fired(deadline_ns);
    }
    late
}

fn service(load: &Load, change: fn(&mut Config)) -> Late {
    let mut config = Config::default();
    config.shards = 1;
    change(&mut config);
    let late = Arc::new(Mutex::new(Late::new()));
    let left = Arc::new(AtomicUsize::new(load.deadlines.len()));
    let main = std::thread::current();
    let service = TimerService::start(config, |_| {
        let (late, left, main) = (late.clone(), left.clone(), main.clone());
        move |deadline_ns: u64| {
            late.lock().expect("no panic").fired(deadline_ns);
            if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                main.unpark();
            }
        }
    })
    .expect("threads");
    for deadline_ns in &load.deadlines {
        while service.at_ns(*deadline_ns, *deadline_ns).is_err() {
            std::thread::yield_now();
        }
    }
    while left.load(Ordering::Relaxed) > 0 {
        std::thread::park();
    }
    drop(service);
    let late = Arc::into_inner(late).expect("the threads have ended");
    late.into_inner().expect("no panic")
}

/// One task per timer on a runtime of one thread.
fn tasks<F: Future<Output = ()> + 'static>(load: &Load, sleep: impl Fn(u64) -> F) -> Late {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let late = std::rc::Rc::new(std::cell::RefCell::new(Late::new()));
    let set = tokio::task::LocalSet::new();
    let _inside = runtime.enter();
    for deadline_ns in load.deadlines.iter().copied() {
        let (late, sleep) = (late.clone(), sleep(deadline_ns));
        set.spawn_local(async move {
            sleep.await;
            late.borrow_mut().fired(deadline_ns);
        });
    }
    runtime.block_on(set);
    std::rc::Rc::into_inner(late)
        .expect("all done")
        .into_inner()
}

fn tokio_tasks(load: &Load) -> Late {
    let (base, base_ns) = (Instant::now(), Clock::Monotonic.now_ns());
    tasks(load, |deadline_ns| {
        let deadline = base + Duration::from_nanos(deadline_ns - base_ns);
        tokio::time::sleep_until(deadline.into())
    })
}

fn sleeps(load: &Load) -> Late {
    let mut config = Config::default();
    config.shards = 1;
    config.commands_max = 1 << 20;
    let sleeps = timerwheel::service::Sleeps::start(config).expect("threads");
    tasks(load, |deadline_ns| sleeps.sleep_until_ns(deadline_ns))
}

fn delay_queue(load: &Load) -> Late {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut queue = tokio_util::time::DelayQueue::new();
        let (base, base_ns) = (Instant::now(), Clock::Monotonic.now_ns());
        for deadline_ns in &load.deadlines {
            let deadline = base + Duration::from_nanos(deadline_ns - base_ns);
            queue.insert_at(*deadline_ns, deadline.into());
        }
        let mut late = Late::new();
        while let Some(expired) = std::future::poll_fn(|context| queue.poll_expired(context)).await
        {
            late.fired(expired.into_inner());
        }
        late
    })
}
