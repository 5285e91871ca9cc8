//! Which tools a command line finds, which ones stand hidden behind them, and whether their versions agree.
//!
//! The trap this is for: a distribution's older cargo stands before rustup's on PATH, and every build silently uses
//! it. So every candidate on PATH is asked for its version, not only the one that wins.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Surroundings, startup};

/// One candidate on PATH, or one tool that is not there.
#[derive(Debug, Serialize)]
pub(super) struct Tool {
    pub(super) tool: &'static str,
    /// `None`: there is none on PATH.
    pub(super) path: Option<String>,
    pub(super) version: Option<String>,
    /// The candidate that wins over this one; `None` for the winner itself.
    pub(super) shadowed_by: Option<String>,
    pub(super) ok: bool,
    /// Whether the doctor's exit code depends on it.
    pub(super) needed: bool,
    pub(super) problem: Option<String>,
}

/// A tool to look for.
struct Wanted {
    name: &'static str,
    /// Part of the Rust toolchain: its version is held against rust-version, and a checkout needs it.
    is_rust: bool,
    /// Oldest version that works, for the others.
    oldest: Version,
    /// What to do when it is missing.
    install: &'static str,
}

const RUST: &str = "install Rust with rustup (https://rustup.rs)";

const WANTED: &[Wanted] = &[
    Wanted {
        name: "cargo",
        is_rust: true,
        oldest: Version(0, 0, 0),
        install: RUST,
    },
    Wanted {
        name: "rustc",
        is_rust: true,
        oldest: Version(0, 0, 0),
        install: RUST,
    },
    // clang 12 is the first that writes the CO-RE relocations that the BPF programs need.
    Wanted {
        name: "clang",
        is_rust: false,
        oldest: Version(12, 0, 0),
        install: "apt-get install clang llvm",
    },
    Wanted {
        name: "bpftool",
        is_rust: false,
        oldest: Version(0, 0, 0),
        install: "apt-get install bpftool",
    },
    Wanted {
        name: "cargo-nextest",
        is_rust: false,
        oldest: Version(0, 0, 0),
        install: "cargo install cargo-nextest --locked",
    },
];

/// A tool that says nothing for so long is broken.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_EVERY: Duration = Duration::from_millis(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(u32, u32, u32);

/// What the checkout asks of the toolchain.
#[derive(Debug)]
struct Asked {
    /// `rust-version` of the nearest Cargo.toml that states one, else that of this program.
    rust_version: Version,
    /// The channel of the nearest rust-toolchain file.
    channel: Option<String>,
    is_checkout: bool,
}

/// Every tool with all its candidates, and what to do. `ask`: the version of the program at a path.
pub(super) fn examine(
    root: &Path,
    surroundings: &Surroundings,
    ask: &dyn Fn(&Path) -> Option<Version>,
) -> (Vec<Tool>, Vec<String>) {
    let asked = Asked::of(&surroundings.here);
    let mut tools = Vec::new();
    let mut advice = Vec::new();
    let mut rust: Option<(String, Version)> = None;
    for wanted in WANTED {
        let found = candidates(&surroundings.path, wanted.name);
        let found: Vec<(PathBuf, Option<Version>)> = found
            .into_iter()
            .map(|path| (path.clone(), ask(&path)))
            .collect();
        let mut rows = rows(wanted, &found, &asked);
        if wanted.is_rust
            && let Some((_, Some(version))) = found.first()
        {
            disagreement(&mut rows[0], *version, &mut rust);
        }
        for row in rows.iter().filter(|row| !row.ok) {
            let better = found
                .iter()
                .find(|(_, version)| *version >= Some(wanted.oldest(&asked)));
            advice.push(mend(
                row,
                wanted,
                better.map(|(path, _)| path.as_path()),
                root,
                surroundings,
            ));
        }
        tools.extend(rows);
    }
    advice.extend(cargo_bin_missing(root, surroundings));
    if surroundings.under_cargo && !advice.is_empty() {
        advice.push("this ran under cargo, which changes PATH: run target/release/mainstay doctor for your shell's own".into());
    }
    (tools, advice)
}

impl Wanted {
    fn oldest(&self, asked: &Asked) -> Version {
        if self.is_rust {
            asked.rust_version
        } else {
            self.oldest
        }
    }
}

