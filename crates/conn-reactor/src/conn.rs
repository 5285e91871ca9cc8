//! One connection: what its slot holds, and the steps that need no handler.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::CloseReason;
use crate::queue::WriteQueue;

/// The slot of a connection. Everything that an idle connection does not need is behind `extra`.
pub(crate) struct Connection<C> {
    fd: OwnedFd,
    pub(crate) flags: Flags,
    pub(crate) extra: Option<Box<Extra>>,
    /// The caller's state; `None` while connecting and during `opened`.
    pub(crate) conn: Option<C>,
}

/// What a connection holds only sometimes.
#[derive(Default)]
pub(crate) struct Extra {
    /// Input that the handler left unconsumed.
    pub(crate) carry: Vec<u8>,
    /// Output that the socket did not take.
    pub(crate) queue: WriteQueue,
    pub(crate) draining: Option<Draining>,
    pub(crate) connecting: Option<Connecting>,
}

/// A connection that closes once its queue is sent.
pub(crate) struct Draining {
    pub(crate) reason: CloseReason,
    pub(crate) deadline: timerwheel::Key,
}

/// An own connect under way.
pub(crate) struct Connecting {
    pub(crate) tag: u64,
    pub(crate) deadline: timerwheel::Key,
}

impl Extra {
    fn is_idle(&self) -> bool {
        self.carry.is_empty()
            && self.queue.is_empty()
            && self.draining.is_none()
            && self.connecting.is_none()
    }
}

/// A set of facts about a connection.
#[derive(Clone, Copy, Default)]
pub(crate) struct Flags(u16);

impl Flags {
    /// An edge said readable and no read has said "nothing left" since.
    pub(crate) const READABLE: Self = Self(1 << 0);
    /// An edge said writable and nothing was done about it yet.
    pub(crate) const WRITABLE: Self = Self(1 << 1);
    /// The peer finished or failed or sent urgent data: a short read is not the last one.
    pub(crate) const TO_THE_END: Self = Self(1 << 2);
    /// The token stands in the ready list.
    pub(crate) const QUEUED: Self = Self(1 << 3);
    /// The caller wants no input now.
    pub(crate) const PAUSED: Self = Self(1 << 4);
    /// Input kept from before shall be presented again although nothing new came.
    pub(crate) const PRESENT_CARRY: Self = Self(1 << 5);
    /// The write queue went above the low mark; `drained` is due when it comes back.
    pub(crate) const ABOVE_LOW: Self = Self(1 << 6);
    /// An own connect is under way.
    pub(crate) const CONNECTING: Self = Self(1 << 7);
    /// Closes once the queue is sent; input is thrown away.
    pub(crate) const DRAINING: Self = Self(1 << 8);
    /// The peer's FIN was read.
    pub(crate) const PEER_FINISHED: Self = Self(1 << 9);
    /// In the list of connections to close.
    pub(crate) const CLOSING: Self = Self(1 << 10);

    /// One or the other, or both.
    pub(crate) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether any of them is set.
    #[inline]
    pub(crate) fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    #[inline]
    pub(crate) fn set(&mut self, flag: Self) {
        self.0 |= flag.0;
    }

    #[inline]
    pub(crate) fn clear(&mut self, flag: Self) {
        self.0 &= !flag.0;
    }

    /// Clears a flag and says whether it was set.
    #[inline]
    pub(crate) fn take(&mut self, flag: Self) -> bool {
        let had = self.has(flag);
        self.clear(flag);
        had
    }
}

impl<C> Connection<C> {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            flags: Flags::default(),
            extra: None,
            conn: None,
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The socket, and what is to be noted about it.
    #[inline]
    pub(crate) fn parts(&mut self) -> (BorrowedFd<'_>, &mut Flags) {
        (self.fd.as_fd(), &mut self.flags)
    }

    pub(crate) fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    pub(crate) fn queued_bytes(&self) -> usize {
        self.extra.as_ref().map_or(0, |extra| extra.queue.len())
    }

    /// Takes the unconsumed input out, if there is any, and puts `fresh` behind it.
    #[inline(never)]
    pub(crate) fn join_carry(&mut self, fresh: &[u8]) -> Option<Vec<u8>> {
        let extra = self.extra.as_mut()?;
        if extra.carry.is_empty() {
            return None;
        }
        let mut carry = std::mem::take(&mut extra.carry);
        carry.extend_from_slice(fresh);
        Some(carry)
    }

    /// Closes the descriptor and leaves the rest.
    pub(crate) fn shut(self) -> (Option<Box<Extra>>, Option<C>) {
        let Self {
            fd, extra, conn, ..
        } = self;
        drop(fd);
        (extra, conn)
    }

    /// Gives the memory back that an idle connection does not need.
    pub(crate) fn trim(&mut self) {
        if self.extra.as_ref().is_some_and(|extra| extra.is_idle()) {
            self.extra = None;
        }
    }
}
