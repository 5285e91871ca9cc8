//! Random operations on a simulated disk, with crashes anywhere, against a model: what was
//! acknowledged is recovered, no key is fresh twice, and tokens only grow.

use std::collections::BTreeMap;

use idem_store::{Begin, Begun, Completion, Failure, Fingerprint, Lookup, Options, Permit, Store};

use crate::disk::{Disk, Rng};

const KEYS: u64 = 10;
const STEPS: u64 = 160;
const LEASE: u64 = 1_000;

#[test]
fn random_operations_and_crashes_match_the_model() {
    let seeds = std::env::var("MAINSTAY_SEEDS").map_or(300, |n| n.parse().expect("a number"));
    let mut seen = Coverage::default();
    for seed in 0..seeds {
        let mut world = World::new(seed);
        let run = std::panic::AssertUnwindSafe(|| world.run());
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("the seed that failed: {seed}");
            std::panic::resume_unwind(panic);
        }
        seen.add(&world.seen);
    }
    println!("{seen:?}");
    // A simulation that never reaches a state proves nothing about it.
    assert!(seen.all_at_least(seeds.min(300) / 30), "{seen:?}");
}

#[derive(Debug, Default)]
struct Coverage {
    crashes: u64,
    poisonings: u64,
    replays: u64,
    doubts: u64,
    conflicts: u64,
    fenced: u64,
    disk_full: u64,
    dropped_segments: u64,
    carried: u64,
    closed_in_order: u64,
}

impl Coverage {
    fn fields(&self) -> [u64; 10] {
        [
            self.crashes,
            self.poisonings,
            self.replays,
            self.doubts,
            self.conflicts,
            self.fenced,
            self.disk_full,
            self.dropped_segments,
            self.carried,
            self.closed_in_order,
        ]
    }

    fn all_at_least(&self, n: u64) -> bool {
        self.fields().iter().all(|&count| count >= n)
    }

    fn add(&mut self, other: &Self) {
        self.crashes += other.crashes;
        self.poisonings += other.poisonings;
        self.replays += other.replays;
        self.doubts += other.doubts;
        self.conflicts += other.conflicts;
        self.fenced += other.fenced;
        self.disk_full += other.disk_full;
        self.dropped_segments += other.dropped_segments;
        self.carried += other.carried;
        self.closed_in_order += other.closed_in_order;
    }
}

/// What a crash right now would leave of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Image {
    Absent,
    Doubt {
        memo: Vec<u8>,
        print: u8,
    },
    Stored {
        outcome: Vec<u8>,
        print: u8,
        until_ms: u64,
        failed: bool,
    },
}

impl Image {
    fn at(&self, now: u64) -> Self {
        match self {
            Self::Stored { until_ms, .. } if *until_ms <= now => Self::Absent,
            other => other.clone(),
        }
    }
}

/// A key as the model knows it.
#[derive(Debug)]
struct Key {
    /// Images after each operation; a crash may leave any from `acked` on.
    history: Vec<Image>,
    acked: usize,
    claim: Option<Claim>,
}

#[derive(Clone, Debug)]
struct Claim {
    token: u64,
    print: u8,
    until_ms: u64,
    declared: bool,
    held: bool,
    memo: Vec<u8>,
}

enum Pending {
    Done(Completion<()>),
    Fresh(Completion<Begun>),
}

struct World {
    rng: Rng,
    disk: Disk,
    store: Option<Store>,
    now: u64,
    keys: BTreeMap<u64, Key>,
    permits: Vec<(u64, Permit)>,
    /// Not acknowledged yet: the key, and the place in its history.
    pending: Vec<(u64, usize, Pending)>,
    token_max: u64,
    dead: bool,
    /// A long life with few faults, so that segments come and go.
    calm: bool,
    seen: Coverage,
}

fn name(key: u64) -> Vec<u8> {
    format!("key-{key}").into_bytes()
}

