//! How much one connection may move in one turn.

/// One connection's share of one turn, in bytes received and sent. It holds no count of its own: what was moved is the
/// difference of the shard's running totals, so that what a handler sends in answer counts without being noted here.
///
/// A step takes at most half of it: an answer as long as the question still fits, and neither direction can keep the
/// other one out.
#[derive(Clone, Copy)]
pub(crate) struct Budget {
    total: usize,
    /// The shard's running total when the connection's turn began.
    moved_before: u64,
}

impl Budget {
    /// The least that lets both directions go on.
    pub(crate) const LEAST: usize = 2;

    #[inline(always)]
    pub(crate) fn new(total: usize, moved: u64) -> Self {
        Self {
            total,
            moved_before: moved,
        }
    }

    /// Bytes that the next step may move; 0 when the others come first.
    #[inline(always)]
    pub(crate) fn step(self, moved: u64) -> usize {
        let spent = moved.wrapping_sub(self.moved_before);
        let left = (self.total as u64).saturating_sub(spent) as usize;
        left.min(self.total / 2)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A connection that always has something to send and to read, whose handler answers with at most what it was
        /// asked: however much each call moves, the turn ends within one and a half budgets, and both directions move.
        #[test]
        fn the_turn_of_a_flood_is_bounded(
            total in Budget::LEAST..200_000,
            before in any::<u64>(),
            queued in 0usize..400_000,
            calls in prop::collection::vec((0.0f64..=1.0, 0.0f64..=1.0), 1..50),
        ) {
            let mut moved = before;
            let budget = Budget::new(total, before);
            let sent = queued.min(budget.step(moved));
            prop_assert!(queued == 0 || sent > 0, "nothing of the queue is sent");
            moved = moved.wrapping_add(sent as u64);
            prop_assert!(budget.step(moved) > 0, "the queue keeps the input out");
            // The kernel gives and takes as much as it likes; at last, when it gives all, the turn is over.
            for (part, answer) in calls.into_iter().chain([(1.0, 0.0); 3]) {
                let step = budget.step(moved);
                let received = (step as f64 * part) as usize;
                let answered = (received as f64 * answer) as usize;
                moved = moved.wrapping_add((received + answered) as u64);
            }
            prop_assert_eq!(budget.step(moved), 0, "the turn has no end");
            let moved = moved.wrapping_sub(before) as usize;
            prop_assert!(moved <= total + total / 2, "{} of {}", moved, total);
        }
    }
}
