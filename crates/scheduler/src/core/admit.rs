//! Firings from their time on: those that run, wait for others of their job, are turned away, or are left to the store.

use circuit::{Backoff, TraceId};

use super::job::{Foreign, Origin, Run, RunPhase};
use super::slab::Key;
use super::{Core, NotOurs, Now, Verdict, missed};
use crate::cancel::{CancelCause, CancelToken};
use crate::history::Outcome;
use crate::once::{Claim, FiringId};
use crate::policy::{OnFull, Overlap};

/// So many firings of a job are followed that others have in hand.
const ELSEWHERE_MAX: usize = 10_000;

impl Core {
    /// The job's timer fired: sorts out what has come since it fired last. Returns how many fire times it looked at.
    pub(super) fn due(&mut self, key: Key, now: Now) -> usize {
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
        let looked_at = due.run.iter().chain(&due.kept).chain(&due.missed);
        job.last_ms = looked_at.copied().max().unwrap_or(job.last_ms);
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
        for fire_ms in due.missed {
            self.turn_away(key, fire_ms, Outcome::Misfired, now);
        }
        for fire_ms in due.kept {
            self.admit(key, fire_ms, Origin::Missed, None, now);
        }
        for fire_ms in due.run {
            self.admit(key, fire_ms, Origin::InTime, None, now);
        }
        self.arm(key);
        due.looked_at
    }

    /// Decides by the overlap policy what becomes of a firing. Those that the job owes, missed ones and reruns, are never
    /// turned away for what still runs: they wait for it.
    pub(super) fn admit(
        &mut self,
        key: Key,
        fire_ms: u64,
        origin: Origin,
        claim: Option<Claim>,
        now: Now,
    ) {
        let Some(job) = self.jobs.get(key) else {
            return;
        };
        if job.spec.once && self.runs_firing(key, fire_ms) {
            // A rerun that came first.
            return;
        }
        match job.spec.overlap {
            Overlap::Allow => self.enqueue(key, fire_ms, origin, claim, None, now),
            _ if !self.is_busy(key) => self.enqueue(key, fire_ms, origin, claim, None, now),
            _ if origin != Origin::InTime => self.wait(key, fire_ms, origin, claim, now),
            Overlap::Queue(max) if self.waiting(key, origin).count() < max as usize => {
                self.wait(key, fire_ms, origin, claim, now);
            }
            Overlap::CancelPrevious => self.supersede(key, fire_ms, now),
            Overlap::Skip | Overlap::Queue(_) => {
                self.turn_away(key, fire_ms, Outcome::Overlapped, now);
            }
        }
    }

    /// Whether anything of the job, or of those in whose place it came, has a run.
    fn is_busy(&self, key: Key) -> bool {
        let has_runs = self.jobs.get(key).is_some_and(|job| !job.runs.is_empty());
        has_runs || !self.busy_before(key).is_empty()
    }

    /// The jobs in whose place this one came and that still run.
    pub(super) fn busy_before(&self, key: Key) -> Vec<Key> {
        let follows = self.jobs.get(key).map_or(&[][..], |job| &job.follows);
        let runs = |key: &Key| self.jobs.get(*key).is_some_and(|job| !job.runs.is_empty());
        follows.iter().copied().filter(runs).collect()
    }

    fn waiting(&self, key: Key, origin: Origin) -> impl Iterator<Item = Key> {
        let waiting = self.jobs.get(key).into_iter().flat_map(|job| &job.waiting);
        let is_of = move |run: &Key| self.runs.get(*run).is_some_and(|run| run.origin == origin);
        waiting.copied().filter(is_of)
    }

