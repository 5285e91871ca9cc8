//! A million clients lose a server that admits 50,000 connections a second, as in circuit's example `storm`, but with
//! the whole machine of the client, and without a second of real time.

use std::net::SocketAddr;

use circuit::{Jitter, Policy};
use conn_reactor::client::{Attempt, Endpoints, Reconnect, Reconnector};

use crate::rig::Numbers;

const MILLION: u32 = 1_000_000;
/// For what takes longer to simulate; the server admits as much less.
const HUNDRED_THOUSAND: u32 = 100_000;
/// It takes the server 20 s to admit everybody.
const TICKS_AT_BEST: usize = 2_000;
const TICK_MS: u64 = 10;
/// When the sessions are lost; the last one was welcomed at 0.
const LOST_AT_MS: u64 = 60_000;
/// Ten minutes: who is not back by then will not be.
const TICKS_MAX: usize = 60_000;
/// How far the server spreads its clients: a little longer than it needs for all of them.
const SPREAD_MS: u64 = 25_000;

struct Storm {
    over_ms: u64,
    tries_each: f64,
    /// Most tries in a second, as a multiple of what the server admits.
    busiest: f64,
}

#[derive(Clone, Copy, Default)]
struct Weather {
    first_window_ms: u32,
    slots: bool,
    spread_ms: u64,
    /// The server answers nobody for so long.
    away_ms: u64,
    /// The clients share a breaker, the default one.
    breaker: bool,
}

/// All clients have a session, lose it at once, and come back.
fn storm(count: u32, weather: Weather) -> Storm {
    let Weather {
        first_window_ms,
        slots,
        spread_ms,
        away_ms,
        breaker,
    } = weather;
    let rules = Reconnect {
        backoff: Policy {
            base_ms: 1_000,
            cap_ms: 30_000,
            jitter: Jitter::Full,
            first_window_ms,
        },
        stable_ms: 0,
        breaker: Reconnect::default().breaker.filter(|_| breaker),
        ..Reconnect::default()
    };
    let addr = SocketAddr::from(([192, 0, 2, 1], 7400));
    let mut endpoints = Endpoints::new(&[addr], rules);
    let mut numbers = Numbers(1);
    let admitted_a_tick = count as usize / TICKS_AT_BEST;
    let mut calendar: Vec<Vec<u32>> = Vec::new();
    let plan = |now: u64, pause_ms: u64, client: u32, calendar: &mut Vec<Vec<u32>>| {
        let at = (now + (pause_ms / TICK_MS).max(1)) as usize;
        if calendar.len() <= at {
            calendar.resize_with(at + 1, Vec::new);
        }
        calendar[at].push(client);
    };
    let mut clients = Vec::new();
    for number in 0..count {
        let mut client = Reconnector::new();
        client.attempt(&mut endpoints, 0, numbers.next());
        client.established(&mut endpoints, 0);
        if slots {
            let place = u64::from(number) * spread_ms / u64::from(count);
            client.assign_slot(place as u32);
        }
        let pause_ms = client.lost(&mut endpoints, LOST_AT_MS, numbers.next());
        plan(0, pause_ms, number, &mut calendar);
        clients.push(client);
    }
    let (mut tries_at, mut back, mut tick) = (Vec::new(), 0, 0);
    while back < count {
        assert!(tick < TICKS_MAX, "{back} of {count} are back");
        let mut trying = std::mem::take(&mut calendar[tick]);
        // Who gets in is a matter of luck.
        for place in 0..trying.len().min(admitted_a_tick) {
            let other = place + numbers.below(trying.len() - place);
            trying.swap(place, other);
        }
        let now_ms = LOST_AT_MS + tick as u64 * TICK_MS;
        let mut tries = 0;
        let mut room = admitted_a_tick;
        for number in trying {
            let client = &mut clients[number as usize];
            if let Attempt::Wait { delay_ms } =
                client.attempt(&mut endpoints, now_ms, numbers.next())
            {
                plan(tick as u64, delay_ms, number, &mut calendar);
                continue;
            }
            tries += 1;
            if room > 0 && now_ms >= LOST_AT_MS + away_ms {
                room -= 1;
                client.established(&mut endpoints, now_ms);
                back += 1;
            } else {
                let pause_ms = client.lost(&mut endpoints, now_ms, numbers.next());
                plan(tick as u64, pause_ms, number, &mut calendar);
            }
        }
        tries_at.push(tries);
        tick += 1;
    }
    let a_second = tries_at
        .windows(100)
        .map(|second| second.iter().sum::<usize>());
    Storm {
        over_ms: tick as u64 * TICK_MS,
        tries_each: tries_at.iter().sum::<usize>() as f64 / f64::from(count),
        busiest: a_second.max().unwrap_or(0) as f64 / (admitted_a_tick * 100) as f64,
    }
}

