//! The kernel's ring buffer maps, read in place.

mod batch;
#[cfg(feature = "libbpf")]
mod libbpf;
mod mapping;
mod reader;
mod set;
mod shared;

pub use batch::{Batch, BatchIter};
#[cfg(feature = "libbpf")]
pub use libbpf::MapCounters;
#[cfg(feature = "libbpf")]
pub(crate) use libbpf::to_io;
pub(crate) use mapping::Range;
pub use reader::{Record, RingReader};
pub use set::RingSet;
pub use shared::{Claim, ClaimIter, SharedReader};
