//! Writing the index to the disk between batches, a slice at a time, so that the next opening reads
//! it and the end of the log instead of the whole log. See docs/FORMAT.md, "Index snapshot".

use std::io;
use std::sync::Arc;

use crate::embedded::book::{Location, SHARDS};
use crate::embedded::index_snapshot::{
    FIRST_SECTION, Header, NAME, TEMPORARY, encode_expiring, encode_shard, seal_sections,
};
use crate::embedded::shared::{Shared, State};
use crate::embedded::tail::Spare;
use crate::embedded::vfs::VfsFile;

/// Bytes written and synced in one slice.
const SLICE: usize = 256 << 10;
/// Shards copied in one slice; each takes the lock for itself.
const SHARDS_SLICE: usize = 64;
/// Bytes of an outcome in the file.
const ENTRY: u64 = 16;

/// What the flusher remembers about the index on the disk.
#[derive(Default)]
pub(crate) struct IndexUpkeep {
    /// How far the log had come when the last index was begun, or given up.
    from: Option<Location>,
    writing: Option<Writing>,
}

/// An index on its way to the disk.
struct Writing {
    file: Arc<dyn VfsFile>,
    start: Location,
    start_sequence: u64,
    segment_sequence: u64,
    /// The next shard to copy.
    next: usize,
    /// Sections on their way, how much of them was written, and where the first one goes.
    buffer: Vec<u8>,
    written: usize,
    at: u64,
    outcomes: u64,
    claims: u64,
    end: Option<End>,
}

/// How the log stood when the last section was made.
#[derive(Clone, Copy)]
struct End {
    place: Location,
    sequence: u64,
    expired_below_ms: u64,
    head: u32,
}

/// What a call of [`Shared::write_index`] left to do.
pub(crate) enum Slice {
    More,
    /// A batch must be durable first.
    Later,
    Done,
}

impl IndexUpkeep {
    pub(crate) fn after(from: Option<Location>) -> Self {
        let writing = None;
        Self { from, writing }
    }
}

impl Shared {
    /// Writes a slice of the index, when one is due. A failure costs only time at the next opening.
    pub(crate) fn write_index(&self, index: &mut IndexUpkeep) -> Slice {
        match self.index_slice(index) {
            Ok(slice) => slice,
            Err(error) => {
                tracing::warn!(%error, "the index could not be written: opening will take longer");
                index.writing = None;
                let _ = self.vfs.remove(TEMPORARY);
                Slice::Done
            }
        }
    }

    fn index_slice(&self, index: &mut IndexUpkeep) -> io::Result<Slice> {
        let Some(mut writing) = index.writing.take() else {
            self.start_index(index)?;
            return Ok(match index.writing {
                Some(_) => Slice::More,
                None => Slice::Done,
            });
        };
        if writing.written == writing.buffer.len() && !writing.copy(self) {
            if !self.log_is_durable(&writing)? {
                index.writing = Some(writing);
                return Ok(Slice::Later);
            }
            self.finish_index(&writing)?;
            return Ok(Slice::Done);
        }
        writing.write_slice()?;
        index.writing = Some(writing);
        Ok(Slice::More)
    }

    fn start_index(&self, index: &mut IndexUpkeep) -> io::Result<()> {
        let state = self.lock();
        if matches!(state.tail.spare, Spare::Lacks(_))
            || !state.index_wanted(index.from, self.options.index_log_bytes)
        {
            return Ok(());
        }
        let (start, start_sequence) = state.tail.open_start();
        // The open batch may start a segment that the log has not come to yet: next time, then.
        let Some(segment) = state.segments.get(&start.segment) else {
            return Ok(());
        };
        let segment_sequence = segment.sequence;
        index.from = Some(start);
        let keys = state.book.stored() as u64;
        drop(state);
        let sections = (SHARDS as u64 + 1) * 32;
        let bytes = FIRST_SECTION + sections + keys * ENTRY;
        index.writing = Some(Writing {
            file: self.vfs.create(TEMPORARY, bytes)?,
            start,
            start_sequence,
            segment_sequence,
            next: 0,
            buffer: Vec::new(),
            written: 0,
            at: FIRST_SECTION,
            outcomes: 0,
            claims: 0,
            end: None,
        });
        Ok(())
    }

