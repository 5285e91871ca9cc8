//! How connections end: by either side, at once or drained, and what their tokens are worth then.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use conn_reactor::CloseReason;

use crate::rig::{Behaviour, Numbers, Rig, Seen, in_own_process, one_shard};

#[test]
fn a_reset_closes_with_its_reason() {
    let rig = Rig::start(Behaviour::Sink, one_shard());
    let (client, token) = rig.client_and_token();
    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
    drop(client);
    assert_eq!(rig.next(), Seen::Closed(token, 1, CloseReason::Reset));
}

#[test]
fn a_stale_token_is_an_error_and_never_the_next_connection() {
    let rig = Rig::start(Behaviour::Sink, one_shard());
    let (mut first_client, first) = rig.client_and_token();
    rig.on_shard(move |_, io| {
        io.close(first, CloseReason::Local(7));
        io.close(first, CloseReason::Local(8));
    });
    assert_eq!(rig.next(), Seen::Closed(first, 1, CloseReason::Local(7)));
    assert_eq!(first_client.read(&mut [0; 9]).unwrap(), 0);
    let (mut second_client, second) = rig.client_and_token();
    assert_eq!(second.slot(), first.slot(), "the slot is used again");
    let stale = rig.on_shard(move |_, io| {
        let before = io.stats().stale_tokens;
        assert_eq!(io.state(first), None);
        assert!(io.write(first, b"for the first").unwrap_err().is_stale());
        io.close(first, CloseReason::Local(9));
        io.close_after_flush(first, CloseReason::Local(9), 1);
        io.pause_reading(first);
        io.resume_reading(first);
        assert_eq!(io.queued_bytes(first), 0);
        assert_eq!(io.peer(first), None);
        assert_eq!(io.state(second).copied(), Some(2));
        io.write(second, b"for the second").unwrap();
        io.stats().stale_tokens - before
    });
    assert_eq!(stale, 4);
    let mut got = [0; 14];
    second_client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"for the second");
    assert_eq!(rig.seen_so_far(), []);
}

#[test]
fn events_of_a_connection_closed_in_the_same_batch_reach_nobody() {
    let rig = Rig::start(Behaviour::Sink, one_shard());
    let (mut one, one_token) = rig.client_and_token();
    let (mut two, two_token) = rig.client_and_token();
    rig.on_shard(move |probe, _| probe.victim = Some(two_token));
    let gate = rig.hold_shard();
    one.write_all(b"1").unwrap();
    two.write_all(b"2").unwrap();
    // Both events are fetched together; the first one's handler closes the second connection.
    let mut three = rig.client();
    three.write_all(b"3").unwrap();
    drop(gate);
    let mut data = Vec::new();
    let mut three_token = None;
    while data.len() < 2 {
        match rig.next() {
            Seen::Data(token, bytes) => data.push((token, bytes)),
            Seen::Opened(token, _) => three_token = Some(token),
            Seen::Closed(token, ..) => assert_eq!(token, two_token),
            other => panic!("{other:?}"),
        }
    }
    // The event of the second, and the probe that looked for its state.
    assert_eq!(rig.on_shard(|_, io| io.stats().stale_tokens), 2);
    data.sort();
    let mut expected = vec![
        (one_token, b"1".to_vec()),
        (three_token.unwrap(), b"3".to_vec()),
    ];
    expected.sort();
    assert_eq!(data, expected);
}

#[test]
fn close_after_flush_sends_everything_then_ends_the_stream() {
    let rig = Rig::start(Behaviour::Sink, one_shard());
    let (mut client, token) = rig.client_and_token();
    let sent = Numbers(3).bytes(200_000);
    let expected = sent.clone();
    rig.on_shard(move |_, io| {
        // Twice, so that the kernel's buffer does not take all of it.
        while io.queued_bytes(token) == 0 {
            io.write(token, &sent).unwrap();
        }
        io.close_after_flush(token, CloseReason::Local(3), 60_000);
        assert!(io.write(token, b"too late").unwrap_err().is_closing());
    });
    client.write_all(b"nobody reads this").unwrap();
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    assert!(!got.is_empty() && got.chunks(200_000).all(|chunk| chunk == expected));
    drop(client);
    assert_eq!(rig.next(), Seen::Closed(token, 1, CloseReason::Local(3)));
}

#[test]
fn a_drain_ends_when_its_time_is_up() {
    let rig = Rig::start(Behaviour::Sink, one_shard());
    let (mut silent, silent_token) = rig.client_and_token();
    rig.on_shard(move |_, io| io.close_after_flush(silent_token, CloseReason::Local(4), 20));
    assert_eq!(silent.read(&mut [0; 9]).unwrap(), 0, "FIN came");
    assert_eq!(
        rig.next(),
        Seen::Closed(silent_token, 1, CloseReason::Local(4))
    );

    let (_deaf, deaf_token) = rig.client_and_token();
    rig.on_shard(move |_, io| {
        while io.queued_bytes(deaf_token) == 0 {
            io.write(deaf_token, &[0; 200_000]).unwrap();
        }
        io.close_after_flush(deaf_token, CloseReason::Local(5), 20);
    });
    assert_eq!(
        rig.next(),
        Seen::Closed(deaf_token, 2, CloseReason::FlushTimeout)
    );
}

