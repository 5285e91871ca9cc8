//! The handle: opening, closing, and the operations by name.

use std::any::Any;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::book::Location;
use crate::completion::Completion;
use crate::error::{Error, Kind as ErrorKind};
use crate::flush::Writer;
use crate::format::{BLOCK, Kind, Record, SegmentHeader, segment_name};
use crate::options::Options;
use crate::permit::{Begin, Begun, Failure, Lookup, Permit, Unresolved, Waited};
use crate::replay::{Replay, replay};
use crate::shared::{Segment, Shared, State};
use crate::stats::Stats;
use crate::tail::{Purpose, Tail};
use crate::upkeep::{SPARE, Upkeep};
use crate::vfs::{OsVfs, Vfs, VfsFile};

/// A durable store of keys and what became of them, in one directory of this machine.
///
/// Cheap to clone; all clones are one store. Every operation takes effect when it is called and
/// returns a [`Completion`] that says when it is durable. None blocks on the disk, except that an
/// outcome is read with one `pread`. One thread (`mainstay-store-flush`) does all writing; it ends
/// with the last handle.
///
/// ```
/// use idem_store::{Begin, Begun, Fingerprint, Options, Store};
///
/// # let dir = tempfile::tempdir()?;
/// let store = Store::open(dir.path(), Options::new())?;
/// let now_ms = 1_700_000_000_000;
/// let request = Begin::new(b"order-17", Fingerprint([7; 32]), 30_000, now_ms).declare(b"charge 4711");
/// let Begun::Fresh(permit) = store.begin(&request).wait()? else { panic!("new key") };
/// // ... charge the card, handing permit.token() to it ...
/// store.complete(permit, b"charged", 86_400_000, now_ms + 20).wait()?;
///
/// let Begun::Replay(stored) = store.begin(&request).wait()? else { panic!("done before") };
/// assert_eq!(stored.outcome(), b"charged");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Store {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Opens the store in `dir`, making both when they are missing, and takes its lock.
    ///
    /// Reads the whole log: O(bytes on the disk). A batch that a crash cut short is dropped (it was
    /// never acknowledged). Every earlier lease has ended: claims without a declared effect are
    /// released, the others are in doubt, see [`unresolved`](Self::unresolved).
    ///
    /// # Errors
    /// [`is_locked`](Error::is_locked) when another has it open, [`is_damaged`](Error::is_damaged)
    /// when bytes that were durable are not what was written (never skipped silently: see
    /// [`repair`](crate::repair)), [`is_version`](Error::is_version),
    /// [`is_options`](Error::is_options), [`is_full`](Error::is_full) and I/O errors.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        let vfs = OsVfs::create(dir.as_ref());
        let vfs = vfs.map_err(|error| Error::io("create the store's directory", error))?;
        let store = Self::open_on(Arc::new(vfs), options)?;
        let shared = Arc::clone(&store.handle.shared);
        let thread = std::thread::Builder::new()
            .name("mainstay-store-flush".to_owned())
            .spawn(move || shared.run())
            .map_err(|error| Error::io("start the flush thread", error))?;
        *store.handle.thread.lock() = Some(thread);
        Ok(store)
    }

    /// As [`open`](Self::open), on a simulated disk and without the flush thread: the caller calls
    /// [`drive`](Self::drive).
    #[doc(hidden)]
    pub fn open_on(vfs: Arc<dyn Vfs>, options: Options) -> Result<Self, Error> {
        options.check()?;
        let lock = take_lock(&*vfs)?;
        let found = replay(&*vfs)?;
        if let Some((segment, damage)) = found.damage.first() {
            let offset = u64::from(damage.offset);
            return Err(Error::damaged(*segment, offset, damage.reason));
        }
        let shared = Arc::new(assemble(vfs, options, found)?);
        *shared.directory.lock() = Some(lock);
        shared.announce(Kind::Opened)?;
        Ok(Self {
            handle: Arc::new(Handle {
                shared,
                thread: Mutex::new(None),
            }),
        })
    }

    /// One turn of what the flush thread does; whether a batch was written.
    #[doc(hidden)]
    pub fn drive(&self) -> bool {
        let shared = &self.handle.shared;
        let flushed = shared.flush_once();
        shared.upkeep_slice(Instant::now());
        flushed
    }

    /// Asks for a key: the answer says whether to do the effect, and with which token.
    ///
    /// With [`Begin::declare`] the completion is ready when the claim is durable; without, at once
    /// (such a claim means nothing after a crash, so there is nothing to wait for). O(1), plus a
    /// read of the outcome for a replay.
    ///
    /// # Errors
    /// [`is_too_large`](Error::is_too_large), [`is_full`](Error::is_full),
    /// [`is_busy`](Error::is_busy), [`is_poisoned`](Error::is_poisoned),
    /// [`is_closed`](Error::is_closed); nothing was claimed then, except that a poisoned store may
    /// find the key in doubt when it is opened again.
    pub fn begin(&self, begin: &Begin<'_>) -> Completion<Begun> {
        self.handle.shared.begin(begin)
    }

    /// Declares that the effect may happen from now on, and keeps `memo` for whoever has to find
    /// out. Do the effect only after the completion is ready. May be repeated with another memo.
    ///
    /// # Errors
    /// [`is_fenced`](Error::is_fenced), [`is_too_large`](Error::is_too_large) and as
    /// [`begin`](Self::begin).
    pub fn declare(&self, permit: &Permit, memo: &[u8]) -> Completion<()> {
        let shared = &self.handle.shared;
        shared
            .declare(permit, memo)
            .unwrap_or_else(Completion::failed)
    }

    /// Stores the outcome, which replays for `retain_ms` from `now_ms` on.
    ///
    /// Accepted as long as no other holder took the key, also after the lease ended.
    ///
    /// # Errors
    /// [`is_fenced`](Error::is_fenced), [`is_too_large`](Error::is_too_large) (the permit is used
    /// up: the key is in doubt if its effect was declared, else free), and as
    /// [`begin`](Self::begin).
    pub fn complete(
        &self,
        permit: Permit,
        outcome: &[u8],
        retain_ms: u64,
        now_ms: u64,
    ) -> Completion<()> {
        let shared = &self.handle.shared;
        let completed = shared.complete(permit, outcome, false, retain_ms, now_ms);
        completed.unwrap_or_else(Completion::failed)
    }

    /// Ends a claim without success; see [`Failure`].
    ///
    /// # Errors
    /// [`is_effect_declared`](Error::is_effect_declared), and as [`complete`](Self::complete).
    pub fn fail(&self, permit: Permit, failure: Failure<'_>, now_ms: u64) -> Completion<()> {
        let failed = self.handle.shared.fail(permit, failure, now_ms);
        failed.unwrap_or_else(Completion::failed)
    }

    /// Sets the end of the lease to `lease_ms` from `now_ms`. Ready at once: leases are not written.
    ///
    /// # Errors
    /// [`is_fenced`](Error::is_fenced), [`is_poisoned`](Error::is_poisoned),
    /// [`is_closed`](Error::is_closed).
    pub fn extend(&self, permit: &Permit, lease_ms: u64, now_ms: u64) -> Completion<()> {
        let extended = self.handle.shared.extend(permit, lease_ms, now_ms);
        extended.unwrap_or_else(Completion::failed)
    }

    /// What is known of a key, durably. Changes nothing.
    ///
    /// # Errors
    /// [`is_damaged`](Error::is_damaged) when its outcome cannot be read back, and as
    /// [`extend`](Self::extend).
    pub fn get(&self, key: &[u8], now_ms: u64) -> Completion<Lookup> {
        let got = self.handle.shared.get(key, now_ms);
        got.unwrap_or_else(Completion::failed)
    }

    /// Forgets a key, whatever is known of it; a holder is fenced. Answers whether it was known.
    ///
    /// Forgetting a key in doubt gives up the at-most-once promise for it.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub fn forget(&self, key: &[u8]) -> Completion<bool> {
        let forgotten = self.handle.shared.forget(key);
        forgotten.unwrap_or_else(Completion::failed)
    }

    /// Waits until nobody holds the key, at most `timeout_ms`. Begin again to see what became of
    /// it. A lease that merely runs out ends nothing by itself: let the timeout be no longer than
    /// the rest of the lease that [`Begun::InFlight`] told.
    ///
    /// # Errors
    /// [`is_busy`](Error::is_busy) when `waiters_max` others wait, and as
    /// [`extend`](Self::extend).
    pub fn wait(&self, key: &[u8], timeout_ms: u64) -> Completion<Waited> {
        let waited = self.handle.shared.wait(key, timeout_ms);
        waited.unwrap_or_else(Completion::failed)
    }

    /// Every key whose effect was declared and that has no outcome, in the order of their tokens.
    /// Right after opening these are the ones in doubt. O(claims).
    #[must_use]
    pub fn unresolved(&self) -> Vec<Unresolved> {
        self.handle.shared.unresolved()
    }

    /// A snapshot of the counters. O(segments).
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.handle.shared.stats()
    }

    /// Ready when everything that was called before is on the disk, at every durability level.
    ///
    /// # Errors
    /// [`is_poisoned`](Error::is_poisoned), [`is_closed`](Error::is_closed).
    pub fn flush(&self) -> Completion<()> {
        self.handle.shared.flush()
    }

    /// Writes and syncs what is pending, ends the flush thread and gives up the directory, for all
    /// clones; they and outstanding permits get [`is_closed`](Error::is_closed) from now on. Blocks
    /// for a sync or two.
    ///
    /// # Errors
    /// [`is_poisoned`](Error::is_poisoned).
    pub fn close(self) -> Result<(), Error> {
        self.handle.stop()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Handle {
    fn stop(&self) -> Result<(), Error> {
        let mut thread = self.thread.lock();
        let mut state = self.shared.lock();
        let first = !state.closed;
        state.closed = true;
        state.stopping = true;
        self.shared.work.notify_one();
        drop(state);
        // A waker may run on the flush thread and drop the last handle there.
        let is_other =
            |thread: &JoinHandle<()>| thread.thread().id() != std::thread::current().id();
        if let Some(thread) = thread.take().filter(is_other) {
            // If it panicked it has poisoned the store, which is reported below.
            let _ = thread.join();
        }
        let result = if first {
            self.shared.announce(Kind::Closed)
        } else {
            Ok(())
        };
        self.shared.directory.lock().take();
        result
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Nobody is left to tell; a failed write has reached those who waited for it.
        let _ = self.stop();
    }
}

impl Shared {
    /// Writes a record about the store itself and syncs everything.
    fn announce(&self, kind: Kind) -> Result<(), Error> {
        self.flush_once();
        {
            let mut state = self.lock();
            if let Some(poison) = &state.poison {
                return Err(poison.clone());
            }
            let record = Record::bare(kind, 0, &[]);
            state.tail.admit(record.padded_len(), Purpose::Upkeep)?;
            if kind == Kind::Opened {
                let next = state.tail.next_sequence() + OPEN_GAP;
                state.tail.jump(next);
            }
            state.append(&record, Purpose::Upkeep);
        }
        self.flush_once();
        self.sync_written()
    }
}

/// Opening skips this many sequences, so that a token is never given twice: no run of a store has
/// more records that were handed out and then lost in a crash.
const OPEN_GAP: u64 = 1 << 32;

/// The directory's lock. Somebody who only looks whether it is taken holds it for a moment.
pub(crate) fn take_lock(vfs: &dyn Vfs) -> Result<Box<dyn Any + Send + Sync>, Error> {
    const TRIES: u32 = 5;
    const PAUSE: Duration = Duration::from_millis(2);
    let mut tries = 0;
    loop {
        tries += 1;
        match vfs.lock() {
            Ok(lock) => return Ok(lock),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                return Err(Error::io("lock the store's directory", error));
            }
            Err(_) if tries < TRIES => std::thread::sleep(PAUSE),
            Err(_) => return Err(Error::new(ErrorKind::Locked)),
        }
    }
}

