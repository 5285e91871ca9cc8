//! Full queues, ends and late news: nothing that is claimed is turned away, nothing is dealt with twice.

use super::*;

fn id(ms: u64) -> FiringId {
    FiringId {
        job: "job".to_owned(),
        fire_ms: START_MS + ms,
        shard: 0,
    }
}

fn retry(delay_ms: u64) -> Retry {
    Retry {
        attempts: 2,
        base: Duration::from_millis(delay_ms),
        cap: Duration::from_millis(delay_ms),
    }
}

#[test]
fn a_full_queue_turns_no_claim_away() {
    let mut sim = Sim::with_queue(1, OnFull::RejectNew);
    sim.add(every(10).once().overlap(Overlap::Allow));
    sim.pass(10);
    sim.core.rerun(&id(5), Claim::new(()), now(sim.ms));
    assert_eq!(sim.ended(), []);
    assert_eq!([sim.taken().1, sim.taken().1], [10, 5]);
    // Nor does one that waits for others of its job.
    let mut sim = Sim::with_queue(1, OnFull::RejectNew);
    sim.add(every(10).once());
    sim.pass(10);
    for ms in [5, 6] {
        sim.core.rerun(&id(ms), Claim::new(()), now(sim.ms));
    }
    assert_eq!(sim.ended(), []);
    assert!(sim.core.has(&id(5)) && sim.core.has(&id(6)));
}

#[test]
fn the_oldest_that_makes_place_is_one_that_nobody_began() {
    let mut sim = Sim::with_queue(2, OnFull::DropOldest);
    sim.add(every(10).once().overlap(Overlap::Allow));
    sim.core.rerun(&id(5), Claim::new(()), now(sim.ms));
    sim.pass(20);
    assert_eq!(sim.ended(), [(10, QueueFull)]);
    assert_eq!([sim.taken().1, sim.taken().1], [5, 20]);

    let mut sim = Sim::with_queue(2, OnFull::DropOldest);
    sim.add(every(10).overlap(Overlap::Allow).retry(retry(1)));
    sim.pass(10);
    let (run, _) = sim.taken();
    sim.fail(run);
    sim.pass(20);
    assert_eq!(sim.ended(), [(20, QueueFull)]);
    assert_eq!([sim.taken().1, sim.taken().1], [10, 30]);
}

#[test]
fn a_superseding_firing_does_not_wait_for_another_try_of_the_one_before() {
    let mut sim = Sim::new();
    let spec = every(1_000).overlap(Overlap::CancelPrevious);
    sim.add(spec.retry(retry(100_000)));
    sim.jump(1_000);
    let (run, _) = sim.taken();
    sim.fail(run);
    sim.jump(1_000);
    assert_eq!(sim.ended(), [(1_000, Cancelled)]);
    assert_eq!(sim.taken().1, 2_000);
}

#[test]
fn what_waits_for_its_jitter_is_not_missed() {
    let mut sim = Sim::new();
    let jitter = Duration::from_secs(5);
    sim.add(every(10_000).jitter(jitter).misfire(Misfire::Skip));
    let mut latest_ms = 0;
    for _ in 0..2_000 {
        sim.jump(100);
        if let Some(start) = sim.take() {
            latest_ms = latest_ms.max(sim.ms - start.firing.fire_ms);
            sim.succeed(start.run);
        }
    }
    assert!(latest_ms > 2_000, "{latest_ms}");
    let ended = sim.ended();
    assert!(ended.iter().all(|(_, outcome)| *outcome == Succeeded));
}

#[test]
fn two_firings_that_somebody_asks_for_at_once_both_run() {
    let mut sim = Sim::new();
    let key = sim.add(every(1_000).overlap(Overlap::Allow));
    for _ in 0..2 {
        assert!(sim.core.run_now(key, now(sim.ms)));
    }
    assert_eq!([sim.taken().1, sim.taken().1], [0, 0]);
}

