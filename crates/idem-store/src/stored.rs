//! The outcome of a key.

use std::fmt;

use crate::permit::Fingerprint;

/// The outcome of a key, as it was stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Stored {
    pub(crate) outcome: Vec<u8>,
    pub(crate) fingerprint: [u8; 32],
    pub(crate) failed: bool,
    pub(crate) token: u64,
    pub(crate) retain_until_ms: u64,
    pub(crate) record_bytes: u32,
}

impl Stored {
    /// The bytes that the holder gave.
    #[must_use]
    pub fn outcome(&self) -> &[u8] {
        &self.outcome
    }

    /// The bytes that the holder gave, without a copy.
    #[must_use]
    pub fn into_outcome(self) -> Vec<u8> {
        self.outcome
    }

    /// Digest of the request that it answers.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(self.fingerprint)
    }

    /// Whether it is a final failure ([`Failure::Final`](crate::Failure::Final)).
    #[must_use]
    pub fn is_failure(&self) -> bool {
        self.failed
    }

    /// The token of the holder that ended the key.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Until when it is replayed, in Unix milliseconds of the clock that counts: the
    /// caller's on an embedded store, the server's on a shared one.
    #[must_use]
    pub fn retain_until_ms(&self) -> u64 {
        self.retain_until_ms
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored")
            .field("outcome_bytes", &self.outcome.len())
            .field("failed", &self.failed)
            .field("token", &self.token)
            .field("retain_until_ms", &self.retain_until_ms)
            .finish()
    }
}
