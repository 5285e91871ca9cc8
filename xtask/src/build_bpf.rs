//! `cargo xtask build-bpf [--check]`: compiles `bpf/*.bpf.c` into the objects and skeletons that the crates commit.
//!
//! The objects are committed so that only who changes BPF C needs clang. A stamp beside them records what they were
//! made from: `--check` compares hashes and needs neither clang nor libbpf, so it runs everywhere. The compiling half
//! sits behind the feature `bpf`, because libbpf-cargo brings libbpf-sys and with it a C toolchain; without the
//! feature the command runs itself again with it.

#![expect(clippy::print_stdout, reason = "a command reports on stdout")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::Command;

pub(crate) const COMMAND: Command = Command {
    name: "build-bpf",
    about: "Compiles bpf/*.bpf.c into the committed objects and skeletons",
    help: HELP,
    run,
};

const HELP: &str = "\
usage: cargo xtask build-bpf [--check]

  --check   compile nothing; fail when the committed objects are not those of the sources

Needs clang, make, pkg-config and the libelf and zlib headers; --check needs none of them.

example: cargo xtask build-bpf --check";

/// What one source becomes. Paths are relative to the workspace.
struct Program {
    source: &'static str,
    object: &'static str,
    /// The typed loader, where a crate uses one. It includes the object's bytes by a path relative to itself.
    skeleton: Option<&'static str>,
}

const PROGRAMS: &[Program] = &[
    Program {
        source: "bpf/fds.bpf.c",
        object: "crates/kernel-scope/src/bpf/fds.bpf.o",
        skeleton: Some("crates/kernel-scope/src/bpf/fds.skel.rs"),
    },
    Program {
        source: "bpf/hash_load.bpf.c",
        object: "benches/bpf/hash_load.bpf.o",
        skeleton: None,
    },
    Program {
        source: "bpf/map_iter.bpf.c",
        object: "crates/kernel-scope/src/bpf/map_iter.bpf.o",
        skeleton: Some("crates/kernel-scope/src/bpf/map_iter.skel.rs"),
    },
    Program {
        source: "bpf/perf_flood.bpf.c",
        object: "crates/ebpf-ring/tests/bpf/perf_flood.bpf.o",
        skeleton: None,
    },
    Program {
        source: "bpf/ring_flood.bpf.c",
        object: "crates/ebpf-ring/tests/bpf/ring_flood.bpf.o",
        skeleton: None,
    },
    Program {
        source: "bpf/ring_shards.bpf.c",
        object: "crates/ebpf-ring/tests/bpf/ring_shards.bpf.o",
        skeleton: None,
    },
    Program {
        source: "bpf/ring_load.bpf.c",
        object: "benches/bpf/ring_load.bpf.o",
        skeleton: None,
    },
    Program {
        source: "bpf/runq.bpf.c",
        object: "crates/kernel-scope/src/bpf/runq.bpf.o",
        skeleton: Some("crates/kernel-scope/src/bpf/runq.skel.rs"),
    },
    Program {
        source: "bpf/wake.bpf.c",
        object: "crates/kernel-scope/src/bpf/wake.bpf.o",
        skeleton: Some("crates/kernel-scope/src/bpf/wake.skel.rs"),
    },
];

/// Folders whose `.c` and `.h` files are inputs of every program.
const INPUT_DIRS: &[&str] = &["bpf", "bpf/include", "crates/ebpf-ring/include"];

/// Relative paths and a neutral `__TARGET_ARCH_`: the objects then depend on neither the folder nor the architecture
/// of who compiles. libbpf-cargo adds `-g -O2 -target bpf` and its own libbpf headers, and links the
/// object once, which strips DWARF (it holds absolute paths) and keeps BTF.
const FLAGS: &[&str] = &[
    "-Ibpf/include",
    "-Ibpf",
    "-Icrates/ebpf-ring/include",
    "-mcpu=v3",
    "-Wall",
    "-Werror",
    "-D__TARGET_ARCH_neutral",
    "-fdebug-compilation-dir=.",
];

const STAMP: &str = "crates/kernel-scope/src/bpf/STAMP";

/// Runs the command with the arguments that follow `build-bpf`.
fn run(args: &[String]) -> Result<(), String> {
    let root = workspace_root()?;
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => build(&root),
        ["--check"] => check(&root),
        _ => Err("the only argument is --check; --help says more".into()),
    }
}

