//! The threads that talk to the store about firings that no worker has in hand: one keeps the claims of long runs; the
//! other tells what was missed, finds firings whose runners died, remembers how far each job came.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use parking_lot::MutexGuard;

use crate::core::NotOurs;
use crate::core::job::Foreign;
use crate::core::slab::Key;
use crate::history::Outcome;
use crate::once::{Claim, Claimed, FiringId, Once, OnceError, Unsettled};
use crate::policy::InDoubt;
use crate::runner::Shared;

pub(crate) fn run(shared: &Shared) {
    let Some(once) = shared.once.as_deref() else {
        return;
    };
    let period = Duration::from_millis((once.period_ms() / 3).max(10));
    let mut keeper = Keeper {
        shared,
        once,
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

    /// Asks what became of firings that do not run here, and settles those that nobody claimed.
    fn tell_missed(&self) -> Result<(), OnceError> {
        loop {
            let (id, outcome) = {
                let state = self.shared.lock();
                match state.core.verdicts.front() {
                    Some(verdict) => (verdict.id.clone(), verdict.outcome),
                    None => return Ok(()),
                }
            };
            let found = match self.once.claim(&id)? {
                Claimed::Fresh(claim) => {
                    self.once.settle(claim, outcome);
                    Some(NotOurs::Ended(outcome))
                }
                Claimed::Elsewhere => Some(NotOurs::Open(Foreign::Held)),
                // The sweep finds the one, and the other has its outcome.
                Claimed::InDoubt { .. } | Claimed::Settled => None,
            };
            self.shared.with(|core, now| core.verdict(found, now));
        }
    }

    /// Looks what became of firings that others had in hand, and for those whose runners died, here or elsewhere.
    fn sweep(&mut self) -> Result<(), OnceError> {
        let elsewhere = {
            let mut state = self.shared.lock();
            if !state.core.has_once_jobs() && state.core.told.is_empty() {
                return Ok(());
            }
            state.core.told.look();
            state.core.foreign()
        };
        let unsettled = self.once.unsettled()?;
        {
            let open: HashSet<&FiringId> = unsettled.iter().map(|firing| &firing.id).collect();
            self.shared.with(|core, now| {
                core.told.seen(|id| open.contains(id));
                for (key, fire_ms) in elsewhere {
                    let id = core.jobs.get(key).map(|job| job.id(fire_ms));
                    if id.is_some_and(|id| !open.contains(&id)) {
                        core.settled_elsewhere(key, fire_ms, now);
                    }
                }
            });
        }
        let doubts = unsettled.into_iter().filter(|firing| !firing.is_held);
        doubts.into_iter().try_for_each(|doubt| self.decide(doubt))
    }

    fn decide(&self, doubt: Unsettled) -> Result<(), OnceError> {
        let Unsettled { id, rerun, .. } = doubt;
        let policy = {
            let state = self.shared.lock();
            if let Some(outcome) = state.core.told.outcome(&id) {
                drop(state);
                return self.tell_again(&id, outcome);
            }
            let key = state.core.find(&id.job, id.shard);
            let job = key.and_then(|key| state.core.jobs.get(key));
            match job.filter(|job| job.spec.once) {
                // Unless somebody says that it is to run.
                Some(job) if !rerun && job.is_given_up(id.fire_ms) => return Ok(()),
                Some(job) if !state.core.has(&id) => job.spec.in_doubt,
                _ => return Ok(()),
            }
        };
        if policy == InDoubt::Ask && !rerun {
            self.ask(&id);
            return Ok(());
        }
        let Claimed::InDoubt { claim, rerun } = self.once.claim(&id)? else {
            return Ok(());
        };
        if rerun || policy == InDoubt::Rerun {
            tracing::warn!(firing = %id, "in doubt: runs again");
            self.shared.with(|core, now| core.rerun(&id, claim, now));
        } else {
            self.once.settle(claim, Outcome::InDoubt);
            tracing::warn!(firing = %id, "in doubt: its runner died while it ran");
            self.shared.with(|core, now| {
                if let Some(key) = core.find(&id.job, id.shard) {
                    core.settled_in_doubt(key, id.fire_ms, now);
                }
            });
        }
        Ok(())
    }

    /// The store did not hear how a firing ended here.
    fn tell_again(&self, id: &FiringId, outcome: Outcome) -> Result<(), OnceError> {
        if let Claimed::InDoubt { claim, .. } = self.once.claim(id)? {
            tracing::info!(firing = %id, %outcome, "the store is told again how it ended");
            self.once.settle(claim, outcome);
        }
        Ok(())
    }

    /// Says so once in this process's life. An outcome is for whoever answers.
    fn ask(&self, id: &FiringId) {
        self.shared.with(|core, now| {
            let Some(key) = core.find(&id.job, id.shard) else {
                return;
            };
            let known = core
                .jobs
                .get(key)
                .and_then(|job| job.foreign.get(&id.fire_ms));
            if known != Some(&Foreign::Asked) {
                tracing::warn!(firing = %id, "in doubt: waits for an answer");
                core.follow(key, id.fire_ms, Foreign::Asked, now);
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
