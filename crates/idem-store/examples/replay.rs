//! How many outcomes one core replays a second: from the cache, and from the log.
//!
//! ```text
//! cargo run --release --example replay -- /path/on/the/disk/to/measure
//! ```

#![expect(
    clippy::print_stdout,
    reason = "an example that prints what it measured"
)]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use idem_store::{Begin, Begun, Durability, Fingerprint, Options, Store};

const NOW: u64 = 1_700_000_000_000;
const DAY: u64 = 86_400_000;
const KEYS: u64 = 10_000;
const ROUNDS: u64 = 200;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args().nth(1).ok_or("usage: replay DIR")?;
    let dir = Path::new(&dir);
    for (name, bytes_max) in [("cached", 32 << 20), ("from the log", 0)] {
        let options = Options::new().durability(Durability::None);
        let store = Store::open(dir, options.cache_bytes_max(bytes_max))?;
        for number in 0..KEYS {
            if let Begun::Fresh(permit) = store.begin(&request(&key(number))).wait()? {
                drop(store.complete(permit, &[7; 64], DAY, NOW));
            }
        }
        store.flush().wait()?;
        // Twice: the first time fills the cache.
        for rounds in [1, ROUNDS] {
            let started = Instant::now();
            for _ in 0..rounds {
                for number in 0..KEYS {
                    let begun = store.begin(&request(&key(number))).wait()?;
                    assert!(matches!(begun, Begun::Replay(stored) if stored.outcome() == [7; 64]));
                }
            }
            let rate = (rounds * KEYS) as f64 / started.elapsed().as_secs_f64();
            if rounds == ROUNDS {
                println!("{name}: {:.2} M replays a second", rate / 1e6);
            }
        }
        let stats = store.stats();
        println!(
            "  {} hits, {} misses, {} bytes",
            stats.cache_hits, stats.cache_misses, stats.cache_bytes
        );
        store.close()?;
    }
    Ok(())
}

fn key(number: u64) -> [u8; 16] {
    let mut key = *b"order-..........";
    key[6..14].copy_from_slice(&number.to_le_bytes());
    key
}

fn request(key: &[u8]) -> Begin<'_> {
    Begin::new(key, Fingerprint([7; 32]), 60_000, NOW)
}
