//! What a key goes through.

use idem_store::{Begin, Begun, Failure, Fingerprint, Lookup, Options};

use super::{DAY, LEASE, Rig, begin, error, fresh, in_doubt, replayed, request};

pub(crate) fn an_outcome_replays_until_its_retention_ends_also_after_a_crash(rig: &dyn Rig) {
    let store = rig.open();
    let permit = fresh(&store, request(rig, b"k").declare(b"memo"));
    let token = permit.token();
    let completed = store.complete(permit, b"done", DAY, rig.now());
    completed.wait().unwrap();
    let brief = fresh(&store, request(rig, b"brief"));
    let completed = store.complete(brief, b"soon gone", rig.short_ms(), rig.now());
    completed.wait().unwrap();
    assert_eq!(replayed(&store, request(rig, b"k")).outcome(), b"done");

    let store = rig.crash(store);
    let stored = replayed(&store, request(rig, b"k"));
    assert_eq!(stored.outcome(), b"done");
    assert_eq!((stored.is_failure(), stored.token()), (false, token));
    assert_eq!(stored.fingerprint(), Fingerprint([1; 32]));
    rig.pass(rig.short_ms());
    fresh(&store, request(rig, b"brief"));
    replayed(&store, request(rig, b"k"));
}

pub(crate) fn another_fingerprint_conflicts_and_changes_nothing(rig: &dyn Rig) {
    let store = rig.open();
    let other = || {
        begin(
            &store,
            Begin::new(b"k", Fingerprint([2; 32]), LEASE, rig.now()),
        )
    };
    let get = || store.get(b"k", rig.now()).wait().unwrap();
    let permit = fresh(&store, request(rig, b"k").declare(b"m"));
    let held = get();
    assert!(matches!(other(), Begun::Conflict));
    assert_eq!(get(), held);
    drop(permit);
    let doubt = get();
    assert!(matches!(other(), Begun::Conflict), "in doubt");
    assert_eq!(get(), doubt);
    let permit = in_doubt(&store, request(rig, b"k"));
    let completed = store.complete(permit, b"x", DAY, rig.now());
    completed.wait().unwrap();
    assert!(matches!(other(), Begun::Conflict), "stored");
    store.forget(b"k").wait().unwrap();
    let permit = fresh(&store, request(rig, b"k"));
    let completed = store.complete(permit, b"x", rig.short_ms(), rig.now());
    completed.wait().unwrap();
    rig.pass(rig.short_ms());
    assert!(matches!(other(), Begun::Fresh(_)), "retention over");
}

pub(crate) fn a_dropped_permit_frees_the_key_only_when_no_effect_was_declared(rig: &dyn Rig) {
    let store = rig.open();
    drop(fresh(&store, request(rig, b"plain")));
    drop(fresh(&store, request(rig, b"plain")));
    drop(fresh(&store, request(rig, b"declared").declare(b"m")));
    let declared = || in_doubt(&store, request(rig, b"declared"));
    assert_eq!(declared().memo(), b"m");
    assert_eq!(declared().memo(), b"m", "still");
}

pub(crate) fn a_begin_that_nobody_awaited_frees_the_key(rig: &dyn Rig) {
    let store = rig.open();
    drop(store.begin(&request(rig, b"k").declare(b"m")));
    // A shared store learns of it with the answer.
    store.flush().wait().unwrap();
    fresh(&store, request(rig, b"k").declare(b"m"));
}

pub(crate) fn failures_release_or_replay(rig: &dyn Rig) {
    let store = rig.open();
    let permit = fresh(&store, request(rig, b"k"));
    let failed = store.fail(permit, Failure::Retryable, rig.now());
    failed.wait().unwrap();

    let permit = fresh(&store, request(rig, b"k").declare(b""));
    let refused = store.fail(permit, Failure::Retryable, rig.now()).wait();
    assert!(error(refused).is_effect_declared());
    let permit = in_doubt(&store, request(rig, b"k"));
    let failed = store.fail(permit, Failure::NotHappened, rig.now());
    failed.wait().unwrap();

    let permit = fresh(&store, request(rig, b"k").declare(b""));
    let last = Failure::Final {
        outcome: b"no such card",
        retain_ms: DAY,
    };
    store.fail(permit, last, rig.now()).wait().unwrap();
    let stored = replayed(&store, request(rig, b"k"));
    assert!(stored.is_failure());
    assert_eq!(stored.into_outcome(), b"no such card");
}

pub(crate) fn forget_removes_what_is_known(rig: &dyn Rig) {
    let store = rig.open();
    assert!(!store.forget(b"k").wait().unwrap());
    let permit = fresh(&store, request(rig, b"k"));
    let completed = store.complete(permit, b"x", DAY, rig.now());
    // Not awaited: forget must meet the outcome while it is not durable yet.
    assert!(store.forget(b"k").wait().unwrap());
    completed.wait().unwrap();
    let store = rig.crash(store);
    let known = store.get(b"k", rig.now()).wait().unwrap();
    assert_eq!(known, Lookup::Absent);
    assert!(!store.forget(b"k").wait().unwrap());
}

