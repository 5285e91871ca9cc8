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
/// How far the server spreads its clients: a little longer than it needs for all of them.
const SPREAD_MS: u64 = 25_000;

struct Storm {
    over_ms: u64,
    tries_each: f64,
}

/// All clients have a session, lose it at 0, and come back.
fn storm(count: u32, first_window_ms: u32, slots: bool) -> Storm {
    let rules = Reconnect {
        backoff: Policy {
            base_ms: 1_000,
            cap_ms: 30_000,
            jitter: Jitter::Full,
            first_window_ms,
        },
        stable_ms: 0,
        breaker: None,
        ..Reconnect::default()
    };
    let addr = SocketAddr::from(([192, 0, 2, 1], 7400));
    // Each has its own endpoints in the field; without breakers they hold nothing that differs.
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
            let place = u64::from(number) * SPREAD_MS / u64::from(count);
            client.assign_slot(place as u32);
        }
        let pause_ms = client.lost(&mut endpoints, 0, numbers.next());
        plan(0, pause_ms, number, &mut calendar);
        clients.push(client);
    }
    let (mut tries, mut back, mut tick) = (0, 0, 0);
    while back < count {
        let mut trying = std::mem::take(&mut calendar[tick]);
        // Who gets in is a matter of luck.
        for place in 0..trying.len().min(admitted_a_tick) {
            let other = place + numbers.below(trying.len() - place);
            trying.swap(place, other);
        }
        for (place, number) in trying.into_iter().enumerate() {
            let client = &mut clients[number as usize];
            let now_ms = tick as u64 * TICK_MS;
            tries += 1;
            let attempt = client.attempt(&mut endpoints, now_ms, numbers.next());
            assert_eq!(attempt, Attempt::Connect(addr));
            if place < admitted_a_tick {
                client.established(&mut endpoints, now_ms);
                back += 1;
            } else {
                let pause_ms = client.lost(&mut endpoints, now_ms, numbers.next());
                plan(tick as u64, pause_ms, number, &mut calendar);
            }
        }
        tick += 1;
    }
    Storm {
        over_ms: tick as u64 * TICK_MS,
        tries_each: f64::from(tries) / f64::from(count),
    }
}

#[test]
fn a_million_clients_are_back_in_slots_within_thirty_seconds_with_hardly_more_than_one_try() {
    let slots = storm(MILLION, 0, true);
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

    let window = storm(HUNDRED_THOUSAND, SPREAD_MS as u32, false);
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
    let neither = storm(HUNDRED_THOUSAND, 0, false);
    println!(
        "neither: {} ms, {:.2} tries",
        neither.over_ms, neither.tries_each
    );
    assert!(neither.tries_each > 3.0, "{}", neither.tries_each);
}
