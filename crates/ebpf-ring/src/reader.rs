use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::counters::CounterSource;
use crate::error::RingError;
use crate::mapping::Mapping;
use crate::stats::RingStats;
use crate::walk::{self, Consumer, Drained, Memory as _, Stop};

/// How long [`RingReader::wait`] sleeps between looks at a record that is being written.
///
/// The kernel's poll reports such a ring as readable, so polling it would be a busy loop.
const BUSY_LOOK: Duration = Duration::from_micros(100);

/// A record: its bytes, in place in the ring.
///
/// It lives as long as the callback that gets it; copy what must live longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    bytes: &'a [u8],
}

impl<'a> Record<'a> {
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

/// How to wait for records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wait {
    /// Sleep in the kernel until a record is there or the time is over; `None` waits for ever.
    /// Interrupted sleeps go on.
    Block {
        /// The longest wait, kept to the nanosecond that the kernel's timers allow.
        timeout: Option<Duration>,
    },
}

impl Wait {
    /// Sleep for at most `timeout`.
    #[must_use]
    pub fn up_to(timeout: Duration) -> Self {
        Self::Block {
            timeout: Some(timeout),
        }
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
    counters: Option<Box<dyn CounterSource>>,
}

impl RingReader {
    /// Opens the map `fd` and goes on where its last consumer stopped.
    ///
    /// The size comes from `/proc/self/fdinfo`, so no capability is needed beyond having the
    /// descriptor.
    ///
    /// # Errors
    ///
    /// [`is_not_a_ring`](RingError::is_not_a_ring) for any other descriptor, or without `/proc`;
    /// [`is_permission_denied`](RingError::is_permission_denied) for a descriptor that may not be
    /// mapped (opened read-only or write-only); [`is_corrupt`](RingError::is_corrupt) when its
    /// positions contradict each other.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, RingError> {
        let size = ring_size(fd.as_fd())?;
        let mapping = Mapping::new(fd.as_fd(), size)?;
        let consumer = Consumer::new(&mapping)?;
        Ok(Self {
            fd,
            mapping,
            consumer,
            counters: None,
        })
    }

    /// As [`from_fd`](Self::from_fd) with a descriptor that the caller keeps: it is duplicated.
    ///
    /// # Errors
    ///
    /// As `from_fd`; also when the process has no descriptor left.
    pub fn from_borrowed(fd: impl AsFd) -> Result<Self, RingError> {
        let owned = fd.as_fd().try_clone_to_owned();
        Self::from_fd(owned.map_err(|e| RingError::io("duplicating the map's descriptor", e))?)
    }

    /// Joins the counters of `mainstay_ring.h` to [`stats`](Self::stats).
    #[must_use]
    pub fn with_counters(mut self, counters: impl CounterSource + 'static) -> Self {
        self.counters = Some(Box::new(counters));
        self
    }

    /// Bytes of the ring's data area: `max_entries` of the map.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.mapping.size()
    }

    /// Hands at most `records_max` records to `each`, oldest first, without copying, and gives
    /// their space back: after each quarter of the ring, and on return, also by a panic.
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
        let stop = walk::drain(&self.mapping, &mut self.consumer, records_max, hand)?;
        Ok(Drained {
            records: self.consumer.records - before.records,
            bytes: self.consumer.bytes - before.bytes,
            discarded: self.consumer.discarded - before.discarded,
            stop,
        })
    }

    /// Waits until there is something to [`drain`](Self::drain). Returns false when the time is
    /// over first.
    ///
    /// A record that is reserved and not yet submitted does not count; while one is at the head,
    /// this looks every 100 us.
    ///
    /// # Errors
    ///
    /// [`is_corrupt`](RingError::is_corrupt), or what poll(2) says.
    pub fn wait(&self, wait: Wait) -> Result<bool, RingError> {
        let Wait::Block { timeout } = wait;
        // A timeout beyond what the clock can hold is none.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let head = walk::peek(&self.mapping, self.consumer.position)?;
            if head == Stop::Budget {
                return Ok(true);
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(false);
            }
            if head == Stop::Busy {
                std::thread::sleep(left.map_or(BUSY_LOOK, |left| left.min(BUSY_LOOK)));
            } else {
                self.sleep(left)?;
            }
        }
    }

    fn sleep(&self, timeout: Option<Duration>) -> Result<(), RingError> {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            // The caller's loop computes what is left of the time.
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(RingError::io("waiting for the ring", e)),
        }
    }

    /// Where every record went so far. O(records in the ring), and a read of the counter map.
    ///
    /// # Errors
    ///
    /// [`is_corrupt`](RingError::is_corrupt), or the counter map cannot be read.
    pub fn stats(&self) -> Result<RingStats, RingError> {
        let pending = walk::pending(&self.mapping, self.consumer.position)?;
        let per_cpu = match &self.counters {
            Some(source) => Some(
                source
                    .per_cpu()
                    .map_err(|e| RingError::io("reading the counter map", e))?,
            ),
            None => None,
        };
        Ok(RingStats {
            delivered: self.consumer.records,
            delivered_bytes: self.consumer.bytes,
            discarded: self.consumer.discarded + pending.discarded,
            pending: pending.records,
            pending_bytes: pending.bytes,
            per_cpu,
        })
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
    let path = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
    let info = std::fs::read_to_string(&path)
        .map_err(|e| RingError::not_a_ring(format!("{path} cannot be read: {e}")))?;
    ring_size_of(&info).map_err(RingError::not_a_ring)
}

/// `BPF_MAP_TYPE_RINGBUF` of the kernel's `enum bpf_map_type`.
const MAP_TYPE_RINGBUF: u32 = 27;

fn ring_size_of(fdinfo: &str) -> Result<u32, String> {
    let field = |name: &str| {
        let line = fdinfo
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|value| value.trim().parse::<u32>().ok())
    };
    match field("map_type") {
        Some(MAP_TYPE_RINGBUF) => field("max_entries").ok_or_else(|| "its size is not told".into()),
        Some(other) => Err(format!(
            "it is a map of type {other}, not {MAP_TYPE_RINGBUF}"
        )),
        None => Err("its descriptor is not a BPF map's".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::ring_size_of;

    #[test]
    fn fdinfo_of_a_ring_gives_its_size() {
        let info = "pos:\t0\nflags:\t02000002\nmap_type:\t27\nkey_size:\t0\nmax_entries:\t65536\n";
        assert_eq!(ring_size_of(info), Ok(65536));
    }

    #[test]
    fn fdinfo_of_anything_else_is_refused() {
        for info in [
            "",
            "pos:\t0\n",
            "map_type:\t1\nmax_entries:\t8\n",
            "map_type:\t27\nmax_entries:\t-1\n",
        ] {
            assert!(ring_size_of(info).is_err(), "{info:?}");
        }
    }
}
