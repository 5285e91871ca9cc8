//! The operations at random, each compared with the model at once.

use idem_store::{Begin, Begun, Completion, Failure, Fingerprint, Lookup, Permit, Waited};

use super::model::{Claim, Image};
use super::{KEYS, LEASE, Pending, World, died, name};

/// What a begin asked for.
struct Asked {
    key: u64,
    print: u8,
    declares: bool,
    memo: Vec<u8>,
}

impl World {
    pub(super) fn begin(&mut self) {
        let key = self.rng.below(KEYS);
        let print = u8::from(self.rng.one_in(6));
        let memo = vec![key as u8; self.rng.below(20) as usize];
        let declares = self.rng.one_in(2);
        let bytes = name(key);
        let mut begin = Begin::new(&bytes, Fingerprint([print; 32]), LEASE, self.now);
        if declares {
            begin = begin.declare(&memo);
        }
        let store = self.store();
        let known = &self.keys[&key];
        let claim = known.claim.clone();
        let image = known.history.last().expect("never empty").at(self.now);
        let nothing = known.history.last() == Some(&Image::Absent);
        let answer = match &claim {
            None if declares && nothing => match store.begin(&begin).try_now() {
                Err(pending) => {
                    self.claim_fresh(key, print, true, &memo, 0);
                    let at = self.note(key, Image::Doubt { memo, print });
                    self.pending.push((key, at, Pending::Fresh(pending)));
                    return;
                }
                Ok(answer) => answer,
            },
            _ => match store.begin(&begin).try_now() {
                Ok(answer) => answer,
                Err(pending) => {
                    let answer = self.now_or_driven(pending);
                    if answer.as_ref().is_err_and(idem_store::Error::is_full) {
                        self.begun_in_vain(key, print, declares.then_some(memo));
                        return;
                    }
                    answer
                }
            },
        };
        match answer {
            Ok(begun) => {
                let asked = Asked {
                    key,
                    print,
                    declares,
                    memo,
                };
                self.check_begun(&asked, begun, claim, image);
            }
            Err(error) if error.is_full() => self.seen.disk_full += 1,
            Err(error) => {
                self.check_failed(&error);
                if declares && died(&error) && image == Image::Absent {
                    // Nobody has the permit, but the claim may have reached the disk.
                    self.note(key, Image::Doubt { memo, print });
                }
            }
        }
    }

    fn check_begun(&mut self, asked: &Asked, begun: Begun, claim: Option<Claim>, image: Image) {
        let &Asked {
            key,
            print,
            declares,
            ref memo,
        } = asked;
        match (begun, claim, image) {
            (Begun::Conflict, Some(claim), _) => {
                assert_ne!(claim.print, print);
                assert!(claim.declared || (claim.held && self.now < claim.until_ms));
                self.seen.conflicts += 1;
            }
            (Begun::InFlight { until_ms }, Some(claim), _) => {
                assert!(claim.held && self.now < claim.until_ms);
                assert_eq!((claim.until_ms, claim.print), (until_ms, print));
            }
            (Begun::InDoubt(permit), Some(claim), _) => {
                assert!(claim.declared && (!claim.held || self.now >= claim.until_ms));
                assert_eq!((permit.memo(), claim.print), (&claim.memo[..], print));
                self.note_token(&permit);
                self.claim_fresh(key, print, true, &claim.memo, permit.token());
                self.permits.push((key, permit));
                self.seen.doubts += 1;
            }
            (Begun::Fresh(permit), claim, image) => {
                let lapsed =
                    claim.is_none_or(|claim| !claim.declared && self.now >= claim.until_ms);
                assert!(lapsed && image == Image::Absent, "fresh over {image:?}");
                self.note_token(&permit);
                self.claim_fresh(key, print, declares, memo, permit.token());
                let image = if declares {
                    let memo = memo.to_vec();
                    Image::Doubt { memo, print }
                } else {
                    Image::Absent
                };
                let at = self.note(key, image);
                if declares {
                    self.acked(key, at);
                }
                self.permits.push((key, permit));
            }
            (
                begun,
                None,
                Image::Stored {
                    outcome,
                    print: stored,
                    until_ms,
                    failed,
                },
            ) => {
                match begun {
                    Begun::Conflict => assert_ne!(stored, print),
                    Begun::Replay(replay) => {
                        assert_eq!(stored, print);
                        assert_eq!(replay.outcome(), outcome);
                        assert_eq!(replay.is_failure(), failed);
                        assert_eq!(replay.retain_until_ms(), until_ms);
                        // What was shown must survive.
                        let at = self.keys[&key].history.len() - 1;
                        self.acked(key, at);
                        self.seen.replays += 1;
                    }
                    other => panic!("an outcome is known, answered {other:?}"),
                }
            }
            (begun, claim, image) => panic!("{begun:?} with {claim:?} and {image:?}"),
        }
    }

