//! What the flusher does between batches, a slice at a time: the next segment is made ready, and
//! old segments are emptied and dropped so that disk use follows what is still needed.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::embedded::book::{Book, Location};
use crate::embedded::format::{BATCH_HEADER, BLOCK, BatchHeader, Kind, Record, segment_name};
use crate::embedded::index_writer::{IndexUpkeep, Slice};
use crate::embedded::shared::{Shared, State};
use crate::embedded::spare::{Unready, recycled_name};
use crate::embedded::tail::{Purpose, Spare};
use crate::embedded::vfs::VfsFile;
use crate::error::Error;

/// An old segment is read in slices of this size. A batch that comes to the disk meanwhile waits
/// behind one.
const READ_SLICE: usize = 256 << 10;
/// Records looked at in one slice, and bytes of them carried. The store is locked meanwhile: should
/// the scheduler take the core away in the middle, every caller waits for it to come back.
const RECORDS_SLICE: usize = 32;
const CARRY_SLICE: usize = 8 << 10;
/// How long to wait before trying again on a full disk.
pub(super) const RETRY: Duration = Duration::from_millis(200);
/// How long to wait when there is no room to carry records, or a batch must be durable first.
pub(super) const PAUSE: Duration = Duration::from_millis(1);
/// How long to let an old segment be that has no room to go to: it is read anew then.
pub(super) const RETRY_CARRYING: Duration = Duration::from_secs(5);
/// How long to let an old segment be that could not be read back: reading may have failed for once.
pub(super) const RETRY_READING: Duration = Duration::from_secs(60);
/// How often to look for what has expired when nothing else happens.
const IDLE: Duration = Duration::from_secs(60);
/// Dropped segments kept for use as spares: so many, and a quarter of the log's.
const RECYCLED_MIN: usize = 2;

#[derive(Default)]
pub(crate) struct Upkeep {
    compaction: Option<Compaction>,
    /// There is no room to carry records now, or a batch must be durable first.
    paused: bool,
    /// No segment is emptied before: the last attempt failed, or there was no room on the disk.
    no_drop_before: Option<Instant>,
    pub(crate) index: IndexUpkeep,
    clock: Clock,
    /// Segments still to be looked through for outcomes past their retention.
    sweeping: VecDeque<u32>,
    /// Bytes that slices read or wrote since the pace was last kept.
    moved_bytes: u64,
}

/// The time as callers tell it, going on while nobody calls.
#[derive(Default)]
struct Clock(Option<(u64, Instant)>);

impl Clock {
    /// A caller's clock is believed to go on by itself only after a while without a call.
    const SILENCE: Duration = Duration::from_secs(10);

    fn now_ms(&mut self, told_ms: u64, now: Instant) -> u64 {
        let (ms, at) = *self.0.get_or_insert((told_ms, now));
        if ms != told_ms || told_ms == 0 {
            self.0 = Some((told_ms, now));
            return told_ms;
        }
        let silence = now.saturating_duration_since(at);
        if silence < Self::SILENCE {
            return told_ms;
        }
        told_ms.saturating_add(silence.as_millis() as u64)
    }
}

/// An old segment on its way out.
struct Compaction {
    segment: u32,
    file: Arc<dyn VfsFile>,
    /// Sequence at which the next segment starts: where this one must end.
    sequence_end: u64,
    /// What was read of the file.
    bytes: Vec<u8>,
    /// The walk: next record, end of its batch, sequence after that batch.
    at: usize,
    batch_end: usize,
    sequence: u64,
    /// Where the walk ends at the latest: the whole file, or what is durable of the last segment.
    end: u32,
    /// The place of the record that cuts the segment off, once it was appended.
    cut: Option<Location>,
    /// What lives stays where it is, and the segment with it.
    only_sweeps: bool,
    now_ms: u64,
    /// What callers had told of the time when the walk began.
    told_ms: u64,
}

/// How a walk over a slice of an old segment ended.
enum Walk {
    More,
    NoRoom,
    Finished,
}

/// When the next slice is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// At once, but for the pace.
    Now,
    At(Instant),
    WhenAsked,
}

impl Upkeep {
    /// The index on the disk tells of the log up to `index`.
    pub(crate) fn after(index: Option<Location>) -> Self {
        Self {
            index: IndexUpkeep::after(index),
            ..Self::default()
        }
    }
}

impl Shared {
    /// The upkeep thread.
    pub(crate) fn run_upkeep(&self) {
        loop {
            let now = Instant::now();
            let due = self.upkeep_slice(now);
            let wake = match due {
                Due::Now => now + self.pace(),
                Due::At(at) => at,
                Due::WhenAsked => now + IDLE,
            };
            let mut state = self.state.lock();
            loop {
                if state.stopping || state.poison.is_some() {
                    return;
                }
                if std::mem::take(&mut state.upkeep_asked) {
                    break;
                }
                if wake <= Instant::now() {
                    break;
                }
                self.upkeep_work.wait_until(&mut state, wake);
            }
        }
    }

