//! What runs when: jobs, firings and runs as one state machine. Time is an argument; threads, clocks and the store are the
//! runner's.

mod admit;
pub(crate) mod job;
mod missed;
mod run;
pub(crate) mod slab;
#[cfg(test)]
mod tests;
mod told;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use circuit::SplitMix64;
use timerwheel::Wheel;

use crate::history::{Outcome, Record};
use crate::meter::{JobMeter, Meter};
use crate::once::{Claim, FiringId};
use crate::policy::OnFull;
use crate::schedule::{Schedule, ScheduleError};
use crate::spec::JobSpec;
use job::{Foreign, Job, JobState, Origin, Run};
pub(crate) use run::{NotOurs, Start, Tried, Wanted};
use slab::{Key, Slab};
use told::Told;

/// Looking at so many fire times takes as long as a timer.
const LOOKS_A_TIMER: usize = 8;

/// So many firings of a job that wait for their jitter are told of at the end. Jitter is no longer than a period, so there are
/// few.
const JITTERING_MAX: usize = 100;

/// Fire times that came while the wall clock was ahead do not come again when it is set back; but no job waits longer than this
/// for the others. Vixie's cron draws the line there.
const SET_BACK_MAX_MS: u64 = 3 * 3_600_000;

/// Both clocks: fire times are read on the wall, durations on the one that never jumps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) wall_ms: u64,
    pub(crate) mono_ms: u64,
}

impl Now {
    /// Whether a lease that was renewed at `since` was not for two thirds of `lease_ms`. By both clocks: the steady one may
    /// stand still while the machine sleeps.
    pub(crate) fn is_lease_old(self, since: Self, lease_ms: u64) -> bool {
        let steady_ms = self.mono_ms.saturating_sub(since.mono_ms);
        let wall_ms = self.wall_ms.saturating_sub(since.wall_ms);
        steady_ms.max(wall_ms) > lease_ms / 3 * 2
    }
}

/// The limits of a [`Core`].
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) jobs_max: usize,
    pub(crate) queue_max: usize,
    pub(crate) on_full: OnFull,
    pub(crate) futures_max: usize,
    /// How long a claim stands when it is not extended.
    pub(crate) claim_ms: u64,
    /// Workers that may ask the store at a time: when it hangs, one is left for what does not need it.
    pub(crate) claims_max: usize,
    /// Whether somebody takes [`Core::ended`].
    pub(crate) reports: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Alarm {
    Timeout(Key),
    Retry(Key),
}

/// A firing that does not run, unless the store knows of somebody who ran it.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) job: Key,
    pub(crate) id: FiringId,
    /// What becomes of it when the store does not.
    pub(crate) outcome: Outcome,
}

/// See [`Core::change`].
struct Estate {
    schedule: Schedule,
    last_ms: u64,
    /// A fire time behind this one has come and waits for its jitter, and the schedule stays.
    waits_from_ms: Option<u64>,
    open_from_ms: Option<u64>,
    follows: Vec<Key>,
    verdicts: VecDeque<u64>,
    foreign: BTreeMap<u64, Foreign>,
    given_up_to_ms: u64,
}

pub(crate) struct Core {
    pub(crate) jobs: Slab<Job>,
    by_name: HashMap<(Arc<str>, u32), Key>,
    pub(crate) runs: Slab<Run>,
    /// Next firings, in Unix milliseconds.
    wall: Wheel<Key>,
    /// Timeouts and retries, on the steady clock.
    mono: Wheel<Alarm>,
    pub(crate) ready: VecDeque<Key>,
    /// Of those, the ones that are no futures.
    ready_plain: usize,
    pub(crate) futures_running: usize,
    /// Runs whose claim a worker waits for.
    pub(crate) claiming: usize,
    pub(crate) verdicts: VecDeque<Verdict>,
    /// Claims of runs that ended without a worker.
    pub(crate) unsettled: Vec<(Claim, Outcome)>,
    pub(crate) told: Told,
    /// Settled firings for the observer: the job's name and shard.
    pub(crate) ended: Vec<(Arc<JobSpec>, Record)>,
    limits: Limits,
    pub(crate) meter: Meter,
    random: SplitMix64,
    pub(crate) is_stopped: bool,
}

