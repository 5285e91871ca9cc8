//! Once across replicas, in doubt, and missed while nothing ran: two schedulers on one store.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use idem_store::{Lookup, Options, Store};
use scheduler::{
    Claim, Claimed, Config, FiringId, InDoubt, Job, JobSpec, Misfire, Once, OnceError, Outcome,
    Overlap, Record, Resolution, Schedule, Scheduler, StoreOnce, Unsettled,
};

/// Only a broken scheduler takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

fn store(dir: &tempfile::TempDir) -> StoreOnce {
    StoreOnce::new(Store::open(dir.path(), Options::new()).unwrap()).lease_ms(300)
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis() as u64
}

/// A scheduler, and what it settles.
fn start(once: &StoreOnce) -> (Scheduler, Receiver<Record>) {
    start_with(once.clone())
}

fn start_with(once: impl Once) -> (Scheduler, Receiver<Record>) {
    let (sender, settled) = mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let mut config = Config::default();
    config.once = Some(Arc::new(once));
    config.observer = Some(Box::new(move |_, record| {
        // The receiver is gone at the end.
        drop(sender.lock().unwrap().send(record.clone()));
    }));
    (Scheduler::start(config).unwrap(), settled)
}

fn every(ms: u64) -> Schedule {
    Schedule::every(Duration::from_millis(ms)).unwrap()
}

fn job(name: &str, schedule: Schedule, ran: &mpsc::Sender<u64>) -> JobSpec {
    let ran = ran.clone();
    let spec = JobSpec::new(name, schedule, move |firing| {
        ran.send(firing.fire_ms)?;
        Ok(())
    });
    spec.once().overlap(Overlap::Allow)
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn wait_for(job: &Job, outcome: Outcome) {
    until(outcome.name(), || {
        job.status().unwrap().counts.of(outcome) > 0
    });
}

fn id(job: &str, fire_ms: u64) -> FiringId {
    FiringId {
        job: job.to_owned(),
        fire_ms,
        shard: 0,
    }
}

/// A firing whose runner died.
fn leave_in_doubt(once: &StoreOnce, id: &FiringId) {
    match once.claim(id).unwrap() {
        Claimed::Fresh(claim) => drop(claim),
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_schedulers_run_each_firing_once() {
    let dir = tempfile::tempdir().unwrap();
    let once = store(&dir);
    let (ran, runs) = mpsc::channel();
    let (a, a_settled) = start(&once);
    let (b, b_settled) = start(&once);
    for scheduler in [&a, &b] {
        scheduler.add(job("job", every(10), &ran)).unwrap();
    }
    let mut fired = std::collections::HashSet::new();
    while fired.len() < 100 {
        let fire_ms = runs.recv_timeout(PATIENCE).unwrap();
        assert!(fired.insert(fire_ms), "{fire_ms} ran twice");
    }
    a.shutdown(PATIENCE);
    b.shutdown(PATIENCE);
    let elsewhere = a_settled.try_iter().chain(b_settled.try_iter());
    let elsewhere = elsewhere
        .filter(|record| record.outcome == Outcome::Elsewhere)
        .count();
    assert!(elsewhere > 0, "they had to meet");
}

#[test]
fn shards_claim_apart() {
    let dir = tempfile::tempdir().unwrap();
    let once = store(&dir);
    let (ran, runs) = mpsc::channel();
    let (scheduler, _settled) = start(&once);
    let at_ms = now_ms() + 50;
    for shard in 0..3 {
        scheduler
            .add(job("job", Schedule::at_ms(at_ms), &ran).shard(shard))
            .unwrap();
    }
    let fired: Vec<u64> = (0..3)
        .map(|_| runs.recv_timeout(PATIENCE).unwrap())
        .collect();
    assert_eq!(fired, [at_ms; 3]);
}

#[test]
fn what_was_missed_while_nothing_ran_is_found_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let once = store(&dir);
    let (ran, runs) = mpsc::channel();
    // The last process had come so far.
    let last_ms = now_ms() / 1_000 * 1_000 - 60_000;
    once.remember("job", 0, last_ms).unwrap();
    // One of them was run by another replica that the memory is not of.
    match once.claim(&id("job", last_ms + 5_000)).unwrap() {
        Claimed::Fresh(claim) => once.settle(claim, Outcome::Succeeded),
        other => panic!("{other:?}"),
    }
    let (scheduler, settled) = start(&once);
    let spec = job("job", every(1_000), &ran).misfire(Misfire::All(2));
    scheduler.add(spec).unwrap();
    let mut misfired = Vec::new();
    while misfired.len() < 55 {
        let record = settled.recv_timeout(PATIENCE).unwrap();
        if record.outcome == Outcome::Misfired {
            misfired.push((record.fire_ms - last_ms) / 1_000);
        }
    }
    assert_eq!(misfired[..6], [1, 2, 3, 4, 6, 7], "the fifth had run");
    let first = runs.recv_timeout(PATIENCE).unwrap();
    assert!(first >= last_ms + 57_000, "the last two missed ones run");
    scheduler.shutdown(PATIENCE);
    // What the store had not heard of at the end would be looked at again.
    assert!(once.recall("job", 0).unwrap() > Some(last_ms + 55_000));
}

#[test]
fn a_time_that_passed_long_ago_runs_once_for_all_starts() {
    let dir = tempfile::tempdir().unwrap();
    let once = store(&dir);
    let (ran, runs) = mpsc::channel();
    let at_ms = now_ms() - 3_600_000;
    for expected in [Outcome::Succeeded, Outcome::Elsewhere] {
        let (scheduler, settled) = start(&once);
        scheduler
            .add(job("job", Schedule::at_ms(at_ms), &ran))
            .unwrap();
        let record = settled.recv_timeout(PATIENCE).unwrap();
        assert_eq!((record.fire_ms, record.outcome), (at_ms, expected));
        scheduler.shutdown(PATIENCE);
    }
    assert_eq!(runs.try_iter().count(), 1);
}

#[test]
fn a_firing_in_doubt_is_skipped_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let once = store(&dir);
    let fire_ms = now_ms() - 10_000;
    leave_in_doubt(&once, &id("job", fire_ms));
    let (ran, runs) = mpsc::channel();
    let (scheduler, settled) = start(&once);
    scheduler.add(job("job", every(3_600_000), &ran)).unwrap();
    let record = settled.recv_timeout(PATIENCE).unwrap();
    assert_eq!(
        (record.fire_ms, record.outcome),
        (fire_ms, Outcome::InDoubt)
    );
    assert!(once.in_doubt().unwrap().is_empty());
    assert_eq!(runs.try_iter().count(), 0);
    scheduler.shutdown(PATIENCE);
}

#[test]
fn a_firing_in_doubt_runs_again_where_that_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let once = store(&dir);
    let fire_ms = now_ms() - 10_000;
    leave_in_doubt(&once, &id("job", fire_ms));
    let (ran, runs) = mpsc::channel();
    let (scheduler, _settled) = start(&once);
    let spec = job("job", every(3_600_000), &ran).in_doubt(InDoubt::Rerun);
    scheduler.add(spec).unwrap();
    assert_eq!(runs.recv_timeout(PATIENCE), Ok(fire_ms));
    scheduler.shutdown(PATIENCE);
    assert!(once.in_doubt().unwrap().is_empty());
    assert!(matches!(
        once.claim(&id("job", fire_ms)),
        Ok(Claimed::Settled)
    ));
}

