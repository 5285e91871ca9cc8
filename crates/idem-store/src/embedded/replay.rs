//! Reading a log back: what opening, verifying and inspecting a store have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::embedded::book::{HashKey, Location};
use crate::embedded::format::{
    BATCH_HEADER, BLOCK, BadHeader, Kind, SegmentHeader, batch_len_hint, segment_name,
    segment_of_name,
};
use crate::embedded::index_snapshot::{Doubt, Index, load};
use crate::embedded::scan::{Damage, Expect, scan, whole_batch};
use crate::embedded::shared::Segment;
use crate::embedded::vfs::{Vfs, VfsFile};
use crate::embedded::view::{Segments, View};
use crate::error::{Error, Kind as ErrorKind};

/// A log as it was found.
pub(crate) struct Replay {
    pub(crate) view: View,
    /// What the index on the disk and the log behind it come to, for comparing.
    pub(crate) beside: Option<Result<View, Doubt>>,
    /// There is an index that cannot be used.
    pub(crate) bad_index: bool,
    /// What speaks against the index that the view began with.
    doubt: Option<Doubt>,
    pub(crate) segments: Segments,
    starts_of: Starts,
    /// Segments that were made ready and in which the log never went on, in ascending order.
    pub(crate) unused: Vec<u32>,
    /// Files of segments that are no longer part of the log.
    pub(crate) stale: Vec<u32>,
    /// The lowest segment that is part of the log.
    pub(crate) head: u32,
    /// Where the next batch goes; none in an empty directory.
    pub(crate) end: Option<Location>,
    /// From here to the end nothing proves that the log is durable.
    pub(crate) unproven: Option<Location>,
    pub(crate) next_sequence: u64,
    pub(crate) store_id: Option<u64>,
    /// The size of the largest segment, as the headers tell.
    pub(crate) segment_bytes_max: u32,
    /// Where each segment's batches end, and the sequence it starts with.
    pub(crate) ends: BTreeMap<u32, u32>,
    pub(crate) starts: BTreeMap<u32, u64>,
    pub(crate) damage: Vec<(u32, Damage)>,
    pub(crate) records: u64,
    pub(crate) torn_bytes: u64,
}

/// Reads the whole log in a directory. Damage is noted and what is readable is read; only a newer
/// format and I/O errors end it.
pub(crate) fn replay(vfs: &dyn Vfs) -> Result<Replay, Error> {
    let mut replay = Replay::open(vfs, hash_key(vfs))?;
    replay.read_log(None)?;
    Ok(replay)
}

/// Reads the index of the directory and the log behind it; the whole log when there is the least
/// doubt about the index.
pub(crate) fn replay_from_index(vfs: &dyn Vfs) -> Result<Replay, Error> {
    let doubt = match load(vfs) {
        Ok(None) => return replay(vfs),
        Ok(Some(index)) => match Replay::resumed(vfs, index)? {
            Ok(replay) => return Ok(replay),
            Err(doubt) => doubt,
        },
        Err(doubt) => doubt,
    };
    tracing::warn!(%doubt, "the index on the disk is not used: the whole log is read");
    let mut replay = replay(vfs)?;
    replay.bad_index = true;
    Ok(replay)
}

/// Reads the whole log, and the index too, for comparing them. About 80 bytes of memory a key.
pub(crate) fn replay_beside_index(vfs: &dyn Vfs) -> Result<Replay, Error> {
    // The index first: a running store may replace it, and what it tells of is in the log by then.
    let (hash_key, index) = match load(vfs) {
        Ok(None) => return replay(vfs),
        Ok(Some(index)) => (index.header.hash_key, Ok(index)),
        Err(doubt) => (hash_key(vfs), Err(doubt)),
    };
    let mut replay = Replay::open(vfs, hash_key)?;
    replay.beside = Some(index.and_then(|index| replay.view_of(index)));
    replay.read_log(None)?;
    Ok(replay)
}

fn hash_key(vfs: &dyn Vfs) -> HashKey {
    let mut key = HashKey::default();
    key[..8].copy_from_slice(&vfs.random().to_le_bytes());
    key[8..].copy_from_slice(&vfs.random().to_le_bytes());
    key
}

/// Reasons that a repair must tell apart.
pub(crate) const MISSING: &str = "the segment is missing";
pub(crate) const FOREIGN: &str = "the segment belongs to another store";
pub(crate) const ASTRAY: &str = "more than 1,024 segments are missing before this one";
pub(crate) const GAP: &str = "more than 1,024 segments up to this one are missing";
pub(crate) const SHORT: &str = "the file is shorter than its header says: its end was cut off";

