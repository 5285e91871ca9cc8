//! Seeded bugs: disks that behave as if the store had one. The simulation must find each of them,
//! or it would not find such a bug in the store either.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use idem_store::vfs::{Vfs, VfsFile};
use parking_lot::Mutex;

use super::World;

/// What the store does wrong, as far as its disk can tell.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bug {
    /// Nothing: the disk is as good as without all this.
    None,
    /// Every so often a sync is left out.
    SkipsSync,
    /// The directory is not synced when the next segment has got its name.
    SkipsDirSync,
    /// Every so often a write reaches the file only after the next one and its sync.
    ReordersWrites,
    /// The first batch of a segment for which there was no space at first is left out.
    DropsHeld,
    /// Checksums are not compared: whatever is read carries the right one.
    DropsChecksums,
}

/// How often a bug shows: one call in so many.
const RARELY: u64 = 7;

#[test]
fn without_a_bug_nothing_is_found() {
    for seed in 0..30 {
        let mut world = World::new(seed);
        world.bug = Some(Bug::None);
        world.run();
    }
}

#[test]
fn a_skipped_sync_is_found() {
    assert_found(Bug::SkipsSync);
}

#[test]
fn a_skipped_sync_of_the_directory_is_found() {
    assert_found(Bug::SkipsDirSync);
}

#[test]
fn reordered_writes_are_found() {
    assert_found(Bug::ReordersWrites);
}

#[test]
fn a_dropped_checksum_is_found() {
    assert_found(Bug::DropsChecksums);
}

#[test]
fn a_dropped_batch_that_waited_for_space_is_found() {
    assert_found(Bug::DropsHeld);
}

fn assert_found(bug: Bug) {
    const SEEDS: u64 = 300;
    let found = (0..SEEDS).find(|&seed| {
        let mut world = World::new(seed);
        world.bug = Some(bug);
        catch_unwind(AssertUnwindSafe(|| world.run())).is_err()
    });
    assert!(found.is_some(), "{SEEDS} seeds do not find that it {bug:?}");
}

impl Bug {
    pub(super) fn on(self, inner: Arc<dyn Vfs>) -> Arc<dyn Vfs> {
        Arc::new(Buggy {
            inner,
            bug: self,
            calls: Arc::default(),
            named: AtomicBool::default(),
            lacked: AtomicBool::default(),
        })
    }
}

struct Buggy {
    inner: Arc<dyn Vfs>,
    bug: Bug,
    calls: Arc<AtomicU64>,
    /// A segment got its name last, not the first one of a store.
    named: AtomicBool,
    /// There was no space for a file last.
    lacked: AtomicBool,
}

struct BuggyFile {
    inner: Arc<dyn VfsFile>,
    bug: Bug,
    calls: Arc<AtomicU64>,
    segment: Option<u32>,
    /// There was no space for it at first, and it has no batch.
    is_late: AtomicBool,
    /// The write that is held back.
    late: Mutex<Option<(Vec<u8>, u64)>>,
}

impl Buggy {
    fn file(&self, inner: Arc<dyn VfsFile>, name: &str) -> BuggyFile {
        let segment = name.strip_suffix(".seg");
        BuggyFile {
            inner,
            bug: self.bug,
            calls: Arc::clone(&self.calls),
            segment: segment.and_then(|number| number.parse().ok()),
            is_late: AtomicBool::new(false),
            late: Mutex::default(),
        }
    }
}

impl Vfs for Buggy {
    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.inner.lock()
    }

    fn is_locked(&self) -> bool {
        self.inner.is_locked()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn VfsFile>> {
        let created = self.inner.create(name, bytes);
        let lacked = self.lacked.swap(created.is_err(), Ordering::Relaxed);
        let mut file = self.file(created?, name);
        *file.is_late.get_mut() = lacked;
        Ok(Arc::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn VfsFile>> {
        Ok(Arc::new(self.file(self.inner.open(name)?, name)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let names = to.ends_with(".seg") && to != "0000000001.seg";
        self.named.store(names, Ordering::Relaxed);
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        let named = self.named.swap(false, Ordering::Relaxed);
        if matches!(self.bug, Bug::SkipsDirSync) && named {
            return Ok(());
        }
        self.inner.sync_dir()
    }

    fn random(&self) -> u64 {
        self.inner.random()
    }
}

impl BuggyFile {
    fn shows_now(&self) -> bool {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        call % RARELY == RARELY - 1
    }
}

impl VfsFile for BuggyFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let got = self.inner.read_at(buf, offset)?;
        if let (Bug::DropsChecksums, Some(segment)) = (self.bug, self.segment) {
            correct(&mut buf[..got], segment, offset as usize);
        }
        Ok(got)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let is_batch = offset == HEADER_REGION as u64;
        if is_batch
            && self.is_late.swap(false, Ordering::Relaxed)
            && matches!(self.bug, Bug::DropsHeld)
        {
            return Ok(());
        }
        let late = self.late.lock().take();
        if matches!(self.bug, Bug::ReordersWrites) && late.is_none() && self.shows_now() {
            *self.late.lock() = Some((bytes.to_vec(), offset));
            return Ok(());
        }
        self.inner.write_all_at(bytes, offset)?;
        if let Some((bytes, offset)) = late {
            self.inner.sync_data()?;
            self.inner.write_all_at(&bytes, offset)?;
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        if matches!(self.bug, Bug::SkipsSync) && self.shows_now() {
            return Ok(());
        }
        self.inner.sync_data()
    }

    fn durable_unit(&self) -> usize {
        self.inner.durable_unit()
    }

    fn bytes(&self) -> io::Result<u64> {
        self.inner.bytes()
    }
}

const HEADER_REGION: usize = 4096;
const BATCH_HEADER: usize = 32;

/// Gives everything that looks like a batch or a record its right checksum (docs/FORMAT.md).
fn correct(bytes: &mut [u8], segment: u32, offset: usize) {
    if offset >= HEADER_REGION {
        correct_record(bytes, segment, offset);
        return;
    }
    let mut at = HEADER_REGION - offset;
    while let Some(rest) = bytes.get_mut(at..) {
        let place = offset + at;
        let Some(len) = length(rest).filter(|len| *len > BATCH_HEADER && len.is_multiple_of(8))
        else {
            return;
        };
        let mut record = BATCH_HEADER;
        while record < len {
            match correct_record(&mut rest[record..len], segment, place + record) {
                Some(taken) => record += taken,
                None => return,
            }
        }
        seal(&mut rest[..BATCH_HEADER], segment, place);
        at += len;
    }
}

/// The length in the header of a batch or record, if that much is there.
fn length(bytes: &[u8]) -> Option<usize> {
    let len = bytes.get(4..8)?.try_into().expect("four bytes");
    let len = u32::from_le_bytes(len) as usize;
    (len >= 24 && len.next_multiple_of(8) <= bytes.len()).then_some(len)
}

fn correct_record(bytes: &mut [u8], segment: u32, place: usize) -> Option<usize> {
    let len = length(bytes)?;
    seal(&mut bytes[..len], segment, place);
    Some(len.next_multiple_of(8))
}

fn seal(bytes: &mut [u8], segment: u32, place: usize) {
    let mut covered = segment.to_le_bytes().to_vec();
    covered.extend_from_slice(&(place as u32).to_le_bytes());
    covered.extend_from_slice(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc32c::crc32c(&covered).to_le_bytes());
}
