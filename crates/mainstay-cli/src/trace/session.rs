//! What every tool does alike: flags, signals, the live table, JSON lines, the account and the
//! overhead at the end.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kernel_scope::{Attachment, DropReason, Events, Options, Overhead, ScopeError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::live::Live;
use crate::units::parse_duration;

/// What every tool takes.
#[derive(Debug, clap::Args)]
pub(super) struct Common {
    /// Only this process; watching ends when it does.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) pid: Option<u32>,
    /// How long, e.g. 500ms, 10s, 2m, 1h [default: until Ctrl-C].
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// One JSON object a line, the account of the events last.
    #[arg(long)]
    pub(super) json: bool,
    /// Rows of the live table; the final one has all.
    #[arg(long, value_name = "ROWS", default_value_t = 20)]
    top: usize,
}

/// What the tools take whose events arrive one by one.
#[derive(Debug, clap::Args)]
pub(super) struct Ring {
    /// Bytes of the ring between kernel and tool: a power of two.
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 20, value_parser = parse_ring_bytes)]
    ring_bytes: u32,
}

impl Ring {
    pub(super) fn options(&self, common: &Common) -> Options {
        let mut options = Options::default().ring_bytes(self.ring_bytes);
        options.pid = common.pid;
        options
    }
}

/// A tool at work, as the session sees it.
pub(super) trait Watch {
    /// What is watched, for the first line.
    fn watching(&self) -> &'static str;

    /// By what kind of program.
    fn attached(&self) -> &Attachment;

    /// Collects for as long as `duration`.
    fn collect(&mut self, duration: Duration) -> Result<(), Failure>;

    /// Whether `collect` writes lines of its own: then there is no live table.
    fn writes_lines(&self) -> bool {
        false
    }

    /// Brings what [`table`](Self::table) and [`json`](Self::json) show up to date, where `collect`
    /// has not done that.
    fn look(&mut self) -> Result<(), ScopeError> {
        Ok(())
    }

    /// Detaches and returns the exact account.
    fn finish(&mut self) -> Result<Events, Failure>;

    fn overhead(&self) -> Overhead;

    /// A line of headings, then the rows, busiest first.
    fn table(&mut self, interval: Interval) -> Vec<String>;

    /// The rows as JSON lines; see [`write_line`].
    fn json(&self, out: &mut dyn Write) -> io::Result<()>;

    /// Fields of the last JSON line besides `events` and `overhead`.
    fn totals(&self) -> Map<String, Value> {
        Map::new()
    }

    /// What was lost besides events, in words with underscores, and how much: fields of the last JSON
    /// line, and lines below the table where it is not 0.
    fn losses(&self) -> Result<Vec<(&'static str, u64)>, ScopeError> {
        Ok(Vec::new())
    }

    /// Events that were delivered, but of more groups than are kept apart.
    fn ungrouped(&self) -> u64 {
        0
    }
}

/// Where the names of a stack would be that the program lost.
pub(super) const STACK_LOST: &str = "[stack lost]";

/// How soon Ctrl-C, and the end of the process that is watched, are noticed.
const LOOK: Duration = Duration::from_millis(100);

/// Runs an attached tool until its time is over, it is interrupted, or the process that it watches has
/// ended, and reports.
pub(super) fn watch(common: &Common, tool: &mut impl Watch) -> Result<(), Failure> {
    let stop = stop_on_signals()?;
    let process = common.pid.and_then(Process::open);
    let until = match common.duration {
        Some(_) => "",
        None => "; Ctrl-C ends it",
    };
    let (what, how) = (tool.watching(), tool.attached());
    say(format_args!("watching {what} by {how}{until}"));

    let start = Instant::now();
    let mut live = Live::new(!common.json && !tool.writes_lines(), common.top);
    while !stop.load(Ordering::Relaxed) {
        let left = common
            .duration
            .map_or(LOOK, |whole| whole.saturating_sub(start.elapsed()));
        if left.is_zero() {
            break;
        }
        tool.collect(left.min(LOOK))?;
        live.draw(tool)?;
        if let Some(ended) = process.as_ref().filter(|process| process.has_ended()) {
            say(format_args!("process {} has ended", ended.pid));
            break;
        }
    }
    let events = tool.finish()?;
    tool.look()?;
    live.erase()?;
    let mut out = io::stdout().lock();
    let losses = tool.losses()?;
    if common.json {
        tool.json(&mut out)?;
        let mut line = last_line(tool, &events);
        line.extend(
            losses
                .iter()
                .map(|(what, n)| ((*what).to_owned(), (*n).into())),
        );
        write_line(&mut out, &line)?;
    } else {
        let whole = Interval::Whole(start.elapsed());
        write_final(&mut out, tool, whole)?;
        for (what, n) in losses.iter().filter(|(_, n)| *n > 0) {
            writeln!(out, "{n} {}", what.replace('_', " "))?;
        }
        writeln!(out, "{}", overhead_line(&tool.overhead()))?;
        writeln!(out, "{}", events_line(&events))?;
    }
    out.flush()?;
    match events.unaccounted() {
        0 => Ok(()),
        events => Err(Failure::Unaccounted(events)),
    }
}

