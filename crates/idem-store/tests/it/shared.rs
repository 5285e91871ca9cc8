//! What every store on a server promises beyond the contract: answers that are lost, networks that are
//! cut, clients that are killed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use idem_store::{Begin, Begun, Failure, Fingerprint, Lookup, Options, Store, Waited};
use tokio::runtime::Runtime;

use crate::contract::{DAY, LEASE, Rig, error, fresh, replayed, request};
use crate::proxy::{Mood, Proxy};

/// The store's URL, for the process that is killed.
const CHILD: &str = "MAINSTAY_CLIENT_URL";
const CHILD_LEASE_MS: u64 = 500;

/// A backend that is reached over a socket.
pub(crate) trait Shared: Rig {
    fn url(&self) -> String;

    fn socket(&self) -> PathBuf;

    /// The same store over the socket of that name in `dir`, on one connection.
    fn url_through(&self, dir: &Path, timeout_ms: u32) -> String;
}

/// Runs every function here as a test of its own, each on a new `$rig`.
macro_rules! suite {
    ($rig:expr) => {
        $crate::shared::suite!(@ $rig, [
            an_operation_whose_answer_is_lost_is_done_once,
            an_operation_whose_answer_is_lost_is_done_once_on_a_runtime,
            an_outcome_that_is_not_retained_is_acknowledged_although_its_answer_was_lost,
            a_begin_that_was_forgotten_while_its_answer_was_lost_begins_anew,
            a_forget_that_arrives_late_leaves_what_came_since,
            a_declare_that_arrives_late_leaves_the_newer_memo,
            a_forget_whose_answer_was_lost_leaves_who_came_since,
            what_a_hung_server_leaves_waiting_is_answered_in_its_own_time,
            a_connection_that_fell_silent_is_replaced_in_time,
            who_waits_for_the_same_key_shares_its_questions,
            a_wait_that_is_dropped_leaves_its_place,
            a_cut_network_is_told_in_time_and_heals,
            a_cut_network_is_told_in_time_and_heals_on_a_runtime,
            a_killed_client_keeps_its_outcomes_and_blocks_its_keys_for_one_lease,
        ]);
    };
    (@ $rig:expr, [$($name:ident,)*]) => {
        $(
            #[test]
            fn $name() {
                $crate::shared::$name(&$rig);
            }
        )*
    };
}
pub(crate) use suite;

pub(crate) fn an_operation_whose_answer_is_lost_is_done_once(rig: &dyn Shared) {
    let proxy = Proxy::start(&rig.socket());
    let url = rig.url_through(proxy.dir(), 20_000);
    lose_answers(rig, &proxy, &Store::connect(&url, Options::new()).unwrap());
}

pub(crate) fn an_operation_whose_answer_is_lost_is_done_once_on_a_runtime(rig: &dyn Shared) {
    let runtime = Runtime::new().unwrap();
    let proxy = Proxy::start(&rig.socket());
    let url = rig.url_through(proxy.dir(), 20_000);
    let connected = runtime.block_on(Store::connect_async(&url, Options::new()));
    lose_answers(rig, &proxy, &connected.unwrap());
}

/// What each operation did although its answer was lost is recognised when it is sent again.
fn lose_answers(rig: &dyn Shared, proxy: &Proxy, store: &Store) {
    let direct = rig.open();
    let get = |key: &[u8]| direct.get(key, 0).wait().unwrap();

    proxy.set(Mood::LoseNextAnswer);
    let plain = fresh(store, request(rig, b"plain"));
    assert!(matches!(get(b"plain"), Lookup::InFlight { .. }));
    proxy.set(Mood::LoseNextAnswer);
    store.extend(&plain, 2 * LEASE, 0).wait().unwrap();
    proxy.set(Mood::LoseNextAnswer);
    store.declare(&plain, b"memo").wait().unwrap();
    proxy.set(Mood::LoseNextAnswer);
    store.complete(plain, b"x", DAY, 0).wait().unwrap();
    assert!(matches!(get(b"plain"), Lookup::Stored(_)));

    let declared = fresh(store, request(rig, b"declared").declare(b"m"));
    let token = declared.token();
    proxy.set(Mood::LoseNextAnswer);
    let failed = store.fail(declared, Failure::Retryable, 0).wait();
    assert!(error(failed).is_effect_declared());
    proxy.set(Mood::LoseNextAnswer);
    let begun = store.begin(&request(rig, b"declared")).wait().unwrap();
    let Begun::InDoubt(doubt) = begun else {
        panic!("it was declared and given up: {begun:?}");
    };
    let claims = direct.unresolved(0, 9).wait().unwrap();
    assert_eq!(claims.len(), 1);
    assert!(doubt.token() == claims[0].token && doubt.token() > token);
    assert_eq!(doubt.memo(), b"m");
    proxy.set(Mood::LoseNextAnswer);
    store.fail(doubt, Failure::NotHappened, 0).wait().unwrap();
    assert_eq!(get(b"declared"), Lookup::Absent);
    assert_eq!(proxy.lost(), 7);
}

