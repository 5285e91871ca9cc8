//! The least that an edge-triggered echo server does: no state, no bounds, no fairness. What it cannot send it drops.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send};

use super::{BUFFER, Result, listener};

const LISTENER: u64 = u64::MAX;

pub(super) fn serve() -> Result<()> {
    let listener = listener()?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let interest = EventFlags::ET | EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), interest)?;
    let mut connections: Vec<Option<OwnedFd>> = Vec::new();
    let mut events = Vec::with_capacity(1024);
    let mut buffer = vec![0; BUFFER];
    loop {
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), None)?;
        for event in &events {
            let (flags, data) = (event.flags, event.data);
            if data.u64() == LISTENER {
                accept_all(listener.as_fd(), &epoll, interest, &mut connections)?;
                continue;
            }
            let slot = &mut connections[data.u64() as usize];
            let Some(connection) = slot else { continue };
            let ends = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
            if (ends || flags.contains(EventFlags::IN)) && !echo(connection, &mut buffer, ends) {
                *slot = None;
            }
        }
    }
}

fn accept_all(
    listener: BorrowedFd<'_>,
    epoll: &OwnedFd,
    interest: EventFlags,
    connections: &mut Vec<Option<OwnedFd>>,
) -> Result<()> {
    loop {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let connection = match accept_with(listener, flags) {
            Ok(connection) => connection,
            Err(Errno::AGAIN) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let index = connection.as_raw_fd() as usize;
        epoll::add(
            epoll,
            &connection,
            EventData::new_u64(index as u64),
            interest,
        )?;
        if connections.len() <= index {
            connections.resize_with(index + 1, || None);
        }
        connections[index] = Some(connection);
    }
}

/// Sends back what is there. Returns whether the connection lives on.
fn echo(connection: &OwnedFd, buffer: &mut [u8], to_the_end: bool) -> bool {
    loop {
        let count = match recv(connection, &mut *buffer, RecvFlags::empty()) {
            Ok((0, _)) => return false,
            Ok((count, _)) => count,
            Err(Errno::AGAIN) => return true,
            Err(_) => return false,
        };
        match send(connection, &buffer[..count], SendFlags::NOSIGNAL) {
            Ok(_) | Err(Errno::AGAIN) => {}
            Err(_) => return false,
        }
        if count < buffer.len() && !to_the_end {
            return true;
        }
    }
}