fn options() -> Options {
    Options::new()
        .segment_bytes_max(64 << 10)
        .outcome_bytes_max(8 << 10)
        .batch_bytes_max(32 << 10)
}

impl World {
    fn new(seed: u64) -> Self {
        let disk = Disk::new(seed ^ 0xd15c);
        let absent = || Key {
            history: vec![Image::Absent],
            acked: 0,
            claim: None,
        };
        Self {
            rng: Rng(seed),
            disk,
            store: None,
            now: 1_700_000_000_000,
            keys: (0..KEYS).map(|key| (key, absent())).collect(),
            permits: Vec::new(),
            pending: Vec::new(),
            token_max: 0,
            dead: false,
            calm: seed.is_multiple_of(4),
            seen: Coverage::default(),
        }
    }

    fn run(&mut self) {
        for _ in 0..if self.calm { 4 * STEPS } else { STEPS } {
            if self.store.is_none() && !self.open() {
                continue;
            }
            if !self.dead {
                self.step();
            }
            let stats = self.store.as_ref().map(Store::stats);
            let poisoned = stats.is_some_and(|stats| stats.poisoned);
            self.seen.poisonings += u64::from(poisoned);
            if poisoned || self.dead {
                self.crash();
            }
        }
        self.crash();
        while !self.open() || self.dead {
            self.crash();
        }
        let stats = self.store.as_ref().expect("open").stats();
        assert!(
            stats.segments <= 5,
            "the log grows without bound: {stats:?}"
        );
    }

    fn step(&mut self) {
        let dice = self.rng.below(100);
        if self.calm && (92..=98).contains(&dice) && !self.rng.one_in(6) {
            return;
        }
        match dice {
            0..=29 => self.begin(),
            30..=49 => self.complete(),
            50..=54 => self.fail(),
            55..=59 => self.declare(),
            60..=62 => self.drop_permit(),
            63..=65 => self.forget(),
            66..=69 => self.check_key(),
            70..=84 => self.drive(),
            85..=90 => self.now += self.rng.below(700),
            91 => self.now += self.rng.below(20 * 60_000),
            92..=93 => self.crash(),
            94 => self.disk.die_in(self.rng.below(12)),
            95 => self.disk.fail_sync_in(self.rng.below(3)),
            96 => self.disk.set_full(true),
            97 => self.disk.set_full(false),
            98 => self.close(),
            _ => self.cancel(),
        }
    }

    fn store(&self) -> Store {
        self.store.clone().expect("the world is up")
    }

    fn open(&mut self) -> bool {
        if self.rng.one_in(8) {
            self.disk.die_in(self.rng.below(20));
        }
        match Store::open_on(self.disk.mount(), options()) {
            Ok(store) => self.store = Some(store),
            Err(error) => {
                assert!(!error.is_damaged(), "a crash alone never damages: {error}");
                self.disk.crash();
                return false;
            }
        }
        for key in 0..KEYS {
            let image = self.image_now(key);
            let Some(image) = image else { return true };
            let known = self.keys.get_mut(&key).expect("all keys are there");
            let possible = &known.history[known.acked..];
            assert!(
                possible.iter().any(|old| old.at(self.now) == image),
                "key {key} came back as {image:?}, possible were {possible:?}"
            );
            let doubt = match &image {
                Image::Doubt { memo, print } => Some(Claim {
                    token: 0,
                    print: *print,
                    until_ms: 0,
                    declared: true,
                    held: false,
                    memo: memo.clone(),
                }),
                _ => None,
            };
            known.history = vec![image];
            known.acked = 0;
            known.claim = doubt;
        }
        true
    }

