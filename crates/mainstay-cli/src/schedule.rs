//! `mainstay schedule`: jobs by the clock.

mod action;
mod config;
mod pages;
mod plan;
mod report;
mod resolve;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::scheduler::{Config, FireTime, JobSpec, Scheduler, StoreOnce};
use clap::{Args, Subcommand};
use idem_store::{Options, Store};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;

use crate::Verdict;
use crate::out::Out;
use crate::units::{parse_duration, parse_interval};
use action::Means;
use config::JobConfig;
use report::Report;

/// Run jobs by the clock: commands and HTTP calls, on cron expressions, intervals or times.
///
/// With --store and `once = true`, a job runs once across all processes on that store; a firing whose runner died is in
/// doubt and handled as `in_doubt` says. SIGHUP reads the file again: jobs that did not change keep their state. Ctrl-C (or
/// SIGTERM) drains: nothing new fires, what runs may end.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:\n  \
    mainstay schedule --config jobs.toml --dry-run 5\n  \
    mainstay schedule --config jobs.toml --store redis://127.0.0.1/\n  \
    mainstay schedule resolve --store redis://127.0.0.1/\n\n\
    A job, in jobs.toml:\n  \
    [[job]]\n  \
    name = \"reconcile\"\n  \
    cron = \"*/5 * * * *\"          # or every = \"250ms\", at = \"2026-12-01T03:00:00Z\", after = \"10s\"\n  \
    run = [\"sh\", \"-c\", \"echo $MAINSTAY_JOB $MAINSTAY_FIRE_TIME\"]"
)]
pub(crate) struct ScheduleArgs {
    #[command(subcommand)]
    action: Option<Action>,
    /// The jobs (TOML)
    #[arg(
        long,
        value_name = "FILE",
        env = "MAINSTAY_SCHEDULE_CONFIG",
        required = true
    )]
    config: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArgs,
    /// Print the next N firings of each job and end
    #[arg(long, value_name = "N")]
    dry_run: Option<usize>,
    /// Where a dry run begins, RFC 3339 [default: now]
    #[arg(long, value_name = "TIME", requires = "dry_run", value_parser = parse_time)]
    from: Option<FireTime>,
    /// Where the status page and /metrics are served [default: 127.0.0.1:7481]
    #[arg(long, value_name = "ADDR", env = "MAINSTAY_SCHEDULE_HTTP")]
    http: Option<SocketAddr>,
    /// A Host name that HTTP requests may carry, besides the loopback ones; may be repeated
    #[arg(
        long = "host",
        value_name = "NAME",
        env = "MAINSTAY_SCHEDULE_HOSTS",
        value_delimiter = ','
    )]
    hosts: Vec<String>,
    /// How long a drain waits for what runs
    #[arg(long, value_name = "TIME", env = "MAINSTAY_SCHEDULE_DRAIN_TIMEOUT", value_parser = parse_duration, default_value = "10s")]
    drain_timeout: Duration,
    /// Threads that claim and start firings [default: one per core, at least 4]
    #[arg(long, value_name = "N", env = "MAINSTAY_SCHEDULE_WORKERS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// Commands and calls that run at a time; more firings wait in the queue
    #[arg(long, value_name = "N", env = "MAINSTAY_SCHEDULE_RUNNING_MAX", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    running_max: u32,
    /// Print JSON lines instead of text
    #[arg(long, env = "MAINSTAY_SCHEDULE_JSON", value_parser = clap::builder::FalseyValueParser::new())]
    json: bool,
}

#[derive(Debug, Args)]
struct StoreArgs {
    /// The store of claims, for jobs with `once`: redis://HOST:PORT, postgres://..., mysql://..., file:DIR
    #[arg(
        long,
        value_name = "URL",
        env = "MAINSTAY_SCHEDULE_STORE",
        hide_env_values = true
    )]
    store: Option<String>,
    /// How long the claims of a process that died stand before their firings are in doubt
    #[arg(long, value_name = "TIME", env = "MAINSTAY_SCHEDULE_LEASE", value_parser = parse_interval, default_value = "10s")]
    lease: u32,
}

