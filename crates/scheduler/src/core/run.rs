//! A run's life: taken by a worker, claimed, tried, tried again, ended.

use std::sync::Arc;

use circuit::Outcome as Heard;
use circuit::Permit;

use super::job::{Foreign, JobState, Origin, RunPhase};
use super::slab::Key;
use super::{Alarm, Core, Now};
use crate::cancel::CancelCause;
use crate::firing::{Firing, Task};
use crate::history::{Outcome, Record};
use crate::meter;
use crate::once::{Claim, FiringId};
use crate::policy::{InDoubt, ms};

/// So many runs are looked at for their claims before others may have the lock.
const KEPT_AT_ONCE: usize = 256;

/// A store that does not answer is asked again after so long, doubling.
const CLAIM_AGAIN_MS: u64 = 100;
/// For so long; then the firing is left to others, or to the next start.
const CLAIM_PATIENCE_MS: u64 = 60_000;

/// What a worker is to do.
pub(crate) struct Start {
    pub(crate) run: Key,
    pub(crate) task: Task,
    pub(crate) firing: Firing,
    /// To claim first.
    pub(crate) claim: Option<Wanted>,
}

/// A claim to get from the store.
pub(crate) struct Wanted {
    pub(crate) id: FiringId,
    /// What to do when its runner died.
    pub(crate) in_doubt: InDoubt,
    /// A claim of this process that may have lapsed.
    pub(crate) held: Option<Claim>,
}

/// Why a firing does not run here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotOurs {
    /// This is its outcome.
    Ended(Outcome),
    /// It has none yet.
    Open(Foreign),
}

/// How a try ended.
#[derive(Debug)]
pub(crate) enum Tried {
    Succeeded,
    Failed(Arc<str>),
    Panicked(Arc<str>),
}

/// What is left to do outside when a run has ended.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) settle: Option<(Claim, Outcome)>,
}

impl Core {
    /// The next run for a worker. Those whose breaker is open end here.
    pub(crate) fn take(&mut self, now: Now) -> Option<Start> {
        loop {
            let at = self.startable()?;
            let key = self.unready(at)?;
            match self.ask_breaker(key, now) {
                Ok(permit) => return self.start(key, permit, now),
                Err(why) => {
                    let (outcome, why) = self.last_failure(key, &why);
                    let outcome = outcome.unwrap_or(Outcome::BreakerOpen);
                    let end = self.end(key, outcome, Some(why), now);
                    // A later try that the breaker refuses has a claim to settle.
                    self.unsettled.extend(end.settle);
                }
            }
        }
    }

    /// The first that may start. Those that may not yet are in nobody's way.
    fn startable(&self) -> Option<usize> {
        let has_store = self.claiming < self.limits.claims_max;
        let has_place = self.futures_running < self.limits.futures_max;
        if !has_place && self.ready_plain == 0 {
            // Else each look would go through all of a long queue.
            return None;
        }
        let may_start = |key: &Key| {
            (has_store || !self.needs_store(*key)) && (has_place || !self.is_future(*key))
        };
        self.ready.iter().position(may_start)
    }

    /// Has a run wait for a worker, at a place in the queue or at its end.
    pub(super) fn make_ready(&mut self, key: Key, place: Option<usize>) {
        self.ready_plain += usize::from(!self.is_future(key));
        let end = self.ready.len();
        self.ready.insert(place.map_or(end, |at| at.min(end)), key);
    }

    fn unready(&mut self, at: usize) -> Option<Key> {
        let key = self.ready.remove(at)?;
        self.ready_plain -= usize::from(!self.is_future(key));
        Some(key)
    }

    fn is_future(&self, key: Key) -> bool {
        let run = self.runs.get(key);
        let job = run.and_then(|run| self.jobs.get(run.job));
        job.is_some_and(|job| matches!(job.spec.task, Task::Future { .. }))
    }

    fn needs_store(&self, key: Key) -> bool {
        let run = self.runs.get(key);
        let job = run.and_then(|run| self.jobs.get(run.job));
        job.is_some_and(|job| job.spec.once)
    }