#[test]
fn a_firing_whose_runner_died_has_one_outcome_and_runs_beside_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let once = store(&dir);
    let fire_ms = now_ms() / 1_000 * 1_000 - 5_000;
    // Its runner is about to die.
    let Claimed::Fresh(claim) = once.claim(&id("job", fire_ms)).unwrap() else {
        panic!("it is fresh");
    };
    once.remember("job", 0, fire_ms - 1).unwrap();
    let (scheduler, settled) = start(&once);
    let running = AtomicUsize::new(0);
    let (ran, runs) = mpsc::channel();
    let spec = JobSpec::new("job", every(1_000), move |firing| {
        assert_eq!(running.fetch_add(1, Relaxed), 0, "two at a time");
        std::thread::sleep(Duration::from_millis(20));
        running.fetch_sub(1, Relaxed);
        Ok(ran.send(firing.fire_ms)?)
    });
    let spec = spec
        .once()
        .misfire(Misfire::All(100))
        .overlap(Overlap::Skip);
    scheduler.add(spec.in_doubt(InDoubt::Rerun)).unwrap();
    assert!(runs.recv_timeout(PATIENCE).unwrap() > fire_ms);
    drop(claim);
    while runs.recv_timeout(PATIENCE).unwrap() != fire_ms {}
    runs.recv_timeout(PATIENCE).unwrap();
    scheduler.shutdown(PATIENCE);
    let settled: Vec<_> = settled.try_iter().collect();
    let of_it = settled.iter().filter(|record| record.fire_ms == fire_ms);
    let of_it: Vec<_> = of_it.map(|record| record.outcome).collect();
    assert_eq!(of_it, [Outcome::Succeeded]);
    let times: std::collections::HashSet<_> = settled.iter().map(|it| it.fire_ms).collect();
    assert_eq!(times.len(), settled.len(), "one outcome each: {settled:?}");
    assert!(settled.iter().all(|it| it.outcome != Outcome::Panicked));
}

