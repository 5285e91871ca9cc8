//! Runs the tests of test binaries, each in a process of its own, and reports on a file: `guest PLAN REPORT`.
//!
//! As process 1 of a virtual machine it first makes a system of the bare kernel, reads `/plan`, reports on the second
//! serial port and ends with the machine. `cargo xtask vm` writes the plan and reads the report; it runs the same
//! program on the host, so that both speak one format.
//!
//! Plan, a line each: `filter TEXT`, then `binary LABEL PATH`. Report, tabs between the words:
//! `kernel RELEASE`, `start TEST`, `line TEST TEXT`, `end TEST RESULT MILLISECONDS`, and `done COUNT` at the end,
//! without which nothing counts. A TEST is `LABEL::NAME`.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

mod boot;
mod suite;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        boot::prepare();
        // Whatever happens is told on the console, and the machine ends.
        let result = run(Path::new("/plan"), Path::new("/dev/ttyS1"));
        boot::log(&format!("guest: {result:?}"));
        boot::power_off();
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match &args[..] {
        [plan, report] => run(plan.as_ref(), report.as_ref()),
        _ => Err(io::Error::other("usage: guest PLAN REPORT")),
    };
    if let Err(error) = result {
        boot::log(&format!("guest: {error}"));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn run(plan: &Path, report: &Path) -> io::Result<()> {
    let report = Report::open(report)?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    report.line(&["kernel", release.trim()])?;
    let tests = suite::list(&fs::read_to_string(plan)?)?;
    suite::run(&tests, &report)?;
    report.line(&["done", &tests.len().to_string()])
}

/// Where the results go: a file, or a serial port.
struct Report {
    file: Mutex<File>,
}

impl Report {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self {
            file: Mutex::new(file),
        })
    }

    /// Writes the words as one line, whole even where several threads report.
    fn line(&self, words: &[&str]) -> io::Result<()> {
        let line = words.join("\t") + "\n";
        let mut file = self.file.lock().expect("no thread panics while it writes");
        file.write_all(line.as_bytes())
    }
}
