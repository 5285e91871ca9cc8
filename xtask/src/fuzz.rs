//! `cargo xtask fuzz`: runs the targets of fuzz/ for a bounded time each.

use crate::cmd::Cmd;
use crate::flags::Flags;
use crate::{Command, tools, workspace};

pub(crate) const COMMAND: Command = Command {
    name: "fuzz",
    about: "Feeds hostile bytes to a parser, or to all of them in turn",
    help: HELP,
    run,
};

const HELP: &str = "\
usage: cargo xtask fuzz [TARGET] [--seconds N] [--list] [-- LIBFUZZER_ARGS...]

Without TARGET: every target in turn. --seconds is per target (default 60). Needs cargo-fuzz and a nightly toolchain:
  cargo install cargo-fuzz --locked
  rustup toolchain install nightly
Targets run with AddressSanitizer, as cargo-fuzz builds them.
A crash leaves its input in fuzz/artifacts/TARGET/ and prints the command that repeats it.

example: cargo xtask fuzz --seconds 30";

fn run(args: &[String]) -> Result<(), String> {
    let mut flags = Flags::new(args.to_vec());
    let seconds = flags.number("--seconds")?.unwrap_or(60);
    let list_only = flags.switch("--list");
    let wanted = flags.positional();
    let rest = flags.finish()?;
    let targets = targets()?;
    if list_only {
        targets.iter().for_each(|target| println!("{target}"));
        return Ok(());
    }
    if let Some(wanted) = &wanted
        && !targets.contains(wanted)
    {
        return Err(format!(
            "there is no fuzz target `{wanted}`; there are: {}",
            targets.join(" ")
        ));
    }
    require_tools()?;
    for target in targets
        .iter()
        .filter(|target| wanted.as_ref().is_none_or(|wanted| wanted == *target))
    {
        // `cargo` through rustup, not the toolchain's own: only the proxy understands +nightly.
        Cmd::new("cargo")
            .args([
                "+nightly",
                "fuzz",
                "run",
                target,
                "--",
                &format!("-max_total_time={seconds}"),
            ])
            .args(&rest)
            .run()?;
    }
    Ok(())
}

/// The names of the files in fuzz/fuzz_targets.
fn targets() -> Result<Vec<String>, String> {
    let dir = workspace::root()?.join("fuzz/fuzz_targets");
    let entries = std::fs::read_dir(&dir)
        .map_err(|error| format!("cannot list {}: {error}", dir.display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| {
            entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "rs")
        })
        .filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

fn require_tools() -> Result<(), String> {
    if !tools::on_path("cargo-fuzz") {
        return Err("cargo-fuzz is missing: cargo install cargo-fuzz --locked".into());
    }
    Cmd::new("cargo")
        .args(["+nightly", "--version"])
        .capture()
        .map(drop)
        .map_err(|_| "no nightly toolchain: rustup toolchain install nightly".into())
}