impl StoreArgs {
    fn open(&self) -> Result<Option<StoreOnce>, String> {
        let Some(url) = &self.store else {
            return Ok(None);
        };
        let store = Store::connect(url, Options::new()).map_err(|error| error.to_string())?;
        Ok(Some(StoreOnce::new(store).lease_ms(self.lease.into())))
    }
}

#[derive(Debug, Subcommand)]
enum Action {
    Resolve(resolve::ResolveArgs),
}

fn parse_time(text: &str) -> Result<FireTime, String> {
    FireTime::parse(text).map_err(|error| error.to_string())
}

/// Runs the command. The error is a sentence for stderr.
pub(crate) fn run(args: ScheduleArgs) -> Result<Verdict, String> {
    if let Some(Action::Resolve(args)) = &args.action {
        return resolve::run(args);
    }
    let file = args.config.as_ref().expect("clap requires it");
    // A dry run claims nothing.
    let has_store = args.store.store.is_some() || args.dry_run.is_some();
    let jobs = config::read(file, has_store)?;
    if let Some(count) = args.dry_run {
        return plan::print(&jobs, args.from, count, args.json);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("mainstay-schedule")
        .build()
        .map_err(|error| error.to_string())?;
    let ended = runtime.block_on(serve(&Arc::new(args), jobs));
    runtime.shutdown_background();
    ended
}

async fn serve(args: &Arc<ScheduleArgs>, jobs: Vec<JobConfig>) -> Result<Verdict, String> {
    let said = |error: std::io::Error| error.to_string();
    let mut signals = Signals::listen().map_err(said)?;
    let out = Out::stdout().map_err(said)?;
    let report = Arc::new(Report::new(args.json, Arc::clone(&out)));
    let starting = {
        let (args, report) = (Arc::clone(args), Arc::clone(&report));
        spawn_blocking(move || Table::start(&args, &report, jobs))
    };
    // The store may not answer.
    let mut table = tokio::select! {
        table = starting => table.map_err(|error| error.to_string())??,
        () = signals.stop() => return Err("ended before it was ready".into()),
    };
    let scheduler = Arc::clone(&table.scheduler);
    let http = args
        .http
        .unwrap_or(SocketAddr::from(([127, 0, 0, 1], 7481)));
    let listener = TcpListener::bind(http).await;
    let listener =
        listener.map_err(|error| format!("{http}: {error}; another --http is possible"))?;
    let http = listener.local_addr().map_err(said)?;
    let pages = pages::Pages::new(Arc::clone(&scheduler), args.hosts.clone(), out);
    tokio::spawn(pages::serve(listener, Arc::clone(&pages)));
    report.ready(http, table.jobs.len(), args.store.store.is_some());
    while let Wish::Reload = signals.next().await {
        let (args, report) = (Arc::clone(args), Arc::clone(&report));
        let reloading = spawn_blocking(move || {
            reload(&args, &mut table, &report);
            table
        });
        table = tokio::select! {
            table = reloading => table.map_err(|error| error.to_string())?,
            () = signals.stop() => break,
        };
    }
    pages.drain();
    report.say("draining", "draining; Ctrl-C again ends at once");
    let patience = args.drain_timeout;
    let drained = spawn_blocking(move || scheduler.shutdown(patience));
    tokio::select! {
        drained = drained => report.stopped(drained.map_err(|error| error.to_string())?),
        () = signals.stop_again() => return Err("ended before it was drained".into()),
    }
    Ok(Verdict::Good)
}

fn start(args: &ScheduleArgs, report: &Arc<Report>) -> Result<Arc<Scheduler>, String> {
    let mut config = Config::default();
    if let Some(workers) = args.workers {
        config.workers = workers.into();
    }
    config.futures_max = args.running_max as usize;
    if let Some(once) = args.store.open()? {
        config.once = Some(Arc::new(once));
    }
    let report = Arc::clone(report);
    config.observer = Some(Box::new(move |spec, record| report.settled(spec, record)));
    let scheduler = Scheduler::start(config).map_err(|error| error.to_string())?;
    Ok(Arc::new(scheduler))
}

fn reload(args: &ScheduleArgs, table: &mut Table, report: &Report) {
    let file = args.config.as_ref().expect("clap requires it");
    let changed =
        config::read(file, args.store.store.is_some()).and_then(|jobs| table.change_to(jobs));
    match changed {
        Ok(changed) => report.reloaded(&changed),
        Err(error) => report.failed("reload-failed", &error),
    }
}

/// The jobs as the file has them, and the scheduler that runs them.
struct Table {
    scheduler: Arc<Scheduler>,
    jobs: Vec<JobConfig>,
    means: Arc<Means>,
}

/// What a reload did.
#[derive(serde::Serialize)]
struct Changed {
    kept: usize,
    added: usize,
    removed: usize,
}

impl Table {
    fn start(
        args: &ScheduleArgs,
        report: &Arc<Report>,
        jobs: Vec<JobConfig>,
    ) -> Result<Self, String> {
        let mut table = Self {
            scheduler: start(args, report)?,
            jobs: Vec::new(),
            means: Means::find(),
        };
        table.change_to(jobs)?;
        Ok(table)
    }

    /// Jobs that are the same stay as they are; others go or come. After an error everything is as it was.
    fn change_to(&mut self, wanted: Vec<JobConfig>) -> Result<Changed, String> {
        let (had, has) = (by_id(&self.jobs), by_id(&wanted));
        let gone = self
            .jobs
            .iter()
            .filter(|job| has.get(&id(job)) != Some(job));
        let gone: Vec<_> = gone
            .filter_map(|job| self.scheduler.find(&job.name, job.shard))
            .collect();
        let new = wanted.iter().filter(|job| had.get(&id(job)) != Some(job));
        let new: Vec<_> = new.map(|job| spec_of(job, &self.means)).collect();
        let changed = Changed {
            kept: wanted.len() - new.len(),
            added: new.len(),
            removed: gone.len(),
        };
        let done = self.scheduler.change(&gone, new);
        done.map_err(|error| error.to_string())?;
        self.jobs = wanted;
        Ok(changed)
    }
}

/// What no two jobs of a file have in common.
fn id(job: &JobConfig) -> (&str, u32) {
    (&job.name, job.shard)
}

fn by_id(jobs: &[JobConfig]) -> HashMap<(&str, u32), &JobConfig> {
    jobs.iter().map(|job| (id(job), job)).collect()
}

fn spec_of(job: &JobConfig, means: &Arc<Means>) -> JobSpec {
    let action = Arc::new(job.action.clone());
    let means = Arc::clone(means);
    let run = move |firing| action::act(Arc::clone(&action), Arc::clone(&means), firing);
    let rules = &job.rules;
    let mut spec = JobSpec::future(
        job.name.as_str(),
        job.schedule.clone(),
        Handle::current(),
        run,
    )
    .shard(job.shard)
    .history_max(rules.history.map_or(20, |history| history.0));
    if let Some(misfire) = rules.misfire {
        spec = spec.misfire(misfire.0.0);
    }
    if let Some(grace) = rules.misfire_after {
        spec = spec.misfire_after(grace.0);
    }
    if let Some(overlap) = rules.overlap {
        spec = spec.overlap(overlap.0.0);
    }
    if let Some(jitter) = rules.jitter {
        spec = spec.jitter(jitter.0);
    }
    if let Some(timeout) = rules.timeout {
        spec = spec.timeout(timeout.0);
    }
    if let Some(retry) = rules.retry {
        spec = spec.retry(retry.retry());
    }
    if let Some(breaker) = rules.breaker {
        spec = spec.breaker(breaker.rules());
    }
    if rules.once == Some(true) {
        spec = spec.once();
    }
    if let Some(in_doubt) = rules.in_doubt {
        spec = spec.in_doubt(in_doubt.0.0);
    }
    spec
}

/// What a signal asks for.
enum Wish {
    Stop,
    Reload,
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.terminate.recv() => Wish::Stop,
            _ = self.hangup.recv() => Wish::Reload,
        }
    }

    /// A wish to stop; one to reload is kept for later.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// A second wish to stop. Supervisors may say the first one twice, so what comes at once does not count.
    async fn stop_again(&mut self) {
        tokio::time::sleep(Duration::from_millis(500)).await;
        *self = match Self::listen() {
            Ok(signals) => signals,
            Err(_) => return std::future::pending().await,
        };
        self.stop().await;
    }
}
