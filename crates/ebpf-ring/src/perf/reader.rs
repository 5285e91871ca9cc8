use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::mapping::Mapping;
use super::walk::{self, Consumer};
use crate::counters::CounterSource;
use crate::cpus;
use crate::edges::Edges;
use crate::error::RingError;
use crate::map::BpfMap;
use crate::spec::MapKind;
use crate::stats::RingStats;
use crate::sys::{Follow, PerfAttr, perf_event_open};
use crate::turns::{Turn, Turns};
use crate::wait::{Closer, Wait, Waiter, Watched};
use crate::walk::{Drained, Look, Stop};

/// When a perf buffer wakes its reader.
///
/// Whatever is chosen, a buffer also wakes its reader each time that half of it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WakeUp {
    /// After so many records on one CPU; 0 is taken as 1, the default of every perf buffer: each
    /// record raises an interrupt, which costs several times what the record does.
    Events(u32),
    /// As soon as more than so many bytes, headers and padding included, were written on one CPU
    /// since the last such time: for rates, not for latency. What lies below waits for the reader's
    /// own timeout.
    ///
    /// More than half of a buffer is taken as half. Records that are larger than half of a buffer
    /// need `Events(1)`: the next might not fit, and so never wake.
    Bytes(u32),
}

/// How [`PerfReader::open`] makes the buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PerfOptions {
    /// Pages of data for each CPU: a power of two. They are locked into memory.
    pub pages: u32,
    /// When a buffer wakes the reader.
    pub wake: WakeUp,
}

/// 64 pages for each CPU, a wake-up for each record.
impl Default for PerfOptions {
    fn default() -> Self {
        Self {
            pages: 64,
            wake: WakeUp::Events(1),
        }
    }
}

impl PerfOptions {
    fn check(self) -> Result<Self, RingError> {
        if self.pages.is_power_of_two() {
            return Ok(self);
        }
        let why = format!("{} pages: their number must be a power of two", self.pages);
        let why = io::Error::new(io::ErrorKind::InvalidInput, why);
        Err(RingError::io("opening perf buffers", why))
    }

    fn attr(self) -> PerfAttr<'static> {
        let page = u32::try_from(rustix::param::page_size()).unwrap_or(u32::MAX);
        let half = self.pages.saturating_mul(page) / 2;
        // The kernel keeps the number in an int: a negative one would wake for every record.
        const EVENTS_MAX: u32 = i32::MAX.unsigned_abs();
        match self.wake {
            WakeUp::Events(events) => PerfAttr::waking_by_events(events.clamp(1, EVENTS_MAX)),
            WakeUp::Bytes(bytes) => PerfAttr::waking_by_bytes(bytes.clamp(1, half)),
        }
    }
}

/// A record of a perf buffer.
///
/// It lives as long as the callback that gets it; copy what must live longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerfRecord<'a> {
    bytes: &'a [u8],
}

impl<'a> PerfRecord<'a> {
    /// The bytes that the program wrote, and up to 7 of padding behind them: the kernel does not
    /// tell where they end (their number is always a multiple of 8 plus 4). No alignment is
    /// promised.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl AsRef<[u8]> for PerfRecord<'_> {
    fn as_ref(&self) -> &[u8] {
        self.bytes
    }
}

/// One CPU's perf buffer and its consumer.
#[derive(Debug)]
struct Buffer {
    cpu: u32,
    fd: OwnedFd,
    mapping: Mapping,
    consumer: Consumer,
    /// The last drain found it damaged, and said so.
    damage_told: bool,
}

impl Buffer {
    fn open(cpu: u32, options: PerfOptions) -> Result<Self, RingError> {
        let fd = perf_event_open(&options.attr(), Follow::Cpu(cpu))
            .map_err(|e| RingError::io("opening the perf buffer of a CPU (CAP_PERFMON)", e))?;
        let mapping = Mapping::new(&fd, options.pages)?;
        let consumer = Consumer::new(mapping.view())?;
        Ok(Self {
            cpu,
            fd,
            mapping,
            consumer,
            damage_told: false,
        })
    }

    fn look(&self) -> Result<Look, RingError> {
        Ok(walk::look(self.mapping.view(), self.consumer.position)?)
    }

    /// `steps_max` bounds the records of every type.
    fn drain(
        &mut self,
        scratch: &mut Vec<u8>,
        steps_max: u64,
        each: impl FnMut(&[u8]),
    ) -> Result<Stop, RingError> {
        let view = self.mapping.view();
        Ok(walk::drain(
            view,
            &mut self.consumer,
            scratch,
            steps_max,
            each,
        )?)
    }
}

