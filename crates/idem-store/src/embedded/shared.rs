//! The store's state behind its lock, and the helpers that every operation uses.

use std::any::Any;
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Instant;

use crate::completion::{Completion, Event};
use crate::embedded::book::{Book, Location, Waiter};
use crate::embedded::cache::{Cache, Hit};
use crate::embedded::flush::Writer;
use crate::embedded::format::{Kind as RecordKind, Record};
use crate::embedded::read::read_stored;
use crate::embedded::spare::{Lack, Spares};
use crate::embedded::tail::{Purpose, Spare, Tail};
use crate::embedded::upkeep::Upkeep;
use crate::embedded::vfs::{Vfs, VfsFile};
use crate::error::{Error, Kind};
use crate::options::Options;
use crate::stats::Stats;
use crate::stored::Stored;
use crate::sync::{AtomicBool, Condvar, Mutex, MutexGuard, Ordering};

/// Everything that the handles, permits and the flush thread of one store share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) vfs: Arc<dyn Vfs>,
    /// Held for moments, never across a read, write or sync. Take it with [`Shared::lock`].
    pub(crate) state: Mutex<State>,
    /// Wakes the flush thread.
    pub(crate) work: Condvar,
    /// The flush thread sleeps; changes under the lock of `state`.
    pub(crate) flusher_idle: AtomicBool,
    /// Wakes the upkeep thread.
    pub(crate) upkeep_work: Condvar,
    /// Locks are taken in this order: `upkeep`, `writer`, `spares`, `state`.
    pub(crate) upkeep: Mutex<Upkeep>,
    /// What only the flusher touches.
    pub(crate) writer: Mutex<Writer>,
    pub(crate) spares: Mutex<Spares>,
    /// The directory's lock, released when the last handle goes.
    pub(crate) directory: Mutex<Option<Box<dyn Any + Send + Sync>>>,
}

pub(crate) struct State {
    pub(crate) book: Book,
    /// Outcomes that were read, by their place.
    pub(crate) cache: Cache,
    pub(crate) tail: Tail,
    pub(crate) segments: BTreeMap<u32, Segment>,
    pub(crate) stats: Stats,
    pub(crate) poison: Option<Error>,
    pub(crate) closed: bool,
    pub(crate) stopping: bool,
    /// Somebody awaits the open batch, or it is large: write it as soon as possible.
    pub(crate) urgent: bool,
    /// Something was written that was not synced (interval durability).
    pub(crate) unsynced: bool,
    pub(crate) last_sync: Instant,
    /// There may be something new for the upkeep thread.
    pub(crate) upkeep_asked: bool,
    /// Some asked for a sync; the next turn of the flusher with nothing held settles them.
    pub(crate) flush_events: Vec<Arc<Event>>,
    pub(crate) spare_retry_at: Option<Instant>,
    /// When those who wait for disk space are told that there is none.
    pub(crate) patience_ends: Option<Instant>,
    /// Pending `wait` calls by deadline and number.
    pub(crate) waits: BTreeMap<(Instant, u64), KeyWait>,
    pub(crate) wait_number: u64,
    /// The lowest segment of the log, once what was appended is durable.
    pub(crate) head_told: u32,
    /// Where a key last became unknown: until that is durable, a crash brings the key back.
    pub(crate) last_removal: Option<Location>,
    /// Events to settle as soon as the lock is released: wakers are foreign code.
    pub(crate) settling: Vec<Settling>,
    /// The clock of the last caller that told it.
    pub(crate) now_ms: u64,
}

pub(crate) struct Segment {
    pub(crate) file: Arc<dyn VfsFile>,
    pub(crate) bytes: u32,
    /// Sequence of its first record.
    pub(crate) sequence: u64,
}

/// An event and how it ends.
pub(crate) enum Settling {
    Done(Arc<Event>),
    TimedOut(Arc<Event>),
    Failed(Arc<Event>, Error),
}

impl Settling {
    pub(crate) fn settle(self) {
        match self {
            Self::Done(event) => event.done(),
            Self::TimedOut(event) => event.time_out(),
            Self::Failed(event, error) => event.fail(&error),
        }
    }
}

