//! Many simulated devices in one process, for load and for demonstrations.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use hdrhistogram::Histogram;

use super::crew::{Crew, CrewConfig};
use super::ledger::{Answer, Ledger};
use super::member::Member;
use super::reply::{Command, Reply};
use super::{RECONNECT_CAP_MS, forms, random_id, reconnect};
use crate::proto::{BootId, DeviceId};

/// Most commands that one simulated device remembers.
const COMMANDS_MAX: usize = 1_024;

/// What a fleet is like.
#[derive(Debug, Clone)]
pub struct FleetConfig {
    /// The gateway.
    pub gateway: SocketAddr,
    /// How many devices.
    pub devices: usize,
    /// Devices are named `{prefix}-{number}`, numbers from 0 with five digits or more.
    pub prefix: String,
    /// The beat interval that they ask for.
    pub interval_ms: u32,
    /// Most connections that are started in a second.
    pub ramp_per_s: u32,
    /// Reactor threads.
    pub shards: usize,
    /// The longest pause between two tries to connect.
    pub reconnect_cap_ms: u32,
    /// Beat in one byte, mostly, when the gateway can read that.
    pub delta_beats: bool,
    /// Beat in UDP datagrams when the gateway takes them.
    pub datagrams: bool,
    /// A breaker for the gateway that the devices of a shard share, as those of one program would: a few of them find out
    /// that nobody answers, and the others wait. False by default: real devices do not know what others found out.
    pub breaker: bool,
}

impl FleetConfig {
    /// `devices` devices named `dev-00000` and so on, with 30 seconds between beats.
    #[must_use]
    pub fn new(gateway: SocketAddr, devices: usize) -> Self {
        Self {
            gateway,
            devices,
            prefix: "dev".into(),
            interval_ms: 30_000,
            ramp_per_s: 5_000,
            shards: 1,
            reconnect_cap_ms: RECONNECT_CAP_MS,
            delta_beats: true,
            datagrams: false,
            breaker: false,
        }
    }
}

/// Simulated devices that connect, beat and answer commands.
pub struct Fleet {
    crew: Crew,
}

/// What a fleet went through so far.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct FleetReport {
    /// Devices that are welcomed and connected now.
    pub connected: usize,
    /// The most that ever were.
    pub connected_max: usize,
    /// Sessions that ended against the device's will.
    pub lost: u64,
    /// Times that a beating device was told that it is gone.
    pub false_gone: u64,
    /// Times that the gateway refused a device.
    pub refused: u64,
    /// Connections that could not be opened.
    pub connect_failed: u64,
    /// Tries to come back that were planned: after a loss, a refusal or a try that failed.
    pub reconnects: u64,
    /// The pauses before them in milliseconds, by [`circuit::Backoff`] or by what a gateway asked for in
    /// its goodbye, once there was one.
    pub reconnect_delay_ms: Option<Percentiles>,
    /// Sessions that were lost and followed by another one of the same device.
    pub returns: u64,
    /// How many tries that took on average, once there was one.
    pub tries_per_return: Option<f64>,
    /// The milliseconds from the loss to the WELCOME after it; the largest is when the last device was back.
    pub return_ms: Option<Percentiles>,
    /// Beats sent.
    pub beats: u64,
    /// Those among them that went as datagrams.
    pub datagrams: u64,
    /// Those of these that were not acknowledged in time, and were repeated on the connection.
    pub datagrams_unanswered: u64,
    /// Beat round trips in milliseconds, once there was one.
    pub beat_rtt_ms: Option<Percentiles>,
    /// Commands that arrived, repeated ones included.
    pub commands_received: u64,
    /// Commands that were executed.
    pub commands_executed: u64,
    /// Commands that arrived again and were not executed again.
    pub duplicates_ignored: u64,
}

/// Some points of a distribution.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Percentiles {
    /// Half are at most this.
    pub p50: f64,
    /// 99 in 100 are at most this.
    pub p99: f64,
    /// 999 in 1,000 are at most this.
    pub p999: f64,
    /// The largest.
    pub max: f64,
}