#[derive(Debug)]
pub(super) enum Failure {
    Scope(ScopeError),
    Output(io::Error),
    /// This many events were neither delivered nor counted as lost.
    Unaccounted(i64),
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

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scope(error) => error.fmt(f),
            Self::Output(error) => error.fmt(f),
            Self::Unaccounted(events) => write!(
                f,
                "the account does not balance: {events} events were seen and never found again; \
                 that is a fault of the tool"
            ),
        }
    }
}

/// Tells whoever looks on. Nobody has to: what the tool is for goes to stdout.
pub(super) fn say(what: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{what}");
}

/// The process that is watched: after its end there is nothing more to see, and its number may become
/// another one's.
struct Process {
    pid: u32,
    /// `None`: it had ended before there could be one.
    handle: Option<OwnedFd>,
}

impl Process {
    /// `None` where the kernel gives no handles.
    fn open(pid: u32) -> Option<Self> {
        let number = Pid::from_raw(pid.try_into().ok()?)?;
        let handle = match pidfd_open(number, PidfdFlags::empty()) {
            Ok(handle) => Some(handle),
            Err(Errno::SRCH) => None,
            Err(_) => return None,
        };
        Some(Self { pid, handle })
    }

    fn has_ended(&self) -> bool {
        self.handle.as_ref().is_none_or(|handle| {
            let mut polled = [PollFd::new(handle, PollFlags::IN)];
            matches!(poll(&mut polled, Some(&Timespec::default())), Ok(1..))
        })
    }
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

/// The time that a table speaks of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Interval {
    /// Since the last table.
    Since(Duration),
    /// Since the beginning: the final table.
    Whole(Duration),
}

/// Counts of rows turned into counts per second of an [`Interval`].
#[derive(Debug)]
pub(super) struct Rates<K>(HashMap<K, u64>);

impl<K> Default for Rates<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq> Rates<K> {
    /// How fast `count`, which only grows, grew in the interval.
    pub(super) fn per_second(&mut self, key: K, count: u64, interval: Interval) -> f64 {
        let (grown, time) = match interval {
            Interval::Since(time) => {
                let before = self.0.insert(key, count).unwrap_or(0);
                (count.saturating_sub(before), time)
            }
            Interval::Whole(time) => (count, time),
        };
        #[expect(clippy::cast_precision_loss, reason = "a rate to look at")]
        let grown = grown as f64;
        grown / time.as_secs_f64().max(1e-9)
    }
}

fn write_final(out: &mut impl Write, tool: &mut impl Watch, whole: Interval) -> io::Result<()> {
    for line in tool.table(whole) {
        writeln!(out, "{line}")?;
    }
    if tool.ungrouped() > 0 {
        let ungrouped = tool.ungrouped();
        writeln!(out, "{ungrouped} events of further groups are not shown")?;
    }
    Ok(())
}

fn overhead_line(overhead: &Overhead) -> String {
    let percent =
        |time: Duration| 100.0 * time.as_secs_f64() / overhead.elapsed.as_secs_f64().max(1e-9);
    let tool = format!("overhead: the tool {:.2}% of a CPU", percent(overhead.tool));
    match overhead.programs {
        None => {
            format!("{tool}, its programs not measured: that takes CAP_SYS_ADMIN and Linux 5.8")
        }
        Some(programs) => {
            let each = programs.as_nanos() / u128::from(overhead.runs.max(1));
            format!(
                "{tool}, its programs {:.2}% (about {} runs of {each} ns)",
                percent(programs),
                overhead.runs
            )
        }
    }
}