    fn ask_breaker(&mut self, key: Key, now: Now) -> Result<Option<Permit>, Arc<str>> {
        let Some(run) = self.runs.get(key) else {
            return Ok(None);
        };
        let Some(job) = self.jobs.get_mut(run.job) else {
            return Ok(None);
        };
        let Some(breaker) = &mut job.breaker else {
            return Ok(None);
        };
        match breaker.try_call_traced(now.mono_ms, Some(run.trace)) {
            Ok(permit) => {
                if let Some(change) = permit.transition() {
                    meter::breaker_changed(&job.spec.name, &change);
                }
                Ok(Some(permit))
            }
            Err(rejected) => Err(rejected.to_string().into()),
        }
    }

    /// How the last try of a run failed, where there was one, and why there is no other.
    fn last_failure(&self, key: Key, why: &Arc<str>) -> (Option<Outcome>, Arc<str>) {
        let failed = self.runs.get(key).and_then(|run| run.failed.as_ref());
        match failed {
            Some((outcome, error)) => {
                let text = format!("{error}; not tried again: {why}");
                (Some(*outcome), text.into())
            }
            None => (None, Arc::clone(why)),
        }
    }

    fn start(&mut self, key: Key, permit: Option<Permit>, now: Now) -> Option<Start> {
        let span = self.next_random() | 1;
        let run = self.runs.get_mut(key)?;
        let job = self.jobs.get(run.job)?;
        // A rerun's claim is renewed right before it begins: until then it stays in doubt.
        let is_renewed = run.origin != Origin::Rerun || run.attempts > 0;
        run.phase = RunPhase::Running;
        run.permit = permit;
        run.attempts += 1;
        run.try_began_ms = now.mono_ms;
        let spec = &job.spec;
        let firing = Firing {
            job: Arc::clone(&spec.name),
            fire_ms: run.fire_ms,
            shard: spec.shard,
            attempt: run.attempts,
            trace: run.trace,
            span,
            cancel: run.cancel.clone(),
        };
        let task = spec.task.clone();
        let is_kept = !now.is_lease_old(run.kept, self.limits.claim_ms);
        let is_sure = run.claim.is_some() && is_renewed && is_kept;
        let claim = (spec.once && !is_sure).then(|| Wanted {
            id: job.id(run.fire_ms),
            in_doubt: spec.in_doubt,
            held: run.claim.take(),
        });
        match claim {
            Some(_) => self.claiming += 1,
            None => self.begin_try(key, now),
        }
        if matches!(task, Task::Future { .. }) {
            self.futures_running += 1;
        }
        Some(Start {
            run: key,
            task,
            firing,
            claim,
        })
    }

    /// The run's code is about to be called.
    fn begin_try(&mut self, key: Key, now: Now) {
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        if run.began_ms.is_none() {
            run.began_ms = Some(now.wall_ms);
            self.meter.began(now.wall_ms.saturating_sub(run.fire_ms));
        }
        run.try_began_ms = now.mono_ms;
        let timeout_ms = self.jobs.get(run.job).and_then(|job| job.spec.timeout_ms);
        if let Some(timeout_ms) = timeout_ms {
            let deadline_ms = now.mono_ms.saturating_add(timeout_ms);
            run.timeout = Some(self.mono.insert(deadline_ms, Alarm::Timeout(key)));
        }
    }

    /// The firing is this process's to run. The store was asked for it at `asked`.
    pub(crate) fn claimed(&mut self, key: Key, claim: Claim, asked: Now, now: Now) {
        if let Some(run) = self.runs.get_mut(key) {
            run.claim = Some(claim);
            run.kept = asked;
        }
        self.claiming -= 1;
        self.begin_try(key, now);
    }

