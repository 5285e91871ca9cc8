//! `mainstay gateway`: the device gateway.

mod config;
mod demo;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ::gateway::server::{Config, Gateway};
use clap::Args;
use serde::Serialize;
use tempfile::TempDir;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::units::{parse_duration, parse_interval};
use crate::{Verdict, limits};
use config::File;
use demo::Demo;

/// Descriptors for the store, listeners, shards and standard streams.
const RESERVED_FILES: usize = 128;

/// Run a device gateway: devices over TCP, commands over HTTP, a dashboard.
///
/// Settings come from flags, then from MAINSTAY_... variables, then from the configuration file.
/// Ctrl-C (or SIGTERM, SIGHUP) drains: nothing new is taken, running commands end or are recorded, the
/// store is synced. A second Ctrl-C ends at once.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    mainstay gateway --demo 2000\n  \
    mainstay gateway --listen 127.0.0.1:7400 --http 127.0.0.1:7480 --data ./mainstay-data\n  \
    curl -d '{\"valve\":\"open\"}' -H 'Idempotency-Key: order-1' \
    http://127.0.0.1:7480/v1/devices/dev-00000/commands")]
pub(crate) struct GatewayArgs {
    /// Also run N simulated devices, which beat in datagrams with --udp; the store is a temporary one unless --data is given
    #[arg(long, value_name = "N", env = "MAINSTAY_DEMO")]
    demo: Option<usize>,
    /// Where devices connect [default: 127.0.0.1:7400]
    #[arg(long, value_name = "ADDR", env = "MAINSTAY_LISTEN")]
    listen: Option<SocketAddr>,
    /// Where HTTP is served [default: 127.0.0.1:7480]
    #[arg(long, value_name = "ADDR", env = "MAINSTAY_HTTP")]
    http: Option<SocketAddr>,
    /// Where devices that are connected may send beats as UDP datagrams (key: udp) [default: nowhere]
    #[arg(long, value_name = "ADDR", env = "MAINSTAY_UDP")]
    udp: Option<SocketAddr>,
    /// Directory of the store [default: mainstay-data]
    #[arg(long, value_name = "DIR", env = "MAINSTAY_DATA")]
    data: Option<PathBuf>,
    /// A store that several gateways share: redis://HOST:PORT, redis+unix:///SOCKET,
    /// redis+sentinel://..., redis+cluster://..., postgres://..., mysql://... (key: store) [default: in --data]
    #[arg(
        long,
        value_name = "URL",
        env = "MAINSTAY_STORE",
        hide_env_values = true
    )]
    store: Option<String>,
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE", env = "MAINSTAY_CONFIG")]
    config: Option<PathBuf>,
    /// Reactor threads; 0 is one for each core (key: shards)
    #[arg(long, value_name = "N", env = "MAINSTAY_SHARDS")]
    shards: Option<usize>,
    /// A Host name that HTTP requests may carry, besides the loopback ones; may be repeated (key: hosts)
    #[arg(
        long = "host",
        value_name = "NAME",
        env = "MAINSTAY_HOSTS",
        value_delimiter = ','
    )]
    hosts: Vec<String>,
    /// Beat interval of devices that ask for none (key: devices.interval_ms) [default: 30s]
    #[arg(long, value_name = "TIME", env = "MAINSTAY_BEAT", value_parser = parse_interval)]
    beat: Option<u32>,
    /// Added to the interval before a silent device is gone (key: devices.grace_ms) [default: 5s]
    #[arg(long, value_name = "TIME", env = "MAINSTAY_GRACE", value_parser = parse_interval)]
    grace: Option<u32>,
    /// Most devices to remember; beyond it the longest offline one is forgotten (key: devices.known_max)
    #[arg(long, value_name = "N", env = "MAINSTAY_DEVICES_MAX")]
    devices_max: Option<usize>,
    /// How long a drain waits for running commands (key: drain_timeout_ms) [default: 3s]
    #[arg(long, value_name = "TIME", env = "MAINSTAY_DRAIN_TIMEOUT", value_parser = parse_duration)]
    drain_timeout: Option<Duration>,
    /// Print JSON lines instead of text
    #[arg(long, env = "MAINSTAY_JSON", value_parser = clap::builder::FalseyValueParser::new())]
    json: bool,
}

pub(crate) fn run(args: GatewayArgs) -> io::Result<Verdict> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("mainstay-http")
        .build()?;
    let verdict = runtime.block_on(serve(args));
    // What a second Ctrl-C cuts short may hang in a disk; dropping the runtime would wait for it.
    runtime.shutdown_background();
    verdict
}

async fn serve(args: GatewayArgs) -> io::Result<Verdict> {
    let open_files = limits::raise_open_files()?;
    let (mut config, names_data) = read_config(&args)?;
    let temporary = choose_data(args.demo.is_some() && !names_data, &mut config)?;
    share_open_files(&mut config, args.demo.unwrap_or(0), open_files)?;
    let data = config.data.clone();
    let connections_max = config.devices.connections_max;
    let mut stop = Stop::listen()?;
    let gateway = Gateway::start(config).await?;
    let ready = Ready {
        event: "ready",
        listen: gateway.device_addr(),
        http: gateway.http_addr(),
        udp: gateway.udp_addr(),
        data: &data,
        open_files,
        connections_max,
        demo: args.demo,
    };
    ready.print(args.json, temporary.is_some());
    let demo = match args.demo {
        Some(devices) => Some(Demo::start(&gateway, devices, args.json).await?),
        None => None,
    };
    stop.wait().await;
    let draining = Instant::now();
    say(args.json, "draining", "draining; Ctrl-C again ends at once");
    tokio::select! {
        drained = drain(gateway, demo) => drained?,
        () = stop_again() => return Err(io::Error::other("ended before it was drained")),
    }
    say(
        args.json,
        "stopped",
        &format!("stopped in {:.1} s", draining.elapsed().as_secs_f64()),
    );
    drop(temporary);
    Ok(Verdict::Good)
}