#[test]
fn what_is_in_hand_is_known_to_be() {
    let mut sim = Sim::new();
    let spec = every(1_000).once().misfire(Misfire::Skip);
    let accounted_ms = Some(START_MS - 5_000);
    let key = sim.core.add(spec, accounted_ms, now(sim.ms)).unwrap();
    // The clock's thread has yet to come to it.
    let missed = FiringId {
        fire_ms: START_MS - 3_000,
        ..id(0)
    };
    sim.core.rerun(&missed, Claim::new(()), now(sim.ms));
    assert!(sim.take().is_none());
    // The store is about to be asked about it.
    sim.jump(0);
    assert!(sim.core.has(&missed));
    while !sim.core.verdicts.is_empty() {
        let found = Some(NotOurs::Ended(Misfired));
        sim.core.verdict(found, now(sim.ms));
    }
    assert!(!sim.core.has(&missed));
    // The store may not have heard of it.
    assert_eq!(sim.core.told.outcome(&missed), Some(Misfired));
    // A job that was replaced runs it.
    sim.jump(1_000);
    let start = sim.take().unwrap();
    let running = FiringId {
        fire_ms: start.firing.fire_ms,
        ..id(0)
    };
    let new = vec![(every(1_000).once().history_max(9), None)];
    sim.core.change(&[key], new, now(sim.ms)).unwrap();
    assert!(sim.core.has(&running));
}

#[test]
fn what_the_store_is_too_slow_for_is_given_up_in_this_life() {
    let mut sim = Sim::with_queue(1, OnFull::RejectNew);
    let spec = every(1_000).once().misfire(Misfire::Skip);
    let accounted_ms = Some(START_MS - 5_000);
    let key = sim.core.add(spec, accounted_ms, now(sim.ms)).unwrap();
    sim.jump(0);
    let job = sim.core.jobs.get(key).unwrap();
    let given_up = job.foreign.values().filter(|it| **it == Foreign::GivenUp);
    assert_eq!(given_up.count(), job.counts.of(Unclaimed) as usize);
    assert!(job.counts.of(Unclaimed) > 0);
}

#[test]
fn after_the_end_nothing_begins_and_what_others_hold_is_theirs() {
    let mut sim = Sim::new();
    let key = sim.add(every(1_000).once());
    sim.core.stop(now(sim.ms));
    sim.core.rerun(&id(5), Claim::new(()), now(sim.ms));
    assert_eq!(sim.core.runs.len(), 0);
    sim.core
        .follow(key, id(6).fire_ms, Foreign::Held, now(sim.ms));
    assert_eq!(sim.ended(), [(6, Outcome::Elsewhere)]);
}

#[test]
fn of_too_many_that_others_hold_the_oldest_are_theirs() {
    let mut sim = Sim::new();
    let key = sim.add(every(1_000).once());
    for ms in 0..=10_000 {
        sim.core
            .follow(key, id(ms).fire_ms, Foreign::Held, now(sim.ms));
    }
    assert_eq!(sim.ended(), [(0, Outcome::Elsewhere)]);
    assert_eq!(sim.core.foreign().len(), 10_000);
}

#[test]
fn of_too_many_that_wait_for_an_answer_the_oldest_end_in_doubt_and_are_not_asked_about_again() {
    let mut sim = Sim::new();
    let key = sim.add(every(1_000).once().in_doubt(crate::InDoubt::Ask));
    for ms in 0..=10_000 {
        sim.core
            .follow(key, id(ms).fire_ms, Foreign::Asked, now(sim.ms));
    }
    assert_eq!(sim.ended(), [(0, InDoubt)]);
    let job = sim.core.jobs.get(key).unwrap();
    assert_eq!(job.in_doubt(), 10_000);
    assert!(job.is_given_up(id(0).fire_ms));
    assert!(!job.is_given_up(id(1).fire_ms), "it is followed");
    assert!(!job.is_given_up(id(10_001).fire_ms), "nobody knows of it");
    // Nor by the job that comes in its place.
    let new = vec![(every(1_000).once().history_max(9), None)];
    let key = sim.core.change(&[key], new, now(sim.ms)).unwrap()[0];
    assert!(sim.core.jobs.get(key).unwrap().is_given_up(id(0).fire_ms));
}

#[test]
fn of_too_many_that_were_given_up_each_keeps_its_one_outcome() {
    let mut sim = Sim::new();
    let key = sim.add(every(1_000).once());
    for ms in 0..=10_000 {
        sim.core
            .follow(key, id(ms).fire_ms, Foreign::GivenUp, now(sim.ms));
    }
    // They had it when they were given up.
    assert_eq!(sim.ended(), []);
    let job = sim.core.jobs.get(key).unwrap();
    assert_eq!(job.foreign.len(), 10_000);
    assert!((0..=10_000).all(|ms| job.is_given_up(id(ms).fire_ms)));
}

