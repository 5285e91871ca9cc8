//! Random operations on a simulated disk, with crashes anywhere, against a model: what was
//! acknowledged is recovered, no key is fresh twice, and tokens only grow.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use idem_store::vfs::Vfs;
use idem_store::{
    Begun, Completion, Durability, Lookup, Options, Permit, Store, Waited, verify_on,
};

use parking_lot::Mutex;

use crate::disk::{Disk, Rng};
use crate::progress::Progress;
use model::{Claim, Coverage, Image, Key};

mod model;
mod operations;
mod seeded;

const KEYS: u64 = 10;
const STEPS: u64 = 160;
const LEASE: u64 = 1_000;

/// `MAINSTAY_SEEDS` histories from `MAINSTAY_SEED_FIRST` on; `cargo xtask soak idem` sets them.
#[test]
fn random_operations_and_crashes_match_the_model() {
    let seeds = number_of("MAINSTAY_SEEDS", 2_000);
    let first = number_of("MAINSTAY_SEED_FIRST", 0);
    let run = Run {
        next: AtomicU64::new(first),
        end: first + seeds,
        failed: AtomicBool::new(false),
        seen: Mutex::default(),
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(seeds) {
            scope.spawn(|| run.histories());
        }
        run.tell_progress(first);
    });
    assert!(!run.failed.into_inner(), "a history failed, see above");
    let seen = run.seen.into_inner();
    println!("{seen:?}");
    // A simulation that never reaches a state proves nothing about it.
    assert!(seen.all_at_least(seeds.min(2_000) / 100), "{seen:?}");
}

fn number_of(variable: &str, default: u64) -> u64 {
    let value = std::env::var(variable);
    value.map_or(default, |n| n.parse().expect("a number"))
}

/// All histories of a test, shared by its threads.
struct Run {
    next: AtomicU64,
    end: u64,
    failed: AtomicBool,
    seen: Mutex<Coverage>,
}

impl Run {
    fn histories(&self) {
        while !self.failed.load(Ordering::Relaxed) {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            if seed >= self.end {
                return;
            }
            let mut world = World::new(seed);
            let run = std::panic::AssertUnwindSafe(|| world.run());
            if std::panic::catch_unwind(run).is_err() {
                self.failed.store(true, Ordering::Relaxed);
                eprintln!(
                    "\nSEED {seed} FAILED; again, alone: cargo xtask soak idem --first {seed} --seeds 1 --kills 0 --histories 0\n"
                );
                // Its store is in no state to be dropped.
                std::mem::forget(world);
                return;
            }
            self.seen.lock().add(&world.seen);
        }
    }