pub(crate) fn an_outcome_that_is_not_retained_is_acknowledged_although_its_answer_was_lost(
    rig: &dyn Shared,
) {
    let proxy = Proxy::start(&rig.socket());
    let url = rig.url_through(proxy.dir(), 20_000);
    let store = Store::connect(&url, Options::new()).unwrap();
    for begin in [
        request(rig, b"plain"),
        request(rig, b"declared").declare(b""),
    ] {
        let permit = fresh(&store, begin);
        proxy.set(Mood::LoseNextAnswer);
        store.complete(permit, b"x", 0, 0).wait().unwrap();
        assert_eq!(store.get(begin.key, 0).wait().unwrap(), Lookup::Absent);
        fresh(&store, begin);
    }
}

pub(crate) fn a_begin_that_was_forgotten_while_its_answer_was_lost_begins_anew(rig: &dyn Shared) {
    let proxy = Proxy::start(&rig.socket());
    let url = rig.url_through(proxy.dir(), 20_000);
    let store = Store::connect(&url, Options::new()).unwrap();
    let direct = rig.open();
    proxy.set(Mood::LoseAnswersAfter(0));
    let begun = store.begin(&request(rig, b"k"));
    while direct.get(b"k", 0).wait().unwrap() == Lookup::Absent {
        std::thread::yield_now();
    }
    assert!(direct.forget(b"k").wait().unwrap());
    proxy.set(Mood::Honest);
    proxy.disconnect();
    let permit = begun.wait().unwrap().into_fresh().expect("it is free");
    store.complete(permit, b"x", DAY, 0).wait().unwrap();
}

/// Its connection was given up when it was on its way, and it was sent again and answered.
pub(crate) fn a_forget_that_arrives_late_leaves_what_came_since(rig: &dyn Shared) {
    let proxy = Proxy::start(&rig.socket());
    let url = rig.url_through(proxy.dir(), 20_000);
    let store = Store::connect(&url, Options::new()).unwrap();
    let direct = rig.open();
    let complete = |key: &[u8], outcome: &[u8]| {
        let permit = fresh(&direct, request(rig, key));
        direct.complete(permit, outcome, DAY, 0).wait().unwrap();
    };
    // Whatever a forget says to the server may be late, once the connection has said what it says first.
    complete(b"first", b"old");
    assert!(store.forget(b"first").wait().unwrap());
    for question in 0..4_u8 {
        let key = [question];
        complete(&key, b"old");
        proxy.set(Mood::KeepQuestionAfter(question.into()));
        assert!(store.forget(&key).wait().unwrap());
        proxy.set(Mood::Honest);
        complete(&key, b"new");
        proxy.release();
        assert_eq!(replayed(&direct, request(rig, &key)).outcome(), b"new");
    }
    assert!(store.stats().reconnects > 0);
}

/// Otherwise the floor under the clock of a leased worker id would be an older one again.
pub(crate) fn a_declare_that_arrives_late_leaves_the_newer_memo(rig: &dyn Shared) {
    let proxy = Proxy::start(&rig.socket());
    let url = rig.url_through(proxy.dir(), 20_000);
    let store = Store::connect(&url, Options::new()).unwrap();
    let direct = rig.open();
    let mut reconnects = 0;
    for is_declared in [true, false] {
        for question in 0..2 {
            let key = [question, is_declared.into()];
            let begin = request(rig, &key);
            let begin = if is_declared {
                begin.declare(b"m")
            } else {
                begin
            };
            let permit = fresh(&store, begin);
            proxy.set(Mood::KeepQuestionAfter(question.into()));
            store.declare(&permit, b"old").wait().unwrap();
            // Whichever question was kept, the older declare was answered before it.
            store.declare(&permit, b"new").wait().unwrap();
            proxy.set(Mood::Honest);
            proxy.release();
            let claims = direct.unresolved(0, 9).wait().unwrap();
            assert_eq!((claims.len(), &claims[0].memo[..]), (1, &b"new"[..]));
            store.complete(permit, b"x", DAY, 0).wait().unwrap();
            reconnects += 1;
        }
    }
    assert!(store.stats().reconnects >= reconnects);
}

