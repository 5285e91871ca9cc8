use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use ebpf_ring::{MapCounters, RingReader, RingStats, Wait};
use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};
use libbpf_rs::{Link, MapHandle};

use crate::bpf::map_iter::{MapIterSkelBuilder, OpenMapIterSkel};
use crate::error::ScopeError;
use crate::map_iter::event::Event;
use crate::map_iter::summary::Summary;

/// Where the program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Attach {
    /// `syscalls:sys_enter_bpf` and `sys_exit_bpf`: the kernel filters by system call. Needs tracefs
    /// mounted and `CONFIG_FTRACE_SYSCALLS`.
    SyscallTracepoint,
    /// `sys_enter` and `sys_exit` as raw tracepoints: the program looks at every system call of the
    /// machine, and needs nothing mounted.
    RawTracepoint,
}

impl Attach {
    /// As the tools of BPF spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SyscallTracepoint => "tp/syscalls/sys_enter_bpf",
            Self::RawTracepoint => "raw_tp/sys_enter",
        }
    }
}

/// How to open [`MapIter`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Only this process, as the initial pid namespace numbers it; `None` for all.
    pub pid: Option<u32>,
    /// Bytes of the ring: a power of two of whole pages. A step takes 96.
    pub ring_bytes: u32,
    /// Where to attach; `None` for the cheapest that this machine has.
    pub attach: Option<Attach>,
}

impl Default for Options {
    /// Every process, a ring of 1 MiB (10,922 steps), the cheapest attachment.
    fn default() -> Self {
        Self {
            pid: None,
            ring_bytes: 1 << 20,
            attach: None,
        }
    }
}

impl Options {
    /// Only the process `pid`.
    #[must_use]
    pub fn pid(mut self, pid: u32) -> Self {
        self.pid = Some(pid);
        self
    }

    /// A ring of `ring_bytes`.
    #[must_use]
    pub fn ring_bytes(mut self, ring_bytes: u32) -> Self {
        self.ring_bytes = ring_bytes;
        self
    }

    /// Attach there and nowhere else.
    #[must_use]
    pub fn attach(mut self, attach: Attach) -> Self {
        self.attach = Some(attach);
        self
    }
}

/// The loaded and attached tool. Dropping it detaches.
///
/// As a descriptor it is readable while events wait.
#[derive(Debug)]
pub struct MapIter {
    ring: RingReader,
    links: Vec<Link>,
    attached: Attach,
}

impl MapIter {
    /// Loads and attaches the program. From here on every step is delivered or counted.
    ///
    /// # Errors
    ///
    /// [`is_permission_denied`](ScopeError::is_permission_denied) without root or `CAP_BPF` and
    /// `CAP_PERFMON`; otherwise what libbpf says.
    pub fn open(options: &Options) -> Result<Self, ScopeError> {
        ScopeError::check_capabilities()?;
        let attach = options.attach.unwrap_or_else(cheapest);
        let mut storage = MaybeUninit::uninit();
        let opened = MapIterSkelBuilder::default().open(&mut storage);
        let mut open = opened.map_err(|e| ScopeError::bpf("opening the map-iter program", e))?;
        configure(&mut open, options, attach).map_err(|e| ScopeError::bpf("sizing the ring", e))?;
        let skel = open
            .load()
            .map_err(|e| ScopeError::bpf("loading the map-iter program", e))?;

        // The reader and the links own what they need; the object may go.
        let counts = MapHandle::try_from(&skel.maps.event_counts);
        let counts = counts.map_err(|e| ScopeError::bpf("opening the counter map", e))?;
        let ring = RingReader::from_map(&skel.maps.events)?;
        let ring = ring.with_counters(MapCounters::new(counts, 0)?);
        // Exits first: a call whose exit is not seen would leave its entry behind.
        let links = match attach {
            Attach::SyscallTracepoint => {
                [skel.progs.tp_exit.attach(), skel.progs.tp_enter.attach()]
            }
            Attach::RawTracepoint => [skel.progs.raw_exit.attach(), skel.progs.raw_enter.attach()],
        };
        let links = links.into_iter().collect::<Result<_, _>>();
        let links = links.map_err(|e| ScopeError::bpf("attaching the map-iter program", e))?;
        Ok(Self {
            ring,
            links,
            attached: attach,
        })
    }

