//! Everything at once: peers that behave in every way, against shards with small limits.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use conn_reactor::Options;

use crate::rig::{Behaviour, Numbers, PATIENCE, Rig, Seen, in_own_process, post};

/// Each connection sends bytes of its own and must get back those, in their order, and nothing else, while shards are given
/// tokens of connections that have closed. Whatever peers did, each connection that was opened is closed once, and
/// descriptors and memory return. `cargo xtask soak reactor` asks for minutes of rounds of 900 peers.
#[test]
fn peers_of_every_kind_get_their_own_bytes_and_leave_nothing_behind() {
    in_own_process(
        "soak::peers_of_every_kind_get_their_own_bytes_and_leave_nothing_behind",
        || {
            let (rounds, minutes) = (asked("MAINSTAY_ROUNDS", 1), asked("MAINSTAY_MINUTES", 0));
            let (started, time) = (Instant::now(), Duration::from_secs(60 * minutes));
            let options = Options {
                shards: 2,
                connections_max: 20,
                read_buffer_bytes: 1000,
                turn_budget_bytes: 2000,
                write_bytes_max: 8000,
                write_low_bytes: 2000,
                linger_timeout_ms: 20,
                ..Options::default()
            };
            let mut rig = Rig::start(Behaviour::Echo, options);
            let (mut opened, mut round) = (0, 0);
            let mut warm = None;
            while round < rounds || started.elapsed() < time {
                opened += round_of_peers(&rig, round);
                // Allocators and thread pools have taken what they keep after some rounds.
                if round >= rounds / 10 && started.elapsed() >= time / 10 {
                    warm.get_or_insert_with(resident_kib);
                }
                round += 1;
            }
            let (warm, end) = (warm.expect("there is a round"), resident_kib());
            assert!(
                end <= warm + warm / 20 + 1024,
                "{warm} KiB early and {end} KiB at the end"
            );
            let probes = rig.stop();
            assert_eq!(opened, probes.iter().map(|probe| probe.opened).sum::<u64>());
            println!("{opened} connections, {warm} KiB early, {end} KiB at the end");
        },
    );
}

/// 900 peers, and what they left. Returns how many got in.
fn round_of_peers(rig: &Rig, round: u64) -> u64 {
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let (before, addr, shards) = (open(), rig.addr, &rig.senders);
    std::thread::scope(|scope| {
        for thread in 0..6 {
            scope.spawn(move || {
                let mut numbers = Numbers(round * 6 + thread);
                for peer in 0..150 {
                    misbehave(TcpStream::connect(addr).unwrap(), &mut numbers);
                    if peer % 10 == 0 {
                        let shard = &shards[numbers.below(shards.len())];
                        post(shard, Box::new(|probe, io| probe.use_stale_tokens(io)));
                    }
                }
            });
        }
    });
    // A turn takes what the listeners hold before it runs jobs, and what the first job waited for is behind us: if the second
    // finds no connection, none waits to be accepted either. (No count of descriptors alone says so.)
    let is_quiet = |shard| {
        rig.on_that_shard(shard, |_, _| ());
        rig.on_that_shard(shard, |_, io| io.connections()) == 0
    };
    let settled = (0..1_000_000).any(|_| {
        std::thread::yield_now();
        (0..shards.len()).all(is_quiet) && open() == before
    });
    assert!(settled, "{} descriptors, {before} before", open());
    let (mut opened, mut closed) = (0, 0);
    for seen in rig.seen_so_far() {
        match seen {
            Seen::Opened(..) => opened += 1,
            Seen::Closed(..) => closed += 1,
            _ => {}
        }
    }
    assert_eq!(opened, closed);
    assert!(
        opened >= 800,
        "nearly all of 900 peers got in, not {opened}"
    );
    opened
}

/// How many a soak asks for.
fn asked(variable: &str, otherwise: u64) -> u64 {
    let asked = std::env::var(variable);
    asked.map_or(otherwise, |text| {
        text.parse().expect("the variable is a number")
    })
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.unwrap().trim().trim_end_matches("kB").trim();
    kib.parse().unwrap()
}

fn misbehave(mut peer: TcpStream, numbers: &mut Numbers) {
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    peer.set_write_timeout(Some(PATIENCE)).unwrap();
    let count = numbers.below(6000);
    let mine = numbers.bytes(count);
    let kind = numbers.below(8);
    if kind == 7 {
        return write_slowly(&mut peer, &mine, numbers);
    }
    // A peer may be reset by the shard (its linger time is short), and says no more then.
    if peer.write_all(&mine).is_err() {
        return;
    }
    match kind {
        // Leaves without a word, with or without a reset.
        0 => {}
        1 => rustix::net::sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).unwrap(),
        // Ends its side and reads to the end, or does not read at all.
        2 => {
            peer.shutdown(Shutdown::Write).unwrap();
            let mut got = Vec::new();
            match peer.read_to_end(&mut got) {
                Ok(count) => assert_eq!(count, mine.len()),
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
            }
            assert!(mine.starts_with(&got), "a stranger's byte");
        }
        3 => peer.shutdown(Shutdown::Write).unwrap(),
        _ => expect_echo(&mut peer, &mine),
    }
}

/// A few bytes at a time, and now and then the echo of all that was sent.
fn write_slowly(peer: &mut TcpStream, mine: &[u8], numbers: &mut Numbers) {
    peer.set_nodelay(true).unwrap();
    let (mut sent, mut heard) = (0, 0);
    while sent < mine.len() {
        let piece = (1 + numbers.below(200)).min(mine.len() - sent);
        peer.write_all(&mine[sent..sent + piece]).unwrap();
        sent += piece;
        if numbers.below(3) == 0 {
            expect_echo(peer, &mine[heard..sent]);
            heard = sent;
        }
    }
}

/// In pieces, so that the shard finds the socket full.
fn expect_echo(peer: &mut TcpStream, mut mine: &[u8]) {
    let mut buffer = [0; 700];
    while !mine.is_empty() {
        let most = buffer.len().min(mine.len());
        let count = peer.read(&mut buffer[..most]).unwrap();
        assert!(count > 0, "the shard does not close this one");
        assert_eq!(buffer[..count], mine[..count], "a stranger's byte");
        mine = &mine[count..];
    }
}
