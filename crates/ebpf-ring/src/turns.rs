//! Fairness: many sources of records, each drained for a short turn.

use crate::error::RingError;
use crate::walk::{Drained, Stop};

/// Steps that a source may take before the next one has its turn.
const TURN: u64 = 64;

/// Whose turn is next.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    next: usize,
}

/// What a source did in its turn.
pub(crate) struct Turn {
    pub(crate) drained: Drained,
    /// What it used of its limit: records, and whatever else it met.
    pub(crate) steps: u64,
}

impl Turns {
    /// Drains the sources 0 to `sources`, turn by turn, until each is quiet or `steps_max` are used
    /// up; goes on where the last call stopped, behind a source that failed.
    ///
    /// `drain` is given a source and its limit.
    pub(crate) fn drain(
        &mut self,
        sources: usize,
        steps_max: u64,
        mut drain: impl FnMut(usize, u64) -> Result<Turn, RingError>,
    ) -> Result<Drained, RingError> {
        let mut sum = Drained::NOTHING;
        let (mut left, mut quiet, mut is_any_busy) = (steps_max, 0, false);
        while quiet < sources {
            if left == 0 {
                sum.stop = Stop::Budget;
                return Ok(sum);
            }
            let source = self.next % sources;
            self.next = source + 1;
            let turn = drain(source, left.min(TURN))?;
            left -= turn.steps;
            sum.add(turn.drained);
            // After one that was not quiet, all are looked at again.
            (quiet, is_any_busy) = match turn.drained.stop {
                Stop::Budget => (0, false),
                Stop::Busy => (quiet + 1, true),
                Stop::Empty => (quiet + 1, is_any_busy),
            };
        }
        sum.stop = if is_any_busy { Stop::Busy } else { Stop::Empty };
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(steps: u64, stop: Stop) -> Result<Turn, RingError> {
        let drained = Drained {
            records: steps,
            stop,
            ..Drained::NOTHING
        };
        Ok(Turn { drained, steps })
    }

    /// Takes from a heap of records per source.
    fn take(heaps: &mut [u64], source: usize, steps_max: u64) -> Result<Turn, RingError> {
        let steps = heaps[source].min(steps_max);
        heaps[source] -= steps;
        let is_all = steps < steps_max;
        turn(steps, if is_all { Stop::Empty } else { Stop::Budget })
    }

    #[test]
    fn a_large_source_waits_for_its_next_turn() {
        let mut turns = Turns::default();
        let mut heaps = [1_000, 1, 100];
        let mut order = Vec::new();
        let drained = turns.drain(3, 200, |source, max| {
            order.push((source, max));
            take(&mut heaps, source, max)
        });
        let drained = drained.expect("nothing fails");
        assert_eq!((drained.records, drained.stop), (200, Stop::Budget));
        // 64, 1, 64, 64, none, and the 7 that are left.
        assert_eq!(order, [(0, 64), (1, 64), (2, 64), (0, 64), (1, 7), (2, 7)]);
        let rest = turns.drain(3, u64::MAX, |source, max| take(&mut heaps, source, max));
        let rest = rest.expect("nothing fails");
        assert_eq!((rest.records, rest.stop), (901, Stop::Empty));
    }

    #[test]
    fn busy_is_said_of_what_is_still_busy() {
        let mut turns = Turns::default();
        // The first is busy only until the second has had its turn.
        let mut answers = [
            (0, Stop::Busy),
            (64, Stop::Budget),
            (1, Stop::Empty),
            (0, Stop::Empty),
        ]
        .into_iter();
        let mut next = |_, _| {
            let (steps, stop) = answers.next().expect("four turns");
            turn(steps, stop)
        };
        let drained = turns.drain(2, u64::MAX, &mut next).expect("nothing fails");
        assert_eq!((drained.records, drained.stop), (65, Stop::Empty));
        let busy = turns.drain(2, 9, |source, _| turn(0, [Stop::Busy, Stop::Empty][source]));
        assert_eq!(busy.expect("nothing fails").stop, Stop::Busy);
    }

    #[test]
    fn a_source_that_fails_does_not_keep_the_others() {
        let mut turns = Turns::default();
        let mut met = Vec::new();
        for _ in 0..2 {
            let _ = turns.drain(2, 9, |source, _| {
                met.push(source);
                match source {
                    0 => Err(RingError::wrong_map("for the test")),
                    _ => turn(0, Stop::Empty),
                }
            });
        }
        assert_eq!(met, [0, 1, 0]);
    }
}
