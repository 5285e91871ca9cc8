//! Reader for BPF ring buffers: every record delivered or counted as lost.
//!
//! Two halves. [`RingReader`] consumes a `BPF_MAP_TYPE_RINGBUF` map in place, without copying and
//! without libbpf. `include/mainstay_ring.h` in this package is for the BPF program: it counts, per
//! CPU and reason, what could not be written. Together, [`RingReader::stats`] says exactly where
//! every record went ([`RingStats`]).
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
//! Feature `libbpf`: `RingReader::from_map` and `MapCounters` for libbpf-rs maps. It needs a C
//! compiler, make, pkg-config and the libelf headers at build time; without it this crate is Rust
//! only.
//!
//! 64-bit Linux; on other systems the crate compiles to the counters alone.

mod counters;
#[cfg(all(not(loom), target_os = "linux", target_pointer_width = "64"))]
mod error;
#[cfg(all(
    not(loom),
    feature = "libbpf",
    target_os = "linux",
    target_pointer_width = "64"
))]
mod libbpf;
#[cfg(all(not(loom), target_os = "linux", target_pointer_width = "64"))]
mod mapping;
#[cfg(all(not(loom), target_os = "linux", target_pointer_width = "64"))]
mod reader;
mod stats;
mod sync;
mod walk;

#[cfg(test)]
mod walk_tests;

pub use counters::{CounterSource, Counters, DropReason};
#[cfg(all(not(loom), target_os = "linux", target_pointer_width = "64"))]
pub use error::RingError;
#[cfg(all(
    not(loom),
    feature = "libbpf",
    target_os = "linux",
    target_pointer_width = "64"
))]
pub use libbpf::MapCounters;
#[cfg(all(not(loom), target_os = "linux", target_pointer_width = "64"))]
pub use reader::{Record, RingReader, Wait};
pub use stats::RingStats;
pub use walk::{Drained, Stop};