pub(crate) fn a_forget_whose_answer_was_lost_leaves_who_came_since(rig: &dyn Shared) {
    let proxy = Proxy::start(&rig.socket());
    let url = rig.url_through(proxy.dir(), 20_000);
    let store = Store::connect(&url, Options::new()).unwrap();
    let direct = rig.open();
    // Whatever the connection has to say once was said.
    let forget = |key: &[u8]| {
        drop(fresh(&direct, request(rig, key).declare(b"")));
        direct.flush().wait().unwrap();
        store.forget(key)
    };
    assert!(forget(b"first").wait().unwrap());
    // The first answer is what is there, the second one that it is gone.
    proxy.set(Mood::LoseAnswersAfter(1));
    let forgotten = forget(b"k");
    while direct.get(b"k", 0).wait().unwrap() != Lookup::Absent {
        std::thread::yield_now();
    }
    let permit = fresh(&direct, request(rig, b"k"));
    proxy.set(Mood::Honest);
    proxy.disconnect();
    let unknown = error(forgotten.wait());
    assert!(unknown.is_unavailable(), "{unknown}");
    direct.complete(permit, b"x", DAY, 0).wait().unwrap();
}

/// However many wait before it. There are never more than a server could catch up with.
pub(crate) fn what_a_hung_server_leaves_waiting_is_answered_in_its_own_time(rig: &dyn Shared) {
    const SHORT_MS: u32 = 4_000;
    // So long that the short ones are over even if each of them has to wait for another.
    const LONG_MS: u32 = 25_000;
    let proxy = Proxy::start(&rig.socket());
    let [store, patient] = [SHORT_MS, LONG_MS].map(|timeout_ms| {
        let url = rig.url_through(proxy.dir(), timeout_ms);
        Store::connect(&url, Options::new()).unwrap()
    });
    let held = fresh(&store, request(rig, b"held").declare(b""));
    proxy.set(Mood::Cut);
    let last_of_all = patient.get(b"k", 0);
    let waited = patient.wait(b"k", 100);
    let mut asked = Vec::new();
    let full = loop {
        match store.get(&asked.len().to_be_bytes(), 0).try_now() {
            Err(pending) => asked.push(pending),
            Ok(answered) => break error(answered),
        }
        assert!(asked.len() < 100_000, "the queue has no end");
    };
    assert!(full.is_busy(), "{full}");
    assert!(error(store.begin(&request(rig, b"k")).wait()).is_busy());
    assert!(error(store.forget(b"k").wait()).is_busy());
    assert!(error(store.unresolved(0, 9).wait()).is_busy());
    let flushed = store.flush();
    // What ends a claim is not refused.
    let completed = error(store.complete(held, b"x", DAY, 0).wait());
    assert!(completed.is_unavailable(), "{completed}");
    flushed.wait().unwrap();
    for asked in asked {
        assert!(error(asked.wait()).is_unavailable());
    }
    assert_eq!(waited.wait().unwrap(), Waited::TimedOut);
    let last_of_all = last_of_all.try_now().expect_err("its time is not up");
    proxy.set(Mood::Honest);
    proxy.disconnect();
    assert_eq!(last_of_all.wait().unwrap(), Lookup::Absent);
}

/// As one that a firewall has forgotten: what is said there vanishes, and new ones work.
pub(crate) fn a_connection_that_fell_silent_is_replaced_in_time(rig: &dyn Shared) {
    let proxy = Proxy::start(&rig.socket());
    let url = rig.url_through(proxy.dir(), 6_000);
    let store = Store::connect(&url, Options::new()).unwrap();
    for key in [&b"first"[..], b"second"] {
        let before = proxy.swallowed();
        proxy.set(Mood::Cut);
        let begun = store.begin(&request(rig, key));
        while proxy.swallowed() == before {
            std::thread::yield_now();
        }
        proxy.set(Mood::Honest);
        let permit = begun.wait().unwrap().into_fresh().expect("a new key");
        store.complete(permit, b"x", DAY, 0).wait().unwrap();
    }
}

