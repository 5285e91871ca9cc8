//! What the kernel is told about connections, and how seldom.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use conn_reactor::{CloseReason, Options, Token};

use crate::rig::{Behaviour, PATIENCE, Rig, Seen, one_shard};

/// Changes that the kernel saw, that were merged, that came to nothing.
fn changes(rig: &Rig) -> [u64; 3] {
    // What was asked for in this turn is counted at its end, and the next job comes in another turn.
    rig.on_shard(|_, _| ());
    rig.on_shard(|_, io| {
        let stats = io.stats();
        [
            stats.interest_changes,
            stats.interest_merged,
            stats.interest_elided,
        ]
    })
}

fn since(before: [u64; 3], now: [u64; 3]) -> [u64; 3] {
    std::array::from_fn(|which| now[which] - before[which])
}

/// Waits until the kernel was told something.
fn until_told(rig: &Rig, before: [u64; 3]) {
    let patience = Instant::now() + PATIENCE;
    while since(before, changes(rig))[0] == 0 {
        assert!(Instant::now() < patience, "the kernel is told nothing");
        std::thread::yield_now();
    }
}

fn echo(client: &mut TcpStream) {
    client.write_all(b"ping").unwrap();
    client.read_exact(&mut [0; 4]).unwrap();
}

fn resume(rig: &Rig, token: Token) {
    rig.on_shard(move |_, io| io.resume_reading(token));
}

#[test]
fn a_connection_costs_one_change_in_its_whole_life() {
    let rig = Rig::start(Behaviour::Echo, one_shard());
    let before = changes(&rig);
    let (mut client, token) = rig.client_and_token();
    for _ in 0..100 {
        echo(&mut client);
    }
    assert_eq!(since(before, changes(&rig)), [1, 0, 0]);
    drop(client);
    rig.until_closed(token);
    assert_eq!(since(before, changes(&rig)), [1, 0, 1], "closing does it");
}

#[test]
fn a_connection_that_is_refused_is_never_told_of() {
    let rig = Rig::start(Behaviour::Refuse, one_shard());
    let before = changes(&rig);
    let mut client = rig.client();
    assert_eq!(client.read(&mut [0; 9]).unwrap(), 0);
    assert_eq!(since(before, changes(&rig)), [0, 1, 1]);
}

#[test]
fn a_pause_in_which_nothing_comes_costs_no_change() {
    let rig = Rig::start(Behaviour::Echo, one_shard());
    let (mut client, token) = rig.client_and_token();
    echo(&mut client);
    let before = changes(&rig);
    for _ in 0..10 {
        rig.on_shard(move |_, io| io.pause_reading(token));
        resume(&rig, token);
        echo(&mut client);
    }
    assert_eq!(since(before, changes(&rig)), [0, 0, 0]);
}

#[test]
fn input_for_a_paused_connection_wakes_its_shard_once() {
    let rig = Rig::start(Behaviour::Sink, one_shard());
    let (mut client, token) = rig.client_and_token();
    let before = changes(&rig);
    rig.on_shard(move |_, io| io.pause_reading(token));
    client.write_all(b"x").unwrap();
    until_told(&rig, before);
    let events = |rig: &Rig| rig.on_shard(|_, io| io.stats().events);
    let fetched = events(&rig);
    for _ in 0..200 {
        client.write_all(b"x").unwrap();
        // The waker's event, in a wait that would also fetch the connection's.
        events(&rig);
    }
    let fetched = events(&rig) - fetched;
    assert!(fetched <= 205, "{fetched} events");
    resume(&rig, token);
    let mut rest = 201;
    while rest > 0 {
        match rig.next() {
            Seen::Data(_, bytes) => rest -= bytes.len(),
            other => panic!("{other:?}"),
        }
    }
    // What comes from now on makes edges again.
    client.write_all(b"y").unwrap();
    assert_eq!(rig.next(), Seen::Data(token, b"y".to_vec()));
    assert_eq!(since(before, changes(&rig)), [2, 0, 0]);
}

#[test]
fn a_pause_and_its_end_in_one_turn_come_to_nothing() {
    let options = Options {
        read_buffer_bytes: 4096,
        ..one_shard()
    };
    let rig = Rig::start(Behaviour::Sink, options);
    let (mut client, token) = rig.client_and_token();
    rig.on_shard(|probe, _| probe.pause = true);
    let before = changes(&rig);
    let gate = rig.hold_shard();
    // One turn: the first read pauses with more to read, then the message resumes.
    client.write_all(&[1; 20_000]).unwrap();
    rig.post(move |_, io| io.resume_reading(token));
    drop(gate);
    let mut rest = 20_000;
    while rest > 0 {
        match rig.next() {
            Seen::Data(_, bytes) => rest -= bytes.len(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(since(before, changes(&rig)), [0, 1, 1]);
}

#[test]
fn a_drain_hears_the_end_behind_a_pause_with_input() {
    let rig = Rig::start(Behaviour::Sink, one_shard());
    let (mut client, token) = rig.client_and_token();
    let before = changes(&rig);
    rig.on_shard(move |_, io| io.pause_reading(token));
    client.write_all(b"unread").unwrap();
    until_told(&rig, before);
    rig.on_shard(move |_, io| io.close_after_flush(token, CloseReason::Local(6), 600_000));
    assert_eq!(client.read(&mut [0; 9]).unwrap(), 0, "FIN came");
    drop(client);
    assert_eq!(rig.until_closed(token), CloseReason::Local(6));
}
