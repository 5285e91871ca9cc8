//! A job's state, and a run's.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use circuit::{Backoff, Breaker, Permit, State, TraceId};

use super::Now;
use super::slab::Key;
use crate::cancel::CancelToken;
use crate::history::{Counts, Outcome, Record};
use crate::meter::JobMeter;
use crate::once::{Claim, FiringId};
use crate::spec::JobSpec;

/// Whether a job fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JobState {
    /// It fires by its schedule.
    Scheduled,
    /// It does not, until it is resumed.
    Paused,
    /// It will not fire any more by itself: its last time has come.
    Done,
    /// It was cancelled.
    Cancelled,
}

impl JobState {
    /// A word for those who look.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
        }
    }
}

pub(crate) struct Job {
    pub(crate) spec: Arc<JobSpec>,
    pub(crate) state: JobState,
    pub(crate) added_ms: u64,
    /// Fire times up to this one were dealt with.
    pub(crate) last_ms: u64,
    /// The next fire time, and its timer.
    pub(crate) next: Option<(u64, timerwheel::Key)>,
    /// Runs that wait for a worker, run, or wait for their next try.
    pub(crate) runs: Vec<Key>,
    /// Jobs in whose place this one came, as long as they may run.
    pub(crate) follows: Vec<Key>,
    /// Runs that begin when those and the runs of the jobs before this one have ended (overlap policy).
    pub(crate) waiting: VecDeque<Key>,
    /// Firings of which the store is asked what became of them, in their order.
    pub(crate) verdicts: VecDeque<u64>,
    /// Claimed firings whose outcome is not this process's to find.
    pub(crate) foreign: BTreeMap<u64, Foreign>,
    /// Of those, firings up to here were too many to be followed on; they have their outcome.
    pub(crate) given_up_to_ms: u64,
    /// The last one that [`run_now`](super::Core::run_now) made.
    pub(crate) manual_ms: u64,
    /// Firings from here on may be found again after a restart: they were given up without a verdict.
    pub(crate) open_from_ms: Option<u64>,
    /// None as long as nothing speaks against the job: ten thousand good ones need no ten thousand breakers.
    pub(crate) breaker: Option<Box<Breaker>>,
    pub(crate) history: VecDeque<Record>,
    pub(crate) counts: Counts,
    pub(crate) meter: JobMeter,
}

impl Job {
    pub(crate) fn id(&self, fire_ms: u64) -> FiringId {
        FiringId {
            job: self.spec.name.to_string(),
            fire_ms,
            shard: self.spec.shard,
        }
    }

    /// A firing is given up without a verdict: the next start is to find it.
    pub(crate) fn leave_open(&mut self, fire_ms: u64) {
        let open = self.open_from_ms.map_or(fire_ms, |ms| ms.min(fire_ms));
        self.open_from_ms = Some(open);
    }

    /// Firings up to there that are not followed have their outcome.
    pub(crate) fn give_up_to(&mut self, fire_ms: u64) {
        self.given_up_to_ms = self.given_up_to_ms.max(fire_ms);
    }

    /// Whether a firing has its outcome in this life whatever the store says of it.
    pub(crate) fn is_given_up(&self, fire_ms: u64) -> bool {
        match self.foreign.get(&fire_ms) {
            Some(how) => *how == Foreign::GivenUp,
            None => fire_ms <= self.given_up_to_ms,
        }
    }

    pub(crate) fn record(&mut self, record: Record) {
        self.counts.add(record.outcome, 1);
        self.meter.count(&self.spec.name, record.outcome, 1);
        while self.history.len() >= self.spec.history_max.max(1) {
            self.history.pop_front();
        }
        if self.spec.history_max > 0 {
            self.history.push_back(record);
        }
    }

    /// A firing that had no run, or whose run never began.
    pub(crate) fn record_unrun(&self, fire_ms: u64, outcome: Outcome, at_ms: u64) -> Record {
        Record {
            fire_ms,
            began_ms: None,
            ended_ms: at_ms,
            attempts: 0,
            outcome,
            trace: None,
            error: None,
        }
    }

    /// Firings that wait for an answer.
    pub(crate) fn in_doubt(&self) -> usize {
        let foreign = self.foreign.values();
        foreign.filter(|how| **how == Foreign::Asked).count()
    }

    pub(crate) fn breaker_state(&self, mono_ms: u64) -> State {
        let breaker = self.breaker.as_ref();
        breaker.map_or(State::Closed, |breaker| breaker.state(mono_ms))
    }
}

/// What is known of a firing that has no outcome, or had none when it was last heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// Another process claimed it. It may have died since.
    Held,
    /// It is in doubt until somebody says what happened.
    Asked,
    /// It has its outcome here, [`Unclaimed`](Outcome::Unclaimed): whatever the store says of it is for the next start.
    GivenUp,
}

/// Why a firing runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Its time has come.
    InTime,
    /// Its time had passed, and the misfire policy runs it.
    Missed,
    /// Its runner died, and it runs again.
    Rerun,
}

pub(crate) struct Run {
    pub(crate) job: Key,
    pub(crate) fire_ms: u64,
    pub(crate) origin: Origin,
    pub(crate) attempts: u32,
    /// How the last try failed.
    pub(crate) failed: Option<(Outcome, Arc<str>)>,
    pub(crate) backoff: Backoff,
    pub(crate) trace: TraceId,
    pub(crate) cancel: CancelToken,
    pub(crate) phase: RunPhase,
    /// First try, wall clock.
    pub(crate) began_ms: Option<u64>,
    /// This try, steady clock.
    pub(crate) try_began_ms: u64,
    pub(crate) claim: Option<Claim>,
    /// When the claim was last seen to hold.
    pub(crate) kept: Now,
    pub(crate) permit: Option<Permit>,
    pub(crate) timeout: Option<timerwheel::Key>,
    /// Since when the store does not say whether the firing is ours; steady clock.
    pub(crate) unclaimed_since_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunPhase {
    /// Until other runs of its job have ended.
    Waiting,
    /// In the queue of those that wait for a worker.
    Ready,
    /// On a worker or a runtime.
    Running,
    /// Until its next try.
    Resting(timerwheel::Key),
}
