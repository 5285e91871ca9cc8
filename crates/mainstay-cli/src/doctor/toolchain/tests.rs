//! Tools here are executable files that hold their version: nothing is started.

use super::{Surroundings, Tool, Version, examine};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// A machine in a folder: `bin` folders become PATH, in the order of their first tool.
struct Machine {
    dir: tempfile::TempDir,
    path: Vec<PathBuf>,
}

impl Machine {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            path: Vec::new(),
        }
    }

    fn write(&self, path: &str, text: &str) -> PathBuf {
        let file = self.dir.path().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, text).unwrap();
        file
    }

    fn tool(mut self, path: &str, version: &str) -> Self {
        let file = self.write(path, version);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        let dir = file.parent().unwrap().to_owned();
        if !self.path.contains(&dir) {
            self.path.push(dir);
        }
        self
    }

    fn examine(&self) -> (Vec<Tool>, Vec<String>) {
        let root = self.dir.path();
        let surroundings = Surroundings {
            path: std::env::join_paths(&self.path).unwrap(),
            home: Some(root.join("home")),
            here: root.join("checkout/inner"),
            under_cargo: false,
        };
        examine(root, &surroundings, &|path: &Path| {
            Version::parse(&std::fs::read_to_string(path).ok()?)
        })
    }
}

/// A checkout that asks for Rust 1.90, with rustup's tools on PATH.
fn healthy() -> Machine {
    let machine = Machine::new()
        .tool(
            "home/.cargo/bin/cargo",
            "cargo 1.95.0 (f2d3ce0bd 2026-03-21)",
        )
        .tool(
            "home/.cargo/bin/rustc",
            "rustc 1.95.0 (59807616e 2026-04-14)",
        )
        .tool("usr/bin/clang", "Debian clang version 14.0.6")
        .tool("usr/bin/bpftool", "bpftool v7.1.0\nusing libbpf v1.1")
        .tool("usr/bin/cargo-nextest", "cargo-nextest 0.9.143");
    machine.write(
        "checkout/Cargo.toml",
        "[workspace.package]\nrust-version = \"1.90\"\n",
    );
    machine.write(
        "checkout/inner/Cargo.toml",
        "rust-version.workspace = true\n",
    );
    machine
}

fn row<'a>(tools: &'a [Tool], path: &str) -> &'a Tool {
    tools
        .iter()
        .find(|tool| {
            tool.path
                .as_deref()
                .is_some_and(|found| found.ends_with(path))
        })
        .unwrap()
}

#[test]
fn a_healthy_toolchain_needs_no_advice() {
    let (tools, advice) = healthy().examine();
    assert!(tools.iter().all(|tool| tool.ok), "{tools:?}");
    assert_eq!(advice, Vec::<String>::new());
    assert_eq!(row(&tools, "bpftool").version.as_deref(), Some("7.1.0"));
}

#[test]
fn an_old_cargo_before_rustups_is_the_silent_downgrade() {
    let mut machine = healthy().tool("usr/local/bin/cargo", "cargo 1.63.0");
    machine.path.rotate_right(1);
    let line = format!("# first\nexport PATH={}:$PATH\n", machine.path[0].display());
    machine.write("home/.bashrc", &line);
    let (tools, advice) = machine.examine();

    let winner = row(&tools, "usr/local/bin/cargo");
    assert!(!winner.ok && winner.needed && winner.shadowed_by.is_none());
    let hidden = row(&tools, ".cargo/bin/cargo");
    assert_eq!(hidden.shadowed_by, winner.path);
    assert!(
        !hidden.ok && !hidden.needed,
        "another version is worth saying, but harms nobody"
    );
    let first = &advice[0];
    assert!(first.contains("is older than 1.90.0"), "{first}");
    assert!(first.contains("home/.cargo/bin first on PATH"), "{first}");
    assert!(first.contains("~/.bashrc:2"), "{first}");
}

#[test]
fn the_same_version_twice_is_no_trouble() {
    let (tools, advice) = healthy().tool("opt/cargo", "cargo 1.95.0").examine();
    let hidden = row(&tools, "opt/cargo");
    assert!(hidden.ok && hidden.shadowed_by.is_some());
    assert!(advice.is_empty());
}

#[test]
fn a_folder_that_is_on_path_twice_counts_once() {
    let mut machine = healthy();
    let link = machine.dir.path().join("bin");
    std::os::unix::fs::symlink(machine.dir.path().join("usr/bin"), &link).unwrap();
    machine.path.push(link);
    machine.path.push(machine.path[0].clone());
    let (tools, _) = machine.examine();
    assert_eq!(tools.len(), 5);
}

#[test]
fn cargo_and_rustc_must_belong_together() {
    let mut machine = healthy().tool("opt/rustc", "rustc 1.93.0");
    machine.path.rotate_right(1);
    let (tools, _) = machine.examine();
    let rustc = row(&tools, "opt/rustc");
    assert_eq!(
        rustc.problem.as_deref(),
        Some("does not belong to cargo 1.95.0")
    );
    assert!(!rustc.ok && rustc.needed);
}

#[test]
fn a_rust_toolchain_file_is_held_against_what_runs() {
    let machine = healthy();
    for (channel, ok) in [
        ("1.95", true),
        ("1.95.0", true),
        ("stable", true),
        ("1.94", false),
        ("1.95.1", false),
    ] {
        machine.write(
            "checkout/rust-toolchain.toml",
            &format!("[toolchain]\nchannel = \"{channel}\"\n"),
        );
        let (tools, _) = machine.examine();
        assert_eq!(row(&tools, ".cargo/bin/rustc").ok, ok, "{channel}");
    }
}

#[test]
fn rustup_without_its_folder_on_path_says_which_file_would_add_it() {
    let mut machine = healthy();
    machine.path.remove(0);
    let (tools, advice) = machine.examine();
    let cargo = tools.iter().find(|tool| tool.tool == "cargo").unwrap();
    assert!(cargo.path.is_none() && !cargo.ok && cargo.needed);
    assert!(
        advice
            .iter()
            .any(|line| line.contains("add `. \"$HOME/.cargo/env\"` to ~/.profile")),
        "{advice:?}"
    );

    machine.write("home/.bashrc", ". \"$HOME/.cargo/env\"\n");
    let (_, advice) = machine.examine();
    assert!(
        advice
            .iter()
            .any(|line| line.contains("~/.bashrc:1 adds it")),
        "{advice:?}"
    );
}

#[test]
fn outside_a_checkout_no_tool_is_needed() {
    let machine = Machine::new();
    let (tools, _) = machine.examine();
    assert!(tools.iter().all(|tool| !tool.ok && !tool.needed));
}

#[test]
fn a_tool_without_a_version_is_broken() {
    let machine = healthy().tool("home/.cargo/bin/cargo", "error: toolchain is not installed");
    let (tools, _) = machine.examine();
    assert_eq!(
        row(&tools, ".cargo/bin/cargo").problem.as_deref(),
        Some("does not answer --version")
    );
}

#[test]
fn versions_are_found_in_what_tools_print() {
    assert_eq!(
        Version::parse("Debian clang version 14.0.6"),
        Some(Version(14, 0, 6))
    );
    assert_eq!(Version::parse("bpftool v7.1.0"), Some(Version(7, 1, 0)));
    assert_eq!(Version::parse("1.95"), Some(Version(1, 95, 0)));
    assert_eq!(
        Version::parse("rustc 1.97.0-nightly (abc 2026-05-01)"),
        Some(Version(1, 97, 0))
    );
    assert_eq!(Version::parse("no version"), None);
}
