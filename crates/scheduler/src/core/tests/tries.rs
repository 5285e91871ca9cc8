//! What is left of a try when the next one comes, or none.

use super::*;

fn id(ms: u64) -> FiringId {
    FiringId {
        job: "job".to_owned(),
        fire_ms: START_MS + ms,
        shard: 0,
    }
}

/// A job that fires every 1,000 ms and is tried again at once, mostly.
fn retried(attempts: u32) -> JobSpec {
    every(1_000).retry(Retry {
        attempts,
        base: Duration::from_millis(1),
        cap: Duration::from_millis(1),
    })
}

/// Takes a run of a job with `once` and claims it.
fn claimed(sim: &mut Sim) -> Key {
    let start = sim.take().expect("a run is ready");
    assert!(start.claim.is_some(), "the store is asked first");
    let claim = Claim::new(());
    sim.core.claimed(start.run, claim, now(sim.ms), now(sim.ms));
    start.run
}

#[test]
fn a_timeout_is_a_failure_like_others_and_the_next_try_has_its_own() {
    let mut sim = Sim::new();
    sim.add(retried(2).timeout(Duration::from_millis(10)));
    sim.pass(1_000);
    let first = sim.take().unwrap();
    sim.pass(10);
    assert!(first.firing.cancel.is_cancelled());
    sim.fail(first.run);
    sim.pass(5);
    let second = sim.take().expect("another try");
    assert!(!second.firing.cancel.is_cancelled());
    sim.pass(9);
    assert!(!second.firing.cancel.is_cancelled());
    sim.pass(1);
    assert!(second.firing.cancel.is_cancelled());
    sim.fail(second.run);
    let (_, record) = sim.core.ended.pop().unwrap();
    assert_eq!((record.outcome, record.attempts), (TimedOut, 2));
    assert_eq!(record.began_ms, Some(START_MS + 1_000), "the first try");
}

#[test]
fn nothing_is_tried_again_when_somebody_wants_it_to_stop() {
    let panics = |sim: &mut Sim, run: Key| {
        let panicked = Tried::Panicked("oh".into());
        sim.core.tried(run, panicked, now(sim.ms));
    };
    let mut sim = Sim::new();
    let key = sim.add(retried(5));
    sim.jump(1_000);
    let (run, _) = sim.taken();
    sim.core
        .cancel_runs(key, CancelCause::Requested, now(sim.ms));
    panics(&mut sim, run);
    assert_eq!(sim.ended(), [(1_000, Panicked)]);
    // One that rests has no other try either.
    sim.jump(1_000);
    let (run, _) = sim.taken();
    sim.fail(run);
    sim.core
        .cancel_runs(key, CancelCause::Requested, now(sim.ms));
    assert_eq!(sim.ended(), [(2_000, Cancelled)]);
    sim.jump(1_000);
    let (run, _) = sim.taken();
    sim.core.stop(now(sim.ms));
    panics(&mut sim, run);
    assert_eq!(sim.ended(), [(3_000, Panicked)]);
}

#[test]
fn what_was_asked_to_stop_says_nothing_about_the_job() {
    let mut sim = Sim::new();
    let key = sim.add(every(1_000).breaker(BreakerRules::default()));
    for _ in 0..5 {
        sim.jump(1_000);
        let (run, _) = sim.taken();
        sim.core
            .cancel_runs(key, CancelCause::Requested, now(sim.ms));
        sim.fail(run);
    }
    let state = sim.core.jobs.get(key).unwrap().breaker_state(5_000);
    assert_eq!(state, circuit::State::Closed);
}

#[test]
fn a_claim_whose_next_try_the_breaker_refuses_is_settled() {
    let mut sim = Sim::new();
    sim.add(retried(10).once().breaker(BreakerRules::default()));
    sim.jump(1_000);
    let run = claimed(&mut sim);
    sim.fail(run);
    for _ in 0..2 {
        sim.pass(5);
        let start = sim.take().unwrap();
        sim.fail(start.run);
    }
    sim.pass(5);
    assert!(sim.take().is_none());
    assert!(matches!(sim.core.unsettled[..], [(_, Failed)]));
}

#[test]
fn a_claim_is_believed_for_two_thirds_of_its_lease_after_it_was_kept() {
    let mut sim = Sim::new();
    sim.add(retried(9).once());
    // It waited for a worker: that is not the claim's age.
    sim.jump(1_000);
    sim.pass(250);
    let run = claimed(&mut sim);
    let next = |sim: &mut Sim, run: Key, ms: u64| {
        sim.fail(run);
        sim.pass(ms);
        sim.take().expect("another try")
    };
    let start = next(&mut sim, run, 150);
    assert!(start.claim.is_none());
    sim.core.keep_claims(0, now(sim.ms), |_| {});
    let start = next(&mut sim, start.run, 150);
    assert!(start.claim.is_none(), "150 ms since it was kept");
    let start = next(&mut sim, start.run, 151);
    assert!(start.claim.is_some(), "and 301");
}

#[test]
fn the_claim_of_a_rerun_is_renewed_once() {
    let mut sim = Sim::new();
    sim.add(retried(3).once());
    sim.core.rerun(&id(5), Claim::new(()), now(sim.ms));
    let run = claimed(&mut sim);
    sim.fail(run);
    sim.pass(5);
    assert!(sim.take().is_some_and(|start| start.claim.is_none()));
}

#[test]
fn how_a_claim_ended_is_remembered_until_the_store_is_seen_to_know() {
    let mut sim = Sim::new();
    sim.add(every(1_000).once());
    sim.jump(1_000);
    let run = claimed(&mut sim);
    sim.core.tried(run, Tried::Succeeded, now(sim.ms));
    assert_eq!(sim.core.told.outcome(&id(1_000)), Some(Succeeded));
    sim.jump(1_000);
    let start = sim.take().unwrap();
    let why = NotOurs::Ended(InDoubt);
    sim.core.not_claimed(start.run, why, now(sim.ms));
    assert_eq!(sim.core.told.outcome(&id(2_000)), Some(InDoubt));
    let (_, record) = sim.core.ended.pop().unwrap();
    assert_eq!((record.fire_ms, record.attempts), (START_MS + 2_000, 0));
}

#[test]
fn a_stop_waits_for_no_claim() {
    let mut sim = Sim::new();
    let key = sim.add(retried(3).once());
    sim.jump(1_000);
    let run = claimed(&mut sim);
    sim.fail(run);
    let accounted_ms = sim.core.accounted_ms(key);
    sim.add(every(1_000).once().shard(1));
    sim.jump(1_000);
    sim.ended();
    let asking = loop {
        let start = sim.take().unwrap();
        if start.firing.shard == 1 {
            break start.run;
        }
        sim.fail(start.run);
    };
    sim.core.stop(now(sim.ms));
    sim.core.unclaimed(asking, "no answer", now(sim.ms));
    assert_eq!(sim.core.runs.len(), 0);
    let outcomes: Vec<_> = sim.ended().into_iter().map(|(_, it)| it).collect();
    assert!(outcomes.contains(&Unclaimed), "{outcomes:?}");
    assert!(accounted_ms <= sim.core.accounted_ms(key));
}
