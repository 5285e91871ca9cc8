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
usage: cargo xtask ci [--advisories] [flags of `cargo xtask test`]

  --advisories   ask the advisory database too, which comes from the network

The stages of `cargo xtask test`, then:
  lock       Cargo.lock is what the manifests ask for
  deny       licences, bans and sources by cargo-deny, offline (skipped when cargo-deny is not installed)
  package    every published crate packages

example: cargo xtask ci --only lock,deny,package";

fn run(args: &[String]) -> Result<(), String> {
    let mut flags = Flags::new(args.to_vec());
    let options = test::Options::take(&mut flags)?;
    let advisories = flags.switch("--advisories");
    flags.finish()?;
    let mut stages = options.stages();
    let result = run_stages(&mut stages, &options, advisories);
    let summary = stages.finish();
    result.and(summary)
}

fn run_stages(
    stages: &mut Stages,
    options: &test::Options,
    advisories: bool,
) -> Result<(), String> {
    // Before anything builds: a build would mend the lock file silently.
    stages.run("lock", lock)?;
    test::run_stages(stages, options)?;
    stages.run("deny", || deny(advisories))?;
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

fn deny(advisories: bool) -> Result<Outcome, String> {
    if !tools::on_path("cargo-deny") {
        return Ok(Outcome::Skipped(
            "cargo-deny is missing: cargo install cargo-deny --locked".into(),
        ));
    }
    if advisories {
        Cmd::cargo()
            .args(["deny", "--all-features", "check", "advisories"])
            .run()?;
    }
    // It reads the sources of every platform's crates; a build fetched only ours.
    Cmd::cargo().args(["fetch", "--locked", "--quiet"]).run()?;
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
