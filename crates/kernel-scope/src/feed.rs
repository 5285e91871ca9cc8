use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use ebpf_ring::{MapCounters, RingReader, Wait};
use libbpf_rs::MapMut;

use crate::attach::{Attachment, Programs, handle};
use crate::error::ScopeError;
use crate::events::Events;
use crate::overhead::{Meter, Overhead, SAMPLE};

const EVENTS_AT_ONCE: u64 = 10_000;
/// A program that was running on another CPU when its link went away may still count and write. It
/// is done within microseconds; this many milliseconds are waited for it at most.
const STRAGGLERS_MS_MAX: u32 = 100;

/// Attached programs and the ring that they write to: what the tools have in common whose events
/// arrive one by one.
#[derive(Debug)]
pub(crate) struct Feed {
    ring: RingReader,
    programs: Programs,
    meter: Meter,
}

impl Feed {
    /// `events` is a ring buffer, `counts` its `MR_COUNTERS`. The maps' object may go.
    pub(crate) fn new(
        events: &MapMut<'_>,
        counts: &MapMut<'_>,
        programs: Programs,
    ) -> Result<Self, ScopeError> {
        let ring = RingReader::from_map(events)?;
        Ok(Self {
            ring: ring.with_counters(MapCounters::new(handle(counts)?, 0)?),
            meter: Meter::start(programs.ids()),
            programs,
        })
    }

    pub(crate) fn attached(&self) -> &Attachment {
        self.programs.attachment()
    }

    /// Waits for at most `timeout` until there are events. Returns false when there are none.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Result<bool, ScopeError> {
        let start = Instant::now();
        loop {
            // A sample must end in time, or the kernel goes on measuring for the whole wait.
            self.meter.tick();
            let left = timeout.saturating_sub(start.elapsed());
            if self.ring.wait(Wait::up_to(left.min(SAMPLE)))? {
                return Ok(true);
            }
            if left <= SAMPLE {
                return Ok(false);
            }
        }
    }

    /// Hands at most `events_max` waiting records to `each`. Returns how many there were, or the
    /// last error of `each` after all of them.
    pub(crate) fn drain(
        &mut self,
        events_max: u64,
        mut each: impl FnMut(&[u8]) -> Result<(), ScopeError>,
    ) -> Result<u64, ScopeError> {
        let mut bad = None;
        let drained = self.ring.drain(events_max, |record| {
            if let Err(error) = each(record.bytes()) {
                bad = Some(error);
            }
        })?;
        bad.map_or(Ok(drained.records), Err)
    }

    /// Waits and drains for as long as `duration`.
    pub(crate) fn collect(
        &mut self,
        duration: Duration,
        mut each: impl FnMut(&[u8]) -> Result<(), ScopeError>,
    ) -> Result<(), ScopeError> {
        let start = Instant::now();
        loop {
            let left = duration.saturating_sub(start.elapsed());
            self.wait(left)?;
            self.drain(EVENTS_AT_ONCE, &mut each)?;
            if left.is_zero() {
                return Ok(());
            }
        }
    }

    pub(crate) fn events(&self) -> Result<Events, ScopeError> {
        Ok(Events::of_ring(&self.ring.stats()?))
    }

    pub(crate) fn overhead(&self) -> Overhead {
        self.meter.read()
    }

    /// Detaches, drains what is left, and returns the exact account.
    pub(crate) fn finish(
        &mut self,
        mut each: impl FnMut(&[u8]) -> Result<(), ScopeError>,
    ) -> Result<Events, ScopeError> {
        self.meter.stop();
        self.programs.detach();
        let mut tries = 0;
        loop {
            while self.drain(EVENTS_AT_ONCE, &mut each)? > 0 {}
            let events = self.events()?;
            tries += 1;
            if events.pending == 0 && events.is_balanced() || tries > STRAGGLERS_MS_MAX {
                return Ok(events);
            }
            self.wait(Duration::from_millis(1))?;
        }
    }
}

impl AsFd for Feed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
