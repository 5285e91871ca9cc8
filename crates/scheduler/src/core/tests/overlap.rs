//! Who waits for whom: missed firings, reruns, firings that supersede others.

use super::*;

fn id(ms: u64) -> FiringId {
    FiringId {
        job: "job".to_owned(),
        fire_ms: START_MS + ms,
        shard: 0,
    }
}

/// Takes a run of a job with `once`, and claims it.
fn claimed(sim: &mut Sim) -> (Key, u64) {
    let start = sim.take().expect("a run is ready");
    assert!(start.claim.is_some(), "the store is asked first");
    let claim = Claim::new(());
    sim.core.claimed(start.run, claim, now(sim.ms), now(sim.ms));
    (start.run, start.firing.fire_ms - START_MS)
}

fn end(sim: &mut Sim, run: Key) {
    sim.core.tried(run, Tried::Succeeded, now(sim.ms));
}

#[test]
fn missed_firings_run_one_after_the_other_whatever_the_overlap_policy() {
    let policies = [Overlap::Skip, Overlap::Queue(1), Overlap::CancelPrevious];
    for overlap in policies {
        let mut sim = Sim::new();
        let grace = Duration::from_millis(500);
        let spec = every(1_000).misfire(Misfire::All(3)).misfire_after(grace);
        sim.add(spec.overlap(overlap));
        // 1000 to 4000 are missed, 5000 is in time.
        sim.jump(5_000);
        let mut fired = Vec::new();
        while let Some(start) = sim.take() {
            assert!(sim.take().is_none(), "one at a time");
            fired.push(start.firing.fire_ms - START_MS);
            sim.succeed(start.run);
        }
        let (run, turned_away) = match overlap {
            Overlap::Skip => (vec![2_000, 3_000, 4_000], vec![1_000, 5_000]),
            Overlap::Queue(_) => (vec![2_000, 3_000, 4_000, 5_000], vec![1_000]),
            // It takes the place of all that wait.
            _ => (vec![5_000], vec![1_000, 2_000, 3_000, 4_000]),
        };
        assert_eq!(fired, run, "{overlap:?}");
        let others = sim.ended();
        let others = others.iter().filter(|(_, outcome)| *outcome != Succeeded);
        let mut others: Vec<u64> = others.map(|(fire_ms, _)| *fire_ms).collect();
        others.sort_unstable();
        assert_eq!(others, turned_away, "{overlap:?}");
        // They cost no later firing.
        sim.jump(1_000);
        assert_eq!(sim.taken().1, 6_000);
    }
}

#[test]
fn missed_firings_of_several_gaps_are_no_more_than_those_of_one() {
    let mut sim = Sim::new();
    let grace = Duration::from_millis(500);
    sim.add(every(1_000).misfire(Misfire::All(2)).misfire_after(grace));
    sim.jump(1_000);
    let (run, _) = sim.taken();
    for _ in 0..3 {
        sim.jump(10_700);
    }
    sim.ended();
    sim.succeed(run);
    let mut fired = Vec::new();
    while let Some(start) = sim.take() {
        fired.push(start.firing.fire_ms - START_MS);
        sim.succeed(start.run);
    }
    assert_eq!(fired, [31_000, 32_000]);
}

#[test]
fn a_rerun_waits_for_what_runs_and_others_go_by_the_policy_towards_it() {
    let mut sim = Sim::new();
    sim.add(every(10).once());
    sim.pass(10);
    let (run, fire_ms) = claimed(&mut sim);
    assert_eq!(fire_ms, 10);
    sim.core.rerun(&id(5), Claim::new(()), now(sim.ms));
    assert!(sim.take().is_none(), "it runs beside the other");
    assert!(sim.core.has(&id(5)), "its claim is kept");
    end(&mut sim, run);
    let rerun = sim.take().expect("its turn has come");
    assert_eq!(rerun.firing.fire_ms, START_MS + 5);
    let wanted = rerun.claim.expect("it is renewed first");
    let held = wanted.held.expect("it was kept");
    sim.core.claimed(rerun.run, held, now(sim.ms), now(sim.ms));
    sim.pass(10);
    assert!(sim.take().is_none());
    assert_eq!(sim.ended(), [(10, Succeeded), (20, Overlapped)]);
    let end = sim.core.tried(rerun.run, Tried::Succeeded, now(sim.ms));
    assert!(matches!(end.settle, Some((_, Succeeded))));
    sim.pass(10);
    assert_eq!(claimed(&mut sim).1, 30);
}