    /// How long to rest after the last slice, so that upkeep leaves the disk to the callers. When
    /// the log has outgrown its bound there is no rest.
    fn pace(&self) -> Duration {
        let moved = std::mem::take(&mut self.upkeep.lock().moved_bytes);
        let state = self.lock();
        let hurry = state.log_bytes() > 2 * state.log_bytes_wanted();
        drop(state);
        if hurry {
            return Duration::ZERO;
        }
        let rate = self.options.upkeep_bytes_per_s_max.max(1);
        Duration::from_micros(moved.saturating_mul(1_000_000) / rate)
    }

    /// Does a little of what is due: at most a few milliseconds of it.
    pub(crate) fn upkeep_slice(&self, now: Instant) -> Due {
        let mut upkeep = self.upkeep.lock();
        if self.lock().poison.is_some() {
            return Due::WhenAsked;
        }
        let spare = self.prepare_spare(now);
        let was_compacting = upkeep.compaction.is_some();
        if let Err(error) = self.compact(&mut upkeep, now) {
            tracing::error!(%error, "an old segment cannot be read: run verify");
            self.lock().stats.upkeep_failed = true;
            upkeep.no_drop_before = Some(now + RETRY_READING);
        }
        let pause = match self.lock().tail.is_stuck() {
            true => RETRY,
            false => PAUSE,
        };
        let pause = Due::At(now + pause);
        let index = match self.write_index(&mut upkeep.index) {
            Slice::More => Due::Now,
            Slice::Later => pause,
            Slice::Done => Due::WhenAsked,
        };
        let compaction = match &upkeep.compaction {
            Some(_) if upkeep.paused => pause,
            Some(_) => Due::Now,
            // Perhaps the next segment can go too.
            None if was_compacting || !upkeep.sweeping.is_empty() => Due::Now,
            None => upkeep.no_drop_before.map_or(Due::WhenAsked, Due::At),
        };
        spare.min(compaction).min(index)
    }

    fn prepare_spare(&self, now: Instant) -> Due {
        if let Some(at) = self.lock().spare_retry(now) {
            return Due::At(at);
        }
        let head = self.lock().head();
        let mut spares = self.spares.lock();
        let result = spares.prepare(&*self.vfs, head);
        let ready = spares.is_ready();
        // Before the spares are let go: what is ready now may be taken next.
        let mut state = self.lock();
        drop(spares);
        match result {
            Ok(more) => {
                state.spare_retry_at = None;
                if ready {
                    state.tail.spare_is_ready();
                    // A batch may wait for it.
                    self.wake_flusher(&mut state);
                }
                if more { Due::Now } else { Due::WhenAsked }
            }
            Err(Unready::Failed(error)) => {
                drop(state);
                self.give_up(Error::io("make the next segment ready", error));
                Due::WhenAsked
            }
            // The current segment has room. New keys wait, and it is tried again.
            Err(Unready::Lacks(lack, error)) => {
                if state.tail.spare != Spare::Lacks(lack) {
                    let bytes = self.options.segment_bytes_max;
                    tracing::warn!(%error, bytes, "no room for the next segment: new keys are refused");
                }
                state.tail.spare = Spare::Lacks(lack);
                let at = now + RETRY;
                state.spare_retry_at = Some(at);
                Due::At(at)
            }
        }
    }

    fn compact(&self, upkeep: &mut Upkeep, now: Instant) -> Result<(), Error> {
        upkeep.paused = false;
        if upkeep.compaction.is_none() {
            upkeep.compaction = self.lock().next_walk(upkeep, now);
        }
        let Some(mut old) = upkeep.compaction.take() else {
            return Ok(());
        };
        if let Some(place) = old.cut {
            let pending = self.lock().tail.pending(place);
            if let Some(event) = pending {
                // The flush thread writes it; should it sleep by now, it is not asked yet.
                upkeep.compaction = Some(old);
                upkeep.paused = true;
                event.nudge();
                return Ok(());
            }
            return self.drop_segment(old);
        }
        let read = old.read_slice()?;
        upkeep.moved_bytes += read as u64;
        if read == 0 {
            let mut state = self.lock();
            let carried = state.stats.bytes_carried;
            match old.carry(&mut state)? {
                Walk::More => {}
                Walk::NoRoom if matches!(state.tail.spare, Spare::Lacks(_)) => {
                    // What is past its retention needs no room to go, and can be what makes some.
                    old.only_sweeps = true;
                    upkeep.no_drop_before = Some(now + RETRY_CARRYING);
                }
                Walk::NoRoom => upkeep.paused = true,
                Walk::Finished if old.only_sweeps => return Ok(()),
                Walk::Finished => {
                    let Ok(place) = state.append_head(old.segment + 1) else {
                        // Nothing lives there now: it goes as soon as there is room for the mark.
                        upkeep.no_drop_before = Some(now + RETRY_CARRYING);
                        return Ok(());
                    };
                    state.stats.upkeep_failed = false;
                    old.cut = Some(place);
                    self.wake_flusher(&mut state);
                }
            }
            upkeep.moved_bytes += state.stats.bytes_carried - carried;
        }
        upkeep.compaction = Some(old);
        Ok(())
    }

