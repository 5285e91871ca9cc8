//! Idle timeouts of many connections: each arrival pushes its connection's deadline back, in place.
//!
//! Run with `cargo run -p timerwheel --example idle_timeouts`.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::{Duration, Instant};

use timerwheel::{Key, Wheel};

const IDLE_MS: u64 = 50;

fn main() {
    let start = Instant::now();
    let now_ms = || start.elapsed().as_millis() as u64;

    let mut wheel = Wheel::new(now_ms());
    let keys: Vec<Key> = (0..5)
        .map(|connection| wheel.insert(now_ms() + IDLE_MS, connection))
        .collect();

    while !wheel.is_empty() {
        let now = now_ms();
        while let Some((_key, connection)) = wheel.pop_due(now) {
            println!("{now:>4} ms: connection {connection} was idle for {IDLE_MS} ms");
        }
        // Connection 0 goes on talking for a while.
        if now < 150 {
            wheel.reschedule(keys[0], now + IDLE_MS);
        }
        let wait_ms = wheel
            .next_deadline()
            .map_or(0, |at| at.saturating_sub(now_ms()));
        std::thread::sleep(Duration::from_millis(wait_ms.min(20)));
    }
}