#[test]
fn a_firing_that_is_in_hand_is_not_run_again() {
    let mut sim = Sim::new();
    sim.add(every(10).once().overlap(Overlap::Allow));
    sim.pass(10);
    let (run, _) = claimed(&mut sim);
    sim.core.rerun(&id(10), Claim::new(()), now(sim.ms));
    assert!(sim.take().is_none());
    end(&mut sim, run);
    assert_eq!(sim.ended(), [(10, Succeeded)]);
}

#[test]
fn a_rerun_that_did_not_begin_stays_in_doubt_at_the_end() {
    let mut sim = Sim::new();
    sim.add(every(100).once());
    for fire_ms in [5, 6] {
        sim.core.rerun(&id(fire_ms), Claim::new(()), now(sim.ms));
    }
    sim.core.stop(now(sim.ms));
    assert_eq!(sim.ended(), [(5, Dropped), (6, Dropped)]);
    assert!(
        sim.core.unsettled.is_empty(),
        "the next start is to find them"
    );
    assert_eq!(sim.core.runs.len(), 0);
}

#[test]
fn a_superseding_firing_takes_the_place_of_one_that_waits_for_a_worker() {
    let mut sim = Sim::new();
    sim.add(every(10).overlap(Overlap::CancelPrevious));
    let other = |name: &str| JobSpec {
        name: name.into(),
        ..every(15)
    };
    sim.pass(10);
    sim.add(other("a"));
    sim.add(other("b"));
    sim.pass(40);
    // All workers are busy for 50 ms: the job is still at the front of the queue, with its newest firing.
    let start = sim.take().unwrap();
    assert_eq!(
        (&*start.firing.job, start.firing.fire_ms - START_MS),
        ("job", 50)
    );
    let replaced = sim.core.ended.iter();
    let replaced = replaced.filter(|(spec, _)| spec.name() == "job");
    let replaced: Vec<_> = replaced
        .map(|(_, record)| (record.fire_ms - START_MS, record.outcome))
        .collect();
    assert_eq!(replaced, [10, 20, 30, 40].map(|ms| (ms, Overlapped)));
    assert!(!start.firing.cancel.is_cancelled());
}

#[test]
fn under_load_superseding_firings_make_progress() {
    let mut sim = Sim::new();
    let other = |number: u64| JobSpec {
        name: format!("other-{number}").into(),
        ..every(20).overlap(Overlap::Skip)
    };
    for number in 0..8 {
        sim.add(other(number));
    }
    sim.add(every(10).overlap(Overlap::CancelPrevious));
    // One worker, which needs 5 ms for each run: only half of what is due.
    let mut ran = 0;
    for _ in 0..200 {
        if let Some(start) = sim.take() {
            ran += u64::from(&*start.firing.job == "job");
            sim.pass(5);
            sim.succeed(start.run);
        } else {
            sim.pass(5);
        }
    }
    assert!(ran >= 15, "{ran} of 100 firings of 10 ms ran");
}

#[test]
fn a_run_that_asks_the_store_is_not_superseded_before_it_began() {
    let mut sim = Sim::new();
    sim.add(every(10).once().overlap(Overlap::CancelPrevious));
    sim.pass(10);
    let start = sim.take().unwrap();
    sim.pass(30);
    assert!(!start.firing.cancel.is_cancelled(), "the store is slow");
    assert_eq!(sim.ended(), [(20, Overlapped), (30, Overlapped)]);
    let claim = Claim::new(());
    sim.core.claimed(start.run, claim, now(sim.ms), now(sim.ms));
    sim.pass(10);
    assert!(start.firing.cancel.is_cancelled(), "now it has begun");
}

#[test]
fn a_breaker_that_opens_between_tries_hides_neither_tries_nor_error() {
    let mut sim = Sim::new();
    let retry = Retry {
        attempts: 10,
        base: Duration::from_millis(10),
        cap: Duration::from_millis(10),
    };
    let spec = every(1_000).retry(retry);
    sim.add(spec.breaker(BreakerRules::default()));
    sim.jump(1_000);
    for attempt in 1..=3 {
        let start = sim.take().expect("a try");
        assert_eq!(start.firing.attempt, attempt);
        sim.fail(start.run);
        sim.pass(10);
    }
    assert!(sim.take().is_none());
    let (_, record) = sim.core.ended.pop().expect("it ended");
    assert_eq!((record.outcome, record.attempts), (Failed, 3));
    let error = record.error.unwrap();
    let expected = "no; not tried again: the circuit breaker is open";
    assert!(error.starts_with(expected), "{error}");
    // A firing that was never tried was refused.
    sim.jump(1_000);
    assert!(sim.take().is_none());
    let (_, record) = sim.core.ended.pop().unwrap();
    assert_eq!((record.outcome, record.attempts), (BreakerOpen, 0));
}
