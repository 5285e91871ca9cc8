//! Outcomes in the cache: the same answers as without, and never one that ended.

use idem_store::{Begin, Begun, Fingerprint, Lookup, Options, Store};

const NOW: u64 = 1_700_000_000_000;

fn begin(store: &Store, now_ms: u64) -> Begun {
    let begin = Begin::new(b"key", Fingerprint([1; 32]), 1_000, now_ms);
    store.begin(&begin.declare(b"")).wait().unwrap()
}

fn complete(store: &Store, outcome: &[u8], now_ms: u64) {
    let permit = begin(store, now_ms).into_fresh().expect("fresh");
    store.complete(permit, outcome, 500, now_ms).wait().unwrap();
}

fn replayed(store: &Store, now_ms: u64) -> Vec<u8> {
    match begin(store, now_ms) {
        Begun::Replay(stored) => stored.into_outcome(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cached_answer_ends_with_its_key_and_its_retention() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::new()).unwrap();
    complete(&store, b"one", NOW);
    for _ in 0..3 {
        assert_eq!(replayed(&store, NOW + 1), b"one");
    }
    let stats = store.stats();
    assert_eq!((stats.cache_misses, stats.cache_hits), (1, 2));
    assert!(stats.cache_bytes > 0);

    assert!(store.forget(b"key").wait().unwrap());
    assert_eq!(store.stats().cache_bytes, 0);
    assert_eq!(store.get(b"key", NOW).wait().unwrap(), Lookup::Absent);
    complete(&store, b"two", NOW + 2);
    assert_eq!(replayed(&store, NOW + 3), b"two");
    assert_eq!(replayed(&store, NOW + 3), b"two");

    // Past its retention, though the cache has it.
    let late = store.get(b"key", NOW + 502).wait().unwrap();
    assert_eq!(late, Lookup::Absent);
    complete(&store, b"three", NOW + 502);
    assert_eq!(replayed(&store, NOW + 503), b"three");
}

#[test]
fn without_a_cache_the_answers_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().cache_bytes_max(0);
    let store = Store::open(dir.path(), options).unwrap();
    complete(&store, b"one", NOW);
    assert_eq!(replayed(&store, NOW), b"one");
    assert_eq!(replayed(&store, NOW), b"one");
    let stats = store.stats();
    assert_eq!((stats.cache_misses, stats.cache_hits), (2, 0));
}