pub(crate) fn who_waits_for_the_same_key_shares_its_questions(rig: &dyn Shared) {
    const WAITERS: u64 = 10_000;
    let store = rig.open();
    let permit = fresh(&store, request(rig, b"k"));
    let before = store.stats().records;
    let waits: Vec<_> = (0..WAITERS).map(|_| store.wait(b"k", 6 * LEASE)).collect();
    let late = store.wait(b"k", 0);
    assert_eq!(late.wait().unwrap(), Waited::TimedOut);
    assert_eq!(store.stats().waiters, WAITERS);
    store.complete(permit, b"x", DAY, 0).wait().unwrap();
    for wait in waits {
        assert_eq!(wait.wait().unwrap(), Waited::Ended);
    }
    assert_eq!(store.stats().waiters, 0);
    let asked = store.stats().records - before;
    assert!(asked < WAITERS / 2, "{asked}");
    // What was found out for others does not count for who comes later.
    let _permit = fresh(&store, request(rig, b"other"));
    let waited = store.wait(b"other", 0);
    assert_eq!(waited.wait().unwrap(), Waited::TimedOut);
}

pub(crate) fn a_wait_that_is_dropped_leaves_its_place(rig: &dyn Shared) {
    let store = rig.open_with(Options::new().waiters_max(2));
    let permit = fresh(&store, Begin::new(b"k", Fingerprint([1; 32]), DAY, 0));
    let waiting = store.wait(b"k", DAY);
    drop(store.wait(b"k", DAY));
    drop(store.wait(b"k", DAY));
    let next = loop {
        match store.wait(b"k", DAY).try_now() {
            Err(pending) => break pending,
            Ok(refused) => assert!(error(refused).is_busy()),
        }
    };
    store.complete(permit, b"x", DAY, 0).wait().unwrap();
    for wait in [waiting, next] {
        assert_eq!(wait.wait().unwrap(), Waited::Ended);
    }
}

pub(crate) fn a_cut_network_is_told_in_time_and_heals(rig: &dyn Shared) {
    let proxy = Proxy::start(&rig.socket());
    let url = rig.url_through(proxy.dir(), 2_000);
    cut_network(rig, &proxy, &Store::connect(&url, Options::new()).unwrap());
}

pub(crate) fn a_cut_network_is_told_in_time_and_heals_on_a_runtime(rig: &dyn Shared) {
    let runtime = Runtime::new().unwrap();
    let proxy = Proxy::start(&rig.socket());
    let url = rig.url_through(proxy.dir(), 2_000);
    let connected = runtime.block_on(Store::connect_async(&url, Options::new()));
    cut_network(rig, &proxy, &connected.unwrap());
}

/// Whoever calls learns that it is not known; what was held stays held; the same handle goes on.
fn cut_network(rig: &dyn Shared, proxy: &Proxy, store: &Store) {
    let direct = rig.open();
    for (mood, keys) in [
        (Mood::Cut, [b"held", b"lost"]),
        (Mood::LoseAnswersAfter(0), [b"HELD", b"LOST"]),
    ] {
        let [held, lost] = keys.map(|key| &key[..]);
        let permit = fresh(store, request(rig, held).declare(b"m"));
        proxy.set(mood);
        let completed = store.complete(permit, b"x", DAY, 0);
        let begun = store.begin(&request(rig, lost).declare(b"m"));
        assert!(error(completed.wait()).is_unavailable());
        assert!(error(begun.wait()).is_unavailable());
        // Another client was never cut off. It sees the holder or its outcome.
        match direct.begin(&request(rig, held)).wait().unwrap() {
            Begun::InFlight { .. } => {}
            Begun::Replay(stored) => assert_eq!(stored.outcome(), b"x"),
            other => panic!("{other:?}"),
        }
        proxy.set(Mood::Honest);
        // Nobody got a permit for what was lost: it may be claimed, or not, and at most once.
        let first = store.begin(&request(rig, lost)).wait().unwrap();
        assert!(
            matches!(first, Begun::Fresh(_) | Begun::InFlight { .. }),
            "{first:?}"
        );
        let second = direct.begin(&request(rig, lost)).wait().unwrap();
        assert!(matches!(second, Begun::InFlight { .. }), "{second:?}");
    }
    let permit = fresh(store, request(rig, b"after"));
    store.complete(permit, b"x", DAY, 0).wait().unwrap();
    assert_eq!(replayed(&direct, request(rig, b"after")).outcome(), b"x");
    assert!(store.stats().unavailable >= 4 && store.stats().reconnects > 0);
}

