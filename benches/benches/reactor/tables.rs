//! The tables of CPU time, memory and system calls.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Result;
use super::client::{Crowd, lives};
use super::foreign;
use super::process::Server;
use super::servers::{CONTENDERS, Contender};

/// How long a server is driven in one round.
const SLICE: Duration = Duration::from_millis(400);

/// CPU time per round trip.
pub(crate) fn echo(rounds: usize) -> Result<()> {
    for connections in [64, 5_000] {
        println!("### CPU time per echo of 64 bytes, {connections} connections\n");
        ns_table(rounds, |contender| {
            let server = Server::start(contender.name)?;
            let crowd = Crowd::connect(server.addr, connections)?;
            crowd.echo_for(SLICE / 8)?;
            let before = server.settled_cpu_ns()?;
            let count = crowd.echo_for(SLICE)?;
            let spent = server.settled_cpu_ns()? - before;
            Ok(spent as f64 / count as f64)
        })?;
    }
    Ok(())
}

/// CPU time per connection that is accepted, echoes once and is closed.
pub(crate) fn life(rounds: usize) -> Result<()> {
    println!("### CPU time per connection: accept, echo of 64 bytes, close; 64 at once\n");
    ns_table(rounds, |contender| {
        let server = Server::start(contender.name)?;
        lives(server.addr, 4, 64)?;
        let before = server.settled_cpu_ns()?;
        let count = lives(server.addr, 30, 64)?;
        let spent = server.settled_cpu_ns()? - before;
        Ok(spent as f64 / count as f64)
    })
}

/// Measures each contender once a round, each round beginning with another, and prints medians.
fn ns_table(rounds: usize, mut measure: impl FnMut(&Contender) -> Result<f64>) -> Result<()> {
    let mut cells = vec![Vec::new(); rounds];
    for (round, row) in cells.iter_mut().enumerate() {
        *row = vec![0.0; CONTENDERS.len()];
        for turn in 0..CONTENDERS.len() {
            let at = (turn + round) % CONTENDERS.len();
            row[at] = measure(&CONTENDERS[at])?;
        }
    }
    println!("| | median | best | to the first |");
    println!("|---|---:|---:|---:|");
    for (at, contender) in CONTENDERS.iter().enumerate() {
        let ns: Vec<f64> = cells.iter().map(|row| row[at]).collect();
        let best = ns.iter().copied().fold(f64::INFINITY, f64::min);
        let ratio = median(cells.iter().map(|row| row[at] / row[0]).collect());
        println!(
            "| {} | {:.2} µs | {:.2} µs | {ratio:.2} |",
            contender.about,
            median(ns) / 1e3,
            best / 1e3,
        );
    }
    println!();
    Ok(())
}

/// Resident memory per idle connection, and what stays when all are gone.
pub(crate) fn memory(_rounds: usize) -> Result<()> {
    const FEW: usize = 1_000;
    const MANY: usize = 15_000;
    println!("### Resident memory per idle connection, {FEW} to {MANY}\n");
    println!("| | at the start | a connection | after all closed, to the start |");
    println!("|---|---:|---:|---:|");
    let ours = CONTENDERS.iter().map(|contender| {
        let server = Server::start(contender.name);
        (contender.about, server)
    });
    let others = foreign::FOREIGN.iter().filter_map(|foreign| {
        let server = foreign.start()?;
        Some((foreign.about, server))
    });
    for (about, server) in ours.chain(others) {
        let server = server?;
        let one = Crowd::connect(server.addr, 1)?;
        let open = server.descriptors()? - 1;
        drop(one);
        server.wait_for_descriptors(open)?;
        let start = server.resident_bytes()?;
        let mut crowd = Crowd::connect(server.addr, FEW)?;
        let few = server.resident_bytes()?;
        crowd.grow(server.addr, MANY - FEW)?;
        let many = server.resident_bytes()?;
        drop(crowd);
        server.wait_for_descriptors(open)?;
        let end = server.resident_bytes()?;
        println!(
            "| {} | {} KiB | {:.0} B | {:+.1} % |",
            about,
            start / 1024,
            (many as f64 - few as f64) / (MANY - FEW) as f64,
            (end as f64 / start as f64 - 1.0) * 100.0,
        );
    }
    println!();
    Ok(())
}

/// System calls per round trip: of a long run less those of a short one, so only the steady state counts.
pub(crate) fn calls(_rounds: usize) -> Result<()> {
    const SHORT: u64 = 1_000;
    const LONG: u64 = 21_000;
    if std::process::Command::new("strace")
        .arg("-V")
        .output()
        .is_err()
    {
        println!("(strace is not installed: no table of system calls)\n");
        return Ok(());
    }
    println!("### System calls per echo, 64 connections, `strace -c -f`\n");
    println!("| | waits | epoll_ctl | other | which |");
    println!("|---|---:|---:|---:|---|");
    for contender in &CONTENDERS {
        let (short, long) = (
            counted(contender.name, SHORT)?,
            counted(contender.name, LONG)?,
        );
        let mut each: BTreeMap<&str, f64> = BTreeMap::new();
        for (call, count) in &long.calls {
            let more = count.saturating_sub(short.calls.get(call).copied().unwrap_or(0));
            let rate = more as f64 / (long.echoes - short.echoes) as f64;
            if rate >= 0.001 {
                each.insert(call, rate);
            }
        }
        let waits: f64 = each
            .iter()
            .filter(|(call, _)| is_wait(call))
            .map(|(_, rate)| rate)
            .sum();
        let changes = each.remove("epoll_ctl").unwrap_or(0.0);
        each.retain(|call, _| !is_wait(call));
        let which: Vec<String> = each
            .iter()
            .map(|(call, rate)| format!("{call} {rate:.2}"))
            .collect();
        println!(
            "| {} | {waits:.2} | {changes:.2} | {:.2} | {} |",
            contender.about,
            each.values().sum::<f64>(),
            which.join(", "),
        );
    }
    println!();
    Ok(())
}

fn is_wait(call: &str) -> bool {
    call.starts_with("epoll_wait") || call.starts_with("epoll_pwait")
}

struct Counted {
    echoes: u64,
    calls: BTreeMap<String, u64>,
}

/// Runs a server under strace for about that many echoes.
fn counted(name: &str, echoes: u64) -> Result<Counted> {
    let report = tempfile::NamedTempFile::new()?;
    let path = report.path().to_string_lossy().into_owned();
    let server = Server::start_under(
        &["strace", "-f", "-c", "-U", "calls,name", "-o", &path],
        name,
    )?;
    let crowd = Crowd::connect(server.addr, 64)?;
    let echoes = crowd.echo_times(echoes)?;
    server.end()?;
    let mut calls = BTreeMap::new();
    for line in std::fs::read_to_string(&path)?.lines() {
        let mut words = line.split_whitespace();
        if let (Some(count), Some(call), None) = (words.next(), words.next(), words.next())
            && let Ok(count) = count.parse()
            && call != "total"
        {
            calls.insert(call.to_owned(), count);
        }
    }
    Ok(Counted { echoes, calls })
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