    /// The firing is not this process's to run.
    pub(crate) fn not_claimed(&mut self, key: Key, why: NotOurs, now: Now) {
        self.claiming -= 1;
        self.end_future(key);
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        // No call was made; the breaker gets its permit back.
        run.permit = None;
        run.attempts -= 1;
        match why {
            NotOurs::Ended(outcome) => {
                if outcome == Outcome::InDoubt
                    && let Some(job) = self.jobs.get(run.job)
                {
                    self.told.tell(job.id(run.fire_ms), outcome);
                }
                drop(self.end(key, outcome, None, now));
            }
            NotOurs::Open(how) => {
                let (job, fire_ms) = (run.job, run.fire_ms);
                self.follow(job, fire_ms, how, now);
                self.runs.remove(key);
                self.next_waiting(job, key);
            }
        }
    }

    /// The store does not say whose the firing is: asks again later, without counting a try.
    pub(crate) fn unclaimed(&mut self, key: Key, why: &str, now: Now) {
        self.claiming -= 1;
        self.end_future(key);
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        run.permit = None;
        run.attempts -= 1;
        let since_ms = *run.unclaimed_since_ms.get_or_insert(now.mono_ms);
        let waited_ms = now.mono_ms.saturating_sub(since_ms);
        if waited_ms >= CLAIM_PATIENCE_MS || self.is_stopped {
            let (job, fire_ms) = (run.job, run.fire_ms);
            if let Some(job) = self.jobs.get_mut(job) {
                job.leave_open(fire_ms);
            }
            self.follow(job, fire_ms, Foreign::GivenUp, now);
            self.end(key, Outcome::Unclaimed, Some(why.into()), now);
            return;
        }
        let delay_ms = waited_ms.clamp(CLAIM_AGAIN_MS, CLAIM_PATIENCE_MS / 12);
        self.rest(key, delay_ms, now);
    }

    /// Extends a portion of the claims, and says where the next one begins. A claim that may have lapsed meanwhile, because
    /// this process or the machine slept, stays old: the store is asked about it before the next try.
    pub(crate) fn keep_claims(
        &mut self,
        from: usize,
        now: Now,
        extend: impl Fn(&Claim),
    ) -> Option<usize> {
        let (portion, next) = self.runs.portion_mut(from, KEPT_AT_ONCE);
        for run in portion {
            let is_old = now.is_lease_old(run.kept, self.limits.claim_ms);
            if let Some(claim) = &run.claim {
                extend(claim);
                run.kept = if is_old { run.kept } else { now };
            }
        }
        next
    }

    fn rest(&mut self, key: Key, delay_ms: u64, now: Now) {
        let deadline_ms = now.mono_ms.saturating_add(delay_ms);
        let alarm = self.mono.insert(deadline_ms, Alarm::Retry(key));
        if let Some(run) = self.runs.get_mut(key) {
            run.phase = RunPhase::Resting(alarm);
        }
    }

    fn end_future(&mut self, key: Key) {
        if self.is_future(key) {
            self.futures_running -= 1;
        }
    }

    /// A try ended: the run ends, or rests until the next one.
    pub(crate) fn tried(&mut self, key: Key, tried: Tried, now: Now) -> End {
        self.end_future(key);
        let Some(run) = self.runs.get_mut(key) else {
            return End { settle: None };
        };
        if let Some(timeout) = run.timeout.take() {
            self.mono.cancel(timeout);
        }
        let took_ms = now.mono_ms.saturating_sub(run.try_began_ms);
        self.meter.ended(took_ms);
        let cause = run.cancel.cause();
        let (outcome, error) = match (tried, cause) {
            // A run that is done before it looks at its token is done.
            (
                Tried::Succeeded,
                None
                | Some(CancelCause::Superseded | CancelCause::Requested | CancelCause::ShuttingDown),
            ) => (Outcome::Succeeded, None),
            (Tried::Panicked(text), _) => (Outcome::Panicked, Some(text)),
            (Tried::Succeeded, Some(CancelCause::TimedOut)) => (
                Outcome::TimedOut,
                Some("it took longer than its timeout".into()),
            ),
            (Tried::Failed(text), Some(CancelCause::TimedOut)) => (Outcome::TimedOut, Some(text)),
            (Tried::Failed(text), Some(_)) => (Outcome::Cancelled, Some(text)),
            (Tried::Failed(text), None) => (Outcome::Failed, Some(text)),
        };
        self.tell_breaker(key, outcome, took_ms, now);
        if self.may_retry(key, outcome) {
            self.retry(key, outcome, error.unwrap_or_default(), now);
            return End { settle: None };
        }
        self.end(key, outcome, error, now)
    }

