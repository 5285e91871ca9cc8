//! Everything at once: peers that behave in every way, against shards with small limits.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use conn_reactor::Options;

use crate::rig::{Behaviour, Numbers, PATIENCE, Rig, Seen, in_own_process};

/// Each connection sends its own byte, over and over, and must never get another one back. Whatever peers did, each
/// connection that was opened is closed once, and descriptors and memory return. `cargo xtask soak reactor` asks for
/// more rounds of 900 peers by MAINSTAY_ROUNDS.
#[test]
fn peers_of_every_kind_get_their_own_bytes_and_leave_nothing_behind() {
    in_own_process(
        "soak::peers_of_every_kind_get_their_own_bytes_and_leave_nothing_behind",
        || {
            let rounds = std::env::var("MAINSTAY_ROUNDS").map_or(1, |rounds| {
                rounds.parse::<u64>().expect("MAINSTAY_ROUNDS is a number")
            });
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
            let mut opened = 0;
            let mut warm = None;
            for round in 0..rounds {
                opened += round_of_peers(&rig, round);
                // Allocators and thread pools have taken what they keep after some rounds.
                if round == rounds / 10 {
                    warm = Some(resident_kib());
                }
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
    let (before, addr) = (open(), rig.addr);
    std::thread::scope(|scope| {
        for thread in 0..6 {
            scope.spawn(move || {
                let mut numbers = Numbers(round * 6 + thread);
                for _ in 0..150 {
                    misbehave(TcpStream::connect(addr).unwrap(), &mut numbers);
                }
            });
        }
    });
    // Descriptors of peers are closed; the shards see that by and by.
    let settled = (0..10_000_000).any(|_| {
        std::thread::yield_now();
        open() == before
    });
    assert!(settled, "{} descriptors, {before} before", open());
    // A connection is closed before its handler is told; a job on each shard comes behind that.
    for shard in 0..rig.senders.len() {
        rig.on_that_shard(shard, |_, _| ());
    }
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

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.unwrap().trim().trim_end_matches("kB").trim();
    kib.parse().unwrap()
}

fn misbehave(mut peer: TcpStream, numbers: &mut Numbers) {
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    peer.set_write_timeout(Some(PATIENCE)).unwrap();
    let mine = numbers.next() as u8;
    let sent = numbers.below(6000);
    let kind = numbers.below(6);
    // A peer may be reset by the shard (its linger time is short), and says no more then.
    if peer.write_all(&vec![mine; sent]).is_err() {
        return;
    }
    match kind {
        // Leaves without a word, with or without a reset.
        0 => return,
        1 => return rustix::net::sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).unwrap(),
        // Ends its side and reads to the end, or does not read at all.
        2 => {
            peer.shutdown(Shutdown::Write).unwrap();
            let mut got = Vec::new();
            match peer.read_to_end(&mut got) {
                Ok(count) => assert_eq!(count, sent),
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
            }
            return assert!(got.iter().all(|byte| *byte == mine), "a stranger's byte");
        }
        3 => return peer.shutdown(Shutdown::Write).unwrap(),
        _ => {}
    }
    let mut rest = sent;
    let mut buffer = [0; 700];
    while rest > 0 {
        let most = buffer.len().min(rest);
        let count = peer.read(&mut buffer[..most]).unwrap();
        assert!(count > 0, "the shard does not close this one");
        assert!(
            buffer[..count].iter().all(|byte| *byte == mine),
            "a stranger's byte"
        );
        rest -= count;
    }
}
