//! Clients on real sockets.

use std::io::Read;
use std::net::TcpListener;
use std::time::Instant;

use circuit::{Config, FailureRate, State};
use conn_reactor::client::{Prefer, Why};
use conn_reactor::{CloseReason, Options, WhenFull};

use super::peer::{Memories, Mood, Server, Shard, Told, hang_up, options, say};
use crate::rig::{PATIENCE, nobody, one_shard};

#[test]
fn what_is_said_survives_a_server_that_is_killed_and_comes_back() {
    let memories = Memories::default();
    let server = Server::start(Mood::Steady, &memories);
    let addr = server.addr;
    let shard = Shard::start(&options(&[addr]));
    let client = shard.run(|talk, io| talk.add(io));
    shard.until_established();
    for value in 0..10 {
        shard.run(move |_, io| say(io, client, value));
    }
    memories.until_received(1, 10);
    drop(server);
    let loss = shard.until_lost();
    assert!(loss.was_established);
    assert!(loss.retry_in_ms.unwrap() <= 10);
    // While nobody is there.
    for value in 10..20 {
        shard.run(move |_, io| say(io, client, value));
    }
    let loss = shard.until_lost();
    assert!(!loss.was_established);
    assert!(matches!(loss.why, Why::Connect(_)), "{loss:?}");
    let _server = Server::start_at(addr, Mood::Steady, &memories);
    shard.until_established();
    memories.until_received(1, 20);
    assert_eq!(memories.lock()[&1].greetings, [0, 1]);
    let patience = Instant::now() + PATIENCE;
    while shard.run(move |_, io| io.unacknowledged(client)) > 0 {
        assert!(Instant::now() < patience);
    }
}

#[test]
fn under_arbitrary_cuts_the_server_acts_on_each_frame_once_and_in_order() {
    const FRAMES: u64 = 5_000;
    let memories = Memories::default();
    let server = Server::start(Mood::Moody, &memories);
    let shard = Shard::start(&options(&[server.addr]));
    for _ in 0..4 {
        shard.run(|talk, io| {
            let client = talk.add(io);
            for value in 0..1_000 {
                say(io, client, value);
            }
            client
        });
    }
    // A queue that is full refuses and goes on when there is room.
    let last = shard.run(|talk, io| talk.add(io));
    let mut value = 0;
    while value < FRAMES {
        value = shard.run(move |_, io| {
            let mut value = value;
            while value < FRAMES && io.unacknowledged(last) < 1_024 {
                say(io, last, value);
                value += 1;
            }
            value
        });
    }
    for client in 1..=4 {
        memories.until_received(client, 1_000);
    }
    memories.until_received(5, FRAMES);
    let repeats: u64 = memories.lock().values().map(|memory| memory.repeats).sum();
    assert!(repeats > 0, "the cuts made repeats");
}

#[test]
fn a_queue_larger_than_the_socket_flows_through_its_low_mark() {
    let memories = Memories::default();
    let server = Server::start(Mood::Steady, &memories);
    let reactor = Options {
        write_bytes_max: 4_096,
        write_low_bytes: 64,
        ..one_shard()
    };
    let mut options = options(&[server.addr]);
    options.outbound.frames_max = usize::MAX;
    options.outbound.bytes_max = usize::MAX;
    let shard = Shard::start_with(&options, reactor);
    let client = shard.run(|talk, io| {
        let client = talk.add(io);
        for value in 0..100_000 {
            say(io, client, value);
        }
        let refused = io.send(client, |_, frame| frame.resize(4_097, 0));
        assert!(refused.unwrap_err().is_too_long());
        client
    });
    memories.until_received(1, 100_000);
    shard.run(move |_, io| {
        io.remove(client).unwrap();
        assert!(io.send(client, |_, _| {}).unwrap_err().is_stale());
        assert!(io.acknowledge(client, 0).unwrap_err().is_stale());
        assert!(io.write(client, b"x").unwrap_err().is_stale());
        assert!(io.is_empty() && io.remove(client).is_none());
    });
}

