//! Many threads and many futures on one store.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::task::{Context, Wake, Waker};

use idem_store::{Begin, Begun, Fingerprint, Options, Permit, Store, Waited};
use parking_lot::Mutex;

const NOW: u64 = 1_700_000_000_000;
const DAY: u64 = 86_400_000;

fn request(key: &[u8]) -> Begin<'_> {
    Begin::new(key, Fingerprint([1; 32]), 60_000, NOW)
}

#[test]
fn of_64_threads_with_one_key_exactly_one_is_fresh_and_all_get_its_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::new()).unwrap();
    let effects = AtomicUsize::new(0);
    let start = Barrier::new(64);
    std::thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                start.wait();
                for round in 0..10u8 {
                    assert_eq!(once(&store, &[round], &effects), [round; 4]);
                }
            });
        }
    });
    assert_eq!(effects.into_inner(), 10);
    let stats = store.stats();
    assert_eq!(
        (stats.keys_stored, stats.keys_in_flight, stats.waiters),
        (10, 0, 0)
    );
}

/// The outcome of a key, whoever does the effect.
fn once(store: &Store, key: &[u8], effects: &AtomicUsize) -> Vec<u8> {
    loop {
        match store.begin(&request(key).declare(b"")).wait().unwrap() {
            Begun::Fresh(permit) => {
                effects.fetch_add(1, Ordering::Relaxed);
                store
                    .complete(permit, &[key[0]; 4], DAY, NOW)
                    .wait()
                    .unwrap();
            }
            Begun::Replay(stored) => return stored.into_outcome(),
            Begun::InFlight { .. } => {
                assert_eq!(store.wait(key, 60_000).wait().unwrap(), Waited::Ended);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn callers_share_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::new()).unwrap();
    let pending: Vec<_> = (0..500u32)
        .map(|key| store.begin(&request(&key.to_le_bytes()).declare(b"")))
        .collect();
    let permits: Vec<_> = pending.into_iter().map(|p| p.wait().unwrap()).collect();
    let stats = store.stats();
    assert_eq!(stats.keys_in_flight, 500);
    assert!(stats.batches < 250, "{stats:?}");
    assert_eq!(stats.batch_records.sum(), 501, "and the mark of opening");
    assert!(stats.sync_us.count() >= stats.batches && stats.sync_us_last > 0);
    drop(permits);
    assert_eq!(store.stats().keys_in_doubt, 500);
}

/// A waker of an executor that polls, or drops, the task at once: both use the store.
struct Inline {
    store: Mutex<Option<Store>>,
    permit: Mutex<Option<Permit>>,
    woken: std::sync::mpsc::Sender<u64>,
}

impl Wake for Inline {
    fn wake(self: Arc<Self>) {
        let store = self.store.lock().take();
        drop(self.permit.lock().take());
        let doubts = store.as_ref().map(|store| store.stats().keys_in_doubt);
        // Perhaps the last handle, on the flush thread.
        drop(store);
        self.woken.send(doubts.unwrap_or(u64::MAX)).unwrap();
    }
}

#[test]
fn a_waker_may_use_and_drop_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::new()).unwrap();
    let (woken, told) = std::sync::mpsc::channel();
    let inline = |store: Option<Store>, permit| {
        let (store, permit) = (Mutex::new(store), Mutex::new(permit));
        let woken = woken.clone();
        Waker::from(Arc::new(Inline {
            store,
            permit,
            woken,
        }))
    };
    let fresh = |key: &[u8]| {
        let begun = store.begin(&request(key).declare(b"")).wait().unwrap();
        begun.into_fresh().unwrap()
    };
    // Woken by the call that ends a holder, with a permit that is dropped there.
    let (held, other) = (fresh(b"held"), fresh(b"other"));
    let waker = inline(Some(store.clone()), Some(other));
    let mut waits = store.wait(b"held", 60_000);
    assert!(
        Pin::new(&mut waits)
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    store.complete(held, b"", DAY, NOW).wait().unwrap();
    assert_eq!(told.recv().unwrap(), 1);
    // Woken by the flush thread, with the last handle.
    let mut begun = store.begin(&request(b"last").declare(b""));
    let waker = inline(Some(store), None);
    let polled = Pin::new(&mut begun).poll(&mut Context::from_waker(&waker));
    drop(waker);
    if polled.is_pending() {
        assert_eq!(told.recv().unwrap(), 1);
    }
    drop(begun);
    Store::open(dir.path(), Options::new()).expect("the lock is given back");
}

#[test]
fn futures_work_on_tokio() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::new()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..200u32)
            .map(|key| {
                let store = store.clone();
                tokio::spawn(async move {
                    let key = (key % 50).to_le_bytes();
                    loop {
                        match store.begin(&request(&key).declare(b"")).await.unwrap() {
                            Begun::Fresh(permit) => {
                                store.complete(permit, &key, DAY, NOW).await.unwrap();
                            }
                            Begun::Replay(stored) => break stored.outcome() == key,
                            Begun::InFlight { .. } => {
                                store.wait(&key, 60_000).await.unwrap();
                            }
                            other => panic!("{other:?}"),
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            assert!(task.await.unwrap());
        }
    });
    assert_eq!(store.stats().keys_stored, 50);
}

#[test]
fn segments_come_and_go_under_load_and_replays_survive() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new()
        .segment_bytes_max(256 << 10)
        .outcome_bytes_max(16 << 10)
        .batch_bytes_max(128 << 10);
    let store = Store::open(dir.path(), options.clone()).unwrap();
    // One that must be carried along while everything around it expires.
    let permit = store
        .begin(&request(b"keeper").declare(b""))
        .wait()
        .unwrap();
    let permit = permit.into_fresh().unwrap();
    store
        .complete(permit, b"kept", 1_000 * DAY, NOW)
        .wait()
        .unwrap();
    let has_come_and_gone = || {
        let stats = store.stats();
        stats.segments_dropped > 0 && stats.records_carried > 0
    };
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let (store, has_come_and_gone) = (&store, &has_come_and_gone);
            scope.spawn(move || {
                // At least so many; on a busy machine upkeep has its turn later.
                for n in (0..5_000u32).take_while(|&n| n < 150 || !has_come_and_gone()) {
                    let now = NOW + u64::from(n) * 3_600_000;
                    let key = [thread.to_le_bytes(), n.to_le_bytes()].concat();
                    let begin = Begin::new(&key, Fingerprint([1; 32]), 60_000, now);
                    let begun = match store.begin(&begin.declare(b"")).wait() {
                        Err(error) if error.is_busy() => continue,
                        begun => begun.unwrap(),
                    };
                    let permit = begun.into_fresh().unwrap();
                    store
                        .complete(permit, &[7; 4_096], 1_000, now)
                        .wait()
                        .unwrap();
                }
            });
        }
    });
    assert!(has_come_and_gone(), "{:?}", store.stats());
    let kept = store.begin(&request(b"keeper")).wait().unwrap();
    assert!(matches!(kept, Begun::Replay(stored) if stored.outcome() == b"kept"));
    store.close().unwrap();
    assert!(idem_store::verify(dir.path()).unwrap().ok);
    let store = Store::open(dir.path(), options).unwrap();
    let kept = store.begin(&request(b"keeper")).wait().unwrap();
    assert!(matches!(kept, Begun::Replay(stored) if stored.outcome() == b"kept"));
}

