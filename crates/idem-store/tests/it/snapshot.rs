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

/// Otherwise a store whose files were moved to a disk that is not mounted would be opened as an empty one, and
/// every effect would be new.
#[test]
fn a_segment_that_is_a_link_to_nothing_or_no_file_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let [store, elsewhere] = ["store", "elsewhere"].map(|name| dir.path().join(name));
    let opened = Store::open(&store, Options::new()).unwrap();
    opened.close().unwrap();
    std::fs::create_dir(&elsewhere).unwrap();
    for entry in std::fs::read_dir(&store).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "seg") {
            let moved = elsewhere.join(path.file_name().unwrap());
            std::fs::rename(&path, &moved).unwrap();
            std::os::unix::fs::symlink(&moved, &path).unwrap();
        }
    }
    assert!(idem_store::verify(&store).unwrap().ok);
    std::fs::remove_dir_all(&elsewhere).unwrap();
    assert!(idem_store::verify(&store).is_err());
    std::fs::create_dir(&elsewhere).unwrap();
    assert!(Store::open(&store, Options::new()).is_err());
    let made = std::fs::read_dir(&elsewhere).unwrap().count();
    assert_eq!(made, 0, "nothing was made there");
    // Opening a pipe would wait for its other end.
    let segment = store.join("0000000001.seg");
    std::fs::remove_file(&segment).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&segment).status();
    assert!(made.unwrap().success());
    assert!(idem_store::verify(&store).is_err());
}
