//! `mainstay doctor`: what this kernel and this toolchain can do, what stands in for what is absent, how to mend
//! what is broken.
//!
//! It reads files, asks tools for their version, and tries the kernel's features with BPF programs that do nothing and
//! are gone when it ends. It changes nothing and needs no privilege, though a process without is told that most
//! features are not for it. The toolchain's facts come from below a root folder and from an environment that are
//! arguments, so that tests bring their own.

mod features;
mod kernel;
mod startup;
mod toolchain;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use features::Feature;
use kernel::Kernel;
use toolchain::Tool;

/// Says what this machine's kernel and toolchain can do, and how to mend what is broken
///
/// Exit code 0: all that is needed works. 1: something needed is broken (cargo and rustc are needed inside a checkout).
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  mainstay doctor --json | jq '.features[] | select(.available | not)'"
)]
pub(crate) struct DoctorArgs {
    /// Print one JSON object for machines
    #[arg(long)]
    json: bool,
}

/// Everything that the doctor found.
#[derive(Debug, Serialize)]
struct Report {
    kernel: Kernel,
    features: Vec<Feature>,
    toolchain: Vec<Tool>,
    /// What to do, most urgent first.
    advice: Vec<String>,
}

/// What the process was started with.
#[derive(Debug)]
struct Surroundings {
    /// `PATH`, in its order.
    path: OsString,
    home: Option<PathBuf>,
    /// The working directory: inside a checkout its rust-version holds.
    here: PathBuf,
    /// Cargo and rustup change PATH for what they start.
    under_cargo: bool,
}

pub(crate) fn run(args: &DoctorArgs) -> ExitCode {
    let surroundings = Surroundings {
        path: std::env::var_os("PATH").unwrap_or_default(),
        home: std::env::var_os("HOME").map(PathBuf::from),
        here: std::env::current_dir().unwrap_or_default(),
        under_cargo: std::env::var_os("CARGO").is_some(),
    };
    let report = examine(Path::new("/"), &surroundings);
    let text = if args.json {
        let json = serde_json::to_string_pretty(&report);
        json.expect("a report holds strings, numbers and booleans only") + "\n"
    } else {
        report.to_text()
    };
    // A reader that closed the pipe has what it wanted.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    if report.is_healthy() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn examine(root: &Path, surroundings: &Surroundings) -> Report {
    let (kernel, features) = kernel::examine();
    let (toolchain, advice) = toolchain::examine(root, surroundings, &toolchain::ask_version);
    Report {
        kernel,
        features,
        toolchain,
        advice,
    }
}

impl Report {
    fn is_healthy(&self) -> bool {
        self.toolchain.iter().all(|tool| tool.ok || !tool.needed)
    }

    fn to_text(&self) -> String {
        let mut lines = self.kernel.to_lines();
        lines.push("\nfeatures".into());
        for feature in &self.features {
            let mark = if feature.available { "yes" } else { "no" };
            let instead = match &feature.fallback {
                Some(fallback) if !feature.available => format!("; instead: {fallback}"),
                _ => String::new(),
            };
            lines.push(format!(
                "  {mark:<4} {:<18} {}{instead}",
                feature.name, feature.reason
            ));
        }
        lines.push("\ntoolchain".into());
        lines.extend(self.toolchain.iter().map(Tool::to_line));
        if !self.advice.is_empty() {
            lines.push("\nto mend".into());
            lines.extend(self.advice.iter().map(|advice| format!("  - {advice}")));
        }
        lines.join("\n") + "\n"
    }
}
