//! Interleaved rounds: every contender runs once in each round, so that whatever else the machine does hits all alike.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::counting::allocations;

/// What takes part in a comparison.
pub struct Contender<'a> {
    name: &'static str,
    /// Bytes that one operation makes or reads.
    bytes: usize,
    /// Runs that many operations.
    work: Box<dyn FnMut(u64) + 'a>,
}

impl std::fmt::Debug for Contender<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contender")
            .field("name", &self.name)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl<'a> Contender<'a> {
    /// `operation` is called again and again; `bytes` says how much each call makes or reads.
    pub fn new<T>(
        name: &'static str,
        bytes: usize,
        mut operation: impl FnMut() -> T + 'a,
    ) -> Contender<'a> {
        let work = Box::new(move |times| {
            for _ in 0..times {
                black_box(operation());
            }
        });
        Contender { name, bytes, work }
    }
}

/// How long a comparison takes: `rounds` times the contenders times `slice`.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How often each contender has its turn.
    pub rounds: usize,
    /// How long each turn takes, about.
    pub slice: Duration,
}

/// A contender's result.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Its name.
    pub name: &'static str,
    /// Bytes that one operation makes or reads.
    pub bytes: usize,
    /// Median over the rounds of nanoseconds per operation.
    pub ns: f64,
    /// The shortest round's nanoseconds per operation: what is left when nothing else ran.
    pub best_ns: f64,
    /// Median over the rounds of the ratio to the first contender in the same round.
    pub ratio: f64,
    /// Allocations per operation once warm.
    pub allocations: f64,
}

impl Contender<'_> {
    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl Measured {
    /// Millions of bytes per second.
    pub fn mb_per_s(&self) -> f64 {
        self.bytes as f64 * 1e3 / self.ns
    }
}

/// Runs the contenders; ratios are to the first.
///
/// # Panics
///
/// Without a contender or a round.
pub fn measure(plan: Plan, contenders: &mut [Contender<'_>]) -> Vec<Measured> {
    let times: Vec<u64> = contenders
        .iter_mut()
        .map(|contender| times_for(plan.slice, contender))
        .collect();
    let mut rounds: Vec<Vec<f64>> = Vec::with_capacity(plan.rounds);
    let mut counts = vec![0.0; contenders.len()];
    for round in 0..plan.rounds {
        let mut ns = vec![0.0; contenders.len()];
        for turn in 0..contenders.len() {
            // Each round starts with another one: nobody always runs behind the same neighbour's cache.
            let at = (turn + round) % contenders.len();
            let before = allocations();
            let started = Instant::now();
            (contenders[at].work)(times[at]);
            ns[at] = started.elapsed().as_nanos() as f64 / times[at] as f64;
            counts[at] = (allocations() - before) as f64 / times[at] as f64;
        }
        rounds.push(ns);
    }
    let middle = |of: &dyn Fn(&[f64]) -> f64| median(rounds.iter().map(|ns| of(ns)).collect());
    let measured = contenders
        .iter()
        .enumerate()
        .map(|(at, contender)| Measured {
            name: contender.name,
            bytes: contender.bytes,
            ns: middle(&|ns| ns[at]),
            best_ns: rounds.iter().map(|ns| ns[at]).fold(f64::INFINITY, f64::min),
            ratio: middle(&|ns| ns[at] / ns[0]),
            allocations: counts[at],
        });
    measured.collect()
}

/// How many operations fill the slice; warms up on the way.
fn times_for(slice: Duration, contender: &mut Contender<'_>) -> u64 {
    let mut times = 1;
    loop {
        let started = Instant::now();
        (contender.work)(times);
        let elapsed = started.elapsed();
        if elapsed * 2 >= slice {
            return (times as f64 * slice.as_secs_f64() / elapsed.as_secs_f64()).ceil() as u64;
        }
        times *= 2;
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
