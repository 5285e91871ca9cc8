//! Everywhere else: registers and waits through [`polling`], which speaks kqueue.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use polling::{Events, PollMode, Poller};
use rustix::io::{Errno, FdFlags, fcntl_setfd, ioctl_fionbio};
use rustix::net::{self, AddressFamily, SocketType};

use super::Event;
use crate::Options;
use crate::interest::{Change, Interest};
use crate::sys::set_stream_options;
use crate::token::Token;

/// kqueue's end-of-stream flag does not come through `polling`, so reads go on until EAGAIN.
pub(crate) const SHORT_READ_IS_LAST: bool = false;

/// An event as `polling` hands it over.
pub(crate) type RawEvent = polling::Event;

pub(crate) struct Registry {
    poller: Arc<Poller>,
    fetched: Events,
}

impl Registry {
    pub(crate) fn new(poller: Arc<Poller>, event_batch: usize) -> Self {
        let capacity = NonZeroUsize::new(event_batch).unwrap_or(NonZeroUsize::MIN);
        Self {
            poller,
            fetched: Events::with_capacity(capacity),
        }
    }

    /// Changes what a descriptor is watched for. A descriptor that is closed needs no `Delete`.
    #[expect(unsafe_code, reason = "polling registers by number")]
    pub(crate) fn change(
        &self,
        fd: BorrowedFd<'_>,
        token: Token,
        change: Change,
    ) -> io::Result<()> {
        let event = |interest| {
            let key = token.as_u64() as usize;
            polling::Event::new(key, interest == Interest::Both, true)
        };
        match change {
            Change::Add(interest) => {
                let event = event(interest);
                // SAFETY: `add_with_mode` asks that the source be removed before it is dropped, because some pollers
                // keep using the number. kqueue drops a descriptor's filters when it is closed, each socket of this
                // crate has one descriptor that is never duplicated, and a shared listener goes through `Delete`.
                unsafe {
                    self.poller
                        .add_with_mode(fd.as_raw_fd(), event, PollMode::Edge)
                }
            }
            Change::Modify(interest) => {
                self.poller
                    .modify_with_mode(fd, event(interest), PollMode::Edge)
            }
            Change::Delete => self.poller.delete(fd),
        }
    }

    /// Waits at most `timeout_ms` (`None`: as long as it takes) and replaces `events`.
    pub(crate) fn wait(
        &mut self,
        events: &mut Vec<RawEvent>,
        timeout_ms: Option<u64>,
    ) -> io::Result<()> {
        events.clear();
        self.fetched.clear();
        let timeout = timeout_ms.map(Duration::from_millis);
        match self.poller.wait(&mut self.fetched, timeout) {
            Ok(_) => events.extend(self.fetched.iter()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl From<RawEvent> for Event {
    fn from(raw: RawEvent) -> Self {
        Self {
            token: Token::from_u64(raw.key as u64),
            readable: raw.readable,
            writable: raw.writable,
            // Which end or error it is does not come through either: any event may be one.
            to_the_end: true,
        }
    }
}

/// Wakes a shard that waits in its poller.
pub(crate) struct Waker {
    poller: Arc<Poller>,
}

impl Waker {
    pub(crate) fn new(poller: &Arc<Poller>) -> io::Result<Self> {
        Ok(Self {
            poller: Arc::clone(poller),
        })
    }

    /// Nothing to watch: the poller wakes itself.
    pub(crate) fn source(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    pub(crate) fn wake(&self) {
        // Fails only when the poller's descriptor is broken; the shard then sees that itself.
        let _ = self.poller.notify();
    }
}

/// SO_REUSEPORT does not spread connections here, so the shards share one listener.
pub(crate) fn set_reuseport(_socket: &OwnedFd) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A TCP socket: non-blocking, closed on exec.
pub(crate) fn stream_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let socket = net::socket(family, SocketType::STREAM, None)?;
    prepare(&socket)?;
    Ok(socket)
}

/// Accepts one connection: non-blocking, closed on exec, with its peer's address.
pub(crate) fn accept(
    listener: BorrowedFd<'_>,
    options: &Options,
) -> Result<(OwnedFd, Option<SocketAddr>), Errno> {
    let (socket, peer) = net::acceptfrom(listener)?;
    // Of a peer that has reset it already (Apple's SO_NOSIGPIPE is EINVAL then): the next accept brings another one, and
    // no error of this one shall pause accepting.
    prepare(&socket).map_err(|_| Errno::CONNABORTED)?;
    // A peer that is gone already makes this fail; the first read tells.
    let _ = set_stream_options(socket.as_fd(), options);
    Ok((socket, peer.and_then(|peer| peer.try_into().ok())))
}

fn prepare(socket: &OwnedFd) -> Result<(), Errno> {
    ioctl_fionbio(socket, true)?;
    fcntl_setfd(socket, FdFlags::CLOEXEC)?;
    #[cfg(target_vendor = "apple")]
    net::sockopt::set_socket_nosigpipe(socket, true)?;
    Ok(())
}
