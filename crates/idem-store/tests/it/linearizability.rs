//! Concurrent histories of a store are explained by some order of its operations, one after the
//! other, that respects which ended before which began (Wing and Gong's search, per key).
//!
//! [`check`] takes handles on one store of any kind: the backends with servers run it too.

use std::collections::{BTreeMap, HashSet};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use idem_store::{Begin, Begun, Error, Failure, Fingerprint, Lookup, Options, Permit, Store};
use parking_lot::Mutex;

use crate::disk::Rng;
use crate::progress::Progress;

const NOW: u64 = 1_700_000_000_000;
/// Longer than any test: no lease runs out, holders change by `forget`. So nothing here depends on
/// whose clock counts.
const LEASE: u64 = 600_000;
const DAY: u64 = 86_400_000;
const THREADS: u64 = 4;
const KEYS: u64 = 3;
/// Operations of a thread in one history; a key sees a third of `THREADS` times as many.
const OPERATIONS: u64 = 40;

/// When a dropped permit takes effect.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drops {
    /// Before `drop` returns.
    AtOnce,
    /// Some time later, or never.
    Later,
}

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Begin { print: u8, declares: bool },
    Declare { token: u64 },
    Complete { token: u64, outcome: u64 },
    FailForGood { token: u64, outcome: u64 },
    NotHappened { token: u64 },
    Extend { token: u64 },
    Drop { token: u64 },
    Forget,
    Get,
}

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Fresh(u64),
    InDoubt(u64),
    InFlight,
    Conflict,
    Stored { outcome: u64, failed: bool },
    Done,
    Fenced,
    Known(bool),
    Absent,
    Held { declared: bool },
    Doubted,
}

/// One operation of a history: what happened between two ticks of a clock.
#[derive(Clone, Copy, Debug)]
struct Operation {
    call: Call,
    answer: Answer,
    called: u64,
    /// Never, for what need not have happened at all.
    returned: u64,
}

const NEVER: u64 = u64::MAX;

/// A key as its operations, one after the other, leave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Model {
    Absent,
    Held {
        token: u64,
        print: u8,
        declared: bool,
    },
    Doubt {
        print: u8,
    },
    Stored {
        print: u8,
        outcome: u64,
        failed: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    model: Model,
    /// Tokens only grow.
    token_max: u64,
}

impl Key {
    /// The key after an operation; none when the answer is wrong.
    fn after(self, operation: &Operation) -> Option<Self> {
        let answer = operation.answer;
        match operation.call {
            Call::Begin { print, declares } => self.begun(print, declares, answer),
            Call::Get => (answer == self.looked_up()).then_some(self),
            Call::Forget => {
                let known = self.model != Model::Absent;
                (answer == Answer::Known(known)).then_some(self.with(Model::Absent))
            }
            Call::Drop { token } => Some(match self.model {
                Model::Held {
                    token: holder,
                    print,
                    declared,
                } if holder == token => self.with(if declared {
                    Model::Doubt { print }
                } else {
                    Model::Absent
                }),
                _ => self,
            }),
            Call::Declare { token } => self.held(token, answer, |print| Model::Held {
                token,
                print,
                declared: true,
            }),
            Call::Extend { token } => {
                let same = self.model;
                self.held(token, answer, |_| same)
            }
            Call::Complete { token, outcome } => self.held(token, answer, |print| Model::Stored {
                print,
                outcome,
                failed: false,
            }),
            Call::FailForGood { token, outcome } => {
                self.held(token, answer, |print| Model::Stored {
                    print,
                    outcome,
                    failed: true,
                })
            }
            Call::NotHappened { token } => self.held(token, answer, |_| Model::Absent),
        }
    }

    fn begun(self, wanted: u8, declares: bool, answer: Answer) -> Option<Self> {
        let holds = |token, declared| {
            let model = Model::Held {
                token,
                print: wanted,
                declared,
            };
            let token_max = token;
            (token > self.token_max).then_some(Self { model, token_max })
        };
        match (self.model, answer) {
            (Model::Absent, Answer::Fresh(token)) => holds(token, declares),
            (Model::Doubt { print }, Answer::InDoubt(token)) if print == wanted => {
                holds(token, true)
            }
            (Model::Held { print, .. }, Answer::InFlight) if print == wanted => Some(self),
            (
                Model::Stored {
                    print,
                    outcome,
                    failed,
                },
                _,
            ) if print == wanted => (answer == Answer::Stored { outcome, failed }).then_some(self),
            (
                Model::Held { print, .. } | Model::Doubt { print } | Model::Stored { print, .. },
                Answer::Conflict,
            ) if print != wanted => Some(self),
            _ => None,
        }
    }

