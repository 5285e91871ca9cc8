use super::*;
use crate::ticks::Round;
use core::num::NonZeroU64;

impl<T> Levels<T> {
    fn entries(&self) -> usize {
        self.links.entries() + self.chunks.entries()
    }
}

fn levels() -> Levels<()> {
    Levels::new(0, Ticks::new(NonZeroU64::MIN, Round::Up), 0)
}

/// Whoever cancels or reschedules for ever without time passing must not fill the memory.
#[test]
fn dead_entries_stay_in_proportion() {
    // Half as many dead as living begin a sweep of a small wheel, one and a half times as many that of another; it ends
    // within a few tenths of that.
    for (timers, entries_max) in [(1_000, 1_900), (5_000, 14_500)] {
        for reach in [100, 60_000, 1 << 40] {
            let mut levels = levels();
            let mut keys: Vec<Key> = (0..timers)
                .map(|n| levels.insert(n * 7_919 % reach, ()))
                .collect();
            for round in 0..200_000_u64 {
                let at = (round * 2_654_435_761 % timers) as usize;
                let deadline = (round * 40_503) % reach;
                if round % 2 == 0 {
                    levels.reschedule(keys[at], deadline);
                } else {
                    levels.remove(keys[at]).expect("lives");
                    keys[at] = levels.insert(deadline, ());
                }
                assert!(levels.entries() < entries_max + 64, "{}", levels.entries());
            }
        }
    }
}

/// An entry whose stamp has come round must not fire its timer early, or twice: wherever the timer waits now.
#[test]
fn a_stamp_that_came_round_is_harmless() {
    for deadline in [200, 5_000, 70_000] {
        let mut levels = levels();
        let key = levels.insert(10, ());
        // The entry at tick 10 is as if it had been left there 2^20 stamps ago.
        levels.living[10] -= 1;
        let live = levels.slab.find_mut(key).expect("lives");
        live.set_place(0);
        live.deadline = deadline;
        levels.place(deadline, key.index(), 0);
        let mut fired = 0;
        for (tick, expected) in [(deadline - 1, 0), (deadline, 1), (90_000, 1)] {
            let take = |slab: &mut Slab<()>, entry: Entry, is_due: IsDue| {
                slab.remove_if(entry.index(), |live| is_due.of(live))
            };
            levels.run(tick, usize::MAX, take, |_| {
                fired += 1;
                ControlFlow::Continue(())
            });
            assert_eq!(fired, expected, "{tick}");
        }
        assert!(levels.living.iter().all(|living| *living == 0));
    }
}
