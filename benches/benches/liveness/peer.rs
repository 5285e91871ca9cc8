//! The peers of one fault: a process with some connections to each server, spread in time.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use heartbeat_codec::fixed::FixedBeat;

use super::Result;
use super::layers::BEAT_MS;

/// Connections of one fault to one server.
pub(crate) const CONNECTIONS: usize = 8;

/// From one of them to the next: spreads them over the 3 s of a beat and the 6 s of keepalive's idle time.
const APART: Duration = Duration::from_millis(825);

const TICK: Duration = Duration::from_millis(10);

/// A server as it is told to the peers: its port, with a plus when it hears beats.
pub(crate) fn door(port: u16, hears_beats: bool) -> String {
    format!("{}{port}", if hears_beats { "+" } else { "" })
}

/// Connects and beats; when stdin ends, resets all connections.
pub(crate) fn run(fault: u8, server: &str, doors: &[&str]) -> Result<()> {
    // A stopped process would outlive a bench that fails.
    let end = Some(rustix::process::Signal::KILL);
    rustix::process::set_parent_process_death_signal(end)?;
    let ended = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&ended);
    std::thread::spawn(move || {
        // However it ends, it has ended.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        told.store(true, Ordering::Relaxed);
    });
    let start = Instant::now();
    let mut peers = Vec::new();
    while !ended.load(Ordering::Relaxed) {
        let due = APART * (peers.len() / doors.len()) as u32;
        if peers.len() < doors.len() * CONNECTIONS && start.elapsed() >= due {
            peers.push(Peer::connect(
                fault,
                server,
                doors[peers.len() % doors.len()],
            )?);
            continue;
        }
        peers.iter_mut().for_each(|peer| peer.turn(start));
        std::thread::sleep(TICK);
    }
    for peer in &peers {
        rustix::net::sockopt::set_socket_linger(&peer.socket, Some(Duration::ZERO))?;
    }
    Ok(())
}

struct Peer {
    socket: TcpStream,
    /// When the next beat is due.
    beat: Option<Instant>,
    /// The server has given it up.
    gone: bool,
}

impl Peer {
    fn connect(fault: u8, server: &str, door: &str) -> Result<Self> {
        let port = door.trim_start_matches('+').parse()?;
        let mut socket = TcpStream::connect((server, port))?;
        socket.set_nodelay(true)?;
        socket.write_all(&[fault])?;
        socket.set_nonblocking(true)?;
        Ok(Peer {
            socket,
            beat: door.starts_with('+').then(Instant::now),
            gone: false,
        })
    }

    fn turn(&mut self, start: Instant) {
        if self.gone {
            return;
        }
        let mut buffer = [0; 4096];
        let mut alive = match self.socket.read(&mut buffer) {
            Ok(bytes) => bytes > 0,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        };
        if let Some(due) = self.beat.filter(|due| *due <= Instant::now()) {
            let beat = FixedBeat {
                stamp_ms: start.elapsed().as_millis() as u32,
                load_percent: None,
            };
            alive &= self.socket.write(&beat.encode()).is_ok();
            self.beat = Some(due + Duration::from_millis(BEAT_MS.into()));
        }
        self.gone = !alive;
    }
}
