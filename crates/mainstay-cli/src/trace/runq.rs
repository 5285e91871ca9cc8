//! `mainstay trace runq`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use kernel_scope::runq::{Options, RunQ, TASKS_MAX, Task, WaitKind, Waits, flame_graph};
use kernel_scope::{Attachment, Events, Log2Histogram, Overhead, ScopeError, Symbols};
use serde_json::{Map, Value, json};

use super::session::{
    Common, Failure, Interval, Rates, Watch, micros, printable, say, watch, write_line,
};

/// How long tasks wait for a CPU after they were woken or preempted, and who woke them.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: mainstay trace runq --for 10s --svg off-cpu.svg\n\n\
    A wait begins when somebody begins to wake the task, or when it is preempted, and ends when it \
    runs. MIGRATED waits ended on another CPU than the one before. Times are in microseconds, \
    quantiles from slots that double. WAKER is the one that woke the task most often; softirq and \
    hardirq are interrupts, for which no task is to blame.\n\
    --svg draws where time went off the CPU, by wakeup reason; it costs several times as much as \
    the table alone. Wake-ups and sleeps for which there was no room are counted below the table. Pids are those of the initial pid namespace."
)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// Also draw an off-CPU flame graph by wakeup reason, with stacks of kernel and processes.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Tasks that are kept apart at once, at some 700 bytes each.
    #[arg(long, value_name = "TASKS", default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(1..=i64::from(TASKS_MAX)))]
    tasks_max: u32,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let mut options = Options::default().tasks_max(args.tasks_max);
    options.pid = args.common.pid;
    options.stacks = args.svg.is_some();
    let mut watched = Tasks {
        tool: RunQ::open(&options)?,
        tasks: Vec::new(),
        rates: Rates::default(),
    };
    let watching = watch(&args.common, &mut watched);
    // Also when nobody wants to read the table to its end.
    if let Some(path) = &args.svg {
        let graph = flame_graph(&watched.tool.off_cpu()?, &Symbols::new());
        std::fs::write(path, graph.to_string()).map_err(|e| {
            io::Error::new(e.kind(), format!("cannot write {}: {e}", path.display()))
        })?;
        say(format_args!("the flame graph is in {}", path.display()));
    }
    watching
}

struct Tasks {
    tool: RunQ,
    /// As of the last look.
    tasks: Vec<Task>,
    /// By thread, as tid and beginning.
    rates: Rates<(u32, u64)>,
}

impl Watch for Tasks {
    fn watching(&self) -> &'static str {
        "waits for a CPU"
    }

    fn attached(&self) -> &Attachment {
        self.tool.attached()
    }

    fn collect(&mut self, duration: Duration) -> Result<(), Failure> {
        Ok(self.tool.collect(duration)?)
    }

    fn look(&mut self) -> Result<(), ScopeError> {
        self.tasks = self.tool.tasks()?;
        Ok(())
    }

    fn finish(&mut self) -> Result<Events, Failure> {
        Ok(self.tool.finish()?)
    }

    fn overhead(&self) -> Overhead {
        self.tool.overhead()
    }

    fn table(&mut self, interval: Interval) -> Vec<String> {
        let head = format!(
            "{:>8} {:>8} {:<16} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}  WAKER",
            "PID",
            "TID",
            "COMM",
            "WOKEN",
            "PREEMPTED",
            "MIGRATED",
            "WAITS/S",
            "P50_US",
            "P99_US",
            "MAX_US"
        );
        let mut lines = vec![head];
        for task in &self.tasks {
            let waits = task.all_waits();
            let rate = self
                .rates
                .per_second((task.tid, task.start_ns), waits.count(), interval);
            lines.push(line(task, &waits, rate));
        }
        lines
    }

    fn json(&self, out: &mut dyn Write) -> io::Result<()> {
        for task in &self.tasks {
            write_line(out, &object(task))?;
        }
        Ok(())
    }

    fn losses(&self) -> Result<Vec<(&'static str, u64)>, ScopeError> {
        let (off_cpu, wakers) = self.tool.without_room()?;
        Ok(vec![
            ("stacks_lost", self.tool.stacks_lost()?),
            ("wakers_without_room", wakers),
            ("off_cpu_without_room", off_cpu),
        ])
    }

    fn ungrouped(&self) -> u64 {
        self.tool.ungrouped()
    }
}

fn line(task: &Task, waits: &Log2Histogram, rate: f64) -> String {
    let count = |kind| task.waits(kind).lengths.count();
    let woken = count(WaitKind::Woken) + count(WaitKind::WokenMigrated);
    let preempted = count(WaitKind::Preempted) + count(WaitKind::PreemptedMigrated);
    let migrated = count(WaitKind::WokenMigrated) + count(WaitKind::PreemptedMigrated);
    let waker = match task.wakers.first() {
        None => "-".to_owned(),
        Some(waker) if waker.tid == 0 => format!("{} ({})", waker.class, waker.count),
        Some(waker) => format!("{}/{} ({})", printable(&waker.comm), waker.tid, waker.count),
    };
    let quantile = |q| micros(waits.quantile_ns(q).unwrap_or(0));
    format!(
        "{:>8} {:>8} {:<16} {woken:>9} {preempted:>9} {migrated:>9} {rate:>9.0} {:>9.1} {:>9.1} {:>9.1}  {waker}",
        task.pid,
        task.tid,
        printable(&task.comm),
        quantile(0.5),
        quantile(0.99),
        micros(waits.longest_ns()),
    )
}

fn object(task: &Task) -> Value {
    let waits: Map<String, Value> = WaitKind::ALL
        .iter()
        .map(|kind| (kind.as_str().to_owned(), waits_object(task.waits(*kind))))
        .collect();
    let wakers: Vec<Value> = task
        .wakers
        .iter()
        .map(|waker| {
            json!({
                "class": waker.class.as_str(),
                "tid": waker.tid,
                "comm": waker.comm,
                "count": waker.count,
                "wait_us": { "total": micros(waker.total_ns), "max": micros(waker.longest_ns) },
            })
        })
        .collect();
    json!({
        "pid": task.pid,
        "tid": task.tid,
        "start_ns": task.start_ns,
        "comm": task.comm,
        "ended": task.has_ended,
        "migrations": task.migrations,
        "waits": waits,
        "wakers": wakers,
    })
}

/// `histogram` lists the microseconds at which a slot begins, and its count.
fn waits_object(waits: &Waits) -> Value {
    let quantile = |q| waits.lengths.quantile_ns(q).map(micros);
    json!({
        "count": waits.lengths.count(),
        "total_us": micros(waits.total_ns),
        "p50_us": quantile(0.5),
        "p99_us": quantile(0.99),
        "max_us": micros(waits.lengths.longest_ns()),
        "histogram": waits.lengths.slots().collect::<Vec<_>>(),
    })
}
