//! The house style as far as a program can see it.

use std::path::Path;

use super::rooms;
use super::source::{self, File, code_only, line_of, words};
use crate::stages::Outcome;
use crate::workspace::{Package, Workspace};

const FILE_LINES_MAX: usize = 600;
/// Longer functions fail.
const FUNCTION_LINES_MAX: usize = 100;
/// Longer functions are printed: the house aims at this.
const FUNCTION_LINES_GOAL: usize = 70;
const FACADE: &str = "crates/mainstay/src/lib.rs";
const FACADE_LINES_MAX: usize = 100;
const SOURCES: &[&str] = &["rs", "c", "h", "py", "js", "mjs", "html", "css"];

pub(crate) fn check(workspace: &Workspace) -> Result<Outcome, String> {
    let files = source::files(&workspace.root, SOURCES)?;
    let (rust, others): (Vec<File>, Vec<File>) = files
        .into_iter()
        .partition(|file| file.path.ends_with(".rs"));
    let mut wrong = Vec::new();
    for file in rust
        .iter()
        .chain(&others)
        .filter(|file| !file.is_generated())
    {
        wrong.extend(size(file));
    }
    for file in rust.iter().filter(|file| !file.is_generated()) {
        wrong.extend(functions(file));
        wrong.extend(habits(file));
    }
    wrong.extend(others.iter().filter_map(licence_line));
    wrong.extend(rooms::check(&rust));
    let readme = std::fs::read_to_string(workspace.root.join("README.md")).unwrap_or_default();
    let crates = workspace.root.join("crates");
    for package in workspace
        .packages
        .iter()
        .filter(|package| package.dir.starts_with(&crates))
    {
        wrong.extend(crate_files(package, &readme));
    }
    if wrong.is_empty() {
        return Ok(Outcome::Passed(format!(
            "{} files",
            rust.len() + others.len()
        )));
    }
    Err(format!(
        "{} things are out of place\n{}",
        wrong.len(),
        wrong.join("\n")
    ))
}

fn size(file: &File) -> Option<String> {
    let lines = file.text.lines().count();
    let max = if file.path == FACADE {
        FACADE_LINES_MAX
    } else {
        FILE_LINES_MAX
    };
    (lines > max).then(|| format!("{}: {lines} lines, more than {max}", file.path))
}

/// Functions that are too long; prints those above the goal.
fn functions(file: &File) -> Vec<String> {
    let mut wrong = Vec::new();
    for (line, length) in function_lengths(&file.text) {
        if length > FUNCTION_LINES_MAX {
            wrong.push(format!(
                "{}:{line}: a function of {length} lines, more than {FUNCTION_LINES_MAX}",
                file.path
            ));
        } else if length > FUNCTION_LINES_GOAL {
            println!(
                "note: {}:{line}: a function of {length} lines, the goal is {FUNCTION_LINES_GOAL}",
                file.path
            );
        }
    }
    wrong
}

/// First line and length of each function. rustfmt puts its closing brace alone, below the `fn`'s own indentation.
fn function_lengths(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let is_function = words(code, "fn").next().is_some_and(|fn_at| {
            code[..fn_at].split_whitespace().all(|word| {
                ["pub", "const", "async", "unsafe", "extern", "\"C\""].contains(&word)
                    || word.starts_with("pub(")
            })
        });
        if !is_function || line.ends_with(['}', ';']) {
            continue;
        }
        let indent = line.len() - code.len();
        let closes =
            |line: &&str| line.len() == indent + 1 && line.ends_with('}') && line.trim() == "}";
        if let Some(length) = lines[at..].iter().position(closes) {
            found.push((at + 1, length + 1));
        }
    }
    found
}

/// Attributes and macros that the house does not want.
fn habits(file: &File) -> Vec<String> {
    let code = code_only(&file.text);
    let mut wrong = Vec::new();
    for open in ["#[allow(", "#![allow(", "#[expect(", "#![expect("] {
        for (at, _) in code.match_indices(open) {
            let end = code[at..].find(")]").map_or(code.len(), |end| at + end);
            if words(&code[at..end], "reason").next().is_none() {
                wrong.push(format!(
                    "{}:{}: `{open}...` without a reason",
                    file.path,
                    line_of(&code, at)
                ));
            }
        }
    }
    for name in ["todo", "unimplemented", "dbg"] {
        for at in words(&code, name).filter(|at| code[at + name.len()..].starts_with('!')) {
            wrong.push(format!("{}:{}: `{name}!`", file.path, line_of(&code, at)));
        }
    }
    wrong
}