impl Core {
    pub(crate) fn new(limits: Limits, seed: u64, now: Now) -> Self {
        Self {
            jobs: Slab::new(),
            by_name: HashMap::new(),
            runs: Slab::new(),
            wall: Wheel::new(now.wall_ms),
            mono: Wheel::new(now.mono_ms),
            ready: VecDeque::new(),
            ready_plain: 0,
            futures_running: 0,
            claiming: 0,
            verdicts: VecDeque::new(),
            unsettled: Vec::new(),
            told: Told::default(),
            ended: Vec::new(),
            limits,
            meter: Meter::new(),
            random: SplitMix64::new(seed),
            is_stopped: false,
        }
    }

    /// `accounted_ms`: up to where an earlier process dealt with the fire times, where that is known.
    pub(crate) fn add(
        &mut self,
        spec: JobSpec,
        accounted_ms: Option<u64>,
        now: Now,
    ) -> Result<Key, ScheduleError> {
        let key = self.add_unarmed(spec, accounted_ms, now)?;
        self.begin(key, now);
        Ok(key)
    }

    fn add_unarmed(
        &mut self,
        spec: JobSpec,
        accounted_ms: Option<u64>,
        now: Now,
    ) -> Result<Key, ScheduleError> {
        let name = (Arc::clone(&spec.name), spec.shard);
        if self.by_name.contains_key(&name) {
            let text = format!("there is a job {:?} already", spec.name);
            return Err(ScheduleError::new(text));
        }
        if self.by_name.len() >= self.limits.jobs_max || self.is_stopped {
            return Err(ScheduleError::new(
                "the scheduler takes no more jobs: raise jobs_max",
            ));
        }
        // What is to happen at one time only and just once anywhere is looked for in all the past: the store knows.
        let last_ms = match spec.once && spec.schedule.is_single() {
            true => 0,
            false => accounted_ms.map_or(now.wall_ms, |ms| ms.min(now.wall_ms)),
        };
        let job = Job {
            state: JobState::Scheduled,
            added_ms: now.wall_ms,
            last_ms,
            next: None,
            runs: Vec::new(),
            follows: Vec::new(),
            waiting: VecDeque::new(),
            verdicts: VecDeque::new(),
            foreign: BTreeMap::new(),
            given_up_to_ms: 0,
            manual_ms: 0,
            open_from_ms: None,
            breaker: None,
            history: VecDeque::new(),
            counts: Default::default(),
            meter: JobMeter::default(),
            spec: Arc::new(spec),
        };
        let key = self.jobs.insert(job);
        self.by_name.insert(name, key);
        Ok(key)
    }

    /// Sets a new job's first timer, or says that its only time has passed.
    fn begin(&mut self, key: Key, now: Now) {
        self.arm(key);
        let Some(job) = self.jobs.get(key) else {
            return;
        };
        if job.state == JobState::Done && job.spec.schedule.is_single() && !job.spec.once {
            let at_ms = job.spec.schedule.next_after_ms(0, job.added_ms);
            self.record_unrun(key, at_ms.unwrap_or(0), Outcome::Misfired, now);
        }
    }

    /// Takes jobs out and adds others, all or nothing. What one of the old still runs counts for the new one of its name.
    pub(crate) fn change(
        &mut self,
        gone: &[Key],
        new: Vec<(JobSpec, Option<u64>)>,
        now: Now,
    ) -> Result<Vec<Key>, ScheduleError> {
        self.may_change(gone, &new)?;
        let mut estates = HashMap::new();
        for (spec, _) in &new {
            let name = (Arc::clone(&spec.name), spec.shard);
            if let Some(old) = self.by_name.get(&name).copied()
                && let Some(estate) = self.take_estate(old, &spec.schedule, now)
            {
                estates.insert(name, (old, estate));
            }
        }
        gone.iter().for_each(|key| self.remove(*key, now));
        let mut keys = Vec::with_capacity(new.len());
        for (spec, accounted_ms) in new {
            let estate = estates.remove(&(Arc::clone(&spec.name), spec.shard));
            let key = self.add_unarmed(spec, accounted_ms, now)?;
            match estate.is_some_and(|(old, estate)| self.inherit(key, old, estate)) {
                // Its only time may have passed, but not unnoticed.
                true => self.arm(key),
                false => self.begin(key, now),
            }
            keys.push(key);
        }
        Ok(keys)
    }

