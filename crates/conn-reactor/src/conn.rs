//! One connection: what its slot holds, and the steps that need no handler.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::CloseReason;
use crate::flags::Flags;
use crate::interest::Watch;
use crate::phase::{Act, Phase, Signal};
use crate::queue::WriteQueue;

/// The slot of a connection. Everything that an idle connection does not need is behind `extra`.
pub(crate) struct Connection<C> {
    fd: OwnedFd,
    pub(crate) flags: Flags,
    phase: Phase,
    pub(crate) watch: Watch,
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
    /// Reading is paused until the queue has drained, by `WhenFull::PauseReading`.
    pub(crate) paused_by_queue: bool,
    pub(crate) draining: Option<Draining>,
    pub(crate) connecting: Option<Connecting>,
    pub(crate) deadline: Option<Deadline>,
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

/// When a connection is closed whatever it does.
pub(crate) struct Deadline {
    pub(crate) at_ms: u64,
    pub(crate) timer: timerwheel::Key,
}

impl Extra {
    /// The reactor's timers for a connection that is not connecting.
    pub(crate) fn timers(&self) -> impl Iterator<Item = timerwheel::Key> + use<> {
        let drain = self.draining.as_ref().map(|draining| draining.deadline);
        let deadline = self.deadline.as_ref().map(|deadline| deadline.timer);
        drain.into_iter().chain(deadline)
    }

    fn is_idle(&self) -> bool {
        self.carry.is_empty()
            && self.queue.is_empty()
            && self.draining.is_none()
            && self.connecting.is_none()
            && self.deadline.is_none()
    }
}

impl<C> Connection<C> {
    /// An accepted connection is `Open` from the start, an own one is `Connecting`.
    pub(crate) fn new(fd: OwnedFd, phase: Phase) -> Self {
        Self {
            fd,
            flags: Flags::default(),
            phase,
            watch: Watch::default(),
            extra: None,
            conn: None,
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    #[inline]
    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// Takes the connection a step on in its life and says what follows.
    pub(crate) fn step(&mut self, signal: Signal) -> Act {
        let (phase, act) = self.phase.after(signal);
        self.phase = phase;
        act
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

    /// Why a connection closes that ends by itself.
    pub(crate) fn drain_reason(&self) -> CloseReason {
        let draining = self
            .extra
            .as_ref()
            .and_then(|extra| extra.draining.as_ref());
        draining.map_or(CloseReason::PeerClosed, |draining| draining.reason)
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
