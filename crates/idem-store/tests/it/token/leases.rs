//! Leased workers and the durable floor: two threads, two processes, restarts, clocks that go back.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use idem_store::token::{
    Attempt, EPOCH_MS, FileWorkers, Generator, GeneratorOptions, OnClockBehind, StoreWorkers,
    Token, TokenService, WorkerLease, Workers,
};
use idem_store::{Begin, Fingerprint, Options, Store};

use super::TestClock;

const CHILD: &str = "MAINSTAY_TOKEN_CHILD";
const NOW: u64 = EPOCH_MS + 86_400_000;

fn refusing() -> GeneratorOptions {
    GeneratorOptions::new().on_clock_behind(OnClockBehind::Refuse)
}

fn small_store(dir: &Path) -> Store {
    let options = Options::new()
        .segment_bytes_max(256 << 10)
        .outcome_bytes_max(16 << 10)
        .batch_bytes_max(128 << 10);
    Store::open(dir, options).unwrap()
}

/// The contract of a place to lease from, with two worker ids.
pub(super) fn check_workers<W: Workers<Lease: 'static>>(workers: &W) {
    let clock = TestClock::at(NOW);
    let open = || Generator::open_with(workers, refusing(), clock.clone());
    let mut one = open().unwrap();
    let mut two = open().unwrap();
    assert_ne!(one.workers(), two.workers());
    assert!(open().unwrap_err().is_no_worker());
    let mut seen = HashSet::new();
    for _ in 0..3_000 {
        assert!(seen.insert(one.next_id().unwrap()));
        assert!(seen.insert(two.next_id().unwrap()));
    }

    // A clean restart goes on at once, after the last id; a clock that went back is refused.
    let worker = one.workers()[0];
    drop(one);
    let mut one = open().unwrap();
    assert_eq!(one.workers(), [worker]);
    let error = one.next_id().unwrap_err();
    assert_eq!(error.behind_ms(), Some(1), "{error}");
    clock.set(NOW + 1);
    assert!(seen.insert(one.next_id().unwrap()));
    clock.set(NOW);
    assert_eq!(one.next_id().unwrap_err().behind_ms(), Some(1));
    clock.set(NOW - 3_600_000);
    assert_eq!(one.next_id().unwrap_err().behind_ms(), Some(3_600_001));

    // Neither does a restart forget.
    drop(one);
    let mut one = open().unwrap();
    let error = one.next_id().unwrap_err();
    assert!(error.is_clock_behind(), "{error}");
    assert_eq!(error.behind_ms(), Some(3_600_002));

    // Waiting is the other policy: the test's clock moves on by the pause.
    drop(one);
    clock.set(NOW);
    let patient = GeneratorOptions::new().on_clock_behind(OnClockBehind::WaitMs(5));
    let mut one = Generator::open_with(workers, patient, clock.clone()).unwrap();
    assert!(seen.insert(one.next_id().unwrap()));
    clock.set(NOW - 100);
    assert!(one.next_id().unwrap_err().is_clock_behind());
}

#[test]
fn file_workers_keep_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    check_workers(&FileWorkers::new(dir.path().join("new")).range(10..=11));
}

#[test]
fn store_workers_keep_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let store = small_store(dir.path());
    check_workers(&StoreWorkers::new(store, "tokens").range(10..=11));
}

#[test]
fn a_crash_costs_at_most_what_was_reserved() {
    let dir = tempfile::tempdir().unwrap();
    let workers = FileWorkers::new(dir.path()).range(0..=0);
    let clock = TestClock::at(NOW);
    let mut one = Generator::open_with(&workers, refusing(), clock.clone()).unwrap();
    let id = one.next_id().unwrap();
    // As a crash would: the file keeps the reservation, nobody gives the rest back.
    let reserved = std::fs::read(dir.path().join("worker-0000")).unwrap();
    drop(one);
    std::fs::write(dir.path().join("worker-0000"), reserved).unwrap();

    let mut two = Generator::open_with(&workers, refusing(), clock.clone()).unwrap();
    assert_eq!(two.next_id().unwrap_err().behind_ms(), Some(1_000));
    clock.set(NOW + 1_000);
    assert!(two.next_id().unwrap() > id);
    drop(two);

    // With another worker id to be had there is nothing to wait for.
    clock.set(NOW);
    let more = FileWorkers::new(dir.path()).range(0..=1);
    let mut three = Generator::open_with(&more, refusing(), clock.clone()).unwrap();
    assert_eq!(three.workers(), [1]);
    three.next_id().unwrap();
}

