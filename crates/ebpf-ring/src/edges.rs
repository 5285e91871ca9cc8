//! Many descriptors waited for by one: an edge-triggered epoll.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use crate::error::RingError;

/// Readable from an edge of one of its descriptors until [`take`](Self::take).
#[derive(Debug)]
pub(crate) struct Edges {
    epoll: OwnedFd,
}

impl Edges {
    pub(crate) fn new() -> Result<Self, RingError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|e| RingError::io("making the descriptor to wait for many rings", e))?;
        Ok(Self { epoll })
    }

    pub(crate) fn add(&self, fd: impl AsFd, number: u64) -> Result<(), RingError> {
        let events = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(number), events)
            .map_err(|e| RingError::io("adding a ring to those waited for", e))
    }

    /// Forgets the edges, which say no more than the rings themselves.
    pub(crate) fn take(&self) -> Result<(), RingError> {
        const AT_ONCE: usize = 16;
        const NOW: Timespec = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut edges = Vec::with_capacity(AT_ONCE);
        loop {
            edges.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut edges), Some(&NOW)) {
                Ok(AT_ONCE) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(e) => return Err(RingError::io("waiting for many rings", e)),
            }
        }
    }
}

impl AsFd for Edges {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