    /// What the store says of a key that nobody holds; none when the machine died meanwhile.
    fn image_now(&mut self, key: u64) -> Option<Image> {
        let got = self.store().get(&name(key), self.now);
        let got = match self.now_or_driven(got) {
            Ok(got) => got,
            Err(error) => {
                assert!(died(&error), "{error}");
                self.dead = true;
                return None;
            }
        };
        Some(match got {
            Lookup::Absent => Image::Absent,
            Lookup::InDoubt(doubt) => Image::Doubt {
                memo: doubt.memo,
                print: doubt.fingerprint.0[0],
            },
            Lookup::Stored(stored) => Image::Stored {
                print: stored.fingerprint().0[0],
                until_ms: stored.retain_until_ms(),
                failed: stored.is_failure(),
                outcome: stored.into_outcome(),
            },
            Lookup::InFlight { .. } => panic!("key {key} is held after opening"),
        })
    }

    fn now_or_driven<T: std::fmt::Debug>(
        &mut self,
        mut completion: Completion<T>,
    ) -> Result<T, idem_store::Error> {
        for _ in 0..4 {
            match completion.try_now() {
                Ok(result) => return result,
                Err(pending) => {
                    completion = pending;
                    self.drive();
                }
            }
        }
        panic!("still pending after four turns of the flusher");
    }

    fn crash(&mut self) {
        self.seen.crashes += 1;
        self.dead = false;
        self.leave();
        self.disk.crash();
    }

    fn close(&mut self) {
        self.permits.clear();
        for key in 0..KEYS {
            self.dropped(key);
        }
        let closed = self.store().close();
        self.settle();
        if closed.is_ok() {
            self.seen.closed_in_order += 1;
            for key in self.keys.values_mut() {
                key.acked = key.history.len() - 1;
            }
        }
        self.leave();
        self.disk.crash();
    }

    /// Gives up everything that belongs to the running store.
    fn leave(&mut self) {
        if let Some(store) = self.store.take() {
            let stats = store.stats();
            self.seen.dropped_segments += stats.segments_dropped;
            self.seen.carried += stats.records_carried;
            // The disk must see nothing of what dropping does.
            self.disk.die_in(0);
        }
        self.permits.clear();
        self.pending.clear();
        for key in self.keys.values_mut() {
            key.claim = None;
        }
    }

    fn drive(&mut self) {
        self.store().drive();
        self.settle();
    }

    /// Collects the acknowledgements.
    fn settle(&mut self) {
        let poisoned = self.store().stats().poisoned;
        for (key, at, pending) in std::mem::take(&mut self.pending) {
            match pending {
                Pending::Done(completion) => match completion.try_now() {
                    Ok(Ok(())) => self.acked(key, at),
                    Ok(Err(error)) => assert!(error.is_poisoned(), "{error}"),
                    Err(completion) => {
                        assert!(!poisoned, "a waiter of a poisoned store hangs");
                        self.pending.push((key, at, Pending::Done(completion)));
                    }
                },
                Pending::Fresh(completion) => match completion.try_now() {
                    Ok(Ok(Begun::Fresh(permit))) => {
                        self.acked(key, at);
                        let claim = self.keys.get_mut(&key).expect("all").claim.as_mut();
                        if let Some(claim) = claim.filter(|claim| claim.token == 0 && claim.held) {
                            // The token is known only now.
                            claim.token = permit.token();
                            self.token_max = self.token_max.max(permit.token());
                        }
                        self.permits.push((key, permit));
                    }
                    Ok(Ok(other)) => panic!("expected fresh: {other:?}"),
                    Ok(Err(error)) => assert!(error.is_poisoned(), "{error}"),
                    Err(completion) => {
                        assert!(!poisoned, "a waiter of a poisoned store hangs");
                        self.pending.push((key, at, Pending::Fresh(completion)));
                    }
                },
            }
        }
    }

    fn acked(&mut self, key: u64, at: usize) {
        let key = self.keys.get_mut(&key).expect("all keys are there");
        key.acked = key.acked.max(at);
    }

    /// Notes what a crash would leave from now on; returns the place in the history.
    fn note(&mut self, key: u64, image: Image) -> usize {
        let key = self.keys.get_mut(&key).expect("all keys are there");
        key.history.push(image);
        key.history.len() - 1
    }

