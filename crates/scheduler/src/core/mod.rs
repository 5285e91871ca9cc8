//! What runs when: jobs, firings and runs as one state machine. Time is an argument; threads, clocks and the store are the
//! runner's.

pub(crate) mod job;
mod missed;
mod run;
pub(crate) mod slab;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use circuit::{Backoff, SplitMix64, TraceId};
use timerwheel::Wheel;

use crate::cancel::{CancelCause, CancelToken};
use crate::history::{Outcome, Record};
use crate::meter::{JobMeter, Meter};
use crate::once::{Claim, FiringId};
use crate::policy::{OnFull, Overlap};
use crate::schedule::ScheduleError;
use crate::spec::JobSpec;
use job::{Job, JobState, Run, RunPhase};
pub(crate) use run::{Start, Tried, Wanted};
use slab::{Key, Slab};

/// Looking at so many fire times takes as long as a timer.
const LOOKS_A_TIMER: usize = 8;

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

/// A missed firing that other replicas have to hear of.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) job: Key,
    pub(crate) id: FiringId,
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
    pub(crate) futures_running: usize,
    /// Runs whose claim a worker waits for.
    pub(crate) claiming: usize,
    pub(crate) verdicts: VecDeque<Verdict>,
    /// Claims of runs that ended without a worker.
    pub(crate) unsettled: Vec<(Claim, Outcome)>,
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
            futures_running: 0,
            claiming: 0,
            verdicts: VecDeque::new(),
            unsettled: Vec::new(),
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
            open_from_ms: None,
            breaker: None,
            history: VecDeque::new(),
            counts: Default::default(),
            meter: JobMeter::default(),
            spec: Arc::new(spec),
        };
        let key = self.jobs.insert(job);
        self.by_name.insert(name, key);
        self.arm(key);
        let job = self.jobs.get(key).expect("inserted above");
        if job.state == JobState::Done && job.spec.schedule.is_single() && !job.spec.once {
            let at_ms = job.spec.schedule.next_after_ms(0, job.added_ms);
            self.record_unrun(key, at_ms.unwrap_or(0), Outcome::Misfired, now);
        }
        Ok(key)
    }

    /// Takes jobs out and adds others, all or nothing. What one of the old still runs counts for the new one of its name.
    pub(crate) fn change(
        &mut self,
        gone: &[Key],
        new: Vec<(JobSpec, Option<u64>)>,
        now: Now,
    ) -> Result<Vec<Key>, ScheduleError> {
        self.may_change(gone, &new)?;
        let mut before = HashMap::new();
        for key in gone {
            if let Some(job) = self.jobs.get(*key) {
                let name = (Arc::clone(&job.spec.name), job.spec.shard);
                let follows = job.follows.iter().copied().chain([*key]).collect();
                before.insert(name, follows);
            }
            self.remove(*key, now);
        }
        let mut keys = Vec::with_capacity(new.len());
        for (spec, accounted_ms) in new {
            let follows: Option<Vec<Key>> = before.remove(&(Arc::clone(&spec.name), spec.shard));
            let key = self.add(spec, accounted_ms, now)?;
            let follows = follows.into_iter().flatten();
            let alive: Vec<Key> = follows
                .filter(|old| self.jobs.get(*old).is_some())
                .collect();
            if let Some(job) = self.jobs.get_mut(key) {
                job.follows = alive;
            }
            keys.push(key);
        }
        Ok(keys)
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

    /// Fires what is due, at most about `budget` timers; whether there is more.
    pub(crate) fn advance(&mut self, now: Now, budget: usize) -> bool {
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

    /// The job's timer fired: sorts out what has come since it fired last. Returns how many fire times it looked at.
    fn due(&mut self, key: Key, now: Now) -> usize {
        let Some(job) = self.jobs.get_mut(key) else {
            return 0;
        };
        job.next = None;
        let grace_ms = job.spec.misfire_after_ms.saturating_add(job.spec.jitter_ms);
        let due = missed::sort(
            &mut job.spec.schedule.cursor(job.added_ms),
            job.last_ms,
            now.wall_ms,
            now.wall_ms.saturating_sub(grace_ms),
            job.spec.misfire,
        );
        job.last_ms = due
            .run
            .iter()
            .chain(&due.missed)
            .copied()
            .max()
            .unwrap_or(job.last_ms);
        if due.missed_before > 0 {
            job.counts.add(Outcome::Misfired, due.missed_before);
            job.meter
                .count(&job.spec.name, Outcome::Misfired, due.missed_before);
            let spec = &job.spec;
            tracing::warn!(
                job = %spec.name,
                missed = due.missed_before,
                is_more = due.is_more,
                "more firings were missed than are named"
            );
        }
        let is_once = job.spec.once;
        for fire_ms in due.missed {
            if is_once {
                self.leave_to_store(key, fire_ms, now);
            } else {
                self.record_unrun(key, fire_ms, Outcome::Misfired, now);
            }
        }
        for fire_ms in due.run {
            self.fire(key, fire_ms, now);
        }
        self.arm(key);
        due.looked_at
    }

    /// Another replica may have run it: the store has the verdict. When too many wait for theirs, the next start finds it.
    fn leave_to_store(&mut self, key: Key, fire_ms: u64, now: Now) {
        let Some(job) = self.jobs.get_mut(key) else {
            return;
        };
        if self.verdicts.len() >= self.limits.queue_max {
            job.leave_open(fire_ms);
            return self.record_unrun(key, fire_ms, Outcome::Unclaimed, now);
        }
        job.verdicts.push_back(fire_ms);
        let id = job.id(fire_ms);
        self.verdicts.push_back(Verdict { job: key, id });
    }

    /// The store said what became of a missed firing.
    pub(crate) fn verdict(&mut self, verdict: &Verdict, outcome: Option<Outcome>, now: Now) {
        if let Some(job) = self.jobs.get_mut(verdict.job) {
            job.verdicts.pop_front();
        }
        if let Some(outcome) = outcome {
            self.record_unrun(verdict.job, verdict.id.fire_ms, outcome, now);
        }
    }

    /// Decides by the overlap policy what becomes of a firing.
    fn fire(&mut self, key: Key, fire_ms: u64, now: Now) {
        let busy = self.busy_before(key);
        let Some(job) = self.jobs.get_mut(key) else {
            return;
        };
        let is_busy = !job.runs.is_empty() || !busy.is_empty();
        match job.spec.overlap {
            _ if !is_busy => self.enqueue(key, fire_ms, None, now),
            Overlap::Allow => self.enqueue(key, fire_ms, None, now),
            Overlap::Queue(max) if job.waiting.len() < max as usize => {
                job.waiting.push_back(fire_ms);
            }
            Overlap::Skip | Overlap::Queue(_) => {
                self.record_unrun(key, fire_ms, Outcome::Overlapped, now);
            }
            Overlap::CancelPrevious => {
                let superseded = job.waiting.pop_front();
                job.waiting.push_back(fire_ms);
                if let Some(superseded) = superseded {
                    self.record_unrun(key, superseded, Outcome::Overlapped, now);
                }
                for job in busy.into_iter().chain([key]) {
                    self.cancel_runs(job, CancelCause::Superseded, now);
                }
            }
        }
    }

    /// The jobs in whose place this one came and that still run.
    pub(crate) fn busy_before(&self, key: Key) -> Vec<Key> {
        let follows = self.jobs.get(key).map_or(&[][..], |job| &job.follows);
        let runs = |key: &Key| self.jobs.get(*key).is_some_and(|job| !job.runs.is_empty());
        follows.iter().copied().filter(runs).collect()
    }

    /// Makes a run of a firing and puts it behind those that wait for a worker.
    pub(crate) fn enqueue(&mut self, key: Key, fire_ms: u64, claim: Option<Claim>, now: Now) {
        // A claim is never turned away: its firing would be in doubt.
        if self.ready.len() >= self.limits.queue_max && claim.is_none() {
            let oldest = match self.limits.on_full {
                OnFull::RejectNew => None,
                OnFull::DropOldest => self.unclaimed_ready(),
            };
            let Some(oldest) = oldest else {
                return self.record_unrun(key, fire_ms, Outcome::QueueFull, now);
            };
            self.ready.retain(|run| *run != oldest);
            self.end_unrun(oldest, Outcome::QueueFull, None, now);
        }
        let trace = loop {
            let (high, low) = (self.next_random(), self.next_random());
            let bytes = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
            if let Some(trace) = TraceId::from_bytes(bytes) {
                break trace;
            }
        };
        let Some(job) = self.jobs.get_mut(key) else {
            return;
        };
        let run = self.runs.insert(Run {
            job: key,
            fire_ms,
            attempts: 0,
            backoff: Backoff::new(),
            trace,
            cancel: CancelToken::default(),
            phase: RunPhase::Ready,
            began_ms: None,
            try_began_ms: 0,
            claim,
            kept: now,
            permit: None,
            timeout: None,
            unclaimed_since_ms: None,
        });
        job.runs.push(run);
        self.ready.push_back(run);
    }

    fn unclaimed_ready(&self) -> Option<Key> {
        let is_unclaimed = |run: &&Key| {
            let run = self.runs.get(**run);
            run.is_some_and(|run| run.claim.is_none() && run.attempts == 0)
        };
        self.ready.iter().find(is_unclaimed).copied()
    }

    pub(crate) fn record_unrun(&mut self, key: Key, fire_ms: u64, outcome: Outcome, now: Now) {
        if let Some(job) = self.jobs.get(key) {
            let record = job.record_unrun(fire_ms, outcome, now.wall_ms);
            self.record(key, record);
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
        let runs = job.runs.iter().filter_map(|run| self.runs.get(*run));
        let unclaimed = runs.filter(|run| run.claim.is_none());
        let open = unclaimed.map(|run| run.fire_ms);
        let open = open
            .chain(job.waiting.iter().copied())
            .chain(job.open_from_ms);
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
        let wanted = self
            .jobs
            .get(key)
            .is_some_and(|job| job.state != JobState::Cancelled);
        if wanted && !self.is_stopped {
            self.fire(key, now.wall_ms, now);
        }
        wanted && !self.is_stopped
    }

    /// Ends the job: its name is free, nothing of it fires any more. What runs goes on, with tries that are left.
    pub(crate) fn remove(&mut self, key: Key, now: Now) {
        self.disarm(key);
        let Some(job) = self.jobs.get_mut(key) else {
            return;
        };
        job.state = JobState::Cancelled;
        let name = (Arc::clone(&job.spec.name), job.spec.shard);
        let waiting: Vec<u64> = job.waiting.drain(..).collect();
        for fire_ms in waiting {
            self.record_unrun(key, fire_ms, Outcome::Dropped, now);
        }
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
            self.disarm(key);
            let Some(job) = self.jobs.get_mut(key) else {
                continue;
            };
            let waiting: Vec<u64> = job.waiting.drain(..).collect();
            waiting.iter().for_each(|fire_ms| job.leave_open(*fire_ms));
            for fire_ms in waiting {
                self.record_unrun(key, fire_ms, Outcome::Dropped, now);
            }
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
