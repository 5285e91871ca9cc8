//! Commands by the clock: each firing of a job sends one command to each device that matches then, once.
//!
//! A device's command has a key that follows from the job's name and the fire time, so whoever sends it again (a gateway
//! that was restarted inside a firing, another one on the same store) hears the stored answer, and the device sees
//! nothing. What is due, what was missed and what was cut off is the scheduler's to know; it remembers that in a store of
//! this gateway's own, below its data directory.

mod firing;
mod ledger;
mod tally;

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use idem_store::{Fingerprint, Options, Store};
use parking_lot::Mutex;
use scheduler::{
    BreakerRules, FireTime, InDoubt, JobSpec, Misfire, Outcome, Overlap, Record, Retry, Schedule,
    Scheduler,
};
use tokio::sync::Semaphore;

use super::Shared;
use super::config::CommandLimits;
use crate::proto::PAYLOAD_BYTES_MAX;
use ledger::Ledger;
pub(crate) use tally::{Report, Tally};

/// The folder of the scheduler's memory, in the data directory.
const DIR: &str = "jobs";

/// Threads that start firings; each firing then runs on the runtime.
const WORKERS: usize = 2;

/// A command by the clock. Make one with [`new`](Self::new) and change what you need.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CommandJob {
    /// 1 to 128 visible ASCII characters; unique.
    pub name: String,
    /// When; any but [`Schedule::after`], on which gateways and restarts would not agree.
    pub schedule: Schedule,
    /// Which devices.
    pub devices: DevicePattern,
    /// What each of them is sent, JSON.
    pub payload: String,
    /// How long a device has, connected or not; [`CommandLimits::timeout_ms`] unless it says.
    pub timeout_ms: Option<u64>,
    /// What happens to firings that were missed.
    pub misfire: Misfire,
    /// How late a firing may be before it was missed.
    pub misfire_after: Duration,
    /// What happens to a firing while an earlier one still runs.
    pub overlap: Overlap,
    /// Each firing starts up to so much later; its fire time stays.
    pub jitter: Duration,
    /// How a firing is tried again that some device did not execute. Those that did are not sent it again.
    pub retry: Retry,
    /// When the job is left alone for a time.
    pub breaker: Option<BreakerRules>,
    /// What happens to a firing that the end of its gateway cut off. Run again, it reaches the devices that it
    /// had not reached, and no other.
    pub in_doubt: InDoubt,
    /// Firings that are remembered for those who look.
    pub history_max: usize,
}

/// A device id, or how ids start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DevicePattern {
    /// This device.
    Id(String),
    /// Every device whose id starts with this.
    Prefix(String),
}

impl DevicePattern {
    /// Reads `prefix*`, or an id.
    ///
    /// ```
    /// use gateway::server::DevicePattern;
    ///
    /// assert_eq!(DevicePattern::parse("pump-*"), Ok(DevicePattern::Prefix("pump-".into())));
    /// assert_eq!(DevicePattern::parse("pump-7"), Ok(DevicePattern::Id("pump-7".into())));
    /// assert!(DevicePattern::parse("*-7").is_err());
    /// ```
    ///
    /// # Errors
    ///
    /// A sentence, when the text is empty, or has a `*` anywhere but at its end.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (start, is_prefix) = match text.strip_suffix('*') {
            Some(start) => (start, true),
            None => (text, false),
        };
        match is_prefix {
            _ if start.contains('*') => Err("a `*` stands at the end or nowhere"),
            true => Ok(Self::Prefix(start.to_owned())),
            false if start.is_empty() => Err("name a device, or \"prefix*\""),
            false => Ok(Self::Id(start.to_owned())),
        }
    }
}

impl std::fmt::Display for DevicePattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => f.write_str(id),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl CommandJob {
    /// A job with the usual rules: a missed firing runs once, overlapping ones are skipped, one try, and what was cut off
    /// is continued.
    ///
    /// ```
    /// use std::time::Duration;
    /// use gateway::server::scheduler::Schedule;
    /// use gateway::server::{CommandJob, Config, DevicePattern};
    ///
    /// let every = Schedule::every(Duration::from_secs(60))?;
    /// let pumps = DevicePattern::Prefix("pump-".into());
    /// let mut config = Config::default();
    /// config.jobs = vec![CommandJob::new("report", every, pumps, r#"{"report":"full"}"#)];
    /// assert_eq!(config.check(), Ok(()));
    /// # Ok::<(), gateway::server::scheduler::ScheduleError>(())
    /// ```
    pub fn new(
        name: impl Into<String>,
        schedule: Schedule,
        devices: DevicePattern,
        payload: impl Into<String>,
    ) -> Self {
        Self {
            name: name.into(),
            schedule,
            devices,
            payload: payload.into(),
            timeout_ms: None,
            misfire: Misfire::default(),
            misfire_after: Duration::from_secs(1),
            overlap: Overlap::default(),
            jitter: Duration::ZERO,
            retry: Retry::NONE,
            breaker: None,
            in_doubt: InDoubt::Rerun,
            history_max: 20,
        }
    }

