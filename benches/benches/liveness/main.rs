//! Which layer notices that a peer is gone, and how fast: TCP's keepalive and user timeout, a deadline for beats and
//! the phi detector, when the link is cut, the peer killed, stopped or its connections reset.
//!
//! `cargo xtask bench liveness` prints the table of docs/BENCHMARKS.md in a little more than a minute. It needs root and
//! `ip`, `nsenter` and `unshare`: server and peers have a network namespace each, which end with their processes. Every
//! setting is a tenth of the gateway's default, and all cells of the table run at the same time.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

mod layers;
mod network;
mod peer;
mod server;

use std::process::{Child, Command};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use layers::Layer;
use network::Network;
use server::{Noticed, Server};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What happens to the peers; its number is the first byte that a peer sends.
#[derive(Clone, Copy)]
enum Fault {
    Cut,
    Killed,
    Stopped,
    Reset,
}

const FAULTS: [(Fault, &str); 4] = [
    (Fault::Cut, "link down"),
    (Fault::Killed, "`kill -9`"),
    (Fault::Stopped, "SIGSTOP"),
    (Fault::Reset, "RST"),
];

/// Time for the detectors to learn a rhythm: 12 beats.
const LEARNING: Duration = Duration::from_secs(42);
const WATCH: Duration = Duration::from_secs(24);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => match network::missing() {
            Some(why) => println!("skipped: {why}"),
            None => network::alone(&std::env::current_exe()?)?,
        },
        ["measure"] => measure()?,
        ["hold"] => network::hold()?,
        ["peer", fault, server, ref doors @ ..] => peer::run(fault.parse()?, server, doors)?,
        _ => return Err("this bench takes no arguments".into()),
    }
    Ok(())
}

/// In the server's namespace.
fn measure() -> Result<()> {
    let network = Network::build()?;
    let layers = layers::all();
    let (report, noticed) = mpsc::channel();
    let servers = (0..layers.len())
        .map(|row| Server::start(row, &layers[row], report.clone()))
        .collect::<Result<Vec<_>>>()?;
    let doors: Vec<String> = layers
        .iter()
        .zip(&servers)
        .map(|(layer, server)| peer::door(server.port, layer.hears_beats()))
        .collect();
    let mut peers = FAULTS
        .iter()
        .map(|(fault, _)| network.start_peer(*fault, &doors))
        .collect::<Result<Vec<_>>>()?;
    std::thread::sleep(LEARNING);
    if let Ok(early) = noticed.try_recv() {
        let layer = layers[early.row].name;
        return Err(format!("{layer}: {} before anything had happened", early.how).into());
    }
    let mut begun = Vec::new();
    for ((fault, _), peer) in FAULTS.iter().zip(&mut peers) {
        begun.push(Instant::now());
        inflict(*fault, peer, &network)?;
    }
    servers.iter().for_each(Server::send_bytes);
    std::thread::sleep(WATCH);
    print(&layers, &begun, &noticed);
    for peer in &mut peers {
        peer.kill()?;
        peer.wait()?;
    }
    servers.into_iter().try_for_each(Server::end)
}

fn inflict(fault: Fault, peer: &mut Child, network: &Network) -> Result<()> {
    match fault {
        Fault::Cut => network.cut()?,
        Fault::Killed => peer.kill()?,
        Fault::Stopped => {
            let pid = rustix::process::Pid::from_child(peer);
            rustix::process::kill_process(pid, rustix::process::Signal::STOP)?;
        }
        // The end of its stdin is its sign.
        Fault::Reset => drop(peer.stdin.take()),
    }
    Ok(())
}

fn print(layers: &[Layer], begun: &[Instant], noticed: &Receiver<Noticed>) {
    let noticed: Vec<Noticed> = noticed.try_iter().collect();
    let names: Vec<&str> = FAULTS.iter().map(|(_, name)| *name).collect();
    println!("| | {} |\n|---|---|---|---|---|", names.join(" | "));
    for (row, layer) in layers.iter().enumerate() {
        let cells: Vec<String> = FAULTS
            .iter()
            .zip(begun)
            .map(|((fault, _), begun)| {
                let here = noticed
                    .iter()
                    .filter(|it| it.row == row && it.fault == *fault as u8);
                cell(here, *begun)
            })
            .collect();
        println!("| {} | {} |", layer.name, cells.join(" | "));
    }
}

/// The earliest and the latest of the connections, and what they were closed for.
fn cell<'a>(noticed: impl Iterator<Item = &'a Noticed>, begun: Instant) -> String {
    let mut times = Vec::new();
    let mut hows = Vec::new();
    for it in noticed {
        times.push(it.at.saturating_duration_since(begun).as_secs_f64());
        hows.push(it.how.as_str());
    }
    if times.is_empty() {
        return "-".to_owned();
    }
    times.sort_by(f64::total_cmp);
    hows.sort_unstable();
    hows.dedup();
    let (first, last) = (times[0], times[times.len() - 1]);
    let time = if last < 0.1 {
        format!("{:.0} ms", last * 1e3)
    } else {
        format!("{first:.1} to {last:.1} s")
    };
    let some = match times.len() {
        peer::CONNECTIONS => String::new(),
        count => format!(" ({count} of {})", peer::CONNECTIONS),
    };
    format!("{time}{some}: {}", hows.join(", "))
}

/// Runs it, and makes a failure an error.
fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    if status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {status}").into())
}
