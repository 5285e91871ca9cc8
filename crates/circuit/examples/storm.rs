//! A million clients lose a server that admits 50,000 connections a second. When are they all back, after how
//! many tries each, and what load did the server see?
//!
//! Run with `cargo run --release -p mainstay-circuit --example storm [-- FILE.svg]`.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use circuit::{Backoff, Jitter, Policy};

mod plot;

const CLIENTS: u32 = 1_000_000;
const ADMITTED_A_SECOND: u32 = 50_000;
const TICK_MS: u64 = 10;
const GIVE_UP: Duration = Duration::from_secs(300);
/// How far first tries are spread: a little longer than the server needs for everybody.
const SPREAD_MS: u32 = 25_000;

/// How a client decides when to come back.
#[derive(Clone, Copy)]
enum Way {
    /// After a second, and every second again.
    Fixed,
    Backoff(Policy),
    /// The first try in a place that the server assigned while it was there, then the policy.
    Slots(Policy),
}

impl Way {
    fn start(self, client: u32) -> Backoff {
        match self {
            Way::Slots(_) => {
                let slot_ms = u64::from(client) * u64::from(SPREAD_MS) / u64::from(CLIENTS);
                Backoff::in_slot(slot_ms as u32)
            }
            Way::Fixed | Way::Backoff(_) => Backoff::new(),
        }
    }

    fn delay_ms(self, backoff: &mut Backoff, random: u64) -> u64 {
        match self {
            Way::Fixed => 1_000,
            Way::Backoff(policy) | Way::Slots(policy) => backoff.next_delay_ms(&policy, random),
        }
    }
}

/// What one way of coming back led to.
struct Storm {
    /// When the last client was back.
    over: Option<Duration>,
    back: u32,
    tries: u64,
    /// Tries in each second.
    load: Vec<u32>,
}

fn storm(way: Way) -> Storm {
    let mut crowd = Crowd::all_lost_at_once(way);
    let mut luck = SplitMix64(2);
    let room = (u64::from(ADMITTED_A_SECOND) * TICK_MS / 1_000) as usize;
    let mut result = Storm {
        over: None,
        back: 0,
        tries: 0,
        load: vec![0; GIVE_UP.as_secs() as usize],
    };
    for tick in 0..crowd.calendar.len() {
        let mut tries = std::mem::take(&mut crowd.calendar[tick]);
        result.tries += tries.len() as u64;
        result.load[tick * TICK_MS as usize / 1_000] += tries.len() as u32;
        let refused = refuse_all_but(room, &mut tries, &mut luck);
        result.back += tries.len() as u32;
        for client in refused {
            crowd.plan(client, tick);
        }
        if result.back == CLIENTS {
            result.over = Some(Duration::from_millis(tick as u64 * TICK_MS));
            break;
        }
    }
    result
}

/// The clients that are not back, and when each tries next.
struct Crowd {
    way: Way,
    clients: Vec<Backoff>,
    /// Who tries in which tick.
    calendar: Vec<Vec<u32>>,
    random: SplitMix64,
}

impl Crowd {
    fn all_lost_at_once(way: Way) -> Self {
        let mut crowd = Self {
            way,
            clients: (0..CLIENTS).map(|client| way.start(client)).collect(),
            calendar: vec![Vec::new(); GIVE_UP.as_millis() as usize / TICK_MS as usize],
            random: SplitMix64(1),
        };
        for client in 0..CLIENTS {
            crowd.plan(client, 0);
        }
        crowd
    }

    /// Plans the next try of a client that failed in this tick; none after the end of the simulation.
    fn plan(&mut self, client: u32, tick: usize) {
        let backoff = &mut self.clients[client as usize];
        let delay_ms = self.way.delay_ms(backoff, self.random.next());
        let at = tick + (delay_ms / TICK_MS).max(1) as usize;
        if let Some(tries) = self.calendar.get_mut(at) {
            tries.push(client);
        }
    }
}

/// Leaves `room` of those who try and returns the others. Who gets in is a matter of luck, not of the client's number.
fn refuse_all_but(room: usize, tries: &mut Vec<u32>, luck: &mut SplitMix64) -> Vec<u32> {
    let admitted = tries.len().min(room);
    for place in 0..admitted {
        let other = place + luck.below(tries.len() - place);
        tries.swap(place, other);
    }
    tries.split_off(admitted)
}

/// Steele et al., "Fast splittable pseudorandom number generators", 2014.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, below: usize) -> usize {
        (self.next() % below as u64) as usize
    }
}

fn ways() -> Vec<(&'static str, Way)> {
    let policy = |jitter, first_window_ms| Policy {
        base_ms: 1_000,
        cap_ms: 30_000,
        jitter,
        first_window_ms,
    };
    vec![
        ("fixed 1 s", Way::Fixed),
        ("no jitter", Way::Backoff(policy(Jitter::None, 0))),
        ("equal jitter", Way::Backoff(policy(Jitter::Equal, 0))),
        ("full jitter", Way::Backoff(policy(Jitter::Full, 0))),
        (
            "decorrelated jitter",
            Way::Backoff(policy(Jitter::Decorrelated, 0)),
        ),
        (
            "first try in 25 s, then full",
            Way::Backoff(policy(Jitter::Full, SPREAD_MS)),
        ),
        (
            "slots over 25 s, then full",
            Way::Slots(policy(Jitter::Full, 0)),
        ),
    ]
}

fn main() -> Result<(), std::io::Error> {
    println!(
        "{CLIENTS} clients, {ADMITTED_A_SECOND} admitted a second: 20 s at best. Given up after {} s.",
        GIVE_UP.as_secs()
    );
    println!("| way | all back after | tries per client | highest load in a second |");
    println!("|---|---:|---:|---:|");
    let mut lines = Vec::new();
    for (name, way) in ways() {
        let storm = storm(way);
        let over = match storm.over {
            Some(over) => format!("{:.1} s", over.as_secs_f64()),
            None => format!(
                "never: {:.0}% back",
                100.0 * f64::from(storm.back) / f64::from(CLIENTS)
            ),
        };
        let tries = storm.tries as f64 / f64::from(CLIENTS);
        let peak = storm.load.iter().max().expect("some seconds");
        println!("| {name} | {over} | {tries:.1} | {peak} |");
        let load = storm.load.iter().take(90).enumerate();
        lines.push(plot::Line {
            name: name.to_owned(),
            points: load
                .map(|(second, tries)| (second as f64, f64::from(*tries)))
                .collect(),
        });
    }
    if let Some(path) = std::env::args().nth(1) {
        let plot = plot::Plot {
            title: "Connection attempts in each second; the server admits 50,000",
            x_name: "seconds after the loss",
            y_name: "attempts a second",
            y_max: 1_000_000.0,
            log: true,
            lines,
        };
        std::fs::write(&path, plot.to_svg())?;
        println!("load curve: {path}");
    }
    Ok(())
}
