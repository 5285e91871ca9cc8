//! What the flusher does between batches, a slice at a time: the next segment is made ready, and
//! old segments are emptied and dropped so that disk use follows what is still needed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::book::{Book, Location};
use crate::error::Error;
use crate::flush::Writer;
use crate::format::{BATCH_HEADER, BLOCK, BatchHeader, Kind, Record, segment_name};
use crate::shared::{Shared, State};
use crate::tail::{Purpose, Spare};
use crate::vfs::VfsFile;

/// The file that becomes the next segment.
pub(crate) const SPARE: &str = "spare.tmp";

/// Zeros are written to the spare in slices of this size. Overwriting written blocks costs one
/// device write per sync; writing allocated but unwritten ones costs a journal commit as well.
const ZERO_SLICE: usize = 512 << 10;
/// An old segment is read in slices of this size.
const READ_SLICE: usize = 1 << 20;
/// Records looked at in one slice, and bytes of them carried.
const RECORDS_SLICE: usize = 256;
const CARRY_SLICE: usize = 32 << 10;
/// How long to wait before trying again on a full disk.
const RETRY: Duration = Duration::from_millis(200);

#[derive(Default)]
pub(crate) struct Upkeep {
    spare: SpareFile,
    compaction: Option<Compaction>,
    /// There is no room to carry records now.
    paused: bool,
    /// An old segment could not be read back: leave it alone until the store is opened again.
    given_up: bool,
}

#[derive(Default)]
enum SpareFile {
    #[default]
    None,
    Zeroing(Arc<dyn VfsFile>, u64),
    Ready(Arc<dyn VfsFile>),
}

/// An old segment on its way out.
struct Compaction {
    segment: u32,
    file: Arc<dyn VfsFile>,
    /// Sequence at which the next segment starts: where this one must end.
    sequence_end: u64,
    bytes: Vec<u8>,
    /// Bytes of the file that were read.
    read: usize,
    /// The walk: next record, end of its batch, sequence after that batch.
    at: usize,
    batch_end: usize,
    sequence: u64,
    /// The place of the record that cuts the segment off, once it was appended.
    cut: Option<Location>,
}

/// How a walk over a slice of an old segment ended.
enum Walk {
    More,
    NoRoom,
    Finished,
}

impl Upkeep {
    pub(crate) fn take_spare(&mut self) -> Option<Arc<dyn VfsFile>> {
        match std::mem::take(&mut self.spare) {
            SpareFile::Ready(file) | SpareFile::Zeroing(file, _) => Some(file),
            SpareFile::None => None,
        }
    }

    /// Whether another slice is waiting.
    pub(crate) fn has_work(&self) -> bool {
        let carrying = self.compaction.is_some() && !self.paused;
        matches!(self.spare, SpareFile::Zeroing(..)) || carrying
    }
}

impl Shared {
    /// Does a little of what is due: at most a few milliseconds of it.
    pub(crate) fn upkeep_slice(&self, now: Instant) {
        let mut writer = self.writer.lock();
        if self.lock().poison.is_some() {
            return;
        }
        self.prepare_spare(&mut writer, now);
        if let Err(error) = self.compact(&mut writer) {
            tracing::error!(%error, "an old segment cannot be dropped: run verify");
            writer.upkeep.given_up = true;
            writer.upkeep.compaction = None;
        }
    }

    fn prepare_spare(&self, writer: &mut Writer, now: Instant) {
        let wanted = self.lock().spare_wanted(now);
        // A spare that is promised to the open batch stays here until that batch is written.
        if matches!(writer.upkeep.spare, SpareFile::Ready(_)) {
            return;
        }
        let result = match std::mem::take(&mut writer.upkeep.spare) {
            SpareFile::None if wanted => self.start_spare(),
            SpareFile::Zeroing(file, done) => self.zero_spare(file, done),
            spare => Ok(spare),
        };
        let mut state = self.lock();
        match result {
            Ok(spare) => {
                if matches!(spare, SpareFile::Ready(_)) {
                    state.tail.spare = Spare::Ready;
                } else if matches!(spare, SpareFile::Zeroing(..)) {
                    state.tail.spare = Spare::Preparing;
                }
                writer.upkeep.spare = spare;
            }
            // Not fatal yet: the current segment has room. New keys wait, and it is tried again.
            Err(error) => {
                if !matches!(state.tail.spare, Spare::DiskFull) {
                    let bytes = self.options.segment_bytes_max;
                    tracing::warn!(%error, bytes, "no room for the next segment: new keys are refused");
                }
                let _ = self.vfs.remove(SPARE);
                state.tail.spare = Spare::DiskFull;
                state.spare_retry_at = Some(now + RETRY);
            }
        }
    }