/// So many segments in a row may be missing, unless the log tells that they were dropped: more were
/// not lost, but a file came from elsewhere.
const MISSING_MAX: u32 = 1_024;

/// What the start of a segment tells before its batches are read.
#[derive(Clone, Copy)]
struct Start {
    /// None when it cannot be read.
    header: Option<SegmentHeader>,
    /// Where the log went on in the segment; none when the log never did, and when the place that
    /// tells it is damaged.
    sequence: Option<u64>,
}

type Starts = BTreeMap<u32, Start>;

impl Replay {
    /// Opens the segments of a directory and reads their headers.
    fn open(vfs: &dyn Vfs, hash_key: HashKey) -> Result<Self, Error> {
        let failed = |error| Error::io("list the store's directory", error);
        let names = vfs.list().map_err(failed)?;
        let numbers: BTreeSet<u32> = names.iter().filter_map(|n| segment_of_name(n)).collect();
        let mut replay = Self {
            view: View::new(hash_key),
            beside: None,
            bad_index: false,
            doubt: None,
            segments: Segments::new(),
            starts_of: Starts::new(),
            unused: Vec::new(),
            stale: Vec::new(),
            head: 0,
            end: None,
            unproven: None,
            next_sequence: 1,
            store_id: None,
            segment_bytes_max: 0,
            ends: BTreeMap::new(),
            starts: BTreeMap::new(),
            damage: Vec::new(),
            records: 0,
            torn_bytes: 0,
        };
        replay.open_segments(vfs, &numbers)?;
        Ok(replay)
    }

    /// An index and the log behind it.
    fn resumed(vfs: &dyn Vfs, index: Index) -> Result<Result<Self, Doubt>, Error> {
        let header = index.header;
        let mut replay = Self::open(vfs, header.hash_key)?;
        if !replay.damage.is_empty() {
            return Ok(Err("a segment has no readable header".into()));
        }
        match replay.view_of(index) {
            Ok(view) => replay.view = view,
            Err(doubt) => return Ok(Err(doubt)),
        }
        // It may be told only in front of the start.
        replay.head = replay.head.max(header.head);
        replay.read_log(Some((header.start, header.start_sequence)))?;
        if !replay.damage.is_empty() {
            return Ok(Err("the log is damaged".into()));
        }
        Ok(replay.doubt.take().map_or(Ok(replay), Err))
    }

    /// What an index says of this log, as far as it can be told before the log is read.
    fn view_of(&self, index: Index) -> Result<View, Doubt> {
        let start = index.header.start.segment;
        let head = self.head.max(index.header.head);
        // A missing one was dropped, as a Head record then tells, or is damage that is told anyway.
        if !self.starts_of.contains_key(&start) || start < head {
            return Err(Doubt::Outdated);
        }
        // Also of those that need not be read: without it they cannot be emptied and dropped later.
        let mut starts = self.starts_of.range(head..=start);
        if starts.any(|(_, start)| start.sequence.is_none()) {
            return Err("a segment does not tell where the log went on in it".into());
        }
        let store = Some(index.header.store_id);
        let sequence = Some(index.header.segment_sequence);
        if store != self.store_id || sequence != self.starts_of[&start].sequence {
            return Err("it belongs to another log".into());
        }
        View::resume(index, &self.segments, head)
    }

    /// Reads the log from `from` on: a place, and the sequence there.
    fn read_log(&mut self, from: Option<(Location, u64)>) -> Result<(), Error> {
        let starts = std::mem::take(&mut self.starts_of);
        let Some(&first) = starts.keys().next() else {
            return Ok(());
        };
        // A log whose headers are all unreadable tells no head; it starts with what is there then.
        let head = if self.head == 0 { first } else { self.head };
        let mut next = head;
        for (&number, start) in starts.range(head..) {
            if number - next > MISSING_MAX {
                if !start.is_of(self.store_id) {
                    // A stray file's number must not cost more than a look at it.
                    self.note(number, 0, 0, ASTRAY);
                    continue;
                }
                // Unless it holds Head records that tell otherwise: all headers were written before
                // those.
                self.note(number - 1, 0, 0, GAP);
                next = number;
            }
            for missing in next..number {
                self.note(missing, 0, 0, MISSING);
                let (_, noted) = self.damage.last_mut().expect("just noted");
                noted.sequence_after = starts.range(number..).find_map(|(_, next)| next.sequence);
            }
            next = number.saturating_add(1);
            if start.is_foreign(self.store_id) {
                self.note(number, 0, 0, FOREIGN);
            } else if from.is_none_or(|(place, _)| place.segment <= number) {
                let from = from.filter(|(place, _)| place.segment == number);
                self.read_segment(number, &starts, from)?;
            }
        }
        self.finish(first);
        Ok(())
    }

