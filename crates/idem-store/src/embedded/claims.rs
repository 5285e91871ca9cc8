//! The life of a key after it was claimed: declare, extend, complete, fail, forget, get, wait.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::completion::{Completion, Event};
use crate::embedded::book::{Claim, Waiter};
use crate::embedded::format::{FLAG_DECLARED, FLAG_FAILED, Kind as RecordKind, Record};
use crate::embedded::shared::{Found, KeyWait, Settling, Shared, State};
use crate::embedded::tail::Purpose;
use crate::error::{Error, Kind};
use crate::permit::{Failure, Fingerprint, Lookup, Permit, Unresolved, Waited};

impl Shared {
    pub(crate) fn declare(&self, permit: &Permit, memo: &[u8]) -> Result<Completion<()>, Error> {
        self.check_memo(memo)?;
        let mut state = self.lock();
        let claim = self.holder(&state, permit)?;
        let record = Record {
            kind: RecordKind::Claim,
            flags: FLAG_DECLARED,
            token: permit.token,
            fingerprint: claim.fingerprint,
            time_ms: claim.at_ms,
            key: &permit.key,
            payload: memo,
        };
        let bytes = record.padded_len();
        state.tail.admit(bytes, Purpose::Change)?;
        let place = state.append(&record, Purpose::Change);
        state.book.update(permit.hash, &permit.key, |claim| {
            claim.declared = true;
            claim.memo = memo.into();
            claim.location = place;
            claim.bytes = bytes as u32;
        });
        Ok(self.awaited(&mut state, (), |()| ()))
    }

    pub(crate) fn extend(
        &self,
        permit: &Permit,
        lease_ms: u64,
        now_ms: u64,
    ) -> Result<Completion<()>, Error> {
        let mut state = self.lock();
        self.holder(&state, permit)?;
        state.now_ms = now_ms;
        state.book.update(permit.hash, &permit.key, |claim| {
            claim.lease_until_ms = now_ms.saturating_add(lease_ms);
        });
        // Leases live in memory: opening the store ends them all.
        Ok(Completion::ready(Ok(())))
    }

    pub(crate) fn complete(
        &self,
        mut permit: Permit,
        outcome: &[u8],
        failed: bool,
        retain_ms: u64,
        now_ms: u64,
    ) -> Result<Completion<()>, Error> {
        let max = self.options.outcome_bytes_max;
        check_length("outcome", outcome.len(), 0, max)?;
        let mut state = self.lock();
        let claim = self.holder(&state, &permit)?;
        let retain_until_ms = now_ms.saturating_add(retain_ms);
        let record = Record {
            kind: RecordKind::Outcome,
            flags: if failed { FLAG_FAILED } else { 0 },
            token: permit.token,
            fingerprint: claim.fingerprint,
            time_ms: retain_until_ms,
            key: &permit.key,
            payload: outcome,
        };
        let bytes = record.padded_len();
        let place = state.append(&record, Purpose::End);
        state.now_ms = now_ms;
        permit.over = true;
        state.end_claim(permit.hash, &permit.key);
        state
            .book
            .insert_place(permit.hash, place, bytes as u32, retain_until_ms);
        Ok(self.awaited(&mut state, (), |()| ()))
    }

    pub(crate) fn fail(
        &self,
        mut permit: Permit,
        failure: Failure<'_>,
        now_ms: u64,
    ) -> Result<Completion<()>, Error> {
        let may_have_happened = match failure {
            Failure::Final { outcome, retain_ms } => {
                return self.complete(permit, outcome, true, retain_ms, now_ms);
            }
            Failure::Retryable => true,
            Failure::NotHappened => false,
        };
        let mut state = self.lock();
        let declared = self.holder(&state, &permit)?.declared;
        if declared && may_have_happened {
            // Dropping the permit takes the lock again and leaves the key in doubt.
            drop(state);
            return Err(Error::new(Kind::EffectDeclared));
        }
        if declared {
            let record = Record::bare(RecordKind::Release, permit.token, &permit.key);
            state.append(&record, Purpose::End);
        }
        state.now_ms = now_ms;
        permit.over = true;
        state.end_claim(permit.hash, &permit.key);
        if declared {
            Ok(self.awaited(&mut state, (), |()| ()))
        } else {
            // Claims without an effect are released by a crash anyway: nothing to write.
            Ok(Completion::ready(Ok(())))
        }
    }

