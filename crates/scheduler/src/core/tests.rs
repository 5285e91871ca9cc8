//! Policies on a simulated clock.

mod bounds;
mod change;
mod clock;
mod elsewhere;
#[cfg(feature = "tokio")]
mod futures;
mod missed;
mod overlap;
mod tries;

use std::time::Duration;

use super::*;
use crate::cancel::CancelCause;
use crate::policy::{BreakerRules, Misfire, Overlap, Retry};
use crate::schedule::Schedule;

const START_MS: u64 = 1_000_000;

/// A core and its clocks, which stand at [`START_MS`] when it begins.
struct Sim {
    core: Core,
    ms: u64,
}

impl Sim {
    fn new() -> Self {
        Self::with_queue(1_000, OnFull::RejectNew)
    }

    fn with_queue(queue_max: usize, on_full: OnFull) -> Self {
        let limits = Limits {
            jobs_max: 100,
            queue_max,
            on_full,
            futures_max: 10,
            claim_ms: 300,
            claims_max: 3,
            reports: true,
        };
        let core = Core::new(limits, 7, now(START_MS));
        Self { core, ms: START_MS }
    }

    fn add(&mut self, spec: JobSpec) -> Key {
        self.core.add(spec, None, now(self.ms)).unwrap()
    }

    /// Lets time pass without anybody looking at the clock, then fires what is due.
    fn jump(&mut self, ms: u64) {
        self.ms += ms;
        while self.core.advance(now(self.ms), 3) {}
    }

    /// Lets time pass, a millisecond at a time.
    fn pass(&mut self, ms: u64) {
        (0..ms).for_each(|_| self.jump(1));
    }

    fn take(&mut self) -> Option<Start> {
        self.core.take(now(self.ms))
    }

    /// Takes a run and says since START_MS when it was to fire.
    fn taken(&mut self) -> (Key, u64) {
        let start = self.take().expect("a run is ready");
        (start.run, start.firing.fire_ms - START_MS)
    }

    fn succeed(&mut self, run: Key) {
        let end = self.core.tried(run, Tried::Succeeded, now(self.ms));
        assert!(end.settle.is_none());
    }

    fn fail(&mut self, run: Key) {
        self.core
            .tried(run, Tried::Failed("no".into()), now(self.ms));
    }

    /// Settled firings since the last call.
    fn ended(&mut self) -> Vec<(u64, Outcome)> {
        let ended = std::mem::take(&mut self.core.ended);
        ended
            .iter()
            .map(|(_, record)| (record.fire_ms - START_MS, record.outcome))
            .collect()
    }
}

fn now(ms: u64) -> Now {
    Now {
        wall_ms: ms,
        mono_ms: ms - START_MS,
    }
}

fn every(ms: u64) -> JobSpec {
    let every = Schedule::every(Duration::from_millis(ms)).unwrap();
    JobSpec::new("job", every, |_| Ok(()))
}

use Outcome::*;

#[test]
fn firings_come_in_time_and_never_early() {
    let mut sim = Sim::new();
    sim.add(every(10));
    sim.pass(9);
    assert!(sim.take().is_none());
    for round in 1..=3 {
        sim.pass(if round == 1 { 1 } else { 10 });
        let (run, fire_ms) = sim.taken();
        assert_eq!(fire_ms, round * 10);
        sim.succeed(run);
    }
    assert_eq!(
        sim.ended(),
        [(10, Succeeded), (20, Succeeded), (30, Succeeded)]
    );
    assert_eq!(sim.core.quiet_ms(now(sim.ms)), Some(10));
}

#[test]
fn jitter_delays_within_its_bounds_and_leaves_the_fire_time() {
    let mut sim = Sim::new();
    sim.add(every(100).jitter(Duration::from_millis(50)));
    let mut delays = std::collections::BTreeSet::new();
    for _ in 0..20_000 {
        sim.pass(1);
        if let Some(start) = sim.take() {
            assert_eq!(start.firing.fire_ms % 100, 0);
            delays.insert(sim.ms - start.firing.fire_ms);
            sim.succeed(start.run);
        }
    }
    assert!(
        delays.len() > 40 && *delays.last().unwrap() <= 50,
        "{delays:?}"
    );
}

#[test]
fn what_was_missed_goes_by_the_policy_and_is_told() {
    for (policy, run, missed) in [
        (Misfire::Skip, vec![], vec![1_000, 2_000, 3_000]),
        (Misfire::Once, vec![3_000], vec![1_000, 2_000]),
        (Misfire::All(2), vec![2_000, 3_000], vec![1_000]),
    ] {
        let mut sim = Sim::new();
        sim.add(
            every(1_000)
                .misfire(policy)
                .misfire_after(Duration::from_millis(500))
                .overlap(Overlap::Allow),
        );
        sim.jump(4_200);
        let missed: Vec<_> = missed.into_iter().map(|ms| (ms, Misfired)).collect();
        assert_eq!(sim.ended(), missed);
        let mut fired = Vec::new();
        while let Some(start) = sim.take() {
            fired.push(start.firing.fire_ms - START_MS);
            sim.succeed(start.run);
        }
        // The fourth is late by less than the grace.
        assert_eq!(fired, [run, vec![4_000]].concat());
    }
}