#[test]
fn a_drain_ends_early_when_the_peer_has_ended_already() {
    let rig = Rig::start(Behaviour::Hold, one_shard());
    let (mut client, token) = rig.client_and_token();
    rig.on_shard(move |_, io| io.pause_reading(token));
    client.write_all(b"unread").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    // The end of the stream waits behind the pause; draining must go and find it.
    rig.on_shard(move |_, io| io.close_after_flush(token, CloseReason::Local(6), 600_000));
    assert_eq!(rig.until_closed(token), CloseReason::Local(6));
}

#[test]
fn a_refused_connection_is_closed_without_a_callback() {
    let rig = Rig::start(Behaviour::Refuse, one_shard());
    let mut client = rig.client();
    assert_eq!(client.read(&mut [0; 9]).unwrap(), 0);
    let (accepts, closes) = rig.on_shard(|_, io| (io.stats().accepts, io.stats().closes));
    assert_eq!((accepts, closes), (1, 1));
    assert_eq!(rig.seen_so_far(), []);
}

#[test]
fn stopping_closes_each_connection_once_and_refuses_messages() {
    let mut rig = Rig::start(Behaviour::Sink, one_shard());
    let mut clients: Vec<_> = (0..20).map(|_| rig.client_and_token()).collect();
    let known: Vec<_> = clients.iter().map(|(_, token)| *token).collect();
    rig.on_shard(move |_, io| {
        let mut tokens = io.tokens();
        tokens.sort();
        assert_eq!(tokens, known, "slots were given out in order");
        io.stop();
        assert!(io.connect(([127, 0, 0, 1], 1).into(), None, 0).is_err());
    });
    let running = rig.running.take().unwrap();
    let handlers = running.join().unwrap();
    assert_eq!(handlers.len(), 1);
    let mut seen = rig.seen_so_far();
    for (index, (client, token)) in clients.iter_mut().enumerate() {
        let expected = Seen::Closed(*token, index as u64 + 1, CloseReason::Shutdown);
        let at = seen
            .iter()
            .position(|one| *one == expected)
            .expect("each is closed");
        seen.swap_remove(at);
        assert_eq!(client.read(&mut [0; 9]).unwrap(), 0);
    }
    assert_eq!(seen, []);
    assert!(
        rig.senders[0]
            .try_send(Box::new(|_, _| {}))
            .unwrap_err()
            .is_stopped()
    );
    assert!(
        std::net::TcpStream::connect(rig.addr).is_err(),
        "nobody listens any more"
    );
}

#[test]
fn a_panicking_handler_ends_its_shard_and_is_reported() {
    let mut rig = Rig::start(Behaviour::Panic, one_shard());
    let (mut client, _) = rig.client_and_token();
    client.write_all(b"x").unwrap();
    let error = rig
        .running
        .take()
        .unwrap()
        .join()
        .err()
        .expect("the shard panicked");
    assert!(error.to_string().contains("told to panic"), "{error}");
    assert!(
        rig.senders[0]
            .try_send(Box::new(|_, _| {}))
            .unwrap_err()
            .is_stopped()
    );
    let end = client.read(&mut [0; 9]);
    assert!(matches!(end, Ok(0) | Err(_)), "the descriptor is closed");
}

#[test]
fn every_way_to_end_gives_its_descriptor_back() {
    in_own_process(
        "closing::every_way_to_end_gives_its_descriptor_back",
        || {
            let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
            let before = open();
            let mut rig = Rig::start(Behaviour::Sink, one_shard());
            let running = open();
            for round in 0..40 {
                let (client, token) = rig.client_and_token();
                match round % 4 {
                    0 => drop(client),
                    1 => {
                        rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO))
                            .unwrap();
                        drop(client);
                    }
                    2 => rig.on_shard(move |_, io| io.close(token, CloseReason::Local(1))),
                    _ => {
                        rig.on_shard(move |_, io| {
                            io.close_after_flush(token, CloseReason::Local(1), 60_000);
                        });
                        drop(client);
                    }
                }
                rig.until_closed(token);
                let addr = rig.addr;
                let port_of_nobody = ([127, 0, 0, 1], 1).into();
                rig.on_shard(move |_, io| {
                    io.connect(addr, None, 1).unwrap();
                    io.connect(port_of_nobody, None, 2).unwrap();
                });
                // In any order: the packets of the two connects may be waiting on different processors.
                let (mut opened, mut failed) = (0, 0);
                rig.until(|seen| {
                    opened += usize::from(matches!(seen, Seen::Opened(..)));
                    failed += usize::from(matches!(seen, Seen::ConnectFailed(2, _)));
                    (opened, failed) == (2, 1)
                });
            }
            // 40 own connects are still open, with an accepted end each.
            assert_eq!(rig.on_shard(|_, io| io.connections()), 80);
            assert_eq!(open(), running + 80);
            rig.stop();
            // A sender keeps its shard's eventfd.
            rig.senders.clear();
            assert_eq!(open(), before);
        },
    );
}