    /// For long runs: how far it is, until all is done.
    fn tell_progress(&self, first: u64) {
        let mut progress = Progress::of(self.end - first, "seeds");
        loop {
            let done = self.next.load(Ordering::Relaxed).min(self.end) - first;
            progress.at(done);
            if done == self.end - first || self.failed.load(Ordering::Relaxed) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }
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
    /// Nothing is synced but when it is asked for: a power cut may lose what was acknowledged.
    relaxed: bool,
    /// Calls of `wait` that were pending when they were last looked at: the key and its holder's token.
    waits: Vec<(u64, u64, Completion<Waited>)>,
    /// How long what was taken waits for disk space: not at all, or for ever.
    patience_ms: u64,
    /// Many outcomes outlive the segment that they are in.
    keeps: bool,
    /// Now and then holders give more than a full disk has segments for.
    floods: bool,
    /// A batch waits for disk space.
    holds: bool,
    /// A bug that the store is made to have.
    bug: Option<seeded::Bug>,
    seen: Coverage,
}

fn name(key: u64) -> Vec<u8> {
    format!("key-{key}").into_bytes()
}

fn options() -> Options {
    Options::new()
        .segment_bytes_max(64 << 10)
        .outcome_bytes_max(15 << 10)
        .batch_bytes_max(32 << 10)
        .index_log_bytes(16 << 10)
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
            waits: Vec::new(),
            token_max: 0,
            dead: false,
            calm: seed.is_multiple_of(4),
            relaxed: seed % 5 == 1,
            patience_ms: if seed % 3 == 2 { 0 } else { 1 << 40 },
            keeps: seed.is_multiple_of(6),
            floods: seed % 7 == 3,
            holds: false,
            bug: None,
            seen: Coverage::default(),
        }
    }

    fn mount(&self) -> Arc<dyn Vfs> {
        let vfs = self.disk.mount();
        match self.bug {
            Some(bug) => bug.on(vfs),
            None => vfs,
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
            if !self.dead {
                self.look_at_waits();
            }
            let stats = self.store.as_ref().map(Store::stats);
            let poisoned = stats.is_some_and(|stats| stats.poisoned);
            self.seen.poisonings += u64::from(poisoned);
            if poisoned || self.dead {
                self.crash();
            }
        }
        self.come_back();
        let mut segments_max = 5;
        if self.floods {
            // They leave twice as much that lives, and upkeep no time.
            segments_max = 10;
            for _ in 0..200 {
                self.drive();
                if self.store().stats().poisoned {
                    self.come_back();
                }
            }
        }
        let stats = self.store().stats();
        assert!(
            stats.segments <= segments_max,
            "the log grows without bound: {stats:?}"
        );
    }

    fn come_back(&mut self) {
        self.crash();
        while !self.open() || self.dead {
            self.crash();
        }
    }

    fn step(&mut self) {
        if self.floods && self.rng.one_in(20) {
            return self.flood();
        }
        let dice = self.rng.below(100);
        if self.calm && (92..=98).contains(&dice) && !self.rng.one_in(6) {
            return;
        }
        match dice {
            0..=26 => self.begin(),
            27 => self.extend(),
            28 => self.wait(),
            29 => self.check_unresolved(),
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
            _ if self.relaxed => self.flush(),
            _ => self.cancel(),
        }
    }

    fn store(&self) -> Store {
        self.store.clone().expect("the world is up")
    }

    fn open(&mut self) -> bool {
        if self.rng.one_in(3) {
            // A crash alone damages nothing, and leaves no index that tells other than the log.
            let report = verify_on(&*self.mount()).expect("the disk is up");
            assert!(report.ok, "{report:?}");
        }
        if self.rng.one_in(8) {
            self.disk.die_in(self.rng.below(20));
        }
        if self.rng.one_in(8) {
            self.disk.fail_sync_in(self.rng.below(4));
        }
        let durability = match self.relaxed {
            true => Durability::None,
            false => Durability::Sync,
        };
        let options = options().durability(durability);
        let options = options.disk_full_wait_ms(self.patience_ms);
        match Store::open_on(self.mount(), options) {
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
        self.check_unresolved();
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
        for turn in 0..8 {
            match completion.try_now() {
                Ok(result) => return result,
                Err(pending) => {
                    completion = pending;
                    self.drive();
                }
            }
            if turn == 3 && self.store().stats().disk_full {
                // What was begun before waits for space; nothing but space ends that.
                self.disk.set_full(false);
            }
        }
        panic!("still pending after eight turns of the flusher");
    }

    fn crash(&mut self) {
        self.seen.crashes += 1;
        self.dead = false;
        self.leave();
        if self.rng.one_in(3) {
            self.disk.kill();
        } else {
            self.disk.crash();
        }
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

    /// Everything so far is durable when this is answered.
    fn flush(&mut self) {
        let flushed = self.store().flush();
        self.drive();
        if let Ok(Ok(())) = flushed.try_now() {
            for key in self.keys.values_mut() {
                key.acked = key.history.len() - 1;
            }
        }
    }

    /// Gives up everything that belongs to the running store.
    fn leave(&mut self) {
        if let Some(store) = self.store.take() {
            let stats = store.stats();
            self.seen.dropped_segments += stats.segments_dropped;
            self.seen.indexes += stats.index_snapshots;
            self.seen.opened_from_index += u64::from(stats.opened_from_index);
            self.seen.carried += stats.records_carried;
            // The disk must see nothing of what dropping does.
            self.disk.die_in(0);
        }
        self.permits.clear();
        self.pending.clear();
        self.waits.clear();
        self.holds = false;
        for key in self.keys.values_mut() {
            key.claim = None;
        }
    }

    fn drive(&mut self) {
        self.store().drive();
        self.settle();
        let holds = self.store().stats().disk_full && self.waits();
        let held = std::mem::replace(&mut self.holds, holds);
        self.seen.held += u64::from(holds && !held);
        self.seen.resumed += u64::from(held && !self.waits());
    }

    /// Whether something was taken and not answered.
    fn waits(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Keys are claimed, the disk gets full, and their outcomes are longer than what it has left.
    fn flood(&mut self) {
        self.disk.set_full(false);
        // All leases and retentions end.
        self.now += 5_000;
        for _ in 0..3 * KEYS {
            if self.dead {
                return;
            }
            self.begin();
        }
        self.drive();
        self.disk.set_full(true);
        while !self.permits.is_empty() {
            self.complete_with(15_000);
        }
        self.drive();
    }

    /// Collects the acknowledgements.
    fn settle(&mut self) {
        let poisoned = self.store().stats().poisoned;
        for (key, at, pending) in std::mem::take(&mut self.pending) {
            match pending {
                Pending::Done(completion) => match completion.try_now() {
                    Ok(Ok(())) => self.acked(key, at),
                    // It is kept, and may be durable later.
                    Ok(Err(error)) if error.is_full() => self.seen.told += 1,
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
                    Ok(Err(error)) if error.is_full() => {
                        self.seen.told += 1;
                        self.given_back(key);
                    }
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
        if self.relaxed {
            return;
        }
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
}

/// Whether the machine died in the call that failed.
fn died(error: &idem_store::Error) -> bool {
    let source = std::error::Error::source(error);
    let source = source.and_then(|source| source.downcast_ref::<std::io::Error>());
    error.is_poisoned() || source.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}
