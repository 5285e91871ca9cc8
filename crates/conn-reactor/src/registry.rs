//! The shard's poller: what is registered with the kernel and what it reports.
//!
//! [`polling`] makes the poller (epoll or kqueue). On Linux this module registers and waits on its epoll descriptor
//! directly, for two reasons that `polling` 3.11 leaves no other way for:
//!
//! - its `wait` makes five system calls (timerfd_settime, epoll_ctl, epoll_pwait, read, epoll_ctl), this one makes one;
//! - its read interest is IN | PRI | HUP | ERR (read in its source), without RDHUP. With edge triggering, data and FIN that arrive before
//!   one wait are one event; without RDHUP in it nothing tells that a read of less than the buffer was not the last,
//!   and the FIN would never be seen (or each read would need a second call that says EAGAIN).
//!
//! Every descriptor is registered once, for reading and writing, edge-triggered, and leaves the interest list by
//! being closed: `epoll_ctl` is called once in the life of a connection (`epoll(7)`, "Will closing a file descriptor
//! cause it to be removed from all epoll interest lists?"). No descriptor here is ever duplicated.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use polling::Poller;

use crate::token::Token;

/// One report of the kernel.
#[derive(Clone, Copy)]
pub(crate) struct Event {
    pub(crate) token: Token,
    /// Bytes, a connection to accept, an end or an error can be read.
    pub(crate) readable: bool,
    /// There is room to send, or a connect has ended.
    pub(crate) writable: bool,
    /// The peer finished, sent urgent data, or the socket failed: a read that is short may not be the last, so
    /// reading must go on until the end of the stream, an error or EAGAIN.
    pub(crate) to_the_end: bool,
}

pub(crate) use imp::{Registry, SHORT_READ_IS_LAST};

#[cfg(any(target_os = "linux", target_os = "android"))]
mod imp {
    use std::os::fd::AsFd;

    use rustix::buffer::spare_capacity;
    use rustix::event::Timespec;
    use rustix::event::epoll::{self, EventData, EventFlags};
    use rustix::io::Errno;

    use super::*;

    /// Whether a read of less than the buffer means that nothing is left, unless the event said `to_the_end`.
    pub(crate) const SHORT_READ_IS_LAST: bool = true;

    pub(crate) struct Registry {
        poller: Arc<Poller>,
        events: Vec<epoll::Event>,
    }

    impl Registry {
        pub(crate) fn new(poller: Arc<Poller>, event_batch: usize) -> Self {
            Self {
                poller,
                events: Vec::with_capacity(event_batch),
            }
        }

        /// Watches a descriptor both ways until it is closed. One `epoll_ctl`.
        pub(crate) fn add(&self, fd: BorrowedFd<'_>, token: Token) -> io::Result<()> {
            // A read also stops short in front of an urgent byte (tcp_recvmsg_locked in net/ipv4/tcp.c): PRI tells.
            let interest = EventFlags::ET
                | EventFlags::IN
                | EventFlags::OUT
                | EventFlags::RDHUP
                | EventFlags::PRI;
            Ok(epoll::add(
                self.poller.as_fd(),
                fd,
                EventData::new_u64(token.as_u64()),
                interest,
            )?)
        }

        /// Stops watching a descriptor that stays open elsewhere (a listener shared by shards).
        pub(crate) fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
            Ok(epoll::delete(self.poller.as_fd(), fd)?)
        }

        /// Waits at most `timeout_ms` (`None`: as long as it takes) and calls `each` per event. One `epoll_pwait`.
        pub(crate) fn wait(
            &mut self,
            timeout_ms: Option<u64>,
            mut each: impl FnMut(Event),
        ) -> io::Result<()> {
            let timeout = timeout_ms.map(|ms| {
                // An hour at most: far from every overflow, and an early return is only one more turn.
                let ms = ms.min(3_600_000) as i64;
                Timespec {
                    tv_sec: ms / 1000,
                    tv_nsec: (ms % 1000) * 1_000_000,
                }
            });
            self.events.clear();
            match epoll::wait(
                self.poller.as_fd(),
                spare_capacity(&mut self.events),
                timeout.as_ref(),
            ) {
                Ok(_) => {}
                Err(Errno::INTR) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            for event in &self.events {
                let (flags, data) = (event.flags, event.data);
                let to_the_end = flags.intersects(
                    EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR | EventFlags::PRI,
                );
                each(Event {
                    token: Token::from_u64(data.u64()),
                    readable: to_the_end || flags.contains(EventFlags::IN),
                    writable: flags.intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR),
                    to_the_end,
                });
            }
            Ok(())
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod imp {
    use std::num::NonZeroUsize;
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    use polling::{Events, PollMode};

    use super::*;

    /// kqueue's end-of-stream flag does not come through `polling`, so reads go on until EAGAIN.
    pub(crate) const SHORT_READ_IS_LAST: bool = false;

    pub(crate) struct Registry {
        poller: Arc<Poller>,
        events: Events,
    }

    impl Registry {
        pub(crate) fn new(poller: Arc<Poller>, event_batch: usize) -> Self {
            let capacity = NonZeroUsize::new(event_batch).unwrap_or(NonZeroUsize::MIN);
            Self {
                poller,
                events: Events::with_capacity(capacity),
            }
        }

        /// Watches a descriptor both ways until it is closed.
        pub(crate) fn add(&self, fd: BorrowedFd<'_>, token: Token) -> io::Result<()> {
            let interest = polling::Event::all(token.as_u64() as usize);
            // SAFETY: `add_with_mode` asks that the source be removed before it is dropped, because some pollers
            // keep using the number. kqueue drops a descriptor's filters when it is closed, each socket of this
            // crate has one descriptor that is never duplicated, and a shared listener goes through `remove`.
            unsafe {
                self.poller
                    .add_with_mode(fd.as_raw_fd(), interest, PollMode::Edge)
            }
        }

        /// Stops watching a descriptor that stays open elsewhere (a listener shared by shards).
        pub(crate) fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
            self.poller.delete(fd)
        }

        /// Waits at most `timeout_ms` (`None`: as long as it takes) and calls `each` per event.
        pub(crate) fn wait(
            &mut self,
            timeout_ms: Option<u64>,
            mut each: impl FnMut(Event),
        ) -> io::Result<()> {
            self.events.clear();
            match self
                .poller
                .wait(&mut self.events, timeout_ms.map(Duration::from_millis))
            {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
                Err(error) => return Err(error),
            }
            for event in self.events.iter() {
                each(Event {
                    token: Token::from_u64(event.key as u64),
                    readable: event.readable,
                    writable: event.writable,
                    to_the_end: false,
                });
            }
            Ok(())
        }
    }
}