    fn looked_up(self) -> Answer {
        match self.model {
            Model::Absent => Answer::Absent,
            Model::Held { declared, .. } => Answer::Held { declared },
            Model::Doubt { .. } => Answer::Doubted,
            Model::Stored {
                outcome, failed, ..
            } => Answer::Stored { outcome, failed },
        }
    }

    /// An operation of a holder: done for the one who holds the key, fenced for all others.
    fn held(self, token: u64, answer: Answer, next: impl FnOnce(u8) -> Model) -> Option<Self> {
        match (self.model, answer) {
            (
                Model::Held {
                    token: holder,
                    print,
                    ..
                },
                Answer::Done,
            ) if holder == token => Some(self.with(next(print))),
            (Model::Held { token: holder, .. }, Answer::Fenced) if holder == token => None,
            (_, Answer::Fenced) => Some(self),
            _ => None,
        }
    }

    fn with(self, model: Model) -> Self {
        Self { model, ..self }
    }
}

/// Whether some order explains the operations of one key. Searches depth first, and no state twice.
fn is_linearizable(operations: &[Operation]) -> bool {
    assert!(
        operations.len() <= 128,
        "a history this long takes too long to check"
    );
    let must: u128 = (0..operations.len())
        .filter(|&i| operations[i].returned != NEVER)
        .fold(0, |set, i| set | 1 << i);
    let start = Key {
        model: Model::Absent,
        token_max: 0,
    };
    let (mut open, mut seen) = (vec![(0_u128, start)], HashSet::new());
    while let Some((done, key)) = open.pop() {
        if done & must == must {
            return true;
        }
        let left = || (0..operations.len()).filter(|i| done >> i & 1 == 0);
        let first_return = left().map(|i| operations[i].returned).min();
        for i in left() {
            // Nothing may go before what had returned when it was called.
            if Some(operations[i].called) > first_return {
                continue;
            }
            let next = key.after(&operations[i]).map(|key| (done | 1 << i, key));
            open.extend(next.filter(|next| seen.insert(*next)));
        }
    }
    false
}

type History = BTreeMap<u64, Vec<Operation>>;

/// As many histories as a long run asks for, or `default`.
pub(crate) fn histories(default: u64) -> u64 {
    let asked = std::env::var("MAINSTAY_HISTORIES");
    asked.map_or(default, |n| n.parse().expect("a number"))
}

/// Checks handles on one store whose server does what is asked of it some time later: one history
/// a seed, which also goes over lost drops.
#[cfg(feature = "_remote")]
pub(crate) fn check_server(stores: &[Store], seeds: u64) {
    let mut progress = Progress::of(seeds, "histories");
    for seed in 0..seeds {
        check(stores, seed, Drops::Later);
        progress.at(seed + 1);
    }
}

/// Runs threads that work on few keys, and checks what they were answered. `seed` also names the
/// keys: a store may be checked with many seeds.
pub(crate) fn check(stores: &[Store], seed: u64, drops: Drops) {
    for (key, operations) in recorded(stores, seed, drops) {
        assert!(
            is_linearizable(&operations),
            "no order explains key {key} of seed {seed}: {operations:#?}"
        );
    }
}

fn recorded(stores: &[Store], seed: u64, drops: Drops) -> History {
    // A permit is used on the handle that gave it.
    let permits: Vec<Permits> = stores.iter().map(|_| Permits::default()).collect();
    let history: Mutex<History> = Mutex::default();
    let (clock, start) = (AtomicU64::new(1), Barrier::new(THREADS as usize));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let handle = thread as usize % stores.len();
            let mut worker = Worker {
                store: &stores[handle],
                seed,
                drops,
                rng: Rng(seed * THREADS + thread),
                permits: &permits[handle],
                history: &history,
                clock: &clock,
            };
            let start = &start;
            scope.spawn(move || {
                start.wait();
                for _ in 0..OPERATIONS {
                    worker.work();
                }
            });
        }
    });
    history.into_inner()
}

/// Permits and their keys.
type Permits = Mutex<Vec<(u64, Permit)>>;

struct Worker<'a> {
    store: &'a Store,
    seed: u64,
    drops: Drops,
    rng: Rng,
    /// Permits pass between threads: another may end what one began.
    permits: &'a Permits,
    history: &'a Mutex<History>,
    clock: &'a AtomicU64,
}

