//! Idempotent effects: a durable, fenced, at-most-once key store.
#![forbid(unsafe_code)]

mod begin;
mod book;
mod claims;
mod completion;
mod error;
mod flush;
mod format;
mod options;
mod permit;
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
pub use options::{Durability, Options};
pub use permit::{Begin, Begun, Failure, Fingerprint, Lookup, Permit, Unresolved, Waited};
pub use stats::{Histogram, Stats};
pub use store::Store;
pub use stored::Stored;
