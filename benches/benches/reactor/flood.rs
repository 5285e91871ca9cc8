//! A connection that floods, and what its quiet neighbour on the same shard notices.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use super::Result;
use super::client::MESSAGE;
use super::process::{self, Server};
use super::servers::CONTENDERS;
use super::tables::median;

/// Echoes of the quiet connection in one measurement, a millisecond apart.
const ECHOES: usize = 1_000;

/// Bytes the flood sends and reads at once: while it is in the kernel with them, its core does nothing else.
const PIECE: usize = 16 * 1024;

/// What one measurement takes at most, with fewer echoes: beside a flood some servers take 12 ms for one.
const SLICE: Duration = Duration::from_secs(3);

/// Sends without end, reading its echoes, until this process is killed.
pub(crate) fn drown(addr: SocketAddr) -> Result<()> {
    let mut flood = TcpStream::connect(addr)?;
    let mut echoes = flood.try_clone()?;
    std::thread::spawn(move || {
        let mut buffer = vec![0; PIECE];
        while echoes.read(&mut buffer).is_ok_and(|count| count > 0) {}
    });
    let piece = vec![b'f'; PIECE];
    loop {
        flood.write_all(&piece)?;
    }
}

/// The quiet connection's round trips, without and with the flood beside it.
pub(crate) fn table(rounds: usize) -> Result<()> {
    println!("### Echo of a quiet connection, alone and beside one that floods\n");
    println!(
        "| | alone, p50 | p99 | beside, p50 | p99 | p99 to alone | server waited for its core | client |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|");
    process::go_first();
    // The floor and the server on mio serve a flood to its end, and their neighbours starve.
    let fair: Vec<_> = CONTENDERS
        .iter()
        .filter(|contender| !["epoll", "mio"].contains(&contender.name))
        .collect();
    let mut cells: Vec<Vec<[f64; 6]>> = vec![Vec::new(); fair.len()];
    for round in 0..rounds {
        for turn in 0..fair.len() {
            let at = (turn + round) % fair.len();
            let server = Server::start_apart(fair[at].name)?;
            let mut quiet = TcpStream::connect(server.addr)?;
            quiet.set_nodelay(true)?;
            let alone = round_trips(&mut quiet)?;
            let flood = Flood::start(server.addr)?;
            let waits = || -> Result<_> {
                let both = [server.run_delay_ns()?, process::own_run_delay_ns()?];
                Ok((both, Instant::now()))
            };
            let (waited, began) = waits()?;
            let beside = round_trips(&mut quiet)?;
            let (waits, ended) = waits()?;
            drop(flood);
            let took_ns = (ended - began).as_nanos() as f64;
            let [server_part, client_part] =
                [0, 1].map(|of| (waits[of] - waited[of]) as f64 / took_ns);
            cells[at].push([
                alone[0],
                alone[1],
                beside[0],
                beside[1],
                server_part,
                client_part,
            ]);
        }
    }
    for (contender, rows) in fair.iter().zip(&cells) {
        let of = |which: &dyn Fn(&[f64; 6]) -> f64| median(rows.iter().map(which).collect());
        println!(
            "| {} | {:.0} µs | {:.0} µs | {:.0} µs | {:.0} µs | {:.2} | {:.1} % | {:.1} % |",
            contender.about,
            of(&|row| row[0]),
            of(&|row| row[1]),
            of(&|row| row[2]),
            of(&|row| row[3]),
            of(&|row| row[3] / row[1]),
            of(&|row| row[4] * 100.0),
            of(&|row| row[5] * 100.0),
        );
    }
    println!();
    Ok(())
}

/// Median and 99th percentile, in microseconds.
fn round_trips(quiet: &mut TcpStream) -> Result<[f64; 2]> {
    let mut times = Vec::with_capacity(ECHOES);
    let end = Instant::now() + SLICE;
    while times.len() < ECHOES && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
        let sent = Instant::now();
        quiet.write_all(&MESSAGE)?;
        quiet.read_exact(&mut [0; MESSAGE.len()])?;
        times.push(sent.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    let count = times.len();
    Ok([times[count / 2], times[count * 99 / 100]])
}

/// The process that floods; it ends when this is dropped.
struct Flood(Child);

impl Flood {
    fn start(addr: SocketAddr) -> Result<Self> {
        // What is measured is the neighbour's wait for the server, not for this process, which has to share the clients'
        // core: with a usual priority it leaves that at once to the neighbour's, which is real-time.
        let child = Command::new("chrt")
            .args(["--other", "0"])
            .arg(std::env::current_exe()?)
            .args(["drown", &addr.to_string()])
            .spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        // It has ended already when this fails.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
