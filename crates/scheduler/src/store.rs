//! The [`Once`] hook on a store of idem-store.
//!
//! A firing is a key, claimed with its effect declared before it runs, and completed with its outcome. A runner
//! that dies leaves it in doubt; nothing here repeats it unless somebody decided so.
//!
//! How far a job came is a value that changes, and a store's keys are written once. So there are [`CELLS`] keys a
//! job, of which each stretch of [`CELL_MS`] has one; it is forgotten and written anew while the others stand.
//! The latest of them counts, and one that is too old by some stretches does no harm: firings that were
//! settled since have their keys.

use std::time::{SystemTime, UNIX_EPOCH};

use idem_store::{Begin, Begun, Error, Fingerprint, Lookup, Permit, Store};

use crate::history::Outcome;
use crate::once::{Claim, Claimed, FiringId, Once, OnceError, Unsettled};

/// The same for all firings: what a job does may change, its firings stay the same.
const FINGERPRINT: Fingerprint = Fingerprint(*b"mainstay-scheduler firing, v1   ");

/// What a claim in doubt holds when somebody wants it to run again.
const RERUN: &[u8] = b"rerun";

const CELLS: u64 = 4;
const CELL_MS: u64 = 5_000;
/// Ten years: a yearly job remembers.
const CELL_RETAIN_MS: u64 = 315_360_000_000;

/// So many keys are read at one time,
const PAGE: usize = 1_000;
/// until there are so many unsettled firings: the oldest.
const UNSETTLED_MAX: usize = 100_000;

/// Claims firings in a store of any backend. See [`Once`].
#[derive(Clone, Debug)]
pub struct StoreOnce {
    store: Store,
    lease_ms: u64,
    retain_ms: u64,
}

/// What somebody found out about a firing in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// It had run.
    Ran,
    /// Whatever happened, it is not to run.
    Skip,
    /// A scheduler that has the job is to run it again.
    Rerun,
}

impl StoreOnce {
    /// Claims last 10 s beyond the death of their runner, and what became of a firing is known for 30 days.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self {
            store,
            lease_ms: 10_000,
            retain_ms: 30 * 86_400_000,
        }
    }

    /// How long a claim stands when its runner is not heard of. A runner that is stopped for longer and goes on then
    /// has lost it: the firing was in doubt meanwhile.
    #[must_use]
    pub fn lease_ms(mut self, lease_ms: u64) -> Self {
        self.lease_ms = lease_ms.max(30);
        self
    }

    /// How long it is known what became of a firing. Firings that were missed longer ago are not claimed any more.
    #[must_use]
    pub fn retain_ms(mut self, retain_ms: u64) -> Self {
        self.retain_ms = retain_ms;
        self
    }

    /// Settles a firing in doubt. False when it is not in doubt (any more, or yet: a claim stands for its lease).
    ///
    /// # Errors
    ///
    /// When the store does not answer.
    pub fn resolve(&self, id: &FiringId, resolution: Resolution) -> Result<bool, OnceError> {
        let key = id.to_string();
        if !matches!(
            self.store
                .get(key.as_bytes(), now_ms())
                .wait()
                .map_err(said)?,
            Lookup::InDoubt(_)
        ) {
            return Ok(false);
        }
        let Begun::InDoubt(permit) = self.begin(&key)? else {
            return Ok(false);
        };
        match resolution {
            Resolution::Ran => self.complete(permit, Outcome::Succeeded).wait(),
            Resolution::Skip => self.complete(permit, Outcome::InDoubt).wait(),
            Resolution::Rerun => self.store.declare(&permit, RERUN).wait(),
        }
        .map_err(said)?;
        Ok(true)
    }

    fn begin(&self, key: &str) -> Result<Begun, OnceError> {
        let begin = Begin::new(key.as_bytes(), FINGERPRINT, self.lease_ms, now_ms()).declare(b"");
        self.store.begin(&begin).wait().map_err(said)
    }

    fn complete(&self, permit: Permit, outcome: Outcome) -> idem_store::Completion<()> {
        let outcome = outcome.name().as_bytes();
        self.store
            .complete(permit, outcome, self.retain_ms, now_ms())
    }

    /// Writes a cell. Somebody else may be writing it: then that is as good.
    fn write(&self, key: &str, value: &str) -> Result<(), Error> {
        self.store.forget(key.as_bytes()).wait()?;
        let begin = Begin::new(key.as_bytes(), FINGERPRINT, self.lease_ms, now_ms());
        if let Begun::Fresh(permit) = self.store.begin(&begin).wait()? {
            let written = self
                .store
                .complete(permit, value.as_bytes(), CELL_RETAIN_MS, now_ms());
            match written.wait() {
                Err(error) if error.is_fenced() => {}
                written => written?,
            }
        }
        Ok(())
    }
}

