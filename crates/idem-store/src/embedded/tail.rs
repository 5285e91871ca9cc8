//! The end of the log: the batch that is open, and where it will lie.
//!
//! Pure: it decides places and sequences; the flush thread does the writing.

use std::sync::{Arc, Weak};

use crate::completion::{Event, Helper};
use crate::embedded::book::Location;
use crate::embedded::format::{self, BATCH_HEADER, BLOCK, BatchHeader, Record};
use crate::embedded::spare::Lack;
use crate::error::{Error, Kind};

/// Why a record is written; decides whether it may be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A new claim: refused when the disk is full or too much waits already.
    Begin,
    /// Changes a claim or forgets a key: refused only when there is no room at all.
    Change,
    /// Ends a claim: never refused, because what its holder knows would be lost. Each claim ends
    /// once, so a full disk leaves no more of these to keep than there are claims.
    End,
    /// Housekeeping of a few bytes, which may use the reserve at the end of a segment.
    Upkeep,
}

/// Whether there is a segment to go on with once this one is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spare {
    Ready,
    Preparing,
    /// Making one failed because of this.
    Lacks(Lack),
}

/// The part of a batch that lies in one segment.
pub(crate) struct Chunk {
    pub(crate) segment: u32,
    pub(crate) offset: u32,
    pub(crate) sequence: u64,
    pub(crate) count: u32,
    /// Room for the header, then the records.
    pub(crate) bytes: Vec<u8>,
}

impl Chunk {
    /// Fills in every checksum and the header: the chunk is ready to be written.
    pub(crate) fn seal(&mut self, synced_below: u64) {
        let mut at = BATCH_HEADER;
        while at < self.bytes.len() {
            let offset = self.offset + at as u32;
            at += format::seal_record(&mut self.bytes[at..], self.segment, offset);
        }
        let header = BatchHeader {
            len: self.bytes.len() as u32,
            count: self.count,
            sequence: self.sequence,
            synced_below,
        };
        self.bytes[..BATCH_HEADER].copy_from_slice(&header.encode(self.segment, self.offset));
    }
}

/// A batch as it is cut off for writing.
pub(crate) struct Cut {
    pub(crate) chunks: Vec<Chunk>,
    pub(crate) event: Arc<Event>,
    pub(crate) records: u32,
    pub(crate) end: Location,
    /// How many chunks were written.
    pub(crate) written: usize,
}

impl Cut {
    /// The end of what was written of it in segments before the one that there is no space for.
    pub(crate) fn written_end(&self) -> Option<Location> {
        let last = self.chunks[..self.written].last()?;
        Some(Location {
            segment: last.segment,
            offset: last.offset + last.bytes.len() as u32,
        })
    }
}

pub(crate) struct Tail {
    /// Size of the segment that is being filled, and of those to come.
    segment_bytes: u32,
    next_segment_bytes: u32,
    batch_bytes_max: u32,
    /// Where the next byte of the log goes.
    at: Location,
    next_sequence: u64,
    chunks: Vec<Chunk>,
    /// Bytes and records of the open batch, and the event that settles it.
    bytes: usize,
    records: u32,
    event: Arc<Event>,
    /// The batch that is being written, if any, and where it starts.
    flushing: Option<(Location, Arc<Event>)>,
    /// Everything below is as durable as the options ask.
    durable: Location,
    pub(crate) spare: Spare,
    /// The last segment that has its file.
    rolled: u32,
    /// A batch that was cut waits for something, for what, and whether it is there now.
    held: bool,
    lack: Lack,
    resume: bool,
    /// The record of the opening that jumped ahead is not written yet.
    opening: bool,
    /// Those who waited for it were told that there is no space.
    told: bool,
    recycled: Vec<Vec<u8>>,
    helper: Option<Weak<dyn Helper>>,
}

/// Bytes at the end of each segment that only [`Purpose::Upkeep`] may use, so that a store on a
/// full disk can still be opened and closed.
const RESERVE: u32 = BLOCK;

impl Tail {
    pub(crate) fn new(
        segment_bytes: u32,
        next_segment_bytes: u32,
        batch_bytes_max: u32,
        at: Location,
        next_sequence: u64,
    ) -> Self {
        Self {
            segment_bytes,
            next_segment_bytes,
            batch_bytes_max,
            at,
            next_sequence,
            chunks: Vec::new(),
            bytes: 0,
            records: 0,
            event: Event::new(),
            flushing: None,
            durable: at,
            spare: Spare::Preparing,
            rolled: at.segment,
            held: false,
            lack: Lack::Space,
            resume: false,
            opening: false,
            told: false,
            recycled: Vec::new(),
            helper: None,
        }
    }

    /// Whom to ask for help with the batches from now on; nothing was appended yet.
    pub(crate) fn helped_by(&mut self, helper: Weak<dyn Helper>) {
        self.helper = Some(helper);
        self.event = self.new_event();
    }