fn workspace_root() -> Result<PathBuf, String> {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest
        .parent()
        .map(Path::to_path_buf)
        .ok_or_else(|| format!("{} has no parent folder", manifest.display()))
}

/// Fails when a committed object or skeleton is not what the sources on disk would give.
fn check(root: &Path) -> Result<(), String> {
    let hint = "run `cargo xtask build-bpf` and commit what it writes";
    let stamp = fs::read_to_string(root.join(STAMP))
        .map_err(|e| format!("cannot read {STAMP}: {e}; {hint}"))?;
    let stale = stale(&stamp, &stamp_lines(root)?);
    if stale.is_empty() {
        println!("build-bpf: {} programs up to date", PROGRAMS.len());
        return Ok(());
    }
    Err(format!(
        "the committed BPF objects are stale against: {}; {hint}",
        stale.join(", ")
    ))
}

/// What differs between two stamps: paths, or "flags". The compiler's version is there to be read, not compared: the
/// check must not need the compiler.
fn stale(committed: &str, current: &str) -> Vec<String> {
    let lines = |text: &str| -> BTreeSet<String> {
        text.lines()
            .filter(|line| !line.starts_with("clang "))
            .map(str::to_owned)
            .collect()
    };
    let name = |line: &String| {
        let mut words = line.split(' ');
        match words.next() {
            Some("flags") | None => "flags".to_owned(),
            Some(_) => words.next().unwrap_or(line).to_owned(),
        }
    };
    let names: BTreeSet<String> = lines(committed)
        .symmetric_difference(&lines(current))
        .map(name)
        .collect();
    names.into_iter().collect()
}

/// One line for the flags, one for each input and each output.
fn stamp_lines(root: &Path) -> Result<String, String> {
    let mut lines = format!("flags {}\n", FLAGS.join(" "));
    let inputs = inputs(root)?;
    if let Some(forgotten) = inputs
        .iter()
        .find(|i| i.ends_with(".bpf.c") && !PROGRAMS.iter().any(|p| p.source == i.as_str()))
    {
        return Err(format!(
            "{forgotten} is in no line of PROGRAMS in xtask/src/build_bpf.rs"
        ));
    }
    for input in inputs {
        let _ = writeln!(lines, "input {input} {}", hash_file(root, &input)?);
    }
    for output in PROGRAMS
        .iter()
        .flat_map(|p| [Some(p.object), p.skeleton])
        .flatten()
    {
        let _ = writeln!(lines, "output {output} {}", hash_file(root, output)?);
    }
    Ok(lines)
}

