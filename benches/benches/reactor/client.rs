//! The other side: many connections from one thread, in lockstep with the server.
//!
//! How many events a server finds at once decides what an event costs it (its caches hold few sockets), and that would
//! depend on the race between the two sides, which a little luck tips either way. So both share a core, the server yields
//! to the client, and the client sends on all connections before it waits: every server sees the same bursts.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::Result;

/// What an echo is: as long as a frame of a chat or a command.
pub(crate) const MESSAGE: [u8; 64] = [b'm'; 64];

/// Open connections to one server.
pub(crate) struct Crowd {
    connections: Vec<TcpStream>,
}

impl Crowd {
    pub(crate) fn connect(addr: SocketAddr, count: usize) -> Result<Self> {
        let mut crowd = Self {
            connections: Vec::new(),
        };
        crowd.grow(addr, count)?;
        Ok(crowd)
    }

    /// Connects more, and lets each of the new ones echo once: then the server has it in its books.
    pub(crate) fn grow(&mut self, addr: SocketAddr, count: usize) -> Result<()> {
        // No more at a time than a backlog holds.
        const AT_ONCE: usize = 256;
        let wanted = self.connections.len() + count;
        while self.connections.len() < wanted {
            let first = self.connections.len();
            for _ in first..wanted.min(first + AT_ONCE) {
                let stream = TcpStream::connect(addr)?;
                stream.set_nodelay(true)?;
                self.connections.push(stream);
            }
            burst(&self.connections[first..])?;
        }
        Ok(())
    }

    /// Echoes on all connections, burst after burst, for that long. Returns the round trips.
    pub(crate) fn echo_for(&self, time: Duration) -> Result<u64> {
        let end = Instant::now() + time;
        self.echo_while(|_| Instant::now() < end)
    }

    /// Echoes on all connections, burst after burst, until there were that many round trips. Returns how many.
    pub(crate) fn echo_times(&self, count: u64) -> Result<u64> {
        self.echo_while(|done| done < count)
    }

    fn echo_while(&self, go_on: impl Fn(u64) -> bool) -> Result<u64> {
        let mut done = 0;
        while go_on(done) {
            burst(&self.connections)?;
            done += self.connections.len() as u64;
        }
        Ok(done)
    }
}

fn burst(connections: &[TcpStream]) -> Result<()> {
    for mut connection in connections {
        connection.write_all(&MESSAGE)?;
    }
    // The last one's echo comes last from most servers: one wait, and the others are there.
    for mut connection in connections.iter().rev() {
        connection.read_exact(&mut [0; MESSAGE.len()])?;
    }
    Ok(())
}

/// Connections that live for one echo, `at_once` at a time. Returns how many there were.
pub(crate) fn lives(addr: SocketAddr, batches: usize, at_once: usize) -> Result<u64> {
    for _ in 0..batches {
        drop(Crowd::connect(addr, at_once)?);
    }
    Ok((batches * at_once) as u64)
}
