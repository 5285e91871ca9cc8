//! The shell around the core: a clock, leased workers, and the policy for a clock that went back.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::error::{Kind, TokenError};
use super::snowflake::{EPOCH_MS, Id, Snowflake, Turn, WORKER_MAX};
use super::workers::{WorkerLease, Workers};
use super::{FingerprintHalf, Token};

/// Tells the time, and waits for it.
pub trait Clock: Send {
    /// Unix milliseconds. It may go back: that is noticed.
    fn now_ms(&self) -> u64;

    /// Waits about this long.
    fn pause(&self, ms: u64);
}

/// The machine's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        // Before 1970 is before every epoch too.
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_millis() as u64)
    }

    fn pause(&self, ms: u64) {
        std::thread::sleep(Duration::from_millis(ms));
    }
}

/// What to do while the clock is behind an id that may exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnClockBehind {
    /// Wait until it has caught up, when it is behind by at most this; else refuse.
    WaitMs(u64),
    /// Refuse at once ([`TokenError::is_clock_behind`]).
    Refuse,
}

/// Options of a [`Generator`], all with working defaults.
#[derive(Clone, Debug)]
pub struct GeneratorOptions {
    epoch_ms: u64,
    workers: u16,
    reserve_ms: u64,
    on_clock_behind: OnClockBehind,
}

impl Default for GeneratorOptions {
    fn default() -> Self {
        Self {
            epoch_ms: EPOCH_MS,
            workers: 1,
            reserve_ms: 1_000,
            on_clock_behind: OnClockBehind::WaitMs(5_000),
        }
    }
}

impl GeneratorOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Where the ids' time starts, Unix milliseconds. Default [`EPOCH_MS`] (2025). Must never change
    /// for one target.
    #[must_use]
    pub fn epoch_ms(mut self, epoch_ms: u64) -> Self {
        self.epoch_ms = epoch_ms;
        self
    }

    /// How many worker ids to lease. Default 1. Each gives at most 4,096 ids a millisecond, so 4.1
    /// million a second; when they are used up, the generator waits for the next millisecond.
    #[must_use]
    pub fn workers(mut self, workers: u16) -> Self {
        self.workers = workers;
        self
    }

    /// How much time is reserved ahead by each write of the floor: one sync per this long under load.
    /// Default 1,000 ms. After a crash, a generator that gets the same worker id starts that much
    /// later at most.
    #[must_use]
    pub fn reserve_ms(mut self, reserve_ms: u64) -> Self {
        self.reserve_ms = reserve_ms;
        self
    }

    /// What to do while the clock is behind. Default: wait up to 5 s.
    #[must_use]
    pub fn on_clock_behind(mut self, policy: OnClockBehind) -> Self {
        self.on_clock_behind = policy;
        self
    }
}

/// Makes tokens on one thread: leased workers, a clock, a durable floor.
///
/// No id is given twice: not after a crash, a restart, a clock that went back, or by two processes
/// that lease from the same place. Dropping it gives the workers back.
pub struct Generator<L: WorkerLease, C: Clock = SystemClock> {
    core: Snowflake,
    leases: Vec<L>,
    clock: C,
    options: GeneratorOptions,
}

impl<L: WorkerLease> Generator<L> {
    /// Leases workers; with the machine's clock.
    ///
    /// # Errors
    /// As [`Workers::lease`], and options that do not fit.
    pub fn open(
        workers: &impl Workers<Lease = L>,
        options: GeneratorOptions,
    ) -> Result<Self, TokenError> {
        Self::open_with(workers, options, SystemClock)
    }
}

impl<L: WorkerLease, C: Clock> Generator<L, C> {
    /// As [`open`](Generator::open), with a clock of the caller.
    ///
    /// # Errors
    /// As [`open`](Generator::open).
    pub fn open_with(
        workers: &impl Workers<Lease = L>,
        options: GeneratorOptions,
        clock: C,
    ) -> Result<Self, TokenError> {
        let fail = |what| Err(TokenError::new(Kind::Options(what)));
        if !(1..=WORKER_MAX + 1).contains(&options.workers) {
            return fail("a generator has 1 to 1024 workers");
        }
        if options.reserve_ms == 0 {
            return fail("reserve_ms is not 0");
        }
        let leases: Result<Vec<L>, _> = (0..options.workers)
            .map(|_| workers.lease(clock.now_ms()))
            .collect();
        let leases = leases?;
        let ids: Vec<u16> = leases.iter().map(L::worker).collect();
        let floor_ms = leases.iter().map(L::floor_ms).max();
        let core = Snowflake::new(options.epoch_ms, &ids, floor_ms.unwrap_or_default())?;
        Ok(Self {
            core,
            leases,
            clock,
            options,
        })
    }

