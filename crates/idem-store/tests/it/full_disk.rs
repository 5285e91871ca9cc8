//! A real file system without space: a tmpfs of a few MiB.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use idem_store::{Begin, Begun, Error, Fingerprint, Lookup, Options, Permit, Store};

const NOW: u64 = 1_700_000_000_000;
const SEGMENT: u32 = 256 << 10;
const OUTCOME: usize = 16 << 10;
const HELD: u8 = 40;
/// Only a test that has failed waits so long.
const HANGS: Duration = Duration::from_secs(60);

/// A mounted tmpfs, unmounted at the end.
struct Small(tempfile::TempDir);

impl Small {
    /// None where we may not mount.
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]);
        let mounted = mount.arg(dir.path()).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(dir));
        }
        eprintln!("not run: a tmpfs cannot be mounted here");
        None
    }

    fn open(&self, options: Options) -> Store {
        Store::open(self.0.path().join("store"), options).unwrap()
    }

    /// Takes all the space there is.
    fn fill(&self) {
        let mut file = File::create(self.filler()).unwrap();
        for bytes in [64 << 10, 4 << 10] {
            while file.write_all(&vec![1; bytes]).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> std::path::PathBuf {
        Path::new(self.0.path()).join("filler")
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn options() -> Options {
    Options::new()
        .segment_bytes_max(SEGMENT)
        .batch_bytes_max(SEGMENT / 2)
        .outcome_bytes_max(OUTCOME as u32)
}

fn begin(store: &Store, key: &[u8]) -> Result<Begun, Error> {
    let begin = Begin::new(key, Fingerprint([1; 32]), 1_000_000, NOW);
    store.begin(&begin.declare(b"memo")).wait()
}

fn fresh(store: &Store, key: &[u8]) -> Permit {
    begin(store, key).unwrap().into_fresh().unwrap()
}

/// Completes every permit from a thread of its own; the answers as they come.
fn complete_all(store: &Store, permits: Vec<Permit>) -> Receiver<Result<(), Error>> {
    let (sender, answers) = mpsc::channel();
    for permit in permits {
        let (store, sender) = (store.clone(), sender.clone());
        std::thread::spawn(move || {
            let done = store.complete(permit, &[7; OUTCOME], 1_000_000, NOW);
            // The test may have failed meanwhile.
            let _ = sender.send(done.wait());
        });
    }
    answers
}

/// A store with an outcome and `HELD` permits whose outcomes do not fit what it has.
fn about_to_overflow(small: &Small, options: Options) -> (Store, Vec<Permit>) {
    let store = small.open(options);
    let first = fresh(&store, b"first");
    store
        .complete(first, b"out", 1_000_000, NOW)
        .wait()
        .unwrap();
    let permits = (0..HELD).map(|key| fresh(&store, &[key])).collect();
    small.fill();
    (store, permits)
}

/// Until every outcome was taken and the disk is known to be full.
fn wait_until_full(store: &Store) {
    let taken = |store: &Store| store.stats().keys_stored == u64::from(HELD) + 1;
    while !(taken(store) && store.stats().disk_full) {
        std::thread::yield_now();
    }
}

#[test]
fn who_waits_for_space_is_answered_once_there_is_some_without_another_call() {
    let Some(small) = Small::mount() else { return };
    let patient = options().disk_full_wait_ms(1 << 40);
    let (store, permits) = about_to_overflow(&small, patient);
    let answers = complete_all(&store, permits);
    wait_until_full(&store);
    assert!(begin(&store, b"new").unwrap_err().is_full());
    assert!(matches!(begin(&store, b"first"), Ok(Begun::Replay(_))));
    small.free();
    for _ in 0..HELD {
        answers.recv_timeout(HANGS).expect("answered").unwrap();
    }
    drop(store);
    let store = small.open(options());
    assert_eq!(store.stats().keys_stored, u64::from(HELD) + 1);
}

#[test]
fn a_full_disk_is_told_in_time_and_what_was_given_is_written_later() {
    let Some(small) = Small::mount() else { return };
    let (store, permits) = about_to_overflow(&small, options().disk_full_wait_ms(20));
    let answers = complete_all(&store, permits);
    let mut told = 0;
    for _ in 0..HELD {
        if let Err(error) = answers.recv_timeout(HANGS).expect("answered") {
            assert!(error.is_full() && !error.is_poisoned(), "{error}");
            told += 1;
        }
    }
    assert!(told > 0);
    assert!(store.flush().wait().unwrap_err().is_full());
    assert!(begin(&store, b"new").unwrap_err().is_full());
    assert!(matches!(begin(&store, b"first"), Ok(Begun::Replay(_))));
    small.free();
    while store.flush().wait().is_err() {
        std::thread::yield_now();
    }
    for key in 0..HELD {
        let known = store.get(&[key], NOW).wait().unwrap();
        assert!(matches!(known, Lookup::Stored(_)), "{known:?}");
    }
    while store.stats().disk_full {
        std::thread::yield_now();
    }
    drop(fresh(&store, b"new"));
    store.close().unwrap();
}

#[test]
fn closing_a_store_on_a_full_disk_answers_everybody() {
    let Some(small) = Small::mount() else { return };
    let patient = options().disk_full_wait_ms(1 << 40);
    let (store, permits) = about_to_overflow(&small, patient);
    let answers = complete_all(&store, permits);
    wait_until_full(&store);
    let closed = store.close().unwrap_err();
    assert!(closed.is_full(), "{closed}");
    let answers = (0..HELD).map(|_| answers.recv_timeout(HANGS).expect("answered"));
    let stored = answers.filter(Result::is_ok).count() as u64;
    let store = small.open(options());
    let stats = store.stats();
    assert!(stats.keys_stored > stored, "{stats:?}");
    assert_eq!(stats.keys_stored + stats.keys_in_doubt, u64::from(HELD) + 1);
}
