use std::io::Read as _;
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use ebpf_ring::{KernelFeature, MapCounters};
use libbpf_rs::{Iter, Link};
use rustix::time::{ClockId, clock_gettime};

use crate::attach::{Attach, Attachment, Forms, Programs, Variant, handle, load};
use crate::bpf::fds::{FdsSkelBuilder, OpenFdsSkel};
use crate::error::ScopeError;
use crate::events::Events;
use crate::fds::calls;
use crate::fds::event::{self, Event};
use crate::fds::found::Found;
use crate::fds::groups::{self, Group};
use crate::fds::state::State;
use crate::feed::Feed;
use crate::options::Options;
use crate::overhead::Overhead;
use crate::process;
use crate::symbols::{Stacks, Symbols};

/// `fd_install` tells of everything but `dup2` and closing, for which the system calls are looked at
/// in any case.
const FORMS: Forms = Forms {
    tool: "fds",
    variants: &[
        Variant {
            attach: Attach::Fentry,
            programs: &[
                "raw_exit",
                "raw_enter",
                "raw_fork",
                "raw_exec",
                "fentry_install",
            ],
        },
        Variant {
            attach: Attach::Kprobe,
            programs: &[
                "raw_exit",
                "raw_enter",
                "raw_fork",
                "raw_exec",
                "kprobe_install",
            ],
        },
        Variant {
            attach: Attach::RawTracepoint,
            programs: &["raw_exit", "raw_enter", "raw_fork", "raw_exec"],
        },
    ],
    needs: &[KernelFeature::RingBuffer, KernelFeature::Iter],
};

/// The shard of the counters in `bpf/fds.bpf.c` that counts stacks.
const STACKS: u32 = 1;
/// Between two snapshots pass at least this time and this many times what the last one took.
const SNAPSHOT_PERIOD: Duration = Duration::from_secs(1);
const SNAPSHOT_REST: u32 = 20;
/// How soon it is noticed that a snapshot is due.
const LOOK: Duration = Duration::from_millis(100);

/// The ring of a tool that was not told otherwise: 65,536 changes of 64 bytes.
const RING_BYTES: u32 = 4 << 20;
/// A place for each hash of a stack, whose second stack is lost: the emptier the map, the fewer. 17 MB.
const STACKS_MAX: u32 = 32_768;

/// The loaded and attached tool. Dropping it detaches.
#[derive(Debug)]
pub struct Fds {
    feed: Feed,
    snapshots: Snapshots,
    stacks: Stacks,
    symbols: Symbols,
    state: State,
    /// When the state was last true.
    finished_ns: Option<u64>,
}

impl Fds {
    /// Loads and attaches the programs and takes a first snapshot: what is open already is
    /// `unknown`.
    ///
    /// # Errors
    ///
    /// [`is_no_process`](ScopeError::is_no_process) for a pid that is not there, and for any outside of
    /// the initial pid namespace; [`is_permission_denied`](ScopeError::is_permission_denied) without root or `CAP_BPF` and
    /// `CAP_PERFMON`; [`missing`](ScopeError::missing) when the kernel has not what the tool needs;
    /// otherwise what libbpf says.
    pub fn open(options: &Options) -> Result<Self, ScopeError> {
        Self::with_stacks(options, STACKS_MAX)
    }

