//! Looking at a store without opening it: nothing is locked and nothing is changed.

use std::fmt;
use std::path::Path;

use crate::claims::unresolved_of;
use crate::error::Error;
use crate::permit::{Lookup, Unresolved};
use crate::replay::{Replay, replay};
use crate::stats::Stats;
use crate::vfs::{OsVfs, Vfs};

/// What [`verify`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Nothing is damaged.
    pub ok: bool,
    /// Segments of the log.
    pub segments: u64,
    /// Valid records.
    pub records: u64,
    /// Every damaged range.
    pub bad: Vec<Bad>,
    /// Bytes behind the end of the log that are not zero: what a crash left of a batch that was
    /// never acknowledged, or a batch that a running store is writing right now. Not damage.
    pub torn_bytes: u64,
    /// A process has the store open.
    pub in_use: bool,
}

/// A range of a segment that does not hold what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bad {
    /// Number of the segment, as in its file name.
    pub segment: u32,
    /// Byte offset in the file.
    pub offset: u64,
    /// What is wrong there.
    pub reason: String,
}

/// Checks every byte of the log in `dir`: checksums, sequences, segments.
///
/// Reads only, also while another process has the store open (what that one is writing at the
/// moment counts as [`torn_bytes`](Report::torn_bytes)). O(bytes on the disk).
///
/// # Errors
/// I/O errors, and [`is_version`](Error::is_version). Damage is no error: it is in the report.
pub fn verify(dir: impl AsRef<Path>) -> Result<Report, Error> {
    verify_on(&open(dir.as_ref())?)
}

#[doc(hidden)]
pub fn verify_on(vfs: &dyn Vfs) -> Result<Report, Error> {
    let replay = settled(vfs)?;
    Ok(Report {
        ok: replay.damage.is_empty(),
        segments: replay.segments.len() as u64,
        records: replay.records,
        bad: bad_of(&replay),
        torn_bytes: replay.torn_bytes,
        in_use: vfs.is_locked(),
    })
}

pub(crate) fn bad_of(replay: &Replay) -> Vec<Bad> {
    let damage = replay.damage.iter();
    damage
        .map(|(segment, damage)| Bad {
            segment: *segment,
            offset: u64::from(damage.offset),
            reason: damage.reason.to_owned(),
        })
        .collect()
}

/// The keys of a store as they are on the disk, read without opening it.
pub struct Snapshot {
    replay: Replay,
}

impl Snapshot {
    /// Reads the log in `dir`, also while another process has it open. What is damaged is left out
    /// and listed in [`bad`](Self::bad). O(bytes on the disk), about 40 bytes of memory a key.
    ///
    /// # Errors
    /// As [`verify`].
    pub fn read(dir: impl AsRef<Path>) -> Result<Self, Error> {
        let replay = settled(&open(dir.as_ref())?)?;
        Ok(Self { replay })
    }

    /// What is known of a key. A holder in a running process shows as in doubt if it declared its
    /// effect, else as absent: leases are not on the disk.
    #[must_use]
    pub fn get(&self, key: &[u8], now_ms: u64) -> Lookup {
        let hash = self.replay.book.hash(key);
        if let Some(claim) = self.replay.book.claim(hash, key) {
            return Lookup::InDoubt(unresolved_of(claim));
        }
        match self.replay.find(hash, key) {
            Some((_, stored)) if now_ms < stored.retain_until_ms => Lookup::Stored(stored),
            _ => Lookup::Absent,
        }
    }

    /// Every key whose effect was declared and that has no outcome, in the order of their tokens.
    #[must_use]
    pub fn unresolved(&self) -> Vec<Unresolved> {
        let mut all: Vec<_> = self.replay.book.claims().map(unresolved_of).collect();
        all.sort_by_key(|unresolved| unresolved.token);
        all
    }

    /// Counts of keys, segments and bytes; what only a running store has is zero.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let segments = self.replay.segments.values();
        Stats {
            keys_in_doubt: self.replay.book.in_doubt() as u64,
            keys_stored: self.replay.book.stored() as u64,
            records: self.replay.records,
            segments: segments.len() as u64,
            segment_bytes: segments.map(|segment| u64::from(segment.bytes)).sum(),
            live_bytes: self.replay.book.live_bytes(),
            ..Stats::default()
        }
    }

    /// What is damaged.
    #[must_use]
    pub fn bad(&self) -> Vec<Bad> {
        bad_of(&self.replay)
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

fn open(dir: &Path) -> Result<OsVfs, Error> {
    OsVfs::read_only(dir).map_err(|error| Error::io("read the store's directory", error))
}

/// A running store may drop a segment between our listing and our reading, or write two batches
/// while one read passes them; what it did not do itself is still there when we look again.
fn settled(vfs: &dyn Vfs) -> Result<Replay, Error> {
    let mut tries = 3;
    loop {
        let found = replay(vfs)?;
        tries -= 1;
        if found.damage.is_empty() || tries == 0 || !vfs.is_locked() {
            return Ok(found);
        }
    }
}
