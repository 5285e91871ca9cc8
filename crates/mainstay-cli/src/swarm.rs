//! `mainstay swarm`: many simulated devices in one process.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ::gateway::device::{Fleet, FleetConfig, FleetReport, Percentiles};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::units::{parse_duration, parse_interval};
use crate::{Verdict, limits};

/// Connect many simulated devices to a gateway, let them beat and answer commands, and report.
///
/// Exits with 1 when a device was lost, was declared gone while it was beating, or never got in.
/// Settings come from flags, then from MAINSTAY_SWARM_... variables.
#[derive(Args)]
#[command(
    after_help = "Example:\n  mainstay swarm --connect 127.0.0.1:7400 --devices 10000 --beat 30s --for 60s"
)]
pub(crate) struct SwarmArgs {
    /// The gateway's device address
    #[arg(
        long,
        value_name = "ADDR",
        env = "MAINSTAY_SWARM_CONNECT",
        default_value = "127.0.0.1:7400"
    )]
    connect: SocketAddr,
    /// How many devices
    #[arg(
        long,
        value_name = "N",
        env = "MAINSTAY_SWARM_DEVICES",
        default_value_t = 1_000
    )]
    devices: usize,
    /// Time between two beats of a device
    #[arg(long, value_name = "TIME", env = "MAINSTAY_SWARM_BEAT", default_value = "30s", value_parser = parse_interval)]
    beat: u32,
    /// How beats look: one byte, mostly, or a frame each as devices of the first version send it
    #[arg(
        long,
        value_name = "FORM",
        env = "MAINSTAY_SWARM_BEATS",
        default_value = "delta"
    )]
    beats: Beats,
    /// Beat in UDP datagrams, if the gateway takes them (it was started with --udp)
    #[arg(long, env = "MAINSTAY_SWARM_UDP", value_parser = clap::builder::FalseyValueParser::new())]
    udp: bool,
    /// The devices of a reactor thread share a breaker for the gateway, as one program's connections would
    #[arg(long, env = "MAINSTAY_SWARM_BREAKER", value_parser = clap::builder::FalseyValueParser::new())]
    breaker: bool,
    /// How long to stay, counted from the start; without it until Ctrl-C
    #[arg(long = "for", value_name = "TIME", env = "MAINSTAY_SWARM_FOR", value_parser = parse_duration)]
    stay: Option<Duration>,
    /// Devices are named PREFIX-00000, PREFIX-00001, ...
    #[arg(long, env = "MAINSTAY_SWARM_PREFIX", default_value = "dev")]
    prefix: String,
    /// Most connections to start in a second
    #[arg(long, value_name = "N", env = "MAINSTAY_SWARM_RAMP", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..))]
    ramp: u32,
    /// Reactor threads
    #[arg(long, value_name = "N", env = "MAINSTAY_SWARM_SHARDS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    shards: u16,
    /// Print one JSON object at the end and nothing else on stdout
    #[arg(long, env = "MAINSTAY_SWARM_JSON", value_parser = clap::builder::FalseyValueParser::new())]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Beats {
    Plain,
    Delta,
}

/// The fixed part of `--json`, with more fields behind it.
#[derive(Serialize)]
struct Report {
    devices: usize,
    connected_max: usize,
    lost: u64,
    false_gone: u64,
    beats: u64,
    datagrams: Datagrams,
    /// All null without a round trip.
    beat_rtt_ms: Quantiles,
    commands: Commands,
    elapsed_s: f64,
    connected_at_end: usize,
    refused: u64,
    connect_failed: u64,
    reconnects: Reconnects,
    returns: Returns,
}

/// Devices that were lost and came back.
#[derive(Serialize)]
struct Returns {
    devices: u64,
    /// Null without one.
    tries_each: Option<f64>,
    /// From the loss to the welcome; all null without one.
    after_ms: Quantiles,
}

#[derive(Serialize)]
struct Datagrams {
    sent: u64,
    unanswered: u64,
}

#[derive(Serialize)]
struct Reconnects {
    tries: u64,
    /// The pauses before them; all null without a try.
    delay_ms: Quantiles,
}

#[derive(Serialize)]
struct Quantiles {
    p50: Option<f64>,
    p99: Option<f64>,
    p999: Option<f64>,
    max: Option<f64>,
}

impl From<Option<Percentiles>> for Quantiles {
    fn from(percentiles: Option<Percentiles>) -> Self {
        Self {
            p50: percentiles.map(|it| it.p50),
            p99: percentiles.map(|it| it.p99),
            p999: percentiles.map(|it| it.p999),
            max: percentiles.map(|it| it.max),
        }
    }
}

#[derive(Serialize)]
struct Commands {
    received: u64,
    executed: u64,
    duplicates_ignored: u64,
}

