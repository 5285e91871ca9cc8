//! A gateway on free ports with a store of its own.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use gateway::server::{Config, Gateway};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::http::{Request, Response};
use crate::peer::Peer;

/// How long anything may take before a test gives up. Nothing is measured with it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
});

pub(crate) struct Rig {
    gateway: Option<Gateway>,
    dir: TempDir,
    config: Config,
    pub(crate) device_addr: SocketAddr,
    pub(crate) http_addr: SocketAddr,
    pub(crate) udp_addr: Option<SocketAddr>,
}

impl Rig {
    pub(crate) fn start() -> Self {
        Self::with(|_| {})
    }

    /// A gateway with settings that `change` makes.
    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.listen.set_port(0);
        config.http.set_port(0);
        config.shards = 2;
        config.drain_timeout_ms = 0;
        // Peers that say nothing stay online.
        config.devices.interval_ms = 3_600_000;
        config.devices.interval_ms_min = 50;
        // Nor does a test that is not about them run into these, however slow this machine is.
        let long_ms = 3_600_000;
        config.devices.hello_timeout_ms = long_ms;
        config.devices.probe_timeout_ms = long_ms;
        config.http_limits.read_timeout_ms = long_ms;
        change(&mut config);
        Self::open(tempfile::tempdir().unwrap(), config)
    }

    fn open(dir: TempDir, mut config: Config) -> Self {
        config.data = dir.path().to_owned();
        let gateway = RUNTIME.block_on(Gateway::start(config.clone())).unwrap();
        let (device_addr, http_addr) = (gateway.device_addr(), gateway.http_addr());
        let udp_addr = gateway.udp_addr();
        Self {
            gateway: Some(gateway),
            dir,
            config,
            device_addr,
            http_addr,
            udp_addr,
        }
    }

    /// Drains in the background.
    pub(crate) fn drain_later(&mut self) -> JoinHandle<()> {
        let gateway = self.gateway.take().unwrap();
        thread::spawn(move || RUNTIME.block_on(gateway.drain()).unwrap())
    }

    /// [`restart`](Self::restart) with settings that `change` makes.
    pub(crate) fn restart_with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        self.drain_later().join().unwrap();
        change(&mut self.config);
        self.restart_drained()
    }

    /// The data directory.
    pub(crate) fn data(&self) -> &std::path::Path {
        self.dir.path()
    }

    pub(crate) fn restart(mut self) -> Self {
        self.drain_later().join().unwrap();
        self.restart_drained()
    }

    /// Opens what a gateway that was drained has left.
    pub(crate) fn restart_drained(mut self) -> Self {
        assert!(self.gateway.is_none());
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        Self::open(dir, self.config.clone())
    }

    /// A peer that said HELLO as `id` and was welcomed.
    pub(crate) fn online(&self, id: &str) -> Peer {
        Peer::online(self.device_addr, id)
    }

    /// A device that was here and left.
    pub(crate) fn known(&self, id: &str) {
        drop(self.online(id));
        until("the device is offline", || self.state(id) == "offline");
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        Request::get(path).send(self.http_addr)
    }

    /// A command request; see [`Request`] for what can be changed.
    pub(crate) fn command(&self, device: &str, key: &str, payload: &str) -> Request {
        Request::post(&format!("/v1/devices/{device}/commands"))
            .header("Idempotency-Key", key)
            .body(payload)
    }

    pub(crate) fn post(&self, device: &str, key: &str, payload: &str) -> Response {
        self.command(device, key, payload).send(self.http_addr)
    }

    pub(crate) fn post_later(
        &self,
        device: &str,
        key: &str,
        payload: &str,
    ) -> JoinHandle<Response> {
        let (request, addr) = (self.command(device, key, payload), self.http_addr);
        thread::spawn(move || request.send(addr))
    }

    /// Posts a command that reaches the device and outlasts its caller, however slow this machine is.
    pub(crate) fn post_too_impatiently(&self, device: &str, key: &str, payload: &str) {
        let mut timeout_ms = 5;
        loop {
            let request = self.command(device, key, payload).timeout_ms(timeout_ms);
            let response = request.send(self.http_addr);
            if response.json()["code"] != "timed-out-unsent" {
                response.problem(504, "timed-out-sent");
                return;
            }
            timeout_ms *= 2;
        }
    }

    pub(crate) fn device(&self, id: &str) -> Value {
        self.get(&format!("/v1/devices/{}", escaped(id))).json()
    }

    /// `online`, `offline`, `gone`, or `unknown`.
    pub(crate) fn state(&self, id: &str) -> String {
        let response = self.get(&format!("/v1/devices/{}", escaped(id)));
        if response.status == 404 {
            return "unknown".into();
        }
        response.json()["state"].as_str().unwrap().to_owned()
    }

    /// The value of one line of `/metrics`, for instance `mainstay_beats_total`.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let page = self.get("/metrics").text();
        let value = page
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value
            .unwrap_or_else(|| panic!("no {series} in {page}"))
            .parse()
            .unwrap()
    }

    pub(crate) fn rejections(&self, reason: &str) -> f64 {
        self.metric(&format!("mainstay_rejections_total{{reason=\"{reason}\"}}"))
    }

    pub(crate) fn outcomes(&self, outcome: &str) -> f64 {
        self.metric(&format!("mainstay_commands_total{{outcome=\"{outcome}\"}}"))
    }

    /// The gateway works: a new device says HELLO, gets a command and answers it.
    pub(crate) fn serves(&self) {
        let mut good = self.online("good");
        let call = self.post_later(
            "good",
            &format!("check-{:?}", Instant::now()).replace(' ', ""),
            "1",
        );
        good.answer(r#""fine""#);
        let response = call.join().unwrap();
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, r#""fine""#)
        );
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(gateway) = self.gateway.take() {
            drop(RUNTIME.block_on(gateway.drain()));
        }
    }
}

/// An id as a path writes it.
fn escaped(id: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => char::from(byte).to_string(),
        other => format!("%{other:02x}"),
    };
    id.bytes().map(byte).collect()
}

/// Waits until `done`, however long a loaded machine takes.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let patience = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < patience, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