#[test]
fn a_firing_in_doubt_waits_for_an_answer_where_that_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let once = store(&dir);
    let fire_ms = now_ms() - 10_000;
    let ids = [
        id("job", fire_ms),
        id("job", fire_ms + 1),
        id("job", fire_ms + 2),
    ];
    ids.iter().for_each(|id| leave_in_doubt(&once, id));
    let (ran, runs) = mpsc::channel();
    let (scheduler, settled) = start(&once);
    let spec = job("job", every(3_600_000), &ran).in_doubt(InDoubt::Ask);
    let job = scheduler.add(spec).unwrap();
    until("they wait for an answer", || {
        job.status().unwrap().in_doubt == 3
    });
    assert_eq!(once.in_doubt().unwrap().len(), 3);
    assert!(once.resolve(&ids[0], Resolution::Ran).unwrap());
    assert!(once.resolve(&ids[1], Resolution::Skip).unwrap());
    assert!(once.resolve(&ids[2], Resolution::Rerun).unwrap());
    assert_eq!(runs.recv_timeout(PATIENCE), Ok(fire_ms + 2));
    until("all have an outcome", || {
        let status = job.status().unwrap();
        let counts = [Outcome::Succeeded, Outcome::Elsewhere].map(|it| status.counts.of(it));
        counts == [1, 2] && status.in_doubt == 0
    });
    scheduler.shutdown(PATIENCE);
    let settled: Vec<_> = settled.try_iter().collect();
    assert_eq!(settled.len(), 3, "one each: {settled:?}");
    assert!(once.in_doubt().unwrap().is_empty());
    assert!(
        !once.resolve(&ids[0], Resolution::Rerun).unwrap(),
        "it is settled"
    );
    assert_eq!(runs.try_iter().count(), 0);
}

/// Watches the claim of a run that takes long: its end moves on and on. The lease is far longer than the time between two
/// looks of the scheduler, so that no slow machine lets it lapse.
fn is_extended_again_and_again(store: &Store, id: &FiringId) {
    let ends_ms = || match store.get(id.to_string().as_bytes(), now_ms()).wait() {
        Ok(Lookup::InFlight { until_ms, .. }) => until_ms,
        other => panic!("{other:?}"),
    };
    for _ in 0..3 {
        let before_ms = ends_ms();
        until("the claim is extended", || ends_ms() > before_ms);
    }
}

#[test]
fn a_run_keeps_its_claim_however_long_it_takes() {
    let dir = tempfile::tempdir().unwrap();
    let raw = Store::open(dir.path(), Options::new()).unwrap();
    let once = StoreOnce::new(raw.clone()).lease_ms(60_000);
    let (hook, _open, _stuck) = Stuck::at(&once, Question::Nothing);
    let (scheduler, settled) = start_with(hook);
    let (open, gate) = mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let (began, begun) = mpsc::channel();
    let at_ms = now_ms() + 10;
    let spec = JobSpec::new("job", Schedule::at_ms(at_ms), move |_| {
        began.send(())?;
        Ok(gate.lock().unwrap().recv_timeout(PATIENCE)?)
    });
    scheduler.add(spec.once()).unwrap();
    begun.recv_timeout(PATIENCE).unwrap();
    is_extended_again_and_again(&raw, &id("job", at_ms));
    open.send(()).unwrap();
    assert_eq!(
        settled.recv_timeout(PATIENCE).unwrap().outcome,
        Outcome::Succeeded
    );
    scheduler.shutdown(PATIENCE);
}

#[derive(PartialEq)]
enum Question {
    Claim,
    Remember,
    Nothing,
}

/// A store that answers all but one question, as long as the gate is shut, and wants to be told of claims every 100 ms.
struct Stuck {
    once: StoreOnce,
    at: Question,
    gate: std::sync::Mutex<mpsc::Receiver<()>>,
    reached: mpsc::Sender<()>,
    /// So many outcomes are lost on the way.
    losses: AtomicUsize,
}

impl Stuck {
    /// Also what opens the gate, and what tells who waits at it.
    fn at(once: &StoreOnce, at: Question) -> (Self, mpsc::Sender<()>, Receiver<()>) {
        let ((open, gate), (reached, stuck)) = (mpsc::channel(), mpsc::channel());
        let it = Self {
            once: once.clone(),
            at,
            gate: std::sync::Mutex::new(gate),
            reached,
            losses: AtomicUsize::new(0),
        };
        (it, open, stuck)
    }