    fn new_event(&self) -> Arc<Event> {
        self.helper.clone().map_or_else(Event::new, Event::helped)
    }

    /// Whether a record of this length can be taken now; [`append`](Self::append) cannot fail then.
    pub(crate) fn admit(&self, len: usize, purpose: Purpose) -> Result<(), Error> {
        if self.held {
            return Err(self.lack.error());
        }
        if purpose == Purpose::Begin {
            if self.opening {
                // A crash would lose the jump, and the next opening give the same tokens again.
                return Err(self.lack.error());
            }
            if let Spare::Lacks(lack) = self.spare {
                return Err(lack.error());
            }
            // One record is taken in any case: a claim in doubt can be of a time with longer memos.
            let alone = self.bytes == 0 && self.batch_bytes_max > 0;
            if !alone && self.bytes + len > self.batch_bytes_max as usize {
                return Err(Error::new(Kind::Busy("too much waits for the next sync")));
            }
        }
        if self.fits(len, purpose) {
            return Ok(());
        }
        match (self.spare, purpose) {
            (Spare::Preparing, Purpose::Begin) => {
                Err(Error::new(Kind::Busy("the next segment is not ready yet")))
            }
            (Spare::Ready | Spare::Preparing, _) => Ok(()),
            (Spare::Lacks(lack), _) => Err(lack.error()),
        }
    }

    /// Adds a record to the open batch; returns its place and its sequence.
    pub(crate) fn append(&mut self, record: &Record<'_>, purpose: Purpose) -> (Location, u64) {
        let len = record.padded_len();
        if !self.fits(len, purpose) {
            self.at = Location {
                segment: self.at.segment + 1,
                offset: BLOCK,
            };
            self.segment_bytes = self.next_segment_bytes;
            if self.spare == Spare::Ready {
                self.spare = Spare::Preparing;
            }
        }
        let fresh = self
            .chunks
            .last()
            .is_none_or(|chunk| chunk.segment != self.at.segment);
        if fresh {
            let mut bytes = self.recycled.pop().unwrap_or_default();
            bytes.clear();
            bytes.resize(BATCH_HEADER, 0);
            self.chunks.push(Chunk {
                segment: self.at.segment,
                offset: self.at.offset,
                sequence: self.next_sequence,
                count: 0,
                bytes,
            });
            self.at.offset += BATCH_HEADER as u32;
        }
        let chunk = self.chunks.last_mut().expect("one was pushed if none was");
        record.encode(&mut chunk.bytes);
        chunk.count += 1;
        let (place, sequence) = (self.at, self.next_sequence);
        self.at.offset += len as u32;
        self.bytes += len;
        self.records += 1;
        self.next_sequence += 1;
        (place, sequence)
    }

    /// The batch that was cut waits for what is missing, and nothing more is taken but ends of claims.
    /// `durable` is the end of what of it was written, if any was.
    pub(crate) fn hold(&mut self, durable: Option<Location>, lack: Lack) {
        self.durable = durable.unwrap_or(self.durable);
        self.held = true;
        self.resume = false;
        self.spare = Spare::Lacks(lack);
        self.lack = lack;
    }

    /// Who waited for the batch that is held was told long enough: its event, and that of what
    /// waits behind it. Once they have failed, whoever asks next is answered at once.
    pub(crate) fn end_patience(&mut self) -> [Option<Arc<Event>>; 2] {
        self.told = true;
        [self.flushing(), Some(Arc::clone(&self.event))]
    }

    /// What those who waited for it were told is missing.
    pub(crate) fn told(&self) -> Option<Lack> {
        self.told.then_some(self.lack)
    }

    /// What the batch that is held waits for, or the last one that was.
    pub(crate) fn lack(&self) -> Lack {
        self.lack
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held
    }

    /// Whether a batch waits for disk space, and there is none yet.
    pub(crate) fn is_stuck(&self) -> bool {
        self.held && !self.resume
    }

    /// Whether what is appended lies in a segment that has no file yet.
    pub(crate) fn goes_on(&self) -> bool {
        self.at.segment != self.rolled
    }

    /// A spare was made ready.
    pub(crate) fn spare_is_ready(&mut self) {
        if !self.goes_on() {
            self.spare = Spare::Ready;
        } else {
            // It is for the segment that the log goes on in already.
            self.resume = true;
            self.spare = Spare::Preparing;
        }
    }

    /// A segment got its file, for which the spare was used up.
    pub(crate) fn rolled(&mut self, segment: u32) {
        self.rolled = segment;
        self.spare = Spare::Preparing;
        self.held = false;
        self.resume = false;
        if std::mem::take(&mut self.told) {
            // The event of what is open has failed; what is appended from now on has another.
            self.event = self.new_event();
        }
    }

    /// The event that settles what was appended last.
    pub(crate) fn event(&self) -> &Arc<Event> {
        &self.event
    }