impl Worker<'_> {
    fn work(&mut self) {
        let key = self.rng.below(KEYS);
        match self.rng.below(20) {
            0..=7 => self.begin(key),
            8 => self.note(key, Call::Forget, |this, name| {
                this.store.forget(&name).wait().map(Answer::Known)
            }),
            9..=10 => self.note(key, Call::Get, |this, name| {
                this.store.get(&name, NOW).wait().map(|found| match found {
                    Lookup::Absent => Answer::Absent,
                    Lookup::InFlight { declared, .. } => Answer::Held { declared },
                    Lookup::InDoubt(_) => Answer::Doubted,
                    Lookup::Stored(stored) => stored_answer(stored.outcome(), stored.is_failure()),
                })
            }),
            dice => self.use_permit(dice),
        }
    }

    fn begin(&mut self, key: u64) {
        // Mostly the same request.
        let print = u8::from(self.rng.one_in(6));
        let declares = self.rng.one_in(2);
        let mut permit = None;
        self.note(key, Call::Begin { print, declares }, |this, name| {
            let mut begin = Begin::new(&name, Fingerprint([print; 32]), LEASE, NOW);
            if declares {
                begin = begin.declare(b"memo");
            }
            Ok(match this.store.begin(&begin).wait()? {
                Begun::Fresh(fresh) => {
                    let token = fresh.token();
                    permit = Some(fresh);
                    Answer::Fresh(token)
                }
                Begun::InDoubt(doubtful) => {
                    let token = doubtful.token();
                    permit = Some(doubtful);
                    Answer::InDoubt(token)
                }
                Begun::Replay(stored) => stored_answer(stored.outcome(), stored.is_failure()),
                Begun::InFlight { .. } => Answer::InFlight,
                Begun::Conflict => Answer::Conflict,
            })
        });
        self.permits
            .lock()
            .extend(permit.map(|permit| (key, permit)));
    }

    fn use_permit(&mut self, dice: u64) {
        let (key, permit) = {
            let mut permits = self.permits.lock();
            if permits.is_empty() {
                return;
            }
            let i = self.rng.below(permits.len() as u64) as usize;
            permits.swap_remove(i)
        };
        let token = permit.token();
        let outcome = self.clock.fetch_add(1, Ordering::SeqCst);
        let bytes = outcome.to_le_bytes();
        let done = |result: Result<(), Error>| result.map(|()| Answer::Done);
        match dice {
            11..=13 => self.note(key, Call::Complete { token, outcome }, |this, _| {
                done(this.store.complete(permit, &bytes, DAY, NOW).wait())
            }),
            14 => self.note(key, Call::FailForGood { token, outcome }, |this, _| {
                let failure = Failure::Final {
                    outcome: &bytes,
                    retain_ms: DAY,
                };
                done(this.store.fail(permit, failure, NOW).wait())
            }),
            15 => self.note(key, Call::NotHappened { token }, |this, _| {
                done(this.store.fail(permit, Failure::NotHappened, NOW).wait())
            }),
            16 => self.note(key, Call::Drop { token }, |_, _| {
                drop(permit);
                Ok(Answer::Done)
            }),
            17 => {
                self.note(key, Call::Declare { token }, |this, _| {
                    done(this.store.declare(&permit, b"later").wait())
                });
                self.permits.lock().push((key, permit));
            }
            _ => {
                self.note(key, Call::Extend { token }, |this, _| {
                    done(this.store.extend(&permit, LEASE, NOW).wait())
                });
                self.permits.lock().push((key, permit));
            }
        }
    }

    /// Does an operation and notes when it was called and when it returned.
    fn note(
        &mut self,
        key: u64,
        call: Call,
        run: impl FnOnce(&Self, Vec<u8>) -> Result<Answer, Error>,
    ) {
        let name = format!("linear-{}-{key}", self.seed).into_bytes();
        let called = self.clock.fetch_add(1, Ordering::SeqCst);
        let answer = match run(self, name) {
            Ok(answer) => answer,
            Err(error) if error.is_fenced() => Answer::Fenced,
            Err(error) => panic!("{call:?}: {error}"),
        };
        let later = self.drops == Drops::Later && matches!(call, Call::Drop { .. });
        let returned = match later {
            true => NEVER,
            false => self.clock.fetch_add(1, Ordering::SeqCst),
        };
        let operation = Operation {
            call,
            answer,
            called,
            returned,
        };
        self.history.lock().entry(key).or_default().push(operation);
    }
}

