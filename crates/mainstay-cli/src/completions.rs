//! `mainstay completions`: completion scripts for shells.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// Print a completion script for a shell.
#[derive(Args)]
#[command(
    after_help = "Example:\n  mainstay completions bash > ~/.local/share/bash-completion/completions/mainstay"
)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

pub(crate) fn run(args: &CompletionsArgs) -> ExitCode {
    let mut command = crate::Cli::command();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "mainstay", &mut script);
    // A reader that has gone needs no script.
    drop(std::io::stdout().write_all(&script));
    ExitCode::SUCCESS
}
