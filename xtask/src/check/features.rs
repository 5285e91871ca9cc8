//! Each crate builds, without a warning, with no feature, with each feature alone, with its defaults and with all.

use std::collections::BTreeSet;

use super::native::Native;
use crate::cmd::Cmd;
use crate::stages::Outcome;
use crate::workspace::{Package, Workspace};

/// Checks libraries and binaries only: the dev-dependencies of tests turn features on and would hide a missing one.
/// Clippy instead of check, because it denies warnings in our crates without building the others again.
pub(crate) fn check(workspace: &Workspace, has_c_libraries: bool) -> Result<Outcome, String> {
    let native = Native::of(workspace);
    let (mut done, mut left_out) = (0, 0);
    let mut wrong = Vec::new();
    for package in &workspace.packages {
        for features in combinations(package) {
            let needs_c = native.needs(package)
                || features
                    .iter()
                    .any(|feature| native.turned_on_by(package, feature));
            if needs_c && !has_c_libraries {
                left_out += 1;
                continue;
            }
            done += 1;
            let shown = if features.is_empty() {
                "no features".into()
            } else {
                features.join(",")
            };
            println!("{}: {shown}", package.name);
            if let Err(error) = check_one(package, &features) {
                println!("{error}");
                wrong.push(format!("{} with {shown}", package.name));
            }
        }
    }
    if !wrong.is_empty() {
        return Err(format!(
            "{} of {done} feature sets: {}",
            wrong.len(),
            wrong.join("; ")
        ));
    }
    without_heap(workspace)?;
    let note = if left_out == 0 {
        String::new()
    } else {
        format!(", {left_out} left out for want of C libraries")
    };
    Ok(Outcome::Passed(format!("{done} feature sets{note}")))
}

fn check_one(package: &Package, features: &[&str]) -> Result<(), String> {
    let mut cmd = Cmd::cargo().args([
        "clippy",
        "--quiet",
        "--package",
        &package.name,
        "--no-default-features",
    ]);
    if !features.is_empty() {
        cmd = cmd.args(["--features", &features.join(",")]);
    }
    cmd.args(["--", "-D", "warnings"]).capture().map(drop)
}

/// Links what canon-ser offers without a heap into a library without an allocator: rustc refuses if anything of it
/// depends on the crate alloc.
fn without_heap(workspace: &Workspace) -> Result<(), String> {
    let manifest = workspace.root.join("crates/canon-ser/no-heap/Cargo.toml");
    println!("canon-ser: linked without an allocator");
    Cmd::cargo()
        .args(["build", "--quiet", "--manifest-path"])
        .arg(manifest)
        .env("CARGO_TARGET_DIR", workspace.target.join("no-heap"))
        .capture()
        .map(drop)
}

/// The sets to check; of sets that turn on the same features only the first. A feature whose name begins with `_` is what
/// others have in common and is not for use alone.
fn combinations(package: &Package) -> Vec<Vec<&str>> {
    let all: Vec<&str> = package
        .features
        .keys()
        .map(String::as_str)
        .filter(|feature| *feature != "default")
        .collect();
    let mut sets = vec![Vec::new()];
    if package.features.contains_key("default") {
        sets.push(vec!["default"]);
    }
    let alone = all.iter().filter(|feature| !feature.starts_with('_'));
    sets.extend(alone.map(|feature| vec![*feature]));
    sets.push(all);
    let mut seen = BTreeSet::new();
    sets.retain(|set| {
        let mut on = package.closure(set.iter().copied());
        on.remove("default");
        seen.insert(on)
    });
    sets
}
