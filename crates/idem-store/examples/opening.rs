//! How long a store takes to open, and how much memory a key takes: with the index snapshot and the
//! end of the log, and with the whole log.
//!
//! ```text
//! cargo run --release --example opening -- /path/on/the/disk/to/measure 10000000
//! ```

#![expect(
    clippy::print_stdout,
    reason = "an example that prints what it measured"
)]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use idem_store::{Begin, Durability, Fingerprint, Lookup, Options, Store};

const NOW: u64 = 1_700_000_000_000;
const DAY: u64 = 86_400_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: opening DIR KEYS (DIR is made, filled when it is empty, and left)";
    let dir = args.next().ok_or(usage)?;
    let keys: u64 = args.next().ok_or(usage)?.parse()?;
    let dir = Path::new(&dir);
    if !dir.exists() {
        let started = Instant::now();
        fill(dir, keys)?;
        let seconds = started.elapsed().as_secs_f64();
        println!("filled with {keys} keys in {seconds:.1} s");
    }
    let before = resident_bytes()?;
    let started = Instant::now();
    let store = Store::open(dir, Options::new())?;
    let seconds = started.elapsed().as_secs_f64();
    let stats = store.stats();
    let resident = resident_bytes()?.saturating_sub(before);
    println!(
        "opened {} keys in {seconds:.2} s, {}; log {} MB; {:.1} B of resident memory a key",
        stats.keys_stored,
        if stats.opened_from_index {
            "from the index and the end of the log"
        } else {
            "from the whole log"
        },
        stats.segment_bytes / 1_000_000,
        resident as f64 / stats.keys_stored as f64,
    );
    for number in (0..keys).step_by(1 + keys as usize / 1_000) {
        let got = store.get(&key(number), NOW).wait()?;
        assert!(matches!(got, Lookup::Stored(_)), "key {number}: {got:?}");
    }
    store.close()?;
    Ok(())
}

fn key(number: u64) -> [u8; 16] {
    let mut key = *b"order-..........";
    key[6..14].copy_from_slice(&number.to_le_bytes());
    key
}

/// Completes keys with outcomes of 64 bytes, as fast as the log takes them.
fn fill(dir: &Path, keys: u64) -> Result<(), Box<dyn Error>> {
    let store = Store::open(dir, Options::new().durability(Durability::None))?;
    let mut number = 0;
    while number < keys {
        let begun = store.begin(&Begin::new(&key(number), Fingerprint([7; 32]), 60_000, NOW));
        match begun.wait() {
            Ok(begun) => {
                let permit = begun.into_fresh().ok_or("the directory was not empty")?;
                drop(store.complete(permit, &[7; 64], DAY, NOW));
                number += 1;
            }
            // The disk is slower than we are.
            Err(error) if error.is_busy() => std::thread::yield_now(),
            Err(error) => return Err(error.into()),
        }
    }
    store.flush().wait()?;
    store.close()?;
    Ok(())
}

fn resident_bytes() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kilobytes.ok_or("no VmRSS")?.parse::<u64>()? * 1_024)
}
