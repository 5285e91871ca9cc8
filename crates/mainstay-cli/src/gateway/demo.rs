//! The demonstration: simulated devices, and somebody who sends them commands.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ::gateway::device::{Fleet, FleetConfig};
use ::gateway::server::Gateway;

use super::say;

const BEAT_MS: u32 = 5_000;
const COMMAND_PERIOD: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Demo {
    fleet: Fleet,
    stopping: Arc<AtomicBool>,
    commands: JoinHandle<()>,
}

impl Demo {
    /// Starts `devices` devices and returns when they are online.
    pub(crate) async fn start(gateway: &Gateway, devices: usize, json: bool) -> io::Result<Self> {
        let started = Instant::now();
        let config = FleetConfig {
            interval_ms: BEAT_MS,
            datagrams: gateway.udp_addr().is_some(),
            ..FleetConfig::new(gateway.device_addr(), devices)
        };
        let fleet = Fleet::start(config)?;
        while gateway.devices_online() < devices && started.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let text = format!(
            "{} of {devices} simulated devices online after {:.2} s",
            gateway.devices_online(),
            started.elapsed().as_secs_f64()
        );
        say(json, "online", &text);
        let stopping = Arc::new(AtomicBool::new(false));
        let http = gateway.http_addr();
        let commands = std::thread::Builder::new()
            .name("mainstay-demo".into())
            .spawn({
                let stopping = Arc::clone(&stopping);
                move || send_commands(http, devices, &stopping)
            })?;
        Ok(Self {
            fleet,
            stopping,
            commands,
        })
    }

    pub(crate) fn stop_commands(&self) {
        self.stopping.store(true, Relaxed);
    }

    pub(crate) async fn stop(self) -> io::Result<()> {
        let ended = tokio::task::spawn_blocking(move || {
            let ended = self.fleet.stop();
            let joined = self
                .commands
                .join()
                .map_err(|_| io::Error::other("the demo panicked"));
            ended.and(joined)
        });
        ended.await.map_err(io::Error::other)?
    }
}

/// Sends a command to one device after the other, each with a key of its own.
fn send_commands(http: SocketAddr, devices: usize, stopping: &AtomicBool) {
    let mut number = 0_usize;
    while !stopping.load(Relaxed) && devices > 0 {
        // A stride that is prime to most fleet sizes visits them in no obvious order.
        let device = number.wrapping_mul(7_919) % devices;
        if let Err(error) = send_command(http, device, number) {
            tracing::debug!(%error, "a demonstration command failed");
        }
        number += 1;
        std::thread::sleep(COMMAND_PERIOD);
    }
}

fn send_command(http: SocketAddr, device: usize, number: usize) -> io::Result<()> {
    let body = format!("{{\"blink\":{number}}}");
    let mut stream = TcpStream::connect(http)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(
        stream,
        "POST /v1/devices/dev-{device:05}/commands HTTP/1.1\r\nHost: {http}\r\n\
         Idempotency-Key: demo-{number}\r\nMainstay-Timeout-Ms: 2000\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    stream.read_to_end(&mut Vec::new())?;
    Ok(())
}
