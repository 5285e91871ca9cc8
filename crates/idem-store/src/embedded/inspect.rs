//! Looking at a store without opening it: nothing is locked and nothing is changed.

use std::fmt;
use std::path::Path;

use crate::embedded::book::{EXPIRY_SHIFT, Location};
use crate::embedded::claims::unresolved_of;
use crate::embedded::index_snapshot::{Doubt, Header, load_header};
use crate::embedded::replay::{Replay, replay, replay_beside_index};
use crate::embedded::vfs::{OsVfs, Vfs};
use crate::embedded::view::View;
use crate::error::Error;
use crate::permit::{Lookup, Unresolved};
use crate::stats::Stats;

/// What [`verify`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Nothing is damaged, neither the log nor the index snapshot.
    pub ok: bool,
    /// Segments of the log.
    pub segments: u64,
    /// Valid records.
    pub records: u64,
    /// Every damaged range.
    pub bad: Vec<Bad>,
    /// Bytes behind the end of the log, up to the last one that is not zero: what a crash left of a
    /// batch that was never acknowledged, a batch that a running store is writing right now, or what
    /// the file held when it was an earlier segment. Not damage.
    pub torn_bytes: u64,
    /// A process has the store open.
    pub in_use: bool,
    /// The index snapshot, if there is one.
    pub index: Option<IndexReport>,
}

/// What there is to say of the index snapshot, which makes opening fast.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexReport {
    /// Keys with an outcome in it.
    pub keys: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Opening reads the log from this segment on, and from this byte of it.
    pub segment: u32,
    /// The byte offset in that segment.
    pub offset: u64,
    /// What is wrong with it: opening does not use it then and reads the whole log. Opening it for
    /// writing, and a repair, remove it.
    pub bad: Option<String>,
}

impl IndexReport {
    fn of(header: &Header) -> Self {
        Self {
            keys: header.outcomes,
            bytes: header.bytes,
            segment: header.start.segment,
            offset: u64::from(header.start.offset),
            bad: None,
        }
    }

    fn empty(doubt: Option<&Doubt>) -> Self {
        Self {
            keys: 0,
            bytes: 0,
            segment: 0,
            offset: 0,
            bad: doubt.map(Doubt::to_string),
        }
    }
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

/// Checks every byte of the log in `dir`: checksums, sequences, segments; and that the index
/// snapshot, if there is one, tells the same as the log.
///
/// Reads only, also while another process has the store open (what that one is writing at the
/// moment counts as [`torn_bytes`](Report::torn_bytes)). O(bytes on the disk), about 40 bytes of
/// memory a key, and as much again for the index snapshot.
///
/// # Errors
/// I/O errors, and [`is_version`](Error::is_version). Damage is no error: it is in the report.
pub fn verify(dir: impl AsRef<Path>) -> Result<Report, Error> {
    verify_on(&open(dir.as_ref())?)
}

#[doc(hidden)]
pub fn verify_on(vfs: &dyn Vfs) -> Result<Report, Error> {
    let replay = settled(vfs, replay_beside_index)?;
    let index = replay.beside.as_ref().map(|beside| match beside {
        Ok(view) => compared(view, &replay),
        Err(Doubt::Outdated) => IndexReport::empty(None),
        Err(doubt) => IndexReport::empty(Some(doubt)),
    });
    let good = index.as_ref().is_none_or(|index| index.bad.is_none());
    Ok(Report {
        ok: replay.damage.is_empty() && good,
        segments: replay.segments.len() as u64,
        records: replay.records,
        bad: bad_of(&replay),
        torn_bytes: replay.torn_bytes,
        in_use: vfs.is_locked(),
        index,
    })
}

/// The index and the log behind it against the whole log.
fn compared(view: &View, whole: &Replay) -> IndexReport {
    let header = view.index().expect("it began with an index");
    let mut report = IndexReport::of(header);
    if whole.damage.is_empty()
        && let Some((place, reason)) = view.difference(&whole.view, &whole.segments)
    {
        let Location { segment, offset } = place;
        report.bad = Some(format!("{reason}: segment {segment}, offset {offset}"));
    }
    if header.head > whole.head {
        let (told, head) = (header.head, whole.head);
        report.bad = Some(format!(
            "it begins with segment {told}, the log with {head}"
        ));
    }
    report
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
    index: Option<IndexReport>,
}

impl Snapshot {
    /// Reads the log in `dir`, also while another process has it open. What is damaged is left out
    /// and listed in [`bad`](Self::bad). O(bytes on the disk), about 40 bytes of memory a key.
    ///
    /// # Errors
    /// As [`verify`].
    pub fn read(dir: impl AsRef<Path>) -> Result<Self, Error> {
        let vfs = open(dir.as_ref())?;
        let index = match load_header(&vfs) {
            Ok(found) => found.map(|(header, _)| IndexReport::of(&header)),
            Err(doubt) => Some(IndexReport::empty(Some(&doubt))),
        };
        let replay = settled(&vfs, replay)?;
        Ok(Self { replay, index })
    }

