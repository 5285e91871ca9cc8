//! The counter map of `include/mainstay_ring.h`, read from user space.

use std::io;
use std::mem::{offset_of, size_of};

/// Reasons in [`Counters::dropped`], in the order of `enum mr_drop`.
const REASONS: usize = 6;

/// Why a record was not written: `enum mr_drop` of `mainstay_ring.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// The reader was too slow: the record did not fit into the free space.
    Full = 0,
    /// The ring's lock was taken on that CPU (NMI), though there was room.
    Busy = 1,
    /// The record is larger than the whole ring, or than any record of a perf buffer may be.
    TooLarge = 2,
    /// The program had no room for its own state, or no reader has a buffer or ring for its CPU.
    NoState = 3,
}

impl DropReason {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Full, Self::Busy, Self::TooLarge, Self::NoState];

    /// A word for tables and JSON keys.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Busy => "busy",
            Self::TooLarge => "too_large",
            Self::NoState => "no_state",
        }
    }
}

/// What a program counted on one CPU for one ring, or a sum of such.
///
/// Twin of `struct mr_counters`; both sides assert the size and every offset.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Counters {
    seen: u64,
    discarded: u64,
    dropped: [u64; REASONS],
}

const _: () = assert!(size_of::<Counters>() == Counters::BYTES);
const _: () = assert!(offset_of!(Counters, seen) == 0);
const _: () = assert!(offset_of!(Counters, discarded) == 8);
const _: () = assert!(offset_of!(Counters, dropped) == 16);

impl Counters {
    /// Bytes of the map's value for one CPU.
    pub const BYTES: usize = 64;

    /// Reads one CPU's value as the kernel hands it out (native byte order).
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let word = |index: usize| {
            let word = bytes[index * 8..index * 8 + 8]
                .try_into()
                .expect("eight of 64 bytes");
            u64::from_ne_bytes(word)
        };
        Self {
            seen: word(0),
            discarded: word(1),
            dropped: std::array::from_fn(|reason| word(2 + reason)),
        }
    }

    /// Records that the program wanted to write.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Records that the program reserved and gave up itself.
    #[must_use]
    pub fn discarded(&self) -> u64 {
        self.discarded
    }

    /// Records that could not be written, all reasons together.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.iter().fold(0, |sum, n| sum.wrapping_add(*n))
    }

    /// Records that could not be written for `reason`.
    #[must_use]
    pub fn dropped_for(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }
}

impl std::iter::Sum for Counters {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, one| {
            sum.seen = sum.seen.wrapping_add(one.seen);
            sum.discarded = sum.discarded.wrapping_add(one.discarded);
            for (total, n) in sum.dropped.iter_mut().zip(one.dropped) {
                *total = total.wrapping_add(n);
            }
            sum
        })
    }
}

/// Where a reader finds the counters that belong to its ring, one for each possible CPU.
///
/// With the feature `libbpf`, `MapCounters` reads them from the map that `MR_COUNTERS` defined.
pub trait CounterSource: Send {
    /// The counters of each CPU, in CPU order.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    fn per_cpu(&self) -> io::Result<Vec<Counters>>;
}