    /// It was taken, and given back because it could not be written.
    fn begun_in_vain(&mut self, key: u64, print: u8, declared: Option<Vec<u8>>) {
        self.seen.told += 1;
        let now = self.now;
        let known = self.keys.get_mut(&key).expect("all keys are there");
        match &mut known.claim {
            Some(claim) if claim.declared => {
                // Who was to reconcile let go at once; a conflict changed nothing.
                claim.held &= claim.print != print;
                return;
            }
            Some(claim) if claim.held && now < claim.until_ms => return,
            claim => *claim = None,
        }
        let last = known.history.last().expect("never empty");
        if let (Some(memo), Image::Absent) = (declared, last.at(now)) {
            self.note(key, Image::Doubt { memo, print });
            self.note(key, Image::Absent);
        }
    }

    /// An operation may fail because the machine died or too much waits, for nothing else.
    fn check_failed(&mut self, error: &idem_store::Error) {
        assert!(died(error) || error.is_busy(), "{error}");
        self.dead |= died(error);
    }

    fn claim_fresh(&mut self, key: u64, print: u8, declared: bool, memo: &[u8], token: u64) {
        let until_ms = self.now + LEASE;
        let key = self.keys.get_mut(&key).expect("all keys are there");
        key.claim = Some(Claim {
            token,
            print,
            until_ms,
            declared,
            held: true,
            memo: memo.to_vec(),
        });
    }

    /// A permit at random, and whether it still holds its key in the model.
    fn pick(&mut self) -> Option<(u64, Permit, bool)> {
        if self.permits.is_empty() {
            return None;
        }
        let i = self.rng.below(self.permits.len() as u64) as usize;
        let (key, permit) = self.permits.swap_remove(i);
        let claim = self.keys[&key].claim.as_ref();
        let holds = claim.is_some_and(|claim| claim.held && claim.token == permit.token());
        Some((key, permit, holds))
    }

    pub(super) fn complete(&mut self) {
        let len = self.rng.below(8_000);
        self.complete_with(len as usize);
    }

    pub(super) fn complete_with(&mut self, len: usize) {
        let Some((key, permit, holds)) = self.pick() else {
            return;
        };
        let outcome = vec![self.rng.next() as u8; len];
        let long = self.keeps && self.rng.one_in(3);
        let retain = self.rng.below(if long { 3_600_000 } else { 5_000 });
        let failed = self.rng.one_in(5);
        let (now, store) = (self.now, self.store());
        let completion = if failed {
            let outcome = &outcome;
            let retain_ms = retain;
            store.fail(permit, Failure::Final { outcome, retain_ms }, now)
        } else {
            store.complete(permit, &outcome, retain, now)
        };
        let print = self.print(key);
        let image = Image::Stored {
            outcome,
            print,
            until_ms: now + retain,
            failed,
        };
        self.ended(key, holds, completion, image);
    }

    pub(super) fn fail(&mut self) {
        let Some((key, permit, holds)) = self.pick() else {
            return;
        };
        let declared = self.keys[&key].claim.as_ref().is_some_and(|c| c.declared);
        let (now, store) = (self.now, self.store());
        if holds && declared && self.rng.one_in(2) {
            let refused = store.fail(permit, Failure::Retryable, now).try_now();
            let error = refused.expect("at once").expect_err("declared");
            assert!(error.is_effect_declared() || error.is_poisoned());
            self.dropped(key);
            return;
        }
        let failure = if declared {
            Failure::NotHappened
        } else {
            Failure::Retryable
        };
        let completion = store.fail(permit, failure, now);
        self.ended(key, holds, completion, Image::Absent);
    }