/// Claims and completes until it is killed, and tells of each answer; does nothing in a normal run.
#[test]
fn child() {
    let Ok(url) = std::env::var(CHILD) else {
        return;
    };
    let store = Store::connect(&url, Options::new()).unwrap();
    let tell = |line: String| {
        let mut out = std::io::stdout().lock();
        out.write_all(line.as_bytes()).unwrap();
        out.flush().unwrap();
    };
    let process = std::process::id();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (store, tell) = (&store, &tell);
            scope.spawn(move || {
                for n in 0u64.. {
                    let is_declared = n % 2 == 0;
                    let key = format!("{process}-{thread}-{n}");
                    let begin = Begin::new(key.as_bytes(), Fingerprint([1; 32]), CHILD_LEASE_MS, 0);
                    let begin = if is_declared {
                        begin.declare(b"m")
                    } else {
                        begin
                    };
                    let begun = store.begin(&begin).wait().unwrap();
                    let permit = begun.into_fresh().expect("a new key");
                    let token = permit.token();
                    tell(format!("\nclaim {key} {token} {is_declared} begun\n"));
                    if n % 5 == 0 {
                        std::mem::forget(permit);
                    } else {
                        let completed = store.complete(permit, key.as_bytes(), DAY, 0);
                        // It may have stood still for a lease.
                        if completed.wait().is_ok() {
                            tell(format!("\nclaim {key} {token} {is_declared} completed\n"));
                        }
                    }
                }
            });
        }
    });
}

pub(crate) fn a_killed_client_keeps_its_outcomes_and_blocks_its_keys_for_one_lease(
    rig: &dyn Shared,
) {
    const LINES: usize = 200;
    let store = rig.open();
    for _ in 0..2 {
        let claims = claims_of_a_killed_client(rig, LINES);
        // The last claim was made before the client died.
        rig.pass(CHILD_LEASE_MS);
        let mut in_doubt = 0;
        for (key, (token, is_declared, is_completed)) in &claims {
            let begun = store.begin(&request(rig, key.as_bytes())).wait().unwrap();
            match begun {
                Begun::Replay(stored) => {
                    assert_eq!((stored.outcome(), stored.token()), (key.as_bytes(), *token));
                }
                Begun::InDoubt(permit) if *is_declared && !is_completed => {
                    assert!(permit.token() > *token);
                    in_doubt += 1;
                }
                Begun::Fresh(permit) if !is_declared && !is_completed => {
                    assert!(permit.token() > *token);
                }
                other => panic!("{key}: {other:?}"),
            }
        }
        assert!(in_doubt > 0 && claims.values().any(|claim| claim.2));
    }
}

/// What a process had told when it was killed: key, token, whether declared, whether completed.
fn claims_of_a_killed_client(
    rig: &dyn Shared,
    lines_min: usize,
) -> BTreeMap<String, (u64, bool, bool)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "shared::child", "--nocapture"])
        .env(CHILD, rig.url())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let (mut text, mut lines) = (String::new(), 0);
    while lines < lines_min {
        let got = out.read_line(&mut text).unwrap();
        assert_ne!(got, 0, "the child ended: {text}");
        lines += 1;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    out.read_to_string(&mut text).unwrap();
    // A line that was cut short was not told.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut claims = BTreeMap::new();
    for line in whole.lines() {
        let words: Vec<_> = line.split(' ').collect();
        if let ["claim", key, token, declared, state] = words[..] {
            let claim = claims.entry(key.to_owned()).or_insert((0, false, false));
            claim.0 = token.parse().unwrap();
            claim.1 = declared == "true";
            claim.2 |= state == "completed";
        }
    }
    claims
}