    fn wait_at(&self, question: Question) {
        if self.at == question {
            // Nobody listens any more at the end, and the gate is gone then.
            self.reached.send(()).ok();
            self.gate.lock().unwrap().recv().ok();
        }
    }
}

impl Once for Stuck {
    fn claim(&self, id: &FiringId) -> Result<Claimed, OnceError> {
        self.wait_at(Question::Claim);
        self.once.claim(id)
    }

    fn renew(&self, claim: &Claim) -> Result<(), OnceError> {
        self.once.renew(claim)
    }

    fn settle(&self, claim: Claim, outcome: Outcome) {
        let less = |losses: usize| losses.checked_sub(1);
        match self.losses.fetch_update(Relaxed, Relaxed, less) {
            Ok(_) => drop(claim),
            Err(_) => self.once.settle(claim, outcome),
        }
    }

    fn extend(&self, claim: &Claim) {
        self.once.extend(claim);
    }

    fn period_ms(&self) -> u64 {
        300
    }

    fn unsettled(&self) -> Result<Vec<Unsettled>, OnceError> {
        self.once.unsettled()
    }

    fn remember(&self, job: &str, shard: u32, fire_ms: u64) -> Result<(), OnceError> {
        self.wait_at(Question::Remember);
        self.once.remember(job, shard, fire_ms)
    }

    fn remember_first(&self, job: &str, shard: u32, fire_ms: u64) -> Result<(), OnceError> {
        self.once.remember_first(job, shard, fire_ms)
    }

    fn recall(&self, job: &str, shard: u32) -> Result<Option<u64>, OnceError> {
        self.once.recall(job, shard)
    }

    fn flush(&self) {
        self.once.flush();
    }
}

#[test]
fn a_run_keeps_its_claim_while_the_store_takes_its_time_with_other_things() {
    let dir = tempfile::tempdir().unwrap();
    let raw = Store::open(dir.path(), Options::new()).unwrap();
    let once = StoreOnce::new(raw.clone()).lease_ms(60_000);
    let (hook, open, stuck) = Stuck::at(&once, Question::Remember);
    let mut config = Config::default();
    config.once = Some(Arc::new(hook));
    let scheduler = Scheduler::start(config).unwrap();
    let (began, begun) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    let ended = std::sync::Mutex::new(ended);
    let at_ms = now_ms() + 10;
    let spec = JobSpec::new("job", Schedule::at_ms(at_ms), move |_| {
        began.send(())?;
        Ok(ended.lock().unwrap().recv_timeout(PATIENCE)?)
    });
    let job = scheduler.add(spec.once()).unwrap();
    begun.recv_timeout(PATIENCE).unwrap();
    stuck.recv_timeout(PATIENCE).unwrap();
    is_extended_again_and_again(&raw, &id("job", at_ms));
    end.send(()).unwrap();
    wait_for(&job, Outcome::Succeeded);
    drop(open);
    scheduler.shutdown(PATIENCE);
}

#[test]
fn a_store_that_hangs_leaves_a_worker_for_what_does_not_need_it() {
    let dir = tempfile::tempdir().unwrap();
    let (hook, open, stuck) = Stuck::at(&store(&dir), Question::Claim);
    let mut config = Config::default();
    config.workers = 3;
    config.once = Some(Arc::new(hook));
    let scheduler = Scheduler::start(config).unwrap();
    let (ran, runs) = mpsc::channel();
    for name in ["a", "b", "c", "d"] {
        scheduler.add(job(name, every(10), &ran)).unwrap();
    }
    for _ in 0..2 {
        stuck.recv_timeout(PATIENCE).unwrap();
    }
    let (ticked, ticks) = mpsc::channel();
    let plain = JobSpec::new("plain", every(10), move |firing| {
        ticked.send(firing.fire_ms)?;
        Ok(())
    });
    scheduler.add(plain).unwrap();
    for _ in 0..3 {
        ticks.recv_timeout(PATIENCE).unwrap();
    }
    assert_eq!(runs.try_iter().count(), 0);
    drop(open);
    runs.recv_timeout(PATIENCE).unwrap();
    scheduler.shutdown(PATIENCE);
}

