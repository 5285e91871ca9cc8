//! What changes behind a run's back: its job, its claim.

use super::*;

#[test]
fn a_job_in_the_place_of_another_counts_what_that_one_still_runs() {
    let mut sim = Sim::new();
    let old = sim.add(every(10));
    sim.pass(10);
    let (run, _) = sim.taken();
    let change = |sim: &mut Sim, old: Key, spec: JobSpec| {
        let new = vec![(spec, None)];
        sim.core.change(&[old], new, now(sim.ms)).unwrap()[0]
    };
    let skips = change(&mut sim, old, every(20));
    sim.pass(10);
    assert_eq!(sim.ended(), [(20, Overlapped)]);
    let queues = change(&mut sim, skips, every(10).overlap(Overlap::Queue(1)));
    sim.pass(10);
    assert!(sim.take().is_none());
    sim.succeed(run);
    let (run, fire_ms) = sim.taken();
    assert_eq!(fire_ms, 30);
    let cancels = every(20).overlap(Overlap::CancelPrevious);
    change(&mut sim, queues, cancels);
    sim.pass(10);
    let old = sim.core.runs.get(run).unwrap();
    assert_eq!(old.cancel.cause(), Some(CancelCause::Superseded));
    assert!(sim.take().is_none());
    sim.fail(run);
    assert_eq!(sim.taken().1, 40);
    assert_eq!(sim.core.jobs.iter().count(), 1, "the others are gone");
}

#[test]
fn a_change_is_all_or_nothing() {
    let mut sim = Sim::new();
    let kept = sim.add(every(10));
    let other = JobSpec {
        name: "other".into(),
        ..every(10)
    };
    let new = vec![(other, None), (every(20), None)];
    assert!(sim.core.change(&[], new, now(sim.ms)).is_err());
    assert_eq!(sim.core.find("job", 0), Some(kept));
    assert_eq!(sim.core.find("other", 0), None);
    sim.pass(10);
    assert_eq!(sim.taken().1, 10);
}

#[test]
fn a_claim_that_was_not_kept_in_time_is_not_believed() {
    let retry = Retry {
        attempts: 3,
        base: Duration::from_millis(150),
        cap: Duration::from_millis(150),
    };
    let mut sim = Sim::new();
    sim.add(every(100_000).once().retry(retry));
    sim.jump(100_000);
    let first = sim.take().unwrap();
    let asked = now(sim.ms);
    let claim = Claim::new(());
    sim.core.claimed(first.run, claim, asked, now(sim.ms));
    sim.fail(first.run);
    sim.pass(150);
    let second = sim.take().unwrap();
    assert!(second.claim.is_none(), "it was kept");
    sim.fail(second.run);
    // The process is stopped for longer than the lease, and goes on.
    sim.jump(400);
    sim.core.keep_claims(0, now(sim.ms), |_| {});
    let third = sim.take().unwrap();
    let wanted = third.claim.expect("the store is asked first");
    assert!(wanted.held.is_some());
    let why = NotOurs::Ended(InDoubt);
    sim.core.not_claimed(third.run, why, now(sim.ms));
    assert_eq!(sim.ended(), [(100_000, InDoubt)]);
}

#[test]
fn a_run_that_timed_out_and_is_superseded_is_not_tried_again() {
    let retry = Retry {
        attempts: 3,
        base: Duration::from_millis(1),
        cap: Duration::from_millis(1),
    };
    let mut sim = Sim::new();
    let spec = every(100).timeout(Duration::from_millis(10)).retry(retry);
    sim.add(spec.overlap(Overlap::CancelPrevious));
    sim.pass(100);
    let (first, _) = sim.taken();
    sim.pass(100);
    sim.fail(first);
    assert_eq!(sim.ended(), [(100, Cancelled)]);
    let second = sim.take().unwrap();
    assert_eq!(
        (second.firing.attempt, second.firing.fire_ms),
        (1, START_MS + 200)
    );
}

/// A simulation in which the firing at 100 waits for its jitter.
fn jittering() -> (Sim, Key) {
    let mut sim = Sim::new();
    let key = sim.add(every(100).jitter(Duration::from_millis(100)));
    sim.pass(100);
    assert!(sim.take().is_none());
    (sim, key)
}

#[test]
fn what_waits_for_its_jitter_comes_after_a_change_with_the_same_times() {
    let (mut sim, old) = jittering();
    let new = every(100).timeout(Duration::from_millis(5));
    let new = vec![(new.jitter(Duration::from_millis(100)), None)];
    sim.core.change(&[old], new, now(sim.ms)).unwrap();
    sim.pass(100);
    assert_eq!(sim.taken().1, 100);
    assert_eq!(sim.ended(), []);
}

#[test]
fn what_waits_for_its_jitter_is_dropped_with_its_job() {
    let (mut sim, old) = jittering();
    let new = vec![(every(70), None)];
    sim.core.change(&[old], new, now(sim.ms)).unwrap();
    assert_eq!(sim.ended(), [(100, Dropped)]);
    let (mut sim, old) = jittering();
    sim.core.remove(old, now(sim.ms));
    assert_eq!(sim.ended(), [(100, Dropped)]);
}

#[test]
fn what_waits_for_its_jitter_is_dropped_at_the_end_and_left_to_the_next_start() {
    let (mut sim, key) = jittering();
    sim.core.stop(now(sim.ms));
    assert_eq!(sim.ended(), [(100, Dropped)]);
    assert!(sim.core.accounted_ms(key) < Some(START_MS + 100));
}
