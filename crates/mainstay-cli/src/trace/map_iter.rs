//! `mainstay trace map-iter`.

use std::io::{self, Write};
use std::time::Duration;

use kernel_scope::map_iter::{MapIter, Options, Row, Summary};
use kernel_scope::{Events, Overhead, ScopeError};
use serde_json::json;

use super::session::{Common, Failure, Interval, Rates, Ring, Watch, printable, watch, write_line};

/// Who iterates which BPF map, and how often the key is deleted under the walk.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: mainstay trace map-iter --for 10s\n\n\
    WALKS begin without a key; KEYS are those returned, all walks together; RESTARTS are steps \
    whose key was no longer in the map, so that the kernel began again at the first one.\n\
    Pids are those of the initial pid namespace.")]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    ring: Ring,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let mut options = Options::default().ring_bytes(args.ring.ring_bytes);
    options.pid = args.common.pid;
    let mut watched = Walks {
        tool: MapIter::open(&options)?,
        summary: Summary::default(),
        rates: Rates::default(),
    };
    watch(&args.common, &mut watched)
}

struct Walks {
    tool: MapIter,
    summary: Summary,
    /// By process and map.
    rates: Rates<(u32, u32)>,
}

impl Watch for Walks {
    fn watching(&self) -> String {
        format!("BPF map walks by {}", self.tool.attached().as_str())
    }

    fn collect(&mut self, duration: Duration) -> Result<(), ScopeError> {
        self.tool.collect(duration, &mut self.summary)
    }

    fn finish(&mut self) -> Result<Events, ScopeError> {
        self.tool.finish(&mut self.summary)
    }

    fn overhead(&self) -> Overhead {
        self.tool.overhead()
    }

    fn table(&mut self, interval: Interval) -> Vec<String> {
        let head = format!(
            "{:>8} {:<16} {:>7} {:<16} {:<21} {:>9} {:>11} {:>9} {:>9} {:>9} {:>9}",
            "PID",
            "COMM",
            "MAP",
            "NAME",
            "TYPE",
            "WALKS",
            "KEYS",
            "KEYS/S",
            "RESTARTS",
            "P50_NS",
            "P99_NS"
        );
        let mut lines = vec![head];
        for row in self.summary.rows() {
            let key = (row.pid, row.map_id);
            let rate = self.rates.per_second(key, row.keys, interval);
            lines.push(line(row, rate));
        }
        lines
    }

    fn json(&self, out: &mut dyn Write) -> io::Result<()> {
        for row in self.summary.rows() {
            write_line(out, &object(row))?;
        }
        Ok(())
    }

    fn ungrouped(&self) -> u64 {
        self.summary.ungrouped()
    }
}

fn line(row: &Row, rate: f64) -> String {
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
    format!(
        "{:>8} {:<16} {:>7} {name:<16} {kind:<21} {:>9} {:>11} {rate:>9.0} {:>9} {:>9} {:>9}",
        row.pid,
        printable(&row.comm),
        row.map_id,
        row.walks,
        row.keys,
        row.restarts,
        row.step_ns.quantile(0.5).unwrap_or(0),
        row.step_ns.quantile(0.99).unwrap_or(0),
    )
}

fn object(row: &Row) -> serde_json::Value {
    json!({
        "pid": row.pid,
        "comm": row.comm,
        "map_id": row.map_id,
        "map_name": row.map_name,
        "map_type": row.map_type.to_string(),
        "linear": row.map_type.is_linear(),
        "walks": row.walks,
        "completed": row.completed,
        "keys": row.keys,
        "restarts": row.restarts,
        "failures": row.failures,
        "step_ns": {
            "p50": row.step_ns.quantile(0.5).unwrap_or(0),
            "p99": row.step_ns.quantile(0.99).unwrap_or(0),
            "max": row.step_ns.max(),
        },
    })
}