    fn note_token(&mut self, permit: &Permit) {
        assert!(permit.token() > self.token_max, "a token did not grow");
        self.token_max = permit.token();
    }

    fn begin(&mut self) {
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
            _ => {
                let completion = store.begin(&begin);
                self.now_or_driven(completion)
            }
        };
        match answer {
            Ok(begun) => self.check_begun(key, print, &memo, declares, begun, claim, image),
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

    #[expect(
        clippy::too_many_arguments,
        reason = "all of it is compared with the answer"
    )]
    fn check_begun(
        &mut self,
        key: u64,
        print: u8,
        memo: &[u8],
        declares: bool,
        begun: Begun,
        claim: Option<Claim>,
        image: Image,
    ) {
        match (begun, claim, image) {
            (Begun::Conflict, Some(claim), _) => {
                assert_ne!(claim.print, print);
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
                let lapsed = claim.is_none_or(|claim| {
                    !claim.declared && self.now >= claim.until_ms && claim.print == print
                });
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

    fn complete(&mut self) {
        let Some((key, permit, holds)) = self.pick() else {
            return;
        };
        let outcome = vec![self.rng.next() as u8; self.rng.below(8_000) as usize];
        let retain = self.rng.below(5_000);
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

    fn fail(&mut self) {
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
            Ok(Err(error)) => {
                assert!(error.is_poisoned() || error.is_full(), "{error}");
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

    fn declare(&mut self) {
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

    fn drop_permit(&mut self) {
        let Some((key, permit, holds)) = self.pick() else {
            return;
        };
        drop(permit);
        if holds {
            self.dropped(key);
        }
    }

    /// The holder let go: in doubt if declared, else free.
    fn dropped(&mut self, key: u64) {
        let known = self.keys.get_mut(&key).expect("all keys are there");
        match &mut known.claim {
            Some(claim) if claim.declared => claim.held = false,
            _ => known.claim = None,
        }
    }

    /// Drops a begin that was not acknowledged: nobody acted on it, so the key is free.
    fn cancel(&mut self) {
        let fresh = |(_, _, pending): &(_, _, Pending)| matches!(pending, Pending::Fresh(_));
        let Some(i) = self.pending.iter().position(fresh) else {
            return;
        };
        let (key, _, pending) = self.pending.swap_remove(i);
        drop(pending);
        // Unless its lease had passed to another meanwhile.
        let claim = self.keys[&key].claim.clone();
        if claim.is_some_and(|claim| claim.held && claim.token == 0) {
            self.keys.get_mut(&key).expect("all").claim = None;
            self.note(key, Image::Absent);
        }
    }

    fn forget(&mut self) {
        let key = self.rng.below(KEYS);
        let completion = self.store().forget(&name(key));
        // An outcome past its retention may be known or not.
        let known = self.keys[&key].history.last().expect("never empty");
        let known = *known != Image::Absent && known.at(self.now) == *known;
        let claimed = self.keys[&key].claim.is_some();
        match self.now_or_driven(completion) {
            Ok(did) => {
                assert!(did || !(claimed || known), "key {key} was not forgotten");
                let at = self.note(key, Image::Absent);
                self.acked(key, at);
                self.keys.get_mut(&key).expect("all").claim = None;
            }
            Err(error) if error.is_full() => {}
            Err(error) => {
                self.check_failed(&error);
                self.note(key, Image::Absent);
            }
        }
    }

    fn check_key(&mut self) {
        let key = self.rng.below(KEYS);
        let completion = self.store().get(&name(key), self.now);
        let claim = self.keys[&key].claim.clone();
        let image = self.keys[&key]
            .history
            .last()
            .expect("never empty")
            .at(self.now);
        match (self.now_or_driven(completion), claim, image) {
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
}

/// Whether the machine died in the call that failed.
fn died(error: &idem_store::Error) -> bool {
    let source = std::error::Error::source(error);
    let source = source.and_then(|source| source.downcast_ref::<std::io::Error>());
    error.is_poisoned() || source.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}