    fn start_spare(&self) -> std::io::Result<SpareFile> {
        let bytes = u64::from(self.options.segment_bytes_max);
        Ok(SpareFile::Zeroing(self.vfs.create(SPARE, bytes)?, 0))
    }

    fn zero_spare(&self, file: Arc<dyn VfsFile>, done: u64) -> std::io::Result<SpareFile> {
        const ZEROS: &[u8] = &[0; ZERO_SLICE];
        let total = u64::from(self.options.segment_bytes_max);
        let slice = (total - done).min(ZERO_SLICE as u64);
        file.write_all_at(&ZEROS[..slice as usize], done)?;
        file.sync_data()?;
        let done = done + slice;
        Ok(if done == total {
            SpareFile::Ready(file)
        } else {
            SpareFile::Zeroing(file, done)
        })
    }

    fn compact(&self, writer: &mut Writer) -> Result<(), Error> {
        writer.upkeep.paused = false;
        if writer.upkeep.compaction.is_none() && !writer.upkeep.given_up {
            writer.upkeep.compaction = self.lock().next_compaction();
        }
        let Some(mut old) = writer.upkeep.compaction.take() else {
            return Ok(());
        };
        if let Some(place) = old.cut {
            if self.lock().tail.pending(place).is_some() {
                writer.upkeep.compaction = Some(old);
                return Ok(());
            }
            return self.drop_segment(writer, old.segment);
        }
        if !old.read_slice()? {
            let mut state = self.lock();
            match old.carry(&mut state)? {
                Walk::More => {}
                Walk::NoRoom => writer.upkeep.paused = true,
                Walk::Finished => match state.append_head(old.segment + 1) {
                    Ok(place) => old.cut = Some(place),
                    Err(_) => writer.upkeep.paused = true,
                },
            }
        }
        writer.upkeep.compaction = Some(old);
        Ok(())
    }

    /// Removes a segment that the durable log no longer contains.
    fn drop_segment(&self, writer: &mut Writer, segment: u32) -> Result<(), Error> {
        self.sync_through(writer)?;
        self.lock().drop_segment(segment);
        // Should the removal be lost or fail, the file is below the head and ignored on opening.
        let removed = self.vfs.remove(&segment_name(segment));
        if let Err(error) = removed.and_then(|()| self.vfs.sync_dir()) {
            tracing::warn!(%error, segment, "a segment that is no longer used was not removed");
        }
        Ok(())
    }
}

impl State {
    /// Whether it is time to make a spare segment.
    fn spare_wanted(&self, now: Instant) -> bool {
        match self.tail.spare {
            Spare::Ready => false,
            Spare::Preparing => true,
            Spare::DiskFull => self.spare_retry_at.is_none_or(|at| at <= now),
        }
    }

    /// The oldest segment, when the log takes more than twice what is still needed.
    fn next_compaction(&mut self) -> Option<Compaction> {
        let now_ms = self.now_ms;
        self.book.sweep(now_ms);
        let mut oldest = self.segments.iter();
        let (&segment, first) = oldest.next()?;
        let (_, second) = oldest.next()?;
        let sealed: u64 = self.segments.values().map(|s| u64::from(s.bytes)).sum();
        let spared = 2 * u64::from(first.bytes) + 2 * self.book.live_bytes();
        if sealed <= spared {
            return None;
        }
        Some(Compaction {
            segment,
            file: Arc::clone(&first.file),
            sequence_end: second.sequence,
            bytes: vec![0; first.bytes as usize],
            read: 0,
            at: BLOCK as usize,
            batch_end: BLOCK as usize,
            sequence: first.sequence,
            cut: None,
        })
    }

