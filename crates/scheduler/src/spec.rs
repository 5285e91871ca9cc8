//! A job before it is added: what runs, when, and by which rules.

#[cfg(feature = "tokio")]
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::firing::{Firing, JobError, Task};
use crate::policy::{BreakerRules, InDoubt, Misfire, Overlap, Retry, ms};
use crate::schedule::{Schedule, ScheduleError};

/// A job to add to a [`Scheduler`](crate::Scheduler).
///
/// ```
/// use std::time::Duration;
/// use scheduler::{JobSpec, Overlap, Schedule};
///
/// let every = Schedule::every(Duration::from_millis(250))?;
/// let job = JobSpec::new("reconcile", every, |firing| {
///         println!("{} of {}", firing.job, firing.fire_time());
///         Ok(())
///     })
///     .overlap(Overlap::Queue(3))
///     .timeout(Duration::from_secs(10));
/// # Ok::<(), scheduler::ScheduleError>(())
/// ```
#[derive(Clone, Debug)]
pub struct JobSpec {
    pub(crate) name: Arc<str>,
    pub(crate) schedule: Schedule,
    pub(crate) task: Task,
    pub(crate) shard: u32,
    pub(crate) misfire: Misfire,
    pub(crate) misfire_after_ms: u64,
    pub(crate) overlap: Overlap,
    pub(crate) jitter_ms: u64,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) retry: Retry,
    pub(crate) breaker: Option<BreakerRules>,
    pub(crate) once: bool,
    pub(crate) in_doubt: InDoubt,
    pub(crate) history_max: usize,
}

/// The longest name of a job, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 128;

impl JobSpec {
    /// A job that runs on a worker of the scheduler's pool, with the default policies: a missed firing runs once,
    /// overlapping ones are skipped, one try, no breaker.
    pub fn new(
        name: impl Into<Arc<str>>,
        schedule: Schedule,
        run: impl Fn(&Firing) -> Result<(), JobError> + Send + Sync + 'static,
    ) -> Self {
        Self::of(name.into(), schedule, Task::Blocking(Arc::new(run)))
    }

    /// A job that is a future and runs on `runtime`: ten thousand at a time are no burden. Cancelled, it is not
    /// dropped: it has to look at its token, too.
    #[cfg(feature = "tokio")]
    pub fn future<F>(
        name: impl Into<Arc<str>>,
        schedule: Schedule,
        runtime: tokio::runtime::Handle,
        run: impl Fn(Firing) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), JobError>> + Send + 'static,
    {
        let make = Arc::new(move |firing| -> crate::firing::Made { Box::pin(run(firing)) });
        Self::of(name.into(), schedule, Task::Future { make, runtime })
    }

    fn of(name: Arc<str>, schedule: Schedule, task: Task) -> Self {
        Self {
            name,
            schedule,
            task,
            shard: 0,
            misfire: Misfire::default(),
            misfire_after_ms: 1_000,
            overlap: Overlap::default(),
            jitter_ms: 0,
            timeout_ms: None,
            retry: Retry::NONE,
            breaker: None,
            once: false,
            in_doubt: InDoubt::default(),
            history_max: 4,
        }
    }

    /// What happens to missed firings.
    #[must_use]
    pub fn misfire(mut self, misfire: Misfire) -> Self {
        self.misfire = misfire;
        self
    }

    /// How late a firing may be, jitter apart, before it counts as missed. Default: one second.
    #[must_use]
    pub fn misfire_after(mut self, grace: Duration) -> Self {
        self.misfire_after_ms = ms(grace);
        self
    }

    /// What happens to a firing while an earlier one still runs.
    #[must_use]
    pub fn overlap(mut self, overlap: Overlap) -> Self {
        self.overlap = overlap;
        self
    }

    /// Each firing starts a random time of up to this later. Its nominal time stays. At most
    /// [`Schedule::jitter_max`]: firings keep their order.
    #[must_use]
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.jitter_ms = ms(jitter);
        self
    }

    /// A try that takes longer is asked to stop, and counts as failed however it ends.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout_ms = Some(ms(timeout));
        self
    }

    /// How often and when a failed firing is tried again.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Leaves the job alone for a time when it keeps failing.
    #[must_use]
    pub fn breaker(mut self, rules: BreakerRules) -> Self {
        self.breaker = Some(rules);
        self
    }

    /// Claims each firing through the scheduler's [`Once`](crate::Once) hook before it runs: across all replicas it
    /// runs once. Overlap, breaker, pause and history are each replica's own.
    #[must_use]
    pub fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// What happens to a firing whose runner died while it ran. Only with [`once`](Self::once).
    #[must_use]
    pub fn in_doubt(mut self, in_doubt: InDoubt) -> Self {
        self.in_doubt = in_doubt;
        self
    }

    /// Jobs of one name and different shards claim apart: each runs once.
    #[must_use]
    pub fn shard(mut self, shard: u32) -> Self {
        self.shard = shard;
        self
    }

    /// How many firings the history holds. Default: 4.
    #[must_use]
    pub fn history_max(mut self, records: usize) -> Self {
        self.history_max = records;
        self
    }

    /// The job's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The job's shard.
    #[must_use]
    pub fn shard_number(&self) -> u32 {
        self.shard
    }

    /// When it fires.
    #[must_use]
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    pub(crate) fn check(&self, has_once: bool) -> Result<(), ScheduleError> {
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX {
            let text = format!("a job's name has 1 to {NAME_BYTES_MAX} bytes");
            return Err(ScheduleError::new(text));
        }
        // Most jobs have none, and finding the largest searches a hundred fire times.
        if self.jitter_ms > 0
            && let Some(max) = self.schedule.jitter_max()
            && self.jitter_ms > ms(max)
        {
            let text =
                format!("its jitter is longer than the {max:?} from one fire time to another");
            return Err(ScheduleError::new(text));
        }
        if self.once && !self.schedule.is_shared() {
            return Err(ScheduleError::new(
                "a job that fires a time after it was added cannot run once across replicas: \
                 their clocks do not start together",
            ));
        }
        if self.once && !has_once {
            return Err(ScheduleError::new(
                "a job that runs once needs a store: give the scheduler one",
            ));
        }
        Ok(())
    }
}
