//! What both sides of a rhythm expect of the next beat; delta beats and batches share it.

/// The longest interval, an hour: longer ones are taken as this.
pub const INTERVAL_MS_MAX: u32 = 3_600_000;

/// In a byte of load: not known.
pub(crate) const LOAD_UNKNOWN: u8 = 255;

/// Predictions that were further off teach nothing about the rhythm.
pub(crate) const LEARNED_OFF_MS_MAX: u32 = 1_559;

/// What both sides know of the beats so far. Times are in 1/256 ms, so that an hour and a half fits an `i32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Track {
    pub(crate) last_ms: u32,
    interval: i32,
    grid: Guess,
    /// From the last stamp to the one that the grid predicts.
    grid_next: i32,
    sleep: Guess,
    /// 0 to 100, or [`LOAD_UNKNOWN`].
    pub(crate) load: u8,
    /// Which of the two predicts. As an enumeration it also leaves room for whoever tells states apart around this.
    by: By,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Grid,
    Sleep,
}

/// One way to predict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Guess {
    period: i32,
    /// Smoothed size of its errors.
    error: i32,
}

/// Larger errors are learned as this, 4 s.
const ERROR_MAX: i32 = 1 << 20;

impl Guess {
    fn new(interval: i32) -> Self {
        Guess {
            period: interval,
            error: 0,
        }
    }

    /// Its error when a stamp comes `distance` after the last one and not `next`.
    #[inline]
    fn judge(&mut self, distance: i32, next: i32) -> i32 {
        let error = (distance - next).clamp(-ERROR_MAX, ERROR_MAX);
        self.error += (error.abs() - self.error) >> 4;
        error
    }

    #[inline]
    fn adjust(&mut self, by: i32, interval: i32) {
        let half = interval >> 1;
        self.period = (self.period + by).clamp(interval - half, interval + half);
    }
}

impl Track {
    pub(crate) fn new(stamp_ms: u32, interval_ms: u32, load: u8) -> Self {
        let interval = (interval_ms.clamp(1, INTERVAL_MS_MAX) << 8) as i32;
        Track {
            last_ms: stamp_ms,
            interval,
            grid: Guess::new(interval),
            grid_next: interval,
            sleep: Guess::new(interval),
            load,
            by: By::Grid,
        }
    }

    #[inline]
    pub(crate) fn predicted_ms(&self) -> u32 {
        let next = match self.by {
            By::Grid => self.grid_next,
            By::Sleep => self.sleep.period,
        };
        self.last_ms.wrapping_add_signed((next + 128) >> 8)
    }

    /// Learns a stamp that was predicted `off_ms` too early.
    #[inline]
    pub(crate) fn learn(&mut self, stamp_ms: u32, off_ms: i32, load: u8) {
        let distance_ms = stamp_ms.wrapping_sub(self.last_ms);
        self.last_ms = stamp_ms;
        self.load = load;
        if off_ms.unsigned_abs() > LEARNED_OFF_MS_MAX {
            // A pause, or a clock that was set, says nothing about the rhythm: it starts again from here.
            self.grid_next = self.grid.period;
            return;
        }
        // No prediction is further than 1.5 hours and 4 s away, and this one was off by 2 s at most.
        let distance = (distance_ms as i32) << 8;
        let error = self.grid.judge(distance, self.grid_next);
        self.grid.adjust(error >> 8, self.interval);
        self.grid_next = self.grid.period - (error - (error >> 3));
        let error = self.sleep.judge(distance, self.sleep.period);
        self.sleep.adjust(error >> 4, self.interval);
        self.by = if self.grid.error <= self.sleep.error {
            By::Grid
        } else {
            By::Sleep
        };
    }
}
