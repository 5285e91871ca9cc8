//! The pure core: 64-bit ids from a clock that is handed in.
//!
//! ```text
//!  63  62                        22 21      12 11        0
//! +---+----------------------------+----------+-----------+
//! | 0 | milliseconds since epoch   | worker   | sequence  |
//! +---+----------------------------+----------+-----------+
//!       41 bits: 69.7 years          10: 1,024  12: 4,096
//! ```
//!
//! An id is given once because its worker is leased by one generator, and because a generator goes
//! through (millisecond, worker, sequence) only upwards, from a floor that is above everything the
//! worker's earlier holders were allowed to use, to a limit that later ones start from.
//!
//! One worker has 4,096 ids a millisecond (4.1 million a second). A generator may hold several; in
//! each millisecond it uses them up in ascending order, so its ids grow all the same.

use std::fmt;

use super::error::{Kind, TokenError};

/// Bits of the sequence within a millisecond.
const SEQUENCE_BITS: u32 = 12;
/// Bits of the worker.
const WORKER_BITS: u32 = 10;
/// Bits of the time.
const TIME_BITS: u32 = 41;
/// Ids of one worker in one millisecond.
const SEQUENCES: u16 = 1 << SEQUENCE_BITS;

/// The highest worker id.
pub const WORKER_MAX: u16 = (1 << WORKER_BITS) - 1;

/// The default epoch, 2025-01-01T00:00:00Z in Unix milliseconds: ids last until 2094.
pub const EPOCH_MS: u64 = 1_735_689_600_000;

/// A 64-bit Snowflake id: 41 bits of milliseconds since an epoch, 10 bits of worker, 12 bits of
/// sequence. The highest bit is 0, so it is positive as an `i64` too. Ordered by time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(u64);

impl Id {
    /// An id of its parts. `None` when one of them does not fit.
    #[must_use]
    pub fn new(since_epoch_ms: u64, worker: u16, sequence: u16) -> Option<Self> {
        let fits = since_epoch_ms >> TIME_BITS == 0 && worker <= WORKER_MAX && sequence < SEQUENCES;
        fits.then(|| Self::pack(since_epoch_ms, worker, sequence))
    }

    /// The id of a number; `None` when its highest bit is set.
    #[must_use]
    pub fn from_u64(number: u64) -> Option<Self> {
        (number >> 63 == 0).then_some(Self(number))
    }

    /// As a number.
    #[must_use]
    pub fn as_u64(self) -> u64 {
        self.0
    }

    /// When it was made, in milliseconds since the epoch of its generator.
    #[must_use]
    pub fn since_epoch_ms(self) -> u64 {
        self.0 >> (WORKER_BITS + SEQUENCE_BITS)
    }

    /// When it was made, in Unix milliseconds; `epoch_ms` is that of its generator
    /// ([`EPOCH_MS`] by default).
    #[must_use]
    pub fn unix_ms(self, epoch_ms: u64) -> u64 {
        epoch_ms.saturating_add(self.since_epoch_ms())
    }

    /// Who made it.
    #[must_use]
    pub fn worker(self) -> u16 {
        (self.0 >> SEQUENCE_BITS) as u16 & WORKER_MAX
    }

    /// Its number among those of its worker and millisecond.
    #[must_use]
    pub fn sequence(self) -> u16 {
        self.0 as u16 & (SEQUENCES - 1)
    }

    fn pack(since_epoch_ms: u64, worker: u16, sequence: u16) -> Self {
        let worker = u64::from(worker) << SEQUENCE_BITS;
        Self(since_epoch_ms << (WORKER_BITS + SEQUENCE_BITS) | worker | u64::from(sequence))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Id")
            .field("since_epoch_ms", &self.since_epoch_ms())
            .field("worker", &self.worker())
            .field("sequence", &self.sequence())
            .finish()
    }
}

/// What a generator answers when it is asked for an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// A new id.
    Id(Id),
    /// Every id of this millisecond is used up: ask again at `until_ms`.
    Full {
        /// The next millisecond, Unix time.
        until_ms: u64,
    },
    /// The clock went back, or an earlier holder had reserved this time: ids from here could repeat.
    /// Ask again at `until_ms`.
    Behind {
        /// From when on there are ids, Unix milliseconds.
        until_ms: u64,
    },
    /// The time is beyond what is reserved: [`reserve`](Snowflake::reserve) more.
    Reserve,
    /// The time is before the epoch, or more than 2^41 ms after it.
    OutOfTime,
}