    /// What a job leaves to the one that comes in its place.
    fn take_estate(&mut self, key: Key, heir: &Schedule, now: Now) -> Option<Estate> {
        let job = self.jobs.get(key)?;
        let has_come = job.next.is_some_and(|(next_ms, _)| next_ms <= now.wall_ms);
        let is_kept = has_come && heir.is_shared() && job.spec.schedule == *heir;
        let waits_from_ms = is_kept.then_some(job.last_ms);
        if is_kept {
            self.disarm(key);
        }
        let job = self.jobs.get_mut(key)?;
        let waiting = job.waiting.iter().filter_map(|run| self.runs.get(*run));
        let unclaimed = waiting.filter(|run| run.claim.is_none());
        let dropped = unclaimed.map(|run| run.fire_ms);
        Some(Estate {
            schedule: job.spec.schedule.clone(),
            waits_from_ms,
            last_ms: match job.state {
                JobState::Paused => job.last_ms.max(now.wall_ms),
                _ => job.last_ms,
            },
            open_from_ms: dropped.chain(job.open_from_ms).min(),
            follows: job.follows.iter().copied().chain([key]).collect(),
            verdicts: std::mem::take(&mut job.verdicts),
            foreign: std::mem::take(&mut job.foreign),
            given_up_to_ms: job.given_up_to_ms,
        })
    }

    /// Whether the schedule is the same.
    fn inherit(&mut self, key: Key, old: Key, estate: Estate) -> bool {
        let follows = estate.follows.into_iter();
        let alive = follows.filter(|old| self.jobs.get(*old).is_some());
        let alive = alive.collect();
        let Some(job) = self.jobs.get_mut(key) else {
            return false;
        };
        job.follows = alive;
        job.open_from_ms = estate.open_from_ms;
        job.verdicts = estate.verdicts;
        job.foreign = estate.foreign;
        job.given_up_to_ms = estate.given_up_to_ms;
        // What this process dealt with has its outcome, however little of that the store remembers. A single time that is
        // another one now was not dealt with.
        let is_same = job.spec.schedule == estate.schedule;
        if is_same || !job.spec.schedule.is_single() {
            job.last_ms = job.last_ms.max(estate.last_ms);
        }
        job.last_ms = estate.waits_from_ms.unwrap_or(job.last_ms);
        let verdicts = self.verdicts.iter_mut();
        verdicts
            .filter(|verdict| verdict.job == old)
            .for_each(|verdict| verdict.job = key);
        is_same
    }

    fn may_change(
        &self,
        gone: &[Key],
        new: &[(JobSpec, Option<u64>)],
    ) -> Result<(), ScheduleError> {
        let gone: HashSet<&Key> = gone.iter().collect();
        let mut names = HashSet::with_capacity(new.len());
        for (spec, _) in new {
            let name = (Arc::clone(&spec.name), spec.shard);
            let held = self.by_name.get(&name);
            if held.is_some_and(|held| !gone.contains(held)) || !names.insert(name) {
                let text = format!("there is a job {:?} already", spec.name);
                return Err(ScheduleError::new(text));
            }
        }
        let jobs = self.by_name.len().saturating_sub(gone.len()) + new.len();
        if !new.is_empty() && (jobs > self.limits.jobs_max || self.is_stopped) {
            return Err(ScheduleError::new(
                "the scheduler takes no more jobs: raise jobs_max",
            ));
        }
        Ok(())
    }

    pub(crate) fn find(&self, name: &str, shard: u32) -> Option<Key> {
        self.by_name.get(&(Arc::from(name), shard)).copied()
    }

    pub(crate) fn has_once_jobs(&self) -> bool {
        self.jobs.iter().any(|(_, job)| job.spec.once)
    }

