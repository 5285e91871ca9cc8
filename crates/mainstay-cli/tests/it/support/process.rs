//! `mainstay gateway` as a process of its own.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// How to start a gateway. Addresses have port 0 until it was started once, so that the next start
/// of the same value takes the same ports.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    data: PathBuf,
    listen: SocketAddr,
    http: SocketAddr,
    args: Vec<String>,
}

impl Launch {
    /// A gateway with its store in `data`, on free ports of 127.0.0.1.
    pub(crate) fn new(data: impl Into<PathBuf>) -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            data: data.into(),
            listen: free,
            http: free,
            args: Vec::new(),
        }
    }

    /// One more argument.
    pub(crate) fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Where its log goes: beside the data, one file for all starts.
    pub(crate) fn log(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    /// Starts the process and waits until it serves.
    pub(crate) fn start(&mut self) -> GatewayProcess {
        let log = self.log();
        let stderr = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let child = self
            .command()
            .stderr(stderr)
            .spawn()
            .expect("the mainstay binary starts");
        let mut process = GatewayProcess {
            child,
            listen: self.listen,
            http: self.http,
            rest: None,
        };
        let mut out = BufReader::new(process.child.stdout.take().expect("stdout is piped"));
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("no ready line but {line:?}; its log:\n{}", tail(&log)));
        assert_eq!(ready["event"], "ready", "{ready}");
        let address = |field: &str| ready[field].as_str().and_then(|text| text.parse().ok());
        process.listen = address("listen").expect("the ready line names the device address");
        process.http = address("http").expect("the ready line names the HTTP address");
        process.rest = Some(read_on(out));
        (self.listen, self.http) = (process.listen, process.http);
        process
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
        for (name, _) in std::env::vars_os() {
            // The settings of whoever runs the tests are not the tests' settings.
            if name.to_string_lossy().starts_with("MAINSTAY_") {
                command.env_remove(name);
            }
        }
        command
            .args(["gateway", "--json", "--listen", &self.listen.to_string()])
            .args(["--http", &self.http.to_string(), "--data"])
            .arg(&self.data)
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    }
}

/// A running gateway; killed when it is dropped.
#[derive(Debug)]
pub(crate) struct GatewayProcess {
    child: Child,
    /// Where devices connect.
    pub(crate) listen: SocketAddr,
    /// Where HTTP is served.
    pub(crate) http: SocketAddr,
    rest: Option<JoinHandle<String>>,
}

impl GatewayProcess {
    /// `kill -9`; returns when the process is gone, its ports and its lock are free.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to drain, as Ctrl-C does.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Stops it for a time, as a machine that is paused does.
    pub(crate) fn freeze(&self, time: Duration) {
        self.freeze_while(|| thread::sleep(time));
    }

    /// Stops it until `other` has happened.
    pub(crate) fn freeze_while(&self, other: impl FnOnce()) {
        self.signal(Signal::STOP);
        // Some of its threads may run on for a moment.
        waitpid(Some(self.pid()), WaitOptions::UNTRACED).unwrap();
        other();
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed()).expect("a process has a pid")
    }

    /// Waits until it has ended by itself. Panics after `patience`, which is no measure of how long
    /// it should take, only of when it hangs.
    pub(crate) fn wait_for_end(&mut self, patience: Duration) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                started.elapsed() < patience,
                "the gateway still runs after {patience:?}"
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it printed behind the ready line; waits for its end.
    pub(crate) fn output(mut self) -> String {
        self.child.wait().unwrap();
        let rest = self.rest.take().expect("taken once, here");
        rest.join().unwrap()
    }
}

impl Drop for GatewayProcess {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Reads a process's output, so that it never waits for a reader.
fn read_on(mut out: BufReader<ChildStdout>) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        out.read_to_string(&mut text).unwrap();
        text
    })
}

/// The end of a log file.
pub(crate) fn tail(path: &Path) -> String {
    let mut text = String::new();
    if let Ok(mut file) = File::open(path) {
        file.read_to_string(&mut text).unwrap();
    }
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
