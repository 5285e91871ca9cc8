//! `cargo xtask ci`: the tests, then what a merge needs besides.

use crate::Command;
use crate::cmd::Cmd;
use crate::flags::Flags;
use crate::stages::{Outcome, Stages};
use crate::{test, tools, workspace};

pub(crate) const COMMAND: Command = Command {
    name: "ci",
    about: "`test`, then the lock file, cargo-deny and the packages",
    help: HELP,
    run,
};

const HELP: &str = "\
usage: cargo xtask ci [--keep-going] [--no-install] [--only STAGE[,STAGE...]]

The stages of `cargo xtask test`, then:
  lock       Cargo.lock is what the manifests ask for
  deny       licences, bans and sources by cargo-deny, offline (skipped when cargo-deny is not installed)
  package    every published crate packages

example: cargo xtask ci --only lock,deny,package";

fn run(args: Vec<String>) -> Result<(), String> {
    let mut flags = Flags::new(args);
    let mut stages = test::stages_from(&mut flags)?;
    let install = !flags.switch("--no-install");
    flags.finish()?;
    let result = run_stages(&mut stages, install);
    let summary = stages.finish();
    result.and(summary)
}

fn run_stages(stages: &mut Stages, install: bool) -> Result<(), String> {
    // Before anything builds: a build would mend the lock file silently.
    stages.run("lock", lock)?;
    test::run_stages(stages, install)?;
    stages.run("deny", deny)?;
    stages.run("package", package)
}

fn lock() -> Result<Outcome, String> {
    if !workspace::root()?.join("Cargo.lock").is_file() {
        return Err("there is no Cargo.lock: run `cargo generate-lockfile` and commit it".into());
    }
    // The command that only reads: --locked makes it fail instead of writing.
    Cmd::cargo()
        .args(["metadata", "--locked", "--format-version", "1"])
        .capture()
        .map_err(|error| {
            format!("Cargo.lock is stale: run `cargo check` and commit it\n{error}")
        })?;
    Outcome::passed()
}

fn deny() -> Result<Outcome, String> {
    if !tools::on_path("cargo-deny") {
        return Ok(Outcome::Skipped(
            "cargo-deny is missing: cargo install cargo-deny --locked".into(),
        ));
    }
    // Advisories need a database from the network: the nightly workflow asks for them.
    Cmd::cargo()
        .args([
            "deny",
            "--offline",
            "--all-features",
            "check",
            "bans",
            "licenses",
            "sources",
        ])
        .run()?;
    Outcome::passed()
}

fn package() -> Result<Outcome, String> {
    // --no-verify: the crates were just built; cargo still resolves each one against its packaged siblings.
    Cmd::cargo()
        .args([
            "package",
            "--workspace",
            "--no-verify",
            "--allow-dirty",
            "--quiet",
        ])
        .run()?;
    Outcome::passed()
}
