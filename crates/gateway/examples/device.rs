//! A device in 30 lines: a valve that is set by commands, each one once, also across restarts.
//!
//! `cargo run -p mainstay-gateway --features device --example device -- valve-1`, beside a
//! `mainstay gateway`.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::io;

use gateway::device::{Answer, Command, Device};

fn main() -> io::Result<()> {
    let id = std::env::args().nth(1).unwrap_or_else(|| "valve-1".into());
    let mut changes = 0;
    let device = Device::builder(([127, 0, 0, 1], 7400).into(), &id)
        .journal(format!("{id}.journal"))
        .interval_ms(10_000)
        .start(move |command: &Command| {
            changes += 1;
            println!(
                "change {changes}: {}",
                String::from_utf8_lossy(&command.payload)
            );
            Answer::json(format!("{{\"changes\":{changes}}}"))
        })?;
    device.set_load_percent(1);
    device.join()
}
