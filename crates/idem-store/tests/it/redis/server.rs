//! A redis-server of a test's own: private directory, private socket, gone with the test.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// Only a server that does not start takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Server {
    dir: tempfile::TempDir,
    settings: Vec<String>,
    child: Mutex<Child>,
}

impl Server {
    /// A server that keeps what it acknowledges.
    pub(crate) fn start() -> Self {
        Self::with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    pub(crate) fn with(settings: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings: Vec<_> = settings.iter().map(|&s| s.to_owned()).collect();
        let child = Mutex::new(start(dir.path(), &settings));
        wait_until_ready(&dir.path().join("socket"));
        Self {
            dir,
            settings,
            child,
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    pub(crate) fn url(&self, query: &str) -> String {
        url_in(self.dir.path(), query)
    }

    /// It takes what is sent and answers nothing until [`resume`](Self::resume).
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.lock().unwrap();
        rustix::process::kill_process(Pid::from_child(&child), signal).unwrap();
    }

    pub(crate) fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) fn restart(&self) {
        *self.child.lock().unwrap() = start(self.dir.path(), &self.settings);
        wait_until_ready(&self.socket());
    }

    /// As a power cut that the disk survives: what was synced is there again.
    pub(crate) fn kill_and_restart(&self) {
        self.kill();
        self.restart();
    }

    /// The bytes that a command answers.
    pub(crate) fn ask_bytes(&self, command: &str) -> Vec<u8> {
        let answer = ask_once(&self.socket(), command).expect("the server answers");
        let end = answer.windows(2).position(|two| two == b"\r\n");
        let end = end.expect("an answer begins with a line");
        answer[end + 2..answer.len() - 2].to_vec()
    }

    /// Sends one command, words without spaces, and returns the first bytes of the answer.
    pub(crate) fn ask(&self, command: &str) -> String {
        ask(&self.socket(), command).expect("the server answers")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap();
        // It may have been killed already.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Of the socket in `dir`.
pub(crate) fn url_in(dir: &Path, query: &str) -> String {
    format!("redis+unix://{}/socket{query}", dir.display())
}

fn start(dir: &Path, settings: &[String]) -> Child {
    // A socket that a killed server left would look like a server.
    let _ = std::fs::remove_file(dir.join("socket"));
    server_command(dir)
        .args(["--port", "0", "--unixsocket", "socket"])
        .args(settings)
        .spawn()
        .expect("redis-server is installed (cargo xtask test does it)")
}

/// A server in `dir` that dies with the test's process.
pub(crate) fn server_command(dir: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "redis-server"])
        .args(["--save", "", "--loglevel", "warning", "--logfile", "log"])
        .current_dir(dir)
        .stdout(Stdio::null());
    command
}

fn wait_until_ready(socket: &Path) {
    let started = Instant::now();
    while ask(socket, "PING").is_none_or(|answer| !answer.starts_with("+PONG")) {
        assert!(started.elapsed() < PATIENCE, "the server does not start");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn ask(socket: &Path, command: &str) -> Option<String> {
    let answer = ask_once(socket, command)?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

fn ask_once(socket: &Path, command: &str) -> Option<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.write_all(format!("{command}\r\n").as_bytes()).ok()?;
    let mut answer = [0; 4096];
    let got = stream.read(&mut answer).ok()?;
    Some(answer[..got].to_vec())
}
