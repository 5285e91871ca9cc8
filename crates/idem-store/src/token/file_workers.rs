//! Worker ids of one machine: a directory with a locked file for each.
//!
//! The file `worker-NNNN` holds its floor twice, in slots of 512 bytes that are written in turn, so
//! that a torn write costs only the floor that was not acknowledged yet. The bytes are in
//! docs/FORMAT.md.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::error::{Kind, TokenError};
use super::snowflake::WORKER_MAX;
use super::workers::{WorkerLease, Workers, lease_any};
use crate::embedded::vfs::create_dir;

const MAGIC: [u8; 4] = *b"MSTW";
const VERSION: u16 = 1;
const SLOT_BYTES: usize = 28;
/// A sector: the two slots are never in one.
const SLOT_STRIDE: u64 = 512;

/// Leases the worker ids of one machine by file locks in a directory.
///
/// The kernel releases a lock when its process ends, however it ends. Machines that share a target
/// must have different ranges, or [`StoreWorkers`](super::StoreWorkers): a network file system is no
/// place for this directory. Who deletes it gives up the floors that are in it.
#[derive(Clone, Debug)]
pub struct FileWorkers {
    dir: PathBuf,
    range: RangeInclusive<u16>,
}

impl FileWorkers {
    /// All worker ids, in `dir`; it is made when it is missing.
    #[must_use]
    pub fn new(dir: impl AsRef<Path>) -> Self {
        Self {
            dir: dir.as_ref().to_owned(),
            range: 0..=WORKER_MAX,
        }
    }

    /// Only these worker ids, for machines that divide them.
    #[must_use]
    pub fn range(mut self, range: RangeInclusive<u16>) -> Self {
        self.range = range;
        self
    }

    fn path(&self, worker: u16) -> PathBuf {
        self.dir.join(format!("worker-{worker:04}"))
    }

    /// The lease of this worker id, unless another holds it.
    fn try_lease(&self, worker: u16) -> Result<Option<FileLease>, TokenError> {
        let failed = |error| TokenError::io("open a worker's file", error);
        let path = self.path(worker);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(failed(error.into())),
        }
        if is_blank(&file).map_err(failed)? {
            // No id was given with it: a floor is durable before the first one. Its name has to be.
            let named = File::open(&self.dir).and_then(|dir| dir.sync_all());
            named.map_err(|error| TokenError::io("sync the workers' directory", error))?;
            return Ok(Some(FileLease {
                file,
                worker,
                floor_ms: 0,
                writes: 0,
            }));
        }
        let slots = [0, 1].map(|slot| read_slot(&file, slot, worker));
        let newest = slots.into_iter().flatten().max_by_key(|slot| slot.writes);
        // The first write goes to the second slot: a shorter file was cut, perhaps with its newest floor.
        let length = file.metadata().map_err(failed)?.len();
        let newest = newest.filter(|_| length >= SLOT_STRIDE + SLOT_BYTES as u64);
        let Some(Slot { floor_ms, writes }) = newest else {
            let file = path.display().to_string();
            return Err(TokenError::new(Kind::Damaged(file)));
        };
        Ok(Some(FileLease {
            file,
            worker,
            floor_ms,
            writes,
        }))
    }
}

impl Workers for FileWorkers {
    type Lease = FileLease;

    fn lease(&self, now_ms: u64) -> Result<FileLease, TokenError> {
        let made = create_dir(&self.dir);
        made.map_err(|error| TokenError::io("make the workers' directory", error))?;
        lease_any(&self.range, now_ms, |worker| self.try_lease(worker))
    }
}

/// A worker id, leased by the lock of its file.
#[derive(Debug)]
pub struct FileLease {
    file: File,
    worker: u16,
    floor_ms: u64,
    /// Numbers the writes; the slots take turns.
    writes: u64,
}

impl WorkerLease for FileLease {
    fn worker(&self) -> u16 {
        self.worker
    }

    fn floor_ms(&self) -> u64 {
        self.floor_ms
    }

    fn reserve(&mut self, floor_ms: u64) -> Result<(), TokenError> {
        let failed = |error: io::Error| TokenError::io("write a worker's clock floor", error);
        let slot = Slot {
            floor_ms,
            writes: self.writes + 1,
        };
        let offset = (slot.writes % 2) * SLOT_STRIDE;
        let bytes = slot.encode(self.worker);
        self.file.write_all_at(&bytes, offset).map_err(failed)?;
        // Also the size, which the first two writes change: fdatasync covers it.
        self.file.sync_data().map_err(failed)?;
        self.writes = slot.writes;
        self.floor_ms = floor_ms;
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Slot {
    floor_ms: u64,
    writes: u64,
}

impl Slot {
    fn encode(self, worker: u16) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[6..8].copy_from_slice(&worker.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.writes.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.floor_ms.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..24]);
        bytes[24..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; SLOT_BYTES], worker: u16) -> Option<Self> {
        let number = |at: usize| {
            let bytes = bytes[at..at + 8].try_into().expect("8 bytes");
            u64::from_le_bytes(bytes)
        };
        let slot = Self {
            floor_ms: number(16),
            writes: number(8),
        };
        (slot.encode(worker) == *bytes).then_some(slot)
    }
}

/// Whether no floor was ever acknowledged: the file is new, or a crash left a size without bytes.
fn is_blank(file: &File) -> io::Result<bool> {
    let mut bytes = [0; (SLOT_STRIDE * 2) as usize];
    let length = file.metadata()?.len();
    let length = length.min(bytes.len() as u64) as usize;
    file.read_exact_at(&mut bytes[..length], 0)?;
    Ok(bytes.iter().all(|byte| *byte == 0))
}

/// A slot that was written whole, by this version, for this worker.
fn read_slot(file: &File, slot: u64, worker: u16) -> Option<Slot> {
    let mut bytes = [0; SLOT_BYTES];
    file.read_exact_at(&mut bytes, slot * SLOT_STRIDE).ok()?;
    Slot::decode(&bytes, worker)
}
