//! How far a long run is, now and then; short ones say nothing.

use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(10);

/// A test that does the same thing many times.
pub(crate) struct Progress {
    things: &'static str,
    total: u64,
    done: u64,
    started: Instant,
    told: Instant,
}

impl Progress {
    pub(crate) fn of(total: u64, things: &'static str) -> Self {
        let started = Instant::now();
        Self {
            things,
            total,
            done: 0,
            started,
            told: started,
        }
    }

    /// So many are done; tells it when it was not told for a while.
    pub(crate) fn at(&mut self, done: u64) {
        self.done = done;
        if self.told.elapsed() < EVERY {
            return;
        }
        self.told = Instant::now();
        let Self { things, total, .. } = self;
        let rate = done as f64 / self.started.elapsed().as_secs_f64();
        let minutes = total.saturating_sub(done) as f64 / rate.max(1e-3) / 60.0;
        eprintln!("{done} of {total} {things}, {rate:.1} a second, {minutes:.1} minutes left");
    }
}

impl Drop for Progress {
    /// A run that told of itself tells its end too.
    fn drop(&mut self) {
        let elapsed = self.started.elapsed();
        if elapsed >= EVERY {
            let Self { things, done, .. } = self;
            let rate = *done as f64 / elapsed.as_secs_f64();
            eprintln!("{done} {things} in {elapsed:.0?}, {rate:.1} a second");
        }
    }
}
