//! The life of a key on a real directory.

use idem_store::{
    Begin, Begun, Error, Failure, Fingerprint, Lookup, Options, Permit, Store, Stored, Waited,
};

const NOW: u64 = 1_700_000_000_000;
const LEASE: u64 = 1_000;
const DAY: u64 = 86_400_000;

fn open(dir: &tempfile::TempDir) -> Store {
    let options = Options::new()
        .segment_bytes_max(1 << 20)
        .outcome_bytes_max(64 << 10)
        .batch_bytes_max(256 << 10);
    Store::open(dir.path(), options).expect("opens")
}

fn request(key: &[u8]) -> Begin<'_> {
    Begin::new(key, Fingerprint([1; 32]), LEASE, NOW)
}

fn begin(store: &Store, begin: Begin<'_>) -> Begun {
    store.begin(&begin).wait().expect("begins")
}

fn fresh(store: &Store, request: Begin<'_>) -> Permit {
    match begin(store, request) {
        Begun::Fresh(permit) => permit,
        other => panic!("not fresh: {other:?}"),
    }
}

fn in_doubt(store: &Store, request: Begin<'_>) -> Permit {
    match begin(store, request) {
        Begun::InDoubt(permit) => permit,
        other => panic!("not in doubt: {other:?}"),
    }
}

fn replayed(store: &Store, request: Begin<'_>) -> Stored {
    match begin(store, request) {
        Begun::Replay(stored) => stored,
        other => panic!("not replayed: {other:?}"),
    }
}

fn later(mut begin: Begin<'_>, ms: u64) -> Begin<'_> {
    begin.now_ms += ms;
    begin
}

fn error<T: std::fmt::Debug>(result: Result<T, Error>) -> Error {
    result.expect_err("refused")
}

#[test]
fn an_outcome_replays_until_its_retention_ends_also_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let permit = fresh(&store, request(b"k").declare(b"memo"));
    store.complete(permit, b"done", DAY, NOW).wait().unwrap();
    assert_eq!(replayed(&store, request(b"k")).outcome(), b"done");
    store.close().unwrap();

    let store = open(&dir);
    let stored = replayed(&store, later(request(b"k"), DAY - 1));
    assert_eq!(
        (stored.outcome(), stored.is_failure()),
        (&b"done"[..], false)
    );
    fresh(&store, later(request(b"k"), DAY));
}

#[test]
fn another_fingerprint_conflicts_in_every_state() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let other = |now| {
        let begin = Begin::new(b"k", Fingerprint([2; 32]), LEASE, NOW + now);
        store.begin(&begin).wait().unwrap()
    };
    let permit = fresh(&store, request(b"k").declare(b""));
    assert!(matches!(other(0), Begun::Conflict));
    drop(permit);
    assert!(matches!(other(0), Begun::Conflict), "in doubt");
    let permit = in_doubt(&store, request(b"k"));
    store.complete(permit, b"x", DAY, NOW).wait().unwrap();
    assert!(matches!(other(0), Begun::Conflict), "stored");
    assert!(matches!(other(DAY), Begun::Fresh(_)), "retention over");
}

#[test]
fn a_lapsed_lease_passes_on_and_fences_the_old_holder() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let first = fresh(&store, request(b"k"));
    let begun = begin(&store, later(request(b"k"), LEASE - 1));
    assert!(matches!(begun, Begun::InFlight { until_ms } if until_ms == NOW + LEASE));
    let second = fresh(&store, later(request(b"k"), LEASE));
    assert!(second.token() > first.token());
    assert!(error(store.extend(&first, LEASE, NOW).wait()).is_fenced());
    assert!(error(store.declare(&first, b"").wait()).is_fenced());
    assert!(error(store.complete(first, b"late", DAY, NOW).wait()).is_fenced());
    store.complete(second, b"won", DAY, NOW).wait().unwrap();
    assert_eq!(replayed(&store, request(b"k")).outcome(), b"won");
}

#[test]
fn a_lapsed_declared_lease_leaves_the_key_in_doubt() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let first = fresh(&store, request(b"k"));
    store.declare(&first, b"sent 7").wait().unwrap();
    let doubt = in_doubt(&store, later(request(b"k"), LEASE));
    assert_eq!(doubt.memo(), b"sent 7");
    assert!(doubt.token() > first.token());
    assert!(error(store.complete(first, b"late", DAY, NOW).wait()).is_fenced());
    store.complete(doubt, b"found", DAY, NOW).wait().unwrap();
    assert_eq!(replayed(&store, request(b"k")).outcome(), b"found");
}

#[test]
fn an_extended_lease_is_not_passed_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let permit = fresh(&store, request(b"k"));
    store.extend(&permit, LEASE, NOW + 900).wait().unwrap();
    let begun = begin(&store, later(request(b"k"), 1_500));
    assert!(matches!(begun, Begun::InFlight { until_ms } if until_ms == NOW + 1_900));
}

#[test]
fn a_dropped_permit_frees_the_key_only_when_no_effect_was_declared() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    drop(fresh(&store, request(b"plain")));
    drop(fresh(&store, request(b"plain")));
    drop(fresh(&store, request(b"declared").declare(b"m")));
    assert_eq!(in_doubt(&store, request(b"declared")).memo(), b"m");
    assert_eq!(in_doubt(&store, request(b"declared")).memo(), b"m", "still");
}

#[test]
fn a_begin_that_nobody_awaited_frees_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    drop(store.begin(&request(b"k").declare(b"m")));
    fresh(&store, request(b"k").declare(b"m"));
}

