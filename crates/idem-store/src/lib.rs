//! Idempotent effects: a durable, fenced, at-most-once key store.
//!
//! A caller [`begin`](Store::begin)s a key before an effect and [`complete`](Store::complete)s it
//! after. Whoever begins the same key again gets the stored outcome, learns that somebody is at
//! work, or, when a holder vanished after it declared its effect, gets a permit to find out what
//! happened. Keys are never silently repeated.
//!
//! # A key's life
//!
//! ```text
//!            begin                  declare (or with begin)
//!  absent ----------> held --------------------------------> held, effect declared
//!    ^   <----------   |                                       |      |
//!    |  drop, lapse,   |                            drop, lapse|      |
//!    |  Retryable,     |                            crash      |      |
//!    |  crash          |                                       v      |
//!    |                 |                              in doubt-+      |
//!    |                 |   complete, Final      begin gives a permit, |
//!    |                 v                        then complete or fail v
//!    +---------- outcome stored <-------------------------------------+
//!    retention ends, forget         (NotHappened goes back to absent)
//! ```
//!
//! # How it works
//!
//! State is in memory: claims in full, outcomes as 16 bytes (a hash and a place in the log). Every
//! change is a record in an append-only log of segment files. A call changes the state and appends
//! its record to the open batch under one short lock, and returns a [`Completion`]. There is one
//! stream of writes: the batch is cut when the write before it returns, so batches grow with the
//! load and nobody waits for more than two writes. The flush thread writes them; when it sleeps, a
//! caller that blocks lends its own thread, which saves one caller two changes of threads. Of those
//! who sleep until a batch is durable one is woken and wakes the others, while the next batch is on
//! its way.
//!
//! # The write path
//!
//! A batch is one write of whole 512-byte blocks past the page cache (`O_DIRECT | O_DSYNC`, to
//! blocks that were written before), with the end of the block before it written again. Measured
//! on ext4 and a virtio disk, microseconds p50 / p99 and bytes that reached the disk for one append
//! of 128 B:
//!
//! | | µs | bytes |
//! |---|---:|---:|
//! | write and `fdatasync` | 106 / 160 | 4,211 |
//! | write with `O_DSYNC` | 103 / 161 | 4,202 |
//! | `O_DIRECT`, then `fdatasync` | 93 / 145 | 610 |
//! | `O_DIRECT` and `O_DSYNC` | 87 / 140 | 605 |
//!
//! The same for 9 KiB, the batch of 64 callers: 109 / 164 and 12,405 bytes against 93 / 151 and
//! 9,314. So it is the fastest of the four, writes the least, and leaves nothing in the page cache
//! that a failed sync could lose silently. Where a file system has no direct writes, batches are
//! written and synced with `fdatasync`; the bytes are the same.
//!
//! A segment is filled with zeros before it is used: overwriting written blocks makes a sync one
//! device write, while the first write to merely allocated blocks costs a journal commit too (90
//! against 136 microseconds). A dropped segment's file is used again without that, so that a log in
//! its steady state writes each byte once.
//!
//! # Upkeep
//!
//! A second thread makes the next segment ready and, when the log takes more than twice what is
//! needed and two segments, carries the live records of the oldest segment forward and drops it (a
//! segment where nothing lives is dropped unread). Outcomes past their retention leave the index
//! also while nothing is written: at the latest some 19 minutes after their end (they are counted in
//! steps of 2^20 ms, and looked for every minute) and the time that it takes to read the log at
//! [`Options::upkeep_bytes_per_s_max`]. The store's time is that which callers tell; after ten
//! seconds without a call it goes on by itself.
//!
//! # A full disk
//!
//! Without disk space for a new segment new keys are refused at once ([`is_full`](Error::is_full))
//! and stored outcomes replay. What was begun before can still end: while the current segment has
//! room, as ever; after that [`complete`](Store::complete) and [`fail`](Store::fail) keep what they
//! are given in memory (at most one outcome for each permit that was given before), wait at most
//! [`Options::disk_full_wait_ms`] for space, and then answer `is_full`. Nothing is lost by that: it
//! is written as soon as there is space, which is looked for five times a second, and replays from
//! then on; until then `begin` and `get` of that key answer `is_full` too. Should the process end
//! first, a key whose effect was declared is in doubt. A [`begin`](Store::begin) that was taken just
//! before and cannot be written is given back after the same time. [`close`](Store::close) tries
//! once more, does not wait, and says `is_full` when something was given up.
#![forbid(unsafe_code)]

mod completion;
mod embedded;
mod error;
mod face;
#[cfg(feature = "fingerprint")]
mod fingerprint;
#[cfg(feature = "tower")]
pub mod http;
mod key_header;
mod key_spec;
mod options;
mod permit;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "_remote")]
mod remote;
#[cfg(feature = "_sql")]
mod sql;
mod stats;
mod stored;
mod sync;
#[cfg(feature = "token")]
pub mod token;

pub use completion::Completion;
#[doc(hidden)]
pub use embedded::inspect::verify_on;
pub use embedded::inspect::{Bad, IndexReport, Report, Snapshot, verify};
#[doc(hidden)]
pub use embedded::repair::repair_on;
pub use embedded::repair::{Repair, repair};
#[doc(hidden)]
pub use embedded::vfs;
pub use error::Error;
pub use face::Store;
#[cfg(feature = "fingerprint")]
pub use fingerprint::{Omit, OmitError};
pub use key_header::{KeyHeaderError, read_key_header};
pub use key_spec::{KeySpec, KeySpecError, utc_day};
pub use options::{Durability, Options};
pub use permit::{Begin, Begun, Failure, Fingerprint, Lookup, Permit, Unresolved, Waited};
pub use stats::{Histogram, Stats};
pub use stored::Stored;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
