//! Input: whole, in pieces, with an end or urgent data behind it.

use std::io::{Read, Write};
use std::net::Shutdown;

use conn_reactor::{CloseReason, Options};
use rustix::net::{SendFlags, send};

use crate::rig::{Behaviour, Numbers, Rig, Seen, one_shard};

#[test]
fn many_connections_echo_frames_that_come_in_pieces() {
    let rig = Rig::start(
        Behaviour::EchoFrames,
        Options {
            shards: 2,
            ..Options::default()
        },
    );
    let mut numbers = Numbers(1);
    let mut clients: Vec<_> = (0..200).map(|_| (rig.client(), Vec::new(), 0)).collect();
    for (_, stream, _) in &mut clients {
        for _ in 0..20 {
            let length = numbers.below(256);
            stream.push(length as u8);
            stream.extend(numbers.bytes(length));
        }
    }
    // Pieces of 1 to 40 bytes, always of another connection.
    let mut unsent: Vec<usize> = (0..clients.len()).collect();
    while !unsent.is_empty() {
        let pick = numbers.below(unsent.len());
        let (client, stream, sent) = &mut clients[unsent[pick]];
        let end = (*sent + 1 + numbers.below(40)).min(stream.len());
        client.write_all(&stream[*sent..end]).unwrap();
        *sent = end;
        if end == stream.len() {
            unsent.swap_remove(pick);
        }
    }
    for (client, stream, _) in &mut clients {
        let mut echo = vec![0; stream.len()];
        client.read_exact(&mut echo).unwrap();
        assert!(echo == *stream, "a connection got other bytes than it sent");
    }
}

#[test]
fn memory_for_partial_input_is_given_back() {
    let rig = Rig::start(Behaviour::EchoFrames, one_shard());
    let (mut client, _) = rig.client_and_token();
    let gate = rig.hold_shard();
    client.write_all(&[3, 1, 2]).unwrap();
    drop(gate);
    let mut echo = [0; 4];
    client.write_all(&[3]).unwrap();
    client.read_exact(&mut echo).unwrap();
    assert_eq!(echo, [3, 1, 2, 3]);
}

#[test]
fn data_and_the_end_that_come_as_one_event_are_both_seen() {
    let rig = Rig::start(Behaviour::Sink, one_shard());
    let (mut client, token) = rig.client_and_token();
    let gate = rig.hold_shard();
    client.write_all(b"last words").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    drop(gate);
    assert_eq!(rig.next(), Seen::Data(token, b"last words".to_vec()));
    assert_eq!(rig.next(), Seen::PeerFinished(token));
    assert_eq!(rig.next(), Seen::Closed(token, 1, CloseReason::PeerClosed));
    assert_eq!(client.read(&mut [0; 9]).unwrap(), 0);
}

#[test]
fn bytes_behind_an_urgent_byte_are_read_without_another_edge() {
    let rig = Rig::start(Behaviour::Sink, one_shard());
    let (client, token) = rig.client_and_token();
    let gate = rig.hold_shard();
    send(&client, b"before", SendFlags::empty()).unwrap();
    send(&client, b"!", SendFlags::OOB).unwrap();
    send(&client, b"behind", SendFlags::empty()).unwrap();
    drop(gate);
    assert_eq!(rig.next(), Seen::Data(token, b"before".to_vec()));
    assert_eq!(rig.next(), Seen::Data(token, b"behind".to_vec()));
}

#[test]
fn a_half_closed_peer_still_gets_everything_queued_for_it() {
    let rig = Rig::start(Behaviour::Sink, one_shard());
    let (mut client, token) = rig.client_and_token();
    let piece = Numbers(2).bytes(50_000);
    let expected = piece.clone();
    let pieces = rig.on_shard(move |_, io| {
        let mut pieces = 0;
        while io.queued_bytes(token) == 0 {
            io.write(token, &piece).unwrap();
            pieces += 1;
        }
        pieces
    });
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rig.next(), Seen::PeerFinished(token));
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    assert_eq!(got.len(), pieces * expected.len());
    assert!(got.chunks(expected.len()).all(|chunk| chunk == expected));
    assert_eq!(rig.next(), Seen::Closed(token, 1, CloseReason::PeerClosed));
}

#[test]
fn input_left_unconsumed_comes_again_in_front_of_the_next() {
    let rig = Rig::start(Behaviour::Hold, one_shard());
    let (mut client, token) = rig.client_and_token();
    client.write_all(b"ab").unwrap();
    assert_eq!(rig.next(), Seen::Data(token, b"ab".to_vec()));
    client.write_all(b"cd").unwrap();
    assert_eq!(rig.next(), Seen::Data(token, b"abcd".to_vec()));
}

#[test]
fn more_unconsumed_input_than_the_limit_closes() {
    let options = Options {
        carry_bytes_max: 1000,
        ..one_shard()
    };
    let rig = Rig::start(Behaviour::Hold, options);
    let (mut client, token) = rig.client_and_token();
    client.write_all(&[7; 1000]).unwrap();
    match rig.next() {
        Seen::Data(_, bytes) => assert!(bytes.len() <= 1000),
        other => panic!("{other:?}"),
    }
    client.write_all(&[7]).unwrap();
    assert_eq!(rig.until_closed(token), CloseReason::InputTooLong);
}

