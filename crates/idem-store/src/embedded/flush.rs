//! The one place that writes and syncs the log.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::completion::{Completion, Event, Helper};
use crate::embedded::book::Location;
use crate::embedded::shared::{Segment, Settling, Shared, State};
use crate::embedded::spare::{Lack, Unready};
use crate::embedded::tail::{Chunk, Cut};
use crate::embedded::vfs::{Aligned, VfsFile};
use crate::error::Error;
use crate::options::Durability;
use crate::sync::Ordering;

/// What only the flusher touches.
pub(crate) struct Writer {
    pub(crate) file: Arc<dyn VfsFile>,
    pub(crate) segment: u32,
    pub(crate) store_id: u64,
    /// Sequence after the last record that was written, and that was synced.
    pub(crate) written_below: u64,
    pub(crate) synced_below: u64,
    /// The end of the log from the last multiple of the file's unit on: the next durable write
    /// starts there and writes these bytes again.
    pub(crate) rest: Vec<u8>,
    /// Where durable writes are put together.
    pub(crate) aligned: Aligned,
    /// A batch that waits for disk space.
    pub(crate) held: Option<Cut>,
}

/// What a batch cost.
#[derive(Default)]
struct Cost {
    bytes: u64,
    sync_us: Vec<u64>,
}

/// How writing a batch ended.
enum Wrote {
    All,
    /// It goes on in a segment for which something is missing.
    Part(Lack),
}

impl Shared {
    /// Writes the open batch, if there is one, and syncs if somebody asked for that; whether a
    /// batch was written.
    pub(crate) fn flush_once(&self) -> bool {
        let asked = std::mem::take(&mut self.lock().flush_events);
        let flushed = self.write_next();
        if flushed && !asked.is_empty() {
            // It may have been a batch that was held: what they ask about can lie behind it.
            self.write_next();
        }
        if !asked.is_empty() {
            self.answer_flushes(asked);
        }
        flushed
    }

    /// Writes the batch that is held, else the open one; whether that ended, well or not.
    fn write_next(&self) -> bool {
        let mut writer = self.writer.lock();
        let cut = match writer.held.take() {
            Some(held) => Some(held),
            None => self.lock().cut(),
        };
        let Some(cut) = cut else { return false };
        let settling = self.write_cut(&mut writer, cut);
        let held = writer.held.is_some();
        drop(writer);
        settling.into_iter().for_each(Settling::settle);
        !held
    }

    fn answer_flushes(&self, events: Vec<Arc<Event>>) {
        let mut state = self.lock();
        if let Some(lack) = state.tail.told() {
            drop(state);
            return events.iter().for_each(|event| event.fail(&lack.error()));
        }
        if state.tail.is_held() {
            // Not everything is written: they stay to be answered, with those that came meanwhile.
            state.flush_events.extend(events);
            return;
        }
        drop(state);
        match self.sync_written() {
            Ok(()) => events.iter().for_each(|event| event.done()),
            Err(error) => events.iter().for_each(|event| event.fail(&error)),
        }
    }

    /// Writes a batch; what is to be settled once the writer is released: wakers are foreign code.
    fn write_cut(&self, writer: &mut Writer, mut cut: Cut) -> Vec<Settling> {
        let mut cost = Cost::default();
        let result = self.write(writer, &mut cut, &mut cost);
        let mut state = self.lock();
        match result {
            Ok(Wrote::All) => {
                state.record(&cost, u64::from(cut.records));
                state.unsynced = writer.synced_below < writer.written_below;
                state.tail.written(cut.end, cut.chunks);
                state.settling.push(Settling::Done(cut.event));
            }
            Ok(Wrote::Part(lack)) => {
                state.count(&cost);
                state.stall(cut.written_end(), lack, self.patience());
                state.expire_patience(Instant::now());
                writer.held = Some(cut);
                // It keeps the time; whoever wrote may be a caller.
                self.work.notify_one();
                // The next segment may have been made ready a moment ago.
                state.upkeep_asked = true;
                self.upkeep_work.notify_one();
            }
            Err(error) => {
                let error = state.poison(error);
                state.settling.push(Settling::Failed(cut.event, error));
            }
        }
        std::mem::take(&mut state.settling)
    }

