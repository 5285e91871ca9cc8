//! The kernel's ring buffer maps, read in place.

mod batch;
mod mapping;
mod overwrite;
mod reader;
mod set;
mod sharded;
mod shared;

pub use batch::{Batch, BatchIter};
pub(crate) use mapping::Range;
pub use overwrite::OverwriteReader;
pub use reader::{Record, RingReader};
pub use set::RingSet;
pub use sharded::ShardedRings;
pub use shared::{Claim, ClaimIter, SharedReader};