fn assemble(vfs: Arc<dyn Vfs>, options: Options, mut found: Replay) -> Result<Shared, Error> {
    let end = match found.end {
        Some(end) => end,
        None => create_first(&*vfs, &options, &mut found)?,
    };
    let current = &found.segments[&end.segment];
    if let Some(from) = found.unproven {
        write_again(&*current.file, from, end)?;
    }
    let synced = current.file.sync_data();
    synced.map_err(|error| Error::io("sync the log", error))?;
    // So may be the name of the last segment, if a process died between giving and syncing it.
    let synced = vfs.sync_dir();
    synced.map_err(|error| Error::io("sync the store's directory", error))?;
    for stale in &found.stale {
        // Ignored while it is there; tried again when the store is next opened.
        let _ = vfs.remove(&segment_name(*stale));
    }
    let writer = Writer {
        file: Arc::clone(&current.file),
        segment: end.segment,
        store_id: found.store_id.expect("a log has a readable header"),
        written_below: found.next_sequence,
        synced_below: found.next_sequence,
        last_sync: Instant::now(),
        upkeep: Upkeep::default(),
    };
    let tail = Tail::new(
        current.bytes,
        options.segment_bytes_max,
        options.batch_bytes_max,
        end,
        found.next_sequence,
    );
    let state = State {
        book: found.book,
        tail,
        segments: found.segments,
        stats: Stats::default(),
        poison: None,
        closed: false,
        stopping: false,
        urgent: false,
        flusher_idle: false,
        unsynced: false,
        flush_event: None,
        spare_retry_at: None,
        waits: Default::default(),
        wait_number: 0,
        settling: Vec::new(),
        now_ms: 0,
    };
    Ok(Shared {
        options,
        vfs,
        state: Mutex::new(state),
        work: Condvar::new(),
        writer: Mutex::new(writer),
        directory: Mutex::new(None),
    })
}