pub(crate) fn run(args: &SwarmArgs) -> io::Result<Verdict> {
    // One descriptor for each device, and some for the rest of the process.
    limits::check_open_files(args.devices as u64 + 64, limits::raise_open_files()?)?;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    let config = FleetConfig {
        prefix: args.prefix.clone(),
        interval_ms: args.beat,
        ramp_per_s: args.ramp,
        shards: args.shards.into(),
        delta_beats: args.beats == Beats::Delta,
        datagrams: args.udp,
        breaker: args.breaker,
        ..FleetConfig::new(args.connect, args.devices)
    };
    let started = Instant::now();
    let fleet = Fleet::start(config)?;
    let mut progress = Progress::new(started, args.devices);
    while !interrupted.load(Relaxed) && args.stay.is_none_or(|stay| started.elapsed() < stay) {
        std::thread::sleep(Duration::from_millis(100));
        progress.show(&fleet.report());
    }
    progress.end();
    let report = fleet.stop()?;
    let elapsed_s = started.elapsed().as_secs_f64();
    print_report(args, &report, elapsed_s);
    let good = report.lost == 0 && report.false_gone == 0 && report.connected_max == args.devices;
    Ok(if good {
        Verdict::Good
    } else {
        Verdict::Negative
    })
}

fn print_report(args: &SwarmArgs, report: &FleetReport, elapsed_s: f64) {
    if args.json {
        let report = for_json(args, report, elapsed_s);
        let json = serde_json::to_string(&report).expect("numbers always serialize");
        outln!("{json}");
    } else {
        print_words(args, report, elapsed_s);
    }
}

fn for_json(args: &SwarmArgs, report: &FleetReport, elapsed_s: f64) -> Report {
    Report {
        devices: args.devices,
        connected_max: report.connected_max,
        lost: report.lost,
        false_gone: report.false_gone,
        beats: report.beats,
        datagrams: Datagrams {
            sent: report.datagrams,
            unanswered: report.datagrams_unanswered,
        },
        beat_rtt_ms: report.beat_rtt_ms.into(),
        commands: Commands {
            received: report.commands_received,
            executed: report.commands_executed,
            duplicates_ignored: report.duplicates_ignored,
        },
        elapsed_s,
        connected_at_end: report.connected,
        refused: report.refused,
        connect_failed: report.connect_failed,
        reconnects: Reconnects {
            tries: report.reconnects,
            delay_ms: report.reconnect_delay_ms.into(),
        },
        returns: Returns {
            devices: report.returns,
            tries_each: report.tries_per_return,
            after_ms: report.return_ms.into(),
        },
    }
}

fn print_words(args: &SwarmArgs, report: &FleetReport, elapsed_s: f64) {
    outln!(
        "devices    {} of {} connected",
        report.connected_max,
        args.devices
    );
    outln!(
        "lost       {}, falsely gone {}",
        report.lost,
        report.false_gone
    );
    outln!("beats      {}", report.beats);
    if report.datagrams > 0 {
        outln!(
            "datagrams  {} of them, {} not acknowledged in time",
            report.datagrams,
            report.datagrams_unanswered
        );
    }
    match report.beat_rtt_ms {
        Some(Percentiles {
            p50,
            p99,
            p999,
            max,
        }) => outln!("round trip p50 {p50:.3} ms, p99 {p99:.3}, p99.9 {p999:.3}, max {max:.3}"),
        None => outln!("round trip none was measured"),
    }
    outln!(
        "commands   {} received, {} executed, {} duplicates ignored",
        report.commands_received,
        report.commands_executed,
        report.duplicates_ignored
    );
    if report.connect_failed > 0 {
        outln!(
            "failed     {} tries to connect to {}",
            report.connect_failed,
            args.connect
        );
    }
    if let Some(Percentiles { p50, p99, max, .. }) = report.reconnect_delay_ms {
        outln!(
            "reconnects {} tries after pauses of p50 {p50:.0} ms, p99 {p99:.0}, max {max:.0}",
            report.reconnects
        );
    }
    if let (Some(after), Some(tries)) = (report.return_ms, report.tries_per_return) {
        outln!(
            "returns    {} after losses, {tries:.2} tries each, back after p50 {:.0} ms, p99 {:.0}, max {:.0}",
            report.returns,
            after.p50,
            after.p99,
            after.max
        );
    }
    outln!("elapsed    {elapsed_s:.1} s");
}

/// A line that is redrawn on a terminal, or a line now and then for a file.
struct Progress {
    started: Instant,
    devices: usize,
    terminal: bool,
    next: Duration,
}

impl Progress {
    fn new(started: Instant, devices: usize) -> Self {
        Self {
            started,
            devices,
            terminal: io::stderr().is_terminal(),
            next: Duration::ZERO,
        }
    }

    fn show(&mut self, report: &FleetReport) {
        let elapsed = self.started.elapsed();
        if elapsed < self.next {
            return;
        }
        let p99 = report
            .beat_rtt_ms
            .map_or("-".into(), |rtt| format!("{:.2} ms", rtt.p99));
        let line = format!(
            "{:4} s  {} of {} connected  {} beats  p99 {p99}  {} lost  {} commands",
            elapsed.as_secs(),
            report.connected,
            self.devices,
            report.beats,
            report.lost,
            report.commands_executed,
        );
        if self.terminal {
            self.next = elapsed + Duration::from_millis(200);
            eprint!("\r{line}\x1b[K");
            // A progress line that cannot be drawn is no failure of the run.
            drop(io::stderr().flush());
        } else {
            self.next = elapsed + Duration::from_secs(10);
            eprintln!("{line}");
        }
    }

    fn end(&self) {
        if self.terminal {
            eprintln!();
        }
    }
}