    /// Has a firing wait until the runs of its job have ended.
    fn wait(&mut self, key: Key, fire_ms: u64, origin: Origin, claim: Option<Claim>, now: Now) {
        let Some(job) = self.jobs.get(key) else {
            return;
        };
        let (waiting, keeps) = (job.waiting.len(), job.spec.misfire.keeps());
        if origin == Origin::Missed && self.waiting(key, origin).count() >= keeps {
            // Missed in several portions, they are no more than those of one.
            let oldest = self.waiting(key, origin).next();
            oldest
                .into_iter()
                .for_each(|run| self.end_unrun(run, Outcome::Misfired, None, now));
        } else if waiting >= self.limits.queue_max && claim.is_none() {
            return self.turn_away(key, fire_ms, Outcome::QueueFull, now);
        }
        let run = self.make_run(key, fire_ms, origin, claim, RunPhase::Waiting, now);
        if let Some(job) = self.jobs.get_mut(key) {
            job.waiting.push_back(run);
        }
    }

    /// The firing takes the place of all earlier ones: what runs is asked to stop, what has not begun makes way. Where one
    /// of those waits for a worker, the new one gets its place in that queue: else, with workers busy, none would ever come
    /// to its front.
    fn supersede(&mut self, key: Key, fire_ms: u64, now: Now) {
        let waiting = self.jobs.get(key).map(|job| job.waiting.clone());
        for run in waiting.unwrap_or_default() {
            self.end_unrun(run, Outcome::Overlapped, None, now);
        }
        let mut place = None;
        for job in self.busy_before(key).into_iter().chain([key]) {
            let runs = self.jobs.get(job).map(|job| job.runs.clone());
            for run in runs.unwrap_or_default() {
                place = self.make_way(run, now).or(place);
            }
        }
        match self.is_busy(key) {
            true => self.wait(key, fire_ms, Origin::InTime, None, now),
            false => self.enqueue(key, fire_ms, Origin::InTime, None, place, now),
        }
    }

    /// Where a run waited for a worker that ends for this, that place.
    fn make_way(&mut self, key: Key, now: Now) -> Option<usize> {
        let run = self.runs.get(key)?;
        let outcome = match run.attempts {
            0 => Outcome::Overlapped,
            _ => Outcome::Cancelled,
        };
        let mut place = None;
        match run.phase {
            // It asks the store whether it may. It has its time until the next firing, as if it had begun.
            RunPhase::Running if run.began_ms.is_none() => {}
            RunPhase::Running => run.cancel.cancel(CancelCause::Superseded),
            RunPhase::Ready => {
                place = self.ready.iter().position(|ready| *ready == key);
                self.end_unrun(key, outcome, None, now);
            }
            RunPhase::Waiting | RunPhase::Resting(_) => self.end_unrun(key, outcome, None, now),
        }
        place
    }

    /// Makes a run of a firing and puts it behind those that wait for a worker, or at a place among them that another left.
    fn enqueue(
        &mut self,
        key: Key,
        fire_ms: u64,
        origin: Origin,
        claim: Option<Claim>,
        place: Option<usize>,
        now: Now,
    ) {
        // A claim is never turned away: its firing would be in doubt.
        if self.ready.len() >= self.limits.queue_max && claim.is_none() {
            let oldest = match self.limits.on_full {
                OnFull::RejectNew => None,
                OnFull::DropOldest => self.unclaimed_ready(),
            };
            let Some(oldest) = oldest else {
                return self.turn_away(key, fire_ms, Outcome::QueueFull, now);
            };
            self.end_unrun(oldest, Outcome::QueueFull, None, now);
        }
        let run = self.make_run(key, fire_ms, origin, claim, RunPhase::Ready, now);
        if let Some(job) = self.jobs.get_mut(key) {
            job.runs.push(run);
        }
        self.make_ready(run, place);
    }

    fn unclaimed_ready(&self) -> Option<Key> {
        let is_unclaimed = |run: &&Key| {
            let run = self.runs.get(**run);
            run.is_some_and(|run| run.claim.is_none() && run.attempts == 0)
        };
        self.ready.iter().find(is_unclaimed).copied()
    }

