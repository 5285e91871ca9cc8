//! The right to work on a key, and what `begin` takes and answers.

use std::fmt;
use std::sync::Arc;

use crate::embedded::shared::Shared;
#[cfg(feature = "_remote")]
use crate::remote::Remote;
use crate::stored::Stored;

/// Digest of what the caller asks for under a key; two requests with the same key and different
/// fingerprints are a [`Begun::Conflict`]. Usually the SHA-256 of the request's canonical form.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What [`Store::begin`](crate::Store::begin) is asked.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Begin<'a> {
    /// The key, 1 byte to `key_bytes_max`.
    pub key: &'a [u8],
    /// Digest of the request.
    pub fingerprint: Fingerprint,
    /// How long the holder may work before its key can pass to another.
    pub lease_ms: u64,
    /// The caller's clock, Unix milliseconds. A shared store ignores it.
    pub now_ms: u64,
    /// Declare the effect with the claim, in one record.
    pub effect_may_have_happened: bool,
    /// Stored with a declared claim, so that whoever finds it in doubt can ask the outside system.
    /// At most `memo_bytes_max`; ignored unless the effect is declared.
    pub memo: &'a [u8],
}

impl<'a> Begin<'a> {
    /// A claim of `key` that declares no effect yet.
    #[must_use]
    pub fn new(key: &'a [u8], fingerprint: Fingerprint, lease_ms: u64, now_ms: u64) -> Self {
        Self {
            key,
            fingerprint,
            lease_ms,
            now_ms,
            effect_may_have_happened: false,
            memo: &[],
        }
    }

    /// Declares with the claim that the effect may happen from now on; `memo` is kept with it.
    #[must_use]
    pub fn declare(mut self, memo: &'a [u8]) -> Self {
        self.effect_may_have_happened = true;
        self.memo = memo;
        self
    }
}

/// What [`Store::begin`](crate::Store::begin) answers.
#[derive(Debug)]
pub enum Begun {
    /// The key is yours: do the effect, then complete or fail it.
    Fresh(Permit),
    /// It happened already: this is its outcome.
    Replay(Stored),
    /// Somebody else is at work; its lease ends at `until_ms` (Unix milliseconds of the caller's clock,
    /// on a shared store of the server's) unless it is extended. See [`Store::wait`](crate::Store::wait).
    InFlight {
        /// End of the holder's lease.
        until_ms: u64,
    },
    /// The effect was declared and its holder vanished. The permit is for finding out: ask the
    /// outside system with [`Permit::memo`], then complete it, or fail it with
    /// [`Failure::NotHappened`]. Do not blindly repeat.
    InDoubt(Permit),
    /// The key is known with another fingerprint. Nothing was changed.
    Conflict,
}

impl Begun {
    /// The permit of `Fresh`.
    #[must_use]
    pub fn into_fresh(self) -> Option<Permit> {
        match self {
            Self::Fresh(permit) => Some(permit),
            _ => None,
        }
    }

    /// The permit of `InDoubt`.
    #[must_use]
    pub fn into_in_doubt(self) -> Option<Permit> {
        match self {
            Self::InDoubt(permit) => Some(permit),
            _ => None,
        }
    }
}

/// How a claim ends without success.
#[derive(Clone, Copy, Debug)]
pub enum Failure<'a> {
    /// The effect was never declared: the key is free at once. Refused when it was declared
    /// ([`Error::is_effect_declared`](crate::Error::is_effect_declared)).
    Retryable,
    /// The caller knows that the effect did not happen, although it was declared (it reconciled,
    /// or nothing was ever sent): the key is free once this is durable.
    NotHappened,
    /// The failure is the answer: it replays like an outcome until the retention ends.
    Final {
        /// The bytes to replay.
        outcome: &'a [u8],
        /// How long to replay them.
        retain_ms: u64,
    },
}

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Nothing: never begun, released, forgotten or past its retention.
    Absent,
    /// Somebody holds it.
    InFlight {
        /// End of the lease, Unix milliseconds.
        until_ms: u64,
        /// Whether its effect was declared.
        declared: bool,
    },
    /// Its effect was declared and nobody holds it.
    InDoubt(Unresolved),
    /// It has its outcome.
    Stored(Stored),
}

/// A key whose effect was declared and that has no outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unresolved {
    /// The key.
    pub key: Vec<u8>,
    /// The fingerprint it was claimed with.
    pub fingerprint: Fingerprint,
    /// What the holder left for whoever reconciles.
    pub memo: Vec<u8>,
    /// The token of its last holder.
    pub token: u64,
    /// When it was claimed, Unix milliseconds of the holder's clock, on a shared store of the server's.
    pub since_ms: u64,
    /// Whether a holder is at work on it (embedded: one of this process; shared: any whose lease
    /// has not ended); false means in doubt.
    pub held: bool,
}

/// Why [`Store::wait`](crate::Store::wait) returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Nobody holds the key (any more): begin again to see what became of it.
    Ended,
    /// The time passed.
    TimedOut,
}

/// The right to work on one key, until its lease passes to another.
///
/// End it with [`Store::complete`](crate::Store::complete) or
/// [`Store::fail`](crate::Store::fail). Dropping it instead gives the key back when no effect was
/// declared, and leaves it in doubt when one was: an effect that may have happened is never
/// forgotten by an error or a panic.
pub struct Permit {
    pub(crate) owner: Owner,
    /// Of the key, in an embedded store.
    pub(crate) hash: u64,
    pub(crate) key: Arc<[u8]>,
    pub(crate) token: u64,
    pub(crate) memo: Arc<[u8]>,
    /// It was handed out; until then nobody can have acted on it.
    pub(crate) taken: bool,
    /// It came from InDoubt: dropping it leaves the doubt.
    pub(crate) doubtful: bool,
    pub(crate) over: bool,
}

/// The store that gave a permit.
pub(crate) enum Owner {
    Embedded(Arc<Shared>),
    #[cfg(feature = "_remote")]
    Remote(Arc<Remote>),
}

impl Owner {
    pub(crate) fn is_embedded(&self, store: &Shared) -> bool {
        match self {
            Self::Embedded(shared) => std::ptr::eq(store, &**shared),
            #[cfg(feature = "_remote")]
            Self::Remote(_) => false,
        }
    }

    #[cfg(feature = "_remote")]
    pub(crate) fn is_remote(&self, store: &Remote) -> bool {
        match self {
            Self::Embedded(_) => false,
            Self::Remote(remote) => std::ptr::eq(store, &**remote),
        }
    }
}

impl Permit {
    /// The fencing token: grows with every permit of the store (on a Redis Cluster: of the key),
    /// also across expiry, forget and restart. A resource that remembers the highest token it saw
    /// can refuse older holders.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.token
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// In doubt: what the vanished holder left. Fresh: what was given to `begin`.
    #[must_use]
    pub fn memo(&self) -> &[u8] {
        &self.memo
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.over {
            match &self.owner {
                Owner::Embedded(shared) => shared.abandon(self),
                #[cfg(feature = "_remote")]
                Owner::Remote(remote) => remote.abandon(self),
            }
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("key", &String::from_utf8_lossy(&self.key))
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}