    pub(crate) fn check_all(jobs: &[Self], limits: &CommandLimits) -> Result<(), String> {
        let mut names = HashSet::new();
        for job in jobs {
            job.check(limits)
                .map_err(|text| format!("the job {:?}: {text}", job.name))?;
            if !names.insert(job.name.as_str()) {
                return Err(format!("there are two jobs {:?}", job.name));
            }
        }
        Ok(())
    }

    fn check(&self, limits: &CommandLimits) -> Result<(), String> {
        let is_visible = self.name.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_visible || !(1..=128).contains(&self.name.len()) {
            return Err("its name has to be 1 to 128 visible ASCII characters".into());
        }
        if self.payload.len() > PAYLOAD_BYTES_MAX {
            return Err(format!(
                "its command has more than {PAYLOAD_BYTES_MAX} bytes"
            ));
        }
        if let Err(error) = Fingerprint::of_json(self.payload.as_bytes()) {
            return Err(format!("its command is not JSON: {error}"));
        }
        let timeout_ms = self.timeout_ms.unwrap_or(limits.timeout_ms);
        if !(1..=limits.timeout_ms_max).contains(&timeout_ms) {
            let max = limits.timeout_ms_max;
            return Err(format!("its timeout is not 1 to {max} ms"));
        }
        Ok(())
    }
}

/// The jobs of a gateway that runs. Without a job there is neither a thread nor a folder.
pub(crate) struct Jobs {
    /// In the order of the configuration.
    list: Vec<Running>,
    machine: Option<Machine>,
}

struct Machine {
    scheduler: Arc<Scheduler>,
    ledger: Arc<Ledger>,
    store: Store,
}

/// A job, and the scheduler's handle to it.
pub(crate) struct Running {
    pub(crate) job: Arc<Job>,
    pub(crate) handle: scheduler::Job,
}

/// What the firings of a job share.
pub(crate) struct Job {
    pub(crate) config: CommandJob,
    payload: Arc<[u8]>,
    fingerprint: Fingerprint,
    timeout: Duration,
    /// A place for each command of any job that runs.
    places: Arc<Semaphore>,
    /// Of all firings.
    pub(crate) tally: Tally,
    /// The newest firing that began.
    pub(crate) last: Mutex<Option<Arc<Report>>>,
}

impl Jobs {
    /// Starts the jobs of the configuration.
    pub(crate) async fn start(shared: &Arc<Shared>) -> io::Result<Self> {
        if shared.config.jobs.is_empty() {
            return Ok(Self {
                list: Vec::new(),
                machine: None,
            });
        }
        let shared = Arc::clone(shared);
        // The stores block.
        let started = tokio::task::spawn_blocking(move || Self::start_blocking(&shared));
        started.await.map_err(io::Error::other)?
    }

    fn start_blocking(shared: &Arc<Shared>) -> io::Result<Self> {
        let limits = &shared.config.commands;
        let store = Store::open(shared.config.data.join(DIR), Options::new());
        let store = store.map_err(io::Error::other)?;
        let ledger = Arc::new(Ledger::new(store.clone(), limits.retain_ms));
        let mut config = scheduler::Config::default();
        config.workers = WORKERS;
        config.once = Some(Arc::clone(&ledger) as _);
        config.observer = Some(Box::new(log));
        let scheduler = Arc::new(Scheduler::start(config)?);
        let places = limits.job_commands_max.min(limits.total_max);
        let places = Arc::new(Semaphore::new(places));
        let add = |config: &CommandJob| {
            let job = Arc::new(Job::new(config.clone(), limits, Arc::clone(&places)));
            let spec = spec_of(&job, Arc::downgrade(shared), shared.runtime.clone());
            let added = scheduler.add(spec);
            let said = |error| io::Error::other(format!("the job {:?}: {error}", config.name));
            let handle = added.map_err(said)?;
            Ok(Running { job, handle })
        };
        let list: io::Result<_> = shared.config.jobs.iter().map(add).collect();
        Ok(Self {
            list: list?,
            machine: Some(Machine {
                scheduler,
                ledger,
                store,
            }),
        })
    }