/// The winner and those it hides, or one row that says that there is none.
fn rows(wanted: &Wanted, found: &[(PathBuf, Option<Version>)], asked: &Asked) -> Vec<Tool> {
    let needed = wanted.is_rust && asked.is_checkout;
    let Some((winner, winning)) = found.first() else {
        let problem = Some("is not on PATH".into());
        let (path, version, shadowed_by) = (None, None, None);
        return vec![Tool {
            tool: wanted.name,
            path,
            version,
            shadowed_by,
            ok: false,
            needed,
            problem,
        }];
    };
    let row = |(at, (path, version)): (usize, &(PathBuf, Option<Version>))| {
        let problem = if at == 0 {
            winner_problem(wanted, *version, asked)
        } else if version == winning {
            None
        } else {
            Some("is another version than the one that hides it".to_owned())
        };
        Tool {
            tool: wanted.name,
            path: Some(path.display().to_string()),
            version: version.map(|version| version.to_string()),
            shadowed_by: (at > 0).then(|| winner.display().to_string()),
            ok: problem.is_none(),
            // Who is hidden hurts nobody until the order of PATH changes.
            needed: needed && at == 0,
            problem,
        }
    };
    found.iter().enumerate().map(row).collect()
}

fn winner_problem(wanted: &Wanted, version: Option<Version>, asked: &Asked) -> Option<String> {
    let Some(version) = version else {
        return Some("does not answer --version".into());
    };
    let oldest = wanted.oldest(asked);
    if version < oldest {
        return Some(format!("is older than {oldest}"));
    }
    let channel = asked.channel.as_deref().filter(|_| wanted.is_rust)?;
    let pinned = Version::parse(channel)
        .filter(|_| channel.starts_with(|letter: char| letter.is_ascii_digit()))?;
    // `1.95` pins no patch.
    let same =
        (version.0, version.1) == (pinned.0, pinned.1) && (pinned.2 == 0 || version.2 == pinned.2);
    (!same).then(|| format!("is not the {channel} that the rust-toolchain file asks for"))
}

/// cargo and rustc of different releases do not belong together.
fn disagreement(row: &mut Tool, version: Version, first: &mut Option<(String, Version)>) {
    let Some((name, other)) = first else {
        *first = Some((row.tool.to_owned(), version));
        return;
    };
    if (other.0, other.1) != (version.0, version.1) && row.ok {
        row.ok = false;
        row.problem = Some(format!("does not belong to {name} {other}"));
    }
}

/// What to do about one row.
fn mend(
    row: &Tool,
    wanted: &Wanted,
    better: Option<&Path>,
    root: &Path,
    surroundings: &Surroundings,
) -> String {
    let problem = row.problem.as_deref().unwrap_or_default();
    let Some(path) = &row.path else {
        return format!("{} {problem}: {}", row.tool, wanted.install);
    };
    let version = row.version.as_deref().unwrap_or("(no version)");
    let mut text = format!("{} {version} at {path} {problem}", row.tool);
    if let Some(winner) = &row.shadowed_by {
        text.push_str(&format!(": remove it, or mind that {winner} wins"));
        return text;
    }
    match better.filter(|better| better.to_string_lossy() != *path) {
        Some(better) => {
            let dir = better.parent().unwrap_or(better).display();
            text.push_str(&format!(
                ", and {} would do: put {dir} first on PATH",
                better.display()
            ));
        }
        None if wanted.is_rust => {
            text.push_str(": rustup update, or rustup toolchain install stable")
        }
        None => text.push_str(&format!(": {}", wanted.install)),
    }
    let dir = Path::new(path).parent().unwrap_or(Path::new(path));
    let places = startup::places(root, surroundings.home.as_deref(), dir);
    if !places.is_empty() {
        text.push_str(&format!(
            "; {} is put on PATH by {}",
            dir.display(),
            places.join(", ")
        ));
    }
    text
}

/// rustup was installed, but PATH does not lead there.
fn cargo_bin_missing(root: &Path, surroundings: &Surroundings) -> Option<String> {
    let home = surroundings.home.as_deref()?;
    let dir = home.join(".cargo/bin");
    let on_path = std::env::split_paths(&surroundings.path).any(|entry| entry == dir);
    if on_path || !dir.join("cargo").is_file() {
        return None;
    }
    let places = startup::places(root, Some(home), &dir);
    let mut text = format!("{} is not on PATH though it holds cargo: ", dir.display());
    if places.is_empty() {
        text.push_str("add `. \"$HOME/.cargo/env\"` to ~/.profile and log in again");
    } else {
        let places = places.join(", ");
        text.push_str(&format!(
            "{places} adds it, so this shell did not read that (bash reads .bashrc only when interactive, .profile \
             only at login)"
        ));
    }
    Some(text)
}