    /// Lets go of a segment that the durable log no longer contains: its file is used again, or
    /// removed when there are enough.
    fn drop_segment(&self, old: Compaction) -> Result<(), Error> {
        self.sync_written()?;
        let (segments, bytes) = {
            let mut state = self.lock();
            let bytes = state.drop_segment(old.segment);
            (state.segments.len(), bytes)
        };
        let name = segment_name(old.segment);
        let keep = bytes == self.options.segment_bytes_max
            && self.spares.lock().waiting() < RECYCLED_MIN + segments / 4;
        let spare = recycled_name(old.segment);
        let moved = if keep {
            self.vfs.rename(&name, &spare)
        } else {
            self.vfs.remove(&name)
        };
        // Should this be lost or fail, the file is below the head and ignored on opening. But it
        // must not take its new name before it has lost the old one.
        match moved.and_then(|()| self.vfs.sync_dir()) {
            Ok(()) if keep => self.spares.lock().recycle(spare, old.file),
            Ok(()) => {}
            Err(error) => {
                let segment = old.segment;
                tracing::warn!(%error, segment, "a segment that is no longer used was not removed");
            }
        }
        Ok(())
    }
}

impl State {
    /// When to try again to make a spare, if that is not now.
    fn spare_retry(&self, now: Instant) -> Option<Instant> {
        self.spare_retry_at.filter(|at| *at > now)
    }

    /// Bytes that the segments of the log take, and how many they may before the oldest one goes.
    fn log_bytes(&self) -> u64 {
        self.segments.values().map(|s| u64::from(s.bytes)).sum()
    }

    fn log_bytes_wanted(&self) -> u64 {
        let first = self.segments.values().next();
        let first = first.map_or(0, |segment| u64::from(segment.bytes));
        2 * first + 2 * self.book.live_bytes()
    }

    /// The segment to look through next. The oldest one, to let go of it, when the log takes more
    /// than twice what is still needed; else one that may hold outcomes past their retention.
    fn next_walk(&mut self, upkeep: &mut Upkeep, now: Instant) -> Option<Compaction> {
        let now_ms = upkeep.clock.now_ms(self.now_ms, now);
        self.book.sweep(now_ms);
        if self.book.take_swept_bytes() > 0 {
            upkeep.sweeping = self.segments.keys().copied().collect();
        }
        upkeep.no_drop_before.take_if(|at| *at <= now);
        let oldest = self.head();
        let may_drop = upkeep.no_drop_before.is_none() || self.is_ready_to_go(oldest);
        if may_drop && self.log_bytes() > self.log_bytes_wanted() {
            return self.walk(oldest, false, now_ms);
        }
        loop {
            let segment = upkeep.sweeping.pop_front()?;
            if self.book.held_by(segment) > 0 {
                return self.walk(segment, true, now_ms);
            }
        }
    }

    fn walk(&self, segment: u32, only_sweeps: bool, now_ms: u64) -> Option<Compaction> {
        let of = self.segments.get(&segment)?;
        let next = self.segments.range(segment + 1..).next();
        let durable = self.tail.durable();
        let end = match durable.segment.cmp(&segment) {
            Ordering::Less => BLOCK,
            Ordering::Equal => durable.offset,
            Ordering::Greater => of.bytes,
        };
        let nothing_lives = !only_sweeps && self.book.held_by(segment) == 0;
        Some(Compaction {
            segment,
            file: Arc::clone(&of.file),
            sequence_end: match next {
                // The walk has nothing to find: it ends where it starts.
                _ if nothing_lives => of.sequence,
                Some((_, next)) => next.sequence,
                None => u64::MAX,
            },
            bytes: Vec::new(),
            at: BLOCK as usize,
            batch_end: BLOCK as usize,
            sequence: of.sequence,
            end: if nothing_lives { 0 } else { end },
            cut: None,
            only_sweeps,
            now_ms,
            told_ms: self.now_ms,
        })
    }