impl Once for StoreOnce {
    fn claim(&self, id: &FiringId) -> Result<Claimed, OnceError> {
        if id.fire_ms.saturating_add(self.retain_ms / 2) < now_ms() {
            // Its verdict may have been forgotten.
            return Ok(Claimed::Settled);
        }
        Ok(match self.begin(&id.to_string())? {
            Begun::Fresh(permit) => Claimed::Fresh(Claim::new(permit)),
            Begun::Replay(_) => Claimed::Settled,
            Begun::InFlight { .. } => Claimed::Elsewhere,
            Begun::InDoubt(permit) => Claimed::InDoubt {
                rerun: permit.memo() == RERUN,
                claim: Claim::new(permit),
            },
            Begun::Conflict => {
                return Err(OnceError::new(format!(
                    "the key {id} is something else's: give the scheduler a store of its own"
                )));
            }
        })
    }

    fn renew(&self, claim: &Claim) -> Result<(), OnceError> {
        let permit = claim
            .get()
            .ok_or_else(|| OnceError::new("a claim of another hook"))?;
        self.store.declare(permit, b"").wait().map_err(said)
    }

    fn settle(&self, claim: Claim, outcome: Outcome) {
        if let Some(permit) = claim.into_inner() {
            drop(self.complete(permit, outcome));
        }
    }

    fn extend(&self, claim: &Claim) {
        if let Some(permit) = claim.get() {
            drop(self.store.extend(permit, self.lease_ms, now_ms()));
        }
    }

    fn period_ms(&self) -> u64 {
        self.lease_ms
    }

    fn unsettled(&self) -> Result<Vec<Unsettled>, OnceError> {
        let mut after_token = 0;
        let mut unsettled = Vec::new();
        loop {
            let page = self
                .store
                .unresolved(after_token, PAGE)
                .wait()
                .map_err(said)?;
            let Some(last) = page.last() else {
                return Ok(unsettled);
            };
            after_token = last.token;
            let is_last = page.len() < PAGE;
            let ours = page.iter().filter(|key| key.fingerprint == FINGERPRINT);
            unsettled.extend(ours.filter_map(|key| {
                Some(Unsettled {
                    id: FiringId::parse(std::str::from_utf8(&key.key).ok()?)?,
                    since_ms: key.since_ms,
                    is_held: key.held,
                    rerun: key.memo == RERUN,
                })
            }));
            if is_last || unsettled.len() >= UNSETTLED_MAX {
                return Ok(unsettled);
            }
        }
    }

    fn remember(&self, job: &str, shard: u32, fire_ms: u64) -> Result<(), OnceError> {
        let cell = now_ms() / CELL_MS % CELLS;
        self.write(&cell_key(job, shard, cell), &fire_ms.to_string())
            .map_err(said)
    }

    /// All cells, so that the one which is written anew later is never the only one.
    fn remember_first(&self, job: &str, shard: u32, fire_ms: u64) -> Result<(), OnceError> {
        (0..CELLS)
            .try_for_each(|cell| self.write(&cell_key(job, shard, cell), &fire_ms.to_string()))
            .map_err(said)
    }

    fn recall(&self, job: &str, shard: u32) -> Result<Option<u64>, OnceError> {
        let mut latest = None;
        for cell in 0..CELLS {
            let key = cell_key(job, shard, cell);
            if let Lookup::Stored(stored) = self
                .store
                .get(key.as_bytes(), now_ms())
                .wait()
                .map_err(said)?
            {
                let value = std::str::from_utf8(stored.outcome()).ok();
                latest = latest.max(value.and_then(|value| value.parse().ok()));
            }
        }
        Ok(latest)
    }

    fn flush(&self) {
        if let Err(error) = self.store.flush().wait() {
            tracing::warn!(%error, "claims may be in doubt at the next start");
        }
    }
}

fn cell_key(job: &str, shard: u32, cell: u64) -> String {
    format!("{job}:{shard}:last:{cell}")
}

fn now_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

fn said(error: Error) -> OnceError {
    OnceError::new(error.to_string())
}