    fn write(&self, writer: &mut Writer, cut: &mut Cut, cost: &mut Cost) -> Result<Wrote, Error> {
        while let Some(chunk) = cut.chunks.get_mut(cut.written) {
            if chunk.segment != writer.segment
                && let Err(lack) = self.roll(writer, chunk.segment, cost)?
            {
                return Ok(Wrote::Part(lack));
            }
            chunk.seal(writer.synced_below);
            let durably = self.options.durability == Durability::Sync;
            writer.write(chunk, durably, cost)?;
            cut.written += 1;
        }
        if self.lock().tail.is_opening() {
            writer.sync(cost)?;
        }
        Ok(Wrote::All)
    }

    /// Goes on in the next segment, once all before it is durable: the first batch there says so.
    /// Or says what is missing for it.
    fn roll(
        &self,
        writer: &mut Writer,
        segment: u32,
        cost: &mut Cost,
    ) -> Result<Result<(), Lack>, Error> {
        writer.sync(cost)?;
        let head = self.lock().head();
        let file = match self.spares.lock().take(&*self.vfs, head) {
            Ok(file) => file,
            Err(Unready::Lacks(lack, _)) => return Ok(Err(lack)),
            Err(Unready::Failed(error)) => return Err(Error::io("start the next segment", error)),
        };
        writer.file = Arc::clone(&file);
        writer.segment = segment;
        writer.rest.clear();
        let segment_of = Segment {
            file,
            bytes: self.options.segment_bytes_max,
            sequence: writer.written_below,
        };
        let mut state = self.lock();
        state.segments.insert(segment, segment_of);
        state.rolled(segment);
        self.upkeep_work.notify_one();
        Ok(Ok(()))
    }

    /// Syncs what was written and not synced yet.
    pub(crate) fn sync_written(&self) -> Result<(), Error> {
        let mut writer = self.writer.lock();
        let result = self.sync_through(&mut writer);
        drop(writer);
        result.map_err(|(error, settling)| {
            settling.into_iter().for_each(Settling::settle);
            error
        })
    }

    /// An answer once everything appended so far is synced, whatever the durability.
    pub(crate) fn flush(&self) -> Completion<()> {
        let mut state = self.lock();
        if let Err(error) = state.check_usable() {
            return Completion::failed(error);
        }
        if let Some(lack) = state.tail.told() {
            return Completion::failed(lack.error());
        }
        let event = match state.flush_events.last() {
            Some(event) => Arc::clone(event),
            None => Event::new(),
        };
        if state.flush_events.is_empty() {
            state.flush_events.push(Arc::clone(&event));
        }
        self.wake_flusher(&mut state);
        Completion::on_with(event, (), |()| ())
    }

    /// Makes everything that was written durable, whatever the durability of the store.
    ///
    /// Never after a failure: the kernel may have dropped what it could not write, and the next
    /// sync would succeed without it. With the error comes what is to be settled once the writer is
    /// released.
    fn sync_through(&self, writer: &mut Writer) -> Result<(), (Error, Vec<Settling>)> {
        if let Some(poison) = &self.lock().poison {
            return Err((poison.clone(), Vec::new()));
        }
        let mut cost = Cost::default();
        let result = writer.sync(&mut cost);
        let mut state = self.lock();
        match result {
            Ok(()) => {
                state.count(&cost);
                state.unsynced = false;
                Ok(())
            }
            Err(error) => {
                let error = state.poison(error);
                Err((error, std::mem::take(&mut state.settling)))
            }
        }
    }

    /// The flush thread.
    pub(crate) fn run(&self) {
        let guard = PoisonOnPanic(self);
        while !self.await_work() {
            self.work_once();
        }
        self.work_once();
        drop(guard);
    }