    /// A permit was dropped without being ended.
    pub(crate) fn abandon(&self, permit: &Permit) {
        let mut state = self.lock();
        let Ok(claim) = self.holder(&state, permit) else {
            return;
        };
        let declared = claim.declared;
        // A permit that nobody ever had in hand cannot have caused anything.
        let release = !declared || (!permit.taken && !permit.doubtful);
        if release {
            if declared {
                // Nobody waits for it: should a crash lose it, the key is in doubt, which is safe.
                let record = Record::bare(RecordKind::Release, permit.token, &permit.key);
                state.append(&record, Purpose::End);
            }
            state.end_claim(permit.hash, &permit.key);
        } else {
            let waiters = state.book.update(permit.hash, &permit.key, |claim| {
                claim.held = false;
                std::mem::take(&mut claim.waiters)
            });
            state.end_waits(waiters.unwrap_or_default());
        }
        self.wake_flusher(&mut state);
    }

    pub(crate) fn forget(self: &Arc<Self>, key: &[u8]) -> Result<Completion<bool>, Error> {
        self.check_key(key)?;
        let record = Record::bare(RecordKind::Forget, 0, key);
        let mut seen = Vec::new();
        let mut state = self.lock();
        let hash = state.book.hash(key);
        loop {
            state.check_usable()?;
            state.tail.admit(record.padded_len(), Purpose::Change)?;
            if state.book.claim(hash, key).is_some() {
                break;
            }
            match Self::find(&mut state, hash, key, &mut seen) {
                Found::Nothing => return Ok(self.resting_on_removals(&mut state, false)),
                Found::Outcome(place, stored) => {
                    let (bytes, until_ms) = (stored.record_bytes, stored.retain_until_ms);
                    state.book.remove_place(hash, place, bytes, until_ms);
                    state.cache.remove(place);
                    break;
                }
                Found::Pending(event) => {
                    self.urge(&mut state);
                    let (shared, key) = (Arc::clone(self), key.to_vec());
                    let again = move || shared.forget(&key).unwrap_or_else(Completion::failed);
                    return Ok(Completion::then(event, again));
                }
                Found::Unread(place, file) => {
                    drop(state);
                    self.read(hash, key, place, &*file, &mut seen)?;
                    state = self.lock();
                }
            }
        }
        state.append(&record, Purpose::Change);
        state.end_claim(hash, key);
        Ok(self.awaited(&mut state, true, |_| ()))
    }

    pub(crate) fn get(
        self: &Arc<Self>,
        key: &[u8],
        now_ms: u64,
    ) -> Result<Completion<Lookup>, Error> {
        self.check_key(key)?;
        let mut seen = Vec::new();
        let mut state = self.lock();
        let hash = state.book.hash(key);
        loop {
            state.check_usable()?;
            if let Some(claim) = state.book.claim(hash, key) {
                let place = claim.location;
                let lookup = lookup_of(claim);
                return Ok(self.resting_on(&mut state, place, lookup, |_| ()));
            }
            let lookup = match Self::find(&mut state, hash, key, &mut seen) {
                Found::Outcome(_, stored) if now_ms < stored.retain_until_ms => {
                    Lookup::Stored(stored)
                }
                Found::Nothing => return Ok(self.resting_on_removals(&mut state, Lookup::Absent)),
                Found::Outcome(..) => Lookup::Absent,
                Found::Pending(event) => {
                    self.urge(&mut state);
                    let (shared, key) = (Arc::clone(self), key.to_vec());
                    let again = move || shared.get(&key, now_ms).unwrap_or_else(Completion::failed);
                    return Ok(Completion::then(event, again));
                }
                Found::Unread(place, file) => {
                    drop(state);
                    self.read(hash, key, place, &*file, &mut seen)?;
                    state = self.lock();
                    continue;
                }
            };
            return Ok(Completion::ready(Ok(lookup)));
        }
    }

    pub(crate) fn wait(
        self: &Arc<Self>,
        key: &[u8],
        timeout_ms: u64,
    ) -> Result<Completion<Waited>, Error> {
        self.check_key(key)?;
        let mut state = self.lock();
        state.check_usable()?;
        let hash = state.book.hash(key);
        let Some(claim) = state.book.claim(hash, key).filter(|claim| claim.held) else {
            return Ok(Completion::ready(Ok(Waited::Ended)));
        };
        let key = Arc::clone(&claim.key);
        if state.waits.len() >= self.options.waiters_max as usize {
            return Err(Error::new(Kind::Busy("too many wait for keys")));
        }
        // Beyond a century a timeout makes no difference.
        let timeout = Duration::from_millis(timeout_ms.min(1 << 42));
        state.wait_number += 1;
        let until = (Instant::now() + timeout, state.wait_number);
        let event = Event::new();
        let waiter = Waiter {
            until,
            event: Arc::clone(&event),
        };
        state
            .book
            .update(hash, &key, |claim| claim.waiters.push(waiter));
        let wait = KeyWait {
            hash,
            key,
            event: Arc::clone(&event),
        };
        state.waits.insert(until, wait);
        if state
            .waits
            .first_key_value()
            .is_some_and(|(first, _)| *first == until)
        {
            // The flush thread keeps the time; it sleeps until the earliest deadline it knows.
            self.work.notify_one();
        }
        let pending = PendingWait {
            shared: Arc::downgrade(self),
            until,
            event: Arc::clone(&event),
        };
        Ok(Completion::then(event, move || {
            let timed_out = pending.event.is_timed_out();
            let waited = if timed_out {
                Waited::TimedOut
            } else {
                Waited::Ended
            };
            Completion::ready(Ok(waited))
        }))
    }

