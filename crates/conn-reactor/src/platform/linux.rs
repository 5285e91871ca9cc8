//! Linux: registers and waits on the epoll descriptor that [`polling`] made, without its wrapper. Two reasons, both
//! without another way through `polling` 3.11:
//!
//! - its `wait` makes five system calls (timerfd_settime, epoll_ctl, epoll_pwait, read, epoll_ctl), this one makes one;
//! - its read interest is IN | PRI | HUP | ERR (read in its source), without RDHUP. With edge triggering, data and FIN
//!   that arrive before one wait are one event; without RDHUP in it nothing tells that a read of less than the buffer
//!   was not the last, and the FIN would never be seen (or each read would need a second call that says EAGAIN).
//!
//! `rustix` borrows descriptors, so nothing here is unsafe.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use polling::Poller;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use super::Event;
use crate::Options;
use crate::interest::{Change, Interest};
use crate::token::Token;

/// Whether a read of less than the buffer means that nothing is left, unless the event said `to_the_end`.
pub(crate) const SHORT_READ_IS_LAST: bool = true;

/// An event as the kernel hands it over.
pub(crate) type RawEvent = epoll::Event;

pub(crate) struct Registry {
    poller: Arc<Poller>,
}

impl Registry {
    pub(crate) fn new(poller: Arc<Poller>, _event_batch: usize) -> Self {
        Self { poller }
    }

    /// Changes what a descriptor is watched for. One `epoll_ctl`. A descriptor that is closed needs no `Delete`.
    #[inline(always)]
    pub(crate) fn change(
        &self,
        fd: BorrowedFd<'_>,
        token: Token,
        change: Change,
    ) -> io::Result<()> {
        let (poller, data) = (self.poller.as_fd(), EventData::new_u64(token.as_u64()));
        Ok(match change {
            Change::Add(interest) => epoll::add(poller, fd, data, flags(interest)),
            Change::Modify(interest) => epoll::modify(poller, fd, data, flags(interest)),
            Change::Delete => epoll::delete(poller, fd),
        }?)
    }

    /// Waits at most `timeout_ms` (`None`: as long as it takes) and replaces `events` by at most as many as it has
    /// room for. One `epoll_pwait`.
    pub(crate) fn wait(
        &mut self,
        events: &mut Vec<RawEvent>,
        timeout_ms: Option<u64>,
    ) -> io::Result<()> {
        let mut timeout = timeout_ms.map(|ms| {
            let ms = ms as i64;
            Timespec {
                tv_sec: ms / 1000,
                tv_nsec: (ms % 1000) * 1_000_000,
            }
        });
        events.clear();
        loop {
            match epoll::wait(
                self.poller.as_fd(),
                spare_capacity(events),
                timeout.as_ref(),
            ) {
                Ok(_) => return Ok(()),
                // A process that was stopped comes back here (signal(7)). What is ready is fetched before timers fire.
                Err(Errno::INTR) => {
                    timeout = Some(Timespec {
                        tv_sec: 0,
                        tv_nsec: 0,
                    });
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// What is asked of the kernel for an interest. Input is what a plain read brings and what could cut one short: a FIN
/// and urgent data (`tcp_recvmsg_locked` in net/ipv4/tcp.c stops in front of the urgent byte). HUP and ERR come unasked.
const fn flags(interest: Interest) -> EventFlags {
    let output = EventFlags::ET.union(EventFlags::OUT);
    match interest {
        Interest::Output => output,
        Interest::Both => output
            .union(EventFlags::IN)
            .union(EventFlags::RDHUP)
            .union(EventFlags::PRI),
    }
}

impl From<RawEvent> for Event {
    #[inline(always)]
    fn from(raw: RawEvent) -> Self {
        let (flags, data) = (raw.flags, raw.data);
        let to_the_end = flags
            .intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR | EventFlags::PRI);
        Self {
            token: Token::from_u64(data.u64()),
            readable: to_the_end || flags.contains(EventFlags::IN),
            writable: flags.intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR),
            to_the_end,
        }
    }
}

/// Wakes a shard that waits in its poller.
pub(crate) struct Waker {
    eventfd: OwnedFd,
}

impl Waker {
    pub(crate) fn new(_poller: &Arc<Poller>) -> io::Result<Self> {
        Ok(Self {
            eventfd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// The descriptor to watch. It is edge-triggered, and each write makes an edge, so nobody needs to read it.
    pub(crate) fn source(&self) -> Option<BorrowedFd<'_>> {
        Some(self.eventfd.as_fd())
    }

    pub(crate) fn wake(&self) {
        // Fails only when the counter stands at 2^64 - 2.
        let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
    }
}

/// Lets several listeners share a port; the kernel spreads connections over them.
pub(crate) fn set_reuseport(socket: &OwnedFd) -> io::Result<()> {
    Ok(sockopt::set_socket_reuseport(socket, true)?)
}

/// A TCP socket: non-blocking, closed on exec.
pub(crate) fn stream_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(net::socket_with(family, SocketType::STREAM, flags, None)?)
}

/// Accepts one connection: non-blocking, closed on exec, with its peer's address. One `accept4`: the stream options
/// come from the listener.
#[inline(always)]
pub(crate) fn accept(
    listener: BorrowedFd<'_>,
    _options: &Options,
) -> Result<(OwnedFd, Option<SocketAddr>), Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (socket, peer) = net::acceptfrom_with(listener, flags)?;
    Ok((socket, peer.and_then(|peer| peer.try_into().ok())))
}
