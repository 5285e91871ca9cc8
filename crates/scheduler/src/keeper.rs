//! The threads that talk to the store about firings that no worker has in hand: one keeps the claims of long runs; the
//! other tells what was missed, finds firings whose runners died, remembers how far each job came.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use parking_lot::MutexGuard;

use crate::core::slab::Key;
use crate::history::Outcome;
use crate::once::{Claim, Claimed, Doubt, FiringId, Once, OnceError};
use crate::policy::InDoubt;
use crate::runner::Shared;

/// Doubts that wait for an answer are reported once, as long as there are no more of them.
const REPORTED_MAX: usize = 10_000;

pub(crate) fn run(shared: &Shared) {
    let Some(once) = shared.once.as_deref() else {
        return;
    };
    let period = Duration::from_millis((once.period_ms() / 3).max(10));
    let mut keeper = Keeper {
        shared,
        once,
        reported: HashSet::new(),
        remembered: HashMap::new(),
    };
    loop {
        keeper.turn();
        let mut state = shared.lock();
        if state.is_over {
            return;
        }
        if state.core.verdicts.is_empty() {
            shared.keeper.wait_for(&mut state, period);
        } else {
            // Only a store that does not answer leaves some.
            drop(state);
            std::thread::sleep(period.min(Duration::from_millis(100)));
        }
    }
}

/// Keeps the claims of long runs, until the end. On a thread of its own: the rest of what the store is told and asked waits
/// for answers, one by one, and a claim must not lapse meanwhile.
pub(crate) fn run_claims(shared: &Shared) {
    let Some(once) = shared.once.as_deref() else {
        return;
    };
    let period = Duration::from_millis((once.period_ms() / 3).max(10));
    let mut state = shared.lock();
    while !state.is_over {
        let mut portion = Some(0);
        while let Some(from) = portion {
            let now = shared.now();
            let extend = |claim: &Claim| once.extend(claim);
            portion = state.core.keep_claims(from, now, extend);
            MutexGuard::bump(&mut state);
        }
        shared.claims.wait_for(&mut state, period);
    }
}

struct Keeper<'a> {
    shared: &'a Shared,
    once: &'a dyn Once,
    reported: HashSet<FiringId>,
    remembered: HashMap<Key, u64>,
}

impl Keeper<'_> {
    fn turn(&mut self) {
        let done = self
            .tell_missed()
            .and_then(|()| self.sweep())
            .and_then(|()| remember(self.shared, self.once, &mut self.remembered));
        if let Err(error) = done {
            tracing::warn!(%error, "the store of claims does not answer");
        }
    }

    fn tell_missed(&self) -> Result<(), OnceError> {
        loop {
            let id = {
                let state = self.shared.lock();
                match state.core.verdicts.front() {
                    Some(verdict) => verdict.id.clone(),
                    None => return Ok(()),
                }
            };
            let outcome = match self.once.claim(&id)? {
                Claimed::Fresh(claim) => {
                    self.once.settle(claim, Outcome::Misfired);
                    Some(Outcome::Misfired)
                }
                // Somebody ran it, or the sweep will find it.
                Claimed::Elsewhere | Claimed::InDoubt { .. } => None,
            };
            self.shared.with(|core, now| {
                if let Some(verdict) = core.verdicts.pop_front() {
                    core.verdict(&verdict, outcome, now);
                }
            });
        }
    }

    /// Looks for firings whose runners died, here or elsewhere.
    fn sweep(&mut self) -> Result<(), OnceError> {
        if !self.shared.lock().core.has_once_jobs() {
            return Ok(());
        }
        let doubts = self.once.in_doubt()?;
        self.reported
            .retain(|id| doubts.iter().any(|doubt| doubt.id == *id));
        for doubt in doubts {
            self.decide(doubt)?;
        }
        Ok(())
    }

    fn decide(&mut self, doubt: Doubt) -> Result<(), OnceError> {
        let Doubt { id, rerun, .. } = doubt;
        let policy = {
            let state = self.shared.lock();
            let key = state.core.find(&id.job, id.shard);
            let job = key.and_then(|key| state.core.jobs.get(key));
            match job.filter(|job| job.spec.once) {
                Some(job) if !state.core.has(&id) => job.spec.in_doubt,
                _ => return Ok(()),
            }
        };
        if policy == InDoubt::Ask && !rerun {
            if self.reported.len() < REPORTED_MAX && self.reported.insert(id.clone()) {
                self.report(&id, Outcome::InDoubt);
            }
            return Ok(());
        }
        let Claimed::InDoubt { claim, rerun } = self.once.claim(&id)? else {
            return Ok(());
        };
        if rerun || policy == InDoubt::Rerun {
            self.once.renew(&claim)?;
            tracing::warn!(firing = %id, "in doubt: runs again");
            // Given back, it stays in doubt.
            drop(self.shared.with(|core, now| core.rerun(&id, claim, now)));
        } else {
            self.once.settle(claim, Outcome::InDoubt);
            self.report(&id, Outcome::InDoubt);
        }
        Ok(())
    }

    fn report(&self, id: &FiringId, outcome: Outcome) {
        tracing::warn!(firing = %id, "in doubt: its runner died while it ran");
        self.shared.with(|core, now| {
            if let Some(key) = core.find(&id.job, id.shard) {
                core.record_unrun(key, id.fire_ms, outcome, now);
            }
        });
    }
}

/// Tells the store how far each job came, where that is news.
pub(crate) fn remember(
    shared: &Shared,
    once: &dyn Once,
    remembered: &mut HashMap<Key, u64>,
) -> Result<(), OnceError> {
    let news: Vec<_> = {
        let state = shared.lock();
        let core = &state.core;
        remembered.retain(|key, _| core.jobs.get(*key).is_some());
        let once_jobs = core.jobs.iter().filter(|(_, job)| job.spec.once);
        let reached = once_jobs.filter_map(|(key, job)| {
            let spec = std::sync::Arc::clone(&job.spec);
            Some((key, spec, core.accounted_ms(key)?))
        });
        reached
            .filter(|(key, _, ms)| remembered.get(key) != Some(ms))
            .collect()
    };
    for (key, spec, ms) in news {
        once.remember(&spec.name, spec.shard, ms)?;
        remembered.insert(key, ms);
    }
    Ok(())
}