/// The locked state; settles what is to be settled once it has released the lock.
pub(crate) struct Locked<'a>(Option<MutexGuard<'a, State>>);

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        self.0.as_deref().expect("taken only by drop")
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        self.0.as_deref_mut().expect("taken only by drop")
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let settling = std::mem::take(&mut self.settling);
        drop(self.0.take());
        settling.into_iter().for_each(Settling::settle);
    }
}

pub(crate) struct KeyWait {
    pub(crate) hash: u64,
    pub(crate) key: Arc<[u8]>,
    pub(crate) event: Arc<Event>,
}

/// Records that nobody awaits are written with the next batch that somebody does await, at the
/// latest when there are this many bytes of them.
const LAZY_BYTES_MAX: usize = 64 << 10;

/// A caller who goes on appending before it waits for anything gets its first records written
/// meanwhile, once there are this many bytes of them: a sync of more takes hardly longer, so a
/// flush thread that sleeps on loses time.
const WORTH_A_SYNC: usize = 16 << 10;

impl State {
    pub(crate) fn check_usable(&self) -> Result<(), Error> {
        if let Some(poison) = &self.poison {
            return Err(poison.clone());
        }
        if self.closed {
            return Err(Error::new(Kind::Closed));
        }
        Ok(())
    }

    /// Whether there is something for the flush thread, as far as there is disk space for it.
    pub(crate) fn has_work(&self) -> bool {
        self.urgent || !self.flush_events.is_empty() || self.tail.is_held()
    }

    pub(crate) fn check_room_for_key(&self, keys_max: u64) -> Result<(), Error> {
        if self.book.keys() as u64 >= keys_max {
            return Err(Error::new(Kind::KeysFull(keys_max)));
        }
        Ok(())
    }

    /// Appends a record that was admitted.
    pub(crate) fn append(&mut self, record: &Record<'_>, purpose: Purpose) -> Location {
        self.stats.records += 1;
        let (place, _) = self.tail.append(record, purpose);
        if matches!(record.kind, RecordKind::Release | RecordKind::Forget) {
            self.last_removal = Some(place);
        }
        if self.tail.open_bytes() > LAZY_BYTES_MAX {
            self.urgent = true;
        }
        place
    }

    /// Wakes everybody who waited for a holder that has ended.
    pub(crate) fn end_waits(&mut self, waiters: Vec<Waiter>) {
        for waiter in waiters {
            self.waits.remove(&waiter.until);
            self.settling.push(Settling::Done(waiter.event));
        }
    }

    /// Removes a claim, if there is one, and tells those who wait for it.
    pub(crate) fn end_claim(&mut self, hash: u64, key: &[u8]) {
        if let Some(claim) = self.book.remove_claim(hash, key) {
            self.end_waits(claim.waiters);
        }
    }
}

/// What the index and the log know of a key that is not claimed.
pub(crate) enum Found {
    Nothing,
    Outcome(Location, Stored),
    /// It depends on a batch that is not durable yet.
    Pending(Arc<Event>),
    /// A place must be read first: release the lock, [`Shared::read`] it and ask again.
    Unread(Location, Arc<dyn VfsFile>),
}

/// Outcomes that were read outside the lock while an operation decides.
pub(crate) type Seen = Vec<(Location, Option<Stored>)>;

