//! `mainstay trace`: the tools of kernel-scope on a terminal, in a pipe, or as JSON lines.

use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kernel_scope::map_iter::{MapIter, Options, Row, Summary};
use kernel_scope::{DropReason, RingStats, ScopeError};
use serde::Serialize;

use crate::units::parse_duration;

/// Watch the kernel with eBPF. Needs root, or CAP_BPF and CAP_PERFMON.
#[derive(Debug, clap::Args)]
pub(crate) struct TraceArgs {
    #[command(subcommand)]
    tool: Tool,
}

#[derive(Debug, clap::Subcommand)]
enum Tool {
    /// Who iterates which BPF map, and how often the key is deleted under the walk.
    #[command(after_help = "Example: mainstay trace map-iter --for 10s\n\n\
        WALKS begin without a key; KEYS are those returned, all walks together; RESTARTS are steps \
        whose key was no longer in the map, so that the kernel began again at the first one.\n\
        Pids are those of the initial pid namespace.")]
    MapIter(Common),
}

/// What every tool takes.
#[derive(Debug, clap::Args)]
struct Common {
    /// Only this process.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pid: Option<u32>,
    /// How long, e.g. 500ms, 10s, 2m, 1h [default: until Ctrl-C].
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// One JSON object a line, the account of the events last.
    #[arg(long)]
    json: bool,
    /// Bytes of the ring between kernel and tool: a power of two.
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 20, value_parser = parse_ring_bytes)]
    ring_bytes: u32,
}

/// How often a live table is drawn, and how soon Ctrl-C is noticed.
const REDRAW: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(100);
/// Rows of a live table; the final one has all.
const LIVE_ROWS_MAX: usize = 20;

/// Exit codes as for every command: 0 done, 2 usage or failure.
pub(crate) fn run(args: &TraceArgs) -> ExitCode {
    let Tool::MapIter(common) = &args.tool;
    match map_iter(common) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has seen enough.
        Err(Failure::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "mainstay trace: {failure}");
            ExitCode::from(2)
        }
    }
}

#[derive(Debug)]
enum Failure {
    Scope(ScopeError),
    Output(io::Error),
}

impl From<ScopeError> for Failure {
    fn from(error: ScopeError) -> Self {
        Self::Scope(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Scope(error) => error.fmt(f),
            Self::Output(error) => error.fmt(f),
        }
    }
}

fn map_iter(common: &Common) -> Result<(), Failure> {
    let stop = stop_on_signals()?;
    let mut options = Options::default().ring_bytes(common.ring_bytes);
    options.pid = common.pid;
    let mut tool = MapIter::open(&options)?;
    let until = if common.duration.is_some() {
        ""
    } else {
        "; Ctrl-C ends it"
    };
    writeln!(
        io::stderr(),
        "watching BPF map walks at {}{until}",
        tool.attached().as_str()
    )?;

    let mut summary = Summary::default();
    let mut live = Live::new(!common.json && io::stdout().is_terminal());
    let start = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let left = common
            .duration
            .map_or(LOOK, |whole| whole.saturating_sub(start.elapsed()));
        if left.is_zero() {
            break;
        }
        tool.collect(left.min(LOOK), &mut summary)?;
        live.draw(&summary)?;
    }
    let stats = tool.finish(&mut summary)?;
    live.erase()?;
    let mut out = io::stdout().lock();
    if common.json {
        write_json(&mut out, &summary, &stats)?
    } else {
        write_table(&mut out, &summary, &stats)?
    }
    Ok(out.flush()?)
}

/// Set by the first Ctrl-C or SIGTERM; a second one ends the process as if nothing listened.
fn stop_on_signals() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// A table that redraws itself in place on a terminal.
struct Live {
    enabled: bool,
    drawn: Option<Instant>,
    lines: usize,
}

impl Live {
    fn new(enabled: bool) -> Self {
        Self {
            enabled,
            drawn: None,
            lines: 0,
        }
    }

    fn draw(&mut self, summary: &Summary) -> io::Result<()> {
        if !self.enabled || self.drawn.is_some_and(|at| at.elapsed() < REDRAW) {
            return Ok(());
        }
        self.erase()?;
        let rows = summary.rows();
        let mut out = io::stdout().lock();
        write_rows(&mut out, rows.iter().take(LIVE_ROWS_MAX).copied())?;
        self.lines = rows.len().min(LIVE_ROWS_MAX) + 1;
        if rows.len() > LIVE_ROWS_MAX {
            writeln!(out, "... and {} more", rows.len() - LIVE_ROWS_MAX)?;
            self.lines += 1;
        }
        self.drawn = Some(Instant::now());
        out.flush()
    }

    /// Back to the first line of the table, and clear from there.
    fn erase(&mut self) -> io::Result<()> {
        if self.lines > 0 {
            write!(io::stdout(), "\x1b[{}F\x1b[J", self.lines)?;
            self.lines = 0;
        }
        Ok(())
    }
}

