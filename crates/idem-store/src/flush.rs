//! The one place that writes and syncs the log.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::completion::{Completion, Event};
use crate::error::Error;
use crate::format::{SegmentHeader, segment_name};
use crate::options::Durability;
use crate::shared::{Segment, Settling, Shared, State};
use crate::tail::{Chunk, Cut, Spare};
use crate::upkeep::Upkeep;
use crate::vfs::VfsFile;

/// What only the flusher touches.
pub(crate) struct Writer {
    pub(crate) file: Arc<dyn VfsFile>,
    pub(crate) segment: u32,
    pub(crate) store_id: u64,
    /// Sequence after the last record that was written, and that was synced.
    pub(crate) written_below: u64,
    pub(crate) synced_below: u64,
    pub(crate) last_sync: Instant,
    pub(crate) upkeep: Upkeep,
}

/// What a batch cost.
#[derive(Default)]
struct Cost {
    bytes: u64,
    sync_us: Vec<u64>,
}

impl Shared {
    /// Writes the open batch, if there is one, and syncs if somebody asked for that; whether a
    /// batch was written.
    pub(crate) fn flush_once(&self) -> bool {
        let asked = self.lock().flush_event.take();
        let flushed = self.flush_batch();
        if let Some(event) = asked {
            match self.sync_written() {
                Ok(()) => event.done(),
                Err(error) => event.fail(&error),
            }
        }
        flushed
    }

    fn flush_batch(&self) -> bool {
        let mut writer = self.writer.lock();
        let Some(mut cut) = self.lock().cut() else {
            return false;
        };
        let mut cost = Cost::default();
        let result = self.write(&mut writer, &mut cut.chunks, &mut cost);
        let mut state = self.lock();
        match result {
            Ok(()) => {
                state.record(&cost, u64::from(cut.records));
                state.unsynced = writer.synced_below < writer.written_below;
                state.tail.written(cut.end, cut.chunks);
                drop(state);
                drop(writer);
                cut.event.done();
            }
            Err(error) => {
                let error = state.poison(error);
                drop(state);
                drop(writer);
                cut.event.fail(&error);
            }
        }
        true
    }

    fn write(
        &self,
        writer: &mut Writer,
        chunks: &mut [Chunk],
        cost: &mut Cost,
    ) -> Result<(), Error> {
        for chunk in chunks {
            if chunk.segment != writer.segment {
                self.roll(writer, chunk.segment, cost)?;
            }
            chunk.seal(writer.synced_below);
            let offset = u64::from(chunk.offset);
            let written = writer.file.write_all_at(&chunk.bytes, offset);
            written.map_err(|error| Error::io("write the log", error))?;
            cost.bytes += chunk.bytes.len() as u64;
            writer.written_below = chunk.sequence + u64::from(chunk.count);
            if self.options.durability == Durability::Sync {
                writer.sync(cost)?;
            }
        }
        Ok(())
    }

    /// Goes on in the next segment: its file takes its name only when all before it is durable.
    fn roll(&self, writer: &mut Writer, segment: u32, cost: &mut Cost) -> Result<(), Error> {
        let failed = |error| Error::io("start the next segment", error);
        writer.sync(cost)?;
        let bytes = self.options.segment_bytes_max;
        let file = match writer.upkeep.take_spare() {
            Some(file) => file,
            None => self
                .vfs
                .create(crate::upkeep::SPARE, u64::from(bytes))
                .map_err(failed)?,
        };
        let head = self.lock().segments.keys().next().copied();
        let sequence = writer.written_below;
        let header = SegmentHeader {
            segment,
            segment_bytes: bytes,
            store_id: writer.store_id,
            sequence,
            head: head.unwrap_or(segment),
        };
        file.write_all_at(&header.encode(), 0).map_err(failed)?;
        file.sync_data().map_err(failed)?;
        let name = segment_name(segment);
        self.vfs
            .rename(crate::upkeep::SPARE, &name)
            .map_err(failed)?;
        self.vfs.sync_dir().map_err(failed)?;
        writer.file = Arc::clone(&file);
        writer.segment = segment;
        let mut state = self.lock();
        state.segments.insert(
            segment,
            Segment {
                file,
                bytes,
                sequence,
            },
        );
        Ok(())
    }

