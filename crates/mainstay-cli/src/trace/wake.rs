//! `mainstay trace wake`.

use std::io::{self, BufWriter, Write};
use std::time::{Duration, Instant};

use kernel_scope::wake::{Event, Row, Summary, Wake, Waker};
use kernel_scope::{Attachment, Events, Histogram, Overhead, ScopeError};
use serde_json::{Value, json};

use super::session::{
    Common, Failure, Interval, Rates, Ring, Watch, micros, printable, watch, write_line,
};

/// Which system calls of a process sleep, how long, and who wakes them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: mainstay trace wake --pid 1234 --for 10s\n\n\
    ASLEEP is the time until somebody began to wake the thread, QUEUED the wait for a CPU after \
    that. The line below each row is the timeline of its slowest call, in microseconds since it was \
    entered. softirq and hardirq are interrupts (the network, timers), for which no task is to \
    blame. Calls that have not ended are not shown. Pids are those of the initial pid namespace.\n\n\
    All times are in microseconds, but for the first column of --timeline: seconds of CLOCK_MONOTONIC, when the call was \
    entered. Where a call slept several times, its timeline is of the longest sleep. Whoever reads the lines too slowly loses \
    events, which the last line counts.")]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    ring: Ring,
    /// Also a line for each call when it ends, before the totals; instead of the live table.
    #[arg(long)]
    timeline: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let options = args.ring.options(&args.common);
    let mut watched = Calls {
        tool: Wake::open(&options)?,
        summary: Summary::default(),
        rates: Rates::default(),
        write_call: match (args.timeline, args.common.json) {
            (false, _) => None,
            (true, false) => Some(call_text),
            (true, true) => Some(call_json),
        },
    };
    watch(&args.common, &mut watched)
}

type WriteCall = fn(&mut dyn Write, &Event) -> io::Result<()>;

/// Written at once, and then to whoever waits for lines.
const EVENTS_AT_ONCE: u64 = 1000;

struct Calls {
    tool: Wake,
    summary: Summary,
    /// By thread, as tid and beginning, and number of the call.
    rates: Rates<(u32, u64, u32)>,
    /// How each call is told by itself, if it is.
    write_call: Option<WriteCall>,
}

impl Calls {
    /// Adds what `read` hands on to the totals, and writes it down where that is wanted.
    fn record<T>(
        &mut self,
        read: impl FnOnce(&mut Wake, &mut dyn FnMut(&Event)) -> Result<T, ScopeError>,
    ) -> Result<T, Failure> {
        let mut out = BufWriter::new(io::stdout().lock());
        let mut written = Ok(());
        let done = read(&mut self.tool, &mut |event| {
            self.summary.record(event);
            if let (Some(write_call), Ok(())) = (self.write_call, &written) {
                written = write_call(&mut out, event);
            }
        });
        written?;
        out.flush()?;
        Ok(done?)
    }
}

fn call_json(out: &mut dyn Write, event: &Event) -> io::Result<()> {
    write_line(out, &call_object(event))
}

fn call_text(out: &mut dyn Write, event: &Event) -> io::Result<()> {
    let entered = Duration::from_nanos(event.entered_ns).as_secs_f64();
    writeln!(
        out,
        "{entered:>14.6} {:>8} {:>8} {:<16} {}",
        event.pid,
        event.tid,
        printable(&event.comm()),
        timeline(event),
    )
}

impl Watch for Calls {
    fn watching(&self) -> &'static str {
        "calls that sleep"
    }

    fn attached(&self) -> &Attachment {
        self.tool.attached()
    }

    fn writes_lines(&self) -> bool {
        self.write_call.is_some()
    }

    fn collect(&mut self, duration: Duration) -> Result<(), Failure> {
        let start = Instant::now();
        loop {
            let left = duration.saturating_sub(start.elapsed());
            self.tool.wait(left)?;
            self.record(|tool, each| tool.drain(EVENTS_AT_ONCE, each))?;
            if left.is_zero() {
                return Ok(());
            }
        }
    }

    fn finish(&mut self) -> Result<Events, Failure> {
        self.record(|tool, each| tool.finish_each(each))
    }

    fn overhead(&self) -> Overhead {
        self.tool.overhead()
    }

    fn table(&mut self, interval: Interval) -> Vec<String> {
        let head = format!(
            "{:>8} {:>8} {:<16} {:<16} {:>9} {:>9} {:>11} {:>11} {:>11} {:>11}  WAKERS",
            "PID",
            "TID",
            "COMM",
            "CALL",
            "CALLS",
            "CALLS/S",
            "ASLEEP_P50",
            "ASLEEP_P99",
            "QUEUED_P50",
            "QUEUED_P99"
        );
        let mut lines = vec![head];
        for row in self.summary.rows() {
            let key = (row.tid, row.start_ns, row.slowest.call);
            let rate = self.rates.per_second(key, row.calls, interval);
            lines.push(line(row, rate));
            if matches!(interval, Interval::Whole(_)) {
                lines.push(format!("{:>26}{}", "", timeline(&row.slowest)));
            }
        }
        lines
    }

    fn json(&self, out: &mut dyn Write) -> io::Result<()> {
        for row in self.summary.rows() {
            write_line(out, &object(row))?;
        }
        Ok(())
    }

    fn losses(&self) -> Result<Vec<(&'static str, u64)>, ScopeError> {
        Ok(vec![("calls_not_followed", self.tool.not_followed()?)])
    }

    fn ungrouped(&self) -> u64 {
        self.summary.ungrouped()
    }
}