/// The reader of a `BPF_MAP_TYPE_PERF_EVENT_ARRAY` map: one buffer for each CPU that is online.
///
/// For kernels and programs without ring buffers; a [`RingReader`](crate::RingReader) keeps the
/// order between CPUs, needs no memory per CPU and costs the program less.
///
/// A program's records are in order for each CPU. What programs write on a CPU that came online
/// after the reader was opened, or after it was dropped, is refused by the kernel; the counters of
/// `mainstay_ring.h` say so.
pub struct PerfReader {
    buffers: Vec<Buffer>,
    /// The map, if this reader put its buffers there.
    map: Option<BpfMap>,
    edges: Edges,
    waiter: Waiter,
    turns: Turns,
    /// Where a record is put together that wraps around the end of its buffer.
    scratch: Vec<u8>,
    counters: Option<Box<dyn CounterSource>>,
}

impl PerfReader {
    /// Opens a buffer for each CPU that is online. Put each of [`buffers`](Self::buffers) into the
    /// map, with its CPU as the key and the number of its descriptor (`u32`) as the value;
    /// [`from_fd`](Self::from_fd) does so. Keep the map's descriptor open: when it closes, the
    /// kernel takes the buffers out again.
    ///
    /// # Errors
    ///
    /// [`is_permission_denied`](RingError::is_permission_denied) without CAP_PERFMON (or
    /// CAP_SYS_ADMIN), or for more pages than `kernel.perf_event_mlock_kb` allows; also when
    /// `options.pages` is not a power of two, or memory or descriptors run out.
    pub fn open(options: PerfOptions) -> Result<Self, RingError> {
        let options = options.check()?;
        let cpus = cpus::online().map_err(|e| RingError::io("listing the CPUs", e))?;
        let edges = Edges::new()?;
        let mut buffers = Vec::with_capacity(cpus.len());
        for cpu in cpus {
            let buffer = Buffer::open(cpu, options)?;
            edges.add(&buffer.fd, u64::from(cpu))?;
            buffers.push(buffer);
        }
        Ok(Self {
            buffers,
            map: None,
            edges,
            waiter: Waiter::default(),
            turns: Turns::default(),
            scratch: Vec::new(),
            counters: None,
        })
    }

    /// As [`open`](Self::open), and puts each CPU's buffer into `map`, a descriptor or a
    /// [`BpfMap`], which it keeps. What another reader put there is replaced.
    ///
    /// # Errors
    ///
    /// As `open`; [`is_wrong_map`](RingError::is_wrong_map) when `map` is not a
    /// `PERF_EVENT_ARRAY`; also when its `max_entries` leave out a CPU that is online.
    pub fn from_fd(map: impl Into<OwnedFd>, options: PerfOptions) -> Result<Self, RingError> {
        let map = BpfMap::from_fd(map)?;
        map.expect_kind(MapKind::PerfEventArray)?;
        let mut reader = Self::open(options)?;
        for (cpu, fd) in reader.buffers() {
            map.put(cpu, fd)
                .map_err(|e| RingError::io("putting a CPU's perf buffer into the map", e))?;
        }
        // The kernel takes a buffer out when the file closes through which it was put in.
        reader.map = Some(map);
        Ok(reader)
    }

    /// Joins the counters of `mainstay_ring.h` to [`stats`](Self::stats).
    #[must_use]
    pub fn with_counters(mut self, counters: impl CounterSource + 'static) -> Self {
        self.counters = Some(Box::new(counters));
        self
    }

    /// Each CPU and the descriptor of its buffer.
    pub fn buffers(&self) -> impl Iterator<Item = (u32, BorrowedFd<'_>)> {
        let buffers = self.buffers.iter();
        buffers.map(|buffer| (buffer.cpu, buffer.fd.as_fd()))
    }