    fn make_run(
        &mut self,
        job: Key,
        fire_ms: u64,
        origin: Origin,
        claim: Option<Claim>,
        phase: RunPhase,
        now: Now,
    ) -> Key {
        let trace = loop {
            let (high, low) = (self.next_random(), self.next_random());
            let bytes = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
            if let Some(trace) = TraceId::from_bytes(bytes) {
                break trace;
            }
        };
        self.runs.insert(Run {
            job,
            fire_ms,
            origin,
            attempts: 0,
            failed: None,
            backoff: Backoff::new(),
            trace,
            cancel: CancelToken::default(),
            phase,
            began_ms: None,
            try_began_ms: 0,
            claim,
            kept: now,
            permit: None,
            timeout: None,
            unclaimed_since_ms: None,
        })
    }

    /// A firing does not run here. When others may have claimed it, the store is asked first: it may have run, or be in
    /// doubt. That is so for missed ones, and for those of the time before this job was added.
    pub(super) fn turn_away(&mut self, key: Key, fire_ms: u64, outcome: Outcome, now: Now) {
        match self.may_be_claimed(key, fire_ms, outcome) {
            true => self.leave_to_store(key, fire_ms, outcome, now),
            false => self.record_unrun(key, fire_ms, outcome, now),
        }
    }

    pub(super) fn may_be_claimed(&self, key: Key, fire_ms: u64, outcome: Outcome) -> bool {
        let once = self.jobs.get(key).filter(|job| job.spec.once);
        once.is_some_and(|job| outcome == Outcome::Misfired || fire_ms <= job.added_ms)
    }

    /// When too many wait for their verdict, the next start finds it.
    pub(super) fn leave_to_store(&mut self, key: Key, fire_ms: u64, outcome: Outcome, now: Now) {
        let Some(job) = self.jobs.get_mut(key) else {
            return;
        };
        if self.verdicts.len() >= self.limits.queue_max {
            job.leave_open(fire_ms);
            self.follow(key, fire_ms, Foreign::GivenUp, now);
            return self.record_unrun(key, fire_ms, Outcome::Unclaimed, now);
        }
        job.verdicts.push_back(fire_ms);
        let (job, id) = (key, job.id(fire_ms));
        self.verdicts.push_back(Verdict { job, id, outcome });
    }

    /// The store said what became of the firing whose turn it is: none, when it is settled already.
    pub(crate) fn verdict(&mut self, found: Option<NotOurs>, now: Now) {
        let Some(verdict) = self.verdicts.pop_front() else {
            return;
        };
        let Some(job) = self.jobs.get_mut(verdict.job) else {
            return;
        };
        job.verdicts.pop_front();
        match found {
            Some(NotOurs::Ended(outcome)) => {
                self.told.tell(verdict.id.clone(), outcome);
                self.record_unrun(verdict.job, verdict.id.fire_ms, outcome, now);
            }
            Some(NotOurs::Open(how)) => self.follow(verdict.job, verdict.id.fire_ms, how, now),
            None => {}
        }
    }

    /// A firing whose runner died was given to this process, to run it again.
    pub(crate) fn rerun(&mut self, id: &FiringId, claim: Claim, now: Now) {
        // Given back, it stays in doubt.
        let Some(key) = self.find(&id.job, id.shard).filter(|_| !self.is_stopped) else {
            return;
        };
        if !self.has(id)
            && let Some(job) = self.jobs.get_mut(key)
        {
            job.foreign.remove(&id.fire_ms);
            self.admit(key, id.fire_ms, Origin::Rerun, Some(claim), now);
        }
    }

    /// Whether this process has the firing in hand, or will have when the clock's thread or the store gets round to it.
    pub(crate) fn has(&self, id: &FiringId) -> bool {
        let Some(key) = self.find(&id.job, id.shard) else {
            return false;
        };
        let Some(job) = self.jobs.get(key) else {
            return false;
        };
        let is_to_come = job.next.is_some_and(|(next_ms, _)| next_ms <= id.fire_ms);
        is_to_come || job.verdicts.contains(&id.fire_ms) || self.runs_firing(key, id.fire_ms)
    }

    fn runs_firing(&self, key: Key, fire_ms: u64) -> bool {
        let jobs = self.busy_before(key).into_iter().chain([key]);
        let runs = jobs
            .filter_map(|key| self.jobs.get(key))
            .flat_map(|job| job.runs.iter().chain(&job.waiting));
        let mut runs = runs.filter_map(|run| self.runs.get(*run));
        runs.any(|run| run.fire_ms == fire_ms)
    }