    /// Whether nothing lives in a segment, and there is room to say that it goes.
    fn is_ready_to_go(&self, segment: u32) -> bool {
        let len = Record::bare(Kind::Head, 0, &[]).padded_len();
        self.book.held_by(segment) == 0 && self.tail.admit(len, Purpose::Upkeep).is_ok()
    }

    fn append_head(&mut self, head: u32) -> Result<Location, Error> {
        let record = Record::bare(Kind::Head, u64::from(head), &[]);
        self.tail.admit(record.padded_len(), Purpose::Upkeep)?;
        let place = self.append(&record, Purpose::Upkeep);
        self.head_told = head;
        self.urgent = true;
        Ok(place)
    }

    /// The bytes it took.
    fn drop_segment(&mut self, segment: u32) -> u32 {
        self.stats.segments_dropped += 1;
        let dropped = self.segments.remove(&segment);
        dropped.map_or(0, |segment| segment.bytes)
    }

    /// Forgets an outcome past its retention, and copies a record to the end of the log when it is
    /// still needed there; the bytes copied, or none when there is no room for what is needed.
    fn carry(
        &mut self,
        record: &Record<'_>,
        from: Location,
        len: usize,
        walk: Carry,
    ) -> Option<usize> {
        let hash = self.book.hash(record.key);
        match record.kind {
            Kind::Outcome if self.book.has_place(hash, from) => {
                if record.time_ms <= walk.now_ms {
                    let (bytes, until_ms) = (len as u32, record.time_ms);
                    self.book.expire_place(hash, from, bytes, until_ms);
                    return Some(0);
                }
                if walk.only_sweeps {
                    return Some(0);
                }
                if !self.may_carry() {
                    return None;
                }
                let to = self.append(record, Purpose::Change);
                self.book.move_place(hash, from, to);
                self.cache.remove(from);
            }
            Kind::Claim if !walk.only_sweeps && is_current(&self.book, hash, record.key, from) => {
                if !self.may_carry() {
                    return None;
                }
                let to = self.append(record, Purpose::Change);
                self.book
                    .update(hash, record.key, |claim| claim.location = to);
            }
            _ => return Some(0),
        }
        self.stats.records_carried += 1;
        self.stats.bytes_carried += len as u64;
        Some(len)
    }
}

/// What a walk does with the records it finds.
#[derive(Clone, Copy)]
struct Carry {
    only_sweeps: bool,
    now_ms: u64,
}

fn is_current(book: &Book, hash: u64, key: &[u8], from: Location) -> bool {
    book.claim(hash, key)
        .is_some_and(|claim| claim.location == from)
}

impl Compaction {
    /// Reads some more of the segment; how many bytes.
    fn read_slice(&mut self) -> Result<usize, Error> {
        let read = self.bytes.len();
        let slice = (self.end as usize).saturating_sub(read).min(READ_SLICE);
        if slice == 0 {
            return Ok(0);
        }
        self.bytes.reserve_exact(self.end as usize - read);
        self.bytes.resize(read + slice, 0);
        let got = self.file.read_at(&mut self.bytes[read..], read as u64);
        let got = got.map_err(|error| Error::io("read an old segment", error))?;
        if got < slice {
            return Err(self.damaged(read + got, "the segment ends too early"));
        }
        Ok(slice)
    }

    /// Looks at some records and carries those that are still needed.
    fn carry(&mut self, state: &mut State) -> Result<Walk, Error> {
        let mut carried = 0;
        let walk = Carry {
            only_sweeps: self.only_sweeps,
            // A clock that was ahead when the walk began may have been put right since.
            now_ms: match state.now_ms {
                told_ms if told_ms == self.told_ms => self.now_ms,
                told_ms => told_ms.min(self.now_ms),
            },
        };
        for _ in 0..RECORDS_SLICE {
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
            let Some(copied) = state.carry(&record, from, len, walk) else {
                return Ok(Walk::NoRoom);
            };
            carried += copied;
            self.at += len;
            if carried >= CARRY_SLICE {
                break;
            }
        }
        Ok(Walk::More)
    }

    /// Goes on to the next batch; false at the end of the segment.
    fn next_batch(&mut self) -> Result<bool, Error> {
        if self.sequence == self.sequence_end || self.at >= self.end as usize {
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
        // What is carried is read where it goes to, once it is durable there.
        let full = matches!(self.tail.spare, Spare::Lacks(_)) && self.tail.goes_on();
        let half = self.tail.segment_bytes() / 2;
        !full && (self.tail.spare == Spare::Ready || self.tail.room() > half)
    }
}