fn line(row: &Row, rate: f64) -> String {
    let quantile = |times: &Histogram, q| micros(times.quantile(q).unwrap_or(0));
    let mut wakers: Vec<&Waker> = row.wakers.iter().collect();
    wakers.sort_by_key(|waker| std::cmp::Reverse(waker.count));
    let wakers: Vec<String> = wakers
        .iter()
        .take(3)
        .map(|waker| waker_text(waker))
        .collect();
    format!(
        "{:>8} {:>8} {:<16} {:<16} {:>9} {rate:>9.0} {:>11.1} {:>11.1} {:>11.1} {:>11.1}  {}",
        row.pid,
        row.tid,
        printable(&row.comm),
        row.call,
        row.calls,
        quantile(&row.asleep_ns, 0.5),
        quantile(&row.asleep_ns, 0.99),
        quantile(&row.queued_ns, 0.5),
        quantile(&row.queued_ns, 0.99),
        wakers.join(", "),
    )
}

fn waker_text(waker: &Waker) -> String {
    match waker.tid {
        0 => format!("{} ({})", waker.class, waker.count),
        tid => format!("{}/{tid} ({})", printable(&waker.comm), waker.count),
    }
}

fn timeline(event: &Event) -> String {
    let since = |ns: u64| micros(ns.saturating_sub(event.entered_ns));
    let waker = match event.waker_tid {
        0 => event.waker_class().to_string(),
        tid => format!("{}/{tid}", printable(&event.waker_comm())),
    };
    format!(
        "{}({:#x}) = {}: asleep at {:.1}, woken by {waker} at {:.1}, running at {:.1}, left at {:.1}",
        event.call_name(),
        event.arg0,
        event.ret,
        since(event.blocked_ns),
        since(event.woken_ns),
        since(event.running_ns),
        since(event.left_ns),
    )
}

fn object(row: &Row) -> Value {
    let wakers: Vec<Value> = row
        .wakers
        .iter()
        .map(|waker| {
            json!({
                "class": waker.class.as_str(),
                "pid": waker.pid,
                "tid": waker.tid,
                "comm": waker.comm,
                "count": waker.count,
            })
        })
        .collect();
    json!({
        "pid": row.pid,
        "tid": row.tid,
        "start_ns": row.start_ns,
        "comm": row.comm,
        "call": row.call,
        "calls": row.calls,
        "asleep_us": times(&row.asleep_ns, row.asleep_total_ns),
        "queued_us": times(&row.queued_ns, row.queued_total_ns),
        "wakers": wakers,
        "slowest": slowest(&row.slowest),
    })
}

/// `histogram` lists the microseconds at which a bucket begins, and its count.
fn times(times: &Histogram, total_ns: u64) -> Value {
    let histogram: Vec<(f64, u64)> = times
        .buckets()
        .map(|(begin, count)| (micros(begin), count))
        .collect();
    json!({
        "total": micros(total_ns),
        "p50": times.quantile(0.5).map(micros),
        "p99": times.quantile(0.99).map(micros),
        "max": micros(times.max()),
        "histogram": histogram,
    })
}

/// A call by itself: of all lines, only these have `entered_ns`.
fn call_object(event: &Event) -> Value {
    let mut object = slowest(event);
    let call = json!({
        "entered_ns": event.entered_ns,
        "pid": event.pid,
        "tid": event.tid,
        "start_ns": event.start_ns,
        "comm": event.comm(),
        "call": event.call_name(),
        "asleep_us": micros(event.asleep_ns),
        "queued_us": micros(event.queued_ns),
    });
    if let (Value::Object(object), Value::Object(call)) = (&mut object, call) {
        object.extend(call);
    }
    object
}

/// Times since the call was entered.
fn slowest(event: &Event) -> Value {
    let since = |ns: u64| micros(ns.saturating_sub(event.entered_ns));
    json!({
        "arg0": event.arg0,
        "ret": event.ret,
        "sleeps": event.sleeps,
        "blocked_us": since(event.blocked_ns),
        "woken_us": since(event.woken_ns),
        "running_us": since(event.running_ns),
        "left_us": since(event.left_ns),
        "waker": {
            "class": event.waker_class().as_str(),
            "pid": event.waker_pid,
            "tid": event.waker_tid,
            "comm": event.waker_comm(),
        },
    })
}
