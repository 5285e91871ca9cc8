//! On mio, which is edge-triggered on epoll: as the floor, with what mio needs.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::{BUFFER, Result, listener};

const LISTENER: Token = Token(usize::MAX);

pub(super) fn serve() -> Result<()> {
    let mut listener = TcpListener::from_std(listener()?);
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut connections: Vec<Option<TcpStream>> = Vec::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                accept_all(&listener, &poll, &mut connections)?;
                continue;
            }
            let slot = &mut connections[event.token().0];
            let Some(connection) = slot else { continue };
            let ends = event.is_read_closed() || event.is_error();
            if (ends || event.is_readable()) && !echo(connection, &mut buffer, ends) {
                *slot = None;
            }
        }
    }
}

fn accept_all(
    listener: &TcpListener,
    poll: &Poll,
    connections: &mut Vec<Option<TcpStream>>,
) -> Result<()> {
    loop {
        let mut connection = match listener.accept() {
            Ok((connection, _)) => connection,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let index = connection.as_raw_fd() as usize;
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry()
            .register(&mut connection, Token(index), both)?;
        if connections.len() <= index {
            connections.resize_with(index + 1, || None);
        }
        connections[index] = Some(connection);
    }
}

/// Sends back what is there. Returns whether the connection lives on.
fn echo(connection: &mut TcpStream, buffer: &mut [u8], to_the_end: bool) -> bool {
    loop {
        let count = match connection.read(buffer) {
            Ok(0) => return false,
            Ok(count) => count,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        };
        if let Err(error) = connection.write(&buffer[..count])
            && error.kind() != ErrorKind::WouldBlock
        {
            return false;
        }
        if count < buffer.len() && !to_the_end {
            return true;
        }
    }
}
