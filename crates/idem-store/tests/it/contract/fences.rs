//! Who may still end a key: leases, tokens, crashes.

use idem_store::{Begin, Begun, Failure, Fingerprint, Permit, Store};

use super::{DAY, LEASE, Rig, begin, error, fresh, in_doubt, lapse, replayed, request, short};

/// Nothing that a fenced holder tries is taken.
fn assert_fenced(rig: &dyn Rig, store: &Store, permit: Permit) {
    assert!(error(store.extend(&permit, LEASE, rig.now()).wait()).is_fenced());
    assert!(error(store.declare(&permit, b"late").wait()).is_fenced());
    let late = store.complete(permit, b"late", DAY, rig.now()).wait();
    assert!(error(late).is_fenced());
}

pub(crate) fn a_lapsed_lease_passes_on_and_fences_the_old_holder(rig: &dyn Rig) {
    let store = rig.open();
    let first = fresh(&store, request(rig, b"k"));
    let Begun::InFlight { until_ms } = begin(&store, request(rig, b"k")) else {
        panic!("the lease has not ended");
    };
    if !rig.is_shared() {
        assert_eq!(until_ms, rig.now() + LEASE);
    }
    drop(first);
    let first = fresh(&store, short(rig, b"k"));
    let fails = [b"one", b"two"].map(|key| fresh(&store, short(rig, key)));
    let goes = fresh(&store, short(rig, b"goes"));
    lapse(rig);
    let second = fresh(&store, request(rig, b"k"));
    assert!(second.token() > first.token());
    assert_fenced(rig, &store, first);
    let _held = [b"one", b"two"].map(|key| fresh(&store, request(rig, key)));
    let failures = [Failure::NotHappened, Failure::Retryable];
    for (permit, failure) in fails.into_iter().zip(failures) {
        assert!(error(store.fail(permit, failure, rig.now()).wait()).is_fenced());
    }
    let _goes_on = fresh(&store, request(rig, b"goes"));
    drop(goes);
    store.flush().wait().unwrap();
    for key in [&b"one"[..], b"two", b"goes"] {
        let begun = begin(&store, request(rig, key));
        assert!(matches!(begun, Begun::InFlight { .. }), "{begun:?}");
    }
    let completed = store.complete(second, b"won", DAY, rig.now());
    completed.wait().unwrap();
    assert_eq!(replayed(&store, request(rig, b"k")).outcome(), b"won");
}

pub(crate) fn a_lapsed_declared_lease_leaves_the_key_in_doubt(rig: &dyn Rig) {
    let store = rig.open();
    let first = fresh(&store, short(rig, b"k"));
    store.declare(&first, b"sent 7").wait().unwrap();
    lapse(rig);
    let doubt = in_doubt(&store, request(rig, b"k"));
    assert_eq!(doubt.memo(), b"sent 7");
    assert!(doubt.token() > first.token());
    assert_fenced(rig, &store, first);
    let completed = store.complete(doubt, b"found", DAY, rig.now());
    completed.wait().unwrap();
    assert_eq!(replayed(&store, request(rig, b"k")).outcome(), b"found");
}

pub(crate) fn a_lapsed_claim_without_an_effect_conflicts_with_nobody(rig: &dyn Rig) {
    let store = rig.open();
    let first = fresh(&store, short(rig, b"k"));
    lapse(rig);
    let other = Begin::new(b"k", Fingerprint([2; 32]), LEASE, rig.now());
    let _second = fresh(&store, other);
    assert_fenced(rig, &store, first);
}

pub(crate) fn a_lapsed_claim_does_not_come_back_when_its_successor_goes(rig: &dyn Rig) {
    let store = rig.open();
    let first = fresh(&store, short(rig, b"k"));
    lapse(rig);
    let second = fresh(&store, request(rig, b"k").declare(b"m"));
    let failed = store.fail(second, Failure::NotHappened, rig.now());
    failed.wait().unwrap();
    assert_fenced(rig, &store, first);
    fresh(&store, request(rig, b"k"));
}

pub(crate) fn a_late_outcome_counts_while_nobody_else_came(rig: &dyn Rig) {
    let store = rig.open();
    let plain = fresh(&store, short(rig, b"plain"));
    let declared = fresh(&store, short(rig, b"declared").declare(b"m"));
    lapse(rig);
    for (permit, key) in [(plain, &b"plain"[..]), (declared, b"declared")] {
        let completed = store.complete(permit, b"late", DAY, rig.now());
        completed.wait().unwrap();
        assert_eq!(replayed(&store, request(rig, key)).outcome(), b"late");
    }
}

