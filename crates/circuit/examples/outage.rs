//! An outage of two minutes as one client sees it, with and without a breaker.
//!
//! Run with `cargo run -p mainstay-circuit --example outage`.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use circuit::{Breaker, Config, Outcome};

/// The callee is down between 10 s and 130 s.
fn works(now_ms: u64) -> bool {
    !(10_000..130_000).contains(&now_ms)
}

fn main() {
    let mut breaker = Breaker::new(Config::essay());
    let (mut wasted, mut refused) = (0, 0);
    for now_ms in (0..300_000).step_by(100) {
        let Ok(permit) = breaker.try_call(now_ms) else {
            refused += 1;
            continue;
        };
        let outcome = if works(now_ms) {
            Outcome::Success
        } else {
            wasted += 1;
            Outcome::Failure
        };
        if let Some(change) = permit.transition() {
            println!("{now_ms:>7} ms: {:?} to {:?}", change.from, change.to);
        }
        if let Some(change) = breaker.record(permit, outcome, now_ms) {
            println!(
                "{now_ms:>7} ms: {:?} to {:?}, {:?}",
                change.from, change.to, change.reason
            );
        }
    }
    println!("calls made in vain: {wasted} (1200 without the breaker); refused at once: {refused}");
}