#[test]
fn a_firing_that_ends_in_doubt_is_followed_no_more_and_told_as_that() {
    let mut sim = Sim::new();
    let key = sim.add(every(1_000).once());
    sim.core
        .follow(key, id(6).fire_ms, Foreign::Held, now(sim.ms));
    sim.core.settled_in_doubt(key, id(6).fire_ms, now(sim.ms));
    assert_eq!(sim.core.foreign(), []);
    assert_eq!(sim.core.told.outcome(&id(6)), Some(InDoubt));
    assert_eq!(sim.ended(), [(6, InDoubt)]);
}

#[test]
fn a_rerun_that_waits_has_no_outcome_when_its_job_goes() {
    let mut sim = Sim::new();
    let key = sim.add(every(10).once());
    sim.pass(10);
    sim.core.rerun(&id(5), Claim::new(()), now(sim.ms));
    sim.core.remove(key, now(sim.ms));
    assert_eq!(sim.ended(), []);
    assert!(sim.core.unsettled.is_empty(), "it is in doubt as before");
}

#[test]
fn the_firings_of_a_job_that_wait_are_bounded_by_the_queue() {
    let mut sim = Sim::with_queue(1, OnFull::RejectNew);
    sim.add(every(10).overlap(Overlap::Queue(5)));
    sim.pass(10);
    let (run, _) = sim.taken();
    sim.pass(20);
    assert_eq!(sim.ended(), [(30, QueueFull)]);
    sim.succeed(run);
    assert_eq!(sim.taken().1, 20);
}

#[test]
fn a_hanging_store_gets_so_many_workers_and_no_more() {
    let mut sim = Sim::new();
    for shard in 0..4 {
        sim.add(every(10).once().shard(shard));
    }
    let plain = JobSpec {
        name: "plain".into(),
        ..every(10)
    };
    sim.add(plain);
    sim.pass(10);
    let asking: Vec<_> = (0..3).filter_map(|_| sim.take()).collect();
    assert!(asking.iter().all(|start| start.claim.is_some()));
    let plain = sim.take().expect("it needs no store");
    assert_eq!(&*plain.firing.job, "plain");
    assert!(sim.take().is_none());
    let claim = Claim::new(());
    sim.core
        .claimed(asking[0].run, claim, now(sim.ms), now(sim.ms));
    assert!(sim.take().is_some_and(|start| start.claim.is_some()));
}

#[test]
fn a_missed_firing_that_makes_way_for_a_later_one_may_have_run_elsewhere() {
    let mut sim = Sim::new();
    let spec = every(1_000).once().misfire(Misfire::Once);
    sim.add(spec.misfire_after(Duration::from_millis(500)));
    sim.jump(1_000);
    sim.taken();
    // 11 s waits as the last that was missed; then 22 s is.
    sim.jump(10_700);
    sim.jump(10_700);
    let asked = |sim: &Sim| sim.core.verdicts.iter().any(|it| it.id == id(11_000));
    assert!(asked(&sim));
    assert!(sim.ended().iter().all(|(_, it)| *it != Misfired));
}

#[test]
fn a_rerun_that_is_superseded_is_settled_and_not_asked_about() {
    let mut sim = Sim::new();
    let spec = every(10).once().overlap(Overlap::CancelPrevious);
    sim.add(spec);
    sim.pass(10);
    sim.taken();
    let before = FiringId {
        fire_ms: START_MS - 5,
        ..id(0)
    };
    sim.core.rerun(&before, Claim::new(()), now(sim.ms));
    sim.pass(10);
    assert!(matches!(sim.core.unsettled[..], [(_, Overlapped)]));
    assert!(sim.core.verdicts.is_empty());
    let fire_ms: Vec<_> = sim.core.ended.iter().map(|(_, it)| it.fire_ms).collect();
    assert_eq!(fire_ms, [before.fire_ms]);
}

#[test]
fn a_job_waits_for_all_in_whose_place_it_came() {
    let mut sim = Sim::new();
    let mut key = sim.add(every(10).overlap(Overlap::Allow));
    let mut runs = Vec::new();
    for overlap in [Overlap::Allow, Overlap::Queue(1)] {
        sim.pass(10);
        runs.push(sim.taken().0);
        let new = vec![(every(10).overlap(overlap), None)];
        key = sim.core.change(&[key], new, now(sim.ms)).unwrap()[0];
    }
    sim.pass(10);
    sim.succeed(runs[1]);
    assert!(sim.take().is_none(), "the first still runs");
    sim.succeed(runs[0]);
    assert_eq!(sim.taken().1, 30);
}
