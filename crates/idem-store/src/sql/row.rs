//! A key's row, and what it means.

use super::pool::Fault;
use crate::permit::{Fingerprint, Lookup, Unresolved};
use crate::remote::{Answer, ClaimId, Found, perhaps_forgotten};
use crate::stored::Stored;

/// Values of the column `state`. Fixed for ever; docs/SQL.md has the table.
pub(super) const HELD: i16 = 0;
/// Held, its effect declared; in doubt once its lease has ended.
pub(super) const DECLARED: i16 = 1;
/// As DECLARED, by a holder that found it in doubt.
pub(super) const DOUBTED: i16 = 2;
pub(super) const COMPLETED: i16 = 3;
pub(super) const FAILED: i16 = 4;
/// Released or forgotten.
pub(super) const FREE: i16 = 5;

/// A row, with the server's time of the statement that read it.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) state: i16,
    pub(super) token: u64,
    pub(super) claim: Vec<u8>,
    pub(super) fingerprint: [u8; 32],
    pub(super) lease_until_ms: u64,
    pub(super) since_ms: u64,
    pub(super) expires_ms: u64,
    pub(super) memo: Vec<u8>,
    pub(super) outcome: Vec<u8>,
    pub(super) now_ms: u64,
}

/// What a forget is to do.
pub(super) enum Forget {
    Answer(Answer),
    /// Free the row if it has this token.
    With(u64),
}

/// What a row is to somebody who begins.
#[derive(Debug)]
pub(super) enum Judged {
    Answer(Answer),
    /// As if it were not there.
    Take,
    /// Its holder vanished after it declared the effect.
    TakeDoubt,
}

impl Forget {
    /// `row`: what is there now. `found`: what was there when it was sent before.
    pub(super) fn find(row: Option<Row>, found: &Found) -> Result<Self, Fault> {
        let token = row.filter(|row| row.state != FREE).map(|row| row.token);
        match (token, found.token()) {
            (None, _) => Ok(Self::Answer(Answer::Known(false))),
            (Some(token), Some(found)) if token != found => Err(Fault::Final(perhaps_forgotten())),
            (Some(token), _) => Ok(Self::With(token)),
        }
    }
}

impl Row {
    pub(super) fn judge(self, claim: ClaimId, fingerprint: &Fingerprint) -> Judged {
        let same = self.fingerprint == fingerprint.0;
        let lapsed = self.lease_until_ms <= self.now_ms;
        let answer = match self.state {
            // This begin was sent before, and its answer was lost.
            HELD | DECLARED if self.claim == claim.0 => Answer::Fresh { token: self.token },
            DOUBTED if self.claim == claim.0 => Answer::InDoubt {
                token: self.token,
                memo: self.memo,
            },
            HELD if lapsed => return Judged::Take,
            DECLARED | DOUBTED if lapsed && same => return Judged::TakeDoubt,
            COMPLETED | FAILED if self.expires_ms <= self.now_ms => return Judged::Take,
            HELD | DECLARED | DOUBTED if same => Answer::InFlight {
                until_ms: self.lease_until_ms,
            },
            COMPLETED | FAILED if same => Answer::Replay(self.stored()),
            FREE => return Judged::Take,
            _ => Answer::Conflict,
        };
        Judged::Answer(answer)
    }

    pub(super) fn lookup(self, key: &[u8]) -> Lookup {
        let lapsed = self.lease_until_ms <= self.now_ms;
        match self.state {
            HELD | DECLARED | DOUBTED if !lapsed => Lookup::InFlight {
                until_ms: self.lease_until_ms,
                declared: self.state != HELD,
            },
            DECLARED | DOUBTED => Lookup::InDoubt(self.unresolved(key.to_vec())),
            COMPLETED | FAILED if self.expires_ms > self.now_ms => Lookup::Stored(self.stored()),
            _ => Lookup::Absent,
        }
    }

    pub(super) fn unresolved(self, key: Vec<u8>) -> Unresolved {
        Unresolved {
            key,
            fingerprint: Fingerprint(self.fingerprint),
            memo: self.memo,
            token: self.token,
            since_ms: self.since_ms,
            held: self.lease_until_ms > self.now_ms,
        }
    }

    fn stored(self) -> Stored {
        Stored {
            outcome: self.outcome,
            fingerprint: self.fingerprint,
            failed: self.state == FAILED,
            token: self.token,
            retain_until_ms: self.expires_ms,
            record_bytes: 0,
        }
    }
}
