//! The suite on a real directory, and what only the embedded store promises.

use std::sync::atomic::{AtomicU64, Ordering};

use idem_store::{Options, Store};

use super::{DAY, NOW, Rig, error, fresh, request};

struct Directory {
    dir: tempfile::TempDir,
    passed_ms: AtomicU64,
}

impl Directory {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            passed_ms: AtomicU64::new(0),
        }
    }
}

impl Rig for Directory {
    fn open_with(&self, options: Options) -> Store {
        Store::open(self.dir.path(), options).expect("opens")
    }

    fn crash(&self, store: Store) -> Store {
        // What a real crash leaves is the business of the simulation and of the kill test.
        store.close().expect("closes");
        self.open()
    }

    fn pass(&self, ms: u64) {
        self.passed_ms.fetch_add(ms, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        NOW + self.passed_ms.load(Ordering::Relaxed)
    }

    fn short_ms(&self) -> u64 {
        1_000
    }

    fn is_shared(&self) -> bool {
        false
    }
}

super::suite!(Directory::new());

#[test]
fn opening_ends_every_lease() {
    let rig = Directory::new();
    let store = rig.open();
    let plain = fresh(&store, request(&rig, b"plain"));
    store.close().unwrap();
    let store = rig.open();
    let again = fresh(&store, request(&rig, b"plain"));
    assert!(again.token() > plain.token());
    let late = store.complete(plain, b"late", DAY, rig.now()).wait();
    assert!(error(late).is_fenced());
}

#[test]
fn keys_are_limited_and_the_directory_is_locked() {
    let rig = Directory::new();
    let store = rig.open_with(Options::new().keys_max(2));
    let _a = fresh(&store, request(&rig, b"a"));
    let _b = fresh(&store, request(&rig, b"b"));
    assert!(error(store.begin(&request(&rig, b"c")).wait()).is_full());
    assert!(error(Store::open(rig.dir.path(), Options::new())).is_locked());
}

#[test]
fn a_path_is_a_url_too() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file:{}", dir.path().display());
    Store::connect(&url, Options::new())
        .unwrap()
        .close()
        .unwrap();
    let path = dir.path().to_str().unwrap();
    Store::connect(path, Options::new())
        .unwrap()
        .close()
        .unwrap();
    let unknown = error(Store::connect("gopher://host/1", Options::new()));
    assert!(unknown.is_options() && unknown.to_string().contains("gopher"));
}
