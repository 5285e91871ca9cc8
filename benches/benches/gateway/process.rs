//! The real command as a child process.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::Result;

fn binary() -> Result<String> {
    std::env::var("MAINSTAY_BIN")
        .map_err(|_| "MAINSTAY_BIN is not set: run this as `cargo xtask bench gateway`".into())
}

/// A gateway on free ports.
pub(crate) struct Gateway {
    child: Child,
    lines: BufReader<ChildStdout>,
    ready: Value,
    _data: Option<TempDir>,
}

impl Gateway {
    pub(crate) fn start(flags: &[&str], data: Option<TempDir>) -> Result<Self> {
        let mut command = Command::new(binary()?);
        command.args([
            "gateway",
            "--json",
            "--listen",
            "127.0.0.1:0",
            "--http",
            "127.0.0.1:0",
        ]);
        command.args(flags).stdout(Stdio::piped());
        if let Some(data) = &data {
            command.arg("--data").arg(data.path());
        }
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or("the child has no stdout")?;
        let lines = BufReader::new(stdout);
        let mut gateway = Self {
            child,
            lines,
            ready: Value::Null,
            _data: data,
        };
        gateway.ready = gateway.event("ready")?;
        Ok(gateway)
    }

    /// Reads lines until the one of `event`.
    pub(crate) fn event(&mut self, event: &str) -> Result<Value> {
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line)? == 0 {
                return Err(format!("the gateway ended before `{event}`").into());
            }
            let value: Value = serde_json::from_str(&line)?;
            if value["event"] == event {
                return Ok(value);
            }
        }
    }

    pub(crate) fn listen(&self) -> &str {
        self.ready["listen"].as_str().unwrap_or_default()
    }

    pub(crate) fn http(&self) -> Result<SocketAddr> {
        Ok(self.ready["http"].as_str().unwrap_or_default().parse()?)
    }

    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .ok_or("no VmRSS")?;
        let kib: u64 = line.split_whitespace().nth(1).ok_or("no VmRSS")?.parse()?;
        Ok(kib * 1024)
    }

    /// Resident memory `after` the call, checked to be with `devices` devices online.
    pub(crate) fn resident_when(&self, devices: usize, after: Duration) -> Result<u64> {
        std::thread::sleep(after);
        let page = get(self.http()?, "/v1/devices?limit=1")?;
        let online = serde_json::from_str::<Value>(&page)?["total"]
            .as_u64()
            .unwrap_or(0);
        if online != devices as u64 {
            eprintln!("only {online} of {devices} devices are online");
        }
        self.resident_bytes()
    }

    /// The sum of all samples of a metric.
    pub(crate) fn metric(&self, name: &str) -> Result<f64> {
        let page = get(self.http()?, "/metrics")?;
        let samples = page.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with([' ', '{'])
                .then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
        });
        Ok(samples.sum())
    }

    pub(crate) fn stop(mut self) -> Result<()> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-INT", &pid]).status()?;
        let ended = self.child.wait()?;
        if ended.success() {
            Ok(())
        } else {
            Err(format!("the gateway ended with {ended}").into())
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // After `stop` there is nothing left to kill.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn get(http: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(http)?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer
        .split_once("\r\n\r\n")
        .ok_or("an answer without a head")?;
    Ok(body.to_owned())
}

/// A running `mainstay swarm`.
pub(crate) struct Swarm(Child);

pub(crate) fn swarm(listen: &str, devices: usize, stay: Duration, beat: &str) -> Result<Swarm> {
    let stay = format!("{}s", stay.as_secs());
    let devices_text = devices.to_string();
    let child = Command::new(binary()?)
        .args([
            "swarm",
            "--json",
            "--connect",
            listen,
            "--devices",
            &devices_text,
        ])
        .args(["--beat", beat, "--for", &stay])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(Swarm(child))
}

impl Swarm {
    /// Waits for its end and returns its report.
    pub(crate) fn end(mut self) -> Result<Value> {
        let mut report = String::new();
        self.0
            .stdout
            .take()
            .ok_or("the child has no stdout")?
            .read_to_string(&mut report)?;
        Ok(serde_json::from_str(&report)?)
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        // After `end` there is nothing left to kill.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Waits until `devices` devices are online.
pub(crate) fn wait_online(gateway: &Gateway, devices: usize) -> Result<()> {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(30) {
        let page: Value = serde_json::from_str(&get(gateway.http()?, "/v1/devices?limit=1")?)?;
        if page["total"].as_u64() == Some(devices as u64) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(format!("{devices} devices did not come online").into())
}
