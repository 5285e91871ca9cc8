//! The `mainstay` command.
//!
//! One file for each subcommand; this one only dispatches. Exit codes: 0 done, 1 a negative result
//! (differs, not canonical, damaged, devices lost), 2 wrong usage or a failure.
#![forbid(unsafe_code)]
#![expect(clippy::print_stderr, reason = "a command complains on it")]

/// `println!` that outlives its reader: a gateway does not end because its log was closed.
macro_rules! outln {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        drop(writeln!(std::io::stdout(), $($argument)*));
    }};
}

mod canon;
mod completions;
mod doctor;
mod gateway;
mod jobs;
mod limits;
mod log;
mod out;
mod schedule;
mod store;
mod swarm;
mod token;
#[cfg(feature = "trace")]
mod trace;
mod units;

use std::fmt;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// For services that hold very many long-lived connections and must do every effect at most once, and know it.
#[derive(Parser)]
#[command(
    name = "mainstay",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
#[command(
    after_help = "Start here:  mainstay gateway --demo 2000\nLogs go to stderr by RUST_LOG; \
                        colours obey NO_COLOR."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Gateway(gateway::GatewayArgs),
    Swarm(swarm::SwarmArgs),
    Schedule(schedule::ScheduleArgs),
    Store(store::StoreArgs),
    Token(token::TokenArgs),
    #[cfg(feature = "trace")]
    Trace(trace::TraceArgs),
    Canon(canon::CanonArgs),
    Doctor(doctor::DoctorArgs),
    Completions(completions::CompletionsArgs),
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let lines = match &command {
        Command::Gateway(_) | Command::Swarm(_) | Command::Schedule(_) => Some(log::init_service()),
        _ => {
            log::init();
            None
        }
    };
    let code = run(command);
    drop(lines);
    code
}

fn run(command: Command) -> ExitCode {
    match command {
        Command::Gateway(args) => finish(gateway::run(args)),
        Command::Swarm(args) => finish(swarm::run(&args)),
        Command::Schedule(args) => finish(schedule::run(args)),
        Command::Store(args) => store::run(args),
        Command::Token(args) => finish(token::run(&args)),
        #[cfg(feature = "trace")]
        Command::Trace(args) => trace::run(&args),
        Command::Canon(args) => finish(canon::run(&args)),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions(args) => completions::run(&args),
    }
}

/// The exit code of a command that ended with a verdict or failed.
fn finish(ended: Result<Verdict, impl fmt::Display>) -> ExitCode {
    match ended {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Negative) => ExitCode::from(1),
        Err(error) => {
            eprintln!("mainstay: {error}");
            ExitCode::from(2)
        }
    }
}

/// What a command that did not fail found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// Done, equal, canonical, whole.
    Good,
    /// It differs, is damaged, was lost.
    Negative,
}
