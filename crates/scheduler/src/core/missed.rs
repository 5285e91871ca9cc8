//! Which of the fire times that have come run, and which were missed.

use std::collections::VecDeque;

use crate::policy::Misfire;
use crate::schedule::Cursor;

/// So many fire times of a stretch are looked at one by one; of the rest before them it is only known that they were
/// missed. Halving the rest again and again reaches the last ones.
const LOOKED_AT_MAX: usize = 10_000;

/// So many missed firings are named one by one.
const NAMED_MAX: usize = 1_000;

/// What has come due.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// In time: run these, in this order.
    pub(crate) run: Vec<u64>,
    /// Missed, but the policy runs these, before those.
    pub(crate) kept: Vec<u64>,
    /// These were missed and do not run: the last ones of them.
    pub(crate) missed: VecDeque<u64>,
    /// Missed before those.
    pub(crate) missed_before: u64,
    /// More were missed than anybody counted.
    pub(crate) is_more: bool,
    /// So many fire times were looked at.
    pub(crate) looked_at: usize,
}

impl Due {
    fn miss(&mut self, fire_ms: u64, named_max: usize) {
        self.missed.push_back(fire_ms);
        if self.missed.len() > named_max {
            self.missed.pop_front();
            self.missed_before += 1;
        }
    }
}

/// Sorts the fire times of `cursor` after `last_ms` and up to `now_ms`. Those before `missed_ms` are missed, and
/// others when they are more than run at once.
pub(crate) fn sort(
    cursor: &mut Cursor<'_>,
    last_ms: u64,
    now_ms: u64,
    missed_ms: u64,
    misfire: Misfire,
) -> Due {
    let mut due = Due::default();
    let named_max = NAMED_MAX.max(misfire.keeps());
    let mut at_ms = last_ms;
    let mut in_a_row = 0;
    while let Some(fire_ms) = cursor.next_after_ms(at_ms).filter(|ms| *ms <= now_ms) {
        at_ms = fire_ms;
        due.looked_at += 1;
        in_a_row += 1;
        let end_ms = if fire_ms < missed_ms {
            due.miss(fire_ms, named_max);
            missed_ms
        } else {
            if due.run.is_empty() {
                in_a_row = 1;
            }
            due.run.push(fire_ms);
            now_ms
        };
        if in_a_row == LOOKED_AT_MAX {
            in_a_row = 0;
            // Nobody wants so many at once, even if each is in time: what comes later counts.
            for fire_ms in std::mem::take(&mut due.run) {
                due.miss(fire_ms, named_max);
            }
            let halfway_ms = at_ms + end_ms.saturating_sub(at_ms) / 2;
            due.is_more |= cursor.next_after_ms(at_ms) < cursor.next_after_ms(halfway_ms);
            at_ms = halfway_ms;
        }
    }
    let kept_from = due.missed.len().saturating_sub(misfire.keeps());
    due.kept = due.missed.split_off(kept_from).into();
    due
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::schedule::Schedule;

    fn sorted(misfire: Misfire) -> Due {
        let every = Schedule::every(Duration::from_millis(10)).unwrap();
        sort(&mut every.cursor(0), 100, 165, 150, misfire)
    }

    #[test]
    fn the_policy_says_which_missed_ones_run() {
        let due = sorted(Misfire::Skip);
        assert_eq!((due.kept, due.run), (vec![], vec![150, 160]));
        assert_eq!(due.missed, [110, 120, 130, 140]);
        let due = sorted(Misfire::Once);
        assert_eq!((due.kept, due.run), (vec![140], vec![150, 160]));
        assert_eq!(due.missed, [110, 120, 130]);
        let due = sorted(Misfire::All(3));
        assert_eq!((due.kept, due.run), (vec![120, 130, 140], vec![150, 160]));
        assert_eq!(due.missed, [110]);
        assert!(sorted(Misfire::All(99)).missed.is_empty());
    }

    #[test]
    fn a_year_of_milliseconds_is_sorted_and_the_last_ones_are_exact() {
        let every = Schedule::every(Duration::from_millis(1)).unwrap();
        let now_ms = 31_536_000_000;
        let due = sort(&mut every.cursor(0), 0, now_ms, now_ms - 5, Misfire::All(2));
        let last: Vec<u64> = (now_ms - 7..=now_ms).collect();
        assert_eq!([due.kept, due.run].concat(), last);
        assert_eq!(due.missed.back(), Some(&(now_ms - 8)));
        assert!(due.is_more);
        assert!(due.missed_before < 3_000_000, "{}", due.missed_before);
    }

    #[test]
    fn a_long_grace_does_not_run_a_day_of_milliseconds_at_once() {
        let every = Schedule::every(Duration::from_millis(1)).unwrap();
        let now_ms = 86_400_000;
        let due = sort(&mut every.cursor(0), 0, now_ms, 0, Misfire::Skip);
        assert!(due.run.len() < LOOKED_AT_MAX, "{}", due.run.len());
        assert!(due.looked_at < 40 * LOOKED_AT_MAX, "{}", due.looked_at);
        assert_eq!(due.run.last(), Some(&now_ms));
        assert!(due.is_more && due.missed_before > 0);
        // As many as are in time and few enough run all.
        let due = sort(&mut every.cursor(0), 0, 9_999, 4_000, Misfire::Skip);
        assert_eq!((due.missed.len(), due.run.len()), (1_000, 6_000));
    }

    #[test]
    fn ten_thousand_are_counted_to_the_last() {
        let every = Schedule::every(Duration::from_millis(1)).unwrap();
        let due = sort(&mut every.cursor(0), 0, 10_000, 10_000, Misfire::Skip);
        assert_eq!(due.missed_before + due.missed.len() as u64, 9_999);
        assert!(!due.is_more);
        let due = sort(&mut every.cursor(0), 0, 10_001, 10_001, Misfire::Skip);
        assert_eq!(due.missed_before + due.missed.len() as u64, 10_000);
        assert!(!due.is_more && due.run == [10_001]);
    }

    #[test]
    fn all_that_the_policy_keeps_are_kept() {
        let every = Schedule::every(Duration::from_millis(1)).unwrap();
        let misfire = Misfire::All(2_000);
        let due = sort(&mut every.cursor(0), 0, 3_000, 3_000, misfire);
        assert_eq!(due.kept, (1_000..3_000).collect::<Vec<_>>());
        assert_eq!(due.missed_before + due.missed.len() as u64, 999);
    }
}
