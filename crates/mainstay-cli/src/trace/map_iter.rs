//! `mainstay trace map-iter`.

use std::io::{self, Write};
use std::time::Duration;

use kernel_scope::map_iter::{MapIter, Row, Summary};
use kernel_scope::{Attachment, Events, Overhead, ScopeError, Symbols};
use serde_json::json;

use super::session::{
    Common, Failure, Interval, Rates, Ring, STACK_LOST, Watch, printable, watch, write_line,
};

/// Who iterates which BPF map, and how often the key is deleted under the walk.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: mainstay trace map-iter --for 10s\n\n\
    WALKS begin without a key; KEYS are those returned, all walks together; RESTARTS are steps \
    whose key was no longer in the map, so that the kernel began again at the first one; HOT% is \
    the share of the fullest of 64 buckets of keys by their hash, \
    1.6 when all are alike. The line below a row says where most of its walks began.\n\
    Pids are those of the initial pid namespace.")]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    ring: Ring,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let options = args.ring.options(&args.common);
    let mut watched = Walks {
        tool: MapIter::open(&options)?,
        summary: Summary::default(),
        rates: Rates::default(),
        symbols: Symbols::new(),
    };
    watch(&args.common, &mut watched)
}

/// As many of the fullest buckets are listed.
const HOT_BUCKETS: usize = 4;

struct Walks {
    tool: MapIter,
    summary: Summary,
    /// By process, as pid and beginning, and map.
    rates: Rates<(u32, u64, u32)>,
    symbols: Symbols,
}

impl Watch for Walks {
    fn watching(&self) -> &'static str {
        "BPF map walks"
    }

    fn attached(&self) -> &Attachment {
        self.tool.attached()
    }

    fn collect(&mut self, duration: Duration) -> Result<(), Failure> {
        Ok(self.tool.collect(duration, &mut self.summary)?)
    }

    fn finish(&mut self) -> Result<Events, Failure> {
        Ok(self.tool.finish(&mut self.summary)?)
    }

    fn overhead(&self) -> Overhead {
        self.tool.overhead()
    }

    fn table(&mut self, interval: Interval) -> Vec<String> {
        let head = format!(
            "{:>8} {:<16} {:>7} {:<16} {:<21} {:>9} {:>11} {:>9} {:>9} {:>9} {:>9} {:>5}",
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
            "P99_NS",
            "HOT%"
        );
        let mut lines = vec![head];
        for row in self.summary.rows() {
            let key = (row.pid, row.start_ns, row.map_id);
            let rate = self.rates.per_second(key, row.keys, interval);
            lines.push(line(row, rate));
            let caller = self.caller(row);
            if matches!(interval, Interval::Whole(_)) && !caller.is_empty() {
                lines.push(format!("{:>26}from {}", "", printable(&caller.join(" < "))));
            }
        }
        lines
    }

    fn json(&self, out: &mut dyn Write) -> io::Result<()> {
        for row in self.summary.rows() {
            write_line(out, &object(row, &self.caller(row)))?;
        }
        Ok(())
    }

    fn losses(&self) -> Result<Vec<(&'static str, u64)>, ScopeError> {
        Ok(vec![("stacks_lost", self.tool.stacks_lost()?)])
    }

    fn ungrouped(&self) -> u64 {
        self.summary.ungrouped()
    }
}

impl Walks {
    /// The functions from which most walks began, innermost first.
    fn caller(&self, row: &Row) -> Vec<String> {
        let most = row.callers.iter().max_by_key(|(_, times)| *times);
        if most.is_none() && row.callers_lost > 0 {
            return vec![STACK_LOST.to_owned()];
        }
        let addresses = most.map(|(number, _)| self.tool.caller(*number));
        self.symbols.user(row.pid, &addresses.unwrap_or_default())
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
    #[expect(clippy::cast_precision_loss, reason = "a share to look at")]
    let hot = match row.hottest(1).first() {
        Some((_, keys)) => 100.0 * *keys as f64 / row.keys.max(1) as f64,
        None => 0.0,
    };
    format!(
        "{:>8} {:<16} {:>7} {name:<16} {kind:<21} {:>9} {:>11} {rate:>9.0} {:>9} {:>9} {:>9} {hot:>5.1}",
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

fn object(row: &Row, caller: &[String]) -> serde_json::Value {
    let hot: Vec<_> = row
        .hottest(HOT_BUCKETS)
        .into_iter()
        .map(|(bucket, keys)| json!({ "bucket": bucket, "keys": keys }))
        .collect();
    json!({
        "pid": row.pid,
        "start_ns": row.start_ns,
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
            "histogram": row.step_ns.buckets().collect::<Vec<_>>(),
        },
        "hot_buckets": hot,
        "stack": caller,
        "callers_lost": row.callers_lost,
    })
}