    /// Hands at most `records_max` records of all CPUs together to `each`, with their CPU: of each
    /// CPU oldest first, 64 a turn. Space goes back to the kernel after each quarter of a buffer,
    /// at the end of a turn, and when `each` panics. A record that wraps around the end of its
    /// buffer is copied, any other is not.
    ///
    /// Never waits. What the kernel itself writes (how much was lost) counts against the limit.
    ///
    /// # Errors
    ///
    /// [`is_corrupt`](RingError::is_corrupt) of the first damaged buffer that is met: what came
    /// before the damage was delivered, and the next call goes on with the next CPU.
    pub fn drain(
        &mut self,
        records_max: u64,
        mut each: impl FnMut(u32, PerfRecord<'_>),
    ) -> Result<Drained, RingError> {
        let (buffers, scratch) = (&mut self.buffers, &mut self.scratch);
        self.turns.drain(buffers.len(), records_max, |place, max| {
            let buffer = &mut buffers[place];
            let (cpu, before) = (buffer.cpu, buffer.consumer);
            let stop = buffer.drain(scratch, max, |bytes| each(cpu, PerfRecord { bytes }));
            buffer.damage_told = stop.is_err();
            let stop = stop?;
            let after = buffer.consumer;
            let drained = Drained {
                records: after.records - before.records,
                bytes: after.bytes - before.bytes,
                discarded: 0,
                stop,
            };
            let steps = after.steps - before.steps;
            Ok(Turn { drained, steps })
        })
    }

    /// Waits until there is something to [`drain`](Self::drain); false when the time is over first,
    /// or the reader is closed.
    ///
    /// What lies in a buffer is found at once. A sleeping wait is woken as [`PerfOptions::wake`]
    /// says, so with anything but `Events(1)` give it a timeout. The promise of [`Wait::Event`],
    /// too, is of such a wake-up. A buffer that is damaged ends one wait, so that
    /// [`drain`](Self::drain) tells of it, and no further one.
    ///
    /// # Errors
    ///
    /// What poll(2) says.
    pub fn wait(&mut self, wait: Wait) -> Result<bool, RingError> {
        let watched = WatchedBuffers {
            buffers: &self.buffers,
            edges: &self.edges,
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

    /// Where every record went so far, the CPUs together. O(unread records), and a read of the
    /// counter map. Nothing is ever discarded in a perf buffer; bytes include padding.
    ///
    /// # Errors
    ///
    /// [`is_corrupt`](RingError::is_corrupt), or the counter map cannot be read.
    pub fn stats(&self) -> Result<RingStats, RingError> {
        let per_cpu = self.counters.as_deref().map(CounterSource::per_cpu);
        let per_cpu = per_cpu.transpose();
        let mut stats = RingStats {
            per_cpu: per_cpu.map_err(|e| RingError::io("reading the counter map", e))?,
            ..RingStats::default()
        };
        for Buffer {
            mapping, consumer, ..
        } in &self.buffers
        {
            let pending = walk::pending(mapping.view(), consumer.position)?;
            stats.delivered += consumer.records;
            stats.delivered_bytes += consumer.bytes;
            stats.pending += pending.records;
            stats.pending_bytes += pending.bytes;
        }
        Ok(stats)
    }

    /// Records that were lost for want of space, as far as the kernel told so in what was drained.
    ///
    /// It tells with the next record that fits, so losses after the last one are not in it, and
    /// nothing but a full buffer is: the account is [`stats`](Self::stats) with counters.
    #[must_use]
    pub fn lost_told(&self) -> u64 {
        let told = self.buffers.iter().map(|buffer| buffer.consumer.lost);
        told.fold(0, u64::wrapping_add)
    }
}

struct WatchedBuffers<'s> {
    buffers: &'s [Buffer],
    edges: &'s Edges,
}

impl Watched for WatchedBuffers<'_> {
    fn fd(&self) -> BorrowedFd<'_> {
        self.edges.as_fd()
    }

    fn look(&self) -> Result<Look, RingError> {
        for buffer in self.buffers {
            match buffer.look() {
                Ok(Look::Ready) => return Ok(Look::Ready),
                Err(_) if !buffer.damage_told => return Ok(Look::Ready),
                _ => {}
            }
        }
        Ok(Look::Empty)
    }

    /// Readiness goes away with the poll that told it, but for an event that ended (hung up): it
    /// would keep a sleeper awake.
    fn forget(&self) -> Result<(), RingError> {
        self.edges.take()
    }
}

/// Readable, for poll and epoll, once for each wake-up of a CPU's buffer: take it as an edge, and
/// drain until `Empty`.
impl AsFd for PerfReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.edges.as_fd()
    }
}

impl fmt::Debug for PerfReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerfReader")
            .field("buffers", &self.buffers)
            .field("map", &self.map)
            .field("counters", &self.counters.is_some())
            .finish_non_exhaustive()
    }
}
