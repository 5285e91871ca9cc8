//! Claiming a key.

use std::sync::Arc;

use crate::completion::{Completion, Event};
use crate::embedded::book::{Claim, Location};
use crate::embedded::format::{FLAG_DECLARED, Kind as RecordKind, Record};
use crate::embedded::shared::{Found, Shared, State};
use crate::embedded::tail::Purpose;
use crate::error::Error;
use crate::permit::{Begin, Begun, Owner, Permit};

impl Shared {
    pub(crate) fn begin(self: &Arc<Self>, begin: &Begin<'_>) -> Completion<Begun> {
        self.try_begin(begin).unwrap_or_else(Completion::failed)
    }

    fn try_begin(self: &Arc<Self>, begin: &Begin<'_>) -> Result<Completion<Begun>, Error> {
        self.check_key(begin.key)?;
        self.check_memo(begin.memo)?;
        let mut seen = Vec::new();
        let mut state = self.lock();
        let hash = state.book.hash(begin.key);
        loop {
            state.check_usable()?;
            state.now_ms = begin.now_ms;
            if let Some(claim) = state.book.claim(hash, begin.key) {
                let met = Met::of(claim, begin);
                return self.begin_on_claim(&mut state, begin, hash, met);
            }
            match Self::find(&mut state, hash, begin.key, &mut seen) {
                Found::Nothing => return self.begin_fresh(&mut state, begin, hash),
                Found::Outcome(_, stored) if begin.now_ms < stored.retain_until_ms => {
                    let same = stored.fingerprint == begin.fingerprint.0;
                    let begun = if same {
                        Begun::Replay(stored)
                    } else {
                        Begun::Conflict
                    };
                    return Ok(Completion::ready(Ok(begun)));
                }
                Found::Outcome(place, stored) => {
                    self.admit_begin(&state, begin)?;
                    let (bytes, until_ms) = (stored.record_bytes, stored.retain_until_ms);
                    state.book.remove_place(hash, place, bytes, until_ms);
                    state.cache.remove(place);
                    return self.begin_fresh(&mut state, begin, hash);
                }
                Found::Pending(event) => {
                    self.urge(&mut state);
                    return Ok(self.begin_later(event, begin));
                }
                Found::Unread(place, file) => {
                    drop(state);
                    self.read(hash, begin.key, place, &*file, &mut seen)?;
                    state = self.lock();
                }
            }
        }
    }

    /// The outcome is in a batch that is not durable yet: decide once it is.
    fn begin_later(self: &Arc<Self>, event: Arc<Event>, begin: &Begin<'_>) -> Completion<Begun> {
        let (key, memo) = (begin.key.to_vec(), begin.memo.to_vec());
        let (fingerprint, lease_ms, now_ms) = (begin.fingerprint, begin.lease_ms, begin.now_ms);
        let effect_may_have_happened = begin.effect_may_have_happened;
        let shared = Arc::clone(self);
        Completion::then(event, move || {
            shared.begin(&Begin {
                key: &key,
                fingerprint,
                lease_ms,
                now_ms,
                effect_may_have_happened,
                memo: &memo,
            })
        })
    }

    fn begin_on_claim(
        self: &Arc<Self>,
        state: &mut State,
        begin: &Begin<'_>,
        hash: u64,
        met: Met,
    ) -> Result<Completion<Begun>, Error> {
        if met.other_fingerprint {
            return Ok(self.resting_on(state, met.place, Begun::Conflict, |_| ()));
        }
        if let Some(until_ms) = met.busy_until_ms {
            return Ok(Completion::ready(Ok(Begun::InFlight { until_ms })));
        }
        if met.declared {
            return self.begin_in_doubt(state, begin, hash, met.place);
        }
        self.admit_begin(state, begin)?;
        let lapsed = state.book.remove_claim(hash, begin.key);
        let begun = self.begin_fresh(state, begin, hash);
        state.end_waits(lapsed.map(|claim| claim.waiters).unwrap_or_default());
        begun
    }

