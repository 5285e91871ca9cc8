//! What the store was told of firings, until it is seen to know. What it did not hear looks there as if the runner had died.

use std::collections::HashMap;

use crate::history::Outcome;
use crate::once::FiringId;

/// So many are remembered. While the store does not answer there are no new claims, and so no more than ran then.
const TOLD_MAX: usize = 100_000;

#[derive(Default)]
pub(crate) struct Told {
    /// And at which look they were told.
    outcomes: HashMap<FiringId, (Outcome, u64)>,
    looks: u64,
}

impl Told {
    /// A claim of this process ends.
    pub(crate) fn tell(&mut self, id: FiringId, outcome: Outcome) {
        if self.outcomes.len() < TOLD_MAX {
            self.outcomes.insert(id, (outcome, self.looks));
        }
    }

    /// How a firing ended here.
    pub(crate) fn outcome(&self, id: &FiringId) -> Option<Outcome> {
        self.outcomes.get(id).map(|(outcome, _)| *outcome)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.outcomes.is_empty()
    }

    /// The store is about to be asked what is open.
    pub(crate) fn look(&mut self) {
        self.looks += 1;
    }

    /// Forgets what was told before the last look and is not open: the store heard.
    pub(crate) fn seen(&mut self, is_open: impl Fn(&FiringId) -> bool) {
        let looks = self.looks;
        self.outcomes
            .retain(|id, (_, look)| *look >= looks || is_open(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(fire_ms: u64) -> FiringId {
        FiringId {
            job: "job".to_owned(),
            fire_ms,
            shard: 0,
        }
    }

    #[test]
    fn an_end_is_forgotten_when_a_look_after_it_does_not_find_it_open() {
        let mut told = Told::default();
        told.look();
        // The answer to this look may be older than the end.
        told.tell(id(1), Outcome::Succeeded);
        told.seen(|_| false);
        assert_eq!(told.outcome(&id(1)), Some(Outcome::Succeeded));
        told.look();
        told.seen(|open| *open == id(1));
        assert_eq!(told.outcome(&id(1)), Some(Outcome::Succeeded));
        told.look();
        told.seen(|_| false);
        assert!(told.is_empty());
    }

    #[test]
    fn ends_are_bounded() {
        let mut told = Told::default();
        (0..=TOLD_MAX as u64).for_each(|ms| told.tell(id(ms), Outcome::Failed));
        assert_eq!(told.outcomes.len(), TOLD_MAX);
    }
}