fn write_table(out: &mut impl Write, summary: &Summary, stats: &RingStats) -> io::Result<()> {
    write_rows(out, summary.rows().into_iter())?;
    if summary.ungrouped() > 0 {
        writeln!(
            out,
            "{} events of further processes and maps are not shown",
            summary.ungrouped()
        )?;
    }
    let dropped = stats.dropped().unwrap_or(0);
    write!(
        out,
        "events: {} seen = {} delivered + {} pending + {dropped} dropped",
        stats.seen().unwrap_or(0),
        stats.delivered,
        stats.pending,
    )?;
    for reason in DropReason::ALL {
        match stats.dropped_for(reason) {
            Some(count) if count > 0 => write!(out, " ({count} {})", reason.as_str())?,
            _ => {}
        }
    }
    writeln!(out)
}

fn write_rows<'r>(out: &mut impl Write, rows: impl Iterator<Item = &'r Row>) -> io::Result<()> {
    writeln!(
        out,
        "{:>8} {:<16} {:>7} {:<16} {:<14} {:>9} {:>11} {:>9} {:>9} {:>9}",
        "PID", "COMM", "MAP", "NAME", "TYPE", "WALKS", "KEYS", "RESTARTS", "P50_NS", "P99_NS"
    )?;
    for row in rows {
        let unproven = row.map_id == 0;
        let name = if unproven {
            "(no map)".into()
        } else {
            printable(&row.map_name)
        };
        let kind = match (unproven, row.map_type.is_linear()) {
            (true, _) => "-".into(),
            (false, true) => format!("{} (linear)", row.map_type),
            (false, false) => row.map_type.to_string(),
        };
        writeln!(
            out,
            "{:>8} {:<16} {:>7} {name:<16} {kind:<14} {:>9} {:>11} {:>9} {:>9} {:>9}",
            row.pid,
            printable(&row.comm),
            row.map_id,
            row.walks,
            row.keys,
            row.restarts,
            row.step_ns.quantile(0.5).unwrap_or(0),
            row.step_ns.quantile(0.99).unwrap_or(0),
        )?;
    }
    Ok(())
}

/// A process chooses its name: no control characters of its reach the terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[derive(Serialize)]
struct JsonRow<'a> {
    pid: u32,
    comm: &'a str,
    map_id: u32,
    map_name: &'a str,
    map_type: String,
    walks: u64,
    completed: u64,
    keys: u64,
    restarts: u64,
    failures: u64,
    step_ns: JsonSteps,
}

#[derive(Serialize)]
struct JsonSteps {
    p50: u64,
    p99: u64,
    max: u64,
}

#[derive(Serialize)]
struct JsonLast {
    events: JsonEvents,
}

#[derive(Serialize)]
struct JsonEvents {
    seen: u64,
    delivered: u64,
    pending: u64,
    dropped: u64,
    /// Delivered, but of more processes and maps than are kept apart.
    ungrouped: u64,
}

fn write_json(out: &mut impl Write, summary: &Summary, stats: &RingStats) -> io::Result<()> {
    for row in summary.rows() {
        let line = JsonRow {
            pid: row.pid,
            comm: &row.comm,
            map_id: row.map_id,
            map_name: &row.map_name,
            map_type: row.map_type.to_string(),
            walks: row.walks,
            completed: row.completed,
            keys: row.keys,
            restarts: row.restarts,
            failures: row.failures,
            step_ns: JsonSteps {
                p50: row.step_ns.quantile(0.5).unwrap_or(0),
                p99: row.step_ns.quantile(0.99).unwrap_or(0),
                max: row.step_ns.max(),
            },
        };
        write_line(out, &line)?;
    }
    let events = JsonEvents {
        seen: stats.seen().unwrap_or(0),
        delivered: stats.delivered,
        pending: stats.pending,
        dropped: stats.dropped().unwrap_or(0),
        ungrouped: summary.ungrouped(),
    };
    write_line(out, &JsonLast { events })
}

fn write_line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    writeln!(out)
}
fn parse_ring_bytes(text: &str) -> Result<u32, String> {
    let bytes: u32 = text.parse().map_err(|_| "a number of bytes")?;
    if bytes.is_power_of_two() && bytes >= 4096 {
        Ok(bytes)
    } else {
        Err("a power of two from 4096 on: the kernel takes no other ring".into())
    }
}

#[cfg(test)]
mod tests {
    use super::{parse_ring_bytes, printable};

    #[test]
    fn ring_sizes_are_what_the_kernel_takes() {
        assert_eq!(parse_ring_bytes("4096"), Ok(4096));
        for bad in ["", "0", "2048", "5000", "-4096", "4294967296"] {
            assert!(parse_ring_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_cannot_drive_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb"), "a?[2Jb");
    }
}
