//! Stores on a server that are served by their callers' runtime.

use idem_store::{Begun, Failure, Lookup, Options, Store, Waited};
use tokio::runtime::{Builder, Runtime};

use crate::contract::{DAY, LEASE, error, pass_on_server, request};
use crate::shared::Shared;

/// Runs every function here as a test of its own, each on a new `$rig`.
macro_rules! suite {
    ($rig:expr) => {
        $crate::on_runtime::suite!(@ $rig, [
            tasks_and_their_store_share_one_thread,
            a_store_ends_with_its_runtime,
            the_last_handle_ends_the_service,
            an_outcome_is_sent_although_its_time_was_up_before,
            long_outcomes_are_sent_in_parts,
        ]);

        /// Two handles, as of two processes: one with a thread, one on a runtime.
        #[test]
        fn histories_are_linearizable() {
            let rig = $rig;
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let on_runtime = runtime.block_on($crate::on_runtime::connect(&rig));
            let histories = $crate::linearizability::histories(12);
            $crate::linearizability::check_server(&[$crate::contract::Rig::open(&rig), on_runtime], histories);
        }
    };
    (@ $rig:expr, [$($name:ident,)*]) => {
        $(
            #[test]
            fn $name() {
                $crate::on_runtime::$name(&$rig);
            }
        )*
    };
}
pub(crate) use suite;

/// One thread, so that what waits for itself hangs.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

pub(crate) async fn connect(rig: &dyn Shared) -> Store {
    let connected = Store::connect_async(&rig.url(), Options::new()).await;
    connected.expect("connects")
}

pub(crate) fn tasks_and_their_store_share_one_thread(rig: &dyn Shared) {
    runtime().block_on(async {
        let store = connect(rig).await;
        let keys: Vec<_> = (0..300_u32).map(|n| n.to_be_bytes()).collect();
        let begun: Vec<_> = keys
            .iter()
            .map(|key| store.begin(&request(rig, key)))
            .collect();
        let mut permits = Vec::new();
        for begun in begun {
            permits.push(begun.await.unwrap().into_fresh().expect("a new key"));
        }
        let waiting = store.wait(&keys[0], LEASE);
        let ended: Vec<_> = permits
            .into_iter()
            .map(|permit| store.complete(permit, b"done", DAY, 0))
            .collect();
        for ended in ended {
            ended.await.unwrap();
        }
        assert_eq!(waiting.await.unwrap(), Waited::Ended);
        for key in &keys {
            let begun = store.begin(&request(rig, key)).await.unwrap();
            assert!(matches!(begun, Begun::Replay(_)), "{begun:?}");
        }
        // Given up without an answer being waited for.
        drop(store.begin(&request(rig, b"dropped")));
        store.flush().await.unwrap();
        store.flush().await.unwrap();
        assert_eq!(store.get(b"dropped", 0).await.unwrap(), Lookup::Absent);
        let other = store.clone();
        store.close().unwrap();
        assert!(error(other.flush().await).is_closed());
    });
}

pub(crate) fn a_store_ends_with_its_runtime(rig: &dyn Shared) {
    let runtime = runtime();
    let store = runtime.block_on(connect(rig));
    // Nothing serves them: the runtime's only thread is this one.
    let asked = store.begin(&request(rig, b"key"));
    let waiting = store.wait(b"key", LEASE);
    drop(runtime);
    assert!(error(asked.wait()).is_closed());
    assert!(error(waiting.wait()).is_closed());
    assert!(error(store.begin(&request(rig, b"key")).wait()).is_closed());
    assert!(error(store.wait(b"key", LEASE).wait()).is_closed());
    store.close().unwrap();
}

pub(crate) fn the_last_handle_ends_the_service(rig: &dyn Shared) {
    let runtime = runtime();
    let store = runtime.block_on(connect(rig));
    let permit = runtime
        .block_on(store.begin(&request(rig, b"key")))
        .unwrap();
    let permit = permit.into_fresh().expect("a new key");
    // A permit is a handle too: it is given back before the end.
    drop((store, permit));
    runtime.block_on(async {
        while tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
            > 0
        {
            tokio::task::yield_now().await;
        }
        let store = connect(rig).await;
        assert_eq!(store.get(b"key", 0).await.unwrap(), Lookup::Absent);
    });
}

/// Nothing is sent while nobody polls: as when a server is slower than what is asked of it.
pub(crate) fn an_outcome_is_sent_although_its_time_was_up_before(rig: &dyn Shared) {
    const TIMEOUT_MS: u32 = 2_000;
    let url = rig.url_through(rig.socket().parent().expect("in a directory"), TIMEOUT_MS);
    let (runtime, direct) = (runtime(), rig.open());
    let connected = runtime.block_on(Store::connect_async(&url, Options::new()));
    let store = connected.unwrap();
    let take = async |key: &[u8]| {
        let begun = store.begin(&request(rig, key).declare(b"")).await;
        begun.unwrap().into_fresh().expect("a new key")
    };
    let [done, together, failed] = runtime.block_on(async {
        [
            take(b"done").await,
            take(b"together").await,
            take(b"failed").await,
        ]
    });
    // One alone, and several together.
    for ends in [vec![(done, true)], vec![(together, true), (failed, false)]] {
        let late = store.begin(&request(rig, b"late"));
        let ended = ends.into_iter().map(|(permit, is_done)| match is_done {
            true => store.complete(permit, b"x", DAY, 0),
            false => store.fail(permit, Failure::NotHappened, 0),
        });
        let ended: Vec<_> = ended.collect();
        pass_on_server(TIMEOUT_MS.into());
        runtime.block_on(async {
            assert!(error(late.await).is_unavailable());
            for ended in ended {
                assert!(error(ended.await).is_unavailable());
            }
            store.flush().await.unwrap();
        });
    }
    for (key, is_stored) in [
        (&b"done"[..], true),
        (b"together", true),
        (b"failed", false),
    ] {
        let found = direct.get(key, 0).wait().unwrap();
        assert_eq!(matches!(found, Lookup::Stored(_)), is_stored, "{found:?}");
        assert_eq!(found == Lookup::Absent, !is_stored, "{found:?}");
    }
    assert_eq!(direct.get(b"late", 0).wait().unwrap(), Lookup::Absent);
}

pub(crate) fn long_outcomes_are_sent_in_parts(rig: &dyn Shared) {
    const OUTCOMES: u8 = 40;
    let url = rig.url_through(rig.socket().parent().expect("in a directory"), 30_000);
    let runtime = runtime();
    let connected = runtime.block_on(Store::connect_async(&url, Options::new()));
    let store = connected.unwrap();
    let mut permits = Vec::new();
    for key in 0..OUTCOMES {
        let begun = runtime.block_on(store.begin(&request(rig, &[key])));
        permits.push(begun.unwrap().into_fresh().expect("a new key"));
    }
    let before = store.stats().batches;
    let outcome = vec![7; 1 << 20];
    let complete = |permit| store.complete(permit, &outcome, DAY, 0);
    let completed: Vec<_> = permits.into_iter().map(complete).collect();
    runtime.block_on(async {
        for completed in completed {
            completed.await.unwrap();
        }
        let begun = store.begin(&request(rig, &[0])).await.unwrap();
        assert!(matches!(begun, Begun::Replay(stored) if stored.outcome() == outcome));
    });
    // At most 8 MiB each.
    let sent = store.stats().batches - before;
    assert!(sent >= u64::from(OUTCOMES) / 8, "{sent}");
}
