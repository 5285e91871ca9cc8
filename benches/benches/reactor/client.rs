//! The other side: many connections from one thread, on plain level-triggered epoll.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::{read, write};

use super::Result;

/// What an echo is: as long as a frame of a chat or a command.
pub(crate) const MESSAGE: [u8; 64] = [b'm'; 64];

/// Open connections to one server.
pub(crate) struct Crowd {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    events: Vec<epoll::Event>,
}

struct Connection {
    stream: TcpStream,
    /// Bytes of the echo that have not come back yet.
    awaited: usize,
}

impl Crowd {
    pub(crate) fn connect(addr: SocketAddr, count: usize) -> Result<Self> {
        let mut crowd = Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            connections: Vec::new(),
            events: Vec::with_capacity(1024),
        };
        crowd.grow(addr, count)?;
        Ok(crowd)
    }

    /// Connects more, and lets each of the new ones echo once: then its server has it in its books.
    pub(crate) fn grow(&mut self, addr: SocketAddr, count: usize) -> Result<()> {
        let first = self.connections.len();
        for index in first..first + count {
            let stream = TcpStream::connect(addr)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let data = EventData::new_u64(index as u64);
            epoll::add(&self.epoll, &stream, data, EventFlags::IN)?;
            self.connections.push(Connection { stream, awaited: 0 });
            // Not more than a backlog holds.
            if index % 256 == 255 {
                self.echo_from(index - 255..index + 1)?;
            }
        }
        self.echo_from(first..first + count)
    }

    fn echo_from(&mut self, which: std::ops::Range<usize>) -> Result<()> {
        let mut under_way = which.len();
        for index in which {
            self.send(index)?;
        }
        while under_way > 0 {
            under_way -= self.take_echoes()?.len();
        }
        Ok(())
    }

    /// Each connection sends, waits for its echo, and sends again, for that long. Returns the round trips; none is
    /// under way any more.
    pub(crate) fn echo_for(&mut self, time: Duration) -> Result<u64> {
        let end = Instant::now() + time;
        self.echo_while(|_| Instant::now() < end)
    }

    /// As [`echo_for`](Self::echo_for), about `count` times altogether.
    pub(crate) fn echo_times(&mut self, count: u64) -> Result<u64> {
        self.echo_while(|done| done < count)
    }

    fn echo_while(&mut self, go_on: impl Fn(u64) -> bool) -> Result<u64> {
        let mut under_way = self.connections.len();
        for index in 0..under_way {
            self.send(index)?;
        }
        let mut done = 0;
        while under_way > 0 {
            let echoes = self.take_echoes()?;
            done += echoes.len() as u64;
            if go_on(done) {
                for index in echoes {
                    self.send(index)?;
                }
            } else {
                under_way -= echoes.len();
            }
        }
        Ok(done)
    }

    fn send(&mut self, index: usize) -> Result<()> {
        let connection = &mut self.connections[index];
        connection.awaited = MESSAGE.len();
        match write(&connection.stream, &MESSAGE)? {
            64 => Ok(()),
            count => Err(format!("an idle socket took {count} bytes").into()),
        }
    }

    /// Waits, and returns the connections whose echo is complete.
    fn take_echoes(&mut self) -> Result<Vec<usize>> {
        self.events.clear();
        epoll::wait(&self.epoll, spare_capacity(&mut self.events), None)?;
        let mut complete = Vec::new();
        for event in &self.events {
            let data = event.data;
            let index = data.u64() as usize;
            let connection = &mut self.connections[index];
            let mut buffer = [0; 256];
            let count = read(&connection.stream, &mut buffer)?;
            if count == 0 || count > connection.awaited {
                return Err(format!("{count} bytes came, {} awaited", connection.awaited).into());
            }
            connection.awaited -= count;
            if connection.awaited == 0 {
                complete.push(index);
            }
        }
        Ok(complete)
    }
}

/// Connections that live for one echo, `at_once` at a time. Returns how many there were.
pub(crate) fn lives(addr: SocketAddr, batches: usize, at_once: usize) -> Result<u64> {
    for _ in 0..batches {
        drop(Crowd::connect(addr, at_once)?);
    }
    Ok((batches * at_once) as u64)
}