fn inputs(root: &Path) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for dir in INPUT_DIRS {
        let entries =
            fs::read_dir(root.join(dir)).map_err(|e| format!("cannot list {dir}: {e}"))?;
        for entry in entries {
            let name = entry
                .map_err(|e| format!("cannot list {dir}: {e}"))?
                .file_name();
            let name = name.to_string_lossy();
            if name.ends_with(".c") || name.ends_with(".h") {
                found.push(format!("{dir}/{name}"));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn hash_file(root: &Path, path: &str) -> Result<String, String> {
    let bytes = fs::read(root.join(path)).map_err(|e| format!("cannot read {path}: {e}"))?;
    let mut hex = String::from("sha256:");
    for byte in Sha256::digest(&bytes) {
        let _ = write!(hex, "{byte:02x}");
    }
    Ok(hex)
}

/// Hands over to a build of this program that can compile.
#[cfg(not(feature = "bpf"))]
fn build(root: &Path) -> Result<(), String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = std::process::Command::new(cargo)
        .args([
            "run",
            "--quiet",
            "--package",
            "xtask",
            "--features",
            "bpf",
            "--",
            "build-bpf",
        ])
        .current_dir(root)
        .status()
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    if status.success() {
        Ok(())
    } else {
        Err("building the BPF programs failed; it needs clang, make, pkg-config, libelf and zlib headers \
             (Debian: apt-get install clang make pkg-config libelf-dev zlib1g-dev)"
            .into())
    }
}

#[cfg(feature = "bpf")]
fn build(root: &Path) -> Result<(), String> {
    // Relative paths reach the objects (BTF line info); absolute ones must not.
    std::env::set_current_dir(root).map_err(|e| format!("cannot enter {}: {e}", root.display()))?;
    let clang = clang_version()?;
    for program in PROGRAMS {
        compile(program)?;
        println!("build-bpf: {} -> {}", program.source, program.object);
    }
    let stamp = format!("clang {clang}\n{}", stamp_lines(root)?);
    fs::write(STAMP, stamp).map_err(|e| format!("cannot write {STAMP}: {e}"))
}

#[cfg(feature = "bpf")]
fn clang_version() -> Result<String, String> {
    let output = std::process::Command::new("clang")
        .arg("--version")
        .output()
        .map_err(|e| format!("cannot run clang: {e}; Debian: apt-get install clang"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or("unknown").trim().to_owned())
}

#[cfg(feature = "bpf")]
fn compile(program: &Program) -> Result<(), String> {
    for output in [Some(program.object), program.skeleton]
        .into_iter()
        .flatten()
    {
        let dir = Path::new(output)
            .parent()
            .expect("every output is inside a crate");
        fs::create_dir_all(dir).map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
    }
    let failed = |e| format!("{}: {e:#}", program.source);
    let mut builder = libbpf_cargo::SkeletonBuilder::new();
    builder
        .source(program.source)
        .obj(program.object)
        .clang_args(FLAGS)
        .reference_obj(true);
    builder.build().map_err(failed)?;
    refuse_machine_paths(program.object)?;
    let Some(skeleton) = program.skeleton else {
        return Ok(());
    };
    builder.generate(skeleton).map_err(failed)?;
    finish_skeleton(program, skeleton)
}

/// A committed object must be the same wherever it was compiled.
#[cfg(feature = "bpf")]
fn refuse_machine_paths(object: &str) -> Result<(), String> {
    let bytes = fs::read(object).map_err(|e| format!("cannot read {object}: {e}"))?;
    let here = std::env::current_dir().map_err(|e| format!("no current folder: {e}"))?;
    let here = here.as_os_str().as_encoded_bytes();
    if bytes.windows(here.len()).any(|window| window == here) {
        return Err(format!(
            "{object} holds this machine's path {}",
            String::from_utf8_lossy(here)
        ));
    }
    Ok(())
}

/// Makes the generated loader fit to be committed: it names its object by a path relative to itself, and says what
/// it is.
#[cfg(feature = "bpf")]
fn finish_skeleton(program: &Program, skeleton: &str) -> Result<(), String> {
    let text = fs::read_to_string(skeleton).map_err(|e| format!("cannot read {skeleton}: {e}"))?;
    let object =
        fs::canonicalize(program.object).map_err(|e| format!("{}: {e}", program.object))?;
    let name = object.file_name().unwrap_or_default().to_string_lossy();
    let (absolute, relative) = (format!("\"{}\"", object.display()), format!("\"{name}\""));
    if !text.contains(&absolute) {
        return Err(format!(
            "{skeleton} does not include its object as expected; look at what libbpf-cargo writes"
        ));
    }
    let text = format!(
        "// @generated by `cargo xtask build-bpf` from {}. Do not edit.\n{}",
        program.source,
        text.replace(&absolute, &relative)
    );
    fs::write(skeleton, text).map_err(|e| format!("cannot write {skeleton}: {e}"))?;
    let status = std::process::Command::new("rustfmt")
        .args(["--edition", "2024", skeleton])
        .status()
        .map_err(|e| format!("cannot run rustfmt: {e}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("rustfmt refused {skeleton}"))
    }
}

#[cfg(test)]
mod tests {
    use super::{check, stale, workspace_root};

    #[test]
    fn the_committed_objects_are_what_the_sources_give() {
        check(&workspace_root().unwrap()).unwrap();
    }

    #[test]
    fn every_difference_is_named_once_and_the_compiler_is_none() {
        let committed = "clang 14\nflags -O2\ninput a.c 1\ninput b.h 2\noutput a.o 3\n";
        assert!(stale(committed, &committed.replace("clang 14", "clang 19")).is_empty());
        let current = "flags -O1\ninput a.c 1\ninput b.h 9\ninput new.h 4\noutput a.o 3\n";
        assert_eq!(stale(committed, current), ["b.h", "flags", "new.h"]);
        assert_eq!(stale(committed, ""), ["a.c", "a.o", "b.h", "flags"]);
    }
}
