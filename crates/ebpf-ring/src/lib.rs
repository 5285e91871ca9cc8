//! Reader for BPF ring and perf buffers: every record delivered or counted as lost.
//!
//! Two halves. [`RingReader`] consumes a `BPF_MAP_TYPE_RINGBUF` map in place, without copying and
//! without libbpf; [`PerfReader`] does so for `BPF_MAP_TYPE_PERF_EVENT_ARRAY`, a buffer per CPU.
//! `include/mainstay_ring.h` in this package is for the BPF program: it counts, per CPU and reason,
//! what could not be written. Together, `stats` of either says exactly where every record went
//! ([`RingStats`]).
//!
//! ```no_run
//! use std::os::fd::OwnedFd;
//! use std::time::Duration;
//! use ebpf_ring::{RingError, RingReader, Wait};
//!
//! fn follow(map: OwnedFd) -> Result<(), RingError> {
//!     let mut ring = RingReader::from_fd(map)?;
//!     while ring.wait(Wait::up_to(Duration::from_secs(1)))? {
//!         ring.drain(10_000, |record| println!("{} bytes", record.bytes().len()))?;
//!     }
//!     Ok(())
//! }
//! ```
//!
//! [`KernelFeatures`] says what the kernel lets a process do, and [`BpfMap`] opens maps of others.
//!
//! Feature `libbpf`: `RingReader::from_map`, `PerfReader::from_map` and `MapCounters::new` for libbpf-rs maps. It needs a C
//! compiler, make, pkg-config and the libelf headers at build time; without it this crate is Rust
//! only. Feature `tokio`: `AsyncReader`.
//!
//! 64-bit Linux; on other systems the crate compiles to the counters alone.

mod counters;
mod stats;

pub use counters::{CounterSource, Counters, DropReason};
pub use stats::RingStats;

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[cfg_attr(
    loom,
    expect(dead_code, reason = "loom models claims without the reader")
)]
mod claims;
#[cfg(all(any(test, fuzzing), target_os = "linux", target_pointer_width = "64"))]
mod heap;
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
mod sync;
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[cfg_attr(
    loom,
    expect(dead_code, reason = "loom models the walker without the reader")
)]
mod walk;

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
pub use walk::{Commit, Drained, Stop};

// What follows maps real memory and sleeps in the kernel, which loom cannot watch.
#[cfg(all(
    feature = "tokio",
    target_os = "linux",
    target_pointer_width = "64",
    not(loom)
))]
mod async_reader;
#[cfg(all(target_os = "linux", target_pointer_width = "64", not(loom)))]
mod cpus;
#[cfg(all(target_os = "linux", target_pointer_width = "64", not(loom)))]
mod edges;
#[cfg(all(target_os = "linux", target_pointer_width = "64", not(loom)))]
mod error;
#[cfg(all(target_os = "linux", target_pointer_width = "64", not(loom)))]
mod groups;
#[cfg(all(
    feature = "libbpf",
    target_os = "linux",
    target_pointer_width = "64",
    not(loom)
))]
mod libbpf;
#[cfg(all(target_os = "linux", target_pointer_width = "64", not(loom)))]
mod map;
#[cfg(all(target_os = "linux", target_pointer_width = "64", not(loom)))]
mod perf;
#[cfg(all(target_os = "linux", target_pointer_width = "64", not(loom)))]
mod probe;
#[cfg(all(target_os = "linux", target_pointer_width = "64", not(loom)))]
mod ring;
#[cfg(all(target_os = "linux", target_pointer_width = "64", not(loom)))]
mod spec;
#[cfg(all(target_os = "linux", target_pointer_width = "64", not(loom)))]
mod sys;
#[cfg(all(target_os = "linux", target_pointer_width = "64", not(loom)))]
mod turns;
#[cfg(all(target_os = "linux", target_pointer_width = "64", not(loom)))]
mod wait;

#[cfg(all(
    feature = "tokio",
    target_os = "linux",
    target_pointer_width = "64",
    not(loom)
))]
pub use async_reader::{AsyncReader, EventReader};
#[cfg(all(target_os = "linux", target_pointer_width = "64", not(loom)))]
pub use error::RingError;
#[cfg(all(target_os = "linux", target_pointer_width = "64", not(loom)))]
pub use groups::{CpuGroups, GroupBy};
#[cfg(all(target_os = "linux", target_pointer_width = "64", not(loom)))]
pub use map::{BpfMap, MapCounters};
#[cfg(all(target_os = "linux", target_pointer_width = "64", not(loom)))]
pub use perf::{PerfOptions, PerfReader, PerfRecord, WakeUp};
#[cfg(all(target_os = "linux", target_pointer_width = "64", not(loom)))]
pub use probe::{
    Choice, KernelFacts, KernelFeature, KernelFeatures, Limits, MissingFeature, Support,
};
#[cfg(all(target_os = "linux", target_pointer_width = "64", not(loom)))]
pub use ring::*;
#[cfg(all(target_os = "linux", target_pointer_width = "64", not(loom)))]
pub use spec::{MapFlags, MapKind, MapSpec, SpecError};
#[cfg(all(target_os = "linux", target_pointer_width = "64", not(loom)))]
pub use wait::{Closer, SpinPolicy, Wait};

/// For the fuzz target `ring_walk`: the walker over memory that says anything.
#[cfg(all(fuzzing, target_os = "linux", target_pointer_width = "64"))]
#[doc(hidden)]
pub fn walk_hostile_memory(consumer_pos: u64, producer_pos: u64, headers: &[u32]) {
    heap::walk_hostile_memory(consumer_pos, producer_pos, headers);
}

/// For the fuzz target `overwrite_walk`: the walker of rings that overwrite, over memory that says
/// anything.
#[cfg(all(fuzzing, target_os = "linux", target_pointer_width = "64"))]
#[doc(hidden)]
pub fn walk_hostile_overwriting(positions: [u64; 3], words: &[u64]) {
    walk::overwrite::heap::walk_hostile_overwriting(positions, words);
}

/// For the fuzz target `perf_walk`: the walker of perf buffers over memory that says anything.
#[cfg(all(fuzzing, target_os = "linux", target_pointer_width = "64"))]
#[doc(hidden)]
pub fn walk_hostile_buffer(tail: u64, head: u64, data: &[u8]) {
    perf::walk_hostile_buffer(tail, head, data);
}

/// The README's examples compile.
#[cfg(all(doctest, target_os = "linux", target_pointer_width = "64"))]
#[doc = include_str!("../README.md")]
struct Readme;
