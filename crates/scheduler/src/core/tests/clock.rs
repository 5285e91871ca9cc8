//! A wall clock that is set, beside a steady one.

use super::*;

const HOUR_MS: u64 = 3_600_000;

fn at(wall_ms: u64) -> Now {
    Now {
        wall_ms: START_MS + wall_ms,
        mono_ms: 0,
    }
}

/// A job that fires every ten seconds, and the clock is an hour ahead, or several.
fn ahead(hours: u64) -> (Sim, Key) {
    let mut sim = Sim::new();
    let job = sim.add(every(10_000).overlap(Overlap::Allow));
    while sim.core.advance(at(hours * HOUR_MS), 100) {}
    (sim, job)
}

/// The next firing, and all before it end.
fn next(sim: &mut Sim, now: Now) -> Option<u64> {
    assert!(!sim.core.advance(now, 1_000), "it comes to rest");
    let mut last = None;
    while let Some(start) = sim.core.take(now) {
        last = Some(start.firing.fire_ms - START_MS);
        sim.core.tried(start.run, Tried::Succeeded, now);
    }
    last
}

#[test]
fn what_came_before_the_clock_was_set_back_is_waited_for() {
    let (mut sim, _) = ahead(3);
    assert_eq!(next(&mut sim, at(3 * HOUR_MS)), Some(3 * HOUR_MS));
    assert_eq!(next(&mut sim, at(5)), None);
    assert!(sim.core.quiet_ms(at(5)) > Some(2 * HOUR_MS), "nobody spins");
    assert_eq!(next(&mut sim, at(3 * HOUR_MS + 9_999)), None);
    let last_ms = 3 * HOUR_MS + 10_000;
    assert_eq!(next(&mut sim, at(last_ms)), Some(last_ms));
}

#[test]
fn a_job_that_comes_after_the_clock_was_set_back_fires_in_time() {
    let (mut sim, old) = ahead(1);
    next(&mut sim, at(HOUR_MS));
    let new = vec![(
        JobSpec {
            name: "new".into(),
            ..every(10)
        },
        None,
    )];
    sim.core.change(&[], new, at(1_000)).unwrap();
    assert_eq!(next(&mut sim, at(1_000)), None);
    assert_eq!(sim.core.quiet_ms(at(1_000)), Some(10));
    assert_eq!(next(&mut sim, at(1_009)), None);
    assert_eq!(next(&mut sim, at(1_010)), Some(1_010));
    // The other's timer is known by its new name.
    sim.core.pause(old);
    sim.core.resume(old, at(1_010));
    assert_eq!(sim.core.wall.len(), 2);
}

#[test]
fn a_clock_that_was_far_ahead_silences_no_job() {
    let (mut sim, job) = ahead(4);
    next(&mut sim, at(4 * HOUR_MS));
    assert_eq!(next(&mut sim, at(5_000)), None);
    assert_eq!(next(&mut sim, at(10_000)), Some(10_000));
    // Nor one that was paused meanwhile.
    next(&mut sim, at(4 * HOUR_MS));
    sim.core.pause(job);
    assert_eq!(next(&mut sim, at(11_000)), None);
    sim.core.resume(job, at(11_000));
    assert_eq!(next(&mut sim, at(20_000)), Some(20_000));
}

#[test]
fn a_firing_that_still_runs_when_its_time_comes_again_does_not_run_beside_itself() {
    let mut sim = Sim::new();
    sim.add(every(10_000).once().overlap(Overlap::Allow));
    sim.core.advance(at(10_000), 100);
    let running = sim.core.take(at(10_000)).unwrap();
    let claim = Claim::new(());
    sim.core.claimed(running.run, claim, at(10_000), at(10_000));
    while sim.core.advance(at(4 * HOUR_MS), 100) {}
    sim.core.ready.clear();
    sim.core.advance(at(5_000), 100);
    sim.core.advance(at(10_000), 100);
    assert!(sim.core.take(at(10_000)).is_none());
    sim.core.advance(at(20_000), 100);
    let next = sim.core.take(at(20_000)).unwrap();
    assert_eq!(next.firing.fire_ms, START_MS + 20_000);
}
