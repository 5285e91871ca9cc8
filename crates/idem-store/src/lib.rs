//! Idempotent effects: a durable, fenced, at-most-once key store.
#![forbid(unsafe_code)]

mod begin;
mod book;
mod claims;
mod completion;
mod error;
mod flush;
mod format;
mod inspect;
mod options;
mod permit;
mod repair;
mod replay;
mod scan;
mod shared;
mod stats;
mod store;
mod stored;
mod tail;
mod upkeep;
#[doc(hidden)]
pub mod vfs;

pub use completion::Completion;
pub use error::Error;
#[doc(hidden)]
pub use inspect::verify_on;
pub use inspect::{Bad, Report, Snapshot, verify};
pub use options::{Durability, Options};
pub use permit::{Begin, Begun, Failure, Fingerprint, Lookup, Permit, Unresolved, Waited};
#[doc(hidden)]
pub use repair::repair_on;
pub use repair::{Repair, repair};
pub use stats::{Histogram, Stats};
pub use store::Store;
pub use stored::Stored;
