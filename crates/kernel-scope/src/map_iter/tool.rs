use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use ebpf_ring::{KernelFeature, MapCounters};

use crate::attach::{Attach, Attachment, Forms, Programs, Variant, handle, load};
use crate::bpf::map_iter::{MapIterSkelBuilder, OpenMapIterSkel};
use crate::error::ScopeError;
use crate::events::Events;
use crate::feed::Feed;
use crate::map_iter::event::Event;
use crate::map_iter::summary::Summary;
use crate::options::Options;
use crate::overhead::Overhead;
use crate::process;
use crate::symbols::Stacks;

/// Exits first: a call whose exit is not seen would leave its entry behind. The raw pair looks at
/// every system call of the machine.
const FORMS: Forms = Forms {
    tool: "map-iter",
    variants: &[
        Variant {
            attach: Attach::SyscallTracepoint,
            programs: &["tp_exit", "tp_enter"],
        },
        Variant {
            attach: Attach::RawTracepoint,
            programs: &["raw_exit", "raw_enter"],
        },
    ],
    needs: &[KernelFeature::RingBuffer],
};

/// The ring of a tool that was not told otherwise: 9,362 steps of 112 bytes.
const RING_BYTES: u32 = 1 << 20;
/// The shard of the counters in `bpf/map_iter.bpf.c` that counts stacks.
const STACKS: u32 = 1;

/// The loaded and attached tool. Dropping it detaches.
///
/// As a descriptor it is readable while events wait.
#[derive(Debug)]
pub struct MapIter {
    feed: Feed,
    stacks: Stacks,
}

impl MapIter {
    /// Loads and attaches the program. From here on every step is delivered or counted.
    ///
    /// # Errors
    ///
    /// [`is_no_process`](ScopeError::is_no_process) for a pid that is not there, and for any outside of
    /// the initial pid namespace; [`is_permission_denied`](ScopeError::is_permission_denied) without root or `CAP_BPF` and
    /// `CAP_PERFMON`; [`missing`](ScopeError::missing) when the kernel has not what the tool needs;
    /// otherwise what libbpf says.
    pub fn open(options: &Options) -> Result<Self, ScopeError> {
        process::check(options.pid)?;
        FORMS.open(options.attach, |plan| {
            let mut storage = MaybeUninit::uninit();
            let skel = load(
                MapIterSkelBuilder::default(),
                &mut storage,
                plan.variant,
                |open| configure(open, options),
            )?;
            let programs = Programs::attach(&skel, plan)?;
            let feed = Feed::new(&skel.maps.events, &skel.maps.event_counts, programs)?;
            let counts = MapCounters::new(handle(&skel.maps.event_counts)?, STACKS)?;
            let stacks = Stacks::new(&skel.maps.stacks, counts)?;
            Ok(Self { feed, stacks })
        })
    }

    /// What kind of program runs: [`SyscallTracepoint`](Attach::SyscallTracepoint), else
    /// [`RawTracepoint`](Attach::RawTracepoint).
    #[must_use]
    pub fn attached(&self) -> &Attachment {
        self.feed.attached()
    }

    /// Waits for at most `timeout` until there are events. Returns false when there are none.
    ///
    /// # Errors
    ///
    /// What the ring's reader says.
    pub fn wait(&mut self, timeout: Duration) -> Result<bool, ScopeError> {
        self.feed.wait(timeout)
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
        self.feed.drain(events_max, |bytes| {
            each(&Event::from_bytes(bytes)?);
            Ok(())
        })
    }

    /// Sums events up for as long as `duration`.
    ///
    /// # Errors
    ///
    /// As [`drain`](Self::drain).
    pub fn collect(&mut self, duration: Duration, summary: &mut Summary) -> Result<(), ScopeError> {
        self.feed.collect(duration, |bytes| summary.add(bytes))
    }

    /// The addresses of a [caller](Event::caller), innermost first, for
    /// [`Symbols::user`](crate::Symbols::user). They end where the program keeps no frame pointers, and
    /// are those of the program that ran then, if the process has run another one since.
    #[must_use]
    pub fn caller(&self, number: u32) -> Vec<u64> {
        self.stacks.addresses(number.cast_signed())
    }

    /// Where every event went so far. Exact once the program is detached: see
    /// [`finish`](Self::finish).
    ///
    /// # Errors
    ///
    /// What the ring's reader says.
    pub fn events(&self) -> Result<Events, ScopeError> {
        self.feed.events()
    }

    /// How many callers were lost because another one was in their place.
    ///
    /// # Errors
    ///
    /// When the counters cannot be read.
    pub fn stacks_lost(&self) -> Result<u64, ScopeError> {
        self.stacks.lost()
    }

    /// What watching has cost so far.
    #[must_use]
    pub fn overhead(&self) -> Overhead {
        self.feed.overhead()
    }

    /// Detaches, sums up what is left, and returns the exact account. There are no events after it.
    ///
    /// # Errors
    ///
    /// As [`drain`](Self::drain).
    pub fn finish(&mut self, summary: &mut Summary) -> Result<Events, ScopeError> {
        self.feed.finish(|bytes| summary.add(bytes))
    }
}

impl AsFd for MapIter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.feed.as_fd()
    }
}

fn configure(open: &mut OpenMapIterSkel<'_>, options: &Options) -> libbpf_rs::Result<()> {
    let rodata = open
        .maps
        .rodata_data
        .as_deref_mut()
        .expect("the program has knobs");
    rodata.target_pid = options.pid.unwrap_or(0);
    rodata.bpf_syscall_nr = BPF_SYSCALL_NR;
    open.maps
        .events
        .set_max_entries(options.ring_bytes.unwrap_or(RING_BYTES))
}

/// `__NR_bpf`: the kernel's syscall tables.
#[cfg(target_arch = "x86_64")]
const BPF_SYSCALL_NR: i64 = 321;
#[cfg(not(target_arch = "x86_64"))]
const BPF_SYSCALL_NR: i64 = 280;