#[test]
fn a_clock_that_is_set_back_is_waited_for() {
    let mut sim = Sim::new();
    sim.add(every(1_000));
    sim.jump(1_000);
    let (run, _) = sim.taken();
    sim.succeed(run);
    sim.ms -= 700;
    while sim.core.advance(
        Now {
            wall_ms: sim.ms,
            mono_ms: 1_000,
        },
        3,
    ) {}
    assert!(sim.take().is_none());
    sim.pass(1_699);
    assert!(sim.take().is_none());
    sim.pass(1);
    assert_eq!(sim.taken().1, 2_000);
}

#[test]
fn single_shots_end() {
    let mut sim = Sim::new();
    let after = Schedule::after(Duration::from_millis(5));
    let key = sim.add(JobSpec::new("after", after, |_| Ok(())));
    let past = sim.add(JobSpec::new("past", Schedule::at_ms(START_MS), |_| Ok(())));
    assert_eq!(sim.ended(), [(0, Misfired)]);
    assert_eq!(sim.core.jobs.get(past).unwrap().state, JobState::Done);
    sim.pass(5);
    let (run, fire_ms) = sim.taken();
    assert_eq!(fire_ms, 5);
    sim.succeed(run);
    assert_eq!(sim.core.jobs.get(key).unwrap().state, JobState::Done);
    assert_eq!(sim.core.quiet_ms(now(sim.ms)), None);
}

#[test]
fn overlaps_go_by_the_policy() {
    let mut sim = Sim::new();
    sim.add(every(10).overlap(Overlap::Skip));
    sim.pass(10);
    let (run, _) = sim.taken();
    sim.pass(10);
    assert!(sim.take().is_none());
    assert_eq!(sim.ended(), [(20, Overlapped)]);
    sim.succeed(run);

    let mut sim = Sim::new();
    sim.add(every(10).overlap(Overlap::Queue(2)));
    sim.pass(10);
    let (run, _) = sim.taken();
    sim.pass(30);
    assert_eq!(sim.ended(), [(40, Overlapped)]);
    sim.succeed(run);
    let (run, fire_ms) = sim.taken();
    assert_eq!(fire_ms, 20);
    assert!(sim.take().is_none(), "one at a time");
    sim.succeed(run);
    assert_eq!(sim.taken().1, 30);

    let mut sim = Sim::new();
    sim.add(every(10).overlap(Overlap::Allow));
    sim.pass(20);
    assert_eq!((sim.taken().1, sim.taken().1), (10, 20));
}

#[test]
fn the_previous_run_is_asked_to_stop_and_the_new_one_waits_for_it() {
    let mut sim = Sim::new();
    sim.add(every(10).overlap(Overlap::CancelPrevious));
    sim.pass(10);
    let start = sim.take().unwrap();
    assert!(!start.firing.cancel.is_cancelled());
    sim.pass(20);
    assert_eq!(start.firing.cancel.cause(), Some(CancelCause::Superseded));
    assert!(sim.take().is_none());
    // 30 took the place of 20.
    assert_eq!(sim.ended(), [(20, Overlapped)]);
    sim.fail(start.run);
    assert_eq!(sim.ended(), [(10, Cancelled)]);
    assert_eq!(sim.taken().1, 30);
}

#[test]
fn a_timeout_asks_to_stop_and_counts_as_failure() {
    let mut sim = Sim::new();
    sim.add(every(100).timeout(Duration::from_millis(30)));
    sim.pass(100);
    let start = sim.take().unwrap();
    sim.pass(29);
    assert!(!start.firing.cancel.is_cancelled());
    sim.pass(1);
    assert_eq!(start.firing.cancel.cause(), Some(CancelCause::TimedOut));
    sim.succeed(start.run);
    assert_eq!(sim.ended(), [(100, TimedOut)]);
}