#[test]
fn failures_release_or_replay() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let permit = fresh(&store, request(b"k"));
    store.fail(permit, Failure::Retryable, NOW).wait().unwrap();

    let permit = fresh(&store, request(b"k").declare(b""));
    let refused = store.fail(permit, Failure::Retryable, NOW).wait();
    assert!(error(refused).is_effect_declared());
    let permit = in_doubt(&store, request(b"k"));
    store
        .fail(permit, Failure::NotHappened, NOW)
        .wait()
        .unwrap();

    let permit = fresh(&store, request(b"k").declare(b""));
    let last = Failure::Final {
        outcome: b"no such card",
        retain_ms: DAY,
    };
    store.fail(permit, last, NOW).wait().unwrap();
    let stored = replayed(&store, request(b"k"));
    assert!(stored.is_failure());
    assert_eq!(stored.into_outcome(), b"no such card");
}

#[test]
fn reopening_releases_claims_and_keeps_doubts_with_growing_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let plain = fresh(&store, request(b"plain"));
    let declared = fresh(&store, request(b"declared").declare(b"memo"));
    let highest = plain.token().max(declared.token());
    store.clone().close().unwrap();
    assert!(error(store.begin(&request(b"x")).wait()).is_closed());

    let store = open(&dir);
    let unresolved = store.unresolved();
    assert_eq!(unresolved.len(), 1);
    assert_eq!(unresolved[0].key, b"declared");
    assert_eq!(unresolved[0].memo, b"memo");
    assert!(!unresolved[0].held);
    assert!(fresh(&store, request(b"plain")).token() > highest);
    let doubt = in_doubt(&store, request(b"declared"));
    assert!(doubt.token() > highest);
    assert!(error(store.complete(declared, b"late", DAY, NOW).wait()).is_fenced());
    store.complete(doubt, b"ok", DAY, NOW).wait().unwrap();
    assert!(store.unresolved().is_empty());
}

#[test]
fn forget_removes_what_is_known_and_fences() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    assert!(!store.forget(b"k").wait().unwrap());
    let permit = fresh(&store, request(b"k").declare(b""));
    assert!(store.forget(b"k").wait().unwrap());
    assert!(error(store.complete(permit, b"", DAY, NOW).wait()).is_fenced());
    let permit = fresh(&store, request(b"k"));
    let completed = store.complete(permit, b"x", DAY, NOW);
    // Not awaited: forget must meet the outcome while it is not durable yet.
    assert!(store.forget(b"k").wait().unwrap());
    completed.wait().unwrap();
    store.close().unwrap();
    let store = open(&dir);
    assert_eq!(store.get(b"k", NOW).wait().unwrap(), Lookup::Absent);
}

#[test]
fn get_tells_every_state() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let get = || store.get(b"k", NOW).wait().unwrap();
    assert_eq!(get(), Lookup::Absent);
    let permit = fresh(&store, request(b"k").declare(b"m"));
    let until_ms = NOW + LEASE;
    let declared = true;
    assert_eq!(get(), Lookup::InFlight { until_ms, declared });
    drop(permit);
    assert!(matches!(get(), Lookup::InDoubt(doubt) if doubt.memo == b"m"));
    let permit = in_doubt(&store, request(b"k"));
    store.complete(permit, b"out", DAY, NOW).wait().unwrap();
    assert!(matches!(get(), Lookup::Stored(stored) if stored.outcome() == b"out"));
    let gone = store.get(b"k", NOW + DAY).wait().unwrap();
    assert_eq!(gone, Lookup::Absent);
}

#[test]
fn wait_wakes_when_the_holder_ends_and_times_out_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    assert_eq!(store.wait(b"k", 60_000).wait().unwrap(), Waited::Ended);
    let permit = fresh(&store, request(b"k"));
    assert_eq!(store.wait(b"k", 1).wait().unwrap(), Waited::TimedOut);
    let waiting: Vec<_> = (0..8).map(|_| store.wait(b"k", 60_000)).collect();
    assert_eq!(store.stats().waiters, 8);
    store.complete(permit, b"x", DAY, NOW).wait().unwrap();
    for waited in waiting {
        assert_eq!(waited.wait().unwrap(), Waited::Ended);
    }
    assert_eq!(store.stats().waiters, 0);
    let permit = fresh(&store, request(b"other").declare(b""));
    let waited = store.wait(b"other", 60_000);
    drop(permit);
    assert_eq!(waited.wait().unwrap(), Waited::Ended);
}

#[test]
fn limits_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().keys_max(2).waiters_max(1);
    let store = Store::open(dir.path(), options).unwrap();
    let long = vec![b'x'; 513];
    assert!(error(store.begin(&request(&long)).wait()).is_too_large());
    assert!(error(store.begin(&request(b"")).wait()).is_too_large());
    let memo = request(b"k").declare(&long[..257]);
    assert!(error(store.begin(&memo).wait()).is_too_large());
    let a = fresh(&store, request(b"a"));
    let huge = vec![0; (1 << 20) + 1];
    assert!(error(store.complete(a, &huge, DAY, NOW).wait()).is_too_large());
    let a = fresh(&store, request(b"a"));
    let _b = fresh(&store, request(b"b"));
    assert!(error(store.begin(&request(b"c")).wait()).is_full());
    let _first = store.wait(b"a", 60_000);
    assert!(error(store.wait(b"a", 60_000).wait()).is_busy());
    store.complete(a, &huge[1..], DAY, NOW).wait().unwrap();
    assert_eq!(replayed(&store, request(b"a")).outcome().len(), 1 << 20);
    assert!(error(Store::open(dir.path(), Options::new())).is_locked());
}
