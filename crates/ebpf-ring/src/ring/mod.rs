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
pub use reader::{Record, RingReader};
pub use set::RingSet;
pub use shared::{Claim, ClaimIter, SharedReader};
