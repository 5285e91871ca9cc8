//! The hook by which a firing runs once across replicas.

use std::any::Any;
use std::fmt;

use crate::history::Outcome;
use crate::schedule::FireTime;

/// A firing among all replicas: `{job}:{fire time}:{shard}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FiringId {
    /// The job's name.
    pub job: String,
    /// The nominal time, Unix milliseconds.
    pub fire_ms: u64,
    /// The job's shard.
    pub shard: u32,
}

impl FiringId {
    /// Reads what [`Display`](fmt::Display) wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // From the end, so that a name may hold anything.
        let (rest, shard) = text.rsplit_once(':')?;
        let at = rest.len().checked_sub(FireTime::CHARS)?;
        let (job, time) = (rest.get(..at)?, rest.get(at..)?);
        let id = Self {
            job: job.strip_suffix(':')?.to_owned(),
            fire_ms: FireTime::parse(time).ok()?.0,
            shard: shard.parse().ok()?,
        };
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for FiringId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            job,
            fire_ms,
            shard,
        } = self;
        write!(f, "{job}:{}:{shard}", FireTime(*fire_ms))
    }
}

/// The right to run a firing, from [`Once::claim`]. What is in it is the hook's.
pub struct Claim(Box<dyn Any + Send + Sync>);

impl Claim {
    /// Wraps what the hook needs to know about a claim.
    pub fn new(inner: impl Any + Send + Sync) -> Self {
        Self(Box::new(inner))
    }

    /// What [`new`](Self::new) was given, when it was a `T`.
    #[must_use]
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }

    /// What [`new`](Self::new) was given, when it was a `T`.
    #[must_use]
    pub fn into_inner<T: Any>(self) -> Option<T> {
        self.0.downcast().ok().map(|inner| *inner)
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claim")
    }
}

/// What [`Once::claim`] answers.
#[derive(Debug)]
pub enum Claimed {
    /// It is ours: run it, then settle it.
    Fresh(Claim),
    /// It has its outcome.
    Settled,
    /// Another process has it, for now: it ends there, or will be in doubt.
    Elsewhere,
    /// Its runner died. Ours to settle; dropped, it stays in doubt.
    InDoubt {
        /// To settle it with.
        claim: Claim,
        /// Somebody asked for it to run again, whatever the job's policy.
        rerun: bool,
    },
}

/// A firing that was claimed and has no outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsettled {
    /// Which.
    pub id: FiringId,
    /// When it was claimed, Unix milliseconds.
    pub since_ms: u64,
    /// Its claim stands: somebody runs it. Else its runner died while it ran, and it is in doubt.
    pub is_held: bool,
    /// Somebody asked for it to run again.
    pub rerun: bool,
}

/// The store did not do what it was asked. Says why, without passwords.
#[derive(Clone, Debug)]
pub struct OnceError(String);

impl OnceError {
    /// An error with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for OnceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OnceError {}

/// Decides which replica runs a firing, and remembers how far each job came.
///
/// `StoreOnce` (feature `store`) is one on any store of idem-store.
pub trait Once: Send + Sync + 'static {
    /// Claims a firing, durably, or says who has it. Blocks.
    ///
    /// # Errors
    ///
    /// When nobody knows whether it is claimed. It is asked again then.
    fn claim(&self, id: &FiringId) -> Result<Claimed, OnceError>;

    /// Makes the claim of a firing in doubt one to run it again. Blocks.
    ///
    /// # Errors
    ///
    /// When it cannot be known.
    fn renew(&self, claim: &Claim) -> Result<(), OnceError>;

    /// Ends a claim. Does not wait: if this is lost, the firing will be in doubt.
    fn settle(&self, claim: Claim, outcome: Outcome);

    /// Keeps a claim whose run takes long. Does not wait.
    fn extend(&self, claim: &Claim);

    /// How often [`extend`](Self::extend) has to be called, and [`unsettled`](Self::unsettled) is worth to be: milliseconds.
    fn period_ms(&self) -> u64;

    /// Firings that are claimed and have no outcome. Blocks.
    ///
    /// # Errors
    ///
    /// When the store does not answer.
    fn unsettled(&self) -> Result<Vec<Unsettled>, OnceError>;

    /// Those whose runners died. Blocks.
    ///
    /// # Errors
    ///
    /// When the store does not answer.
    fn in_doubt(&self) -> Result<Vec<Unsettled>, OnceError> {
        let mut unsettled = self.unsettled()?;
        unsettled.retain(|firing| !firing.is_held);
        Ok(unsettled)
    }

    /// Remembers that all firings of a job up to `fire_ms` are accounted for. Blocks.
    ///
    /// # Errors
    ///
    /// When the store does not answer.
    fn remember(&self, job: &str, shard: u32, fire_ms: u64) -> Result<(), OnceError>;

    /// As [`remember`](Self::remember), for a job of which nothing is remembered yet. Blocks.
    ///
    /// # Errors
    ///
    /// When the store does not answer.
    fn remember_first(&self, job: &str, shard: u32, fire_ms: u64) -> Result<(), OnceError> {
        self.remember(job, shard, fire_ms)
    }

    /// What [`remember`](Self::remember) was told: the latest, or one shortly before. Blocks.
    ///
    /// # Errors
    ///
    /// When the store does not answer.
    fn recall(&self, job: &str, shard: u32) -> Result<Option<u64>, OnceError>;

    /// Waits until what was settled is durable.
    fn flush(&self);
}

#[cfg(test)]
mod tests {
    use super::FiringId;

    #[test]
    fn ids_read_back_whatever_the_name_is() {
        for job in ["reconcile", "a:b", ":", "x:2026-12-01T03:00:00.000Z:7"] {
            let id = FiringId {
                job: job.to_owned(),
                fire_ms: 1_796_094_000_123,
                shard: 3,
            };
            let text = id.to_string();
            assert_eq!(FiringId::parse(&text), Some(id), "{text}");
        }
        for bad in [
            "",
            "a:b:c",
            "reconcile:last:1",
            "2026-12-01T03:00:00.000Z:0",
        ] {
            assert_eq!(FiringId::parse(bad), None, "{bad}");
        }
    }
}