    /// Ends the `wait` calls whose time has passed.
    pub(crate) fn expire_waits(&self, now: Instant) {
        let mut state = self.lock();
        while let Some(first) = state.waits.first_entry() {
            if first.key().0 > now {
                return;
            }
            let until = *first.key();
            let event = state.end_wait(until);
            state.settling.extend(event.map(Settling::TimedOut));
        }
    }

    pub(crate) fn unresolved(
        &self,
        after_token: u64,
        count_max: usize,
    ) -> Result<Vec<Unresolved>, Error> {
        let state = self.lock();
        state.check_usable()?;
        let is_asked_for = |claim: &&Claim| claim.declared && claim.token > after_token;
        let declared = state.book.claims().filter(is_asked_for);
        let mut all: Vec<_> = declared.map(unresolved_of).collect();
        drop(state);
        all.sort_by_key(|unresolved| unresolved.token);
        all.truncate(count_max);
        Ok(all)
    }

    /// An answer about an unknown key: what made it unknown may not be durable yet.
    fn resting_on_removals<T>(&self, state: &mut State, value: T) -> Completion<T> {
        match state.last_removal {
            Some(place) => self.resting_on(state, place, value, |_| ()),
            None => Completion::ready(Ok(value)),
        }
    }

    /// The claim that a permit holds, unless it passed to another, is gone or is of another store.
    fn holder<'a>(&self, state: &'a State, permit: &Permit) -> Result<&'a Claim, Error> {
        state.check_usable()?;
        let claim = state.book.claim(permit.hash, &permit.key);
        let ours = permit.owner.is_embedded(self);
        claim
            .filter(|claim| ours && claim.held && claim.token == permit.token)
            .ok_or_else(|| Error::new(Kind::Fenced))
    }

    pub(crate) fn check_key(&self, key: &[u8]) -> Result<(), Error> {
        check_length("key", key.len(), 1, self.options.key_bytes_max)
    }

    pub(crate) fn check_memo(&self, memo: &[u8]) -> Result<(), Error> {
        check_length("memo", memo.len(), 0, self.options.memo_bytes_max)
    }
}

/// A `wait` whose answer nobody took yet. Dropped before it ended, it makes room for another.
struct PendingWait {
    shared: Weak<Shared>,
    until: (Instant, u64),
    event: Arc<Event>,
}

impl Drop for PendingWait {
    fn drop(&mut self) {
        if self.event.is_settled() {
            return;
        }
        if let Some(shared) = self.shared.upgrade() {
            shared.lock().end_wait(self.until);
        }
    }
}

impl State {
    /// Takes a `wait` off the list and off its claim; the event that it awaits.
    fn end_wait(&mut self, until: (Instant, u64)) -> Option<Arc<Event>> {
        let wait = self.waits.remove(&until)?;
        self.book.update(wait.hash, &wait.key, |claim| {
            claim.waiters.retain(|waiter| waiter.until != until);
        });
        Some(wait.event)
    }
}

fn check_length(what: &'static str, len: usize, min: usize, max: u32) -> Result<(), Error> {
    if len < min || len > max as usize {
        let (len, max) = (len as u64, u64::from(max));
        return Err(Error::new(Kind::TooLarge(what, len, max)));
    }
    Ok(())
}

fn lookup_of(claim: &Claim) -> Lookup {
    if claim.held {
        Lookup::InFlight {
            until_ms: claim.lease_until_ms,
            declared: claim.declared,
        }
    } else {
        Lookup::InDoubt(unresolved_of(claim))
    }
}

pub(crate) fn unresolved_of(claim: &Claim) -> Unresolved {
    Unresolved {
        key: claim.key.to_vec(),
        fingerprint: Fingerprint(claim.fingerprint),
        memo: claim.memo.to_vec(),
        token: claim.token,
        since_ms: claim.at_ms,
        held: claim.held,
    }
}
