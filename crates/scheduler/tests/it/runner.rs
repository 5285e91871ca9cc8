//! The threads: jobs that panic, hang, come by the thousand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use scheduler::{
    CancelCause, Config, Job, JobSpec, JobState, Outcome, Overlap, Schedule, Scheduler,
};

/// Only a broken scheduler takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

fn every(ms: u64) -> Schedule {
    Schedule::every(Duration::from_millis(ms)).unwrap()
}

fn never() -> Schedule {
    Schedule::at_ms(u64::MAX / 2)
}

fn start() -> Scheduler {
    Scheduler::start(Config::default()).unwrap()
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis() as u64
}

/// Waits until the job has so many outcomes of this kind.
fn wait_for(job: &Job, outcome: Outcome, count: u64) {
    let started = std::time::Instant::now();
    while job.status().unwrap().counts.of(outcome) < count {
        assert!(started.elapsed() < PATIENCE, "{:?}", job.status());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn nothing_fires_early_or_twice() {
    let scheduler = start();
    let (sender, fired) = mpsc::channel();
    let spec = JobSpec::new("tick", every(5), move |firing| {
        sender.send((firing.fire_ms, now_ms()))?;
        Ok(())
    });
    scheduler.add(spec.overlap(Overlap::Allow)).unwrap();
    let mut last_ms = 0;
    let mut fires = std::collections::HashSet::new();
    for _ in 0..100 {
        let (fire_ms, at_ms) = fired.recv_timeout(PATIENCE).unwrap();
        assert!(at_ms >= fire_ms && fire_ms.is_multiple_of(5));
        assert!(fires.insert(fire_ms));
        last_ms = last_ms.max(fire_ms);
    }
    assert!(scheduler.lateness().count() >= 100);
    assert_eq!(scheduler.shutdown(PATIENCE).left, 0);
}

#[test]
fn a_panic_is_an_outcome_and_the_pool_goes_on() {
    let mut config = Config::default();
    config.workers = 1;
    let scheduler = Scheduler::start(config).unwrap();
    let bad = scheduler
        .add(JobSpec::new("bad", every(5), |_| panic!("on purpose")))
        .unwrap();
    let good = scheduler
        .add(JobSpec::new("good", every(5), |_| Ok(())))
        .unwrap();
    wait_for(&bad, Outcome::Panicked, 3);
    wait_for(&good, Outcome::Succeeded, 3);
    let history = bad.history();
    assert_eq!(history.last().unwrap().error.as_deref(), Some("on purpose"));
    assert!(history.last().unwrap().trace.is_some());
}

#[test]
fn a_timeout_wakes_the_run_that_looks_at_its_token() {
    let scheduler = start();
    let spec = JobSpec::new("slow", never(), |firing| {
        assert!(firing.cancel.sleep(PATIENCE));
        Err(format!("{:?}", firing.cancel.cause()).into())
    });
    let job = scheduler
        .add(spec.timeout(Duration::from_millis(20)))
        .unwrap();
    assert!(job.run_now());
    wait_for(&job, Outcome::TimedOut, 1);
    let error = job.history()[0].error.clone();
    assert_eq!(error.as_deref(), Some("Some(TimedOut)"));
}

#[test]
fn a_shutdown_waits_then_asks_and_tells_what_is_left() {
    let scheduler = start();
    let (began, begun) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    let ended = std::sync::Mutex::new(ended);
    let polite = JobSpec::new("polite", never(), {
        let began = began.clone();
        move |firing| {
            began.send(())?;
            assert!(firing.cancel.sleep(PATIENCE));
            assert_eq!(firing.cancel.cause(), Some(CancelCause::ShuttingDown));
            Err("asked".into())
        }
    });
    let deaf = JobSpec::new("deaf", never(), move |_| {
        began.send(())?;
        Ok(ended.lock().unwrap().recv_timeout(PATIENCE)?)
    });
    for spec in [polite, deaf] {
        assert!(scheduler.add(spec).unwrap().run_now());
        begun.recv_timeout(PATIENCE).unwrap();
    }
    let drained = scheduler.shutdown(Duration::ZERO);
    assert_eq!((drained.cancelled, drained.left), (2, 1));
    end.send(()).unwrap();
}

#[test]
fn the_observer_hears_every_outcome_with_its_job() {
    let (sender, heard) = mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let mut config = Config::default();
    config.observer = Some(Box::new(move |spec, record| {
        // The receiver is gone at the end.
        drop(
            sender
                .lock()
                .unwrap()
                .send((spec.name().to_owned(), record.clone())),
        );
    }));
    let scheduler = Scheduler::start(config).unwrap();
    let job = scheduler
        .add(JobSpec::new("j", never(), |_| Err("no".into())))
        .unwrap();
    assert!(job.run_now());
    let (name, record) = heard.recv_timeout(PATIENCE).unwrap();
    assert_eq!(
        (name.as_str(), record.outcome, record.attempts),
        ("j", Outcome::Failed, 1)
    );
    assert!(record.began_ms.unwrap() >= record.fire_ms && record.ended_ms >= record.fire_ms);
}

#[test]
fn ten_thousand_jobs_fire_each() {
    let scheduler = start();
    let fired: Arc<Vec<AtomicU64>> = Arc::new((0..10_000).map(|_| AtomicU64::new(0)).collect());
    let (sender, complete) = mpsc::channel();
    let missing = Arc::new(AtomicU64::new(10_000));
    for number in 0..10_000 {
        let (fired, missing, sender) = (Arc::clone(&fired), Arc::clone(&missing), sender.clone());
        let spec = JobSpec::new(format!("job-{number}"), every(50), move |_| {
            if fired[number].fetch_add(1, Relaxed) == 0 && missing.fetch_sub(1, Relaxed) == 1 {
                sender.send(())?;
            }
            Ok(())
        });
        scheduler.add(spec).unwrap();
    }
    complete.recv_timeout(PATIENCE).unwrap();
    assert_eq!(scheduler.jobs().len(), 10_000);
    let job = scheduler.find("job-77", 0).unwrap();
    assert_eq!(job.status().unwrap().state, JobState::Scheduled);
    job.cancel();
    assert!(job.status().is_none() || scheduler.find("job-77", 0).is_none());
    assert_eq!(scheduler.shutdown(PATIENCE).left, 0);
}

#[cfg(feature = "tokio")]
mod futures {
    use super::*;

    #[test]
    fn ten_thousand_futures_run_at_the_same_time() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        let mut config = Config::default();
        config.workers = 2;
        let scheduler = Scheduler::start(config).unwrap();
        let (arrived, arrivals) = mpsc::channel();
        let (open, gate) = tokio::sync::watch::channel(false);
        for number in 0..10_000 {
            let (arrived, gate) = (arrived.clone(), gate.clone());
            let run = move |_| {
                let (arrived, mut gate) = (arrived.clone(), gate.clone());
                async move {
                    arrived.send(())?;
                    gate.wait_for(|is_open| *is_open).await?;
                    Ok(())
                }
            };
            let handle = runtime.handle().clone();
            let spec = JobSpec::future(format!("job-{number}"), never(), handle, run);
            assert!(scheduler.add(spec).unwrap().run_now());
        }
        for _ in 0..10_000 {
            arrivals.recv_timeout(PATIENCE).unwrap();
        }
        assert_eq!(scheduler.load().runs, 10_000);
        open.send(true).unwrap();
        assert_eq!(
            scheduler.shutdown(PATIENCE),
            scheduler::Drained {
                cancelled: 0,
                left: 0
            }
        );
    }

    #[test]
    fn a_future_that_panics_or_is_dropped_is_an_outcome() {
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        let scheduler = start();
        let handle = runtime.handle().clone();
        let panics = JobSpec::future("panics", never(), handle.clone(), |_| async {
            panic!("in it")
        });
        let panics = scheduler.add(panics).unwrap();
        let hangs = JobSpec::future("hangs", never(), handle, |_| async {
            std::future::pending::<()>().await;
            Ok(())
        });
        let hangs = scheduler.add(hangs).unwrap();
        assert!(panics.run_now() && hangs.run_now());
        wait_for(&panics, Outcome::Panicked, 1);
        while hangs.status().unwrap().running == 0 {
            std::thread::yield_now();
        }
        runtime.shutdown_background();
        wait_for(&hangs, Outcome::Failed, 1);
    }
}

/// What is to happen in an hour wakes nobody until then.
#[cfg(target_os = "linux")]
#[test]
fn the_clocks_thread_sleeps_until_something_is_due() {
    let (sender, seen) = mpsc::channel();
    let mut config = Config::default();
    // What the overlap policy skips is settled on the clock's thread.
    config.observer = Some(Box::new(move |_, record| {
        if record.outcome == Outcome::Overlapped {
            drop(sender.send(std::fs::read_link("/proc/thread-self").unwrap()));
        }
    }));
    let scheduler = Scheduler::start(config).unwrap();
    let (end, ended) = mpsc::channel::<()>();
    let ended = parking_lot::Mutex::new(ended);
    let spec = JobSpec::new("busy", every(5), move |_| {
        ended.lock().recv().unwrap_or_default();
        Ok(())
    });
    let busy = scheduler.add(spec).unwrap();
    let status = std::path::Path::new("/proc").join(seen.recv_timeout(PATIENCE).unwrap());
    let name = std::fs::read_to_string(status.join("comm")).unwrap();
    assert_eq!(name.trim(), "scheduler-clock");
    busy.cancel();
    drop(end);
    let hourly = JobSpec::new("later", never(), |_| Ok(()));
    scheduler.add(hourly).unwrap();
    let sleeps = || {
        let text = std::fs::read_to_string(status.join("status")).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    // It looks up once more for what was cancelled, then never.
    let mut before = sleeps();
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(1_300));
        let after = sleeps();
        if after == before {
            return;
        }
        before = after;
    }
    panic!("it wakes up again and again");
}