    fn with_stacks(options: &Options, stacks_max: u32) -> Result<Self, ScopeError> {
        process::check(options.pid)?;
        let mut this = FORMS.open(options.attach, |plan| {
            let mut storage = MaybeUninit::uninit();
            let configured = |open: &mut OpenFdsSkel<'_>| {
                open.maps.stacks.set_max_entries(stacks_max)?;
                configure(open, options, plan.variant)
            };
            let builder = FdsSkelBuilder::default();
            let skel = load(builder, &mut storage, plan.variant, configured)?;
            let programs = Programs::attach(&skel, plan)?;
            let link = skel.progs.snapshot.attach();
            Ok(Self {
                feed: Feed::new(&skel.maps.events, &skel.maps.event_counts, programs)?,
                snapshots: Snapshots::new(
                    link.map_err(|e| ScopeError::bpf("attaching the iterator", e))?,
                ),
                stacks: Stacks::new(
                    &skel.maps.stacks,
                    MapCounters::new(handle(&skel.maps.event_counts)?, STACKS)?,
                )?,
                symbols: Symbols::new(),
                state: State::default(),
                finished_ns: None,
            })
        })?;
        this.reconcile()?;
        Ok(this)
    }

    /// What kind of program runs: [`Fentry`](Attach::Fentry), else [`Kprobe`](Attach::Kprobe), which
    /// see every way to make a descriptor; else [`RawTracepoint`](Attach::RawTracepoint), which sees
    /// those of the system calls that it knows.
    #[must_use]
    pub fn attached(&self) -> &Attachment {
        self.feed.attached()
    }

    /// Follows changes for as long as `duration`, and takes a snapshot about every second.
    ///
    /// # Errors
    ///
    /// [`is_corrupt`](ScopeError::is_corrupt) for a damaged ring; what the iterator says.
    pub fn collect(&mut self, duration: Duration) -> Result<(), ScopeError> {
        let began = Instant::now();
        loop {
            let left = duration.saturating_sub(began.elapsed());
            let (state, symbols) = (&mut self.state, &self.symbols);
            self.feed
                .collect(left.min(LOOK), |bytes| take_in(state, symbols, bytes))?;
            if self.snapshots.is_due() {
                self.reconcile()?;
            }
            if left.is_zero() {
                return Ok(());
            }
        }
    }

    /// What is open, the largest group first. Between snapshots it is what the events tell.
    #[must_use]
    pub fn groups(&self) -> Vec<Group> {
        let now_ns = self.finished_ns.unwrap_or_else(now_ns);
        groups::of(&self.state, &self.stacks, &self.symbols, now_ns)
    }

    /// How many descriptors are open. A table that several processes share counts once.
    #[must_use]
    pub fn open_total(&self) -> u64 {
        let open = self.state.tables().map(|table| table.open().count() as u64);
        open.sum()
    }

    /// Where every event went so far. Exact once [finished](Self::finish).
    ///
    /// # Errors
    ///
    /// What the ring's reader says.
    pub fn events(&self) -> Result<Events, ScopeError> {
        self.feed.events()
    }

    /// How many stacks were lost because another one was in their place.
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

    /// Takes the last snapshot, detaches, and returns the exact account. From here on
    /// [`groups`](Self::groups) are what that snapshot found, whatever was lost.
    ///
    /// # Errors
    ///
    /// As [`collect`](Self::collect).
    pub fn finish(&mut self) -> Result<Events, ScopeError> {
        self.drain()?;
        let since_ns = now_ns();
        let found = self.snapshots.take()?;
        let mut later = Vec::new();
        let events = self.feed.finish(|bytes| {
            later.push(Event::from_bytes(bytes)?);
            Ok(())
        })?;
        self.state.reconcile(&found, since_ns, &later);
        self.finished_ns = Some(since_ns);
        Ok(events)
    }

    fn reconcile(&mut self) -> Result<(), ScopeError> {
        self.drain()?;
        let since_ns = now_ns();
        let found = self.snapshots.take()?;
        self.state.reconcile(&found, since_ns, &[]);
        Ok(())
    }

    /// Takes in what has happened until now, but not what happens meanwhile.
    fn drain(&mut self) -> Result<(), ScopeError> {
        let waiting = self.feed.events()?.pending;
        let (state, symbols) = (&mut self.state, &self.symbols);
        self.feed
            .drain(waiting, |bytes| take_in(state, symbols, bytes))?;
        Ok(())
    }
}

fn take_in(state: &mut State, symbols: &Symbols, bytes: &[u8]) -> Result<(), ScopeError> {
    let event = Event::from_bytes(bytes)?;
    if event.kind == event::EXEC {
        symbols.forget(event.pid);
    }
    state.apply(&event);
    Ok(())
}

/// Lists of what is open, from the kernel's iterator over tasks and files.
#[derive(Debug)]
struct Snapshots {
    link: Link,
    next: Instant,
}

impl Snapshots {
    fn new(link: Link) -> Self {
        Self {
            link,
            next: Instant::now(),
        }
    }

    fn is_due(&self) -> bool {
        Instant::now() >= self.next
    }

    fn take(&mut self) -> Result<Vec<Found>, ScopeError> {
        let began = Instant::now();
        let iter = Iter::new(&self.link);
        let mut iter = iter.map_err(|e| ScopeError::bpf("starting the iterator", e))?;
        let mut bytes = Vec::new();
        iter.read_to_end(&mut bytes)
            .map_err(|e| ScopeError::bpf("reading the iterator", e.into()))?;
        let (records, rest) = bytes.as_chunks();
        if !rest.is_empty() {
            return Err(ScopeError::record(rest.len()));
        }
        self.next = Instant::now() + SNAPSHOT_PERIOD.max(began.elapsed() * SNAPSHOT_REST);
        Ok(records.iter().map(Found::from_bytes).collect())
    }
}

fn configure(
    open: &mut OpenFdsSkel<'_>,
    options: &Options,
    variant: &Variant,
) -> libbpf_rs::Result<()> {
    let rodata = open
        .maps
        .rodata_data
        .as_deref_mut()
        .expect("the program has knobs");
    rodata.target_pid = options.pid.unwrap_or(0);
    // Else every snapshot would find itself.
    rodata.ignores_reader = options.pid != Some(std::process::id());
    rodata.sees_installs = variant.attach != Attach::RawTracepoint;
    rodata.call_kinds = calls::kinds();
    open.progs.snapshot.set_autoload(true);
    open.maps
        .events
        .set_max_entries(options.ring_bytes.unwrap_or(RING_BYTES))
}

/// The clock of the events.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{Fds, Options};

    /// In a map of one stack, all others are lost.
    #[test]
    fn a_lost_stack_is_counted_and_told_from_none() {
        let own_pid = std::process::id();
        let mut tool = match Fds::with_stacks(&Options::default().pid(own_pid), 1) {
            Ok(tool) => tool,
            Err(error) if error.is_permission_denied() => return crate::skip::skip(error),
            Err(error) => panic!("{error}"),
        };
        let file = std::fs::File::open("/dev/null").expect("it is there");
        let pipe = std::io::pipe().expect("descriptors are left");
        tool.finish().expect("a sound ring");
        let groups = tool.groups();
        let lost: Vec<_> = groups.iter().filter(|group| group.stack_lost).collect();
        assert!(!lost.is_empty(), "{groups:?}");
        assert!(
            lost.iter()
                .all(|g| g.stack.is_empty() && g.call != "unknown")
        );
        assert!(tool.stacks_lost().expect("they can be read") >= lost.len() as u64);
        drop((file, pipe));
    }
}