    fn open_segments(&mut self, vfs: &dyn Vfs, numbers: &BTreeSet<u32>) -> Result<(), Error> {
        let failed = |error| Error::io("open a segment", error);
        for &number in numbers {
            let file = match vfs.open(&segment_name(number)) {
                Ok(file) => file,
                // A live store dropped it since the directory was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            let mut bytes = [0; 64];
            let got = file.read_at(&mut bytes, 0).map_err(failed)?;
            let header = match SegmentHeader::decode(&bytes[..got], number) {
                Ok(header) => {
                    self.store_id.get_or_insert(header.store_id);
                    self.head = self.head.max(header.head);
                    self.segment_bytes_max = self.segment_bytes_max.max(header.segment_bytes);
                    Some(header)
                }
                Err(BadHeader::Newer(version)) => {
                    return Err(Error::new(ErrorKind::Version(number, version)));
                }
                Err(BadHeader::Damaged(reason)) => {
                    self.note(number, 0, 0, reason);
                    None
                }
            };
            let len = file.bytes().map_err(failed)?;
            let bytes = u32::try_from(len).unwrap_or(u32::MAX);
            let told = header.and_then(|header| header.sequence);
            let sequence = match told {
                Some(sequence) => Some(sequence),
                None => first_sequence(&*file, number, len).map_err(failed)?,
            };
            let segment = Segment {
                file,
                bytes,
                sequence: sequence.unwrap_or(0),
            };
            self.segments.insert(number, segment);
            self.starts_of.insert(number, Start { header, sequence });
        }
        Ok(())
    }

    fn read_segment(
        &mut self,
        number: u32,
        starts: &Starts,
        from: Option<(Location, u64)>,
    ) -> Result<(), Error> {
        let segment = self.segments.get_mut(&number);
        let segment = segment.expect("the caller has looked for it");
        let bytes = read_all(segment)?;
        let start = starts[&number];
        let first = start.sequence.unwrap_or(self.next_sequence);
        segment.sequence = first;
        let (offset, sequence) = from.map_or((BLOCK, first), |(place, at)| (place.offset, at));
        let expect = Expect {
            segment: number,
            offset,
            sequence,
            next_segment: starts
                .get(&number.wrapping_add(1))
                .and_then(|next| next.sequence),
        };
        let mut scanned = scan(&bytes, expect, |visited| {
            if visited.record.kind == Kind::Head {
                self.head = self.head.max(visited.record.token as u32);
            }
            self.view.apply(visited, number, &self.segments);
            if let Some(Ok(beside)) = &mut self.beside {
                beside.apply(visited, number, &self.segments);
            }
        });
        let whole = start.header.map_or(0, |header| header.segment_bytes);
        if expect.next_segment.is_none() && self.segments[&number].bytes < whole {
            // A file has its full size before it has its name, so this is no torn tail.
            scanned.torn_bytes = 0;
            scanned.damage.push(Damage {
                offset: scanned.end,
                end: whole,
                sequence: scanned.next_sequence,
                sequence_after: None,
                reason: SHORT,
            });
        }
        let is_blank = start.header.is_some() && start.sequence.is_none();
        if is_blank && expect.next_segment.is_none() && scanned.damage.is_empty() {
            // Made ready; or its first batch is torn, so that nobody was told that the log goes on.
            self.segments.remove(&number);
            self.unused.push(number);
            return Ok(());
        }
        let damage = scanned.damage.into_iter();
        self.damage.extend(damage.map(|damage| (number, damage)));
        self.records += scanned.records;
        self.torn_bytes += u64::from(scanned.torn_bytes);
        self.next_sequence = scanned.next_sequence;
        self.starts.insert(number, first);
        self.ends.insert(number, scanned.end);
        let location = |offset| Location {
            segment: number,
            offset,
        };
        self.end = Some(location(scanned.end));
        let unproven = scanned.unproven.front();
        self.unproven = unproven.map(|(_, offset)| location(*offset));
        Ok(())
    }

    fn finish(&mut self, first: u32) {
        let head = self.head;
        for number in first..head {
            if self.segments.remove(&number).is_some() {
                self.stale.push(number);
            }
        }
        self.damage.retain(|(segment, _)| *segment >= head);
        if let Some(Ok(beside)) = &mut self.beside
            && let Err(doubt) = beside.finish(head)
        {
            self.beside = Some(Err(doubt));
        }
        self.doubt = self.view.finish(head).err();
    }

    fn note(&mut self, segment: u32, offset: u32, end: u32, reason: &'static str) {
        let damage = Damage {
            offset,
            end,
            sequence: self.next_sequence,
            sequence_after: None,
            reason,
        };
        self.damage.push((segment, damage));
    }
}

impl Start {
    /// Whether a whole header says that it is a segment of this store.
    fn is_of(&self, store_id: Option<u64>) -> bool {
        self.header.is_some() && !self.is_foreign(store_id)
    }

