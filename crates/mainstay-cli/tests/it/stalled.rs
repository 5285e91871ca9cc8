//! A gateway that stood still while a device was asked for a sign of life.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::support::process::Launch;

/// More than one turn of a shard fetches.
const CROWD: usize = 1_200;

/// A beat without load and round trip.
const BEAT: [u8; 9] = [3, 7, 1, 0, 0, 0, 255, 255, 255];

/// Longer than a holder has to answer its probe, `devices.probe_timeout_ms`.
const STALL: Duration = Duration::from_millis(1_500);

#[test]
fn a_holder_whose_answer_waits_behind_others_keeps_its_session() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Launch::new(dir.path().join("data"))
        .arg("--shards")
        .arg("1")
        .start();
    let mut crowd: Vec<_> = (0..CROWD)
        .map(|n| hello(gateway.listen, &format!("crowd-{n}"), 1))
        .collect();
    for device in &mut crowd {
        assert_eq!(kind(device), 2, "WELCOME");
    }
    let mut holder = hello(gateway.listen, "holder", 1);
    assert_eq!(kind(&mut holder), 2, "WELCOME");
    let mut newcomer = hello(gateway.listen, "holder", 2);
    assert_eq!(kind(&mut holder), 5, "PROBE");
    gateway.freeze_while(|| {
        for device in &mut crowd {
            device.write_all(&BEAT).unwrap();
        }
        holder.write_all(&BEAT).unwrap();
        std::thread::sleep(STALL);
    });
    assert_eq!(kind(&mut holder), 4, "BEAT-ACK");
    assert_eq!(kind(&mut newcomer), 10, "ERROR in-use");
}

/// Connects and says HELLO, with a beat once an hour.
fn hello(gateway: SocketAddr, id: &str, boot: u8) -> TcpStream {
    let mut stream = TcpStream::connect(gateway).unwrap();
    let mut body = vec![0];
    body.extend(3_600_000_u32.to_le_bytes());
    body.extend([boot; 16]);
    body.push(u8::try_from(id.len()).unwrap());
    body.extend(id.as_bytes());
    let len = u8::try_from(body.len()).unwrap();
    let said = [b"MST\x01", [1, len].as_slice(), &body].concat();
    stream.write_all(&said).unwrap();
    stream
}

/// Reads a frame of less than 128 bytes, and returns its kind.
fn kind(stream: &mut TcpStream) -> u8 {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    let mut body = vec![0; head[1].into()];
    stream.read_exact(&mut body).unwrap();
    head[0]
}
