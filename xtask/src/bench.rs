//! `cargo xtask bench`: the comparisons of the unpublished package in benches/.

use crate::Command;
use crate::cmd::Cmd;
use crate::flags::Flags;
use crate::workspace::Workspace;

pub(crate) const COMMAND: Command = Command {
    name: "bench",
    about: "Measures a crate beside its peers, or the whole gateway; lists what there is",
    help: HELP,
    run,
};

const HELP: &str = "\
usage: cargo xtask bench [NAME] [-- ARGS...]

Without NAME: lists the benches of benches/benches/. ARGS go to the bench.
Every contender of a comparison runs in the same process run, interleaved, so that the machine's mood hits all alike.

example: cargo xtask bench gateway";

const PACKAGE: &str = "mainstay-benches";

/// Benches that drive the real command: it is built first, and its path is in MAINSTAY_BIN.
const DRIVE_THE_COMMAND: &[&str] = &["gateway"];

fn run(args: &[String]) -> Result<(), String> {
    let mut flags = Flags::new(args.to_vec());
    let name = flags.positional();
    let rest = flags.finish()?;
    let workspace = Workspace::load()?;
    let package = workspace
        .package(PACKAGE)
        .ok_or_else(|| format!("the workspace has no {PACKAGE}"))?;
    let names: Vec<&str> = package
        .targets
        .iter()
        .filter(|target| target.kind == "bench")
        .map(|target| &*target.name)
        .collect();
    let Some(name) = name else {
        println!("benches, run one with `cargo xtask bench NAME`:");
        names.iter().for_each(|name| println!("  {name}"));
        return Ok(());
    };
    if !names.contains(&name.as_str()) {
        return Err(format!(
            "there is no bench `{name}`; there are: {}",
            names.join(" ")
        ));
    }
    let mut bench = Cmd::cargo().args(["bench", "--package", PACKAGE, "--bench", &name]);
    if DRIVE_THE_COMMAND.contains(&name.as_str()) {
        Cmd::cargo()
            .args(["build", "--release", "--package", "mainstay-cli"])
            .run()?;
        bench = bench.env("MAINSTAY_BIN", workspace.target.join("release/mainstay"));
    }
    bench.arg("--").args(rest).run()
}
