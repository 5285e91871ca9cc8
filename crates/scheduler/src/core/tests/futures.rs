//! Futures that run at a time.

use super::*;

fn future(shard: u32) -> JobSpec {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.build().unwrap();
    let every = Schedule::every(Duration::from_millis(10)).unwrap();
    let handle = runtime.handle().clone();
    JobSpec::future("future", every, handle, |_| async { Ok(()) }).shard(shard)
}

#[test]
fn futures_beyond_the_limit_wait_and_are_in_nobodys_way() {
    let mut sim = Sim::new();
    for shard in 0..12 {
        sim.add(future(shard));
    }
    sim.jump(10);
    let running: Vec<_> = (0..10).map(|_| sim.taken().0).collect();
    assert!(sim.take().is_none());
    // One that comes behind those that wait, and needs a worker only.
    sim.add(every(20));
    sim.jump(10);
    let plain = sim.take().expect("it is no future");
    assert_eq!(&*plain.firing.job, "job");
    sim.succeed(plain.run);
    assert!(sim.take().is_none());
    sim.succeed(running[3]);
    assert_eq!(sim.take().unwrap().firing.shard, 10);
    assert!(sim.take().is_none());
    sim.fail(running[4]);
    assert_eq!(sim.take().unwrap().firing.shard, 11);
}

#[test]
fn a_future_that_does_not_run_here_leaves_its_place() {
    let mut sim = Sim::new();
    sim.add(future(0).once());
    sim.jump(10);
    let start = sim.take().unwrap();
    assert_eq!(sim.core.futures_running, 1);
    sim.core.unclaimed(start.run, "no answer", now(sim.ms));
    assert_eq!(sim.core.futures_running, 0);
    sim.jump(100);
    let start = sim.take().unwrap();
    assert_eq!(sim.core.futures_running, 1);
    let held = NotOurs::Open(Foreign::Held);
    sim.core.not_claimed(start.run, held, now(sim.ms));
    assert_eq!(sim.core.futures_running, 0);
}

#[test]
fn what_leaves_the_queue_without_a_worker_is_looked_for_no_more() {
    let mut sim = Sim::new();
    let plain = sim.add(every(10).shard(1));
    sim.add(future(0));
    sim.jump(10);
    assert_eq!(sim.core.ready_plain, 1);
    sim.core
        .cancel_runs(plain, CancelCause::Requested, now(sim.ms));
    assert_eq!((sim.core.ready_plain, sim.core.ready.len()), (0, 1));
    sim.jump(10);
    assert_eq!(sim.core.ready_plain, 1);
    while sim.take().is_some() {}
    assert_eq!((sim.core.ready_plain, sim.core.ready.len()), (0, 0));
}
