//! The embedded store's handle: opening, closing, and its threads.

use std::any::Any;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::embedded::book::Location;
use crate::embedded::cache::Cache;
use crate::embedded::flush::Writer;
use crate::embedded::format::{BLOCK, Kind, Record, segment_name};
use crate::embedded::index_snapshot;
use crate::embedded::repair;
use crate::embedded::replay::{Replay, replay_from_index};
use crate::embedded::shared::{Segment, Shared, State};
use crate::embedded::spare::{Spares, Unready, is_spare_name};
use crate::embedded::tail::{Purpose, Tail};
use crate::embedded::upkeep::Upkeep;
use crate::embedded::vfs::{Aligned, OsVfs, Vfs, VfsFile};
use crate::error::{Error, Kind as ErrorKind};
use crate::options::Options;
use crate::stats::Stats;
use crate::sync::{AtomicBool, Condvar, Mutex};

/// What all clones of an embedded store share; the last one ends the threads.
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Handle {
    /// Opens the store in `dir` and starts its threads.
    pub(crate) fn open(dir: &Path, options: Options) -> Result<Self, Error> {
        let vfs = OsVfs::create(dir);
        let vfs = vfs.map_err(|error| Error::io("create the store's directory", error))?;
        let handle = Self::open_on(Arc::new(vfs), options)?;
        let start = |name: &str, run: fn(&Shared)| {
            let shared = Arc::clone(&handle.shared);
            let thread = std::thread::Builder::new().name(name.to_owned());
            let thread = thread.spawn(move || run(&shared));
            thread.map_err(|error| Error::io("start the store's threads", error))
        };
        let flush = start("mainstay-store-flush", Shared::run)?;
        handle.threads.lock().push(flush);
        let upkeep = start("mainstay-store-upkeep", Shared::run_upkeep)?;
        handle.threads.lock().push(upkeep);
        Ok(handle)
    }

    /// As [`open`](Self::open) on any disk, without the threads.
    pub(crate) fn open_on(vfs: Arc<dyn Vfs>, options: Options) -> Result<Self, Error> {
        options.check()?;
        let lock = take_lock(&*vfs)?;
        let found = replay_from_index(&*vfs)?;
        if let Some((segment, damage)) = found.damage.first() {
            let offset = u64::from(damage.offset);
            return Err(Error::damaged(*segment, offset, damage.reason));
        }
        let shared = Arc::new(assemble(vfs, options, found)?);
        *shared.directory.lock() = Some(lock);
        let helper = Arc::downgrade(&shared);
        shared.lock().tail.helped_by(helper);
        shared.announce(Kind::Opened)?;
        Ok(Self {
            shared,
            threads: Mutex::new(Vec::new()),
        })
    }

    /// One turn of what the threads do.
    pub(crate) fn drive(&self) -> bool {
        let shared = &self.shared;
        let flushed = shared.flush_once();
        shared.upkeep_slice(Instant::now());
        flushed
    }

    pub(crate) fn stop(&self) -> Result<(), Error> {
        let mut threads = self.threads.lock();
        let mut state = self.shared.lock();
        let first = !state.closed;
        state.closed = true;
        state.stopping = true;
        self.shared.work.notify_one();
        self.shared.upkeep_work.notify_one();
        drop(state);
        // A waker may run on the flush thread and drop the last handle there.
        let is_other =
            |thread: &JoinHandle<()>| thread.thread().id() != std::thread::current().id();
        for thread in threads.drain(..).filter(is_other) {
            // If it panicked it has poisoned the store, which is reported below.
            let _ = thread.join();
        }
        let result = if first {
            self.shared.announce(Kind::Closed)
        } else {
            Ok(())
        };
        let given_up = self.shared.give_up_held();
        self.shared.directory.lock().take();
        result.and(given_up)
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
pub(crate) const OPEN_GAP: u64 = 1 << 32;

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

fn assemble(vfs: Arc<dyn Vfs>, mut options: Options, mut found: Replay) -> Result<Shared, Error> {
    // What lives in a large segment may be too long for smaller ones.
    options.segment_bytes_max = options.segment_bytes_max.max(found.segment_bytes_max);
    // The higher one first, and for good: a gap below it would be damage.
    for unused in found.unused.iter().rev() {
        let removed = vfs.remove(&segment_name(*unused));
        let removed = removed.and_then(|()| vfs.sync_dir());
        removed.map_err(|error| Error::io("remove an unused segment", error))?;
    }
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
    clear_away(&*vfs, &found)?;
    let opened_from_index = found.view.index().is_some();
    let upkeep = Upkeep::after(found.view.index().map(|index| index.start));
    let writer = Writer {
        rest: rest_of(&*current.file, end)?,
        file: Arc::clone(&current.file),
        segment: end.segment,
        store_id: found.store_id.expect("a log has a readable header"),
        written_below: found.next_sequence,
        synced_below: found.next_sequence,
        aligned: Aligned::default(),
        held: None,
    };
    let spares = Spares::new(
        writer.store_id,
        end.segment.saturating_add(1),
        options.segment_bytes_max,
    );
    let tail = Tail::new(
        current.bytes,
        options.segment_bytes_max,
        options.batch_bytes_max,
        end,
        found.next_sequence,
    );
    let state = State {
        book: found.view.book,
        cache: Cache::new(options.cache_bytes_max),
        tail,
        segments: found.segments,
        stats: Stats {
            opened_from_index,
            ..Stats::default()
        },
        poison: None,
        closed: false,
        stopping: false,
        urgent: false,
        unsynced: false,
        last_sync: Instant::now(),
        upkeep_asked: false,
        flush_events: Vec::new(),
        spare_retry_at: None,
        patience_ends: None,
        waits: Default::default(),
        wait_number: 0,
        head_told: found.head,
        last_removal: None,
        settling: Vec::new(),
        now_ms: 0,
    };
    Ok(Shared {
        options,
        vfs,
        state: Mutex::new(state),
        work: Condvar::new(),
        flusher_idle: AtomicBool::new(false),
        upkeep_work: Condvar::new(),
        upkeep: Mutex::new(upkeep),
        writer: Mutex::new(writer),
        spares: Mutex::new(spares),
        directory: Mutex::new(None),
    })
}

/// Removes what no longer belongs to the log, and what a process that died was making.
fn clear_away(vfs: &dyn Vfs, found: &Replay) -> Result<(), Error> {
    let names = vfs.list();
    let names = names.map_err(|error| Error::io("list the store's directory", error))?;
    for name in names.iter().filter(|name| is_spare_name(name)) {
        // What is in them may be of another store with the same segment numbers.
        let removed = vfs.remove(name);
        removed.map_err(|error| Error::io("remove a spare file", error))?;
    }
    for stale in &found.stale {
        // Ignored while it is there; tried again when the store is next opened.
        let _ = vfs.remove(&segment_name(*stale));
    }
    for temporary in [index_snapshot::TEMPORARY, repair::TEMPORARY] {
        let _ = vfs.remove(temporary);
    }
    if found.bad_index {
        // It must not be there when the log has grown over the place that it tells of.
        let removed = vfs.remove(index_snapshot::NAME);
        let removed = removed.and_then(|()| vfs.sync_dir());
        removed.map_err(|error| Error::io("remove an index that cannot be used", error))?;
    }
    Ok(())
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

/// The bytes from the last multiple of the file's unit to the end of the log.
fn rest_of(file: &dyn VfsFile, end: Location) -> Result<Vec<u8>, Error> {
    let start = end.offset as usize / file.durable_unit() * file.durable_unit();
    let mut rest = vec![0; end.offset as usize - start];
    let got = file.read_at(&mut rest, start as u64);
    let got = got.map_err(|error| Error::io("read the end of the log", error))?;
    rest.truncate(got);
    Ok(rest)
}

/// The first segment of a new store.
fn create_first(vfs: &dyn Vfs, options: &Options, found: &mut Replay) -> Result<Location, Error> {
    const FIRST: u32 = 1;
    let bytes = options.segment_bytes_max;
    let store_id = vfs.random();
    let taken = Spares::new(store_id, FIRST, bytes).take(vfs, FIRST);
    let file = taken.map_err(|unready| {
        let (Unready::Lacks(_, error) | Unready::Failed(error)) = unready;
        Error::io("create the first segment", error)
    })?;
    found.store_id = Some(store_id);
    let sequence = found.next_sequence;
    let segment = Segment {
        file,
        bytes,
        sequence,
    };
    found.segments.insert(FIRST, segment);
    found.head = FIRST;
    Ok(Location {
        segment: FIRST,
        offset: BLOCK,
    })
}