pub(crate) fn an_extended_lease_is_not_passed_on(rig: &dyn Rig) {
    let store = rig.open();
    let plain = fresh(&store, short(rig, b"plain"));
    let declared = fresh(&store, short(rig, b"declared").declare(b"m"));
    for permit in [&plain, &declared] {
        store.extend(permit, LEASE, rig.now()).wait().unwrap();
    }
    lapse(rig);
    for key in [&b"plain"[..], b"declared"] {
        let begun = begin(&store, request(rig, key));
        assert!(matches!(begun, Begun::InFlight { .. }), "{begun:?}");
    }
    let completed = store.complete(declared, b"x", DAY, rig.now());
    completed.wait().unwrap();
    let completed = store.complete(plain, b"x", DAY, rig.now());
    completed.wait().unwrap();
}

pub(crate) fn a_crash_keeps_doubts_and_fences_with_growing_tokens(rig: &dyn Rig) {
    let store = rig.open();
    let plain = fresh(&store, short(rig, b"plain"));
    let declared = fresh(&store, short(rig, b"declared").declare(b"memo"));
    let highest = plain.token().max(declared.token());
    let store = rig.crash(store);
    lapse(rig);

    let unresolved = store.unresolved(0, 100).wait().unwrap();
    assert_eq!(unresolved.len(), 1);
    assert_eq!(unresolved[0].key, b"declared");
    assert_eq!(unresolved[0].memo, b"memo");
    assert_eq!(unresolved[0].token, declared.token());
    assert!(!unresolved[0].held);
    let again = fresh(&store, request(rig, b"plain"));
    assert!(again.token() > highest);
    let doubt = in_doubt(&store, request(rig, b"declared"));
    assert!(doubt.token() > again.token());
    assert_fenced(rig, &store, declared);
    assert_fenced(rig, &store, plain);
    let completed = store.complete(doubt, b"ok", DAY, rig.now());
    completed.wait().unwrap();
    assert!(store.unresolved(0, 100).wait().unwrap().is_empty());
}

pub(crate) fn tokens_grow_across_forget_and_retention(rig: &dyn Rig) {
    let mut store = rig.open();
    let mut last = 0;
    for round in 0..3 {
        let permit = fresh(&store, request(rig, b"k"));
        assert!(permit.token() > last, "round {round}");
        last = permit.token();
        if round == 0 {
            assert!(store.forget(b"k").wait().unwrap());
        } else {
            let completed = store.complete(permit, b"x", rig.short_ms(), rig.now());
            completed.wait().unwrap();
            lapse(rig);
        }
        store = rig.crash(store);
    }
}

pub(crate) fn a_forgotten_holder_is_fenced(rig: &dyn Rig) {
    let store = rig.open();
    let plain = fresh(&store, request(rig, b"plain"));
    let declared = fresh(&store, request(rig, b"declared").declare(b""));
    assert!(store.forget(b"plain").wait().unwrap());
    assert!(store.forget(b"declared").wait().unwrap());
    assert!(store.unresolved(0, 100).wait().unwrap().is_empty());
    assert_fenced(rig, &store, declared);
    // Also when somebody else has the key since, with the same request.
    let again = fresh(&store, request(rig, b"plain"));
    assert_fenced(rig, &store, plain);
    let completed = store.complete(again, b"x", DAY, rig.now());
    completed.wait().unwrap();
}

pub(crate) fn the_lease_and_the_retention_are_two_clocks(rig: &dyn Rig) {
    let store = rig.open();
    // A long retention does not make a crashed holder block its key for long.
    let done = fresh(&store, short(rig, b"done"));
    let completed = store.complete(done, b"x", DAY, rig.now());
    completed.wait().unwrap();
    let crashed = fresh(&store, short(rig, b"crashed"));
    lapse(rig);
    assert_eq!(replayed(&store, request(rig, b"done")).outcome(), b"x");
    // A long lease does not make an outcome replay for long.
    let long = fresh(&store, request(rig, b"crashed"));
    let completed = store.complete(long, b"x", rig.short_ms(), rig.now());
    completed.wait().unwrap();
    lapse(rig);
    fresh(&store, request(rig, b"crashed"));
    assert_fenced(rig, &store, crashed);
}

pub(crate) fn a_permit_of_another_store_is_fenced(rig: &dyn Rig) {
    let dir = tempfile::tempdir().unwrap();
    let other = Store::open(dir.path(), idem_store::Options::new()).unwrap();
    let store = rig.open();
    let _here = fresh(&store, request(rig, b"k"));
    let there = fresh(&other, request(rig, b"k"));
    assert_fenced(rig, &store, there);
    let here = fresh(&store, request(rig, b"h"));
    assert_fenced(rig, &other, here);
}
