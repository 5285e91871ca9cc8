use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use ebpf_ring::{KernelFeature, MapCounters};

use super::event::Event;
use super::summary::Summary;
use crate::attach::{Attach, Attachment, Forms, Programs, Variant, handle, load};
use crate::bpf::wake::{OpenWakeSkel, WakeSkelBuilder};
use crate::error::ScopeError;
use crate::events::{Events, total};
use crate::feed::Feed;
use crate::options::Options;
use crate::overhead::Overhead;
use crate::process;
use crate::waker::preempt_count_offset;

/// The entry last: a call is followed from its beginning or not at all.
const FORMS: Forms = Forms {
    tool: "wake",
    variants: &[
        Variant {
            attach: Attach::BtfTracepoint,
            programs: &[
                "btf_process_free",
                "btf_exit",
                "btf_switch",
                "btf_waking",
                "btf_wakeup",
                "btf_enter",
            ],
        },
        Variant {
            attach: Attach::RawTracepoint,
            programs: &[
                "raw_process_free",
                "raw_exit",
                "raw_switch",
                "raw_waking",
                "raw_wakeup",
                "raw_enter",
            ],
        },
    ],
    needs: &[KernelFeature::RingBuffer],
};

/// The ring of a tool that was not told otherwise: 6,241 calls of 168 bytes.
const RING_BYTES: u32 = 1 << 20;
/// Threads that are followed at once.
const THREADS_MAX: u32 = 16_384;
/// The shard of the counters in `bpf/wake.bpf.c` that counts calls that were not followed.
const NOT_FOLLOWED: u32 = 1;

/// The loaded and attached tool. Dropping it detaches.
///
/// As a descriptor it is readable while events wait.
#[derive(Debug)]
pub struct Wake {
    feed: Feed,
    not_followed: MapCounters,
}

impl Wake {
    /// Loads and attaches the programs. From here on every call that begins, sleeps and ends is
    /// delivered or counted.
    ///
    /// # Errors
    ///
    /// [`is_no_process`](ScopeError::is_no_process) for a pid that is not there, and for any outside of
    /// the initial pid namespace; [`is_permission_denied`](ScopeError::is_permission_denied) without root or `CAP_BPF` and
    /// `CAP_PERFMON`; [`missing`](ScopeError::missing) when the kernel has not what the tool needs;
    /// otherwise what libbpf says.
    pub fn open(options: &Options) -> Result<Self, ScopeError> {
        Self::with_threads(options, THREADS_MAX)
    }

    fn with_threads(options: &Options, threads_max: u32) -> Result<Self, ScopeError> {
        process::check(options.pid)?;
        let preempt_count_offset = preempt_count_offset();
        FORMS.open(options.attach, |plan| {
            let mut storage = MaybeUninit::uninit();
            let builder = WakeSkelBuilder::default();
            let skel = load(builder, &mut storage, plan.variant, |open| {
                open.maps.calls.set_max_entries(threads_max)?;
                configure(open, options, preempt_count_offset)
            })?;
            let programs = Programs::attach(&skel, plan)?;
            let feed = Feed::new(&skel.maps.events, &skel.maps.event_counts, programs)?;
            let not_followed = handle(&skel.maps.event_counts)?;
            let not_followed = MapCounters::new(not_followed, NOT_FOLLOWED)?;
            Ok(Self { feed, not_followed })
        })
    }

    /// What kind of program runs: [`BtfTracepoint`](Attach::BtfTracepoint), else
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

    /// Where every event went so far. Exact once the tool has [finished](Self::finish).
    ///
    /// # Errors
    ///
    /// What the ring's reader says.
    pub fn events(&self) -> Result<Events, ScopeError> {
        self.feed.events()
    }

    /// Calls of threads beyond the 16,384 that are followed at once, whether they slept or not.
    ///
    /// # Errors
    ///
    /// When the counters cannot be read.
    pub fn not_followed(&self) -> Result<u64, ScopeError> {
        Ok(total(&self.not_followed)?.dropped())
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
        self.finish_each(|event| summary.record(event))
    }

    /// As [`finish`](Self::finish), but hands each event that is left to `each`.
    ///
    /// # Errors
    ///
    /// As [`drain`](Self::drain).
    pub fn finish_each(&mut self, mut each: impl FnMut(&Event)) -> Result<Events, ScopeError> {
        self.feed.finish(|bytes| {
            each(&Event::from_bytes(bytes)?);
            Ok(())
        })
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.feed.as_fd()
    }
}

fn configure(
    open: &mut OpenWakeSkel<'_>,
    options: &Options,
    preempt_count_offset: i64,
) -> libbpf_rs::Result<()> {
    let rodata = open
        .maps
        .rodata_data
        .as_deref_mut()
        .expect("the program has knobs");
    rodata.target_pid = options.pid.unwrap_or(0);
    rodata.preempt_count_offset = preempt_count_offset;
    open.maps
        .events
        .set_max_entries(options.ring_bytes.unwrap_or(RING_BYTES))
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::{Options, Wake};

    #[test]
    fn calls_of_threads_without_room_are_no_lost_events() {
        let own = Options::default().pid(std::process::id());
        let mut tool = match Wake::with_threads(&own, 1) {
            Ok(tool) => tool,
            Err(error) if error.is_permission_denied() => return crate::skip::skip(error),
            Err(error) => panic!("{error}"),
        };
        let sleep = || thread::sleep(Duration::from_millis(1));
        thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(sleep))));
        let events = tool.finish(&mut Default::default()).expect("a sound ring");
        assert!(events.is_balanced() && events.dropped() == 0, "{events:?}");
        assert!(tool.not_followed().expect("they can be read") > 0);
    }
}
