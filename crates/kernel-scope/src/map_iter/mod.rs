//! Who iterates which BPF map from user space.
//!
//! A walk is a series of `bpf(BPF_MAP_GET_NEXT_KEY)`: from no key to the first, from each key to
//! the next, until the kernel answers `ENOENT`. When the key was deleted meanwhile, the kernel
//! starts again at the first key and says nothing; such walks read keys twice and may never end.
//! This tool sees every such call and counts those restarts.
//!
//! ```no_run
//! use std::time::Duration;
//! use kernel_scope::map_iter::{MapIter, Options, Summary};
//!
//! let mut summary = Summary::default();
//! let mut tool = MapIter::open(&Options::default())?;
//! tool.collect(Duration::from_secs(10), &mut summary)?;
//! let events = tool.finish(&mut summary)?;
//! for row in summary.rows() {
//!     println!("{} walks map {}: {} times", row.comm, row.map_name, row.walks);
//! }
//! assert!(events.is_balanced());
//! # Ok::<(), kernel_scope::ScopeError>(())
//! ```
//!
//! Not seen: batched walks (`BPF_MAP_LOOKUP_BATCH`), BPF iterators and `bpf_for_each_map_elem`
//! inside BPF programs, and 32-bit programs' calls when attached to raw tracepoints.

mod event;
mod summary;
mod tool;

pub use crate::options::Options;
pub use event::{Event, MapKind};
pub use summary::{HEAT_BUCKETS, Row, Summary};
pub use tool::MapIter;
