//! The scheduler as its users see it.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use circuit::State as BreakerState;
use parking_lot::Mutex;

use crate::cancel::CancelCause;
use crate::core::job::{JobState, RunPhase};
use crate::core::slab::Key;
use crate::core::{Core, Limits};
use crate::history::{Counts, Record};
use crate::keeper;
use crate::meter::Lateness;
use crate::once::Once;
use crate::policy::OnFull;
use crate::runner::{self, Observer, Shared};
use crate::schedule::ScheduleError;
use crate::spec::JobSpec;

/// How long runs that were asked to stop at the end have to do so, and then the store to hear of it. Commands of `mainstay
/// schedule` are killed after two seconds.
const LAST_WORDS: Duration = Duration::from_secs(4);

/// How a [`Scheduler`] works. Start from the default and change what you need.
#[non_exhaustive]
pub struct Config {
    /// Threads that run jobs; so many blocking jobs run at a time. One of them does not wait for the store of claims, where
    /// there are several. Default: one per core, at least 4.
    pub workers: usize,
    /// Jobs. Default: 1,000,000.
    pub jobs_max: usize,
    /// Firings that may wait for a worker. Default: 65,536.
    pub queue_max: usize,
    /// What happens to a firing when as many wait.
    pub on_full: OnFull,
    /// Futures that may run at a time; more wait in the queue, and other jobs pass them. Default: 65,536.
    pub futures_max: usize,
    /// Decides which replica runs a firing of a job that is to run once.
    pub once: Option<Arc<dyn Once>>,
    /// Is told each settled firing with its job, on the thread that settled it.
    pub observer: Option<Box<Observer>>,
}

impl Default for Config {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            workers: cores.max(4),
            jobs_max: 1_000_000,
            queue_max: 1 << 16,
            on_full: OnFull::default(),
            futures_max: 1 << 16,
            once: None,
            observer: None,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("workers", &self.workers)
            .field("jobs_max", &self.jobs_max)
            .field("queue_max", &self.queue_max)
            .field("on_full", &self.on_full)
            .field("futures_max", &self.futures_max)
            .field("once", &self.once.is_some())
            .finish_non_exhaustive()
    }
}

/// Runs jobs by the clock.
///
/// Fire times are read on the wall clock and never fire early; when the wall clock is set forward, what it jumped over
/// is late or missed; when it is set back, times that have come do not come again, and a job waits for the ones after them.
/// One that would have to wait more than three hours goes on from the new time instead, and may fire times again that it fired
/// (never with [`once`](JobSpec::once)). Durations (timeouts, retries, breakers) are read on the steady clock.
///
/// Dropping it stops it without waiting; see [`shutdown`](Self::shutdown).
///
/// ```
/// use std::sync::mpsc;
/// use std::time::Duration;
/// use scheduler::{Config, JobSpec, Schedule, Scheduler};
///
/// let scheduler = Scheduler::start(Config::default())?;
/// let (sender, fired) = mpsc::channel();
/// let every = Schedule::every(Duration::from_millis(10))?;
/// let job = scheduler.add(JobSpec::new("tick", every, move |firing| {
///     sender.send(firing.fire_ms)?;
///     Ok(())
/// }))?;
/// let first = fired.recv()?;
/// assert!(first % 10 == 0 && fired.recv()? > first);
/// job.cancel();
/// scheduler.shutdown(Duration::from_secs(5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Scheduler {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// How a shutdown ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Runs that were asked to stop, because the time was over.
    pub cancelled: usize,
    /// Runs that did not: they go on in their threads until the process ends.
    pub left: usize,
}

impl Scheduler {
    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// When the system refuses threads or randomness.
    pub fn start(config: Config) -> io::Result<Self> {
        let limits = Limits {
            jobs_max: config.jobs_max,
            queue_max: config.queue_max.max(1),
            on_full: config.on_full,
            futures_max: config.futures_max.max(1),
            claim_ms: config
                .once
                .as_ref()
                .map_or(u64::MAX, |once| once.period_ms()),
            claims_max: config.workers.saturating_sub(1).max(1),
            reports: config.observer.is_some(),
        };
        let seed = getrandom::u64().map_err(io::Error::other)?;
        let make = |now| Core::new(limits, seed, now);
        let shared = Arc::new(Shared::new(make, config.once, config.observer));
        let threads = runner::spawn(&shared, config.workers)?;
        let threads = Mutex::new(threads);
        Ok(Self { shared, threads })
    }

    /// Adds a job. One that runs once asks the store how far it had come, which blocks.
    ///
    /// # Errors
    ///
    /// When there is a job of this name and shard, there are too many, what it asks for does not go together, or the
    /// store does not answer.
    pub fn add(&self, spec: JobSpec) -> Result<Job, ScheduleError> {
        let accounted_ms = self.accounted_ms(&spec)?;
        let key = self
            .shared
            .with(|core, now| core.add(spec, accounted_ms, now))?;
        self.shared.keeper.notify_one();
        Ok(self.handle(key))
    }

