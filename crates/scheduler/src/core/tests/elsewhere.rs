//! One outcome for each firing, whoever else has it in hand.

use super::*;

fn id(fire_ms: u64) -> FiringId {
    FiringId {
        job: "job".to_owned(),
        fire_ms,
        shard: 0,
    }
}

/// Takes the next firing, which another process holds.
fn take_held(sim: &mut Sim) {
    let start = sim.take().unwrap();
    let held = NotOurs::Open(Foreign::Held);
    sim.core.not_claimed(start.run, held, now(sim.ms));
}

#[test]
fn a_firing_that_another_holds_has_no_outcome_until_that_one_settled_it() {
    let mut sim = Sim::new();
    let key = sim.add(every(10).once());
    sim.pass(10);
    take_held(&mut sim);
    assert_eq!(sim.ended(), []);
    assert_eq!(sim.core.foreign(), [(key, START_MS + 10)]);
    assert_eq!(sim.core.accounted_ms(key), Some(START_MS + 10));
    // It is no run of this process's: the next one is not in its way.
    sim.pass(10);
    assert_eq!(sim.taken().1, 20);
    for _ in 0..2 {
        sim.core.settled_elsewhere(key, START_MS + 10, now(sim.ms));
    }
    assert_eq!(sim.ended(), [(10, Outcome::Elsewhere)]);
}

#[test]
fn a_firing_whose_holder_died_has_only_the_outcome_of_its_rerun() {
    let mut sim = Sim::new();
    let key = sim.add(every(10).once());
    sim.pass(10);
    take_held(&mut sim);
    let fire_ms = START_MS + 10;
    sim.core.rerun(&id(fire_ms), Claim::new(()), now(sim.ms));
    sim.core.settled_elsewhere(key, fire_ms, now(sim.ms));
    let rerun = sim.take().unwrap();
    let claim = Claim::new(());
    sim.core.claimed(rerun.run, claim, now(sim.ms), now(sim.ms));
    sim.core.tried(rerun.run, Tried::Succeeded, now(sim.ms));
    assert_eq!(sim.ended(), [(10, Succeeded)]);
}

#[test]
fn what_this_process_may_have_claimed_before_is_not_turned_away_unasked() {
    let mut sim = Sim::new();
    let spec = every(10).once().misfire_after(Duration::from_millis(100));
    let accounted_ms = Some(START_MS - 35);
    let key = sim.core.add(spec, accounted_ms, now(sim.ms)).unwrap();
    sim.jump(0);
    // -30 runs; -20 to 0 fell due before it was added, and overlap.
    let left: Vec<_> = sim.core.verdicts.iter().collect();
    let left: Vec<_> = left.iter().map(|it| (it.id.fire_ms, it.outcome)).collect();
    let expected = [20, 10, 0].map(|ms| (START_MS - ms, Overlapped));
    assert_eq!(left, expected);
    assert!(sim.core.ended.is_empty());
    let answers = [
        None,
        Some(NotOurs::Open(Foreign::Held)),
        Some(NotOurs::Ended(Overlapped)),
    ];
    for answer in answers {
        sim.core.verdict(answer, now(sim.ms));
    }
    assert_eq!(sim.ended(), [(0, Overlapped)]);
    assert_eq!(sim.core.foreign(), [(key, START_MS - 10)]);
    // What comes from now on is nobody's yet.
    sim.pass(10);
    assert_eq!(sim.ended(), [(10, Overlapped)]);
}

#[test]
fn a_firing_that_the_clock_has_yet_to_come_to_is_left_to_it() {
    let mut sim = Sim::new();
    let accounted_ms = Some(START_MS - 35);
    let spec = every(10).once();
    sim.core.add(spec, accounted_ms, now(sim.ms)).unwrap();
    assert!(sim.core.has(&id(START_MS - 30)), "it is about to fire");
    assert!(!sim.core.has(&id(START_MS - 40)), "it was dealt with");
}

#[test]
fn a_reload_does_not_deal_again_with_what_this_process_dealt_with() {
    let mut sim = Sim::new();
    let key = sim.add(every(10).once());
    sim.pass(10);
    let first = sim.take().unwrap();
    let claim = Claim::new(());
    sim.core.claimed(first.run, claim, now(sim.ms), now(sim.ms));
    sim.core.tried(first.run, Tried::Succeeded, now(sim.ms));
    sim.pass(10);
    take_held(&mut sim);
    // The store remembers less.
    let changed = every(10).once().history_max(9);
    let new = vec![(changed, Some(START_MS))];
    let new = sim.core.change(&[key], new, now(sim.ms)).unwrap()[0];
    sim.pass(5);
    assert!(sim.take().is_none());
    assert_eq!(sim.ended(), [(10, Succeeded)]);
    sim.core.settled_elsewhere(new, START_MS + 20, now(sim.ms));
    assert_eq!(sim.ended(), [(20, Outcome::Elsewhere)]);
    sim.pass(5);
    assert_eq!(sim.taken().1, 30);
}

#[test]
fn a_single_time_that_ran_is_not_missed_after_a_reload() {
    let mut sim = Sim::new();
    let at = || JobSpec::new("job", Schedule::at_ms(START_MS + 10), |_| Ok(()));
    let key = sim.add(at());
    sim.pass(10);
    let (run, _) = sim.taken();
    sim.succeed(run);
    sim.pass(10);
    let new = vec![(at().history_max(9), None)];
    let key = sim.core.change(&[key], new, now(sim.ms)).unwrap()[0];
    assert_eq!(sim.ended(), [(10, Succeeded)]);
    let job = sim.core.jobs.get(key).unwrap();
    assert_eq!(job.state, JobState::Done);
}

#[test]
fn what_was_given_up_is_not_taken_up_again_in_this_life() {
    let mut sim = Sim::new();
    let key = sim.add(every(100_000).once());
    sim.jump(100_000);
    let first = sim.take().unwrap();
    sim.core.unclaimed(first.run, "no answer", now(sim.ms));
    sim.jump(60_000);
    let again = sim.take().unwrap();
    sim.core.unclaimed(again.run, "no answer", now(sim.ms));
    assert_eq!(sim.ended(), [(100_000, Unclaimed)]);
    let known = &sim.core.jobs.get(key).unwrap().foreign;
    assert_eq!(known[&(START_MS + 100_000)], Foreign::GivenUp);
    assert_eq!(sim.core.foreign(), [], "nor looked after");
}

#[test]
fn at_the_end_what_others_hold_is_theirs_and_what_is_in_doubt_is_open() {
    let mut sim = Sim::new();
    let key = sim.add(every(1_000).once());
    let fire_ms = [1, 2].map(|ms| START_MS + ms);
    sim.core.follow(key, fire_ms[0], Foreign::Held, now(sim.ms));
    sim.core
        .follow(key, fire_ms[1], Foreign::Asked, now(sim.ms));
    assert_eq!(sim.core.jobs.get(key).unwrap().in_doubt(), 1);
    sim.core.stop(now(sim.ms));
    assert_eq!(sim.ended(), [(1, Outcome::Elsewhere)]);
}