    fn tell_breaker(&mut self, key: Key, outcome: Outcome, took_ms: u64, now: Now) {
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        let permit = run.permit.take();
        let Some(job) = self.jobs.get_mut(run.job) else {
            return;
        };
        let Some(rules) = job.spec.breaker else {
            return;
        };
        let is_slow = rules.slow.is_some_and(|slow| took_ms > ms(slow));
        let is_bad = match outcome {
            Outcome::Succeeded => is_slow,
            // Somebody wanted it to stop: that says nothing about the job.
            Outcome::Cancelled => return,
            _ => true,
        };
        if !is_bad && job.breaker.is_none() {
            return;
        }
        let fresh = || Box::new(circuit::Breaker::new(rules.config()));
        let breaker = job.breaker.get_or_insert_with(fresh);
        let permit = match permit {
            Some(permit) => permit,
            // It began while there was no breaker, or before it opened: then this changes nothing.
            None => match breaker.state(now.mono_ms) {
                circuit::State::Closed => {
                    match breaker.try_call_traced(now.mono_ms, Some(run.trace)) {
                        Ok(permit) => permit,
                        Err(_) => return,
                    }
                }
                _ => return,
            },
        };
        let heard = if is_bad {
            Heard::Failure
        } else {
            Heard::Success
        };
        if let Some(change) = breaker.record(permit, heard, now.mono_ms) {
            meter::breaker_changed(&job.spec.name, &change);
        }
        if !is_bad && breaker.state(now.mono_ms) == circuit::State::Closed {
            job.breaker = None;
        }
    }

    fn may_retry(&self, key: Key, outcome: Outcome) -> bool {
        let failed = matches!(
            outcome,
            Outcome::Failed | Outcome::Panicked | Outcome::TimedOut
        );
        let Some(run) = self.runs.get(key) else {
            return false;
        };
        let attempts = self
            .jobs
            .get(run.job)
            .map_or(1, |job| job.spec.retry.attempts);
        let stops = matches!(run.cancel.cause(), Some(cause) if cause != CancelCause::TimedOut);
        failed && run.attempts < attempts && !stops && !self.is_stopped
    }

    fn retry(&mut self, key: Key, outcome: Outcome, error: Arc<str>, now: Now) {
        let random = self.next_random();
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        run.failed = Some((outcome, error));
        // The next try has a time of its own.
        run.cancel = Default::default();
        let policy = self.jobs.get(run.job).map(|job| job.spec.retry.policy());
        let delay_ms = policy.map_or(0, |policy| run.backoff.next_delay_ms(&policy, random));
        self.rest(key, delay_ms, now);
    }

    pub(super) fn alarm(&mut self, alarm: Alarm) {
        match alarm {
            Alarm::Timeout(key) => {
                if let Some(run) = self.runs.get_mut(key) {
                    run.timeout = None;
                    run.cancel.cancel(CancelCause::TimedOut);
                }
            }
            Alarm::Retry(key) => {
                if let Some(run) = self.runs.get_mut(key) {
                    run.phase = RunPhase::Ready;
                    self.make_ready(key, None);
                }
            }
        }
    }

    /// Asks all runs of a job to stop; those that are not running end at once.
    pub(crate) fn cancel_runs(&mut self, key: Key, cause: CancelCause, now: Now) {
        let runs = self.jobs.get(key).map(|job| job.runs.clone());
        for run in runs.unwrap_or_default() {
            let Some(state) = self.runs.get_mut(run) else {
                continue;
            };
            state.cancel.cancel(cause);
            if state.phase != RunPhase::Running {
                self.end_unrun(run, Outcome::Cancelled, None, now);
            }
        }
    }

