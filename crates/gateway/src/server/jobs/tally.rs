//! What became of a firing's commands.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use circuit::TraceId;

use crate::server::counters::CommandEnd;

/// Commands by how they ended.
#[derive(Default)]
pub(crate) struct Tally([AtomicU64; CommandEnd::ALL.len()]);

impl Tally {
    pub(super) fn add(&self, end: CommandEnd, count: u64) {
        self.0[end as usize].fetch_add(count, Relaxed);
    }

    pub(crate) fn of(&self, end: CommandEnd) -> u64 {
        self.0[end as usize].load(Relaxed)
    }

    /// Every end that there was, by its name.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = CommandEnd::ALL.iter();
        let counts = counts.map(|&(end, name)| (name, self.of(end)));
        counts.filter(|(_, count)| *count > 0)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (name, count) in self.ends() {
            write!(f, "{separator}{count} {name}")?;
            separator = ", ";
        }
        Ok(())
    }
}

/// One try of a firing, while it runs and afterwards.
pub(crate) struct Report {
    pub(crate) fire_ms: u64,
    pub(crate) attempt: u32,
    pub(crate) trace: TraceId,
    /// Devices that match.
    pub(crate) matched: AtomicU64,
    /// Those that are waited for because they are not connected.
    pub(crate) waiting: AtomicU64,
    pub(crate) tally: Tally,
}

impl Report {
    pub(super) fn new(firing: &scheduler::Firing) -> Self {
        Self {
            fire_ms: firing.fire_ms,
            attempt: firing.attempt,
            trace: firing.trace,
            matched: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            tally: Tally::default(),
        }
    }
}