/// Gives ids of the workers it holds; pure: the time is handed in.
///
/// ```
/// use idem_store::token::{EPOCH_MS, Snowflake, Turn};
///
/// let mut ids = Snowflake::new(EPOCH_MS, &[7], 0)?;
/// let now_ms = EPOCH_MS + 5_000;
/// assert_eq!(ids.next(now_ms), Turn::Reserve);
/// ids.reserve(now_ms + 1_000); // after it was made durable
/// let Turn::Id(id) = ids.next(now_ms) else { panic!("reserved") };
/// assert_eq!((id.since_epoch_ms(), id.worker(), id.sequence()), (5_000, 7, 0));
/// assert_eq!(ids.next(now_ms - 1), Turn::Behind { until_ms: now_ms });
/// # Ok::<(), idem_store::token::TokenError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Snowflake {
    epoch_ms: u64,
    workers: Box<[u16]>,
    /// Time of the newest id, or the floor.
    at_ms: u64,
    /// Next id within `at_ms`: index into `workers`, and sequence.
    slot: usize,
    sequence: u16,
    /// First time that is not reserved.
    limit_ms: u64,
}

impl Snowflake {
    /// A generator for these workers, which gives ids from `floor_ms` (Unix milliseconds) on, once
    /// time is [`reserve`](Self::reserve)d.
    ///
    /// # Errors
    /// No worker, one above [`WORKER_MAX`], or one twice.
    pub fn new(epoch_ms: u64, workers: &[u16], floor_ms: u64) -> Result<Self, TokenError> {
        let mut sorted = workers.to_vec();
        sorted.sort_unstable();
        if let Some(worker) = sorted.last().filter(|worker| **worker > WORKER_MAX) {
            return Err(TokenError::new(Kind::Worker(u64::from(*worker))));
        }
        sorted.dedup();
        if sorted.is_empty() || sorted.len() < workers.len() {
            let what = "a generator has one worker or several different ones";
            return Err(TokenError::new(Kind::Options(what)));
        }
        Ok(Self {
            epoch_ms,
            workers: sorted.into(),
            at_ms: floor_ms,
            slot: 0,
            sequence: 0,
            limit_ms: floor_ms,
        })
    }

    /// Allows ids of times below `limit_ms` (Unix milliseconds). Before this is called, it must be
    /// durable that later holders of these workers start no earlier. Never shrinks.
    pub fn reserve(&mut self, limit_ms: u64) {
        self.limit_ms = self.limit_ms.max(limit_ms);
    }

    /// The next id at `now_ms` (Unix milliseconds). O(1).
    #[inline]
    pub fn next(&mut self, now_ms: u64) -> Turn {
        if now_ms < self.at_ms {
            return Turn::Behind {
                until_ms: self.at_ms,
            };
        }
        let since_epoch_ms = now_ms.wrapping_sub(self.epoch_ms);
        // A time before the epoch wraps to one that is too late.
        if since_epoch_ms >> TIME_BITS != 0 {
            return Turn::OutOfTime;
        }
        if now_ms >= self.limit_ms {
            return Turn::Reserve;
        }
        if now_ms > self.at_ms {
            self.at_ms = now_ms;
            self.slot = 0;
            self.sequence = 0;
        }
        let Some(worker) = self.workers.get(self.slot) else {
            return Turn::Full {
                until_ms: now_ms + 1,
            };
        };
        let id = Id::pack(since_epoch_ms, *worker, self.sequence);
        self.sequence += 1;
        if self.sequence == SEQUENCES {
            self.sequence = 0;
            self.slot += 1;
        }
        Turn::Id(id)
    }

    /// Later holders of these workers may start here: just after the newest id.
    #[must_use]
    pub fn floor_ms(&self) -> u64 {
        let used = self.slot > 0 || self.sequence > 0;
        self.at_ms + u64::from(used)
    }

    /// The workers, ascending.
    #[must_use]
    pub fn workers(&self) -> &[u16] {
        &self.workers
    }
}