#[test]
fn a_paused_connection_is_not_read_and_resuming_presents_what_was_left() {
    let rig = Rig::start(Behaviour::Hold, one_shard());
    let (mut client, token) = rig.client_and_token();
    client.write_all(b"one").unwrap();
    assert_eq!(rig.next(), Seen::Data(token, b"one".to_vec()));
    rig.on_shard(move |_, io| io.pause_reading(token));
    client.write_all(b"two").unwrap();
    // Another connection's bytes, sent later, get through; the paused one's do not.
    let (mut other, other_token) = rig.client_and_token();
    other.write_all(b"x").unwrap();
    assert_eq!(rig.next(), Seen::Data(other_token, b"x".to_vec()));
    rig.on_shard(move |_, io| io.resume_reading(token));
    assert_eq!(rig.next(), Seen::Data(token, b"one".to_vec()));
    assert_eq!(rig.next(), Seen::Data(token, b"onetwo".to_vec()));
}

#[test]
fn a_handler_that_resumes_what_it_leaves_cannot_keep_its_shard() {
    let rig = Rig::start(Behaviour::Restless, one_shard());
    let (mut client, token) = rig.client_and_token();
    client.write_all(b"again").unwrap();
    for _ in 0..2 {
        assert_eq!(rig.next(), Seen::Data(token, b"again".to_vec()));
    }
    // A job has its place between two turns of what was left.
    assert_eq!(rig.on_shard(|_, io| io.stats().reads), 1);
}

#[test]
fn a_pause_in_the_middle_of_the_input_holds_at_once() {
    let rig = Rig::start(
        Behaviour::Sink,
        Options {
            read_buffer_bytes: 4096,
            ..one_shard()
        },
    );
    let (mut client, token) = rig.client_and_token();
    rig.on_shard(|probe, _| probe.pause = true);
    let gate = rig.hold_shard();
    client.write_all(&[1; 20_000]).unwrap();
    drop(gate);
    assert_eq!(rig.next(), Seen::Data(token, vec![1; 4096]));
    rig.on_shard(|_, _| ());
    assert_eq!(rig.seen_so_far(), []);
    rig.on_shard(move |_, io| io.resume_reading(token));
    let mut rest = 20_000 - 4096;
    while rest > 0 {
        let Seen::Data(_, bytes) = rig.next() else {
            panic!("only data here")
        };
        rest -= bytes.len();
    }
}

#[test]
fn a_reset_is_seen_even_while_reading_is_paused() {
    let rig = Rig::start(Behaviour::Sink, one_shard());
    let (client, token) = rig.client_and_token();
    rig.on_shard(move |_, io| io.pause_reading(token));
    rustix::net::sockopt::set_socket_linger(&client, Some(std::time::Duration::ZERO)).unwrap();
    drop(client);
    assert_eq!(rig.until_closed(token), CloseReason::Reset);
}

#[test]
fn a_flood_cannot_keep_a_neighbour_waiting_longer_than_its_budget() {
    let options = Options {
        read_buffer_bytes: 4096,
        turn_budget_bytes: 8192,
        ..one_shard()
    };
    let rig = Rig::start(Behaviour::Sink, options);
    let (mut flood, flood_token) = rig.client_and_token();
    let (mut quiet, quiet_token) = rig.client_and_token();
    let gate = rig.hold_shard();
    // As much as the kernel takes while nobody reads.
    flood.set_nonblocking(true).unwrap();
    let mut flooded = 0;
    while let Ok(count) = flood.write(&[1; 65536]) {
        flooded += count;
    }
    quiet.write_all(b"me too").unwrap();
    drop(gate);
    assert!(flooded > 10 * 8192, "the kernel takes {flooded} bytes");
    let mut before = 0;
    loop {
        match rig.next() {
            Seen::Data(token, bytes) if token == flood_token => before += bytes.len(),
            Seen::Data(token, _) if token == quiet_token => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(before <= 8192, "the neighbour waited for {before} bytes");
    // What was left of the flood comes although no new edge does.
    while before < flooded {
        match rig.next() {
            Seen::Data(_, bytes) => before += bytes.len(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_turn_of_a_flood_is_bounded_in_both_directions() {
    const BUDGET: usize = 8192;
    const PIECES: usize = 128;
    let options = Options {
        turn_budget_bytes: BUDGET,
        ..one_shard()
    };
    let rig = Rig::start(Behaviour::Echo, options);
    let (mut flood, _) = rig.client_and_token();
    let mut sends = flood.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        for piece in 0..PIECES {
            sends.write_all(&[piece as u8; 65536]).unwrap();
        }
    });
    // Nobody reads the echoes until they fill the socket and the queue behind it.
    while rig.on_shard(|_, io| io.stats().writes_refused) == 0 {
        std::thread::yield_now();
    }
    let mut echo = vec![0; 65536];
    for piece in 0..PIECES {
        flood.read_exact(&mut echo).unwrap();
        assert!(echo.iter().all(|byte| *byte == piece as u8));
    }
    sender.join().unwrap();
    let most = rig.on_shard(|probe, _| probe.moved_in_a_turn) as usize;
    // A question of half the budget at most, begun in its last byte, and the answer.
    assert!(most <= BUDGET + BUDGET / 2, "a turn moved {most} bytes");
    assert!(most >= BUDGET / 2, "the budget is used: {most} bytes");
}
