//! What compiles for other systems, wherever their standard library is installed (`rustup target add NAME`).

use std::path::Path;

use crate::cmd::Cmd;
use crate::stages::Outcome;

/// Code behind kqueue, which no test here can run.
const PACKAGE: &str = "conn-reactor";
const TARGETS: &[&str] = &["x86_64-apple-darwin", "x86_64-unknown-freebsd"];

/// Checks the package and its tests for each target that is installed.
pub(crate) fn check() -> Result<Outcome, String> {
    let (here, missing): (Vec<&str>, Vec<&str>) =
        TARGETS.iter().partition(|target| is_installed(target));
    let missing = missing.join(" ");
    if here.is_empty() {
        return Ok(Outcome::Skipped(format!("not installed: {missing}")));
    }
    for target in here {
        Cmd::cargo()
            .args(["check", "--package", PACKAGE, "--all-targets"])
            .args(["--all-features", "--target", target])
            .env("RUSTFLAGS", "-D warnings")
            .run()?;
    }
    Ok(Outcome::Passed(if missing.is_empty() {
        missing
    } else {
        format!("not installed: {missing}")
    }))
}

/// The compiler names the place of every target's library, there or not.
fn is_installed(target: &str) -> bool {
    let place = Cmd::new("rustc").args(["--print", "target-libdir", "--target", target]);
    place
        .capture()
        .is_ok_and(|place| Path::new(place.trim()).is_dir())
}
