use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::batch::Batch;
use super::mapping::{Mapping, View};
use super::shared::SharedReader;
use crate::counters::CounterSource;
use crate::error::RingError;
use crate::map::duplicate;
use crate::spec::{MapInfo, MapKind};
use crate::stats::RingStats;
use crate::wait::{Closer, Wait, Waiter, Watched};
use crate::walk::{self, Commit, Consumer, Drained, Look, Memory as _, Walk};

/// A record: its bytes, in place in the ring.
///
/// It lives as long as the callback that gets it; copy what must live longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    bytes: &'a [u8],
}

impl<'a> Record<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The bytes that the program wrote: exactly as many as it reserved. They start at a multiple
    /// of 8.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl AsRef<[u8]> for Record<'_> {
    fn as_ref(&self) -> &[u8] {
        self.bytes
    }
}

/// The one consumer of one ring buffer map.
///
/// The kernel assumes a single consumer: two readers of one ring, in one process or two, take
/// each other's records and free each other's space.
pub struct RingReader {
    fd: OwnedFd,
    mapping: Mapping,
    consumer: Consumer,
    commit: Commit,
    counters: Option<Box<dyn CounterSource>>,
    waiter: Waiter,
}

impl RingReader {
    /// Opens a map, by its descriptor or a [`BpfMap`](crate::BpfMap) (of a pin, by id), and goes on where its last
    /// consumer stopped.
    ///
    /// The size comes from `/proc/self/fdinfo`, so no capability is needed beyond having the
    /// descriptor.
    ///
    /// # Errors
    ///
    /// [`is_wrong_map`](RingError::is_wrong_map) for any other descriptor, or without `/proc`;
    /// [`is_permission_denied`](RingError::is_permission_denied) for a descriptor that may not be
    /// mapped (opened read-only or write-only); [`is_corrupt`](RingError::is_corrupt) when its
    /// positions contradict each other.
    pub fn from_fd(fd: impl Into<OwnedFd>) -> Result<Self, RingError> {
        let fd = fd.into();
        let size = ring_size(fd.as_fd())?;
        let mapping = Mapping::new(fd.as_fd(), size)?;
        let consumer = Consumer::new(mapping.view())?;
        Ok(Self {
            fd,
            mapping,
            consumer,
            commit: Commit::default(),
            counters: None,
            waiter: Waiter::default(),
        })
    }

    /// As [`from_fd`](Self::from_fd) with a descriptor that the caller keeps: it is duplicated.
    ///
    /// # Errors
    ///
    /// As `from_fd`; also when the process has no descriptor left.
    pub fn from_borrowed(fd: impl AsFd) -> Result<Self, RingError> {
        Self::from_fd(duplicate(fd)?)
    }

    /// Joins the counters of `mainstay_ring.h` to [`stats`](Self::stats).
    #[must_use]
    pub fn with_counters(mut self, counters: impl CounterSource + 'static) -> Self {
        self.counters = Some(Box::new(counters));
        self
    }

    /// Chooses when [`drain`](Self::drain) gives space back.
    #[must_use]
    pub fn with_commit(mut self, commit: Commit) -> Self {
        self.commit = commit;
        self
    }

    /// Bytes of the ring's data area: `max_entries` of the map.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.mapping.view().size()
    }

    /// Hands at most `records_max` records to `each`, oldest first, without copying, and gives
    /// their space back: after each quarter of the ring, or as [`with_commit`](Self::with_commit)
    /// says, and on return, also by a panic.
    ///
    /// Never waits. Records that the program discarded are skipped and count against the limit.
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
        let hand = |bytes: &[u8]| each(Record { bytes });
        let (memory, consumer) = (self.mapping.view(), &mut self.consumer);
        let stop = walk::drain(memory, consumer, self.commit, records_max, hand)?;
        Ok(Drained::since(before, self.consumer, stop))
    }

    /// Reads by iteration; space goes back when the batch is dropped, not before.
    ///
    /// ```no_run
    /// # fn sorted(ring: &mut ebpf_ring::RingReader) -> Result<(), ebpf_ring::RingError> {
    /// let mut batch = ring.batch()?;
    /// let mut records = batch.iter().take(100).collect::<Result<Vec<_>, _>>()?;
    /// records.sort_by_key(|record| record.bytes().len());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`is_corrupt`](RingError::is_corrupt) when the ring's positions contradict each other.
    pub fn batch(&mut self) -> Result<Batch<'_>, RingError> {
        Ok(Batch::new(Walk::new(
            self.mapping.view(),
            &mut self.consumer,
        )?))
    }

    /// Waits until there is something to [`drain`](Self::drain). Returns false when the time is
    /// over first, or the reader is closed.
    ///
    /// A record that is reserved and not yet submitted does not count. While one is at the head, a
    /// sleeping wait looks every 100 us.
    ///
    /// # Errors
    ///
    /// [`is_corrupt`](RingError::is_corrupt), or what poll(2) says.
    pub fn wait(&mut self, wait: Wait) -> Result<bool, RingError> {
        let watched = WatchedRing {
            fd: &self.fd,
            memory: self.mapping.view(),
            position: self.consumer.position,
        };
        self.waiter.wait(wait, &watched)
    }

    #[inline]
    pub(crate) fn look(&self) -> Result<Look, RingError> {
        Ok(walk::look(self.mapping.view(), self.consumer.position)?)
    }

    pub(crate) fn into_shared(self) -> SharedReader {
        let memory = (self.fd, self.mapping);
        SharedReader::new(
            memory,
            self.consumer,
            self.counters,
            self.waiter.into_closer(),
        )
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
        RingStats::of(self.mapping.view(), self.consumer, self.counters.as_deref())
    }
}

/// One ring, as its consumer at `position` waits for it.
struct WatchedRing<'r> {
    fd: &'r OwnedFd,
    memory: View<'r>,
    position: u64,
}

impl Watched for WatchedRing<'_> {
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    #[inline]
    fn look(&self) -> Result<Look, RingError> {
        Ok(walk::look(self.memory, self.position)?)
    }
}

/// Readable, for poll and epoll, while the ring is not empty. Never read(2) it: EINVAL.
impl AsFd for RingReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl fmt::Debug for RingReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingReader")
            .field("fd", &self.fd)
            .field("size_bytes", &self.size_bytes())
            .field("consumer", &self.consumer)
            .field("counters", &self.counters.is_some())
            .finish_non_exhaustive()
    }
}

/// Asks /proc about the map behind `fd`.
fn ring_size(fd: BorrowedFd<'_>) -> Result<u32, RingError> {
    let found = MapInfo::read(fd)?;
    found.expect_kind(MapKind::RingBuf)?;
    if found.overwrites() {
        return Err(RingError::wrong_map(
            "its records are overwritten; open it with OverwriteReader",
        ));
    }
    Ok(found.max_entries)
}