    /// Sets the timer of the job's next firing.
    fn arm(&mut self, key: Key) {
        let random = self.next_random();
        let Some(job) = self.jobs.get_mut(key) else {
            return;
        };
        if job.state != JobState::Scheduled || self.is_stopped {
            return;
        }
        let next_ms = job.spec.schedule.next_after_ms(job.last_ms, job.added_ms);
        let Some(next_ms) = next_ms else {
            job.state = JobState::Done;
            job.next = None;
            return;
        };
        let span = u128::from(job.spec.jitter_ms) + 1;
        let jitter_ms = ((u128::from(random) * span) >> 64) as u64;
        let timer = self.wall.insert(next_ms.saturating_add(jitter_ms), key);
        job.next = Some((next_ms, timer));
    }

    fn disarm(&mut self, key: Key) {
        if let Some(job) = self.jobs.get_mut(key)
            && let Some((_, timer)) = job.next.take()
        {
            self.wall.cancel(timer);
        }
    }

    /// Gives up what waits for its jitter.
    fn drop_jittering(&mut self, key: Key, now: Now) {
        let Some(job) = self.jobs.get_mut(key).filter(|job| job.next.is_some()) else {
            return;
        };
        // What is later than that was not fired in time, and not for its jitter.
        let from_ms = now.wall_ms.saturating_sub(job.spec.jitter_ms + 1);
        let mut at_ms = job.last_ms.max(from_ms);
        let mut cursor = job.spec.schedule.cursor(job.added_ms);
        let mut dropped = Vec::new();
        while let Some(fire_ms) = cursor.next_after_ms(at_ms)
            && fire_ms <= now.wall_ms
            && dropped.len() < JITTERING_MAX
        {
            dropped.push(fire_ms);
            at_ms = fire_ms;
        }
        for fire_ms in dropped {
            self.record_unrun(key, fire_ms, Outcome::Dropped, now);
        }
    }

    /// Fires what is due, at most about `budget` timers; whether there is more.
    pub(crate) fn advance(&mut self, now: Now, budget: usize) -> bool {
        if now.wall_ms < self.wall.now() {
            self.set_back(now);
        }
        let mut work = 0;
        while work < budget {
            work += 1;
            if let Some((_, key)) = self.wall.pop_due(now.wall_ms) {
                work += self.due(key, now) / LOOKS_A_TIMER;
            } else if let Some((_, alarm)) = self.mono.pop_due(now.mono_ms) {
                self.alarm(alarm);
            } else {
                return false;
            }
        }
        true
    }

    /// The wall clock was set back. A wheel's time never goes back, so the timers move to a new one.
    fn set_back(&mut self, now: Now) {
        let timers = std::mem::replace(&mut self.wall, Wheel::new(now.wall_ms));
        for (_, deadline_ms, key) in &timers {
            let timer = self.wall.insert(deadline_ms, *key);
            if let Some((_, old)) = self.jobs.get_mut(*key).and_then(|job| job.next.as_mut()) {
                *old = timer;
            }
        }
        let is_far = |job: &Job| job.last_ms.saturating_sub(now.wall_ms) > SET_BACK_MAX_MS;
        let far = self.jobs.iter().filter(|(_, job)| is_far(job));
        for key in far.map(|(key, _)| key).collect::<Vec<_>>() {
            self.disarm(key);
            if let Some(job) = self.jobs.get_mut(key) {
                tracing::warn!(job = %job.spec.name, "the clock was set back: goes on from now");
                job.last_ms = now.wall_ms;
            }
            self.arm(key);
        }
    }

    /// How long nothing is due, in milliseconds; none when nothing is planned.
    pub(crate) fn quiet_ms(&self, now: Now) -> Option<u64> {
        let wall = self.wall.next_deadline();
        let wall_ms = wall.map(|deadline| deadline.saturating_sub(now.wall_ms));
        let mono = self.mono.next_deadline();
        let mono_ms = mono.map(|deadline| deadline.saturating_sub(now.mono_ms));
        match (wall_ms, mono_ms) {
            (Some(wall_ms), Some(mono_ms)) => Some(wall_ms.min(mono_ms)),
            (one, other) => one.or(other),
        }
    }

