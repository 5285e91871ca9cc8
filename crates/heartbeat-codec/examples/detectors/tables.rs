//! The tables of docs/DETECTORS.md. Seeded and without functions that differ between platforms, so that the test which
//! compares them with the document gets the same everywhere.

use std::fmt::Write as _;

use heartbeat_codec::detector::{FixedMisses, PhiAccrual, PhiConfig};
use heartbeat_codec::pace::{Pace, PaceConfig};

const INTERVAL_MS: u32 = 10_000;
const BEATS: usize = 100_000;

/// The whole document.
pub(crate) fn all() -> String {
    let mut out = String::from(HEAD);
    for trace in TRACES {
        let arrivals_ms = trace.arrivals_ms();
        writeln!(out, "\n### {}\n\n{COLUMNS}", trace.name).expect("a string takes all");
        for (name, judge) in detectors() {
            let result = run(judge, &arrivals_ms);
            writeln!(out, "| {name} | {result} |").expect("a string takes all");
        }
    }
    out.push_str(PACE_HEAD);
    for forgets_s in [30, 60, 120, 300, 3_600] {
        writeln!(out, "| {forgets_s} s | {} |", pace(forgets_s * 1_000))
            .expect("a string takes all");
    }
    out
}

const HEAD: &str = "\
# Detectors on traces

Printed by `cargo run --release -p heartbeat-codec --example detectors`; a test compares.

A peer beats every 10 s for 100,000 beats (11.6 days). A *false alarm* is a beat that came after the detector had given its
sender up. *Noticed* is the silence after which a death is noticed, counted from the last beat that arrived, as median and
99th percentile over all moments at which the peer could have died; a death falls between two beats, so its own delay
is up to 10 s less. Deviation floor of phi: a tenth of the interval; window: 100 beats unless it says otherwise.

What the tables say:

- Over TCP, where nothing is lost and some comes late, phi 8 is wronged a tenth as often as one missed beat with 2 s of
  grace, for 3 s more.
- Pauses that are known (collections, handovers, roaming) belong into the acceptable pause: no false alarm at 25 s, where
  counting takes three misses and 32 s. A higher threshold buys little.
- Where beats get lost (datagrams) whole intervals go missing, which is no normal distribution. Count misses there: as
  many as make the chance of so many losses in a row small enough.
";

const COLUMNS: &str = "\
| detector | false alarms | noticed, median | 99th |
|---|---:|---:|---:|";

const PACE_HEAD: &str = "
## Adaptive interval

10 s to 1 h, 3 answers before it grows, against a path that forgets a connection after some silence: 7 days each, and what
a fixed interval of 10 s would send.

| path forgets after | mean interval | beats | of which lost | fixed |
|---|---:|---:|---:|---:|
";

struct Trace {
    name: &'static str,
    /// Standard deviation of a beat around its grid.
    jitter_ms: f64,
    /// Of 1,000 beats so many are the first of a lost burst.
    lost_per_1000: u64,
    /// Mean length of a burst.
    burst: u64,
    /// Of 1,000 beats so many meet a retransmission: 300 ms, then twice as long with a chance of 1 in 4 each.
    resent_per_1000: u64,
    /// Of 10,000 beats so many come 3 to 15 s late, with all after them until the grid has caught up.
    paused_per_10000: u64,
}

const QUIET: Trace = Trace {
    name: "A quiet line: jitter 5 ms",
    jitter_ms: 5.0,
    lost_per_1000: 0,
    burst: 1,
    resent_per_1000: 0,
    paused_per_10000: 0,
};

const TRACES: [Trace; 6] = [
    QUIET,
    Trace {
        name: "TCP over a bad line: jitter 50 ms, 2% of beats retransmitted",
        jitter_ms: 50.0,
        resent_per_1000: 20,
        ..QUIET
    },
    Trace {
        name: "Datagrams: jitter 50 ms, 1% lost",
        jitter_ms: 50.0,
        lost_per_1000: 10,
        ..QUIET
    },
    Trace {
        name: "Datagrams: jitter 50 ms, 5% lost",
        jitter_ms: 50.0,
        lost_per_1000: 50,
        ..QUIET
    },
    Trace {
        name: "Datagrams: jitter 50 ms, lost in bursts of 3 on average, 2% of beats begin one",
        jitter_ms: 50.0,
        lost_per_1000: 20,
        burst: 3,
        ..QUIET
    },
    Trace {
        name: "Pauses: jitter 5 ms, every 500th beat comes 3 to 15 s late",
        jitter_ms: 5.0,
        paused_per_10000: 20,
        ..QUIET
    },
];

