//! The bytes of each format version are kept in tests/fixtures: they stay readable for ever, and the
//! writer still makes those of the last one. `MAINSTAY_BLESS=1` writes them anew, which needs a new
//! version.

use std::path::PathBuf;

use idem_store::{
    Begin, Begun, Failure, Fingerprint, Lookup, Options, Permit, Store, repair_on, verify,
};

use crate::disk::Disk;

/// Every version there was; the writer makes the last one.
const VERSIONS: [&str; 2] = ["v1", "v2"];
const WRITTEN: &str = "v2";

const NOW: u64 = 1_700_000_000_000;

fn options() -> Options {
    Options::new()
        .segment_bytes_max(64 << 10)
        .outcome_bytes_max(4 << 10)
        .batch_bytes_max(16 << 10)
}

fn fixture(version: &str, name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(version)
        .join(name)
}

fn fresh(store: &Store, key: &[u8], memo: Option<&[u8]>) -> Permit {
    let mut begin = Begin::new(key, Fingerprint([key.len() as u8; 32]), 1_000, NOW);
    if let Some(memo) = memo {
        begin = begin.declare(memo);
    }
    let mut begun = store.begin(&begin);
    loop {
        match begun.try_now() {
            Ok(begun) => break begun.unwrap().into_fresh().unwrap(),
            Err(pending) => begun = pending,
        }
        store.drive();
    }
}

fn ended(store: &Store, completion: idem_store::Completion<()>) {
    store.drive();
    completion.try_now().unwrap().unwrap();
}

/// A log with a record of every kind (but Head, which needs a dropped segment).
fn written() -> Disk {
    let disk = Disk::new(0);
    let store = Store::open_on(disk.mount(), options()).unwrap();
    let permit = fresh(&store, b"completed", Some(b"memo"));
    ended(
        &store,
        store.complete(permit, b"outcome", 86_400_000, NOW + 5),
    );
    let permit = fresh(&store, b"failed for good", Some(b""));
    let outcome = b"no such account";
    let retain_ms = 1_000;
    let last = Failure::Final { outcome, retain_ms };
    ended(&store, store.fail(permit, last, NOW));
    let permit = fresh(&store, b"not happened", Some(b"x"));
    ended(&store, store.fail(permit, Failure::NotHappened, NOW));
    drop(fresh(&store, b"undeclared", None));
    let permit = fresh(&store, b"forgotten", None);
    ended(&store, store.complete(permit, b"gone", 1_000, NOW));
    let forgotten = store.forget(b"forgotten");
    store.drive();
    assert!(forgotten.try_now().unwrap().unwrap());
    let permit = fresh(&store, b"in doubt", None);
    ended(&store, store.declare(&permit, b"sent as 4711"));
    drop(permit);
    store.close().unwrap();
    disk
}

fn trimmed(disk: &Disk, name: &str) -> Vec<u8> {
    let mut bytes = disk.read(name);
    let used = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    bytes.truncate(used);
    bytes
}

fn compare(name: &str, bytes: &[u8]) {
    let path = fixture(WRITTEN, name);
    if std::env::var_os("MAINSTAY_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    let golden = std::fs::read(&path).unwrap();
    let differs = golden.iter().zip(bytes).position(|(a, b)| a != b);
    assert_eq!(
        differs, None,
        "the writer's bytes changed: that needs a new format version"
    );
    assert_eq!(golden.len(), bytes.len());
}

#[test]
fn the_writer_still_makes_version_2() {
    compare("closed.seg", &trimmed(&written(), "0000000001.seg"));
}

/// A log with an index in its midst.
fn indexed() -> Disk {
    let disk = Disk::new(0);
    let options = options().index_log_bytes(600);
    let store = Store::open_on(disk.mount(), options).unwrap();
    for key in [&b"first"[..], b"second", b"third"] {
        let permit = fresh(&store, key, Some(b"memo"));
        ended(&store, store.complete(permit, key, 86_400_000, NOW));
    }
    drop(fresh(&store, b"in doubt", Some(b"sent")));
    while store.stats().index_snapshots == 0 {
        store.drive();
    }
    let permit = fresh(&store, b"behind", Some(b"memo"));
    ended(&store, store.complete(permit, b"it", 86_400_000, NOW));
    disk
}

#[test]
fn the_writer_still_makes_the_index() {
    let disk = indexed();
    compare("indexed.seg", &trimmed(&disk, "0000000001.seg"));
    compare("index-2.snap", &trimmed(&disk, "index.snap"));
}

#[test]
fn an_index_of_every_version_opens() {
    for version in VERSIONS {
        open_index(version, "index.snap");
    }
    open_index(WRITTEN, "index-2.snap");
}

fn open_index(version: &str, name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = std::fs::read(fixture(version, "indexed.seg")).unwrap();
    bytes.resize(64 << 10, 0);
    std::fs::write(dir.path().join("0000000001.seg"), bytes).unwrap();
    let mut index = std::fs::read(fixture(version, name)).unwrap();
    index.resize(16 << 10, 0);
    std::fs::write(dir.path().join("index.snap"), index).unwrap();
    let store = Store::open(dir.path(), options()).unwrap();
    assert!(store.stats().opened_from_index);
    for (key, outcome) in [("first", "first"), ("third", "third"), ("behind", "it")] {
        let found = store.get(key.as_bytes(), NOW).wait().unwrap();
        let Lookup::Stored(stored) = found else {
            panic!("{key}: {found:?}");
        };
        assert_eq!(stored.outcome(), outcome.as_bytes());
    }
    let doubt = store.get(b"in doubt", NOW).wait().unwrap();
    assert!(matches!(doubt, Lookup::InDoubt(doubt) if doubt.memo == b"sent"));
}

#[test]
fn a_repair_still_makes_version_2() {
    let disk = written();
    // The first claim.
    disk.change("0000000001.seg", |bytes| bytes[4_096 + 56 + 40] ^= 1);
    let repair = repair_on(&*disk.mount(), false).unwrap();
    assert_eq!(repair.records_salvaged, 0);
    compare("repaired.seg", &trimmed(&disk, "0000000001.seg"));
}

/// The store of a fixture, in a directory of its own.
fn opened(
    version: &str,
    name: &str,
    change: impl FnOnce(&mut Vec<u8>),
) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = std::fs::read(fixture(version, name)).unwrap();
    change(&mut bytes);
    bytes.resize(64 << 10, 0);
    std::fs::write(dir.path().join("0000000001.seg"), bytes).unwrap();
    let store = Store::open(dir.path(), options()).unwrap();
    (dir, store)
}