impl Shared {
    pub(crate) fn lock(&self) -> Locked<'_> {
        Locked(Some(self.state.lock()))
    }

    /// Looks the outcome of a key up under the lock, from what was read before.
    pub(crate) fn find(state: &mut State, hash: u64, key: &[u8], seen: &mut Seen) -> Found {
        for place in state.book.places(hash) {
            let Some(i) = seen.iter().position(|(at, _)| *at == place) else {
                if let Some(event) = state.tail.pending(place) {
                    return Found::Pending(event);
                }
                match state.cache.get(place, key) {
                    Some(Hit::Outcome(stored)) => return Found::Outcome(place, stored),
                    Some(Hit::OtherKey) => continue,
                    None => {}
                }
                let segment = state.segments.get(&place.segment);
                let segment = segment.expect("the index points into segments of the log");
                return Found::Unread(place, Arc::clone(&segment.file));
            };
            if let Some(stored) = seen[i].1.take() {
                state.cache.insert(place, key, &stored);
                return Found::Outcome(place, stored);
            }
        }
        Found::Nothing
    }

    /// Reads a place that [`find`](Self::find) asked for. When it cannot be read but the outcome
    /// has moved meanwhile, the next `find` sees the new place.
    pub(crate) fn read(
        &self,
        hash: u64,
        key: &[u8],
        place: Location,
        file: &dyn VfsFile,
        seen: &mut Seen,
    ) -> Result<(), Error> {
        match read_stored(file, place, key) {
            Ok(stored) => seen.push((place, stored)),
            Err(error) => {
                if self.lock().book.has_place(hash, place) {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// An answer that stands once everything appended so far is durable.
    pub(crate) fn awaited<T>(
        &self,
        state: &mut State,
        value: T,
        finish: fn(&mut T),
    ) -> Completion<T> {
        let event = Arc::clone(state.tail.event());
        self.urge(state);
        if state.tail.open_bytes() > WORTH_A_SYNC {
            self.wake_flusher(state);
        }
        Completion::on_with(event, value, finish)
    }

    /// An answer that stands once `place` is durable.
    pub(crate) fn resting_on<T>(
        &self,
        state: &mut State,
        place: Location,
        mut value: T,
        finish: fn(&mut T),
    ) -> Completion<T> {
        match state.tail.pending(place) {
            Some(event) => {
                self.urge(state);
                Completion::on_with(event, value, finish)
            }
            None => {
                finish(&mut value);
                Completion::ready(Ok(value))
            }
        }
    }

    /// Somebody awaits the open batch. The flush thread, should it sleep, is woken by whoever waits
    /// for the event, unless that one writes the batch itself.
    pub(crate) fn urge(&self, state: &mut State) {
        state.urgent = true;
    }

    /// Wakes the flush thread if it sleeps and there is something for it.
    pub(crate) fn wake_flusher(&self, state: &mut State) {
        if state.has_work() && self.flusher_idle.load(Ordering::Relaxed) {
            self.flusher_idle.store(false, Ordering::Relaxed);
            self.work.notify_one();
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let state = self.lock();
        Stats {
            keys_in_flight: state.book.in_flight() as u64,
            keys_in_doubt: state.book.in_doubt() as u64,
            keys_stored: state.book.stored() as u64,
            segments: state.segments.len() as u64,
            segment_bytes: state.segments.values().map(|s| u64::from(s.bytes)).sum(),
            live_bytes: state.book.live_bytes(),
            index_bytes: state.book.index_bytes() as u64,
            cache_bytes: state.cache.bytes(),
            cache_hits: state.cache.hits,
            cache_misses: state.cache.misses,
            waiters: state.waits.len() as u64,
            disk_full: state.tail.spare == Spare::Lacks(Lack::Space),
            no_descriptors: state.tail.spare == Spare::Lacks(Lack::Descriptors),
            poisoned: state.poison.is_some(),
            ..state.stats
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::embedded::memory::Memory;
    use crate::{Begin, Fingerprint, Store};

    #[test]
    fn a_flush_thread_that_sleeps_is_woken_for_a_batch_that_nobody_waits_for_yet() {
        let store = Store::open_on(Arc::new(Memory::default()), Options::new()).expect("opens");
        let shared = &store.of_this_machine().shared;
        // No thread runs here: as if it slept.
        shared.flusher_idle.store(true, Ordering::Relaxed);
        let mut begun = Vec::new();
        while shared.lock().tail.open_bytes() <= WORTH_A_SYNC {
            assert!(shared.flusher_idle.load(Ordering::Relaxed), "too early");
            let key = begun.len().to_le_bytes();
            begun.push(store.begin(&Begin::new(&key, Fingerprint([1; 32]), 1_000, 5).declare(b"")));
        }
        assert!(!shared.flusher_idle.load(Ordering::Relaxed));
        store.drive();
        for begun in begun {
            assert!(begun.wait().expect("begins").into_fresh().is_some());
        }
    }
}