async fn drain(gateway: Gateway, demo: Option<Demo>) -> io::Result<()> {
    if let Some(demo) = &demo {
        demo.stop_commands();
    }
    gateway.drain().await?;
    match demo {
        Some(demo) => demo.stop().await,
        None => Ok(()),
    }
}

/// A second wish to stop. Supervisors that signal a whole process group may say the first one twice,
/// so what comes at once does not count.
async fn stop_again() {
    tokio::time::sleep(Duration::from_millis(500)).await;
    match Stop::listen() {
        Ok(mut again) => again.wait().await,
        Err(_) => std::future::pending().await,
    }
}

/// The signals that ask to stop. A terminal that goes away asks too.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Stop {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// The configuration, and whether anybody said where the data is: what is named may be the default.
fn read_config(args: &GatewayArgs) -> io::Result<(Config, bool)> {
    let file = args.config.as_deref().map(File::read).transpose()?;
    let mut config = file.as_ref().map_or_else(Config::default, File::config);
    set(&mut config.listen, args.listen);
    set(&mut config.http, args.http);
    config.udp = args.udp.or(config.udp);
    set(&mut config.data, args.data.clone());
    config.store = args.store.clone().or(config.store);
    set(&mut config.shards, args.shards);
    set(&mut config.devices.interval_ms, args.beat);
    set(&mut config.devices.grace_ms, args.grace);
    set(&mut config.devices.known_max, args.devices_max);
    let drain_ms = args.drain_timeout.map(|time| time.as_millis());
    set(
        &mut config.drain_timeout_ms,
        drain_ms.map(|ms| u64::try_from(ms).unwrap_or(u64::MAX)),
    );
    if !args.hosts.is_empty() {
        config.hosts.clone_from(&args.hosts);
    }
    config.check().map_err(|what| {
        let placed = file.as_ref().and_then(|file| file.placed(&what));
        io::Error::new(io::ErrorKind::InvalidInput, placed.unwrap_or(what))
    })?;
    let file_names_data = file.is_some_and(|file| file.names_data);
    Ok((config, args.data.is_some() || file_names_data))
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// Leaves descriptors to HTTP, the store and the simulated devices, so that strangers who connect to
/// the device port cannot lock anybody else out.
fn share_open_files(config: &mut Config, demo: usize, limit: Option<u64>) -> io::Result<()> {
    let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else {
        return Ok(());
    };
    let http = &mut config.http_limits.connections_max;
    *http = (*http).min(limit / 4).max(1);
    let reserved = *http + RESERVED_FILES.min(limit / 4) + demo;
    // A simulated device takes a descriptor on each side.
    limits::check_open_files((reserved + demo) as u64, Some(limit as u64))?;
    let devices = &mut config.devices.connections_max;
    *devices = (*devices).min(limit.saturating_sub(reserved)).max(1);
    Ok(())
}

/// A demonstration for which nobody names a directory gets one of its own that goes when it ends.
fn choose_data(is_temporary: bool, config: &mut Config) -> io::Result<Option<TempDir>> {
    if !is_temporary {
        return Ok(None);
    }
    let dir = tempfile::Builder::new()
        .prefix("mainstay-demo-")
        .tempdir()?;
    config.data = dir.path().to_owned();
    Ok(Some(dir))
}

#[derive(Serialize)]
struct Ready<'a> {
    event: &'static str,
    listen: SocketAddr,
    http: SocketAddr,
    udp: Option<SocketAddr>,
    data: &'a Path,
    open_files: Option<u64>,
    connections_max: usize,
    demo: Option<usize>,
}

impl Ready<'_> {
    fn print(&self, json: bool, temporary: bool) {
        let udp = self.udp.map(|udp| ("datagrams", udp));
        let listeners = [("devices", self.listen), ("HTTP", self.http)];
        for (what, address) in listeners.into_iter().chain(udp) {
            if !address.ip().is_loopback() {
                tracing::warn!(
                    %address,
                    "{what}: everybody who reaches this address is served; there is no TLS and no \
                     authentication yet"
                );
            }
        }
        if json {
            outln!(
                "{}",
                serde_json::to_string(self).expect("plain values always serialize")
            );
            return;
        }
        let note = if temporary { " (temporary)" } else { "" };
        let open_files = self
            .open_files
            .map_or("no limit".into(), |limit| limit.to_string());
        outln!("devices     {}", self.listen);
        if let Some(udp) = self.udp {
            outln!("datagrams   {udp}");
        }
        outln!("dashboard   http://{}/", self.http);
        outln!("data        {}{note}", self.data.display());
        outln!(
            "open files  {open_files}; at most {} devices",
            self.connections_max
        );
    }
}

/// A line about what happens, in words or as JSON.
fn say(json: bool, event: &str, text: &str) {
    if json {
        outln!("{}", serde_json::json!({ "event": event, "text": text }));
    } else {
        outln!("{text}");
    }
}
