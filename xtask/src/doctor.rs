//! `cargo xtask doctor`: hands over to `mainstay doctor`, the one place that knows.

use crate::Command;
use crate::cmd::Cmd;

pub(crate) const COMMAND: Command = Command {
    name: "doctor",
    about: "What this machine's kernel and toolchain can do, and how to mend what is broken",
    help: HELP,
    run,
};

const HELP: &str = "\
usage: cargo xtask doctor [--json]

The same as `mainstay doctor`, from the sources.

example: cargo xtask doctor";

fn run(args: &[String]) -> Result<(), String> {
    Cmd::cargo()
        .args([
            "run",
            "--quiet",
            "--package",
            "mainstay-cli",
            "--bin",
            "mainstay",
            "--",
            "doctor",
        ])
        .args(args)
        .run()
}