    /// What is known of a key. A holder in a running process shows as in doubt if it declared its
    /// effect, else as absent: leases are not on the disk. Outcomes are read from the disk only now.
    ///
    /// # Errors
    /// [`is_outdated`](Error::is_outdated) when a running store has dropped the segment that held
    /// the key and used its file again, [`is_damaged`](Error::is_damaged), and I/O errors: never
    /// absent instead.
    pub fn get(&self, key: &[u8], now_ms: u64) -> Result<Lookup, Error> {
        let hash = self.replay.view.book.hash(key);
        if let Some(claim) = self.replay.view.book.claim(hash, key) {
            return Ok(Lookup::InDoubt(unresolved_of(claim)));
        }
        let view = &self.replay.view;
        let stored = view.find_surely(hash, key, &self.replay.segments)?;
        Ok(match stored {
            Some(stored) if now_ms < stored.retain_until_ms => Lookup::Stored(stored),
            _ => Lookup::Absent,
        })
    }

    /// Every key whose effect was declared and that has no outcome, in the order of their tokens.
    #[must_use]
    pub fn unresolved(&self) -> Vec<Unresolved> {
        let mut all: Vec<_> = self.replay.view.book.claims().map(unresolved_of).collect();
        all.sort_by_key(|unresolved| unresolved.token);
        all
    }

    /// Counts of keys, segments and bytes; what only a running store has is zero.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let segments = self.replay.segments.values();
        Stats {
            keys_in_doubt: self.replay.view.book.in_doubt() as u64,
            keys_stored: self.replay.view.book.stored() as u64,
            records: self.replay.records,
            segments: segments.len() as u64,
            segment_bytes: segments.map(|segment| u64::from(segment.bytes)).sum(),
            live_bytes: self.replay.view.book.live_bytes(),
            ..Stats::default()
        }
    }

    /// The index snapshot, if there is one, of which only the header was looked at.
    #[must_use]
    pub fn index(&self) -> Option<&IndexReport> {
        self.index.as_ref()
    }

    /// Bytes of outcomes by when their retention ends (Unix milliseconds), in steps of 2^20 ms (17
    /// minutes). What ended before now takes space until its segment is dropped.
    pub fn retention_bytes(&self) -> impl Iterator<Item = (u64, u64)> {
        let buckets = self.replay.view.book.expiring();
        buckets.map(|(bucket, bytes)| ((bucket + 1).saturating_mul(1 << EXPIRY_SHIFT), bytes))
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
fn settled(vfs: &dyn Vfs, read: fn(&dyn Vfs) -> Result<Replay, Error>) -> Result<Replay, Error> {
    let mut tries = 3;
    loop {
        let found = read(vfs)?;
        tries -= 1;
        let doubtful = matches!(found.beside, Some(Err(_)));
        if found.damage.is_empty() && !doubtful || tries == 0 || !vfs.is_locked() {
            return Ok(found);
        }
    }
}