    fn ended(&mut self, key: u64, holds: bool, completion: Completion<()>, image: Image) {
        match completion.try_now() {
            Ok(Err(error)) if error.is_fenced() => {
                assert!(!holds, "the holder of key {key} was fenced");
                self.seen.fenced += 1;
            }
            Ok(Err(error)) if error.is_full() => {
                assert!(holds, "somebody else ended key {key}");
                // The store keeps it until there is space.
                self.note(key, image);
                self.keys.get_mut(&key).expect("all").claim = None;
                self.seen.told += 1;
            }
            Ok(Err(error)) => {
                assert!(error.is_poisoned(), "{error}");
                if holds {
                    self.dropped(key);
                }
            }
            Ok(Ok(())) => {
                // A claim without an effect is given back at once; an earlier end of the key may
                // still wait for its sync.
                assert!(holds && image == Image::Absent, "key {key} ended too early");
                self.note(key, image);
                self.keys.get_mut(&key).expect("all").claim = None;
            }
            Err(pending) => {
                assert!(holds, "somebody else ended key {key}");
                let at = self.note(key, image);
                self.keys.get_mut(&key).expect("all").claim = None;
                self.pending.push((key, at, Pending::Done(pending)));
            }
        }
    }

    fn print(&self, key: u64) -> u8 {
        self.keys[&key]
            .claim
            .as_ref()
            .map_or(0, |claim| claim.print)
    }

    pub(super) fn declare(&mut self) {
        let Some((key, permit, holds)) = self.pick() else {
            return;
        };
        let memo = vec![0xab; self.rng.below(40) as usize];
        let completion = self.store().declare(&permit, &memo);
        match completion.try_now() {
            Ok(Err(error)) => {
                assert!(!holds || error.is_poisoned() || error.is_full(), "{error}");
            }
            Ok(Ok(())) => panic!("a declaration is durable only after a sync"),
            Err(pending) => {
                assert!(holds);
                let print = self.print(key);
                let claim = self.keys.get_mut(&key).expect("all").claim.as_mut();
                let claim = claim.expect("the holder has a claim");
                claim.declared = true;
                claim.memo.clone_from(&memo);
                let at = self.note(key, Image::Doubt { memo, print });
                self.pending.push((key, at, Pending::Done(pending)));
            }
        }
        self.permits.push((key, permit));
    }

    pub(super) fn drop_permit(&mut self) {
        let Some((key, permit, holds)) = self.pick() else {
            return;
        };
        drop(permit);
        if holds {
            self.dropped(key);
        }
    }

    /// The holder let go: in doubt if declared, else free.
    pub(super) fn dropped(&mut self, key: u64) {
        let known = self.keys.get_mut(&key).expect("all keys are there");
        match &mut known.claim {
            Some(claim) if claim.declared => claim.held = false,
            _ => known.claim = None,
        }
    }

    /// Drops a begin that was not acknowledged: nobody acted on it, so the key is free.
    pub(super) fn cancel(&mut self) {
        let fresh = |(_, _, pending): &(_, _, Pending)| matches!(pending, Pending::Fresh(_));
        let Some(i) = self.pending.iter().position(fresh) else {
            return;
        };
        let (key, _, pending) = self.pending.swap_remove(i);
        drop(pending);
        self.given_back(key);
    }

    /// A begin that nobody was told of is over.
    pub(super) fn given_back(&mut self, key: u64) {
        // Unless its lease had passed to another meanwhile.
        let claim = self.keys[&key].claim.clone();
        if !claim.is_some_and(|claim| claim.held && claim.token == 0) {
            return;
        }
        self.keys.get_mut(&key).expect("all").claim = None;
        self.note(key, Image::Absent);
    }

    pub(super) fn forget(&mut self) {
        let key = self.rng.below(KEYS);
        let completion = match self.store().forget(&name(key)).try_now() {
            Ok(Err(error)) if error.is_full() => return,
            Ok(answer) => Ok(answer),
            Err(pending) => Err(pending),
        };
        // An outcome past its retention may be known or not.
        let known = self.keys[&key].history.last().expect("never empty");
        let known = *known != Image::Absent && known.at(self.now) == *known;
        let claimed = self.keys[&key].claim.is_some();
        let answer = match completion {
            Ok(answer) => answer,
            Err(pending) => self.now_or_driven(pending),
        };
        match answer {
            Ok(did) => {
                assert!(did || !(claimed || known), "key {key} was not forgotten");
                let at = self.note(key, Image::Absent);
                self.acked(key, at);
                self.keys.get_mut(&key).expect("all").claim = None;
            }
            Err(error) if error.is_full() => {
                self.seen.told += 1;
                let got = self.store().get(&name(key), self.now).try_now();
                // Else it still rested on what cannot be written.
                if matches!(got, Ok(Ok(Lookup::Absent))) {
                    self.note(key, Image::Absent);
                    self.keys.get_mut(&key).expect("all").claim = None;
                }
            }
            Err(error) => {
                self.check_failed(&error);
                self.note(key, Image::Absent);
            }
        }
    }