pub(crate) fn get_tells_every_state(rig: &dyn Rig) {
    let store = rig.open();
    let get = || store.get(b"k", rig.now()).wait().unwrap();
    assert_eq!(get(), Lookup::Absent);
    let plain = fresh(&store, request(rig, b"k"));
    assert!(matches!(
        get(),
        Lookup::InFlight {
            declared: false,
            ..
        }
    ));
    store.declare(&plain, b"m").wait().unwrap();
    assert!(matches!(get(), Lookup::InFlight { declared: true, .. }));
    drop(plain);
    let Lookup::InDoubt(doubt) = get() else {
        panic!("the effect was declared and the permit dropped");
    };
    assert_eq!((&doubt.key[..], &doubt.memo[..]), (&b"k"[..], &b"m"[..]));
    assert_eq!(doubt.fingerprint, Fingerprint([1; 32]));
    assert!(!doubt.held);
    let permit = in_doubt(&store, request(rig, b"k"));
    let completed = store.complete(permit, b"out", DAY, rig.now());
    completed.wait().unwrap();
    assert!(matches!(get(), Lookup::Stored(stored) if stored.outcome() == b"out"));
    store.forget(b"k").wait().unwrap();
    let permit = fresh(&store, request(rig, b"k"));
    let completed = store.complete(permit, b"out", rig.short_ms(), rig.now());
    completed.wait().unwrap();
    rig.pass(rig.short_ms());
    assert_eq!(get(), Lookup::Absent);
}

pub(crate) fn a_doubt_is_handed_on_until_it_is_resolved(rig: &dyn Rig) {
    let store = rig.open();
    let first = fresh(&store, request(rig, b"k").declare(b"one"));
    store.declare(&first, b"two").wait().unwrap();
    drop(first);
    let doubt = in_doubt(&store, request(rig, b"k").declare(b"ignored"));
    assert_eq!(doubt.memo(), b"two");
    assert!(matches!(
        begin(&store, request(rig, b"k")),
        Begun::InFlight { .. }
    ));
    store.declare(&doubt, b"three").wait().unwrap();
    drop(doubt);
    let doubt = in_doubt(&store, request(rig, b"k"));
    assert_eq!(doubt.memo(), b"three");
    let completed = store.complete(doubt, b"found", DAY, rig.now());
    completed.wait().unwrap();
    assert_eq!(replayed(&store, request(rig, b"k")).outcome(), b"found");
}

pub(crate) fn lengths_are_limited(rig: &dyn Rig) {
    let store = rig.open_with(Options::new());
    let long = vec![b'x'; 513];
    assert!(error(store.begin(&request(rig, &long)).wait()).is_too_large());
    assert!(error(store.begin(&request(rig, b"")).wait()).is_too_large());
    let memo = request(rig, b"k").declare(&long[..257]);
    assert!(error(store.begin(&memo).wait()).is_too_large());
    let longest = fresh(&store, request(rig, &long[..512]).declare(&long[..256]));
    assert_eq!(longest.memo(), &long[..256]);
    let a = fresh(&store, request(rig, b"a"));
    let huge = vec![0; (1 << 20) + 1];
    let refused = store.complete(a, &huge, DAY, rig.now()).wait();
    assert!(error(refused).is_too_large());
    let a = fresh(&store, request(rig, b"a"));
    let completed = store.complete(a, &huge[1..], DAY, rig.now());
    completed.wait().unwrap();
    assert_eq!(
        replayed(&store, request(rig, b"a")).outcome().len(),
        1 << 20
    );
}

/// No two keys are one, whatever a database thinks of letters, blanks and quotes.
pub(crate) fn keys_memos_and_outcomes_are_bytes(rig: &dyn Rig) {
    let store = rig.open_with(Options::new().memo_bytes_max(512));
    let longest = [0xff; 512];
    let keys: [&[u8]; 14] = [
        b"a",
        b"A",
        b"a ",
        b"a\0",
        b"\0",
        b"\xc3\xa4",
        b"\xe4",
        b"'; --",
        b"\\",
        b"{x}",
        b"%_",
        b"?",
        b"$1\r\n",
        &longest,
    ];
    let begin = |key| store.begin(&request(rig, key).declare(key)).wait().unwrap();
    let begun = keys.map(|key| begin(key).into_fresh().expect("no other key is like it"));
    let listed = store.unresolved(0, 99).wait().unwrap();
    let mut listed: Vec<_> = listed.iter().map(|claim| &claim.key[..]).collect();
    listed.sort_unstable();
    let mut sorted = keys;
    sorted.sort_unstable();
    assert_eq!(listed, sorted);
    // Together, and so perhaps in another way than one alone.
    let complete = |(permit, key)| store.complete(permit, key, DAY, rig.now());
    let completed: Vec<_> = begun.into_iter().zip(keys).map(complete).collect();
    for completed in completed {
        completed.wait().unwrap();
    }
    for key in keys {
        assert_eq!(replayed(&store, request(rig, key)).outcome(), key);
        assert!(store.forget(key).wait().unwrap());
    }
    let again = keys.map(|key| store.begin(&request(rig, key).declare(key)));
    for (key, again) in keys.iter().zip(again) {
        let permit = again.wait().unwrap().into_fresh().expect("forgotten");
        assert_eq!(permit.memo(), *key);
    }
}

pub(crate) fn what_was_called_is_done_when_flush_is_ready(rig: &dyn Rig) {
    let store = rig.open();
    let permit = fresh(&store, request(rig, b"k"));
    let completed = store.complete(permit, b"x", DAY, rig.now());
    store.flush().wait().unwrap();
    assert!(completed.try_now().is_ok_and(|result| result.is_ok()));
}

pub(crate) fn a_closed_store_says_so(rig: &dyn Rig) {
    let store = rig.open();
    let permit = fresh(&store, request(rig, b"k"));
    store.clone().close().unwrap();
    assert!(error(store.begin(&request(rig, b"x")).wait()).is_closed());
    assert!(error(store.get(b"x", rig.now()).wait()).is_closed());
    assert!(error(store.complete(permit, b"x", DAY, rig.now()).wait()).is_closed());
}
