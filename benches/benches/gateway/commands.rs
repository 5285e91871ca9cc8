//! Durable commands: callers with a keep-alive connection each, a new key for each command.
//!
//! Beside it, in the same rounds, the floor without group commit: one `fdatasync` after another on
//! the same disk. A command takes two durable writes, its claim and its outcome.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::Result;
use super::process::{Gateway, swarm, wait_online};

const DEVICES: usize = 1_000;

pub(crate) fn run(rounds: usize, time: Duration) -> Result<()> {
    let gateway = Gateway::start(&[], Some(tempfile::tempdir()?))?;
    let stay = (time + Duration::from_secs(5)) * (rounds as u32) * 3;
    let fleet = swarm(gateway.listen(), DEVICES, stay, "30s")?;
    wait_online(&gateway, DEVICES)?;
    println!(
        "| callers | commands/s | p50 ms | p99 ms | p99.9 ms | records a batch | fdatasync/s alone |"
    );
    println!("|---|---|---|---|---|---|---|");
    for callers in [1, 64, 256] {
        let mut medians = Vec::new();
        for round in 0..rounds {
            let floor = syncs_per_s(Duration::from_secs(1))?;
            medians.push((measure(&gateway, callers, round, time)?, floor));
        }
        medians.sort_by(|(a, _), (b, _)| a.per_s.total_cmp(&b.per_s));
        let (median, floor) = &medians[medians.len() / 2];
        let ms = |quantile| median.latency_us.value_at_quantile(quantile) as f64 / 1_000.0;
        println!(
            "| {callers} | {:.0} | {:.2} | {:.2} | {:.2} | {:.1} | {floor:.0} |",
            median.per_s,
            ms(0.5),
            ms(0.99),
            ms(0.999),
            median.batch
        );
    }
    drop(fleet);
    gateway.stop()
}

struct Measured {
    per_s: f64,
    latency_us: Histogram<u64>,
    /// Records in a durable batch, on average.
    batch: f64,
}

fn measure(gateway: &Gateway, callers: usize, round: usize, time: Duration) -> Result<Measured> {
    let http = gateway.http()?;
    let store = || -> Result<(f64, f64)> {
        let records = gateway.metric("mainstay_store_batch_records_sum")?;
        Ok((
            records,
            gateway.metric("mainstay_store_batch_records_count")?,
        ))
    };
    let (records, batches) = store()?;
    let started = Instant::now();
    let threads: Vec<_> = (0..callers)
        .map(|caller| {
            let keys = format!("{callers}-{round}-{caller}");
            std::thread::spawn(move || call(http, caller, &keys, time).map_err(|e| e.to_string()))
        })
        .collect();
    let mut latency_us = Histogram::new(3)?;
    for thread in threads {
        let latencies = thread.join().map_err(|_| "a caller panicked")??;
        latency_us.add(latencies)?;
    }
    let elapsed = started.elapsed().as_secs_f64();
    let (records_after, batches_after) = store()?;
    Ok(Measured {
        per_s: latency_us.len() as f64 / elapsed,
        latency_us,
        batch: (records_after - records) / (batches_after - batches).max(1.0),
    })
}

/// One caller: a command, its answer, the next command.
fn call(http: SocketAddr, caller: usize, keys: &str, time: Duration) -> Result<Histogram<u64>> {
    let mut latency_us = Histogram::new(3)?;
    let stream = TcpStream::connect(http)?;
    stream.set_nodelay(true)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    let started = Instant::now();
    let mut number = 0;
    while started.elapsed() < time {
        let device = (caller * 15 + number) % DEVICES;
        let body = format!("{{\"set\":{number},\"unit\":\"C\"}}");
        let request = format!(
            "POST /v1/devices/dev-{device:05}/commands HTTP/1.1\r\nHost: {http}\r\n\
             Idempotency-Key: {keys}-{number}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let sent = Instant::now();
        stream.write_all(request.as_bytes())?;
        read_answer(&mut answers)?;
        latency_us.record(u64::try_from(sent.elapsed().as_micros())?)?;
        number += 1;
    }
    Ok(latency_us)
}

fn read_answer(answers: &mut impl BufRead) -> Result<()> {
    let mut line = String::new();
    answers.read_line(&mut line)?;
    if !line.starts_with("HTTP/1.1 200") {
        return Err(format!("the gateway answered {line:?}").into());
    }
    let mut length = 0;
    while line != "\r\n" {
        line.clear();
        answers.read_line(&mut line)?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
    }
    answers.read_exact(&mut vec![0; length])?;
    Ok(())
}

/// How many appends of 128 bytes, each made durable before the next, the disk takes.
fn syncs_per_s(time: Duration) -> Result<f64> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("floor");
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let started = Instant::now();
    let mut syncs = 0;
    while started.elapsed() < time {
        file.write_all(&[0; 128])?;
        file.sync_data()?;
        syncs += 1;
    }
    Ok(f64::from(syncs) / started.elapsed().as_secs_f64())
}
