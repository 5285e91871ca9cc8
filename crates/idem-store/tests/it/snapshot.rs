//! Looking at a store that a process goes on using.

use std::sync::Arc;

use idem_store::vfs::OsVfs;
use idem_store::{Begin, Fingerprint, Lookup, Options, Snapshot, Store};

const NOW: u64 = 1_700_000_000_000;
const DAY: u64 = 86_400_000;

fn complete(store: &Store, key: &[u8]) {
    let begin = Begin::new(key, Fingerprint([1; 32]), 1_000, NOW);
    let permit = store.begin(&begin).try_now().unwrap().unwrap();
    let done = store.complete(permit.into_fresh().unwrap(), &[7; 3_000], DAY, NOW);
    store.drive();
    done.try_now().unwrap().unwrap();
}

fn forget(store: &Store, key: &[u8]) {
    let forgotten = store.forget(key);
    store.drive();
    assert!(forgotten.try_now().unwrap().unwrap());
}

#[test]
fn what_is_retained_for_ever_has_not_expired() {
    let dir = tempfile::tempdir().unwrap();
    let vfs = OsVfs::create(dir.path()).unwrap();
    let store = Store::open_on(Arc::new(vfs), Options::new()).unwrap();
    let begin = Begin::new(b"k", Fingerprint([1; 32]), 1_000, NOW);
    let permit = store.begin(&begin).try_now().unwrap().unwrap();
    let done = store.complete(permit.into_fresh().unwrap(), b"x", u64::MAX, NOW);
    store.close().unwrap();
    done.try_now().unwrap().unwrap();
    let snapshot = Snapshot::read(dir.path()).unwrap();
    let retained: Vec<_> = snapshot.retention_bytes().map(|(until, _)| until).collect();
    assert_eq!(retained, [u64::MAX]);
}

/// The outcome is read when it is asked for, and the file that held it may be another segment by
/// then: "absent" would be a lie about a key that was done.
#[test]
fn an_outcome_whose_file_was_used_again_is_never_absent() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new()
        .segment_bytes_max(64 << 10)
        .outcome_bytes_max(4 << 10)
        .batch_bytes_max(32 << 10);
    let vfs = OsVfs::create(dir.path()).unwrap();
    let store = Store::open_on(Arc::new(vfs), options).unwrap();
    complete(&store, b"k");
    let snapshot = Snapshot::read(dir.path()).unwrap();
    forget(&store, b"k");
    for n in 0..2_000_u32 {
        complete(&store, &n.to_le_bytes());
        forget(&store, &n.to_le_bytes());
        match snapshot.get(b"k", NOW) {
            Ok(Lookup::Stored(stored)) => assert_eq!(stored.outcome(), [7; 3_000]),
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                assert!(error.is_outdated() && !error.is_damaged(), "{error}");
                assert_eq!(error.segment(), Some(1));
                let again = Snapshot::read(dir.path()).unwrap();
                assert!(matches!(again.get(b"k", NOW), Ok(Lookup::Absent)));
                return;
            }
        }
    }
    panic!("the file was never used again: {:?}", store.stats());
}
