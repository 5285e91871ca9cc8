use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::mapping::Mapping;
use super::reader::Record;
use crate::counters::CounterSource;
use crate::error::RingError;
use crate::spec::{MapInfo, MapKind};
use crate::stats::RingStats;
use crate::wait::{Closer, Wait, Waiter, Watched};
use crate::walk::overwrite::{self, Skipped};
use crate::walk::{Consumer, Drained, Look};

/// The one consumer of a ring whose new records replace the oldest (`BPF_F_RB_OVERWRITE`, kernels
/// after 6.18): a flight recorder, of which the newest part is always there.
///
/// Ask [`KernelFeature::OverwriteRing`](crate::KernelFeature::OverwriteRing) whether the kernel has
/// such rings. A program never waits for the reader, so a record is copied before it is handed out,
/// and given up when it was overwritten meanwhile; on processors that reorder stores (not x86-64)
/// the kernel promises less about a record that is being overwritten in that very moment.
pub struct OverwriteReader {
    fd: OwnedFd,
    mapping: Mapping,
    consumer: Consumer,
    skipped: Skipped,
    /// The record at hand.
    scratch: Vec<[u8; 8]>,
    counters: Option<Box<dyn CounterSource>>,
    waiter: Waiter,
}

impl OverwriteReader {
    /// Opens a map, by its descriptor or a [`BpfMap`](crate::BpfMap), and goes on where its last
    /// consumer stopped, or at the oldest record that is left.
    ///
    /// # Errors
    ///
    /// As [`RingReader::from_fd`](crate::RingReader::from_fd);
    /// [`is_wrong_map`](RingError::is_wrong_map) also for a ring that does not overwrite.
    pub fn from_fd(fd: impl Into<OwnedFd>) -> Result<Self, RingError> {
        let fd = fd.into();
        let found = MapInfo::read(&fd)?;
        found.expect_kind(MapKind::RingBuf)?;
        if !found.overwrites() {
            let why = "its records are not overwritten; open it with RingReader";
            return Err(RingError::wrong_map(why));
        }
        let mapping = Mapping::new(fd.as_fd(), found.max_entries)?;
        let consumer = overwrite::consumer(mapping.overwrite_view())?;
        Ok(Self {
            fd,
            mapping,
            consumer,
            skipped: Skipped::default(),
            scratch: Vec::new(),
            counters: None,
            waiter: Waiter::default(),
        })
    }

    /// Joins the counters of `mainstay_ring.h` to [`stats`](Self::stats).
    #[must_use]
    pub fn with_counters(mut self, counters: impl CounterSource + 'static) -> Self {
        self.counters = Some(Box::new(counters));
        self
    }

    /// Hands at most `records_max` records to `each`, oldest first, each a copy. Never waits.
    ///
    /// What was overwritten before it could be read is skipped, and told by
    /// [`RingStats::overwritten_bytes`].
    ///
    /// # Errors
    ///
    /// [`is_corrupt`](RingError::is_corrupt): what came before the damage was delivered.
    pub fn drain(
        &mut self,
        records_max: u64,
        mut each: impl FnMut(Record<'_>),
    ) -> Result<Drained, RingError> {
        let before = self.consumer;
        let stop = overwrite::drain(
            self.mapping.overwrite_view(),
            &mut self.consumer,
            &mut self.skipped,
            &mut self.scratch,
            records_max,
            |bytes| each(Record::new(bytes)),
        )?;
        Ok(Drained::since(before, self.consumer, stop))
    }

    /// As [`RingReader::wait`](crate::RingReader::wait). A recorder that is read only when something
    /// has happened need not wait at all: let its program submit with `BPF_RB_NO_WAKEUP`.
    ///
    /// True also when [`drain`](Self::drain) has overwritten records to skip and nothing more.
    ///
    /// # Errors
    ///
    /// As `RingReader::wait`.
    pub fn wait(&mut self, wait: Wait) -> Result<bool, RingError> {
        let watched = WatchedRing {
            fd: &self.fd,
            mapping: &self.mapping,
            position: self.consumer.position,
        };
        self.waiter.wait(wait, &watched)
    }

    /// What ends the waits of this reader, from any thread.
    ///
    /// # Errors
    ///
    /// When the process has no descriptor left.
    pub fn closer(&mut self) -> Result<Closer, RingError> {
        self.waiter.closer()
    }

    /// Where every record went so far. O(records in the ring), and a read of the counter map.
    ///
    /// # Errors
    ///
    /// [`is_corrupt`](RingError::is_corrupt), or the counter map cannot be read.
    pub fn stats(&self) -> Result<RingStats, RingError> {
        let view = self.mapping.overwrite_view();
        let behind = overwrite::behind(view, self.consumer.position)?;
        let pending = overwrite::pending(view, self.consumer.position)?;
        let per_cpu = self.counters.as_deref().map(CounterSource::per_cpu);
        let per_cpu = per_cpu.transpose();
        Ok(RingStats {
            delivered: self.consumer.records,
            delivered_bytes: self.consumer.bytes,
            discarded: self.consumer.discarded + pending.discarded,
            pending: pending.records,
            pending_bytes: pending.bytes,
            overwritten_bytes: self.skipped.bytes + behind,
            per_cpu: per_cpu.map_err(|e| RingError::io("reading the counter map", e))?,
        })
    }
}

/// One ring, as its consumer at `position` waits for it.
struct WatchedRing<'r> {
    fd: &'r OwnedFd,
    mapping: &'r Mapping,
    position: u64,
}

impl Watched for WatchedRing<'_> {
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn look(&self) -> Result<Look, RingError> {
        let view = self.mapping.overwrite_view();
        Ok(overwrite::look(view, self.position)?)
    }
}

/// As [`RingReader`](crate::RingReader)'s.
impl AsFd for OverwriteReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl fmt::Debug for OverwriteReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OverwriteReader")
            .field("fd", &self.fd)
            .field("consumer", &self.consumer)
            .field("skipped", &self.skipped)
            .field("counters", &self.counters.is_some())
            .finish_non_exhaustive()
    }
}