#[test]
fn a_torn_floor_falls_back_and_a_rotten_one_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let workers = FileWorkers::new(dir.path()).range(4..=4);
    let path = dir.path().join("worker-0004");
    let mut lease = workers.lease(NOW).unwrap();
    assert_eq!(lease.floor_ms(), 0);
    lease.reserve(NOW + 1).unwrap();
    lease.reserve(NOW + 2).unwrap();
    drop(lease);
    assert_eq!(workers.lease(NOW).unwrap().floor_ms(), NOW + 2);

    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0xEE], 20).unwrap(); // the second write went to the first slot
    assert_eq!(workers.lease(NOW).unwrap().floor_ms(), NOW + 1);
    file.write_all_at(&[0xEE], 512 + 20).unwrap();
    let error = workers.lease(NOW).unwrap_err();
    assert!(error.is_damaged(), "{error}");
    assert!(error.to_string().contains("worker-0004"), "{error}");
}

#[test]
fn a_worker_whose_file_is_damaged_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    // As a first write leaves it that a power cut tore: it goes to the second slot.
    let mut torn = [0; 1024];
    torn[512..516].copy_from_slice(b"MSTW");
    std::fs::write(dir.path().join("worker-0000"), torn).unwrap();
    let workers = FileWorkers::new(dir.path()).range(0..=1);
    let lease = workers.lease(NOW).unwrap();
    assert_eq!(lease.worker(), 1);
    assert!(workers.lease(NOW).unwrap_err().is_damaged());
}

/// The older of the two floors may be all that is left of it: ids could be given again.
#[test]
fn a_worker_file_that_was_cut_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let workers = FileWorkers::new(dir.path()).range(4..=4);
    let mut lease = workers.lease(NOW).unwrap();
    for floor_ms in NOW..NOW + 3 {
        lease.reserve(floor_ms).unwrap();
    }
    drop(lease);
    let path = dir.path().join("worker-0004");
    let whole = std::fs::read(&path).unwrap();
    for length in (1..whole.len())
        .step_by(7)
        .chain([28, 512, whole.len() - 1])
    {
        std::fs::write(&path, &whole[..length]).unwrap();
        let leased = workers.lease(NOW).map(|lease| lease.floor_ms());
        assert!(leased.is_err_and(|error| error.is_damaged()), "{length}");
    }
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(workers.lease(NOW).unwrap().floor_ms(), NOW + 2);
}

/// The bytes of docs/FORMAT.md; old files stay readable for ever.
#[test]
fn golden_worker_file() {
    let dir = tempfile::tempdir().unwrap();
    let workers = FileWorkers::new(dir.path()).range(7..=7);
    let golden = include_bytes!("../../fixtures/v1/worker-0007");
    let mut lease = workers.lease(NOW).unwrap();
    lease.reserve(0x0102_0304_0506).unwrap();
    lease.reserve(0x0102_0304_0507).unwrap();
    drop(lease);
    let path = dir.path().join("worker-0007");
    assert_eq!(std::fs::read(&path).unwrap(), golden);
    std::fs::write(&path, golden).unwrap();
    assert_eq!(workers.lease(NOW).unwrap().floor_ms(), 0x0102_0304_0507);
}

#[test]
fn a_store_lease_that_passed_on_is_lost_and_gave_no_id_twice() {
    let dir = tempfile::tempdir().unwrap();
    check_lease_that_passes_on(small_store(dir.path()));
}

pub(super) fn check_lease_that_passes_on(store: Store) {
    // A lease of nothing: whoever comes takes it over.
    let workers = StoreWorkers::new(store, "tokens").range(1..=1).lease_ms(0);
    let clock = TestClock::at(NOW);
    let mut one = Generator::open_with(&workers, refusing(), clock.clone()).unwrap();
    let mut seen = HashSet::from([one.next_id().unwrap()]);
    let mut two = Generator::open_with(&workers, refusing(), clock.clone()).unwrap();
    // Both live: the first within what it reserved, the second after that.
    clock.set(NOW + 999);
    assert!(seen.insert(one.next_id().unwrap()));
    assert!(two.next_id().unwrap_err().is_clock_behind());
    clock.set(NOW + 1_000);
    assert!(seen.insert(two.next_id().unwrap()));
    let error = one.next_id().unwrap_err();
    assert!(error.is_lease_lost(), "{error}");
}

