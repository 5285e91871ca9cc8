//! Who may use a worker id, and from which time on.

use std::ops::RangeInclusive;

use super::error::{Kind, TokenError};
use super::snowflake::WORKER_MAX;

/// Where worker ids are leased: a directory of this machine ([`FileWorkers`](super::FileWorkers)) or
/// a store that many machines share ([`StoreWorkers`](super::StoreWorkers)).
pub trait Workers {
    /// What holds one of them.
    type Lease: WorkerLease;

    /// Leases a worker id that nobody holds, if there is one whose floor is not after `now_ms`, else
    /// the one with the lowest floor.
    ///
    /// # Errors
    /// [`is_no_worker`](TokenError::is_no_worker) when all are held,
    /// [`is_lease_failed`](TokenError::is_lease_failed), [`is_damaged`](TokenError::is_damaged) when
    /// none is left but such whose floor is damaged, which are passed over.
    fn lease(&self, now_ms: u64) -> Result<Self::Lease, TokenError>;
}

/// The right to use a worker id in a range of time. Dropping it gives the worker id back.
///
/// The floor is the fence: a holder uses only times that it [`reserve`](Self::reserve)d, and whoever
/// comes after it starts where its reservation ends. So even a holder that is late to notice that its
/// lease passed on gives no id twice.
pub trait WorkerLease: Send {
    /// The worker id.
    fn worker(&self) -> u16;

    /// Ids of times before this (Unix milliseconds) may exist.
    fn floor_ms(&self) -> u64;

    /// Sets the floor for whoever comes next. It is durable when this returns. It may go down again
    /// to the end of what was really used, before the lease is dropped.
    ///
    /// # Errors
    /// [`is_lease_lost`](TokenError::is_lease_lost) when another holds the worker id, and
    /// [`is_lease_failed`](TokenError::is_lease_failed); nothing is reserved then.
    fn reserve(&mut self, floor_ms: u64) -> Result<(), TokenError>;
}

/// Goes through `range` for what [`Workers::lease`] promises; `try_lease` gives the lease of a worker id that nobody holds.
pub(super) fn lease_any<L: WorkerLease>(
    range: &RangeInclusive<u16>,
    now_ms: u64,
    mut try_lease: impl FnMut(u16) -> Result<Option<L>, TokenError>,
) -> Result<L, TokenError> {
    let (first, last) = (*range.start(), *range.end());
    if last > WORKER_MAX {
        return Err(TokenError::new(Kind::Worker(u64::from(last))));
    }
    let mut lowest: Option<L> = None;
    let mut damaged = None;
    for worker in first..=last {
        let lease = match try_lease(worker) {
            Ok(Some(lease)) => lease,
            Ok(None) => continue,
            // Only this one must not be used: a torn first write must not stop the others.
            Err(error) if error.is_damaged() => {
                damaged.get_or_insert(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        if lease.floor_ms() <= now_ms {
            return Ok(lease);
        }
        if lowest
            .as_ref()
            .is_none_or(|low| lease.floor_ms() < low.floor_ms())
        {
            lowest = Some(lease);
        }
    }
    let none = || damaged.unwrap_or_else(|| TokenError::new(Kind::NoWorker { first, last }));
    lowest.ok_or_else(none)
}
