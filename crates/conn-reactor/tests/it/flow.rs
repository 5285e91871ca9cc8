//! Output: bounded queues, their marks, and peers that do not read.

use std::io::{Read, Write};

use conn_reactor::{CloseReason, Io, Options, Token, WhenFull, WriteError};

use crate::rig::{Behaviour, Numbers, Probe, Rig, Seen, one_shard};

#[test]
fn a_full_queue_refuses_whole_writes_and_says_when_it_has_drained() {
    let options = Options {
        write_bytes_max: 100_000,
        write_low_bytes: 20_000,
        ..one_shard()
    };
    let rig = Rig::start(Behaviour::Sink, options);
    let (mut client, token) = rig.client_and_token();
    let taken = rig.on_shard(move |_, io| {
        let mut numbers = Numbers(4);
        let mut taken = Vec::new();
        loop {
            let piece = numbers.bytes(7001);
            match io.write(token, &piece) {
                Ok(()) => taken.extend(piece),
                Err(error) => {
                    assert!(error.is_full());
                    assert!(io.queued_bytes(token) + 7001 > 100_000);
                    break taken;
                }
            }
            assert!(io.queued_bytes(token) <= 100_000);
        }
    });
    assert_eq!(rig.seen_so_far(), []);
    let mut got = vec![0; taken.len()];
    client.read_exact(&mut got).unwrap();
    assert!(got == taken, "other bytes than were taken");
    assert_eq!(rig.next(), Seen::Drained(token));
    let (queued, refused) = rig.on_shard(move |_, io| {
        io.write(token, b"after").unwrap();
        (io.queued_bytes(token), io.stats().writes_refused)
    });
    assert_eq!((queued, refused), (0, 1));
    client.read_exact(&mut got[..5]).unwrap();
    assert_eq!(&got[..5], b"after");
    assert_eq!(rig.seen_so_far(), [], "drained is said once");
}

#[test]
fn a_write_larger_than_the_queue_is_refused_even_when_nothing_is_queued() {
    let rig = Rig::start(
        Behaviour::Sink,
        Options {
            write_bytes_max: 10,
            ..one_shard()
        },
    );
    let (mut client, token) = rig.client_and_token();
    rig.on_shard(move |_, io| {
        assert!(io.write(token, &[0; 11]).unwrap_err().is_full());
        io.write(token, &[1; 10]).unwrap();
        io.close(token, CloseReason::Local(0));
    });
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    assert_eq!(got, [1; 10]);
}

#[test]
fn a_write_to_a_reset_connection_reports_closing_and_closes() {
    let rig = Rig::start(Behaviour::Sink, one_shard());
    let (client, token) = rig.client_and_token();
    rig.on_shard(move |_, io| {
        rustix::net::sockopt::set_socket_linger(&client, Some(std::time::Duration::ZERO)).unwrap();
        // On the loopback the reset has arrived when close returns.
        drop(client);
        assert!(io.write(token, b"x").unwrap_err().is_closing());
        assert!(io.write(token, b"x").unwrap_err().is_closing());
        assert_eq!(
            io.state(token).copied(),
            Some(1),
            "the state stays until closed()"
        );
    });
    assert_eq!(rig.next(), Seen::Closed(token, 1, CloseReason::Reset));
}

#[test]
fn drained_tells_of_queues_that_were_above_the_low_mark_and_of_no_others() {
    let options = Options {
        write_bytes_max: 100_000,
        write_low_bytes: 20_000,
        ..one_shard()
    };
    let rig = Rig::start(Behaviour::Sink, options);
    let (mut client, token) = rig.client_and_token();
    for (least, expected) in [(1, None), (30_000, Some(Seen::Drained(token)))] {
        let taken = rig.on_shard(move |_, io| {
            let mut taken = 0;
            while io.queued_bytes(token) < least {
                io.write(token, &[9; 5000]).unwrap();
                taken += 5000;
            }
            taken
        });
        client.read_exact(&mut vec![0; taken]).unwrap();
        assert_eq!(rig.on_shard(move |_, io| io.queued_bytes(token)), 0);
        assert_eq!(rig.seen_so_far().pop(), expected);
    }
}

fn small_queue(when_full: WhenFull) -> Options {
    Options {
        write_bytes_max: 100_000,
        write_low_bytes: 20_000,
        when_full,
        ..one_shard()
    }
}

/// Writes until the queue takes no more; what went in, and what the last write said.
fn fill(io: &mut Io<Probe>, token: Token) -> (usize, WriteError) {
    let mut taken = 0;
    loop {
        match io.write(token, &[7; 5_000]) {
            Ok(()) => taken += 5_000,
            Err(error) => return (taken, error),
        }
    }
}

#[test]
fn a_full_queue_pauses_reading_until_it_has_drained_if_it_is_told_to() {
    let rig = Rig::start(Behaviour::Sink, small_queue(WhenFull::PauseReading));
    let (mut client, token) = rig.client_and_token();
    let (taken, error) = rig.on_shard(move |_, io| fill(io, token));
    assert!(error.is_full());
    client.write_all(b"a question").unwrap();
    // Two turns, of which the second has seen the input.
    rig.on_shard(|_, _| ());
    rig.on_shard(|_, _| ());
    assert_eq!(rig.seen_so_far(), []);
    client.read_exact(&mut vec![0; taken]).unwrap();
    assert_eq!(rig.next(), Seen::Drained(token));
    assert_eq!(rig.next(), Seen::Data(token, b"a question".to_vec()));
}

#[test]
fn a_handlers_own_pause_outlives_the_full_queue() {
    let rig = Rig::start(Behaviour::Sink, small_queue(WhenFull::PauseReading));
    let (mut client, token) = rig.client_and_token();
    let taken = rig.on_shard(move |_, io| {
        let (taken, _) = fill(io, token);
        io.pause_reading(token);
        taken
    });
    client.write_all(b"a question").unwrap();
    client.read_exact(&mut vec![0; taken]).unwrap();
    assert_eq!(rig.next(), Seen::Drained(token));
    rig.on_shard(|_, _| ());
    assert_eq!(rig.seen_so_far(), []);
    rig.on_shard(move |_, io| io.resume_reading(token));
    assert_eq!(rig.next(), Seen::Data(token, b"a question".to_vec()));
}

#[test]
fn a_full_queue_closes_its_connection_if_it_is_told_to() {
    let rig = Rig::start(Behaviour::Sink, small_queue(WhenFull::Close));
    let (_client, token) = rig.client_and_token();
    let (_, error) = rig.on_shard(move |_, io| fill(io, token));
    assert!(error.is_closing());
    assert_eq!(rig.next(), Seen::Closed(token, 1, CloseReason::SlowReader));
}
