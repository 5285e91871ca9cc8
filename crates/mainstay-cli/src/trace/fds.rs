//! `mainstay trace fds`.

use std::io::{self, Write};
use std::time::Duration;

use kernel_scope::fds::{Fds, Group};
use kernel_scope::{Attachment, Events, Overhead, ScopeError};
use serde_json::{Map, Value, json};

use super::session::{
    Common, Failure, Interval, Ring, STACK_LOST, Watch, printable, watch, write_line,
};

/// Which descriptors are open, what made them, from where, and how long ago.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: mainstay trace fds --pid 1234 --for 1m\n\n\
    A line for each place that made descriptors which are still open: COUNT of them, OLDEST in seconds, the functions \
    that made them, innermost first. At the end it is what /proc/PID/fd shows. The call is `unknown` where their making \
    was not seen: before the tool began, by a call that it does not know, or the event was lost.\n\
    Pids are those of the initial pid namespace. Stacks end where code has no frame pointers.")]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    ring: Ring,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let options = args.ring.options(&args.common);
    let mut watched = Descriptors {
        tool: Fds::open(&options)?,
    };
    watch(&args.common, &mut watched)
}

struct Descriptors {
    tool: Fds,
}

impl Watch for Descriptors {
    fn watching(&self) -> &'static str {
        "descriptors"
    }

    fn attached(&self) -> &Attachment {
        self.tool.attached()
    }

    fn collect(&mut self, duration: Duration) -> Result<(), Failure> {
        Ok(self.tool.collect(duration)?)
    }

    fn finish(&mut self) -> Result<Events, Failure> {
        Ok(self.tool.finish()?)
    }

    fn overhead(&self) -> Overhead {
        self.tool.overhead()
    }

    fn table(&mut self, _: Interval) -> Vec<String> {
        let head = format!(
            "{:>8} {:<16} {:<16} {:>7} {:>9}  STACK",
            "PID", "COMM", "CALL", "COUNT", "OLDEST_S"
        );
        let groups = self.tool.groups();
        std::iter::once(head)
            .chain(groups.iter().map(line))
            .collect()
    }

    fn json(&self, out: &mut dyn Write) -> io::Result<()> {
        for group in self.tool.groups() {
            write_line(out, &object(&group))?;
        }
        Ok(())
    }

    fn losses(&self) -> Result<Vec<(&'static str, u64)>, ScopeError> {
        Ok(vec![("stacks_lost", self.tool.stacks_lost()?)])
    }

    fn totals(&self) -> Map<String, Value> {
        let total = ("open_total".to_owned(), self.tool.open_total().into());
        Map::from_iter([total])
    }
}

fn line(group: &Group) -> String {
    let line = format!(
        "{:>8} {:<16} {:<16} {:>7} {:>9.1}  {}",
        group.pid,
        printable(&group.comm),
        group.call,
        group.fds.len(),
        group.oldest.as_secs_f64(),
        match group.stack_lost {
            true => STACK_LOST.to_owned(),
            false => printable(&group.stack.join(" < ")),
        },
    );
    line.trim_end().to_owned()
}

fn object(group: &Group) -> Value {
    json!({
        "pid": group.pid,
        "comm": group.comm,
        "shared_with": group.shared_with,
        "call": group.call,
        "count": group.fds.len(),
        "fds": group.fds,
        "oldest_ms": u64::try_from(group.oldest.as_millis()).unwrap_or(u64::MAX),
        "stack": group.stack,
        "stack_lost": group.stack_lost,
    })
}
