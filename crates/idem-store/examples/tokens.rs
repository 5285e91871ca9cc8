//! Measures tokens on one core: `cargo run --release -p idem-store --features token --example tokens
//! -- [DIR]`. Real clock, durable floor, leased workers.

#![expect(clippy::print_stdout, reason = "this program exists to print")]

use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use idem_store::token::{
    FileWorkers, FingerprintHalf, Generator, GeneratorOptions, Token, TokenService,
};

const RUN: Duration = Duration::from_secs(2);
const STEP: u64 = 10_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(dir)?;
    let workers = FileWorkers::new(dir.path());
    for count in [1, 3, 6] {
        let options = GeneratorOptions::new().workers(count);
        let mut generator = Generator::open(&workers, options)?;
        let half = FingerprintHalf::of(b"one request");
        rate(&format!("ids, {count} workers"), |_| {
            black_box(generator.next_id()?);
            Ok(())
        })?;
        rate(
            &format!("tokens of one fingerprint as text, {count} workers"),
            |_| {
                black_box(Token::new(generator.next_id()?, half).text());
                Ok(())
            },
        )?;
        rate(
            &format!("tokens of new fingerprints as text, {count} workers"),
            |n| {
                let mut fingerprint = [7; 32];
                fingerprint[..8].copy_from_slice(&n.to_le_bytes());
                black_box(generator.next(&fingerprint)?.text());
                Ok(())
            },
        )?;
    }
    let generator = Generator::open(&workers, GeneratorOptions::new().workers(6))?;
    let service = TokenService::new(generator);
    rate("the same through TokenService, 6 workers", |n| {
        let mut fingerprint = [7; 32];
        fingerprint[..8].copy_from_slice(&n.to_le_bytes());
        black_box(service.next(&fingerprint)?.text());
        Ok(())
    })
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn rate(name: &str, mut one: impl FnMut(u64) -> Outcome) -> Outcome {
    let started = Instant::now();
    let mut done = 0;
    while started.elapsed() < RUN {
        for n in done..done + STEP {
            one(n)?;
        }
        done += STEP;
    }
    let per_s = done as f64 / started.elapsed().as_secs_f64();
    println!("{name:55} {:6.2} M/s", per_s / 1e6);
    Ok(())
}