fn events_line(events: &Events) -> String {
    let mut line = format!(
        "events: {} seen = {} delivered + {} pending + {} dropped",
        events.seen(),
        events.delivered,
        events.pending,
        events.dropped(),
    );
    for reason in DropReason::ALL {
        let count = events.dropped_for(reason);
        if count > 0 {
            line += &format!(" ({count} {})", reason.as_str());
        }
    }
    if events.discarded > 0 {
        line += &format!(" + {} discarded", events.discarded);
    }
    match events.unaccounted() {
        0 => {}
        unaccounted => line += &format!(" + unaccounted {unaccounted}"),
    }
    line
}

fn last_line(tool: &impl Watch, events: &Events) -> Map<String, Value> {
    let mut line = tool.totals();
    let attached = tool.attached();
    let passed_over = attached.passed_over.iter();
    let passed_over: Vec<Value> = passed_over
        .map(|(attach, reason)| json!({ "kind": attach.as_str(), "reason": reason }))
        .collect();
    line.insert(
        "attached".into(),
        json!({ "kind": attached.attach.as_str(), "passed_over": passed_over }),
    );
    line.insert(
        "events".into(),
        json!({
            "seen": events.seen(),
            "delivered": events.delivered,
            "pending": events.pending,
            "dropped": events.dropped(),
            "discarded": events.discarded,
            "unaccounted": events.unaccounted(),
            "ungrouped": tool.ungrouped(),
        }),
    );
    let overhead = tool.overhead();
    line.insert(
        "overhead".into(),
        json!({
            "elapsed_ms": millis(overhead.elapsed),
            "tool_cpu_ms": millis(overhead.tool),
            "programs_cpu_ms": overhead.programs.map(millis),
            "program_runs": overhead.runs,
        }),
    );
    line
}

/// With one digit after the point.
pub(super) fn micros(ns: u64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a tenth of a microsecond is told"
    )]
    let tenths = (ns as f64 / 100.0).round();
    tenths / 10.0
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

pub(super) fn write_line(
    out: &mut (impl Write + ?Sized),
    value: &impl Serialize,
) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    writeln!(out)
}

/// A process chooses its name: none of its characters drives the terminal, or turns its line around.
pub(super) fn printable(text: &str) -> String {
    let turns = |c| matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars()
        .map(|c| if c.is_control() || turns(c) { '?' } else { c })
        .collect()
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
    use std::time::Duration;

    use kernel_scope::Events;

    use super::{Interval, Rates, events_line, parse_ring_bytes, printable};

    #[test]
    fn what_the_account_does_not_know_is_told() {
        let mut events = Events::default();
        let balanced = "events: 0 seen = 0 delivered + 0 pending + 0 dropped";
        assert_eq!(events_line(&events), balanced);
        events.delivered = 7;
        assert_eq!(
            events_line(&events),
            "events: 0 seen = 7 delivered + 0 pending + 0 dropped + unaccounted -7"
        );
    }

    #[test]
    fn ring_sizes_are_what_the_kernel_takes() {
        assert_eq!(parse_ring_bytes("4096"), Ok(4096));
        for bad in ["", "0", "2048", "5000", "-4096", "4294967296"] {
            assert!(parse_ring_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_cannot_drive_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\u{9b}\u{202e}c"), "a?[2Jb??c");
    }

    #[test]
    fn rates_are_of_the_interval_and_at_the_end_of_the_whole() {
        let mut rates = Rates::default();
        let two = Interval::Since(Duration::from_secs(2));
        let tenths = |rate: f64| (rate * 10.0).round();
        assert_eq!(tenths(rates.per_second("a", 10, two)), 50.0);
        assert_eq!(tenths(rates.per_second("a", 11, two)), 5.0);
        assert_eq!(tenths(rates.per_second("b", 4, two)), 20.0);
        let whole = Interval::Whole(Duration::from_secs(4));
        assert_eq!(tenths(rates.per_second("a", 12, whole)), 30.0);
    }
}