    /// Whether everything that the index tells of is durable; asks for it when not.
    fn log_is_durable(&self, writing: &Writing) -> io::Result<bool> {
        let end = writing.end.expect("all sections were made").place;
        {
            let mut state = self.lock();
            let last = Location {
                offset: end.offset - 1,
                ..end
            };
            if state.tail.pending(last).is_some() {
                state.urgent = true;
                self.wake_flusher(&mut state);
                return Ok(false);
            }
        }
        // Written is not synced at every durability.
        let synced = self.sync_written();
        synced.map_err(io::Error::other)?;
        Ok(true)
    }

    fn finish_index(&self, writing: &Writing) -> io::Result<()> {
        let end = writing.end.expect("all sections were made");
        let header = Header {
            store_id: self.writer.lock().store_id,
            hash_key: self.lock().book.hash_key(),
            bytes: writing.at,
            start: writing.start,
            start_sequence: writing.start_sequence,
            segment_sequence: writing.segment_sequence,
            end: end.place,
            end_sequence: end.sequence,
            outcomes: writing.outcomes,
            claims: writing.claims,
            expired_below_ms: end.expired_below_ms,
            head: end.head,
        };
        writing.file.write_all_at(&header.encode(), 0)?;
        writing.file.sync_data()?;
        self.vfs.rename(TEMPORARY, NAME)?;
        self.vfs.sync_dir()?;
        let mut state = self.lock();
        state.stats.index_snapshots += 1;
        Ok(())
    }
}

impl State {
    /// Whether so much was appended since the last index that a new one is due: twice its size, so
    /// that writing it costs at most half of what the log costs.
    fn index_wanted(&self, from: Option<Location>, bytes_min: u64) -> bool {
        let at = self.tail.at();
        let from = from.unwrap_or(Location {
            segment: *self.segments.keys().next().unwrap_or(&at.segment),
            offset: 0,
        });
        let segments = u64::from(at.segment - from.segment);
        let appended = segments * u64::from(self.tail.segment_bytes()) + u64::from(at.offset);
        let appended = appended.saturating_sub(u64::from(from.offset));
        appended >= bytes_min.max(2 * ENTRY * self.book.stored() as u64)
    }
}

impl Writing {
    /// Copies the next shards; false when all are there.
    fn copy(&mut self, shared: &Shared) -> bool {
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        self.written = 0;
        let last = (self.next + SHARDS_SLICE).min(SHARDS);
        while self.next < last && self.buffer.len() < SLICE {
            let state = shared.lock();
            let position = state.tail.at();
            let (outcomes, claims) =
                encode_shard(&state.book, self.next, position, &mut self.buffer);
            self.outcomes += outcomes;
            self.claims += claims;
            self.next += 1;
        }
        if self.buffer.is_empty() && self.end.is_none() {
            let state = shared.lock();
            let place = state.tail.at();
            encode_expiring(&state.book, place, &mut self.buffer);
            self.end = Some(End {
                place,
                sequence: state.tail.next_sequence(),
                expired_below_ms: state.book.expired_below_ms(),
                head: state.head_told,
            });
        }
        seal_sections(&mut self.buffer);
        !self.buffer.is_empty()
    }

    fn write_slice(&mut self) -> io::Result<()> {
        let to = (self.written + SLICE).min(self.buffer.len());
        let at = self.at + self.written as u64;
        self.file.write_all_at(&self.buffer[self.written..to], at)?;
        // Bit by bit, so that no sync of the log has to wait for all of it.
        self.file.sync_data()?;
        self.written = to;
        Ok(())
    }
}