    fn work_once(&self) {
        self.flush_once();
        let now = Instant::now();
        self.expire_waits(now);
        self.lock().expire_patience(now);
        if self.is_sync_due() {
            // A failure has poisoned the store: every later call reports it.
            let _ = self.sync_written();
        }
    }

    /// Sleeps until there is something to do; whether it is to stop.
    fn await_work(&self) -> bool {
        let mut state = self.state.lock();
        loop {
            if state.stopping {
                return true;
            }
            let wake = state.next_wake(self.options.durability);
            let due = wake.is_some_and(|at| at <= Instant::now());
            // A batch that is being cut clears `urgent`, also that of a flush which asked meanwhile.
            let asked = state.has_work();
            if due || asked && !state.tail.is_stuck() {
                return false;
            }
            self.flusher_idle.store(true, Ordering::Relaxed);
            match wake {
                Some(at) => {
                    self.work.wait_until(&mut state, at);
                }
                None => self.work.wait(&mut state),
            }
            self.flusher_idle.store(false, Ordering::Relaxed);
        }
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.options.disk_full_wait_ms)
    }

    fn is_sync_due(&self) -> bool {
        let Durability::IntervalMs(ms) = self.options.durability else {
            return false;
        };
        let state = self.lock();
        state.unsynced && state.last_sync.elapsed() >= Duration::from_millis(ms)
    }

    /// The end of the store: what still waits for disk space will not be written.
    pub(crate) fn give_up_held(&self) -> Result<(), Error> {
        if self.writer.lock().held.is_some() {
            let error = self.lock().tail.lack().error();
            self.give_up(error.clone());
            return Err(error);
        }
        Ok(())
    }

    /// Poisons the store; a batch that waits for disk space gets the error too.
    pub(crate) fn give_up(&self, cause: Error) {
        let mut writer = self.writer.lock();
        let held = writer.held.take();
        let mut state = self.lock();
        let error = state.poison(cause);
        let held = held.map(|cut| Settling::Failed(cut.event, error));
        state.settling.extend(held);
        // Not before: whoever writes next must not write what lies behind the batch that was held.
        drop(writer);
    }
}

/// A blocked caller lends its thread when the flush thread sleeps: with one caller the write is on
/// its way without a change of threads, of which there would be two per operation.
impl Helper for Shared {
    fn help(&self) {
        if self.options.durability != Durability::Sync {
            // Where nobody waits for the disk there is little to gain, and the flush thread keeps
            // the time of the next sync.
            return self.wake_flusher(&mut self.lock());
        }
        // Outlives the writer's lock, which a panic releases first: wakers are foreign code.
        let guard = PoisonOnPanic(self);
        let Some(mut writer) = self.writer.try_lock() else {
            // Somebody writes at this moment: the flush thread goes on behind.
            return self.wake_flusher(&mut self.lock());
        };
        if writer.held.is_some() {
            return;
        }
        let cut = {
            let mut state = self.lock();
            let idle = self.flusher_idle.load(Ordering::Relaxed);
            if !idle || !state.flush_events.is_empty() {
                drop(state);
                drop(writer);
                return self.wake_flusher(&mut self.lock());
            }
            state.cut()
        };
        let settling = cut.map(|cut| self.write_cut(&mut writer, cut));
        drop(writer);
        settling.into_iter().flatten().for_each(Settling::settle);
        drop(guard);
    }

    fn nudge(&self) {
        // The flush thread goes to sleep under the lock under which `urgent` was set: whoever set
        // it either kept the thread awake or sees that it sleeps.
        if self.flusher_idle.load(Ordering::Relaxed) {
            self.wake_flusher(&mut self.lock());
        }
    }
}

/// Should the flush thread (or whoever helps it) ever panic, nobody must wait for it in vain.
struct PoisonOnPanic<'a>(&'a Shared);

impl Drop for PoisonOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let cause = io::Error::other("the flush thread panicked");
            let error = self.0.lock().poison(Error::io("write the log", cause));
            // The batch that was being written when it happened, if any.
            let flushing = self.0.lock().tail.flushing();
            flushing.inspect(|event| event.fail(&error));
        }
    }
}