fn stored_answer(outcome: &[u8], failed: bool) -> Answer {
    let outcome = outcome.try_into().expect("outcomes are numbers here");
    Answer::Stored {
        outcome: u64::from_le_bytes(outcome),
        failed,
    }
}

#[test]
fn histories_of_the_embedded_store_are_linearizable() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new()
        .segment_bytes_max(64 << 10)
        .outcome_bytes_max(4 << 10)
        .batch_bytes_max(32 << 10)
        .index_log_bytes(32 << 10);
    let store = Store::open(dir.path(), options).unwrap();
    let seeds = histories(60);
    let mut progress = Progress::of(seeds, "histories");
    for seed in 0..seeds {
        // What takes effect at once may also be taken for what does so later.
        let drops = if seed % 4 == 3 {
            Drops::Later
        } else {
            Drops::AtOnce
        };
        check(std::slice::from_ref(&store), seed, drops);
        progress.at(seed + 1);
    }
}

/// Each operation begins when the one before has returned.
fn one_after_the_other(steps: &[(Call, Answer)]) -> Vec<Operation> {
    let timed = (1..).step_by(2).zip(steps);
    let operation = |(tick, &(call, answer)): (u64, &(Call, Answer))| Operation {
        call,
        answer,
        called: tick,
        returned: tick + 1,
    };
    timed.map(operation).collect()
}

const BEGIN: Call = Call::Begin {
    print: 1,
    declares: true,
};

#[test]
fn broken_histories_are_told_from_sound_ones() {
    let complete = |token| Call::Complete { token, outcome: 9 };
    let (outcome, failed) = (9, false);
    let nine = Answer::Stored { outcome, failed };
    let sound = [
        (BEGIN, Answer::Fresh(5)),
        (BEGIN, Answer::InFlight),
        (Call::Drop { token: 5 }, Answer::Done),
        (BEGIN, Answer::InDoubt(6)),
        (complete(5), Answer::Fenced),
        (complete(6), Answer::Done),
        (Call::Get, nine),
        (Call::Forget, Answer::Known(true)),
        (BEGIN, Answer::Fresh(7)),
    ];
    assert!(is_linearizable(&one_after_the_other(&sound)));
    let broken = |at: usize, answer| {
        let mut steps = sound;
        steps[at].1 = answer;
        let steps = &steps[..=at];
        assert!(!is_linearizable(&one_after_the_other(steps)), "{steps:?}");
    };
    broken(1, Answer::Fresh(6));
    broken(3, Answer::Fresh(6));
    broken(3, Answer::InDoubt(5));
    broken(4, Answer::Done);
    broken(5, Answer::Fenced);
    broken(6, Answer::Absent);
    broken(7, Answer::Known(false));
    broken(8, Answer::Fresh(6));
}

#[test]
fn what_overlaps_may_go_either_way_and_what_does_not_may_not() {
    let mut steps = one_after_the_other(&[(BEGIN, Answer::Fresh(1)), (Call::Get, Answer::Absent)]);
    assert!(!is_linearizable(&steps), "the key was held by then");
    steps[0].returned = 5;
    assert!(is_linearizable(&steps), "it may have been before");
    // A drop that need not have happened.
    let mut steps = one_after_the_other(&[
        (BEGIN, Answer::Fresh(1)),
        (Call::Drop { token: 1 }, Answer::Done),
        (BEGIN, Answer::InFlight),
    ]);
    assert!(!is_linearizable(&steps));
    steps[1].returned = NEVER;
    assert!(is_linearizable(&steps));
}

/// A real history with one answer changed is not explained any more.
#[test]
fn a_real_history_with_one_wrong_answer_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::new()).unwrap();
    let mut changed = 0;
    for (_, operations) in recorded(&[store], 1, Drops::AtOnce) {
        for at in 0..operations.len() {
            let mut wrong = operations.clone();
            wrong[at].answer = match wrong[at].answer {
                Answer::Fresh(token) => Answer::InDoubt(token),
                Answer::Stored { outcome, failed } => Answer::Stored {
                    outcome: outcome + 1,
                    failed,
                },
                _ => continue,
            };
            assert!(!is_linearizable(&wrong), "{:?}", wrong[at]);
            changed += 1;
        }
    }
    assert!(changed > 5, "{changed}");
}