impl Percentiles {
    /// Of values of which `scale` make one; `None` of none.
    fn of(histogram: &Histogram<u64>, scale: f64) -> Option<Self> {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / scale;
        (!histogram.is_empty()).then(|| Self {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / scale,
        })
    }
}

impl Fleet {
    /// Starts the fleet. Each device answers every command with its own name and the payload.
    ///
    /// # Errors
    ///
    /// The prefix makes no device ids, or a thread cannot be started.
    pub fn start(config: FleetConfig) -> io::Result<Self> {
        Self::start_with(config, |command: Command, reply: Reply| {
            reply.answer(echo(&command))
        })
    }

    /// Starts the fleet with `execute` for every command. It runs on the reactor's threads, so it
    /// must not block; the [`Reply`] may be answered later from any thread.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start).
    pub fn start_with(
        config: FleetConfig,
        execute: impl Fn(Command, Reply) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let members = (0..config.devices)
            .map(|number| {
                let id = format!("{}-{number:05}", config.prefix);
                let id = DeviceId::parse(id.as_bytes())
                    .map_err(|violation| io::Error::new(io::ErrorKind::InvalidInput, violation))?;
                let ledger = Ledger::in_memory(BootId(random_id()), COMMANDS_MAX);
                let forms = forms(config.delta_beats, config.datagrams);
                Ok(Member::new(id, config.interval_ms, ledger, forms))
            })
            .collect::<io::Result<Vec<_>>>()?;
        let mut reconnect = reconnect(config.reconnect_cap_ms);
        if !config.breaker {
            reconnect.breaker = None;
        }
        let crew_config = CrewConfig {
            gateways: vec![config.gateway],
            shards: config.shards,
            ramp_per_s: config.ramp_per_s,
            reconnect,
            ends_with_members: false,
            datagrams: config.datagrams,
            simulates_load: true,
        };
        Ok(Self {
            crew: Crew::start(crew_config, members, Arc::new(execute))?,
        })
    }

    /// What happened so far.
    #[must_use]
    pub fn report(&self) -> FleetReport {
        let counters = self.crew.counters();
        let delays = counters.reconnect_delays.lock();
        let (tries, times) = (counters.return_tries.lock(), counters.return_times.lock());
        FleetReport {
            connected: counters.connected(),
            connected_max: counters.connected_max.load(Relaxed),
            lost: counters.lost.load(Relaxed),
            false_gone: counters.false_gone.load(Relaxed),
            refused: counters.refused.load(Relaxed),
            connect_failed: counters.connect_failed.load(Relaxed),
            reconnects: delays.len(),
            reconnect_delay_ms: Percentiles::of(&delays, 1.0),
            returns: times.len(),
            tries_per_return: (!tries.is_empty()).then(|| tries.mean()),
            return_ms: Percentiles::of(&times, 1.0),
            beats: counters.beats.load(Relaxed),
            datagrams: counters.datagrams.load(Relaxed),
            datagrams_unanswered: counters.datagrams_unanswered.load(Relaxed),
            beat_rtt_ms: Percentiles::of(&counters.round_trips.lock(), 1_000.0),
            commands_received: counters.commands_received.load(Relaxed),
            commands_executed: counters.commands_executed.load(Relaxed),
            duplicates_ignored: counters.duplicates_ignored.load(Relaxed),
        }
    }

    /// Says goodbye for every device, disconnects, and returns the last report.
    ///
    /// # Errors
    ///
    /// The reactor failed.
    pub fn stop(self) -> io::Result<FleetReport> {
        let report = self.report();
        self.crew.stop();
        self.crew.end()?;
        Ok(report)
    }
}

/// `{"device":...,"payload":...}`; device ids have no control characters, so only quotes and
/// backslashes need an escape.
fn echo(command: &Command) -> Answer {
    let device = command.device.replace('\\', "\\\\").replace('"', "\\\"");
    let mut body = format!("{{\"device\":\"{device}\",\"payload\":").into_bytes();
    body.extend_from_slice(&command.payload);
    body.push(b'}');
    // A payload of the largest size leaves no room to wrap it.
    if body.len() > crate::proto::PAYLOAD_BYTES_MAX {
        return Answer::json(command.payload.clone());
    }
    Answer::json(body)
}
