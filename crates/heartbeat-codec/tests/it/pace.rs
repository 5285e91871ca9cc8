//! The adaptive interval: within its bounds, and soon near what a path bears.

use heartbeat_codec::pace::{Pace, PaceConfig};
use proptest::prelude::*;

const CONFIG: PaceConfig = PaceConfig {
    interval_min_ms: 10_000,
    interval_max_ms: 600_000,
    stable_beats: 3,
};

#[test]
fn a_peer_costs_twelve_bytes() {
    assert_eq!(size_of::<Pace>(), 12);
}

#[test]
fn it_grows_to_the_longest_and_stays() {
    let mut pace = Pace::new(&CONFIG);
    let changes = (0..100).filter_map(|_| pace.answered(&CONFIG)).count();
    assert_eq!(pace.interval_ms(), 600_000);
    // 1.25^18 < 60 < 1.25^19.
    assert_eq!(changes, 19);
}

#[test]
fn a_loss_halves_it_down_to_the_shortest() {
    let mut pace = Pace::new(&CONFIG);
    (0..100).for_each(|_| _ = pace.answered(&CONFIG));
    assert_eq!(pace.lost(&CONFIG), Some(300_000));
    for _ in 0..10 {
        pace.lost(&CONFIG);
    }
    assert_eq!(pace.interval_ms(), 10_000);
    assert_eq!(pace.lost(&CONFIG), None);
    // It recovers from there.
    (0..1_000).for_each(|_| _ = pace.answered(&CONFIG));
    assert_eq!(pace.interval_ms(), 600_000);
}

#[test]
fn a_loss_ends_a_streak() {
    let mut pace = Pace::new(&CONFIG);
    assert_eq!(pace.answered(&CONFIG), None);
    assert_eq!(pace.answered(&CONFIG), None);
    assert_eq!(pace.lost(&CONFIG), None);
    // Three to raise the ceiling, three to grow.
    let quiet = (1..)
        .take_while(|_| pace.answered(&CONFIG).is_none())
        .count();
    assert_eq!((quiet, pace.interval_ms()), (5, 10_625));
}

#[test]
fn it_recovers_from_a_loss_however_short_the_intervals_are() {
    for interval_min_ms in 0..20 {
        let config = PaceConfig {
            interval_min_ms,
            interval_max_ms: 1_000,
            stable_beats: 1,
        };
        let mut pace = Pace::new(&config);
        for answers in 0..50 {
            (0..answers).for_each(|_| _ = pace.answered(&config));
            pace.lost(&config);
        }
        (0..1_000).for_each(|_| _ = pace.answered(&config));
        assert_eq!(pace.interval_ms(), 1_000, "from {interval_min_ms}");
    }
}

/// A middlebox forgets connections that were silent for this long: beats that come later are lost.
#[test]
fn it_finds_what_a_middlebox_bears() {
    for forgets_ms in [15_000, 30_000, 60_000, 120_000, 299_999] {
        let mut pace = Pace::new(&CONFIG);
        let (mut elapsed_ms, mut beats, mut lost) = (0u64, 0u64, 0u64);
        for _ in 0..2_000 {
            elapsed_ms += u64::from(pace.interval_ms());
            beats += 1;
            if pace.interval_ms() >= forgets_ms {
                pace.lost(&CONFIG);
                lost += 1;
            } else {
                pace.answered(&CONFIG);
            }
        }
        let mean_ms = elapsed_ms / beats;
        assert!(
            mean_ms * 100 > u64::from(forgets_ms) * 65 && mean_ms < u64::from(forgets_ms),
            "{forgets_ms}: {mean_ms}"
        );
        assert!(lost * 12 < beats, "{forgets_ms}: {lost} of {beats} lost");
    }
}

proptest! {
    #[test]
    fn it_stays_within_its_bounds(
        interval_min_ms: u32,
        interval_max_ms: u32,
        stable_beats: u16,
        answers in prop::collection::vec(prop::bool::weighted(0.9), 0..500),
    ) {
        let config = PaceConfig { interval_min_ms, interval_max_ms, stable_beats: stable_beats % 5 };
        let (min_ms, max_ms) = (interval_min_ms.max(1), interval_max_ms.max(interval_min_ms).max(1));
        let mut pace = Pace::new(&config);
        for answered in answers {
            let before_ms = pace.interval_ms();
            let changed = if answered { pace.answered(&config) } else { pace.lost(&config) };
            let now_ms = pace.interval_ms();
            prop_assert_eq!(changed, (now_ms != before_ms).then_some(now_ms));
            prop_assert!((min_ms..=max_ms).contains(&now_ms));
            let right_way = if answered { now_ms >= before_ms } else { now_ms <= before_ms };
            prop_assert!(right_way, "{} {} {}", answered, before_ms, now_ms);
        }
    }
}