fn check(store: &Store) {
    let get = |key: &[u8]| store.get(key, NOW + 500).wait().unwrap();
    let Lookup::Stored(stored) = get(b"completed") else {
        panic!("completed");
    };
    assert_eq!(stored.outcome(), b"outcome");
    assert_eq!(stored.fingerprint(), Fingerprint([9; 32]));
    assert_eq!(stored.retain_until_ms(), NOW + 86_400_005);
    assert!(!stored.is_failure());
    let Lookup::Stored(stored) = get(b"failed for good") else {
        panic!("failed");
    };
    assert!(stored.is_failure() && stored.outcome() == b"no such account");
    for absent in [&b"not happened"[..], b"undeclared", b"forgotten"] {
        assert_eq!(get(absent), Lookup::Absent);
    }
    let Lookup::InDoubt(doubt) = get(b"in doubt") else {
        panic!("in doubt");
    };
    assert_eq!(
        (&doubt.memo[..], doubt.since_ms),
        (&b"sent as 4711"[..], NOW)
    );
    let probe = Begin::new(b"probe", Fingerprint([1; 32]), 1, NOW);
    let Begun::Fresh(permit) = store.begin(&probe).wait().unwrap() else {
        panic!("probe");
    };
    assert!(permit.token() > doubt.token);
}

#[test]
fn a_closed_store_of_every_version_opens() {
    for version in VERSIONS {
        check(&opened(version, "closed.seg", |_| ()).1);
    }
}

#[test]
fn a_repaired_store_of_every_version_opens() {
    for version in VERSIONS {
        // Its first claim is lost, but that claim's outcome says all.
        check(&opened(version, "repaired.seg", |_| ()).1);
    }
}

#[test]
fn a_torn_store_of_every_version_opens() {
    for version in VERSIONS {
        // The mark of closing is cut in half.
        check(
            &opened(version, "closed.seg", |bytes| {
                bytes.truncate(bytes.len() - 20)
            })
            .1,
        );
    }
}

#[test]
fn a_log_of_an_older_version_goes_on_in_segments_of_the_last_one() {
    for version in VERSIONS {
        let (dir, store) = opened(version, "closed.seg", |_| ());
        let mut key = 0_u32;
        while store.stats().segments < 3 {
            key += 1;
            let bytes = key.to_le_bytes();
            let begin = Begin::new(&bytes, Fingerprint([1; 32]), 1_000, NOW).declare(b"");
            match store.begin(&begin).wait() {
                Ok(begun) => {
                    let permit = begun.into_fresh().unwrap();
                    let outcome = [7; 4_000];
                    store
                        .complete(permit, &outcome, 86_400_000, NOW)
                        .wait()
                        .unwrap();
                }
                Err(error) => assert!(error.is_busy(), "{error}"),
            }
        }
        store.close().unwrap();
        let versions = (1..=3).map(|n| std::fs::read(dir.path().join(format!("{n:010}.seg"))));
        let versions: Vec<u8> = versions.map(|bytes| bytes.unwrap()[8]).collect();
        assert_eq!(versions[1..], [2, 2], "{version}");
        let report = verify(dir.path()).unwrap();
        assert!(report.ok && report.segments == 3, "{report:?}");
        check(&Store::open(dir.path(), options()).unwrap());
    }
}

#[test]
fn a_newer_version_is_refused_with_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = std::fs::read(fixture(WRITTEN, "closed.seg")).unwrap();
    bytes[8] = 9;
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(dir.path().join("0000000001.seg"), bytes).unwrap();
    let error = Store::open(dir.path(), options()).unwrap_err();
    assert!(
        error.is_version() && error.to_string().contains("version 9"),
        "{error}"
    );
}
