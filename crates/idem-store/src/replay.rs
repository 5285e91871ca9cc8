//! Reading a whole log back: what opening, verifying and inspecting a store have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::book::{Book, Claim, Location};
use crate::error::{Error, Kind as ErrorKind};
use crate::format::{
    BLOCK, BadHeader, BatchHeader, FLAG_DECLARED, Kind, Record, SegmentHeader, segment_name,
    segment_of_name,
};
use crate::scan::{Damage, Expect, scan};
use crate::shared::Segment;
use crate::stored::{Stored, read_stored};
use crate::vfs::Vfs;

/// A log as it was found.
pub(crate) struct Replay {
    pub(crate) book: Book,
    pub(crate) segments: BTreeMap<u32, Segment>,
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

/// Reads the log in a directory. Damage is noted and what is readable is read; only a newer format
/// and I/O errors end it.
pub(crate) fn replay(vfs: &dyn Vfs) -> Result<Replay, Error> {
    let failed = |error| Error::io("list the store's directory", error);
    let names = vfs.list().map_err(failed)?;
    let numbers: BTreeSet<u32> = names.iter().filter_map(|n| segment_of_name(n)).collect();
    let mut replay = Replay {
        book: Book::new(),
        segments: BTreeMap::new(),
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
    let headers = replay.open_segments(vfs, &numbers)?;
    let Some((&first, &last)) = headers.keys().next().zip(headers.keys().next_back()) else {
        return Ok(replay);
    };
    // A log whose headers are all unreadable tells no head; it starts with what is there then.
    let head = if replay.head == 0 { first } else { replay.head };
    for number in head..=last {
        if replay.segments.contains_key(&number) {
            replay.read_segment(number, &headers)?;
        } else {
            let next = headers.range(number..).find_map(|(_, header)| *header);
            replay.note(number, 0, 0, MISSING);
            let (_, noted) = replay.damage.last_mut().expect("just noted");
            noted.sequence_after = next.map(|header| header.sequence);
        }
    }
    replay.finish(first);
    Ok(replay)
}

/// Reasons that a repair must tell apart.
pub(crate) const MISSING: &str = "the segment is missing";
pub(crate) const FOREIGN: &str = "the segment belongs to another store";

type Headers = BTreeMap<u32, Option<SegmentHeader>>;

impl Replay {
    fn open_segments(&mut self, vfs: &dyn Vfs, numbers: &BTreeSet<u32>) -> Result<Headers, Error> {
        let failed = |error| Error::io("open a segment", error);
        let mut headers = Headers::new();
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
            headers.insert(number, header);
        }
        Ok(headers)
    }

    fn read_segment(&mut self, number: u32, headers: &Headers) -> Result<(), Error> {
        let bytes = read_all(&self.segments[&number])?;
        let header = headers[&number];
        let foreign = header.is_some_and(|h| Some(h.store_id) != self.store_id);
        if foreign {
            self.note(number, 0, 0, FOREIGN);
            return Ok(());
        }
        let sequence = match header {
            Some(header) => header.sequence,
            None => first_sequence(&bytes, number).unwrap_or(self.next_sequence),
        };
        let expect = Expect {
            segment: number,
            sequence,
            next_segment: self.first_sequence_after(number, headers)?,
        };
        let scanned = scan(&bytes, expect, |record, offset, len| {
            let location = Location {
                segment: number,
                offset,
            };
            self.apply(record, location, len as u32);
        });
        let damage = scanned.damage.into_iter();
        self.damage.extend(damage.map(|damage| (number, damage)));
        self.records += scanned.records;
        self.torn_bytes += u64::from(scanned.torn_bytes);
        self.next_sequence = scanned.next_sequence;
        self.starts.insert(number, sequence);
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

    /// What a record says, applied to the book.
    fn apply(&mut self, record: &Record<'_>, location: Location, bytes: u32) {
        let hash = self.book.hash(record.key);
        match record.kind {
            Kind::Claim => {
                self.forget(hash, record.key);
                self.book.insert_claim(Claim {
                    hash,
                    key: record.key.into(),
                    fingerprint: record.fingerprint,
                    token: record.token,
                    lease_until_ms: 0,
                    at_ms: record.time_ms,
                    memo: record.payload.into(),
                    declared: record.flags & FLAG_DECLARED != 0,
                    held: true,
                    location,
                    bytes,
                    waiters: Vec::new(),
                });
            }
            Kind::Outcome => {
                self.forget(hash, record.key);
                self.book
                    .insert_place(hash, location, bytes, record.time_ms);
            }
            Kind::Release | Kind::Forget => self.forget(hash, record.key),
            Kind::Opened => self.end_leases(),
            Kind::Head => self.head = self.head.max(record.token as u32),
            Kind::Closed | Kind::Hole => {}
        }
    }

    fn forget(&mut self, hash: u64, key: &[u8]) {
        self.book.remove_claim(hash, key);
        if let Some((place, stored)) = self.find(hash, key) {
            let (bytes, until_ms) = (stored.record_bytes, stored.retain_until_ms);
            self.book.remove_place(hash, place, bytes, until_ms);
        }
    }

    /// The outcome of a key, compared in the log.
    pub(crate) fn find(&self, hash: u64, key: &[u8]) -> Option<(Location, Stored)> {
        self.book.places(hash).find_map(|place| {
            let segment = self.segments.get(&place.segment)?;
            // A record that was valid a moment ago and cannot be read now is reported by whoever
            // needs it next.
            let stored = read_stored(&*segment.file, place, key).ok()??;
            Some((place, stored))
        })
    }

    /// No holder survives the opening of a store.
    fn end_leases(&mut self) {
        self.book.retain_claims(|claim| {
            claim.held = false;
            claim.declared
        });
    }

    fn finish(&mut self, first: u32) {
        self.end_leases();
        let head = self.head;
        self.book
            .retain_claims(|claim| claim.location.segment >= head);
        self.book.retain_from(head);
        for number in first..head {
            if self.segments.remove(&number).is_some() {
                self.stale.push(number);
            }
        }
        self.damage.retain(|(segment, _)| *segment >= head);
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
