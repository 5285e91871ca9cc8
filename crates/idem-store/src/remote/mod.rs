//! What every shared backend has in common: a queue of operations, somebody who serves them (a thread
//! with a small runtime, or the caller's runtime), and answers through completions.
//!
//! A backend is an [`Engine`]: it is given operations as data ([`Op`]) and answers with data
//! ([`Answer`]). Permits, limits, waiting and abandoning are here, once for all of them.

mod counters;
mod crew;
mod engine;
mod job;
mod service;
mod wait;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use crate::completion::{Completion, Promise};
use crate::error::{Error, Kind};
use crate::options::Options;
use crate::permit::{Begin, Begun, Failure, Lookup, Owner, Permit, Unresolved};
use crate::stats::Stats;

pub(crate) use counters::Counters;
pub(crate) use crew::Crew;
pub(crate) use engine::{Answer, ClaimId, Engine, Found, Op, Release, perhaps_forgotten};
pub(crate) use job::{Job, Jobs, fitting, in_time, no_answer};
pub(crate) use service::Service;
use wait::Waits;

/// A lease or a retention longer than this (142,000 years) makes no difference, and shorter ones
/// stay exact in the numbers of a Lua script.
pub(crate) const TIME_MS_MAX: u64 = 1 << 52;

/// A claim without an effect is kept this long beyond its lease, so that a late outcome is still
/// taken while nobody else holds the key: an hour.
pub(crate) const LATE_MS: u64 = 3_600_000;

/// A store on a server. Permits hold it too, so that they can be given back.
pub(crate) struct Remote {
    options: Options,
    counters: Arc<Counters>,
    limits: Limits,
    /// Claim ids: random for each handle, then counted.
    claim_prefix: [u8; 8],
    claims: AtomicU64,
    /// Declares so far.
    declares: AtomicU64,
    closed: AtomicBool,
    waits: Arc<Waits>,
    served: Served,
}

/// How much is asked of a server at a time, and how long it is waited for.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Operations that were not answered yet. What a holder asks always finds room.
    pub(crate) pending_max: u64,
    /// From the asking to the answer.
    pub(crate) timeout: Duration,
}