/// Every executable of that name, in the order of PATH. A folder that is on PATH twice, or by a link, counts once.
fn candidates(path: &OsStr, name: &str) -> Vec<PathBuf> {
    let mut seen = BTreeSet::new();
    std::env::split_paths(path)
        .filter(|dir| seen.insert(std::fs::canonicalize(dir).unwrap_or_else(|_| dir.clone())))
        .map(|dir| dir.join(name))
        .filter(|file| {
            std::fs::metadata(file)
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
        .collect()
}

/// Runs `path --version`; `None` when it fails, hangs or names no version.
pub(super) fn ask_version(path: &Path) -> Option<Version> {
    let mut child = Command::new(path)
        .arg("--version")
        // rustup must not download a toolchain only because we asked.
        .env("RUSTUP_AUTO_INSTALL", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    // A version fits into the pipe's buffer, so the child never waits for us to read.
    if !finishes(&mut child) {
        return None;
    }
    let out = child.wait_with_output().ok()?;
    Version::parse(&String::from_utf8_lossy(&out.stdout)).filter(|_| out.status.success())
}

fn finishes(child: &mut Child) -> bool {
    let began = Instant::now();
    while began.elapsed() < ANSWER_TIMEOUT {
        match child.try_wait() {
            Ok(Some(_)) => return true,
            Ok(None) => std::thread::sleep(POLL_EVERY),
            Err(_) => break,
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    false
}

impl Version {
    /// The first `N.N` or `N.N.N` in a text.
    fn parse(text: &str) -> Option<Self> {
        text.split(|letter: char| !letter.is_ascii_digit() && letter != '.')
            .find_map(|word| {
                let mut numbers = word.split('.').map(str::parse::<u32>);
                let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
                Some(Self(
                    major,
                    minor,
                    numbers.next().and_then(Result::ok).unwrap_or(0),
                ))
            })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl Asked {
    fn of(here: &Path) -> Self {
        let value_of = |text: &str, key: &str| {
            let line = text.lines().find_map(|line| {
                line.trim()
                    .strip_prefix(key)?
                    .trim()
                    .strip_prefix('=')
                    .map(str::to_owned)
            });
            Some(line?.trim().trim_matches('"').to_owned())
        };
        // Of every file of that name from here upward, the nearest first.
        let nearest = |name: &str| -> Vec<String> {
            let files = here.ancestors().map(|dir| dir.join(name));
            files
                .filter_map(|file| std::fs::read_to_string(file).ok())
                .collect()
        };
        let manifests = nearest("Cargo.toml");
        let stated = manifests
            .iter()
            .find_map(|text| Version::parse(&value_of(text, "rust-version")?));
        let ours = Version::parse(env!("CARGO_PKG_RUST_VERSION"))
            .expect("the manifest states a rust-version");
        let channels = nearest("rust-toolchain.toml");
        let channel = channels.iter().find_map(|text| value_of(text, "channel"));
        // The older form of the file may hold nothing but the channel.
        let bare = nearest("rust-toolchain");
        let bare = bare
            .iter()
            .find_map(|text| Some(text.lines().next()?.trim().to_owned()));
        Self {
            rust_version: stated.unwrap_or(ours),
            channel: channel.or(bare),
            is_checkout: !manifests.is_empty(),
        }
    }
}

impl Tool {
    pub(super) fn to_line(&self) -> String {
        let mark = match (self.ok, self.needed) {
            (true, _) => "ok",
            (false, true) => "BAD",
            (false, false) => "-",
        };
        let version = self.version.as_deref().unwrap_or("-");
        let mut line = format!(
            "  {mark:<4} {:<13} {version:<9} {}",
            self.tool,
            self.path.as_deref().unwrap_or("-")
        );
        if let Some(problem) = &self.problem {
            line.push_str(&format!("  {problem}"));
        }
        if let Some(winner) = &self.shadowed_by {
            line.push_str(&format!("  (hidden behind {winner})"));
        }
        line
    }
}

#[cfg(test)]
mod tests;
