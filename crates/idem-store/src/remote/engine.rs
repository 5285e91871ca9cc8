//! Operations and answers as data, and who serves them.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Kind};
use crate::permit::{Fingerprint, Lookup, Unresolved};
use crate::remote::job::Jobs;
use crate::stored::Stored;

/// Who began: made at random for each `begin`, so that a begin which is sent again after a lost
/// connection recognises the claim that it made the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClaimId(pub(crate) [u8; 16]);

/// What is asked of a backend. Every operation may be sent twice when its answer was lost, and must
/// then answer as if it had been sent once.
#[derive(Debug)]
pub(crate) enum Op {
    Begin {
        key: Arc<[u8]>,
        fingerprint: Fingerprint,
        lease_ms: u64,
        claim: ClaimId,
        declared: bool,
        memo: Arc<[u8]>,
    },
    Declare {
        key: Arc<[u8]>,
        token: u64,
        /// Grows with every declare of a holder, from 1: one that is not above the last that was done changes
        /// nothing. Otherwise a copy that was given up, and arrives late, would put its memo back.
        number: u64,
        memo: Box<[u8]>,
    },
    Extend {
        key: Arc<[u8]>,
        token: u64,
        lease_ms: u64,
    },
    Complete {
        key: Arc<[u8]>,
        token: u64,
        failed: bool,
        retain_ms: u64,
        outcome: Box<[u8]>,
    },
    Release {
        key: Arc<[u8]>,
        token: u64,
        release: Release,
    },
    Get {
        key: Arc<[u8]>,
    },
    Forget {
        key: Arc<[u8]>,
        found: Found,
    },
    Unresolved {
        after_token: u64,
        count_max: usize,
    },
    /// Answered when everything before it was.
    Flush,
    /// The last one.
    Stop,
}

impl Op {
    /// Of the part that can be long.
    pub(crate) fn payload_bytes(&self) -> usize {
        match self {
            Self::Begin { memo, .. } => memo.len(),
            Self::Declare { memo, .. } => memo.len(),
            Self::Complete { outcome, .. } => outcome.len(),
            _ => 0,
        }
    }

    pub(super) fn ends_a_claim(&self) -> bool {
        matches!(self, Self::Complete { .. } | Self::Release { .. })
    }
}

/// The token that a forget found with its key, once it has: it forgets what has this token, and
/// nothing that came since. Otherwise a copy that was given up, and arrives when another one was answered,
/// would forget a newer outcome.
#[derive(Debug, Default)]
pub(crate) struct Found(AtomicU64);

impl Found {
    pub(crate) fn token(&self) -> Option<u64> {
        match self.0.load(Ordering::Relaxed) {
            // No key is held with it.
            0 => None,
            token => Some(token),
        }
    }

    pub(crate) fn set(&self, token: Option<u64>) {
        self.0.store(token.unwrap_or(0), Ordering::Relaxed);
    }
}

/// Another has the key since a copy of a forget was sent whose answer was lost.
pub(crate) fn perhaps_forgotten() -> Error {
    let text = "somebody began it anew while the answer was lost";
    Error::unavailable("it is not known whether the key was forgotten", text)
}

/// How a claim ends without an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Release {
    /// The key is free.
    Always,
    /// The key is free, unless the effect was declared: then it is in doubt from now on
    /// ([`Answer::LeftInDoubt`]).
    UnlessDeclared,
}

/// What a backend answers.
#[derive(Debug)]
pub(crate) enum Answer {
    Fresh {
        token: u64,
    },
    Replay(Stored),
    InFlight {
        until_ms: u64,
    },
    InDoubt {
        token: u64,
        memo: Vec<u8>,
    },
    Conflict,
    Done,
    /// The token is not the holder's.
    Fenced,
    LeftInDoubt,
    Known(bool),
    Found(Lookup),
    List(Vec<Unresolved>),
}

impl Answer {
    /// The answer of an operation that only a holder may do.
    pub(crate) fn done(self) -> Result<(), Error> {
        match self {
            Self::Done => Ok(()),
            Self::Fenced => Err(Error::new(Kind::Fenced)),
            other => Err(other.unexpected()),
        }
    }

    pub(crate) fn unexpected(self) -> Error {
        let text = format!("{self:?} is no answer to this operation");
        Error::unavailable("the server answered something unexpected", text)
    }
}

/// A backend: serves operations until the queue ends.
pub(crate) trait Engine: Send + 'static {
    /// Ends when [`Jobs::more`] says so, after everything was answered.
    fn serve(self, jobs: Jobs) -> impl Future<Output = ()> + Send;
}