    /// Notes what the store is to be asked about later, or not at all.
    pub(crate) fn follow(&mut self, key: Key, fire_ms: u64, how: Foreign, now: Now) {
        let Some(job) = self.jobs.get_mut(key) else {
            return;
        };
        job.foreign.insert(fire_ms, how);
        if self.is_stopped {
            self.leave_all(key, now);
        } else if job.foreign.len() > ELSEWHERE_MAX {
            self.follow_oldest_no_more(key, now);
        }
    }

    /// The oldest of too many gets its outcome, where it has none.
    fn follow_oldest_no_more(&mut self, key: Key, now: Now) {
        let job = self.jobs.get_mut(key);
        let Some((job, (oldest_ms, how))) = job.and_then(|job| {
            let oldest = job.foreign.pop_first()?;
            Some((job, oldest))
        }) else {
            return;
        };
        match how {
            Foreign::Held => self.record_unrun(key, oldest_ms, Outcome::Elsewhere, now),
            Foreign::Asked => {
                job.give_up_to(oldest_ms);
                self.record_unrun(key, oldest_ms, Outcome::InDoubt, now);
            }
            Foreign::GivenUp => job.give_up_to(oldest_ms),
        }
    }

    /// The firings that others have in hand, or had when it was last looked.
    pub(crate) fn foreign(&self) -> Vec<(Key, u64)> {
        let jobs = self.jobs.iter();
        let firings = jobs.flat_map(|(key, job)| {
            let open = job.foreign.iter();
            let open = open.filter(|(_, how)| **how != Foreign::GivenUp);
            open.map(move |(fire_ms, _)| (key, *fire_ms))
        });
        firings.collect()
    }

    /// Somebody else settled the firing.
    pub(crate) fn settled_elsewhere(&mut self, key: Key, fire_ms: u64, now: Now) {
        let job = self.jobs.get_mut(key);
        let was = job.and_then(|job| job.foreign.remove(&fire_ms));
        if was.is_some() {
            self.record_unrun(key, fire_ms, Outcome::Elsewhere, now);
        }
    }

    /// A firing in doubt ends here without running again.
    pub(crate) fn settled_in_doubt(&mut self, key: Key, fire_ms: u64, now: Now) {
        if let Some(job) = self.jobs.get_mut(key) {
            job.foreign.remove(&fire_ms);
            self.told.tell(job.id(fire_ms), Outcome::InDoubt);
        }
        self.record_unrun(key, fire_ms, Outcome::InDoubt, now);
    }

    /// At the end of the job or of all: what others have in hand is theirs. What waits for an answer goes on waiting.
    pub(super) fn leave_all(&mut self, key: Key, now: Now) {
        let Some(job) = self.jobs.get_mut(key) else {
            return;
        };
        let elsewhere = std::mem::take(&mut job.foreign);
        for (fire_ms, how) in elsewhere {
            if how == Foreign::Held {
                self.record_unrun(key, fire_ms, Outcome::Elsewhere, now);
            }
        }
    }

    /// Its job goes. A rerun is in doubt as before, and that is no outcome.
    pub(super) fn drop_waiting(&mut self, key: Key, now: Now) {
        let is_rerun = self.runs.get(key).is_some_and(|run| run.claim.is_some());
        match is_rerun {
            true => self.forget_waiting(key),
            false => self.end_unrun(key, Outcome::Dropped, None, now),
        }
    }

    fn forget_waiting(&mut self, key: Key) {
        let Some(run) = self.runs.remove(key) else {
            return;
        };
        if let Some(job) = self.jobs.get_mut(run.job) {
            job.waiting.retain(|waiting| *waiting != key);
        }
    }

    pub(super) fn record_unrun(&mut self, key: Key, fire_ms: u64, outcome: Outcome, now: Now) {
        if let Some(job) = self.jobs.get(key) {
            let record = job.record_unrun(fire_ms, outcome, now.wall_ms);
            self.record(key, record);
        }
    }
}