#[test]
fn failures_are_tried_again_with_growing_delays_as_one_firing() {
    let mut sim = Sim::new();
    let retry = Retry {
        attempts: 3,
        base: Duration::from_millis(100),
        cap: Duration::from_millis(1_000),
    };
    sim.add(every(1_000).retry(retry));
    sim.pass(1_000);
    let first = sim.take().unwrap();
    sim.fail(first.run);
    sim.pass(49);
    assert!(sim.take().is_none());
    sim.pass(51);
    let second = sim.take().unwrap();
    assert_eq!(
        (second.firing.attempt, second.firing.trace),
        (2, first.firing.trace)
    );
    assert_ne!(second.firing.span, first.firing.span);
    sim.core
        .tried(second.run, Tried::Panicked("oh".into()), now(sim.ms));
    sim.pass(99);
    assert!(sim.take().is_none());
    sim.pass(101);
    let third = sim.take().unwrap();
    assert!(sim.ended().is_empty());
    sim.fail(third.run);
    let (spec, record) = sim.core.ended.pop().unwrap();
    assert_eq!(
        (spec.name(), record.attempts, record.outcome),
        ("job", 3, Failed)
    );
    assert_eq!(record.error.as_deref(), Some("no"));
}

#[test]
fn three_failures_open_the_breaker_and_a_probe_closes_it() {
    let mut sim = Sim::new();
    let key = sim.add(every(10_000).breaker(BreakerRules::default()));
    for _ in 0..3 {
        sim.jump(10_000);
        let (run, _) = sim.taken();
        sim.fail(run);
    }
    assert_eq!(sim.ended().len(), 3);
    let state = |sim: &Sim| {
        sim.core
            .jobs
            .get(key)
            .unwrap()
            .breaker_state(sim.ms - START_MS)
    };
    assert_eq!(state(&sim), circuit::State::Open);
    for _ in 0..29 {
        sim.jump(10_000);
        assert!(sim.take().is_none());
    }
    let refused = sim.ended();
    assert_eq!(refused.len(), 29);
    assert!(refused.iter().all(|(_, outcome)| *outcome == BreakerOpen));
    // 300 s after it opened, one probe.
    sim.jump(10_000);
    let (run, _) = sim.taken();
    assert_eq!(state(&sim), circuit::State::HalfOpen);
    sim.succeed(run);
    assert_eq!(state(&sim), circuit::State::Closed);
    assert!(
        sim.core.jobs.get(key).unwrap().breaker.is_none(),
        "nothing to remember"
    );
}

#[test]
fn slow_runs_and_panics_open_the_breaker_too() {
    let mut sim = Sim::new();
    let rules = BreakerRules {
        slow: Some(Duration::from_millis(50)),
        ..BreakerRules::default()
    };
    let key = sim.add(every(1_000).breaker(rules));
    for round in 0..3 {
        sim.jump(1_000);
        let (run, _) = sim.taken();
        match round {
            0 => sim.fail(run),
            1 => drop(
                sim.core
                    .tried(run, Tried::Panicked("oh".into()), now(sim.ms)),
            ),
            _ => {
                sim.pass(51);
                sim.succeed(run);
            }
        }
    }
    let job = sim.core.jobs.get(key).unwrap();
    assert_eq!(job.breaker_state(sim.ms - START_MS), circuit::State::Open);
}

#[test]
fn a_full_queue_refuses_the_new_or_drops_the_oldest() {
    for (on_full, ready) in [
        (OnFull::RejectNew, [10, 20]),
        (OnFull::DropOldest, [20, 30]),
    ] {
        let mut sim = Sim::with_queue(2, on_full);
        sim.add(every(10).overlap(Overlap::Allow));
        sim.pass(30);
        let lost = if on_full == OnFull::RejectNew { 30 } else { 10 };
        assert_eq!(sim.ended(), [(lost, QueueFull)]);
        assert_eq!([sim.taken().1, sim.taken().1], ready);
    }
}

#[test]
fn pause_resume_run_now_and_cancel() {
    let mut sim = Sim::new();
    let key = sim.add(every(10));
    sim.core.pause(key);
    sim.pass(50);
    assert!(sim.take().is_none());
    assert!(sim.core.run_now(key, now(sim.ms)));
    let (run, fire_ms) = sim.taken();
    assert_eq!(fire_ms, 50);
    sim.succeed(run);
    sim.core.resume(key, now(sim.ms));
    sim.pass(10);
    let (run, fire_ms) = sim.taken();
    assert_eq!(fire_ms, 60);
    sim.ended();
    sim.core.remove(key, now(sim.ms));
    assert!(sim.core.find("job", 0).is_none(), "the name is free");
    sim.pass(100);
    assert!(sim.take().is_none());
    sim.succeed(run);
    assert_eq!(sim.ended(), [(60, Succeeded)]);
    assert!(sim.core.jobs.get(key).is_none(), "the last run was the end");
    assert!(!sim.core.run_now(key, now(sim.ms)));
}

#[test]
fn names_are_one_job_each_and_jobs_are_bounded() {
    let mut sim = Sim::new();
    sim.add(every(10));
    assert!(sim.core.add(every(10), None, now(sim.ms)).is_err());
    for shard in 1..100 {
        sim.add(every(10).shard(shard));
    }
    assert!(
        sim.core
            .add(every(10).shard(100), None, now(sim.ms))
            .is_err()
    );
}