/// The flusher goes on in new segments while upkeep makes the ones after them.
#[test]
fn segments_are_made_while_others_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new()
        .segment_bytes_max(64 << 10)
        .outcome_bytes_max(8 << 10)
        .batch_bytes_max(32 << 10);
    let store = Store::open(dir.path(), options).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8u32 {
            let store = &store;
            scope.spawn(move || {
                for n in 0..60u32 {
                    let key = [thread.to_le_bytes(), n.to_le_bytes()].concat();
                    let begun = match store.begin(&request(&key)).wait() {
                        Err(error) if error.is_busy() => continue,
                        begun => begun.unwrap(),
                    };
                    let permit = begun.into_fresh().unwrap();
                    let done = store.complete(permit, &[7; 8_000], DAY, NOW);
                    done.wait().unwrap();
                }
            });
        }
    });
    store.close().unwrap();
    assert!(idem_store::verify(dir.path()).unwrap().ok);
}

/// A flush that is asked for while a batch is being cut is not forgotten: each round waits for all.
#[test]
fn flushes_beside_each_other_and_beside_writers_all_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::new()).unwrap();
    let round = Barrier::new(3);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..400 {
                    round.wait();
                    store.flush().wait().unwrap();
                }
            });
        }
        for number in 0..400_u32 {
            round.wait();
            let key = number.to_le_bytes();
            let begun = store.begin(&request(&key).declare(b"")).wait().unwrap();
            drop(begun);
        }
    });
}