    /// Where the program is attached.
    #[must_use]
    pub fn attached(&self) -> Attach {
        self.attached
    }

    /// Waits for at most `timeout` until there are events. Returns false when there are none.
    ///
    /// # Errors
    ///
    /// What the ring's reader says.
    pub fn wait(&mut self, timeout: Duration) -> Result<bool, ScopeError> {
        Ok(self.ring.wait(Wait::up_to(timeout))?)
    }

    /// Hands at most `events_max` waiting events to `each`. Returns how many there were.
    ///
    /// # Errors
    ///
    /// [`is_corrupt`](ScopeError::is_corrupt), after the events before the damage.
    pub fn drain(
        &mut self,
        events_max: u64,
        mut each: impl FnMut(&Event),
    ) -> Result<u64, ScopeError> {
        let mut bad = None;
        let drained = self.ring.drain(events_max, |record| {
            match Event::from_bytes(record.bytes()) {
                Ok(event) => each(&event),
                Err(error) => bad = Some(error),
            }
        })?;
        bad.map_or(Ok(drained.records), Err)
    }

    /// Sums events up for as long as `duration`.
    ///
    /// # Errors
    ///
    /// As [`drain`](Self::drain).
    pub fn collect(&mut self, duration: Duration, summary: &mut Summary) -> Result<(), ScopeError> {
        let start = Instant::now();
        loop {
            let left = duration.saturating_sub(start.elapsed());
            self.wait(left)?;
            self.drain(EVENTS_AT_ONCE, |event| summary.record(event))?;
            if left.is_zero() {
                return Ok(());
            }
        }
    }

    /// Where every event went so far. Exact once the program is detached: see
    /// [`finish`](Self::finish).
    ///
    /// # Errors
    ///
    /// What the ring's reader says.
    pub fn stats(&self) -> Result<RingStats, ScopeError> {
        Ok(self.ring.stats()?)
    }

    /// Detaches, sums up what is left, and returns the exact account.
    ///
    /// # Errors
    ///
    /// As [`drain`](Self::drain).
    pub fn finish(mut self, summary: &mut Summary) -> Result<RingStats, ScopeError> {
        self.links.clear();
        // A program that was running on another CPU when its link went away may still count and
        // write; it is done within microseconds, this waits for at most 100 ms.
        let mut tries = 0;
        loop {
            while self.drain(EVENTS_AT_ONCE, |event| summary.record(event))? > 0 {}
            let stats = self.ring.stats()?;
            tries += 1;
            if stats.pending == 0 && stats.is_balanced() == Some(true) || tries > 100 {
                return Ok(stats);
            }
            self.wait(Duration::from_millis(1))?;
        }
    }
}

impl AsFd for MapIter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

const EVENTS_AT_ONCE: u64 = 10_000;

fn configure(
    open: &mut OpenMapIterSkel<'_>,
    options: &Options,
    attach: Attach,
) -> libbpf_rs::Result<()> {
    let rodata = open
        .maps
        .rodata_data
        .as_deref_mut()
        .expect("the program has knobs");
    rodata.target_pid = options.pid.unwrap_or(0);
    rodata.bpf_syscall_nr = BPF_SYSCALL_NR;
    open.maps.events.set_max_entries(options.ring_bytes)?;
    let raw = attach == Attach::RawTracepoint;
    open.progs.raw_enter.set_autoload(raw);
    open.progs.raw_exit.set_autoload(raw);
    open.progs.tp_enter.set_autoload(!raw);
    open.progs.tp_exit.set_autoload(!raw);
    Ok(())
}

/// `__NR_bpf`: the kernel's syscall tables.
#[cfg(target_arch = "x86_64")]
const BPF_SYSCALL_NR: i64 = 321;
#[cfg(not(target_arch = "x86_64"))]
const BPF_SYSCALL_NR: i64 = 280;

/// The syscall tracepoint where tracefs shows it, in one of the two places libbpf looks at.
fn cheapest() -> Attach {
    let shown = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .iter()
        .any(|root| {
            Path::new(root)
                .join("events/syscalls/sys_enter_bpf/id")
                .exists()
        });
    if shown {
        Attach::SyscallTracepoint
    } else {
        Attach::RawTracepoint
    }
}