#[test]
fn stopping_drops_what_has_not_begun_and_leaves_it_to_the_next_start() {
    let mut sim = Sim::new();
    let key = sim.add(every(10).overlap(Overlap::Queue(5)).once());
    sim.pass(10);
    let start = sim.take().unwrap();
    assert!(start.claim.is_some());
    sim.core
        .claimed(start.run, Claim::new(()), now(sim.ms), now(sim.ms));
    sim.pass(20);
    assert_eq!(
        sim.core.accounted_ms(key),
        Some(START_MS + 19),
        "20 and 30 wait"
    );
    sim.core.stop(now(sim.ms));
    assert_eq!(sim.ended(), [(20, Dropped), (30, Dropped)]);
    let end = sim.core.tried(start.run, Tried::Succeeded, now(sim.ms));
    assert!(matches!(end.settle, Some((_, Succeeded))));
    sim.pass(100);
    assert!(sim.take().is_none());
    assert_eq!(sim.core.accounted_ms(key), Some(START_MS + 19));
}

#[test]
fn a_claim_that_nobody_answers_is_asked_again_and_counts_no_try() {
    let mut sim = Sim::new();
    let key = sim.add(every(100_000).once());
    sim.jump(100_000);
    let first = sim.take().unwrap();
    sim.core.unclaimed(first.run, "no answer", now(sim.ms));
    assert_eq!(sim.core.accounted_ms(key), Some(START_MS + 99_999));
    sim.pass(99);
    assert!(sim.take().is_none());
    sim.pass(1);
    let second = sim.take().unwrap();
    assert_eq!(
        (second.firing.attempt, second.firing.fire_ms),
        (1, first.firing.fire_ms)
    );
    sim.jump(60_000);
    sim.core.unclaimed(second.run, "no answer", now(sim.ms));
    assert_eq!(sim.ended(), [(100_000, Unclaimed)]);
    // The next start looks at it again.
    assert_eq!(sim.core.accounted_ms(key), Some(START_MS + 99_999));
}

#[test]
fn histories_are_bounded() {
    let mut sim = Sim::new();
    let key = sim.add(every(10).history_max(3));
    for _ in 0..9 {
        sim.pass(10);
        let (run, _) = sim.taken();
        sim.succeed(run);
    }
    let job = sim.core.jobs.get(key).unwrap();
    let kept: Vec<_> = job
        .history
        .iter()
        .map(|record| record.fire_ms - START_MS)
        .collect();
    assert_eq!(kept, [70, 80, 90]);
    assert_eq!(job.counts.of(Succeeded), 9);
}

/// Counters by name and labels.
#[derive(Default)]
struct Counted(
    std::sync::Mutex<std::collections::BTreeMap<String, Arc<std::sync::atomic::AtomicU64>>>,
);

impl metrics::Recorder for Counted {
    fn describe_counter(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }
    fn describe_gauge(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }
    fn describe_histogram(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }

    fn register_counter(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Counter {
        let mut counted = self.0.lock().unwrap();
        let counter = counted.entry(key.to_string()).or_default();
        metrics::Counter::from_arc(Arc::clone(counter))
    }

    fn register_gauge(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Gauge {
        metrics::Gauge::noop()
    }

    fn register_histogram(
        &self,
        _: &metrics::Key,
        _: &metrics::Metadata<'_>,
    ) -> metrics::Histogram {
        metrics::Histogram::noop()
    }
}

#[test]
fn outcomes_and_changes_of_breakers_are_counted() {
    let counted = Counted::default();
    metrics::with_local_recorder(&counted, || {
        let mut sim = Sim::new();
        sim.add(every(1_000).breaker(BreakerRules::default()));
        for round in 0..5 {
            sim.jump(1_000);
            match sim.take() {
                Some(start) if round == 0 => sim.succeed(start.run),
                Some(start) => sim.fail(start.run),
                None => {}
            }
        }
    });
    let counted = counted.0.into_inner().unwrap();
    let count = |key: &str| counted[key].load(std::sync::atomic::Ordering::Relaxed);
    let firings = "Key(mainstay_scheduler_firings_total, [job = job, outcome = ";
    assert_eq!(count(&format!("{firings}succeeded])")), 1);
    assert_eq!(count(&format!("{firings}failed])")), 3);
    assert_eq!(count(&format!("{firings}breaker-open])")), 1);
    assert_eq!(
        count("Key(mainstay_scheduler_breaker_changes_total, [job = job, to = open])"),
        1
    );
    assert_eq!(counted.len(), 4, "{:?}", counted.keys());
}