impl Writer {
    fn sync(&mut self, cost: &mut Cost) -> Result<(), Error> {
        if self.synced_below == self.written_below {
            return Ok(());
        }
        let start = Instant::now();
        let synced = self.file.sync_data();
        synced.map_err(|error| Error::io("sync the log", error))?;
        cost.sync_us.push(start.elapsed().as_micros() as u64);
        self.synced_below = self.written_below;
        Ok(())
    }

    fn write(&mut self, chunk: &Chunk, durably: bool, cost: &mut Cost) -> Result<(), Error> {
        let failed = |error| Error::io("write the log", error);
        let offset = u64::from(chunk.offset);
        if durably {
            let start = Instant::now();
            self.write_durably(chunk).map_err(failed)?;
            cost.sync_us.push(start.elapsed().as_micros() as u64);
        } else {
            let written = self.file.write_all_at(&chunk.bytes, offset);
            written.map_err(failed)?;
        }
        cost.bytes += chunk.bytes.len() as u64;
        self.written_below = chunk.sequence + u64::from(chunk.count);
        if durably {
            self.synced_below = self.written_below;
        }
        Ok(())
    }

    /// Writes a batch with the start of its first unit before and zeros to the end of its last.
    fn write_durably(&mut self, chunk: &Chunk) -> io::Result<()> {
        let unit = self.file.durable_unit();
        if unit == 1 {
            let offset = u64::from(chunk.offset);
            return self.file.write_durably_at(&chunk.bytes, offset);
        }
        let start = chunk.offset as usize / unit * unit;
        self.aligned
            .clear(self.rest.len() + chunk.bytes.len() + unit);
        self.aligned.push(&self.rest);
        self.aligned.push(&chunk.bytes);
        let rest = self.aligned.bytes();
        let rest = &rest[rest.len() / unit * unit..];
        self.rest.clear();
        self.rest.extend_from_slice(rest);
        self.aligned.pad(unit);
        self.file
            .write_durably_at(self.aligned.bytes(), start as u64)
    }
}

impl State {
    /// The lowest segment that is part of the log.
    pub(crate) fn head(&self) -> u32 {
        let head = self.segments.keys().next();
        *head.expect("a log has a segment")
    }

    fn cut(&mut self) -> Option<Cut> {
        self.urgent = false;
        if self.poison.is_some() {
            return None;
        }
        self.tail.cut()
    }

    /// When the flush thread must wake without being asked.
    fn next_wake(&self, durability: Durability) -> Option<Instant> {
        let wait = self.waits.first_key_value().map(|((at, _), _)| *at);
        let sync = match durability {
            Durability::IntervalMs(ms) if self.unsynced => {
                Some(self.last_sync + Duration::from_millis(ms))
            }
            _ => None,
        };
        [wait, sync, self.patience_ends].into_iter().flatten().min()
    }

    /// There is no disk space for what was appended already: it waits. `durable` is the end of what
    /// was written of the batch.
    fn stall(&mut self, durable: Option<Location>, lack: Lack, patience: Duration) {
        if !self.tail.is_held() {
            let error = lack.error();
            tracing::warn!(%error, "the store keeps what ends in memory until there is room");
            self.patience_ends = Some(Instant::now() + patience);
        }
        self.tail.hold(durable, lack);
    }

    /// Tells those who waited long enough for disk space that there is none. What they wait for
    /// stays to be written.
    fn expire_patience(&mut self, now: Instant) {
        if self.patience_ends.is_none_or(|at| at > now) {
            return;
        }
        self.patience_ends = None;
        let mut events = Vec::from(self.tail.end_patience());
        events.extend(self.flush_events.drain(..).map(Some));
        for event in events.into_iter().flatten() {
            let error = self.tail.lack().error();
            self.settling.push(Settling::Failed(event, error));
        }
    }

    /// The log goes on in a new segment.
    fn rolled(&mut self, segment: u32) {
        self.patience_ends = None;
        self.tail.rolled(segment);
        self.upkeep_asked = true;
    }

