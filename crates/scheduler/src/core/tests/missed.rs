//! Firings whose time passed while nobody looked.

use super::*;

#[test]
fn missed_firings_of_a_job_that_runs_once_are_left_to_the_store() {
    let mut sim = Sim::new();
    let spec = every(1_000).once().misfire(Misfire::Once);
    let key = sim
        .core
        .add(spec, Some(START_MS - 3_000), now(sim.ms))
        .unwrap();
    sim.jump(10_000);
    // -2000 to 8000 are missed, of which the last runs, and 9000 and 10000 are in time.
    let told: Vec<_> = sim
        .core
        .verdicts
        .iter()
        .map(|verdict| verdict.id.fire_ms)
        .collect();
    let expected: Vec<_> = (0..10).map(|n| START_MS - 2_000 + n * 1_000).collect();
    assert_eq!(told, expected);
    assert!(
        sim.ended()
            .iter()
            .all(|(_, outcome)| *outcome == Overlapped)
    );
    assert_eq!(sim.core.accounted_ms(key), Some(START_MS - 2_001));
    while !sim.core.verdicts.is_empty() {
        let found = Some(NotOurs::Ended(Misfired));
        sim.core.verdict(found, now(sim.ms));
    }
    assert_eq!(sim.core.jobs.get(key).unwrap().counts.of(Misfired), 10);
    assert_eq!(sim.taken().1, 8_000);
}

#[test]
fn a_store_that_is_away_is_left_a_bounded_number_of_missed_firings() {
    let mut sim = Sim::with_queue(4, OnFull::RejectNew);
    let spec = every(1_000).once().misfire(Misfire::Skip);
    let key = sim
        .core
        .add(spec, Some(START_MS), now(START_MS + 9_500))
        .unwrap();
    sim.jump(9_500);
    assert_eq!(sim.core.verdicts.len(), 4);
    let left: Vec<_> = (5..=8).map(|n| (n * 1_000, Unclaimed)).collect();
    assert_eq!(sim.ended(), left);
    while !sim.core.verdicts.is_empty() {
        let found = Some(NotOurs::Ended(Misfired));
        sim.core.verdict(found, now(sim.ms));
    }
    // The next start looks at the others.
    assert_eq!(sim.core.accounted_ms(key), Some(START_MS + 4_999));
}

#[test]
fn a_long_stretch_lets_others_have_their_turn() {
    let mut sim = Sim::new();
    let day = Duration::from_hours(24).as_millis() as u64;
    for name in ["a", "b"] {
        let every = Schedule::every(Duration::from_millis(1)).unwrap();
        let spec = JobSpec::new(name, every, |_| Ok(())).misfire(Misfire::Skip);
        sim.add(spec);
    }
    sim.ms += day;
    assert!(sim.core.advance(now(sim.ms), 256), "the other one waits");
    let has_fired = |key: &Key| sim.core.jobs.get(*key).unwrap().last_ms > START_MS;
    let keys = ["a", "b"].map(|name| sim.core.find(name, 0).unwrap());
    assert_eq!(keys.iter().filter(|key| has_fired(key)).count(), 1);
    sim.jump(0);
    let missed = |key: &Key| sim.core.jobs.get(*key).unwrap().counts.of(Misfired);
    assert!(keys.iter().all(|key| missed(key) > 10_000));
}