    /// Cancels the jobs `gone` and adds `new` ones, all or nothing: after an error everything is as it was. Where a new job
    /// has the name and shard of one that goes, its overlap policy counts what that one still runs. Asks the store as
    /// [`add`](Self::add) does.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add). Says which job, when it is one of several.
    pub fn change(&self, gone: &[Job], new: Vec<JobSpec>) -> Result<Vec<Job>, ScheduleError> {
        let mut known = Vec::with_capacity(new.len());
        for spec in new {
            let accounted_ms = self
                .accounted_ms(&spec)
                .map_err(|error| ScheduleError::new(format!("job {:?}: {error}", spec.name)))?;
            known.push((spec, accounted_ms));
        }
        let gone: Vec<Key> = gone.iter().map(|job| job.key).collect();
        let keys = self
            .shared
            .with(|core, now| core.change(&gone, known, now))?;
        self.shared.keeper.notify_one();
        Ok(keys.into_iter().map(|key| self.handle(key)).collect())
    }

    /// Checks a job, and asks how far it had come where the store knows.
    fn accounted_ms(&self, spec: &JobSpec) -> Result<Option<u64>, ScheduleError> {
        spec.check(self.shared.once.is_some())?;
        let Some(once) = self.shared.once.as_ref().filter(|_| spec.once) else {
            return Ok(None);
        };
        let said = |error| ScheduleError::new(format!("the store of claims: {error}"));
        let accounted_ms = once.recall(&spec.name, spec.shard).map_err(said)?;
        if accounted_ms.is_none() && !spec.schedule.is_single() {
            // From now on, what is missed is known to be.
            let now_ms = self.shared.now().wall_ms;
            once.remember_first(&spec.name, spec.shard, now_ms)
                .map_err(said)?;
        }
        Ok(accounted_ms)
    }

    /// The job of this name and shard.
    #[must_use]
    pub fn find(&self, name: &str, shard: u32) -> Option<Job> {
        let key = self.shared.lock().core.find(name, shard)?;
        Some(self.handle(key))
    }

    /// All jobs that were not cancelled, in no particular order.
    #[must_use]
    pub fn jobs(&self) -> Vec<Job> {
        let state = self.shared.lock();
        let jobs = state.core.jobs.iter();
        let live = jobs.filter(|(_, job)| job.state != JobState::Cancelled);
        live.map(|(key, _)| self.handle(key)).collect()
    }

    fn handle(&self, key: Key) -> Job {
        Job {
            shared: Arc::clone(&self.shared),
            key,
        }
    }

    /// Firings that wait for a worker, and runs in all.
    #[must_use]
    pub fn load(&self) -> Load {
        let state = self.shared.lock();
        Load {
            ready: state.core.ready.len(),
            runs: state.core.runs.len(),
        }
    }

    /// How late firings began, of all jobs since the start.
    #[must_use]
    pub fn lateness(&self) -> Lateness {
        self.shared.lock().core.meter.lateness.clone()
    }

    /// Fires nothing any more, waits until all runs have ended, at most for `patience`, asks the rest to stop and waits
    /// four more seconds for them, and as long for the store. Firings whose first try had not begun are dropped; where a
    /// job runs once they are another replica's, or the next start finds them.
    pub fn shutdown(&self, patience: Duration) -> Drained {
        self.shared.with(|core, now| core.stop(now));
        let left = self.wait_for(patience, |core| core.runs.len());
        let mut drained = Drained {
            cancelled: left,
            left,
        };
        if left > 0 {
            self.shared.with(|core, now| {
                let jobs: Vec<Key> = core.jobs.iter().map(|(key, _)| key).collect();
                for job in jobs {
                    core.cancel_runs(job, CancelCause::ShuttingDown, now);
                }
            });
            // Those that wait for the store have not begun: what is left to do for it is bounded below.
            self.wait_for(LAST_WORDS, |core| core.runs.len() - core.claiming);
            drained.left = self.shared.lock().core.runs.len();
        }
        let is_told = self.tell_store();
        self.end_threads();
        // Where the store hangs, so do those that asked it.
        if drained.left == 0 && is_told {
            for thread in std::mem::take(&mut *self.threads.lock()) {
                // Its panic has said so already.
                drop(thread.join());
            }
        }
        drained
    }