    pub(super) fn check_key(&mut self) {
        let key = self.rng.below(KEYS);
        let completion = self.store().get(&name(key), self.now);
        let claim = self.keys[&key].claim.clone();
        let image = self.keys[&key]
            .history
            .last()
            .expect("never empty")
            .at(self.now);
        match (self.now_or_driven(completion), claim, image) {
            (Err(error), ..) if error.is_full() => self.seen.told += 1,
            (Err(error), ..) => self.check_failed(&error),
            (Ok(Lookup::InFlight { until_ms, declared }), Some(claim), _) => {
                assert_eq!((until_ms, declared), (claim.until_ms, claim.declared));
                assert!(claim.held);
            }
            (Ok(Lookup::InDoubt(doubt)), Some(claim), _) => {
                assert_eq!(doubt.memo, claim.memo);
                assert!(!claim.held);
            }
            (Ok(Lookup::Absent), None, Image::Absent) => {}
            (Ok(Lookup::Stored(stored)), None, Image::Stored { outcome, .. }) => {
                assert_eq!(stored.outcome(), outcome);
            }
            other => panic!("key {key}: {other:?}"),
        }
    }

    pub(super) fn extend(&mut self) {
        let Some((key, permit, holds)) = self.pick() else {
            return;
        };
        let lease = self.rng.below(2 * LEASE);
        match self.store().extend(&permit, lease, self.now).try_now() {
            Ok(Ok(())) => {
                assert!(holds, "somebody else has key {key}");
                let claim = self.keys.get_mut(&key).expect("all").claim.as_mut();
                claim.expect("the holder has a claim").until_ms = self.now + lease;
                self.seen.extended += 1;
            }
            Ok(Err(error)) => assert!(
                error.is_poisoned() || error.is_fenced() && !holds,
                "{error}"
            ),
            Err(pending) => panic!("{pending:?}"),
        }
        self.permits.push((key, permit));
    }

    pub(super) fn wait(&mut self) {
        let key = self.rng.below(KEYS);
        let claim = self.keys[&key].claim.as_ref();
        let holder = claim.filter(|claim| claim.held).map(|claim| claim.token);
        match (self.store().wait(&name(key), 1 << 40).try_now(), holder) {
            (Ok(Ok(Waited::Ended)), None) => {}
            (Ok(Err(error)), _) => self.check_failed(&error),
            (Err(pending), Some(token)) => self.waits.push((key, token, pending)),
            other => panic!("key {key}: {other:?}"),
        }
    }

    /// Whoever waits for a key is told when its holder has ended, and not before.
    pub(super) fn look_at_waits(&mut self) {
        let Some(poisoned) = self.store.as_ref().map(|store| store.stats().poisoned) else {
            return;
        };
        for (key, token, wait) in std::mem::take(&mut self.waits) {
            let claim = self.keys[&key].claim.as_ref();
            let holder = claim.filter(|claim| claim.held).map(|claim| claim.token);
            match wait.try_now() {
                Ok(Ok(ended)) => {
                    let same = holder == Some(token) && token != 0;
                    assert!(ended == Waited::Ended && !same, "key {key}: {ended:?}");
                    self.seen.woken += 1;
                }
                Ok(Err(error)) => assert!(error.is_poisoned(), "{error}"),
                Err(wait) => {
                    assert!(holder.is_some() && !poisoned, "key {key} has ended");
                    self.waits.push((key, token, wait));
                }
            }
        }
    }

    pub(super) fn check_unresolved(&mut self) {
        let found = match self.store().unresolved(0, usize::MAX).try_now() {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return self.check_failed(&error),
            Err(pending) => panic!("{pending:?}"),
        };
        self.seen.unresolved += found.len() as u64;
        assert!(found.is_sorted_by(|a, b| a.token < b.token), "{found:?}");
        let mut found: Vec<_> = found
            .into_iter()
            .map(|doubt| (doubt.key, doubt.memo, doubt.fingerprint.0[0], doubt.held))
            .collect();
        found.sort();
        let claims = self.keys.iter().filter_map(|(&key, known)| {
            let claim = known.claim.as_ref().filter(|claim| claim.declared)?;
            Some((name(key), claim.memo.clone(), claim.print, claim.held))
        });
        assert_eq!(found, claims.collect::<Vec<_>>());
    }
}
