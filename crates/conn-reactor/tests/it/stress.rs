//! No edge is lost: whatever the rhythm of writers and readers, every byte comes back.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use conn_reactor::Options;

use crate::rig::{Behaviour, Numbers, Rig};

#[test]
fn every_byte_comes_back_whatever_the_rhythm() {
    // Small buffers and queues, so that short reads, full sockets, pauses and leftovers all happen.
    let options = Options {
        shards: 2,
        read_buffer_bytes: 512,
        turn_budget_bytes: 1024,
        write_bytes_max: 4096,
        write_low_bytes: 1024,
        carry_bytes_max: 4096,
        ..Options::default()
    };
    let rig = Rig::start(Behaviour::Echo, options);
    std::thread::scope(|scope| {
        for seed in 0..8 {
            let client = rig.client();
            scope.spawn(move || echo_with_rhythm(client, seed));
        }
    });
}

fn echo_with_rhythm(mut client: TcpStream, seed: u64) {
    let mut numbers = Numbers(seed);
    let sent = numbers.bytes(150_000);
    let mut writer = client.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut numbers = Numbers(seed + 100);
            let mut rest = &sent[..];
            while !rest.is_empty() {
                // Odd seeds flood, even ones trickle.
                let most = if seed % 2 == 1 { 20_000 } else { 90 };
                let (piece, after) = rest.split_at((1 + numbers.below(most)).min(rest.len()));
                writer.write_all(piece).unwrap();
                rest = after;
                for _ in 0..numbers.below(4) {
                    std::thread::yield_now();
                }
            }
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut echo = Vec::new();
        let mut buffer = [0; 3000];
        loop {
            let most = 1 + numbers.below(buffer.len());
            match client.read(&mut buffer[..most]).unwrap() {
                0 => break,
                count => echo.extend_from_slice(&buffer[..count]),
            }
            for _ in 0..numbers.below(3) {
                std::thread::yield_now();
            }
        }
        assert!(
            echo == sent,
            "{} of {} bytes came back",
            echo.len(),
            sent.len()
        );
    });
}
