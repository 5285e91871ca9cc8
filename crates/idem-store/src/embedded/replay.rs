//! Reading a log back: what opening, verifying and inspecting a store have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::embedded::book::{HashKey, Location};
use crate::embedded::format::{
    BLOCK, BadHeader, BatchHeader, Kind, SegmentHeader, segment_name, segment_of_name,
};
use crate::embedded::index_snapshot::{Doubt, Index, load};
use crate::embedded::scan::{Damage, Expect, scan};
use crate::embedded::shared::Segment;
use crate::embedded::vfs::Vfs;
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
    headers: Headers,
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
const SHORT: &str = "the file is shorter than its header says: its end was cut off";

type Headers = BTreeMap<u32, Option<SegmentHeader>>;

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
            headers: Headers::new(),
            stale: Vec::new(),
            head: 0,
            end: None,
            unproven: None,
            next_sequence: 1,
            store_id: None,
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
        replay.read_log(Some((header.start, header.start_sequence)))?;
        if !replay.damage.is_empty() {
            return Ok(Err("the log is damaged".into()));
        }
        Ok(replay.doubt.take().map_or(Ok(replay), Err))
    }

    /// What an index says of this log, as far as it can be told before the log is read.
    fn view_of(&self, index: Index) -> Result<View, Doubt> {
        let start = index.header.start.segment;
        // A missing one was dropped, as a Head record then tells, or is damage that is told anyway.
        let Some(Some(header)) = self.headers.get(&start).filter(|_| start >= self.head) else {
            return Err(Doubt::Outdated);
        };
        let store = Some(index.header.store_id);
        if store != self.store_id || index.header.segment_sequence != header.sequence {
            return Err("it belongs to another log".into());
        }
        View::resume(index, &self.segments, self.head)
    }

    /// Reads the log from `from` on: a place, and the sequence there.
    fn read_log(&mut self, from: Option<(Location, u64)>) -> Result<(), Error> {
        let headers = std::mem::take(&mut self.headers);
        let Some((&first, &last)) = headers.keys().next().zip(headers.keys().next_back()) else {
            return Ok(());
        };
        // A log whose headers are all unreadable tells no head; it starts with what is there then.
        let head = if self.head == 0 { first } else { self.head };
        for number in head..=last {
            if !self.segments.contains_key(&number) {
                let next = headers.range(number..).find_map(|(_, header)| *header);
                self.note(number, 0, 0, MISSING);
                let (_, noted) = self.damage.last_mut().expect("just noted");
                noted.sequence_after = next.map(|header| header.sequence);
            } else if headers[&number].is_some_and(|h| Some(h.store_id) != self.store_id) {
                self.note(number, 0, 0, FOREIGN);
            } else if from.is_none_or(|(place, _)| place.segment <= number) {
                let from = from.filter(|(place, _)| place.segment == number);
                self.read_segment(number, &headers, from)?;
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
            let sequence = header.map_or(0, |header| header.sequence);
            let segment = Segment {
                file,
                bytes,
                sequence,
            };
            self.segments.insert(number, segment);
            self.headers.insert(number, header);
        }
        Ok(())
    }

    fn read_segment(
        &mut self,
        number: u32,
        headers: &Headers,
        from: Option<(Location, u64)>,
    ) -> Result<(), Error> {
        let bytes = read_all(&self.segments[&number])?;
        let first = match headers[&number] {
            Some(header) => header.sequence,
            None => first_sequence(&bytes, number).unwrap_or(self.next_sequence),
        };
        let (offset, sequence) = from.map_or((BLOCK, first), |(place, at)| (place.offset, at));
        let expect = Expect {
            segment: number,
            offset,
            sequence,
            next_segment: self.first_sequence_after(number, headers)?,
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
        let whole = headers[&number].map_or(0, |header| header.segment_bytes);
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

    /// The sequence at which the segment after `number` starts, from its header or else from its
    /// first batch.
    fn first_sequence_after(&self, number: u32, headers: &Headers) -> Result<Option<u64>, Error> {
        let Some((&next, header)) = headers.range(number + 1..).next() else {
            return Ok(None);
        };
        if next != number + 1 {
            return Ok(None);
        }
        if let Some(header) = header {
            return Ok(Some(header.sequence));
        }
        let segment = &self.segments[&next];
        Ok(first_sequence(&read_all(segment)?, next))
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

/// The sequence of the first batch of a segment whose header says nothing.
fn first_sequence(bytes: &[u8], segment: u32) -> Option<u64> {
    let first = bytes.get(BLOCK as usize..)?;
    let header = BatchHeader::decode(first, segment, BLOCK).ok()?;
    Some(header.sequence)
}

pub(crate) fn read_all(segment: &Segment) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; segment.bytes as usize];
    let got = segment.file.read_at(&mut bytes, 0);
    let got = got.map_err(|error| Error::io("read a segment", error))?;
    bytes.truncate(got);
    Ok(bytes)
}
