//! The `mainstay` command.

#[cfg(feature = "trace")]
mod trace;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "mainstay", version)]
enum Command {
    #[cfg(feature = "trace")]
    Trace(trace::TraceArgs),
}

fn main() -> ExitCode {
    match Command::parse() {
        #[cfg(feature = "trace")]
        Command::Trace(args) => trace::run(&args),
    }
}