    pub(crate) fn list(&self) -> &[Running] {
        &self.list
    }

    /// How late firings began; none without a job.
    pub(crate) fn lateness(&self) -> Option<scheduler::Lateness> {
        let machine = self.machine.as_ref()?;
        Some(machine.scheduler.lateness())
    }

    /// Fires nothing any more and cuts off what fires; the next start continues it.
    pub(crate) async fn stop(&self) -> io::Result<()> {
        let Some(machine) = &self.machine else {
            return Ok(());
        };
        machine.ledger.stop();
        let (scheduler, store) = (Arc::clone(&machine.scheduler), machine.store.clone());
        let stopped = tokio::task::spawn_blocking(move || {
            scheduler.shutdown(Duration::ZERO);
            store.close()
        });
        stopped
            .await
            .map_err(io::Error::other)?
            .map_err(io::Error::other)
    }
}

impl Job {
    fn new(config: CommandJob, limits: &CommandLimits, places: Arc<Semaphore>) -> Self {
        let payload: Arc<[u8]> = config.payload.as_bytes().into();
        let timeout_ms = config.timeout_ms.unwrap_or(limits.timeout_ms);
        Self {
            fingerprint: Fingerprint::of_json(&payload).expect("the configuration was checked"),
            payload,
            timeout: Duration::from_millis(timeout_ms),
            places,
            tally: Tally::default(),
            last: Mutex::default(),
            config,
        }
    }

    /// The `Idempotency-Key` of a firing's commands.
    fn key(&self, fire_ms: u64) -> String {
        format!("job:{}:{}", self.config.name, FireTime(fire_ms))
    }
}

fn spec_of(job: &Arc<Job>, shared: Weak<Shared>, runtime: tokio::runtime::Handle) -> JobSpec {
    let config = &job.config;
    let schedule = config.schedule.clone();
    let job = Arc::clone(job);
    let run = move |firing| firing::run(Weak::clone(&shared), Arc::clone(&job), firing);
    let spec = JobSpec::future(config.name.as_str(), schedule, runtime, run)
        .once()
        .misfire(config.misfire)
        .misfire_after(config.misfire_after)
        .overlap(config.overlap)
        .jitter(config.jitter)
        .retry(config.retry)
        .in_doubt(config.in_doubt)
        .history_max(config.history_max);
    match config.breaker {
        Some(rules) => spec.breaker(rules),
        None => spec,
    }
}

fn log(spec: &JobSpec, record: &Record) {
    if matches!(record.outcome, Outcome::Succeeded | Outcome::Elsewhere) {
        return;
    }
    tracing::warn!(
        job = spec.name(),
        fire_time = %FireTime(record.fire_ms),
        outcome = record.outcome.name(),
        error = record.error.as_deref(),
        trace_id = record.trace.map(tracing::field::display),
        "a firing did not succeed"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> CommandJob {
        let every = Schedule::every(Duration::from_secs(1)).unwrap();
        CommandJob::new("a", every, DevicePattern::Prefix(String::new()), "{}")
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let limits = CommandLimits::default();
        let jobs = [job(), job()];
        assert_eq!(CommandJob::check_all(&jobs[..1], &limits), Ok(()));
        let twice = CommandJob::check_all(&jobs, &limits).unwrap_err();
        assert!(twice.contains("two jobs \"a\""), "{twice}");
        type Change = fn(&mut CommandJob);
        let impossible: [(&str, Change); 5] = [
            ("name", |job| job.name = "a b".into()),
            ("name", |job| job.name = "a".repeat(129)),
            ("not JSON", |job| job.payload = "{".into()),
            ("bytes", |job| job.payload = "1".repeat(65_537)),
            ("timeout", |job| job.timeout_ms = Some(0)),
        ];
        for (what, change) in impossible {
            let mut job = job();
            change(&mut job);
            let text = CommandJob::check_all(&[job], &limits).unwrap_err();
            assert!(text.contains(what), "{text}");
        }
    }

    #[test]
    fn a_key_names_the_job_and_the_time() {
        let limits = CommandLimits::default();
        let mut config = job();
        config.name = "tick".into();
        let job = Job::new(config, &limits, Arc::new(Semaphore::new(1)));
        let key = job.key(1_796_094_000_123);
        let page = include_str!("../../../docs/FORMAT.md");
        assert!(page.contains(&format!("`{key}`")), "{key}");
    }
}
