//! The store of one machine: an append-only log in one directory, with an index in memory.

pub(crate) mod begin;
pub(crate) mod book;
pub(crate) mod cache;
pub(crate) mod claims;
pub(crate) mod flush;
pub(crate) mod format;
pub(crate) mod handle;
pub(crate) mod index_snapshot;
pub(crate) mod index_writer;
#[cfg(all(test, not(loom)))]
mod index_writer_tests;
pub(crate) mod inspect;
#[cfg(all(loom, test))]
mod loom_tests;
#[cfg(test)]
mod memory;
pub(crate) mod read;
pub(crate) mod repair;
pub(crate) mod replay;
pub(crate) mod scan;
pub(crate) mod shared;
pub(crate) mod slab;
pub(crate) mod spare;
pub(crate) mod tail;
pub(crate) mod upkeep;
#[cfg(all(test, not(loom)))]
mod upkeep_tests;
pub mod vfs;
pub(crate) mod view;
