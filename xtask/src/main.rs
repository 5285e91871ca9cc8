//! The commands of the workspace: `cargo xtask <command>`.
//!
//! One file per command; this one only dispatches. Shared parts: [`cmd`] runs programs, [`stages`] times them,
//! [`workspace`] reads `cargo metadata`, [`check`] holds the checks that are ours.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool talks to its terminal"
)]

mod bench;
mod build_bpf;
mod check;
mod ci;
mod cmd;
mod conformance;
mod doctor;
mod flags;
mod fuzz;
mod soak;
mod stages;
mod test;
mod tools;
mod vm;
mod workspace;

use std::process::ExitCode;

/// What each command file exports.
pub(crate) struct Command {
    pub(crate) name: &'static str,
    /// One line for the list of commands.
    pub(crate) about: &'static str,
    /// What `cargo xtask <name> --help` prints.
    pub(crate) help: &'static str,
    pub(crate) run: fn(&[String]) -> Result<(), String>,
}

/// Every command, in the order of the help text.
pub(crate) const COMMANDS: &[Command] = &[
    test::COMMAND,
    ci::COMMAND,
    build_bpf::COMMAND,
    bench::COMMAND,
    soak::COMMAND,
    fuzz::COMMAND,
    conformance::COMMAND,
    vm::COMMAND,
    doctor::COMMAND,
];

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    if args.is_empty() || ["help", "--help", "-h"].contains(&args[0].as_str()) {
        print_commands();
        return ExitCode::SUCCESS;
    }
    let name = args.remove(0);
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        eprintln!("xtask: there is no command `{name}`; `cargo xtask --help` lists them");
        return ExitCode::from(2);
    };
    // What follows `--` belongs to the program that the command starts.
    if args
        .iter()
        .take_while(|arg| *arg != "--")
        .any(|arg| arg == "--help" || arg == "-h")
    {
        println!("{}\n\n{}", command.about, command.help.trim_end());
        return ExitCode::SUCCESS;
    }
    match (command.run)(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {name}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print_commands() {
    println!("The commands of the workspace: cargo xtask <command> [--help]\n");
    for command in COMMANDS {
        println!("  {:<12} {}", command.name, command.about);
    }
}
