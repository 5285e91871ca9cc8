//! The contract of every backend, as functions over a [`Rig`]: the same tests run on the embedded
//! store and on each server.

mod embedded;
pub(crate) mod fences;
pub(crate) mod many;
pub(crate) mod states;

use idem_store::{Begin, Begun, Error, Fingerprint, Options, Permit, Store, Stored};

pub(crate) const NOW: u64 = 1_700_000_000_000;
/// A lease that does not end within a test, unless its rig lets time pass by hand.
pub(crate) const LEASE: u64 = 60_000;
pub(crate) const DAY: u64 = 86_400_000;

/// A backend under test, empty at first.
pub(crate) trait Rig: Sync {
    /// Opens the store with small limits, or one more handle of it where it is shared.
    fn open(&self) -> Store {
        self.open_with(small())
    }

    fn open_with(&self, options: Options) -> Store;

    /// The machine that keeps the store dies at once and comes back; `store` may be used on, or
    /// another handle takes its place.
    fn crash(&self, store: Store) -> Store;

    /// Lets `ms` pass on the clock that counts.
    fn pass(&self, ms: u64);

    /// What callers say the time is.
    fn now(&self) -> u64;

    /// How long a lease is that the test lets end.
    fn short_ms(&self) -> u64;

    /// Many handles on one store, and the server's clock.
    fn is_shared(&self) -> bool;
}

/// Lets `ms` pass where the clock that counts is a server's, which is this machine's.
#[cfg(any(feature = "mysql", feature = "postgres", feature = "redis"))]
pub(crate) fn pass_on_server(ms: u64) {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let until = now() + Duration::from_millis(ms + 1);
    while let Some(rest) = until.checked_sub(now()) {
        std::thread::sleep(rest);
    }
}

fn small() -> Options {
    Options::new()
        .segment_bytes_max(1 << 20)
        .outcome_bytes_max(64 << 10)
        .batch_bytes_max(256 << 10)
}

/// Runs every function of the suite as a test of its own, each on a new `$rig`, those that crash it
/// on a new `$own`: a rig that no other test uses.
macro_rules! suite {
    ($rig:expr) => {
        $crate::contract::suite!($rig, $rig);
    };
    ($rig:expr, $own:expr) => {
        $crate::contract::suite!(@ $own, states: [
            an_outcome_replays_until_its_retention_ends_also_after_a_crash,
            forget_removes_what_is_known,
        ]);
        $crate::contract::suite!(@ $own, fences: [
            a_crash_keeps_doubts_and_fences_with_growing_tokens,
            tokens_grow_across_forget_and_retention,
        ]);
        $crate::contract::suite!(@ $rig, states: [
            another_fingerprint_conflicts_and_changes_nothing,
            a_dropped_permit_frees_the_key_only_when_no_effect_was_declared,
            a_begin_that_nobody_awaited_frees_the_key,
            failures_release_or_replay,
            get_tells_every_state,
            a_doubt_is_handed_on_until_it_is_resolved,
            lengths_are_limited,
            keys_memos_and_outcomes_are_bytes,
            what_was_called_is_done_when_flush_is_ready,
            a_closed_store_says_so,
        ]);
        $crate::contract::suite!(@ $rig, fences: [
            a_lapsed_lease_passes_on_and_fences_the_old_holder,
            a_lapsed_declared_lease_leaves_the_key_in_doubt,
            a_lapsed_claim_without_an_effect_conflicts_with_nobody,
            a_late_outcome_counts_while_nobody_else_came,
            a_lapsed_claim_does_not_come_back_when_its_successor_goes,
            an_extended_lease_is_not_passed_on,
            a_forgotten_holder_is_fenced,
            the_lease_and_the_retention_are_two_clocks,
            a_permit_of_another_store_is_fenced,
        ]);
        $crate::contract::suite!(@ $rig, many: [
            of_64_callers_with_one_key_exactly_one_is_fresh,
            waiters_wake_when_the_holder_ends,
            a_wait_times_out_and_waiters_are_limited,
            unresolved_keys_come_in_pages,
            thousands_in_flight_from_one_thread,
        ]);
    };
    (@ $rig:expr, $module:ident: [$($name:ident,)*]) => {
        $(
            #[test]
            fn $name() {
                $crate::contract::$module::$name(&$rig);
            }
        )*
    };
}
pub(crate) use suite;

pub(crate) fn request<'a>(rig: &dyn Rig, key: &'a [u8]) -> Begin<'a> {
    Begin::new(key, Fingerprint([1; 32]), LEASE, rig.now())
}

/// With a lease that [`lapse`] ends.
pub(crate) fn short<'a>(rig: &dyn Rig, key: &'a [u8]) -> Begin<'a> {
    Begin::new(key, Fingerprint([1; 32]), rig.short_ms(), rig.now())
}

pub(crate) fn lapse(rig: &dyn Rig) {
    rig.pass(rig.short_ms());
}

pub(crate) fn begin(store: &Store, begin: Begin<'_>) -> Begun {
    store.begin(&begin).wait().expect("begins")
}

pub(crate) fn fresh(store: &Store, request: Begin<'_>) -> Permit {
    match begin(store, request) {
        Begun::Fresh(permit) => permit,
        other => panic!("not fresh: {other:?}"),
    }
}

pub(crate) fn in_doubt(store: &Store, request: Begin<'_>) -> Permit {
    match begin(store, request) {
        Begun::InDoubt(permit) => permit,
        other => panic!("not in doubt: {other:?}"),
    }
}

pub(crate) fn replayed(store: &Store, request: Begin<'_>) -> Stored {
    match begin(store, request) {
        Begun::Replay(stored) => stored,
        other => panic!("not replayed: {other:?}"),
    }
}

pub(crate) fn error<T: std::fmt::Debug>(result: Result<T, Error>) -> Error {
    result.expect_err("refused")
}