    /// Tells the store what the next start is to know; whether it heard that in time.
    fn tell_store(&self) -> bool {
        let Some(once) = self.shared.once.clone() else {
            return true;
        };
        let shared = Arc::clone(&self.shared);
        let (told, heard) = mpsc::channel();
        let tell = move || {
            // A firing whose verdict is lost is in doubt. How far a job came is told for the sake of speed.
            once.flush();
            if let Err(error) = keeper::remember(&shared, &*once, &mut HashMap::new()) {
                tracing::warn!(%error, "how far the jobs came is not remembered");
            }
            once.flush();
            told.send(()).ok();
        };
        let telling = thread::Builder::new()
            .name("scheduler-end".into())
            .spawn(tell);
        match (telling, heard.recv_timeout(LAST_WORDS)) {
            (Ok(telling), Ok(())) => telling.join().is_ok(),
            _ => {
                tracing::warn!("the store did not hear the last in time");
                false
            }
        }
    }

    /// Waits until `left` counts no run any more, at most for `patience`. How many it counts then.
    fn wait_for(&self, patience: Duration, left: impl Fn(&Core) -> usize) -> usize {
        let until = Instant::now().checked_add(patience);
        let mut state = self.shared.lock();
        while left(&state.core) > 0 {
            let Some(until) = until else {
                self.shared.quiet.wait(&mut state);
                continue;
            };
            if self.shared.quiet.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        left(&state.core)
    }

    fn end_threads(&self) {
        let mut state = self.shared.lock();
        state.is_over = true;
        drop(state);
        self.shared.wake_all();
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.shared.with(|core, now| core.stop(now));
        self.end_threads();
    }
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler")
            .field("load", &self.load())
            .finish_non_exhaustive()
    }
}

/// What a scheduler has in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Firings that wait for a worker.
    pub ready: usize,
    /// Those, what runs, and what waits for its next try.
    pub runs: usize,
}

/// A job of a [`Scheduler`]. Dropping it cancels nothing; after [`cancel`](Self::cancel) it is stale.
#[derive(Clone)]
pub struct Job {
    shared: Arc<Shared>,
    key: Key,
}

/// What a job is doing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// Whether it fires.
    pub state: JobState,
    /// Its next fire time, before jitter, Unix milliseconds.
    pub next_ms: Option<u64>,
    /// Runs that are running.
    pub running: usize,
    /// Firings that wait: for a worker, for an earlier one to end, for their next try.
    pub waiting: usize,
    /// Firings that are in doubt until somebody says what happened ([`InDoubt::Ask`](crate::InDoubt::Ask)).
    pub in_doubt: usize,
    /// Its breaker.
    pub breaker: BreakerState,
    /// What became of its firings since it was added.
    pub counts: Counts,
    /// The last settled firing.
    pub last: Option<Record>,
}

impl Job {
    /// Names the job among all that this scheduler ever had.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.key.as_u64()
    }

    /// The job's name; none when it is stale.
    #[must_use]
    pub fn name(&self) -> Option<Arc<str>> {
        let state = self.shared.lock();
        Some(Arc::clone(&state.core.jobs.get(self.key)?.spec.name))
    }

    /// What the job was added as; none when it is stale.
    #[must_use]
    pub fn spec(&self) -> Option<Arc<JobSpec>> {
        let state = self.shared.lock();
        Some(Arc::clone(&state.core.jobs.get(self.key)?.spec))
    }

    /// What it is doing; none when it is stale.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        let now = self.shared.now();
        let state = self.shared.lock();
        let job = state.core.jobs.get(self.key)?;
        let runs = job.runs.iter().filter_map(|run| state.core.runs.get(*run));
        let running = runs.filter(|run| run.phase == RunPhase::Running).count();
        Some(Status {
            state: job.state,
            next_ms: job.next.as_ref().map(|(next_ms, _)| *next_ms),
            running,
            waiting: job.waiting.len() + job.runs.len() - running,
            in_doubt: job.in_doubt(),
            breaker: job.breaker_state(now.mono_ms),
            counts: job.counts,
            last: job.history.back().cloned(),
        })
    }

    /// The last settled firings, oldest first.
    #[must_use]
    pub fn history(&self) -> Vec<Record> {
        let state = self.shared.lock();
        let job = state.core.jobs.get(self.key);
        job.map(|job| job.history.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// Takes the job out: it never fires again and its name is free. What runs goes on to its end.
    pub fn cancel(&self) {
        self.shared.with(|core, now| core.remove(self.key, now));
    }

    /// Asks its runs to stop; those that wait for their next try have had their last.
    pub fn cancel_runs(&self) {
        self.shared
            .with(|core, now| core.cancel_runs(self.key, CancelCause::Requested, now));
    }

    /// Fires nothing until it is resumed. What falls into the pause is not missed.
    pub fn pause(&self) {
        self.shared.with(|core, _| core.pause(self.key));
    }

    /// Ends a pause.
    pub fn resume(&self) {
        self.shared.with(|core, now| core.resume(self.key, now));
    }

    /// Fires it now, besides its schedule and also in a pause; the overlap policy applies. False when it is cancelled.
    pub fn run_now(&self) -> bool {
        self.shared.with(|core, now| core.run_now(self.key, now))
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}
