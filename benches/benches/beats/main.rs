//! A beat in each form: bytes, and the time to write and to read one.
//!
//! `cargo xtask bench beats [-- --quick]` prints the table of docs/BENCHMARKS.md.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

mod fleet;
mod forms;

use std::time::Duration;

use fleet::Fleet;
use forms::Form;
use mainstay_benches::counting::Counting;
use mainstay_benches::rounds::{Contender, Plan, measure};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SIGMAS_MS: [f64; 3] = [1.0, 5.0, 50.0];

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let plan = Plan {
        rounds: if quick { 21 } else { 101 },
        slice: Duration::from_millis(2),
    };
    let fleets = SIGMAS_MS.map(|sigma_ms| Fleet::new(sigma_ms, 2_000, 40));
    let sizes: Vec<Vec<Form>> = fleets.iter().map(forms::all).collect();
    // Times at a jitter of 5 ms.
    let middle = forms::all(&fleets[1]);
    let (names, mut contenders): (Vec<_>, Vec<Contender<'_>>) = middle
        .into_iter()
        .flat_map(|form| {
            let (name, beats) = (form.name, form.beats_a_call);
            let encode = Contender::new(name, 0, form.encode);
            let decode = Contender::new(name, 0, form.decode);
            [((name, beats), encode), ((name, beats), decode)]
        })
        .unzip();
    let measured = measure(plan, &mut contenders);
    println!("| | 1 ms | 5 ms | 50 ms | write | read |\n|---|---:|---:|---:|---:|---:|");
    for (at, (name, beats)) in names.iter().enumerate().step_by(2) {
        let bytes = |sigma: usize| sizes[sigma][at / 2].bytes;
        println!(
            "| {name} | {:.2} | {:.2} | {:.2} | {:.1} ns | {:.1} ns |",
            bytes(0),
            bytes(1),
            bytes(2),
            measured[at].ns / beats,
            measured[at + 1].ns / beats,
        );
    }
    let floor = |sigma: usize| fleets[sigma].entropy_bits / 8.0;
    println!(
        "| *entropy* | {:.2} | {:.2} | {:.2} | | |",
        floor(0),
        floor(1),
        floor(2)
    );
}