#[test]
fn a_million_clients_are_back_in_slots_within_thirty_seconds_with_hardly_more_than_one_try() {
    let slots = storm(
        MILLION,
        Weather {
            slots: true,
            spread_ms: SPREAD_MS,
            ..Weather::default()
        },
    );
    println!("slots: {} ms, {:.2} tries", slots.over_ms, slots.tries_each);
    assert!(
        (20_000..30_000).contains(&slots.over_ms),
        "{}",
        slots.over_ms
    );
    assert!(
        (1.0..1.2).contains(&slots.tries_each),
        "{}",
        slots.tries_each
    );

    let window = storm(
        HUNDRED_THOUSAND,
        Weather {
            first_window_ms: SPREAD_MS as u32,
            spread_ms: SPREAD_MS,
            ..Weather::default()
        },
    );
    println!(
        "window: {} ms, {:.2} tries",
        window.over_ms, window.tries_each
    );
    assert!(
        (22_000..40_000).contains(&window.over_ms),
        "{}",
        window.over_ms
    );
    assert!(
        (1.0..1.2).contains(&window.tries_each),
        "{}",
        window.tries_each
    );
    let neither = storm(HUNDRED_THOUSAND, Weather::default());
    println!(
        "neither: {} ms, {:.2} tries",
        neither.over_ms, neither.tries_each
    );
    assert!(neither.tries_each > 3.0, "{}", neither.tries_each);
}

/// A busy server refuses far more than five tries between two that it admits. That is the backoff's matter: the breaker, which
/// would hold back all clients together, stays closed as long as the server admits somebody.
#[test]
fn a_breaker_that_all_share_stays_out_of_the_way_of_a_server_that_is_only_busy() {
    let breaker = Weather {
        breaker: true,
        ..Weather::default()
    };
    let with = storm(HUNDRED_THOUSAND, breaker);
    let without = storm(HUNDRED_THOUSAND, Weather::default());
    println!(
        "busy: {} ms, {:.2} tries; without a breaker {} ms, {:.2} tries",
        with.over_ms, with.tries_each, without.over_ms, without.tries_each
    );
    assert_eq!(with.over_ms, without.over_ms);
    assert!(with.tries_each <= without.tries_each);
}

/// A short absence opens the breaker for 5 s, into which a ninth of all slots falls: those clients come 5 s later, twice as
/// many as otherwise in a second, and still not more than the server admits.
#[test]
fn a_breaker_that_covers_slots_shifts_them_and_no_crowd_comes_at_its_end() {
    let storm = storm(
        HUNDRED_THOUSAND,
        Weather {
            slots: true,
            spread_ms: 45_000,
            away_ms: 1_000,
            breaker: true,
            ..Weather::default()
        },
    );
    println!(
        "breaker: {} ms, {:.2} tries, {:.2} of the server",
        storm.over_ms, storm.tries_each, storm.busiest
    );
    assert!(storm.over_ms < 46_000, "{}", storm.over_ms);
    assert!(storm.tries_each < 1.01, "{}", storm.tries_each);
    assert!((0.8..1.0).contains(&storm.busiest), "{}", storm.busiest);
}
