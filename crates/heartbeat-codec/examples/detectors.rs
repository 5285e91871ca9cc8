//! How fast detectors notice a death, and how often they are wrong, on traces with jitter, loss and pauses.
//!
//! Run with `cargo run --release -p heartbeat-codec --example detectors`: docs/DETECTORS.md is what it prints.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

#[path = "detectors/tables.rs"]
mod tables;

fn main() {
    print!("{}", tables::all());
}