/// Writes the end of the log once more, the same bytes to the same place.
///
/// They were read from the page cache, and an earlier process may have met a failed sync: the kernel
/// then takes the pages for clean although the disk does not have them, and no sync of ours would
/// write them.
fn write_again(file: &dyn VfsFile, from: Location, end: Location) -> Result<(), Error> {
    let failed = |error| Error::io("secure the end of the log", error);
    let offset = u64::from(from.offset);
    let mut bytes = vec![0; (end.offset - from.offset) as usize];
    let got = file.read_at(&mut bytes, offset).map_err(failed)?;
    file.write_all_at(&bytes[..got], offset).map_err(failed)
}

/// The first segment of a new store.
fn create_first(vfs: &dyn Vfs, options: &Options, found: &mut Replay) -> Result<Location, Error> {
    const FIRST: u32 = 1;
    let failed = |error| Error::io("create the first segment", error);
    let bytes = options.segment_bytes_max;
    let store_id = vfs.random();
    let header = SegmentHeader {
        segment: FIRST,
        segment_bytes: bytes,
        store_id,
        sequence: found.next_sequence,
        head: FIRST,
    };
    let file = vfs.create(SPARE, u64::from(bytes)).map_err(failed)?;
    file.write_all_at(&header.encode(), 0).map_err(failed)?;
    file.sync_data().map_err(failed)?;
    vfs.rename(SPARE, &segment_name(FIRST)).map_err(failed)?;
    vfs.sync_dir().map_err(failed)?;
    found.store_id = Some(store_id);
    let sequence = found.next_sequence;
    let segment = Segment {
        file,
        bytes,
        sequence,
    };
    found.segments.insert(FIRST, segment);
    Ok(Location {
        segment: FIRST,
        offset: BLOCK,
    })
}