    /// A token for this fingerprint: the digest of a request, or any bytes that stand for it.
    ///
    /// One clock reading, one SHA-256, no allocation; once per `reserve_ms` a durable write. Waits
    /// for the next millisecond when the ids of this one are used up.
    ///
    /// # Errors
    /// [`is_clock_behind`](TokenError::is_clock_behind) by the policy,
    /// [`is_out_of_time`](TokenError::is_out_of_time), and as [`WorkerLease::reserve`]. After
    /// [`is_lease_lost`](TokenError::is_lease_lost) open a new generator.
    #[inline]
    pub fn next(&mut self, fingerprint: &[u8]) -> Result<Token, TokenError> {
        let half = FingerprintHalf::of(fingerprint);
        Ok(Token::new(self.next_id()?, half))
    }

    /// Only the id.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    #[inline]
    pub fn next_id(&mut self) -> Result<Id, TokenError> {
        let now_ms = self.clock.now_ms();
        match self.core.next(now_ms) {
            Turn::Id(id) => Ok(id),
            other => self.next_id_slow(other, now_ms),
        }
    }

    /// The worker ids, ascending.
    #[must_use]
    pub fn workers(&self) -> &[u16] {
        self.core.workers()
    }

    #[cold]
    fn next_id_slow(&mut self, mut turn: Turn, mut now_ms: u64) -> Result<Id, TokenError> {
        let mut waited_ms = 0;
        loop {
            match turn {
                Turn::Id(id) => return Ok(id),
                Turn::OutOfTime => return Err(TokenError::new(Kind::OutOfTime)),
                Turn::Reserve => self.reserve(now_ms)?,
                Turn::Full { .. } => std::thread::yield_now(),
                Turn::Behind { until_ms } => {
                    let by_ms = until_ms - now_ms;
                    let patience_ms = match self.options.on_clock_behind {
                        OnClockBehind::WaitMs(most_ms) => most_ms,
                        OnClockBehind::Refuse => 0,
                    };
                    // A clock that is set back again and again does not make this wait for ever.
                    waited_ms += by_ms;
                    if waited_ms > patience_ms {
                        return Err(TokenError::new(Kind::Behind { by_ms }));
                    }
                    self.clock.pause(by_ms);
                }
            }
            now_ms = self.clock.now_ms();
            turn = self.core.next(now_ms);
        }
    }

    fn reserve(&mut self, now_ms: u64) -> Result<(), TokenError> {
        let limit_ms = now_ms.saturating_add(self.options.reserve_ms);
        for lease in &mut self.leases {
            lease.reserve(limit_ms)?;
        }
        self.core.reserve(limit_ms);
        Ok(())
    }
}

impl<L: WorkerLease, C: Clock> Drop for Generator<L, C> {
    fn drop(&mut self) {
        let floor_ms = self.core.floor_ms();
        for lease in &mut self.leases {
            if floor_ms < lease.floor_ms() {
                // What was reserved and not used is lost otherwise; that costs the next holder a
                // wait, never an id.
                let _ = lease.reserve(floor_ms);
            }
        }
    }
}

impl<L: WorkerLease, C: Clock> fmt::Debug for Generator<L, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generator")
            .field("workers", &self.workers())
            .finish_non_exhaustive()
    }
}

/// A [`Generator`] that threads share. Cheap to clone; all clones are one.
///
/// One lock; a thread that needs all the speed of a core has a generator of its own.
pub struct TokenService {
    generator: Arc<Mutex<dyn NextId>>,
}

trait NextId: Send {
    fn next_id(&mut self) -> Result<Id, TokenError>;
}

impl<L: WorkerLease, C: Clock> NextId for Generator<L, C> {
    fn next_id(&mut self) -> Result<Id, TokenError> {
        Generator::next_id(self)
    }
}

impl TokenService {
    /// Shares a generator.
    pub fn new<L, C>(generator: Generator<L, C>) -> Self
    where
        L: WorkerLease + 'static,
        C: Clock + 'static,
    {
        Self {
            generator: Arc::new(Mutex::new(generator)),
        }
    }

    /// As [`Generator::next`]. While one caller waits for the clock or the disk, so do the others.
    ///
    /// # Errors
    /// As [`Generator::next`].
    pub fn next(&self, fingerprint: &[u8]) -> Result<Token, TokenError> {
        let half = FingerprintHalf::of(fingerprint);
        let id = self.generator.lock().next_id()?;
        Ok(Token::new(id, half))
    }
}

impl Clone for TokenService {
    fn clone(&self) -> Self {
        Self {
            generator: Arc::clone(&self.generator),
        }
    }
}

impl fmt::Debug for TokenService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenService").finish_non_exhaustive()
    }
}