    /// Syncs what was written and not synced yet.
    pub(crate) fn sync_written(&self) -> Result<(), Error> {
        let mut writer = self.writer.lock();
        let poison = self.lock().poison.clone();
        poison.map_or_else(|| self.sync_through(&mut writer), Err)
    }

    /// An answer once everything appended so far is synced, whatever the durability.
    pub(crate) fn flush(&self) -> Completion<()> {
        let mut state = self.lock();
        if let Err(error) = state.check_usable() {
            return Completion::failed(error);
        }
        let event = state.flush_event.get_or_insert_with(Event::new);
        let event = Arc::clone(event);
        self.urge(&mut state);
        Completion::on_with(event, (), |()| ())
    }

    /// Makes everything that was written durable, whatever the durability of the store.
    pub(crate) fn sync_through(&self, writer: &mut Writer) -> Result<(), Error> {
        let mut cost = Cost::default();
        let result = writer.sync(&mut cost);
        let mut state = self.lock();
        match result {
            Ok(()) => {
                state.count_syncs(&cost);
                state.unsynced = false;
                Ok(())
            }
            Err(error) => Err(state.poison(error)),
        }
    }

    /// The flush thread.
    pub(crate) fn run(&self) {
        let guard = PoisonOnPanic(self);
        self.run_until_stopped();
        drop(guard);
    }

    fn run_until_stopped(&self) {
        loop {
            let stop = self.await_work();
            self.flush_once();
            self.expire_waits(Instant::now());
            if self.is_sync_due() {
                // A failure has poisoned the store: every later call reports it.
                let _ = self.sync_written();
            }
            if stop {
                return;
            }
            self.upkeep_slice(Instant::now());
        }
    }

    /// Sleeps until there is something to do; whether it is to stop.
    fn await_work(&self) -> bool {
        let writer = self.writer.lock();
        let (more, last_sync) = (writer.upkeep.has_work(), writer.last_sync);
        drop(writer);
        let mut state = self.state.lock();
        loop {
            if state.stopping {
                return true;
            }
            let wake = state.next_wake(self.options.durability, last_sync);
            let due = wake.is_some_and(|at| at <= Instant::now());
            // A batch that is being cut clears `urgent`, also that of a flush which asked meanwhile.
            let asked = state.urgent || state.flush_event.is_some();
            if asked || more || due || state.tail.spare == Spare::Preparing {
                return false;
            }
            state.flusher_idle = true;
            match wake {
                Some(at) => {
                    self.work.wait_until(&mut state, at);
                }
                None => self.work.wait(&mut state),
            }
            state.flusher_idle = false;
        }
    }

    fn is_sync_due(&self) -> bool {
        let Durability::IntervalMs(ms) = self.options.durability else {
            return false;
        };
        let writer = self.writer.lock();
        writer.synced_below < writer.written_below
            && writer.last_sync.elapsed() >= Duration::from_millis(ms)
    }
}

/// Should the flush thread ever panic, nobody must wait for it in vain.
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
        self.last_sync = Instant::now();
        cost.sync_us
            .push((self.last_sync - start).as_micros() as u64);
        self.synced_below = self.written_below;
        Ok(())
    }
}

impl State {
    fn cut(&mut self) -> Option<Cut> {
        self.urgent = false;
        if self.poison.is_some() {
            return None;
        }
        self.tail.cut()
    }

    /// When the flush thread must wake without being asked.
    fn next_wake(&self, durability: Durability, last_sync: Instant) -> Option<Instant> {
        let wait = self.waits.first_key_value().map(|((at, _), _)| *at);
        let full = self.tail.spare == Spare::DiskFull;
        let retry = self.spare_retry_at.filter(|_| full);
        let sync = match durability {
            Durability::IntervalMs(ms) if self.unsynced => {
                Some(last_sync + Duration::from_millis(ms))
            }
            _ => None,
        };
        [wait, retry, sync].into_iter().flatten().min()
    }

    fn record(&mut self, cost: &Cost, records: u64) {
        self.stats.batches += 1;
        self.stats.bytes_written += cost.bytes;
        self.stats.batch_records.record(records);
        self.count_syncs(cost);
    }

    fn count_syncs(&mut self, cost: &Cost) {
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
        events.extend(self.flush_event.take());
        for event in events {
            self.settling.push(Settling::Failed(event, error.clone()));
        }
        error
    }
}