    fn record(&mut self, cost: &Cost, records: u64) {
        self.stats.batches += 1;
        self.stats.batch_records.record(records);
        self.count(cost);
    }

    fn count(&mut self, cost: &Cost) {
        self.stats.bytes_written += cost.bytes;
        if !cost.sync_us.is_empty() {
            self.last_sync = Instant::now();
        }
        for &us in &cost.sync_us {
            self.stats.syncs += 1;
            self.stats.sync_us_last = us;
            self.stats.sync_us.record(us);
        }
    }

    /// Refuses everything from now on; nobody who still waits gets an answer but this error.
    pub(crate) fn poison(&mut self, cause: Error) -> Error {
        tracing::error!(error = %cause, "the store is poisoned: it refuses everything from now on");
        let error = Error::poisoned(cause);
        self.poison = Some(error.clone());
        let waits = std::mem::take(&mut self.waits).into_values();
        let mut events: Vec<_> = waits.map(|wait| wait.event).collect();
        events.push(self.tail.abandon());
        events.append(&mut self.flush_events);
        for event in events {
            self.settling.push(Settling::Failed(event, error.clone()));
        }
        error
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::task::{Context, Wake, Waker};

    use super::*;
    use crate::embedded::memory::Memory;
    use crate::embedded::vfs::Vfs;
    use crate::sync::AtomicBool;
    use crate::{Begin, Fingerprint, Options, Store};

    #[test]
    fn everybody_who_asks_for_a_flush_is_answered_when_a_batch_was_held_meanwhile() {
        let store = Store::open_on(Arc::new(Memory::default()), Options::new()).expect("opens");
        let shared = &store.of_this_machine().shared;
        let first = store.flush();
        // As in a turn of the flusher that finds no space, while another asks.
        let asked = std::mem::take(&mut shared.lock().flush_events);
        shared.lock().tail.hold(None, Lack::Space);
        let second = store.flush();
        shared.answer_flushes(asked);
        shared.lock().tail.rolled(1);
        store.drive();
        for flushed in [first, second] {
            assert!(flushed.try_now().expect("answered").is_ok());
        }
    }

    /// What runs when a completion is settled: it looks whether the writer could be locked.
    struct Looks(Arc<Shared>, AtomicBool);

    impl Wake for Looks {
        fn wake(self: Arc<Self>) {
            let free = self.0.writer.try_lock().is_some();
            self.1.store(free, Ordering::Relaxed);
        }
    }

    /// A waker may drop the last handle, and that writes the end of the log.
    #[test]
    fn wakers_run_when_the_writer_is_free() {
        let begin_and_poison = |sync_alone: bool| {
            let disk = Arc::new(Memory::default());
            let store = Store::open_on(Arc::clone(&disk) as Arc<dyn Vfs>, options(sync_alone));
            let store = store.expect("opens");
            let shared = Arc::clone(&store.of_this_machine().shared);
            let begin = Begin::new(b"key", Fingerprint([1; 32]), 1_000, 5);
            let _permit = store.begin(&begin).wait().expect("begins");
            let mut waits = Box::pin(store.wait(b"key", 60_000));
            let looks = Arc::new(Looks(Arc::clone(&shared), AtomicBool::new(false)));
            let waker = Waker::from(Arc::clone(&looks));
            assert!(
                waits
                    .as_mut()
                    .poll(&mut Context::from_waker(&waker))
                    .is_pending()
            );
            if sync_alone {
                shared.lock().urgent = true;
                shared.flush_once();
                disk.fail();
                shared.sync_written().expect_err("the disk fails");
            } else {
                disk.fail();
                shared.lock().urgent = true;
                shared.flush_once();
            }
            assert!(shared.stats().poisoned);
            assert!(looks.1.load(Ordering::Relaxed), "woken under the lock");
        };
        begin_and_poison(false);
        begin_and_poison(true);
    }

    fn options(sync_alone: bool) -> Options {
        Options::new().durability(match sync_alone {
            true => Durability::None,
            false => Durability::Sync,
        })
    }
}
