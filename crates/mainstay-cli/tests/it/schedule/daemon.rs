//! `mainstay schedule` as a process of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Only a scheduler that hangs takes so long.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// The command without the settings of whoever runs the tests.
pub(super) fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MAINSTAY_") {
            command.env_remove(name);
        }
    }
    command
        .arg("schedule")
        .current_dir(dir)
        .stdin(Stdio::null());
    command
}

pub(super) fn run(dir: &Path, args: &[&str]) -> Output {
    command(dir).args(args).output().unwrap()
}

/// Writes the jobs and says where.
pub(super) fn write(dir: &Path, jobs: &str) -> PathBuf {
    let file = dir.join("jobs.toml");
    std::fs::write(&file, jobs).unwrap();
    file
}

/// A running scheduler; killed when it is dropped.
pub(super) struct Daemon {
    child: Child,
    pub(super) http: SocketAddr,
    events: Receiver<Value>,
}

impl Daemon {
    /// Starts it on `jobs.toml` of the folder and waits until it is ready.
    pub(super) fn start(dir: &Path, args: &[&str]) -> Self {
        let mut child = command(dir)
            .args(["--config", "jobs.toml", "--http", "127.0.0.1:0", "--json"])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, events) = mpsc::channel();
        thread::spawn(move || {
            for line in out.lines() {
                let Ok(line) = line else { return };
                let event = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        let http = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut daemon = Self {
            child,
            http,
            events,
        };
        let ready = daemon.event("ready");
        daemon.http = ready["http"].as_str().unwrap().parse().unwrap();
        daemon
    }

    /// The next event of this kind; others are passed over.
    pub(super) fn event(&self, kind: &str) -> Value {
        let started = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(started.elapsed());
            let event = self.events.recv_timeout(left);
            let event = event.unwrap_or_else(|error| panic!("no event {kind}: {error}"));
            if event["event"] == kind {
                return event;
            }
        }
    }

    /// The next firing of this job.
    pub(super) fn firing(&self, job: &str) -> Value {
        loop {
            let event = self.event("firing");
            if event["job"] == job {
                return event;
            }
        }
    }

    pub(super) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// `kill -9`; returns when the process is gone.
    pub(super) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to drain and waits for its end.
    pub(super) fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.event("stopped");
        self.child.wait().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