    /// The effect was declared and its holder is gone: whoever asks first gets to reconcile.
    fn begin_in_doubt(
        self: &Arc<Self>,
        state: &mut State,
        begin: &Begin<'_>,
        hash: u64,
        doubted: Location,
    ) -> Result<Completion<Begun>, Error> {
        let token = state.tail.next_sequence();
        let claim = state.book.claim(hash, begin.key);
        let claim = claim.expect("the caller met this claim under the same lock");
        let (key, memo) = (Arc::clone(&claim.key), Arc::clone(&claim.memo));
        let record = Record {
            kind: RecordKind::Claim,
            flags: FLAG_DECLARED,
            token,
            fingerprint: claim.fingerprint,
            time_ms: claim.at_ms,
            key: &key,
            payload: &memo,
        };
        state.tail.admit(record.padded_len(), Purpose::Begin)?;
        let place = state.append(&record, Purpose::Begin);
        state.book.update(hash, &key, |claim| {
            claim.token = token;
            claim.lease_until_ms = begin.now_ms.saturating_add(begin.lease_ms);
            claim.held = true;
            claim.location = place;
        });
        let begun = Begun::InDoubt(Permit {
            owner: Owner::Embedded(Arc::clone(self)),
            hash,
            key: Arc::clone(&key),
            token,
            memo: Arc::clone(&memo),
            taken: false,
            doubtful: true,
            over: false,
        });
        // Only the doubt itself must be durable; the new holder means nothing after a crash.
        Ok(self.resting_on(state, doubted, begun, mark_taken))
    }

    fn begin_fresh(
        self: &Arc<Self>,
        state: &mut State,
        begin: &Begin<'_>,
        hash: u64,
    ) -> Result<Completion<Begun>, Error> {
        state.check_room_for_key(self.options.keys_max)?;
        self.admit_begin(state, begin)?;
        let token = state.tail.next_sequence();
        let record = begin_record(begin, token);
        let bytes = record.padded_len() as u32;
        let location = state.append(&record, Purpose::Begin);
        let key: Arc<[u8]> = begin.key.into();
        let memo: Arc<[u8]> = record.payload.into();
        let declared = begin.effect_may_have_happened;
        state.book.insert_claim(Claim {
            hash,
            key: Arc::clone(&key),
            fingerprint: begin.fingerprint.0,
            token,
            lease_until_ms: begin.now_ms.saturating_add(begin.lease_ms),
            at_ms: begin.now_ms,
            memo: Arc::clone(&memo),
            declared,
            held: true,
            location,
            bytes,
            waiters: Vec::new(),
        });
        let begun = Begun::Fresh(Permit {
            owner: Owner::Embedded(Arc::clone(self)),
            hash,
            key,
            token,
            memo,
            taken: !declared,
            doubtful: false,
            over: false,
        });
        if declared {
            return Ok(self.awaited(state, begun, mark_taken));
        }
        // A claim without an effect means nothing after a crash, so nothing waits for it; its
        // record goes out with the next batch.
        self.wake_flusher(state);
        Ok(Completion::ready(Ok(begun)))
    }

    fn admit_begin(&self, state: &State, begin: &Begin<'_>) -> Result<(), Error> {
        let len = begin_record(begin, 0).padded_len();
        state.tail.admit(len, Purpose::Begin)
    }
}

/// What a claim in the way means for a caller who begins.
struct Met {
    other_fingerprint: bool,
    busy_until_ms: Option<u64>,
    declared: bool,
    place: Location,
}

impl Met {
    fn of(claim: &Claim, begin: &Begin<'_>) -> Self {
        let busy = claim.held && begin.now_ms < claim.lease_until_ms;
        // A lapsed claim without an effect is nothing: it conflicts with nobody.
        let counts = busy || claim.declared;
        Self {
            other_fingerprint: counts && claim.fingerprint != begin.fingerprint.0,
            busy_until_ms: busy.then_some(claim.lease_until_ms),
            declared: claim.declared,
            place: claim.location,
        }
    }
}

fn begin_record<'a>(begin: &Begin<'a>, token: u64) -> Record<'a> {
    let declared = begin.effect_may_have_happened;
    Record {
        kind: RecordKind::Claim,
        flags: if declared { FLAG_DECLARED } else { 0 },
        token,
        fingerprint: begin.fingerprint.0,
        time_ms: begin.now_ms,
        key: begin.key,
        payload: if declared { begin.memo } else { &[] },
    }
}

fn mark_taken(begun: &mut Begun) {
    if let Begun::Fresh(permit) | Begun::InDoubt(permit) = begun {
        permit.taken = true;
    }
}