/// By whom a store is served.
struct Served {
    queue: UnboundedSender<Job>,
    runtime: Handle,
    /// None when the runtime is the caller's.
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Remote {
    fn new(
        options: Options,
        limits: Limits,
        counters: Arc<Counters>,
        served: Served,
    ) -> Result<Arc<Self>, Error> {
        let mut claim_prefix = [0; 8];
        getrandom::fill(&mut claim_prefix)
            .map_err(|error| Error::io("get random bytes", std::io::Error::other(error)))?;
        Ok(Arc::new(Self {
            options,
            counters,
            limits,
            claim_prefix,
            claims: AtomicU64::new(0),
            declares: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            waits: Arc::default(),
            served,
        }))
    }

    pub(crate) fn begin(self: &Arc<Self>, begin: &Begin<'_>) -> Completion<Begun> {
        self.try_begin(begin).unwrap_or_else(Completion::failed)
    }

    fn try_begin(self: &Arc<Self>, begin: &Begin<'_>) -> Result<Completion<Begun>, Error> {
        self.check_key(begin.key)?;
        self.check_memo(begin.memo)?;
        self.check_room()?;
        let declared = begin.effect_may_have_happened;
        let key: Arc<[u8]> = begin.key.into();
        let memo: Arc<[u8]> = if declared {
            begin.memo.into()
        } else {
            [].into()
        };
        let op = Op::Begin {
            key: Arc::clone(&key),
            fingerprint: begin.fingerprint,
            lease_ms: begin.lease_ms.min(TIME_MS_MAX),
            claim: self.claim_id(),
            declared,
            memo: Arc::clone(&memo),
        };
        let this = Arc::clone(self);
        let permit = move |token, memo, doubtful| Permit {
            owner: Owner::Remote(this),
            hash: 0,
            key,
            token,
            memo,
            taken: false,
            doubtful,
            over: false,
        };
        self.ask(op, mark_taken, move |answer| match answer {
            Answer::Fresh { token } => Ok(Begun::Fresh(permit(token, memo, false))),
            Answer::InDoubt { token, memo } => Ok(Begun::InDoubt(permit(token, memo.into(), true))),
            Answer::Replay(stored) => Ok(Begun::Replay(stored)),
            Answer::InFlight { until_ms } => Ok(Begun::InFlight { until_ms }),
            Answer::Conflict => Ok(Begun::Conflict),
            other => Err(other.unexpected()),
        })
    }

    pub(crate) fn declare(&self, permit: &Permit, memo: &[u8]) -> Result<Completion<()>, Error> {
        self.check_memo(memo)?;
        let (key, token) = self.held(permit)?;
        let op = Op::Declare {
            key,
            token,
            number: self.declares.fetch_add(1, Ordering::Relaxed) + 1,
            memo: memo.into(),
        };
        self.ask(op, |()| (), Answer::done)
    }

    pub(crate) fn extend(&self, permit: &Permit, lease_ms: u64) -> Result<Completion<()>, Error> {
        let (key, token) = self.held(permit)?;
        let lease_ms = lease_ms.min(TIME_MS_MAX);
        let op = Op::Extend {
            key,
            token,
            lease_ms,
        };
        self.ask(op, |()| (), Answer::done)
    }

    pub(crate) fn complete(
        &self,
        mut permit: Permit,
        outcome: &[u8],
        failed: bool,
        retain_ms: u64,
    ) -> Result<Completion<()>, Error> {
        check_length("outcome", outcome.len(), 0, self.options.outcome_bytes_max)?;
        let (key, token) = self.held(&permit)?;
        let op = Op::Complete {
            key,
            token,
            failed,
            retain_ms: retain_ms.min(TIME_MS_MAX),
            outcome: outcome.into(),
        };
        let asked = self.ask(op, |()| (), Answer::done)?;
        permit.over = true;
        Ok(asked)
    }

    pub(crate) fn fail(
        &self,
        mut permit: Permit,
        failure: Failure<'_>,
    ) -> Result<Completion<()>, Error> {
        let release = match failure {
            Failure::Final { outcome, retain_ms } => {
                return self.complete(permit, outcome, true, retain_ms);
            }
            Failure::Retryable => Release::UnlessDeclared,
            Failure::NotHappened => Release::Always,
        };
        let (key, token) = self.held(&permit)?;
        let asked = self.ask(
            Op::Release {
                key,
                token,
                release,
            },
            |()| (),
            move |answer| match answer {
                Answer::LeftInDoubt => Err(Error::new(Kind::EffectDeclared)),
                other => other.done(),
            },
        )?;
        permit.over = true;
        Ok(asked)
    }

    /// A permit was dropped without being ended. Nobody waits for the answer; should it get lost,
    /// the claim stays until its lease ends.
    pub(crate) fn abandon(&self, permit: &Permit) {
        // A permit that nobody ever had in hand cannot have caused anything.
        let release = if permit.taken || permit.doubtful {
            Release::UnlessDeclared
        } else {
            Release::Always
        };
        let op = Op::Release {
            key: Arc::clone(&permit.key),
            token: permit.token,
            release,
        };
        drop(self.ask(op, |()| (), |_| Ok(())));
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Completion<Lookup>, Error> {
        self.check_key(key)?;
        self.check_room()?;
        let key = key.into();
        self.ask(
            Op::Get { key },
            |_| (),
            |answer| match answer {
                Answer::Found(lookup) => Ok(lookup),
                other => Err(other.unexpected()),
            },
        )
    }

    pub(crate) fn forget(&self, key: &[u8]) -> Result<Completion<bool>, Error> {
        self.check_key(key)?;
        self.check_room()?;
        let (key, found) = (key.into(), Found::default());
        self.ask(
            Op::Forget { key, found },
            |_| (),
            |answer| match answer {
                Answer::Known(known) => Ok(known),
                other => Err(other.unexpected()),
            },
        )
    }

    pub(crate) fn unresolved(
        &self,
        after_token: u64,
        count_max: usize,
    ) -> Result<Completion<Vec<Unresolved>>, Error> {
        self.check_room()?;
        let op = Op::Unresolved {
            after_token,
            count_max,
        };
        self.ask(
            op,
            |_| (),
            |answer| match answer {
                Answer::List(unresolved) => Ok(unresolved),
                other => Err(other.unexpected()),
            },
        )
    }

    /// Ready when everything that was asked before was answered.
    pub(crate) fn flush(&self) -> Result<Completion<()>, Error> {
        self.ask(Op::Flush, |()| (), Answer::done)
    }

    pub(crate) fn stats(&self) -> Stats {
        self.counters.stats()
    }

    /// Ends the service once what was asked is answered, and waits for that if it is a thread.
    pub(crate) fn close(&self) -> Result<(), Error> {
        if !self.closed.swap(true, Ordering::Relaxed) {
            let stop = self.job(Op::Stop, |_| ());
            // The thread has ended by itself otherwise.
            drop(self.served.queue.send(stop));
        }
        let thread = self.served.thread.lock().take();
        // A waker may run on that thread, and drop the last handle there.
        let ours = std::thread::current().id();
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != ours) {
            thread.join().map_err(|_| Error::new(Kind::Poisoned))?;
        }
        Ok(())
    }

    /// Puts an operation into the queue.
    fn ask<T: Send + 'static>(
        &self,
        op: Op,
        finish: fn(&mut T),
        read: impl FnOnce(Answer) -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<Completion<T>, Error> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::new(Kind::Closed));
        }
        let (promise, completion) = Promise::new(finish);
        let reply = move |result: Result<Answer, Error>| promise.keep(result.and_then(read));
        let sent = self.served.queue.send(self.job(op, reply));
        sent.map_err(|_| Error::new(Kind::Closed))?;
        Ok(completion)
    }

    fn job(
        &self,
        op: Op,
        reply: impl FnOnce(Result<Answer, Error>) + Send + Sync + 'static,
    ) -> Job {
        let deadline = Instant::now() + self.limits.timeout;
        Job::new(op, deadline, &self.counters, Box::new(reply))
    }

    fn held(&self, permit: &Permit) -> Result<(Arc<[u8]>, u64), Error> {
        if !permit.owner.is_remote(self) {
            return Err(Error::new(Kind::Fenced));
        }
        Ok((Arc::clone(&permit.key), permit.token))
    }

    fn claim_id(&self) -> ClaimId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.claim_prefix);
        id[8..].copy_from_slice(&self.claims.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        ClaimId(id)
    }

    fn check_room(&self) -> Result<(), Error> {
        if self.counters.pending() >= self.limits.pending_max {
            return Err(Error::new(Kind::Busy(
                "too many operations wait for the server",
            )));
        }
        Ok(())
    }

    fn check_key(&self, key: &[u8]) -> Result<(), Error> {
        check_length("key", key.len(), 1, self.options.key_bytes_max)
    }

    fn check_memo(&self, memo: &[u8]) -> Result<(), Error> {
        check_length("memo", memo.len(), 0, self.options.memo_bytes_max)
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        // Nobody is left to tell.
        let _ = self.close();
    }
}

fn check_length(what: &'static str, len: usize, min: usize, max: u32) -> Result<(), Error> {
    if len < min || len > max as usize {
        let (len, max) = (len as u64, u64::from(max));
        return Err(Error::new(Kind::TooLarge(what, len, max)));
    }
    Ok(())
}

fn mark_taken(begun: &mut Begun) {
    if let Begun::Fresh(permit) | Begun::InDoubt(permit) = begun {
        permit.taken = true;
    }
}