#[test]
fn a_frame_without_room_waits_although_full_queues_close() {
    const FRAMES: u64 = 5_000;
    const LENGTH: usize = 4_096;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let reactor = Options {
        write_bytes_max: LENGTH,
        write_low_bytes: LENGTH,
        when_full: WhenFull::Close,
        ..one_shard()
    };
    let mut options = options(&[listener.local_addr().unwrap()]);
    options.outbound.frames_max = usize::MAX;
    options.outbound.bytes_max = usize::MAX;
    let shard = Shard::start_with(&options, reactor);
    let client = shard.run(|talk, io| talk.add(io));
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut greeting = [0; 17];
    server.read_exact(&mut greeting).unwrap();
    let stands = shard.run(move |_, io| {
        io.established(client);
        for _ in 0..FRAMES {
            let frame = |number: u64, frame: &mut Vec<u8>| {
                frame.extend(number.to_be_bytes());
                frame.resize(LENGTH, 0);
            };
            io.send(client, frame).unwrap();
        }
        io.is_established(client)
    });
    assert!(stands, "the queue's own connection was closed");
    for number in 1..=FRAMES {
        let mut frame = [0; LENGTH];
        server.read_exact(&mut frame).unwrap();
        assert_eq!(frame[..8], number.to_be_bytes());
    }
}

#[test]
fn a_dead_endpoint_leads_to_the_next_and_the_first_is_preferred_by_policy() {
    for (prefer, home) in [(Prefer::First, 0), (Prefer::Last, 1)] {
        let memories = Memories::default();
        let (first, second) = (nobody(), Server::start(Mood::Steady, &memories));
        let mut options = options(&[first, second.addr]);
        options.reconnect.prefer = prefer;
        let shard = Shard::start(&options);
        let client = shard.run(|talk, io| talk.add(io));
        assert_eq!(shard.until_established(), 1);
        let _first = Server::start_at(first, Mood::Steady, &memories);
        hang_up(&shard, client);
        let loss = shard.until_lost();
        assert!(matches!(loss.why, Why::Closed(CloseReason::Local(7))));
        assert_eq!(shard.until_established(), home, "{prefer:?}");
    }
}

#[test]
fn a_server_that_does_not_welcome_is_given_up() {
    let memories = Memories::default();
    let mute = Server::start(Mood::Mute, &memories);
    let good = Server::start(Mood::Steady, &memories);
    let mut options = options(&[mute.addr, good.addr]);
    options.establish_within_ms = 20;
    let shard = Shard::start(&options);
    shard.run(|talk, io| talk.add(io));
    let loss = shard.until_lost();
    assert!(
        matches!(loss.why, Why::Closed(CloseReason::TimedOut)),
        "{loss:?}"
    );
    assert_eq!(shard.until_established(), 1);
}

#[test]
fn a_breaker_spares_the_tries_of_many_clients_and_closes_when_the_server_is_back() {
    const CLIENTS: usize = 50;
    let memories = Memories::default();
    let addr = nobody();
    let mut options = options(&[addr]);
    let mut breaker = Config::essay();
    breaker.failure_rate = FailureRate::Off;
    breaker.consecutive_failures = 3;
    breaker.open_ms = 30;
    breaker.open_max_ms = 30;
    breaker.probes_max = 1;
    breaker.successes_to_close = 1;
    options.reconnect.breaker = Some(breaker);
    let shard = Shard::start(&options);
    shard.run(|talk, io| {
        for _ in 0..CLIENTS {
            talk.add(io);
        }
    });
    let state = |shard: &Shard| shard.run(|_, io| io.endpoints().breaker(0, io.now_ms()).unwrap());
    for _ in 0..3 {
        shard.until_lost();
    }
    let patience = Instant::now() + PATIENCE;
    // Those that were under way when it opened end too; then one probe each time.
    while state(&shard) != State::Open {
        assert!(Instant::now() < patience);
    }
    let server = Server::start_at(addr, Mood::Steady, &memories);
    for _ in 0..CLIENTS {
        shard.until_established();
    }
    assert_eq!(state(&shard), State::Closed);
    assert_eq!(server.accepted(), CLIENTS);
}

