//! What happens at the limits: of connections, of descriptors, of the options.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use conn_reactor::{CloseReason, Options, Reactor};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::rig::{Behaviour, Probe, Rig, Seen, in_own_process, one_shard, post};

#[test]
fn at_connections_max_peers_wait_in_the_backlog_until_one_leaves() {
    let rig = Rig::start(
        Behaviour::Echo,
        Options {
            connections_max: 3,
            ..one_shard()
        },
    );
    let mut inside: Vec<_> = (0..3).map(|_| rig.client_and_token()).collect();
    let mut outside: Vec<_> = (0..2).map(|_| rig.client()).collect();
    let (addr, expected) = (rig.addr, Err(ErrorKind::QuotaExceeded));
    let connected =
        rig.on_shard(move |_, io| io.connect(addr, None, 0).map_err(|error| error.kind()));
    assert_eq!(connected, expected);
    for (client, _) in &mut inside {
        echo_once(client);
    }
    assert_eq!(rig.seen_so_far(), [], "nobody else was accepted");
    let waits = rig.on_shard(|_, io| io.stats().waits);
    for outside in &mut outside {
        let (client, token) = inside.remove(0);
        drop(client);
        rig.until_closed(token);
        assert!(matches!(rig.next(), Seen::Opened(..)));
        echo_once(outside);
    }
    let waited = rig.on_shard(|_, io| io.stats().waits) - waits;
    assert!(
        waited < 50,
        "a paused listener must not make the loop spin: {waited} waits"
    );
}

#[test]
fn out_of_descriptors_accepting_pauses_without_spinning_and_goes_on() {
    in_own_process(
        "limits::out_of_descriptors_accepting_pauses_without_spinning_and_goes_on",
        || {
            let options = Options {
                accept_retry_ms: 10,
                ..one_shard()
            };
            let rig = Rig::start(Behaviour::Echo, options);
            let mut client_inside = rig.client();
            echo_once(&mut client_inside);
            // The clients take their descriptors first; the limit then leaves none for the accepted ends.
            let mut clients: Vec<_> = (0..5).map(|_| rig.client()).collect();
            let gate = rig.hold_shard();
            clients.extend((0..5).map(|_| rig.client()));
            let old = getrlimit(Resource::Nofile);
            setrlimit(
                Resource::Nofile,
                Rlimit {
                    current: Some(3),
                    maximum: old.maximum,
                },
            )
            .unwrap();
            drop(gate);
            // The connection inside works on; accepting has paused meanwhile at least twice (by its retry).
            let paused_twice = (0..1_000_000).any(|_| {
                echo_once(&mut client_inside);
                rig.on_shard(|_, io| io.stats().accept_pauses) >= 2
            });
            assert!(paused_twice, "accepting never paused");
            let (errors, pauses) =
                rig.on_shard(|_, io| (io.stats().accept_errors, io.stats().accept_pauses));
            assert_eq!(errors, pauses, "one try per pause");
            setrlimit(Resource::Nofile, old).unwrap();
            for client in &mut clients {
                echo_once(client);
            }
        },
    );
}

#[test]
fn shards_share_a_port_and_all_their_connections_are_served() {
    let rig = Rig::start(
        Behaviour::Echo,
        Options {
            shards: 3,
            ..Options::default()
        },
    );
    let mut clients: Vec<_> = (0..100).map(|_| rig.client()).collect();
    for client in &mut clients {
        echo_once(client);
    }
    let mut counts: Vec<usize> = Vec::new();
    for sender in &rig.senders {
        let (count_in, count) = std::sync::mpsc::channel();
        let job = move |_: &mut Probe, io: &mut conn_reactor::Io<Probe>| {
            count_in.send(io.connections()).unwrap()
        };
        post(sender, Box::new(job));
        counts.push(count.recv().unwrap());
    }
    assert_eq!(counts.iter().sum::<usize>(), 100);
    // Elsewhere the shards share one listener, and whoever is awake takes more.
    let spread = cfg!(target_os = "linux") && !cfg!(conn_reactor_portable);
    let served = counts.iter().filter(|count| **count > 0).count();
    assert!(
        !spread || served == 3,
        "the kernel spreads over the shards: {counts:?}"
    );
}

#[test]
fn after_stop_accepting_connections_are_refused_and_the_open_ones_live() {
    let rig = Rig::start(Behaviour::Echo, one_shard());
    let (mut client, token) = rig.client_and_token();
    rig.on_shard(|_, io| io.stop_accepting());
    assert_eq!(
        TcpStream::connect(rig.addr).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
    echo_once(&mut client);
    rig.on_shard(move |_, io| io.close(token, CloseReason::Local(1)));
    assert_eq!(client.read(&mut [0; 9]).unwrap(), 0);
}

#[test]
fn options_that_cannot_work_are_refused_by_name() {
    let options = Options {
        accept_batch: 0,
        ..Options::default()
    };
    let built = Reactor::<Probe>::builder(options).build(|_| unreachable!("no shard is made"));
    let error = built.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("accept_batch"));
}

#[test]
fn an_address_in_use_is_an_error_whatever_the_number_of_shards() {
    let rig = Rig::start(
        Behaviour::Echo,
        Options {
            shards: 2,
            ..Options::default()
        },
    );
    for shards in [1, 2] {
        let options = Options {
            shards,
            ..Options::default()
        };
        let built = Reactor::<Probe>::builder(options)
            .listen(rig.addr)
            .build(|_| unreachable!());
        assert_eq!(built.err().unwrap().kind(), ErrorKind::AddrInUse);
    }
    let elsewhere = (Ipv4Addr::new(127, 0, 0, 9), 0).into();
    let fine = Reactor::<Probe>::builder(one_shard()).listen(elsewhere);
    assert!(format!("{fine:?}").contains("127.0.0.9"));
}

fn echo_once(client: &mut TcpStream) {
    client.write_all(b"ping").unwrap();
    let mut echo = [0; 4];
    client.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"ping");
}
