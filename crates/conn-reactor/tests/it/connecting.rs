//! Own connects.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener};

use conn_reactor::{CloseReason, Opened, Options};

use crate::rig::{Behaviour, Rig, Seen, nobody, one_shard};

#[test]
fn a_connect_ends_in_opened_with_its_tag_and_its_local_address() {
    let rig = Rig::start(Behaviour::Echo, one_shard());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    rig.on_shard(move |_, io| {
        io.connect(addr, Some(([127, 0, 0, 5], 0).into()), 77)
            .unwrap();
        assert_eq!(io.connections(), 0);
    });
    let (mut server, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip(), SocketAddr::from(([127, 0, 0, 5], 0)).ip());
    let Seen::Opened(token, opened) = rig.next() else {
        panic!("it connects")
    };
    assert_eq!(
        opened,
        Opened::Connected {
            tag: 77,
            peer: addr
        }
    );
    assert_eq!(opened.peer(), addr);
    server.write_all(b"echo me").unwrap();
    let mut echo = [0; 7];
    server.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"echo me");
    assert_eq!(
        rig.on_shard(move |_, io| (io.peer(token), io.connections())),
        (Some(addr), 1)
    );
    drop(server);
    assert_eq!(rig.until_closed(token), CloseReason::PeerClosed);
}

#[test]
fn bytes_that_came_before_the_connect_was_noticed_are_read() {
    let rig = Rig::start(Behaviour::Sink, one_shard());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    rig.on_shard(move |_, io| {
        io.connect(addr, None, 1).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(b"greeting").unwrap();
    });
    let Seen::Opened(token, _) = rig.next() else {
        panic!("it connects")
    };
    assert_eq!(rig.next(), Seen::Data(token, b"greeting".to_vec()));
    assert_eq!(rig.until_closed(token), CloseReason::PeerClosed);
}

#[test]
fn a_refused_connect_says_so() {
    let rig = Rig::start(Behaviour::Echo, one_shard());
    let addr = nobody();
    rig.on_shard(move |_, io| io.connect(addr, None, 5).unwrap());
    assert_eq!(
        rig.next(),
        Seen::ConnectFailed(5, ErrorKind::ConnectionRefused)
    );
}

#[test]
fn a_connect_without_an_answer_times_out() {
    let rig = Rig::start(
        Behaviour::Echo,
        Options {
            connect_timeout_ms: 30,
            ..one_shard()
        },
    );
    let full = full_listener();
    let addr = full.0;
    rig.on_shard(move |_, io| io.connect(addr, None, 6).unwrap());
    assert_eq!(rig.next(), Seen::ConnectFailed(6, ErrorKind::TimedOut));
    assert_eq!(
        rig.on_shard(|_, io| (io.connections(), io.stats().connect_errors)),
        (0, 1)
    );
}

#[test]
fn a_connect_that_failed_has_closed_its_socket_when_the_handler_is_told() {
    let options = Options {
        connect_timeout_ms: 30,
        ..one_shard()
    };
    let rig = Rig::start(Behaviour::Echo, options);
    let full = full_listener();
    let (addr, from) = (full.0, nobody());
    rig.on_shard(move |probe, io| {
        probe.retry = Some((addr, from));
        io.connect(addr, Some(from), 1).unwrap();
    });
    assert_eq!(rig.next(), Seen::ConnectFailed(1, ErrorKind::TimedOut));
    assert_eq!(rig.next(), Seen::ConnectFailed(2, ErrorKind::TimedOut));
}

/// TCP lets a socket connect to its own address (both sides open at once), which a client of this machine comes to by chance
/// when nobody listens there: it would talk to itself, and hold the port that its server needs.
#[test]
fn a_connect_that_meets_itself_is_refused() {
    let rig = Rig::start(Behaviour::Echo, one_shard());
    let addr = nobody();
    rig.on_shard(move |_, io| io.connect(addr, Some(addr), 3).unwrap());
    assert_eq!(
        rig.next(),
        Seen::ConnectFailed(3, ErrorKind::ConnectionRefused)
    );
    TcpListener::bind(addr).expect("the port is free");
}

#[test]
fn a_shard_that_stops_fails_the_connects_under_way() {
    let mut rig = Rig::start(Behaviour::Echo, one_shard());
    let full = full_listener();
    let addr = full.0;
    rig.on_shard(move |_, io| io.connect(addr, None, 8).unwrap());
    rig.stop();
    assert_eq!(
        rig.next(),
        Seen::ConnectFailed(8, ErrorKind::ConnectionAborted)
    );
}

/// A listener whose backlog is full, so that the kernel answers no SYN; what keeps it so is in the second part.
fn full_listener() -> (SocketAddr, impl Sized) {
    use rustix::net::{AddressFamily, SocketType, bind, connect, getsockname, listen, socket};
    let socket = || socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let listener = socket();
    bind(&listener, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    listen(&listener, 0).unwrap();
    let addr = SocketAddr::try_from(getsockname(&listener).unwrap()).unwrap();
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let client = socket();
            rustix::io::ioctl_fionbio(&client, true).unwrap();
            let _ = connect(&client, &addr);
            client
        })
        .collect();
    (addr, (listener, waiting))
}
