//! `mainstay trace`: the tools of kernel-scope on a terminal, in a pipe, or as JSON lines.

mod fds;
mod live;
mod map_iter;
mod runq;
mod session;
mod wake;

use std::io::{self, Write as _};
use std::process::ExitCode;

use session::Failure;

/// Watch the kernel with eBPF. Needs root, or CAP_BPF and CAP_PERFMON.
#[derive(Debug, clap::Args)]
pub(crate) struct TraceArgs {
    #[command(subcommand)]
    tool: Tool,
}

#[derive(Debug, clap::Subcommand)]
enum Tool {
    Fds(fds::Args),
    MapIter(map_iter::Args),
    Runq(runq::Args),
    Wake(wake::Args),
}

/// Exit codes as for every command: 0 done, 2 usage or failure.
pub(crate) fn run(args: &TraceArgs) -> ExitCode {
    let done = match &args.tool {
        Tool::Fds(args) => fds::run(args),
        Tool::MapIter(args) => map_iter::run(args),
        Tool::Runq(args) => runq::run(args),
        Tool::Wake(args) => wake::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has seen enough.
        Err(Failure::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "mainstay trace: {failure}");
            ExitCode::from(2)
        }
    }
}
