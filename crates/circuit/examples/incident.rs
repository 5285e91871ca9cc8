//! Two outages of one callee, and what finds them: a fixed half, the adaptive threshold, the smoothed error rate as
//! its own threshold, and Google's throttling.
//!
//! A callee fails in 1% of calls and drifts to 4% in ten minutes. Then a partial outage makes 35% fail for five
//! minutes, and later a full one makes all fail for two.
//! Run with `cargo run --release -p mainstay-circuit --example incident [-- FILE.svg]`.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::VecDeque;
use std::ops::Range;

use circuit::{Breaker, Config, FailureRate, Outcome, Throttle};

mod plot;

const SECONDS: u64 = 24 * 60;
const PARTIAL: Range<u64> = 11 * 60..16 * 60;
const FULL: Range<u64> = 20 * 60..22 * 60;
const CALLS_A_SECOND: u64 = 100;

/// The share of calls that fail at a second.
fn failing(second: u64) -> f64 {
    if FULL.contains(&second) {
        1.0
    } else if PARTIAL.contains(&second) {
        0.35
    } else {
        0.01 + 0.03 * (second.min(600) as f64 / 600.0)
    }
}

/// Whether a call goes out, and what is done with its outcome.
trait Guard {
    fn call(&mut self, now_ms: u64, fails: bool, random: u64) -> Option<()>;
    fn second(&mut self, _rate: f64) {}
    fn threshold(&self) -> Option<f64>;
}

impl Guard for Breaker {
    fn call(&mut self, now_ms: u64, fails: bool, _random: u64) -> Option<()> {
        let permit = self.try_call(now_ms).ok()?;
        let outcome = if fails {
            Outcome::Failure
        } else {
            Outcome::Success
        };
        self.record(permit, outcome, now_ms);
        Some(())
    }

    fn threshold(&self) -> Option<f64> {
        Breaker::threshold(self).map(f64::from)
    }
}

impl Guard for Throttle {
    fn call(&mut self, now_ms: u64, fails: bool, random: u64) -> Option<()> {
        self.try_call(now_ms, random).ok()?;
        self.record(!fails, now_ms);
        Some(())
    }

    fn threshold(&self) -> Option<f64> {
        None
    }
}

/// The smoothed error rate as the threshold of a 10 s window: what an adaptive breaker must not be. It moves faster
/// than the window, so that an outage never gets above it.
struct Bare {
    smoothed: f64,
    last: VecDeque<f64>,
}

impl Guard for Bare {
    fn call(&mut self, _now_ms: u64, _fails: bool, _random: u64) -> Option<()> {
        let window = self.last.iter().sum::<f64>() / self.last.len() as f64;
        // Less than five points above it, or 10% in all, is noise.
        (window <= (self.smoothed + 0.05).max(0.10)).then_some(())
    }

    fn second(&mut self, rate: f64) {
        self.smoothed += 0.35 * (rate - self.smoothed);
        self.last.push_back(rate);
        self.last.pop_front();
    }

    fn threshold(&self) -> Option<f64> {
        Some(self.smoothed)
    }
}

/// What a guard did.
struct Run {
    name: &'static str,
    guard: Box<dyn Guard>,
    threshold: Vec<(f64, f64)>,
    /// Seconds in which a call was refused.
    refused: Vec<u64>,
    failed: u32,
    spared: u32,
    refused_outside: u32,
}

impl Run {
    fn new(name: &'static str, guard: impl Guard + 'static) -> Self {
        Run {
            name,
            guard: Box::new(guard),
            threshold: Vec::new(),
            refused: Vec::new(),
            failed: 0,
            spared: 0,
            refused_outside: 0,
        }
    }

    fn call(&mut self, now_ms: u64, fails: bool, random: u64) {
        let second = now_ms / 1_000;
        let outage = PARTIAL.contains(&second) || FULL.contains(&second);
        match self.guard.call(now_ms, fails, random) {
            Some(()) => self.failed += u32::from(fails && outage),
            None => {
                self.refused.push(second);
                self.spared += u32::from(outage);
                self.refused_outside += u32::from(!outage);
            }
        }
    }

    fn report(&self) {
        let found = |outage: Range<u64>| {
            let first = self.refused.iter().find(|second| outage.contains(second));
            first.map_or("never".to_owned(), |second| {
                format!("{} s", second - outage.start)
            })
        };
        println!(
            "| {} | {} | {} | {} | {} | {} |",
            self.name,
            found(PARTIAL),
            found(FULL),
            self.failed,
            self.spared,
            self.refused_outside
        );
    }
}

fn runs() -> Vec<Run> {
    let mut fixed = Config::adaptive();
    fixed.failure_rate = FailureRate::Percent(50);
    let bare = Bare {
        smoothed: 0.01,
        last: VecDeque::from([0.01; 10]),
    };
    vec![
        Run::new("fixed 50%", Breaker::new(fixed)),
        Run::new("adaptive", Breaker::new(Config::adaptive())),
        Run::new("smoothed rate alone", bare),
        Run::new("throttle, K = 2", Throttle::new(200)),
    ]
}

fn main() -> Result<(), std::io::Error> {
    let mut runs = runs();
    let mut rates = Vec::new();
    let mut random = 1u64;
    for second in 0..SECONDS {
        let mut failures = 0;
        for n in 0..CALLS_A_SECOND {
            // Knuth's MMIX generator: repeatable is all it has to be.
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let fails = ((random >> 11) as f64 / (1u64 << 53) as f64) < failing(second);
            failures += u64::from(fails);
            let now_ms = second * 1_000 + n * 1_000 / CALLS_A_SECOND;
            for run in &mut runs {
                run.call(now_ms, fails, random.rotate_left(32));
            }
        }
        let rate = failures as f64 / CALLS_A_SECOND as f64;
        rates.push((second as f64, rate));
        for run in &mut runs {
            run.guard.second(rate);
            let threshold = run.guard.threshold();
            run.threshold.extend(threshold.map(|t| (second as f64, t)));
        }
    }
    println!(
        "| guard | partial outage found after | full outage | calls that failed in them | spared | refused outside |"
    );
    println!("|---|---:|---:|---:|---:|---:|");
    runs.iter().for_each(Run::report);
    let Some(path) = std::env::args().nth(1) else {
        return Ok(());
    };
    let mut lines = vec![line("error rate", rates)];
    for run in runs {
        if !run.threshold.is_empty() {
            lines.push(line(run.name, run.threshold));
        }
    }
    let plot = plot::Plot {
        title: "Error rate of a callee, and the thresholds that it meets",
        x_name: "seconds",
        y_name: "share of failures",
        y_max: 1.0,
        log: false,
        lines,
    };
    std::fs::write(&path, plot.to_svg())?;
    println!("plot: {path}");
    Ok(())
}

fn line(name: &str, points: Vec<(f64, f64)>) -> plot::Line {
    plot::Line {
        name: name.to_owned(),
        points,
    }
}
