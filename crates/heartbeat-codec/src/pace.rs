//! How often to beat: longer intervals while all is well, shorter ones after a loss.
//!
//! A beat keeps middleboxes from forgetting a connection and tells the other side of a death. Both want a short
//! interval, batteries and fleets a long one, and the longest that a path bears is not known: a [`Pace`] finds it.

/// What all peers' [`Pace`] states share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaceConfig {
    /// Where every peer begins, and the shortest after losses. At least 1.
    pub interval_min_ms: u32,
    /// The longest interval.
    pub interval_max_ms: u32,
    /// Answered beats in a row before the interval grows. At least 1.
    pub stable_beats: u16,
}

/// The interval between beats of one peer. 12 bytes.
///
/// - After `stable_beats` answers in a row it grows by a quarter.
/// - A loss halves it and remembers the interval that failed as the ceiling.
/// - Below a ceiling it grows by half of what is left, until less than an eighth is; then the ceiling rises by
///   an eighth each time, because a path may have changed.
///
/// So with a middlebox that forgets after some silence, about one beat in `5 * stable_beats` is lost once the limit
/// is found, and the mean interval is 80% of the limit (docs/DETECTORS.md).
///
/// ```
/// use heartbeat_codec::pace::{Pace, PaceConfig};
///
/// let config = PaceConfig { interval_min_ms: 10_000, interval_max_ms: 60_000, stable_beats: 4 };
/// let mut pace = Pace::new(&config);
/// let grown: Vec<u32> = (0..12).filter_map(|_| pace.answered(&config)).collect();
/// assert_eq!(grown, [12_500, 15_625, 19_531]);
/// assert_eq!(pace.lost(&config), Some(10_000));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    interval_ms: u32,
    ceiling_ms: u32,
    streak: u16,
}

impl Pace {
    /// Begins with the shortest interval.
    #[must_use]
    pub fn new(config: &PaceConfig) -> Self {
        let interval_ms = config.interval_min_ms.max(1);
        Pace {
            interval_ms,
            ceiling_ms: config.interval_max_ms.max(interval_ms),
            streak: 0,
        }
    }

    /// The interval now.
    #[must_use]
    pub fn interval_ms(&self) -> u32 {
        self.interval_ms
    }

    /// A beat was answered in time. Returns the new interval when it changed: the other side must hear of it.
    pub fn answered(&mut self, config: &PaceConfig) -> Option<u32> {
        self.streak = self.streak.saturating_add(1);
        if self.streak < config.stable_beats {
            return None;
        }
        self.streak = 0;
        let max_ms = config.interval_max_ms.max(config.interval_min_ms).max(1);
        let left_ms = self.ceiling_ms.saturating_sub(self.interval_ms);
        // Below 2 there is no half to grow by.
        if left_ms < (self.interval_ms / 8).max(2) && self.ceiling_ms < max_ms {
            let more_ms = (self.ceiling_ms / 8).max(1);
            self.ceiling_ms = self.ceiling_ms.saturating_add(more_ms).min(max_ms);
            return None;
        }
        let quarter_ms = (self.interval_ms / 4).max(1);
        let step_ms = match self.ceiling_ms < max_ms {
            true => quarter_ms.min(left_ms / 2),
            false => quarter_ms.min(left_ms),
        };
        self.change(self.interval_ms + step_ms)
    }

    /// A beat was lost, or came back too late. Returns the new interval when it changed.
    pub fn lost(&mut self, config: &PaceConfig) -> Option<u32> {
        self.streak = 0;
        let min_ms = config.interval_min_ms.max(1);
        self.ceiling_ms = self.interval_ms;
        self.change((self.interval_ms / 2).max(min_ms))
    }

    fn change(&mut self, interval_ms: u32) -> Option<u32> {
        let changed = interval_ms != self.interval_ms;
        self.interval_ms = interval_ms;
        changed.then_some(interval_ms)
    }
}