    fn append_head(&mut self, head: u32) -> Result<Location, Error> {
        let record = Record::bare(Kind::Head, u64::from(head), &[]);
        self.tail.admit(record.padded_len(), Purpose::Upkeep)?;
        let place = self.append(&record, Purpose::Upkeep);
        self.urgent = true;
        Ok(place)
    }

    fn drop_segment(&mut self, segment: u32) {
        self.segments.remove(&segment);
        self.stats.segments_dropped += 1;
    }

    /// Copies a record to the end of the log when it is still needed.
    fn carry(&mut self, record: &Record<'_>, from: Location, len: usize) -> usize {
        let hash = self.book.hash(record.key);
        match record.kind {
            Kind::Outcome if self.book.has_place(hash, from) => {
                if record.time_ms <= self.now_ms {
                    let (bytes, until_ms) = (len as u32, record.time_ms);
                    self.book.remove_place(hash, from, bytes, until_ms);
                    return 0;
                }
                let to = self.append(record, Purpose::End);
                self.book.move_place(hash, from, to);
            }
            Kind::Claim if is_current(&self.book, hash, record.key, from) => {
                let to = self.append(record, Purpose::End);
                self.book
                    .update(hash, record.key, |claim| claim.location = to);
            }
            _ => return 0,
        }
        self.stats.records_carried += 1;
        len
    }
}

fn is_current(book: &Book, hash: u64, key: &[u8], from: Location) -> bool {
    book.claim(hash, key)
        .is_some_and(|claim| claim.location == from)
}

impl Compaction {
    /// Reads some more of the segment; whether there was more to read.
    fn read_slice(&mut self) -> Result<bool, Error> {
        if self.read == self.bytes.len() {
            return Ok(false);
        }
        let end = (self.read + READ_SLICE).min(self.bytes.len());
        let slice = &mut self.bytes[self.read..end];
        let got = self.file.read_at(slice, self.read as u64);
        let got = got.map_err(|error| Error::io("read an old segment", error))?;
        if got < slice.len() {
            return Err(self.damaged(self.read + got, "the segment ends too early"));
        }
        self.read = end;
        Ok(true)
    }

    /// Looks at some records and carries those that are still needed.
    fn carry(&mut self, state: &mut State) -> Result<Walk, Error> {
        let mut carried = 0;
        for _ in 0..RECORDS_SLICE {
            if !state.may_carry() {
                return Ok(Walk::NoRoom);
            }
            if self.at == self.batch_end && !self.next_batch()? {
                return Ok(Walk::Finished);
            }
            let from = Location {
                segment: self.segment,
                offset: self.at as u32,
            };
            let rest = &self.bytes[self.at..self.batch_end];
            let record = Record::decode(rest, self.segment, from.offset);
            let (record, len) = record.map_err(|reason| self.damaged(self.at, reason))?;
            if record.kind == Kind::Hole {
                self.sequence = record.token;
            }
            carried += state.carry(&record, from, len);
            self.at += len;
            if carried >= CARRY_SLICE {
                break;
            }
        }
        Ok(Walk::More)
    }

    /// Goes on to the next batch; false at the end of the segment.
    fn next_batch(&mut self) -> Result<bool, Error> {
        if self.sequence == self.sequence_end {
            return Ok(false);
        }
        let rest = &self.bytes[self.at..];
        let header = BatchHeader::decode(rest, self.segment, self.at as u32);
        let header = header.map_err(|reason| self.damaged(self.at, reason))?;
        self.sequence = header.sequence + u64::from(header.count);
        self.batch_end = self.at + header.len as usize;
        self.at += BATCH_HEADER;
        Ok(true)
    }

    fn damaged(&self, at: usize, reason: &'static str) -> Error {
        Error::damaged(self.segment, at as u64, reason)
    }
}

impl State {
    /// Whether carrying leaves enough room for what callers need to write.
    fn may_carry(&self) -> bool {
        self.tail.spare == Spare::Ready || self.tail.room() > self.tail.segment_bytes() / 2
    }
}