    pub(crate) fn record(&mut self, key: Key, record: Record) {
        let Some(job) = self.jobs.get_mut(key) else {
            return;
        };
        tracing::debug!(
            job = %job.spec.name,
            fire_time = %crate::schedule::FireTime(record.fire_ms),
            outcome = record.outcome.name(),
            trace_id = record.trace.map(tracing::field::display),
            error = record.error.as_deref(),
            "settled"
        );
        if self.limits.reports {
            self.ended.push((Arc::clone(&job.spec), record.clone()));
        }
        job.record(record);
    }

    /// Up to where all fire times of a job have a verdict or a claim, for whoever comes after this process.
    pub(crate) fn accounted_ms(&self, key: Key) -> Option<u64> {
        let job = self.jobs.get(key)?;
        let runs = job.runs.iter().chain(&job.waiting);
        let runs = runs.filter_map(|run| self.runs.get(*run));
        let unclaimed = runs.filter(|run| run.claim.is_none());
        let open = unclaimed.map(|run| run.fire_ms);
        let open = open.chain(job.open_from_ms);
        let open = open.chain(job.verdicts.front().copied()).min();
        Some(open.map_or(job.last_ms, |open| job.last_ms.min(open.saturating_sub(1))))
    }

    pub(crate) fn pause(&mut self, key: Key) {
        if let Some(job) = self.jobs.get_mut(key)
            && job.state == JobState::Scheduled
        {
            job.state = JobState::Paused;
            self.disarm(key);
        }
    }

    /// What fell into the pause is not missed: it was not wanted.
    pub(crate) fn resume(&mut self, key: Key, now: Now) {
        if let Some(job) = self.jobs.get_mut(key)
            && job.state == JobState::Paused
        {
            job.state = JobState::Scheduled;
            job.last_ms = job.last_ms.max(now.wall_ms);
            self.arm(key);
        }
    }

    pub(crate) fn run_now(&mut self, key: Key, now: Now) -> bool {
        let Some(job) = self.jobs.get_mut(key) else {
            return false;
        };
        if job.state == JobState::Cancelled || self.is_stopped {
            return false;
        }
        let mut fire_ms = now.wall_ms;
        if job.spec.once {
            // No two firings have one name in the store.
            fire_ms = fire_ms.max(job.manual_ms + 1);
            fire_ms += u64::from(fire_ms == job.last_ms);
            job.manual_ms = fire_ms;
        }
        self.admit(key, fire_ms, Origin::InTime, None, now);
        true
    }

    /// Ends the job: its name is free, nothing of it fires any more. What runs goes on, with tries that are left.
    pub(crate) fn remove(&mut self, key: Key, now: Now) {
        self.drop_jittering(key, now);
        self.disarm(key);
        let Some(job) = self.jobs.get_mut(key) else {
            return;
        };
        job.state = JobState::Cancelled;
        let name = (Arc::clone(&job.spec.name), job.spec.shard);
        for run in job.waiting.clone() {
            self.drop_waiting(run, now);
        }
        self.leave_all(key, now);
        if self.by_name.get(&name) == Some(&key) {
            self.by_name.remove(&name);
        }
        self.forget_if_over(key);
    }

    /// A removed job stays until its last run has ended.
    pub(super) fn forget_if_over(&mut self, key: Key) {
        let is_over = |job: &Job| job.state == JobState::Cancelled && job.runs.is_empty();
        if self.jobs.get(key).is_some_and(is_over) {
            self.jobs.remove(key);
        }
    }

    /// Nothing fires any more; what waits for its first try is given up. What runs goes on.
    pub(crate) fn stop(&mut self, now: Now) {
        self.is_stopped = true;
        let keys: Vec<Key> = self.jobs.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.drop_jittering(key, now);
            self.disarm(key);
            self.leave_all(key, now);
        }
        let runs: Vec<Key> = self.runs.iter().map(|(key, _)| key).collect();
        for run in runs {
            self.give_up(run, now);
        }
    }

    pub(crate) fn next_random(&mut self) -> u64 {
        self.random.next_u64()
    }
}