#[test]
fn a_slot_from_the_server_is_when_the_client_comes_back() {
    let memories = Memories::default();
    let server = Server::start(Mood::Steady, &memories);
    let shard = Shard::start(&options(&[server.addr]));
    let client = shard.run(|talk, io| talk.add(io));
    shard.until_established();
    shard.run(move |_, io| {
        io.assign_slot(client, 77);
        io.hang_up(client, CloseReason::Local(1));
        io.hang_up(client, CloseReason::Local(2));
    });
    let loss = shard.until_lost();
    assert_eq!(loss.retry_in_ms, Some(77));
    assert!(matches!(loss.why, Why::Closed(CloseReason::Local(1))));
    shard.until_established();
    shard.run(move |_, io| {
        io.return_within(client, 0);
        io.hang_up(client, CloseReason::Local(1));
    });
    assert_eq!(shard.until_lost().retry_in_ms, Some(0));
}

#[test]
fn an_alarm_ends_with_its_session() {
    let memories = Memories::default();
    let server = Server::start(Mood::Steady, &memories);
    let shard = Shard::start(&options(&[server.addr]));
    let client = shard.run(|talk, io| talk.add(io));
    shard.until_established();
    shard.run(move |_, io| {
        assert!(io.set_alarm(client, 3_600_000));
        assert!(io.set_alarm(client, 1));
        // A peer that welcomes twice changes nothing.
        io.established(client);
    });
    assert!(matches!(shard.next(), Told::Alarm));
    shard.run(move |_, io| {
        assert!(io.set_alarm(client, 5));
        io.hang_up(client, CloseReason::Local(1));
    });
    assert!(matches!(shard.next(), Told::Lost(_)));
    assert!(matches!(shard.next(), Told::Established { .. }));
}

#[test]
fn a_removed_client_is_not_heard_of_again_and_its_slot_is_used_by_another() {
    let memories = Memories::default();
    let server = Server::start(Mood::Steady, &memories);
    let shard = Shard::start(&options(&[server.addr]));
    let first = shard.run(|talk, io| talk.add(io));
    shard.until_established();
    shard.run(move |_, io| {
        assert_eq!(io.remove(first), Some(1));
        assert!(!io.is_connected(first) && io.endpoint(first).is_none());
    });
    // In its first steps too.
    shard.run(|talk, io| {
        let client = talk.add(io);
        assert_eq!(io.remove(client), Some(2));
    });
    let third = shard.run(|talk, io| talk.add(io));
    assert_eq!((third.index(), third == first), (first.index(), false));
    match shard.next() {
        Told::Established { client: 3, .. } => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(shard.run(|_, io| io.clients()), [third]);
}

#[test]
fn a_stop_sends_what_is_queued_and_waits_for_the_peers_goodbye() {
    let memories = Memories::default();
    let server = Server::start(Mood::Steady, &memories);
    let mut shard = Shard::start(&options(&[server.addr, nobody()]));
    let client = shard.run(|talk, io| talk.add(io));
    shard.until_established();
    shard.run(move |talk, io| {
        for value in 0..1_000 {
            say(io, client, value);
        }
        talk.add(io);
        io.stop(60_000);
        assert!(io.add(0, 0).is_none());
    });
    shard.join();
    memories.until_received(1, 1_000);
    let loss = shard.until_lost();
    assert_eq!(loss.retry_in_ms, None);
    assert!(
        matches!(loss.why, Why::Closed(CloseReason::Shutdown)),
        "{loss:?}"
    );
    assert!(
        !memories.lock().contains_key(&2),
        "it had no connection yet"
    );
}

#[test]
fn a_shard_without_connections_stops_at_once() {
    let mut shard = Shard::start(&options(&[nobody()]));
    shard.run(|talk, io| {
        talk.add(io);
        io.stop(60_000);
    });
    shard.join();
}
