//! Connections a second: how many a server takes, how long each waits for its first echo, what it costs the server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::Result;
use super::client::MESSAGE;
use super::process::Server;
use super::servers::CONTENDERS;
use super::tables::median;

/// Clients on the other core: enough that it never waits for the server.
const CLIENTS: usize = 16;

/// How long a server is driven in one round.
const SLICE: Duration = Duration::from_millis(1_500);

/// Per second, p50 and p99 in microseconds, the share of the server's core in per cent, and its CPU time each in microseconds.
type Cells = [f64; 5];

/// Servers have a core of their own, and so have the clients, which connect, echo once and close without a pause.
pub(crate) fn table(rounds: usize) -> Result<()> {
    println!("### Connections a second: connect, echo of 64 bytes, close; {CLIENTS} clients\n");
    println!("| | a second | connect to echo, p50 | p99 | of the server's core | CPU time each |");
    println!("|---|---:|---:|---:|---:|---:|");
    let mut cells: Vec<Vec<Cells>> = vec![Vec::new(); CONTENDERS.len()];
    for round in 0..rounds {
        for turn in 0..CONTENDERS.len() {
            let at = (turn + round) % CONTENDERS.len();
            cells[at].push(measure(CONTENDERS[at].name)?);
        }
    }
    for (contender, rows) in CONTENDERS.iter().zip(&cells) {
        let of = |column: usize| median(rows.iter().map(|row| row[column]).collect());
        println!(
            "| {} | {:.0} | {:.0} µs | {:.0} µs | {:.0} % | {:.1} µs |",
            contender.about,
            of(0),
            of(1),
            of(2),
            of(3),
            of(4),
        );
    }
    println!();
    Ok(())
}

fn measure(name: &str) -> Result<Cells> {
    let server = Server::start_apart(name)?;
    drive(server.addr, SLICE / 10)?;
    let (cpu_before, begun) = (server.cpu_ns()?, Instant::now());
    let mut waits_us = drive(server.addr, SLICE)?;
    let took = begun.elapsed();
    let cpu_ns = (server.cpu_ns()? - cpu_before) as f64;
    waits_us.sort_by(f64::total_cmp);
    let count = waits_us.len();
    Ok([
        count as f64 / took.as_secs_f64(),
        waits_us[count / 2],
        waits_us[count * 99 / 100],
        cpu_ns / took.as_nanos() as f64 * 100.0,
        cpu_ns / count as f64 / 1e3,
    ])
}

/// Connects from each client in turn, for that long. Returns how long each connection waited for its echo, in microseconds.
fn drive(addr: SocketAddr, time: Duration) -> Result<Vec<f64>> {
    let end = Instant::now() + time;
    let client = || -> std::io::Result<Vec<f64>> {
        let mut waits_us = Vec::new();
        while Instant::now() < end {
            let begun = Instant::now();
            let mut connection = TcpStream::connect(addr)?;
            connection.write_all(&MESSAGE)?;
            connection.read_exact(&mut [0; MESSAGE.len()])?;
            waits_us.push(begun.elapsed().as_nanos() as f64 / 1e3);
        }
        Ok(waits_us)
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        let mut waits_us = Vec::new();
        for client in clients {
            waits_us.extend(client.join().map_err(|_| "a client panicked")??);
        }
        Ok(waits_us)
    })
}