    fn is_foreign(&self, store_id: Option<u64>) -> bool {
        self.header
            .is_some_and(|header| Some(header.store_id) != store_id)
    }
}

/// Where the log went on in a segment whose header does not say it: before its first batch
/// everything was synced. None when that batch is not whole.
fn first_sequence(file: &dyn VfsFile, segment: u32, file_bytes: u64) -> io::Result<Option<u64>> {
    let mut header = [0; BATCH_HEADER];
    if file.read_at(&mut header, u64::from(BLOCK))? < BATCH_HEADER {
        return Ok(None);
    }
    let len = batch_len_hint(&header) as u64;
    // A damaged length must not make us allocate more than a segment.
    if len > file_bytes.saturating_sub(u64::from(BLOCK)) {
        return Ok(None);
    }
    let mut batch = vec![0; len as usize];
    let got = file.read_at(&mut batch, u64::from(BLOCK))?;
    let header = whole_batch(&batch[..got], segment, BLOCK).ok();
    Ok(header.map(|header| header.synced_below))
}

pub(crate) fn read_all(segment: &Segment) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; segment.bytes as usize];
    let got = segment.file.read_at(&mut bytes, 0);
    let got = got.map_err(|error| Error::io("read a segment", error))?;
    bytes.truncate(got);
    Ok(bytes)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::embedded::format::Record;
    use crate::embedded::memory::Memory;
    use crate::embedded::repair::repair_on;
    use crate::embedded::tail::Chunk;
    use crate::{Options, Store};

    /// A log of one segment, made ready when the log began with segment 1.
    fn log_of(number: u32, records: &[Record<'_>]) -> Memory {
        let bytes = 64 << 10;
        let header = SegmentHeader {
            segment: number,
            segment_bytes: bytes,
            store_id: 9,
            sequence: None,
            head: 1,
        };
        let mut chunk = Chunk {
            segment: number,
            offset: BLOCK,
            sequence: 5_000,
            count: records.len() as u32,
            bytes: vec![0; BATCH_HEADER],
        };
        for record in records {
            record.encode(&mut chunk.bytes);
        }
        chunk.seal(5_000);
        let disk = Memory::default();
        let file = disk.create(&segment_name(number), u64::from(bytes));
        let file = file.expect("creates");
        file.write_all_at(&header.encode(), 0).expect("writes");
        let written = file.write_all_at(&chunk.bytes, u64::from(BLOCK));
        written.expect("writes");
        disk
    }

    #[test]
    fn a_log_opens_of_which_more_was_dropped_within_one_segment_than_may_be_missing() {
        let number = 3 * MISSING_MAX;
        let heads = [number - 7, number].map(|head| Record::bare(Kind::Head, head.into(), &[]));
        let disk = Arc::new(log_of(number, &heads));
        let opened = Store::open_on(Arc::clone(&disk) as Arc<dyn Vfs>, Options::new());
        opened.expect("opens").close().expect("closes");

        let gap = log_of(number, &heads[..1]);
        let damage = replay(&gap).expect("reads").damage;
        let found: Vec<_> = damage.iter().map(|(at, of)| (*at, of.reason)).collect();
        assert_eq!(found, [(number - 1, GAP)]);
        assert!(repair_on(&gap, false).is_err_and(|error| error.is_damaged()));
    }
}