    /// At the end of all: a run that never began is dropped, and one that rests has had its last try.
    pub(super) fn give_up(&mut self, key: Key, now: Now) {
        let Some(run) = self.runs.get(key) else {
            return;
        };
        if run.phase == RunPhase::Running {
            return;
        }
        let (job, fire_ms) = (run.job, run.fire_ms);
        let (outcome, why) = self.last_failure(key, &"the scheduler stopped".into());
        if run.claim.is_none()
            && let Some(job) = self.jobs.get_mut(job)
        {
            job.leave_open(fire_ms);
        }
        self.end_unrun(key, outcome.unwrap_or(Outcome::Dropped), Some(why), now);
    }

    /// Ends a run that is not running.
    pub(super) fn end_unrun(
        &mut self,
        key: Key,
        outcome: Outcome,
        why: Option<Arc<str>>,
        now: Now,
    ) {
        let Some(run) = self.runs.get(key) else {
            return;
        };
        match run.phase {
            RunPhase::Waiting => {
                if let Some(job) = self.jobs.get_mut(run.job) {
                    job.waiting.retain(|waiting| *waiting != key);
                }
            }
            RunPhase::Ready => {
                let at = self.ready.iter().position(|ready| *ready == key);
                at.and_then(|at| self.unready(at));
            }
            RunPhase::Resting(alarm) => drop(self.mono.cancel(alarm)),
            RunPhase::Running => return,
        }
        let end = self.end(key, outcome, why, now);
        self.unsettled.extend(end.settle);
    }

    fn end(&mut self, key: Key, outcome: Outcome, error: Option<Arc<str>>, now: Now) -> End {
        let Some(run) = self.runs.remove(key) else {
            return End { settle: None };
        };
        let is_turned_away = run.claim.is_none()
            && run.attempts == 0
            && matches!(
                outcome,
                Outcome::Misfired
                    | Outcome::Overlapped
                    | Outcome::BreakerOpen
                    | Outcome::QueueFull
                    | Outcome::Cancelled
            );
        // What was dropped before it began is the next start's: its claim lapses.
        let claim = run.claim.filter(|_| outcome != Outcome::Dropped);
        if claim.is_some()
            && let Some(job) = self.jobs.get(run.job)
        {
            self.told.tell(job.id(run.fire_ms), outcome);
        }
        if is_turned_away && self.may_be_claimed(run.job, run.fire_ms, outcome) {
            self.leave_to_store(run.job, run.fire_ms, outcome, now);
        } else {
            let record = Record {
                fire_ms: run.fire_ms,
                began_ms: run.began_ms,
                ended_ms: now.wall_ms,
                attempts: run.attempts,
                outcome,
                trace: Some(run.trace),
                error,
            };
            self.record(run.job, record);
        }
        self.next_waiting(run.job, key);
        End {
            settle: claim.map(|claim| (claim, outcome)),
        }
    }

    /// What waited for this run to end may start when no other runs.
    fn next_waiting(&mut self, key: Key, ended: Key) {
        let Some(job) = self.jobs.get_mut(key) else {
            return;
        };
        job.runs.retain(|run| *run != ended);
        if !job.runs.is_empty() {
            return;
        }
        let heir = match job.state {
            JobState::Cancelled => {
                let name = (Arc::clone(&job.spec.name), job.spec.shard);
                self.forget_if_over(key);
                self.by_name.get(&name).copied()
            }
            _ => Some(key),
        };
        if let Some(heir) = heir
            && self.busy_before(heir).is_empty()
            && let Some(job) = self.jobs.get_mut(heir)
            && job.runs.is_empty()
            && let Some(next) = job.waiting.pop_front()
            && let Some(run) = self.runs.get_mut(next)
        {
            run.phase = RunPhase::Ready;
            job.runs.push(next);
            // It was let in when it came: one a job, so the queue stays bounded.
            self.make_ready(next, None);
        }
    }
}