    pub(crate) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Where the next record goes at the earliest: everything appended so far lies before.
    pub(crate) fn at(&self) -> Location {
        self.at
    }

    /// Where the open batch starts, or would, and the sequence of its first record.
    pub(crate) fn open_start(&self) -> (Location, u64) {
        let Some(first) = self.chunks.first() else {
            return (self.at, self.next_sequence);
        };
        let place = Location {
            segment: first.segment,
            offset: first.offset,
        };
        (place, first.sequence)
    }

    /// Takes up a higher sequence, of the record of an opening; nothing may have been appended since
    /// the last cut. Nobody begins before that record is [`written`](Self::written).
    pub(crate) fn jump(&mut self, sequence: u64) {
        debug_assert!(self.chunks.is_empty() && sequence > self.next_sequence);
        self.next_sequence = sequence;
        self.opening = true;
    }

    /// Whether the record of an opening is not written yet.
    pub(crate) fn is_opening(&self) -> bool {
        self.opening
    }

    /// Size of the segment that is being filled.
    pub(crate) fn segment_bytes(&self) -> u32 {
        self.segment_bytes
    }

    /// Bytes left in the segment that is being filled.
    pub(crate) fn room(&self) -> u32 {
        (self.segment_bytes - RESERVE).saturating_sub(self.at.offset)
    }

    pub(crate) fn open_bytes(&self) -> usize {
        self.bytes
    }

    /// Where the durable part of the log ends.
    pub(crate) fn durable(&self) -> Location {
        self.durable
    }

    /// The event to await before what lies at `place` may be shown; none when it is durable.
    pub(crate) fn pending(&self, place: Location) -> Option<Arc<Event>> {
        if place < self.durable {
            return None;
        }
        match (&self.flushing, self.chunks.first()) {
            (Some((_, event)), Some(open)) => {
                let opens = Location {
                    segment: open.segment,
                    offset: open.offset,
                };
                Some(Arc::clone(if place < opens { event } else { &self.event }))
            }
            (Some((_, event)), None) => Some(Arc::clone(event)),
            (None, _) => Some(Arc::clone(&self.event)),
        }
    }

    /// Cuts the open batch off for writing.
    pub(crate) fn cut(&mut self) -> Option<Cut> {
        let first = self.chunks.first()?;
        let start = Location {
            segment: first.segment,
            offset: first.offset,
        };
        let next = self.new_event();
        let event = std::mem::replace(&mut self.event, next);
        self.flushing = Some((start, Arc::clone(&event)));
        self.bytes = 0;
        Some(Cut {
            chunks: std::mem::take(&mut self.chunks),
            event,
            records: std::mem::take(&mut self.records),
            end: self.at,
            written: 0,
        })
    }

    /// The batch that was cut is durable; its buffers come back for reuse.
    pub(crate) fn written(&mut self, end: Location, chunks: Vec<Chunk>) {
        self.durable = end;
        self.flushing = None;
        self.opening = false;
        for chunk in chunks {
            // Two buffers suffice; one that a burst made large is not kept for ever.
            if self.recycled.len() < 2 && chunk.bytes.capacity() <= self.batch_bytes_max as usize {
                self.recycled.push(chunk.bytes);
            }
        }
    }

    /// The event of the batch that is being written.
    pub(crate) fn flushing(&self) -> Option<Arc<Event>> {
        self.flushing.as_ref().map(|(_, event)| Arc::clone(event))
    }

    /// The open batch will never be written: hands out the event that must fail.
    pub(crate) fn abandon(&mut self) -> Arc<Event> {
        self.chunks.clear();
        Arc::clone(&self.event)
    }

    fn fits(&self, len: usize, purpose: Purpose) -> bool {
        let header = match self.chunks.last() {
            Some(chunk) if chunk.segment == self.at.segment => 0,
            _ => BATCH_HEADER,
        };
        let end = match purpose {
            Purpose::Upkeep => self.segment_bytes,
            Purpose::Begin | Purpose::Change | Purpose::End => self.segment_bytes - RESERVE,
        };
        self.at.offset as usize + header + len <= end as usize
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::embedded::format::Kind as RecordKind;

    #[test]
    fn nobody_begins_before_the_opening_is_written_that_waited_for_space() {
        let at = Location {
            segment: 1,
            offset: BLOCK,
        };
        let mut tail = Tail::new(64 << 10, 64 << 10, 16 << 10, at, 1);
        tail.jump(1_000);
        tail.append(&Record::bare(RecordKind::Opened, 0, &[]), Purpose::Upkeep);
        let cut = tail.cut().expect("something is open");
        tail.hold(None, Lack::Space);
        assert!(tail.admit(64, Purpose::Begin).is_err());
        tail.rolled(2);
        assert!(tail.admit(64, Purpose::Begin).is_err());
        tail.written(cut.end, cut.chunks);
        assert!(tail.admit(64, Purpose::Begin).is_ok());
    }
}