impl Trace {
    fn arrivals_ms(&self) -> Vec<u64> {
        let mut random = Random(7);
        let (mut arrivals, mut lost_left, mut not_before_ms) = (Vec::new(), 0, 0);
        for beat in 1..=BEATS as u64 {
            let mut at_ms = beat * u64::from(INTERVAL_MS);
            if random.below(10_000) < self.paused_per_10000 {
                not_before_ms = at_ms + 3_000 + random.below(12_001);
            }
            at_ms = at_ms.max(not_before_ms);
            at_ms = at_ms.saturating_add_signed((self.jitter_ms * random.normal()) as i64);
            if random.below(1_000) < self.resent_per_1000 {
                let mut wait_ms = 300;
                at_ms += wait_ms;
                while random.below(4) == 0 {
                    wait_ms *= 2;
                    at_ms += wait_ms;
                }
            }
            if lost_left == 0 && random.below(1_000) < self.lost_per_1000 {
                lost_left = 1;
                while random.below(self.burst) > 0 {
                    lost_left += 1;
                }
            }
            if lost_left > 0 {
                lost_left -= 1;
            } else {
                arrivals.push(at_ms);
            }
        }
        arrivals
    }
}

/// Hears a beat at a time and says when silence after it will mean gone.
type Judge = Box<dyn FnMut(u64) -> u64>;

fn detectors() -> Vec<(String, Judge)> {
    let mut all: Vec<(String, Judge)> = Vec::new();
    for misses in [1, 2, 3] {
        let rule = FixedMisses {
            misses,
            ..FixedMisses::new(INTERVAL_MS, 2_000)
        };
        let name = format!("{misses} missed, 2 s of grace");
        all.push((name, Box::new(move |now_ms| rule.deadline_ms(now_ms))));
    }
    let standard = PhiConfig::new(INTERVAL_MS);
    for threshold in [2.0, 4.0, 8.0, 12.0] {
        let config = PhiConfig {
            threshold,
            ..standard
        };
        all.push((format!("phi {threshold}"), phi(config)));
    }
    let nervous = PhiConfig {
        std_min_ms: 100.0,
        ..standard
    };
    all.push(("phi 8, floor 100 ms".into(), phi(nervous)));
    let hasty = PhiConfig {
        window: 20,
        ..standard
    };
    all.push(("phi 8, window 20".into(), phi(hasty)));
    let patient = PhiConfig {
        pause_ms: 10_000,
        ..standard
    };
    all.push(("phi 8, pause 10 s".into(), phi(patient)));
    all
}

fn phi(config: PhiConfig) -> Judge {
    let mut peer = PhiAccrual::new(&config, 0);
    Box::new(move |now_ms| {
        peer.heartbeat(&config, now_ms);
        peer.deadline_ms(&config)
    })
}

fn run(mut judge: Judge, arrivals_ms: &[u64]) -> String {
    let (mut alarms, mut silences_ms) = (0, Vec::with_capacity(arrivals_ms.len()));
    let mut deadline_ms = u64::MAX;
    for &now_ms in arrivals_ms {
        alarms += u32::from(now_ms > deadline_ms);
        deadline_ms = judge(now_ms);
        silences_ms.push(deadline_ms - now_ms);
    }
    silences_ms.sort_unstable();
    let seconds = |share: usize| silences_ms[silences_ms.len() * share / 100] as f64 / 1_000.0;
    format!("{alarms} | {:.1} s | {:.1} s", seconds(50), seconds(99))
}

fn pace(forgets_ms: u32) -> String {
    const WEEK_MS: u64 = 7 * 24 * 3_600_000;
    let config = PaceConfig {
        interval_min_ms: INTERVAL_MS,
        interval_max_ms: 3_600_000,
        stable_beats: 3,
    };
    let mut pace = Pace::new(&config);
    let (mut now_ms, mut beats, mut lost) = (0, 0, 0);
    while now_ms < WEEK_MS {
        now_ms += u64::from(pace.interval_ms());
        beats += 1;
        if pace.interval_ms() > forgets_ms {
            lost += 1;
            pace.lost(&config);
        } else {
            pace.answered(&config);
        }
    }
    let mean_s = now_ms as f64 / 1_000.0 / f64::from(beats);
    let fixed = WEEK_MS / u64::from(INTERVAL_MS);
    format!("{mean_s:.0} s | {beats} | {lost} | {fixed}")
}

/// Steele et al., SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Normally distributed: the sum of twelve uniform numbers, less its mean (Irwin-Hall).
    fn normal(&mut self) -> f64 {
        let sum: f64 = (0..12).map(|_| self.next() as f64 / u64::MAX as f64).sum();
        sum - 6.0
    }
}