/// The kernel reads a BPF program's licence, so each file that becomes part of one says it first.
fn licence_line(file: &File) -> Option<String> {
    let is_bpf =
        file.path.starts_with("bpf/") || file.path.starts_with("crates/ebpf-ring/include/");
    let is_c = file.path.ends_with(".c") || file.path.ends_with(".h");
    let first = file.text.lines().next().unwrap_or_default();
    (is_bpf && is_c && !first.contains("SPDX-License-Identifier: MIT OR GPL-2.0-only")).then(|| {
        format!(
            "{}: the first line is not `SPDX-License-Identifier: MIT OR GPL-2.0-only`",
            file.path
        )
    })
}

fn crate_files(package: &Package, readme: &str) -> Vec<String> {
    let name = &package.name;
    let dir = package
        .dir
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let read = |file: &str| std::fs::read_to_string(package.dir.join(file)).unwrap_or_default();
    let manifest = read("Cargo.toml");
    let mut wrong = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            wrong.push(format!("{name}: {what}"));
        }
    };
    must(!read("README.md").is_empty(), "has no README.md");
    must(
        read("CHANGELOG.md").contains("## [Unreleased]"),
        "CHANGELOG.md has no `## [Unreleased]`",
    );
    must(
        package.field("license") == "MIT OR Apache-2.0",
        "the licence is not `MIT OR Apache-2.0`",
    );
    for field in ["description", "repository", "readme", "rust_version"] {
        must(
            !package.field(field).is_empty(),
            &format!("Cargo.toml has no `{field}`"),
        );
    }
    must(
        manifest.contains("\nversion = \""),
        "the version is not its own: write it literally",
    );
    must(
        manifest.contains("[lints]\nworkspace = true"),
        "does not take the workspace's lints",
    );
    must(
        package.is_published(),
        "is in crates/ but not published: move it",
    );
    let names = [format!("`{dir}`"), format!("`{name}`")];
    let row = readme
        .lines()
        .any(|line| line.starts_with('|') && names.iter().any(|name| line.contains(name.as_str())));
    must(row, "is in no table row of README.md");
    must(has_tests(&package.dir), "has no tests/it/main.rs");
    wrong
}

/// One integration-test binary per crate: they link once.
fn has_tests(dir: &Path) -> bool {
    dir.join("tests/it/main.rs").is_file()
}

#[cfg(test)]
mod tests {
    use super::{File, function_lengths, habits, licence_line, size};

    fn file(path: &str, text: &str) -> File {
        File {
            path: path.into(),
            text: text.into(),
        }
    }

    #[test]
    fn functions_are_measured_by_their_own_braces() {
        let text = "impl A {\n    pub(crate) const fn a() {\n        if b {\n        }\n    }\n}\nfn c() {}\nlet fn_d = 1;\n";
        assert_eq!(function_lengths(text), [(2, 4)]);
    }

    #[test]
    fn attributes_need_reasons_and_macros_are_found() {
        let good =
            "#[expect(\n    dead_code,\n    reason = \"x\"\n)]\n// todo!()\nfn a() { \"dbg!\"; }";
        assert_eq!(habits(&file("a.rs", good)), Vec::<String>::new());
        let bad = "#![allow(dead_code)]\n#[expect(dead_code)]\nfn a() { todo!() }";
        assert_eq!(habits(&file("a.rs", bad)).len(), 3);
    }

    #[test]
    fn the_facade_has_its_own_limit() {
        let lines = "x\n".repeat(101);
        assert!(size(&file("crates/mainstay/src/lib.rs", &lines)).is_some());
        assert!(size(&file("crates/other/src/lib.rs", &lines)).is_none());
        assert!(size(&file("crates/other/src/lib.rs", &lines.repeat(6))).is_some());
    }

    #[test]
    fn bpf_files_say_their_licence_first() {
        let good = "// SPDX-License-Identifier: MIT OR GPL-2.0-only\n";
        assert!(licence_line(&file("bpf/a.bpf.c", good)).is_none());
        assert!(licence_line(&file("bpf/a.bpf.c", "int a;\n")).is_some());
        assert!(licence_line(&file("crates/ebpf-ring/include/a.h", "\n")).is_some());
    }
}