#[test]
fn a_service_gives_each_thread_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let workers = FileWorkers::new(dir.path());
    let options = GeneratorOptions::new().workers(2);
    let service = TokenService::new(Generator::open(&workers, options).unwrap());
    let lists: Vec<Vec<Token>> = std::thread::scope(|scope| {
        let threads = [0, 1].map(|_| {
            let service = service.clone();
            scope.spawn(move || {
                (0..20_000)
                    .map(|_| service.next(b"same").unwrap())
                    .collect()
            })
        });
        threads.map(|thread| thread.join().unwrap()).into()
    });
    for list in &lists {
        assert!(list.is_sorted());
    }
    let all: HashSet<Token> = lists.into_iter().flatten().collect();
    assert_eq!(all.len(), 40_000);
}

/// Prints ids until it is killed; does nothing in a normal run.
#[test]
fn child() {
    let Ok(dir) = std::env::var(CHILD) else {
        return;
    };
    let workers = FileWorkers::new(dir).range(0..=1);
    let options = GeneratorOptions::new().reserve_ms(20);
    let mut generator = Generator::open(&workers, options).unwrap();
    let mut out = std::io::stdout().lock();
    loop {
        let mut lines = String::new();
        for _ in 0..100 {
            lines += &format!("id {}\n", generator.next_id().unwrap().as_u64());
        }
        out.write_all(lines.as_bytes()).unwrap();
        out.flush().unwrap();
    }
}

/// Two processes at once, killed and restarted: they share two worker ids and no id.
#[test]
fn two_processes_and_kill_9_repeat_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = HashSet::new();
    for cycle in 0..3 {
        let dir = dir.path().as_os_str();
        let printers = [0, 1].map(|_| Printer::start("token::leases::child", (CHILD, dir)));
        for mut printer in printers {
            printer.take(5_000, &mut seen);
            printer.kill(&mut seen);
        }
        assert!(seen.len() >= 10_000 * (cycle + 1));
    }
}

/// A process that prints ids until it is killed.
pub(super) struct Printer {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Printer {
    /// Runs `test`, with this in its environment.
    pub(super) fn start(test: &str, (variable, value): (&str, &OsStr)) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(variable, value)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// Reads so many ids.
    pub(super) fn take(&mut self, count: usize, seen: &mut HashSet<u64>) {
        let (mut told, mut line) = (0, String::new());
        while told < count {
            line.clear();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "it ended");
            told += take_id(&line, seen);
        }
    }

    /// Kills it, and reads what it had printed, but for a line that was cut short.
    pub(super) fn kill(mut self, seen: &mut HashSet<u64>) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        let whole = rest.rfind('\n').map_or("", |end| &rest[..end]);
        for line in whole.lines() {
            take_id(line, seen);
        }
    }
}

fn take_id(line: &str, seen: &mut HashSet<u64>) -> usize {
    // The harness prints before the first line, on the same one.
    let Some((_, id)) = line.trim_end().split_once("id ") else {
        return 0;
    };
    assert!(seen.insert(id.parse().unwrap()), "{id} was given twice");
    1
}

#[test]
fn a_token_is_stored_before_it_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let workers = FileWorkers::new(dir.path().join("workers"));
    let generator = Generator::open(&workers, GeneratorOptions::new()).unwrap();
    let tokens = TokenService::new(generator);
    let request = Fingerprint([7; 32]);
    let begin = Begin::new(b"order-17", request, 30_000, NOW).declare(b"mine");

    let store = small_store(&dir.path().join("store"));
    let first = Attempt::begin(&store, &tokens, &begin).unwrap();
    let Attempt::First { permit, token } = first else {
        panic!("{first:?}");
    };
    assert!(token.matches(&request.0));
    assert_eq!(Attempt::memo(&permit), b"mine");
    let busy = Attempt::begin(&store, &tokens, &begin).unwrap();
    assert!(matches!(busy, Attempt::InFlight { .. }), "{busy:?}");
    // The process dies: the permit is never ended.
    std::mem::forget(permit);
    drop(store.close());

    let store = small_store(&dir.path().join("store"));
    let again = Attempt::begin(&store, &tokens, &begin).unwrap();
    let Attempt::Again {
        permit,
        token: found,
    } = again
    else {
        panic!("{again:?}");
    };
    assert_eq!(found, token);
    assert_eq!(Attempt::memo(&permit), b"mine");
    store.complete(permit, b"done", 1_000, NOW).wait().unwrap();
    let replay = Attempt::begin(&store, &tokens, &begin).unwrap();
    assert!(matches!(replay, Attempt::Replay(_)), "{replay:?}");

    // A claim that was made without a token is told apart.
    let plain = Begin::new(b"order-18", request, 30_000, NOW).declare(b"no token");
    drop(store.begin(&plain).wait().unwrap());
    let error = Attempt::begin(&store, &tokens, &plain).unwrap_err();
    assert!(error.is_malformed(), "{error}");
}
