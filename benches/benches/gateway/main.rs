//! The gateway as its user meets it: the real command, real sockets, a real disk.
//!
//! `cargo xtask bench gateway [-- --quick]` builds the command, names it in `MAINSTAY_BIN`, and runs
//! this. Three parts: how soon a demonstration stands, what an idle connection costs, and how many
//! durable commands go through.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints"
)]

mod commands;
mod process;

use std::time::{Duration, Instant};

use process::{Gateway, swarm};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How long and how large the parts are.
struct Size {
    few: usize,
    many: usize,
    stay_s: u64,
    commands_s: u64,
    rounds: usize,
}

fn main() -> Result<()> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let size = if quick {
        Size {
            few: 500,
            many: 3_000,
            stay_s: 15,
            commands_s: 3,
            rounds: 1,
        }
    } else {
        Size {
            few: 1_000,
            many: 15_000,
            stay_s: 60,
            commands_s: 10,
            rounds: 3,
        }
    };
    start(2_000)?;
    idle(&size)?;
    commands::run(size.rounds, Duration::from_secs(size.commands_s))
}

/// From the start of the process until all simulated devices of a demonstration are online.
fn start(devices: usize) -> Result<()> {
    let started = Instant::now();
    let mut gateway = Gateway::start(&["--demo", &devices.to_string()], None)?;
    let online = gateway.event("online")?;
    println!(
        "start: {} ({:.2} s after exec)",
        online["text"],
        started.elapsed().as_secs_f64()
    );
    let stopping = Instant::now();
    gateway.stop()?;
    println!(
        "stop: drained and gone {:.2} s after SIGINT\n",
        stopping.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Memory per idle connection as a slope between two fleets, and what happened to the large one.
fn idle(size: &Size) -> Result<()> {
    let gateway = Gateway::start(&["--grace", "5s"], Some(tempfile::tempdir()?))?;
    println!(
        "idle: {} bytes resident with no device",
        gateway.resident_bytes()?
    );
    let mut points = Vec::new();
    for devices in [size.few, size.many] {
        let run = swarm(
            gateway.listen(),
            devices,
            Duration::from_secs(size.stay_s),
            "10s",
        )?;
        let resident = gateway.resident_when(devices, Duration::from_secs(size.stay_s - 3))?;
        let report = run.end()?;
        println!("idle: {resident} bytes resident with {devices} devices; swarm said {report}");
        points.push((devices, resident));
    }
    let [(few, low), (many, high)] = points[..] else {
        unreachable!("two sizes")
    };
    let slope = (high.saturating_sub(low)) as f64 / (many - few) as f64;
    println!("idle: {slope:.0} bytes of resident memory per connection\n");
    gateway.stop()
}