#[test]
fn a_store_that_hangs_holds_up_no_shutdown() {
    let dir = tempfile::tempdir().unwrap();
    let (hook, open, stuck) = Stuck::at(&store(&dir), Question::Remember);
    let mut config = Config::default();
    config.once = Some(Arc::new(hook));
    let scheduler = Scheduler::start(config).unwrap();
    let (ran, runs) = mpsc::channel();
    scheduler.add(job("job", every(10), &ran)).unwrap();
    runs.recv_timeout(PATIENCE).unwrap();
    stuck.recv_timeout(PATIENCE).unwrap();
    let (sender, drained) = mpsc::channel();
    std::thread::spawn(move || sender.send(scheduler.shutdown(PATIENCE)));
    assert_eq!(drained.recv_timeout(PATIENCE).unwrap().left, 0);
    drop(open);
}

#[test]
fn how_far_a_job_came_is_the_latest_that_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let once = store(&dir);
    assert_eq!(once.recall("job", 0).unwrap(), None);
    for ms in [5, 7, 7, 9] {
        once.remember("job", 0, ms).unwrap();
        assert_eq!(once.recall("job", 0).unwrap(), Some(ms));
    }
    assert_eq!(once.recall("job", 1).unwrap(), None);
}

#[test]
fn once_needs_a_store_and_a_schedule_that_replicas_agree_on() {
    let scheduler = Scheduler::start(Config::default()).unwrap();
    let (ran, _runs) = mpsc::channel();
    assert!(scheduler.add(job("job", every(10), &ran)).is_err());
    let dir = tempfile::tempdir().unwrap();
    let (scheduler, _settled) = start(&store(&dir));
    let after = Schedule::after(Duration::from_secs(1));
    assert!(scheduler.add(job("job", after, &ran)).is_err());
}

#[test]
fn how_far_a_job_came_outlives_a_writer_that_dies_in_the_middle() {
    let dir = tempfile::tempdir().unwrap();
    let raw = Store::open(dir.path(), Options::new()).unwrap();
    let once = StoreOnce::new(raw.clone());
    once.remember_first("job", 0, 5).unwrap();
    // It forgot the cell that it was about to write, and so did another at the turn of the cells.
    for cell in [1, 2] {
        let key = format!("job:0:last:{cell}");
        assert!(raw.forget(key.as_bytes()).wait().unwrap());
    }
    assert_eq!(once.recall("job", 0).unwrap(), Some(5));
}

#[test]
fn a_worker_that_meets_a_firing_in_doubt_does_not_run_it_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let once = store(&dir);
    let fire_ms = now_ms() / 1_000 * 1_000 - 5_000;
    leave_in_doubt(&once, &id("job", fire_ms));
    once.remember("job", 0, fire_ms - 1).unwrap();
    let (ran, runs) = mpsc::channel();
    let (scheduler, settled) = start(&once);
    let spec = job("job", every(1_000), &ran);
    let spec = spec.misfire(Misfire::All(100)).in_doubt(InDoubt::Ask);
    let job = scheduler.add(spec).unwrap();
    // The ones behind it run, and it waits for an answer.
    let mut later = std::collections::HashSet::new();
    while later.len() < 3 {
        later.insert(runs.recv_timeout(PATIENCE).unwrap());
    }
    until("it is in doubt", || job.status().unwrap().in_doubt == 1);
    scheduler.shutdown(PATIENCE);
    assert!(
        settled.try_iter().all(|record| record.fire_ms != fire_ms),
        "it has no outcome"
    );
    later.extend(runs.try_iter());
    assert!(!later.contains(&fire_ms));
    assert_eq!(
        once.in_doubt().unwrap().len(),
        1,
        "it still waits for an answer"
    );
}

#[test]
fn what_a_process_ended_is_not_in_doubt_to_it_when_the_store_did_not_hear() {
    for policy in [InDoubt::Rerun, InDoubt::Skip, InDoubt::Ask] {
        let dir = tempfile::tempdir().unwrap();
        let once = store(&dir);
        let (hook, _open, _stuck) = Stuck::at(&once, Question::Nothing);
        hook.losses.store(2, Relaxed);
        let (scheduler, settled) = start_with(hook);
        let (ran, runs) = mpsc::channel();
        let at_ms = now_ms() + 10;
        let spec = job("job", Schedule::at_ms(at_ms), &ran).in_doubt(policy);
        scheduler.add(spec).unwrap();
        runs.recv_timeout(PATIENCE).unwrap();
        until("the store knows", || once.unsettled().unwrap().is_empty());
        scheduler.shutdown(PATIENCE);
        drop(scheduler);
        let outcomes: Vec<_> = settled.try_iter().map(|record| record.outcome).collect();
        assert_eq!(outcomes, [Outcome::Succeeded], "{policy:?}");
        assert_eq!(runs.try_iter().count(), 0, "{policy:?}");
    }
}
