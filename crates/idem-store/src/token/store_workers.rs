//! Worker ids that many machines share, in any store: embedded, Redis or SQL.
//!
//! A worker id is a key that is held with its effect declared; the memo is the floor. Whoever takes
//! it over finds it in doubt, with the floor of the last holder. Reserving is a declaration with a
//! new memo: it is durable, and fenced when the lease has passed to another.

use std::ops::RangeInclusive;
use std::time::{SystemTime, UNIX_EPOCH};

use super::error::{Kind, TokenError};
use super::snowflake::WORKER_MAX;
use super::workers::{WorkerLease, Workers, lease_any};
use crate::{Begin, Begun, Error, Fingerprint, Permit, Store};

/// Leases worker ids in a [`Store`]: with a shared one (Redis, SQL), those of many machines.
///
/// The keys are `PREFIX:worker:NNNN`. They stay in doubt while nobody holds them, because they keep
/// the floors: let them be, or give them a store of their own.
#[derive(Clone, Debug)]
pub struct StoreWorkers {
    store: Store,
    prefix: String,
    range: RangeInclusive<u16>,
    lease_ms: u64,
}

impl StoreWorkers {
    /// All worker ids, under keys that start with `prefix`, with leases of a minute.
    #[must_use]
    pub fn new(store: Store, prefix: impl Into<String>) -> Self {
        Self {
            store,
            prefix: prefix.into(),
            range: 0..=WORKER_MAX,
            lease_ms: 60_000,
        }
    }

    /// Only these worker ids.
    #[must_use]
    pub fn range(mut self, range: RangeInclusive<u16>) -> Self {
        self.range = range;
        self
    }

    /// How long a worker id stays with a holder that makes no token. Default a minute; should be a
    /// multiple of the generator's `reserve_ms`. A holder that loses it gets
    /// [`is_lease_lost`](TokenError::is_lease_lost).
    #[must_use]
    pub fn lease_ms(mut self, lease_ms: u64) -> Self {
        self.lease_ms = lease_ms;
        self
    }

    fn try_lease(&self, worker: u16) -> Result<Option<StoreLease>, TokenError> {
        let key = format!("{}:worker:{worker:04}", self.prefix);
        let fingerprint = Fingerprint([0; 32]);
        let floor = 0_u64.to_be_bytes();
        let begin = Begin::new(key.as_bytes(), fingerprint, self.lease_ms, unix_ms());
        let begun = self.store.begin(&begin.declare(&floor)).wait();
        let permit = match begun.map_err(failed)? {
            Begun::Fresh(permit) | Begun::InDoubt(permit) => permit,
            Begun::InFlight { .. } => return Ok(None),
            Begun::Replay(_) | Begun::Conflict => return Err(foreign(key)),
        };
        let Some(floor_ms) = permit.memo().try_into().ok().map(u64::from_be_bytes) else {
            return Err(foreign(key));
        };
        Ok(Some(StoreLease {
            store: self.store.clone(),
            permit,
            worker,
            floor_ms,
            lease_ms: self.lease_ms,
        }))
    }
}

impl Workers for StoreWorkers {
    type Lease = StoreLease;

    fn lease(&self, now_ms: u64) -> Result<StoreLease, TokenError> {
        lease_any(&self.range, now_ms, |worker| self.try_lease(worker))
    }
}

/// A worker id, leased as a key of a store.
#[derive(Debug)]
pub struct StoreLease {
    store: Store,
    permit: Permit,
    worker: u16,
    floor_ms: u64,
    lease_ms: u64,
}

impl WorkerLease for StoreLease {
    fn worker(&self) -> u16 {
        self.worker
    }

    fn floor_ms(&self) -> u64 {
        self.floor_ms
    }

    fn reserve(&mut self, floor_ms: u64) -> Result<(), TokenError> {
        let lost = |error: Error| {
            if error.is_fenced() {
                TokenError::new(Kind::LeaseLost {
                    worker: self.worker,
                })
            } else {
                failed(error)
            }
        };
        let extended = self.store.extend(&self.permit, self.lease_ms, unix_ms());
        extended.wait().map_err(lost)?;
        let declared = self.store.declare(&self.permit, &floor_ms.to_be_bytes());
        declared.wait().map_err(lost)?;
        self.floor_ms = floor_ms;
        Ok(())
    }
}

/// The caller's clock, for embedded stores; shared ones have their own.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

fn failed(error: Error) -> TokenError {
    TokenError::caused("lease a worker id in the store", error)
}

fn foreign(key: String) -> TokenError {
    TokenError::new(Kind::Damaged(format!("the key {key}")))
}
