//! What a store is opened with: every limit, with its default.

use crate::embedded::format;
use crate::error::{Error, Kind};

/// When an operation counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Durability {
    /// After an `fdatasync` that covers its record. The default, and the only level at which an
    /// acknowledged operation survives a power cut.
    #[default]
    Sync,
    /// After the write; a sync follows at most this many milliseconds later. A crash of the
    /// process loses nothing, a power cut loses up to the interval.
    IntervalMs(u64),
    /// After the write; the kernel syncs when it likes. A crash of the process loses nothing.
    None,
}

/// Options of [`Store::open`](crate::Store::open): limits, all with working defaults.
///
/// ```
/// use idem_store::{Durability, Options};
///
/// let options = Options::new().segment_bytes_max(64 << 20).durability(Durability::IntervalMs(50));
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) segment_bytes_max: u32,
    pub(crate) durability: Durability,
    pub(crate) key_bytes_max: u32,
    pub(crate) memo_bytes_max: u32,
    pub(crate) outcome_bytes_max: u32,
    pub(crate) batch_bytes_max: u32,
    pub(crate) disk_full_wait_ms: u64,
    pub(crate) keys_max: u64,
    pub(crate) waiters_max: u32,
    pub(crate) upkeep_bytes_per_s_max: u64,
    pub(crate) index_log_bytes: u64,
    pub(crate) cache_bytes_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes_max: 16 << 20,
            durability: Durability::Sync,
            key_bytes_max: 512,
            memo_bytes_max: 256,
            outcome_bytes_max: 1 << 20,
            batch_bytes_max: 4 << 20,
            disk_full_wait_ms: 5_000,
            keys_max: 100_000_000,
            waiters_max: 65_536,
            upkeep_bytes_per_s_max: 128 << 20,
            index_log_bytes: 64 << 20,
            cache_bytes_max: 32 << 20,
        }
    }
}

/// Bytes of a claim beside its key and memo.
const CLAIM_BYTES: u32 = (format::RECORD_HEADER + format::BODY) as u32;

impl Options {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Size of a segment file, allocated as a whole. Default 16 MiB, from 64 KiB to 2 GiB. Two of
    /// them (one in use, one spare) are the least disk space that a store takes. A store that has
    /// larger ones goes on with their size: what lives in them must fit where it is moved to.
    #[must_use]
    pub fn segment_bytes_max(mut self, bytes: u32) -> Self {
        self.segment_bytes_max = bytes;
        self
    }

    /// When an operation counts as done. Default [`Durability::Sync`].
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Longest key. Default 512, at most 65,535. Longer ones are refused
    /// ([`Error::is_too_large`]).
    #[must_use]
    pub fn key_bytes_max(mut self, bytes: u32) -> Self {
        self.key_bytes_max = bytes;
        self
    }

    /// Longest memo. Default 256. Longer ones are refused ([`Error::is_too_large`]).
    #[must_use]
    pub fn memo_bytes_max(mut self, bytes: u32) -> Self {
        self.memo_bytes_max = bytes;
        self
    }

    /// Longest outcome. Default 1 MiB, at most a quarter of a segment. Longer ones are refused
    /// ([`Error::is_too_large`]).
    #[must_use]
    pub fn outcome_bytes_max(mut self, bytes: u32) -> Self {
        self.outcome_bytes_max = bytes;
        self
    }

    /// How many bytes may wait for the next sync before new keys are refused
    /// ([`Error::is_busy`]). Operations that end or extend a claim are never refused for this.
    /// Default 4 MiB, at most half a segment, at least 64 bytes and the longest key and memo; or 0,
    /// which refuses every new key.
    #[must_use]
    pub fn batch_bytes_max(mut self, bytes: u32) -> Self {
        self.batch_bytes_max = bytes;
        self
    }

    /// How long an operation that was taken waits for space on a full disk before it answers
    /// [`Error::is_full`]; once that time has passed, others are answered so at once. Default
    /// 5,000 ms; 0 does not wait. An outcome is kept in memory all the same and written when there
    /// is space, see [`Store::complete`](crate::Store::complete).
    #[must_use]
    pub fn disk_full_wait_ms(mut self, ms: u64) -> Self {
        self.disk_full_wait_ms = ms;
        self
    }

    /// How many keys the store may hold before new ones are refused ([`Error::is_full`]).
    /// Default 100 million. A key takes about 40 bytes of memory.
    #[must_use]
    pub fn keys_max(mut self, keys: u64) -> Self {
        self.keys_max = keys;
        self
    }

    /// How fast old segments are read and what lives in them is copied, so that callers keep the
    /// disk. Default 128 MiB a second. Exceeded when the log has grown to twice its bound (twice what
    /// is still needed, and two segments) all the same.
    #[must_use]
    pub fn upkeep_bytes_per_s_max(mut self, bytes: u64) -> Self {
        self.upkeep_bytes_per_s_max = bytes;
        self
    }

    /// How many calls of [`Store::wait`](crate::Store::wait) may be pending before further ones
    /// are refused ([`Error::is_busy`]). Default 65,536.
    #[must_use]
    pub fn waiters_max(mut self, waiters: u32) -> Self {
        self.waiters_max = waiters;
        self
    }

    /// How much log may gather behind the last index snapshot before a new one is written: at
    /// least this, and at least twice the size of a snapshot (16 bytes a key). Default 64 MiB. It
    /// bounds what opening has to read, see [`Store::open`](crate::Store::open).
    #[must_use]
    pub fn index_log_bytes(mut self, bytes: u64) -> Self {
        self.index_log_bytes = bytes;
        self
    }

    /// Memory for outcomes that are asked for again and again; all others are read from the log
    /// when they are asked for. Default 32 MiB, room for about 120,000 outcomes of 64 bytes: a
    /// retry comes soon or not at all, so the cache need hold minutes, not the retention, and the
    /// kernel's page cache stands behind it. 0 turns it off.
    #[must_use]
    pub fn cache_bytes_max(mut self, bytes: u64) -> Self {
        self.cache_bytes_max = bytes;
        self
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let fail = |what| Err(Error::new(Kind::Options(what)));
        if !(64 << 10..=2 << 30).contains(&u64::from(self.segment_bytes_max)) {
            return fail("segment_bytes_max is not within 64 KiB and 2 GiB");
        }
        if !self.segment_bytes_max.is_multiple_of(format::BLOCK) {
            return fail("segment_bytes_max is not a multiple of 4096");
        }
        if self.key_bytes_max == 0 || self.key_bytes_max > u32::from(u16::MAX) {
            return fail("key_bytes_max is not within 1 and 65535");
        }
        let record_max = u64::from(self.key_bytes_max)
            + u64::from(self.memo_bytes_max.max(self.outcome_bytes_max));
        if record_max > u64::from(self.segment_bytes_max) / 4 {
            return fail("a key and its outcome or memo must fit a quarter of a segment");
        }
        if self.batch_bytes_max > self.segment_bytes_max / 2 {
            return fail("batch_bytes_max is more than half of segment_bytes_max");
        }
        let claim_max = CLAIM_BYTES + self.key_bytes_max + self.memo_bytes_max;
        if self.batch_bytes_max > 0 && self.batch_bytes_max < claim_max {
            return fail("batch_bytes_max has no room for one key with its memo");
        }
        Ok(())
    }
}
