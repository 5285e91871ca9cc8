use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use super::reader::{Record, RingReader};
use crate::error::RingError;
use crate::wait::{Closer, Wait, Waiter, Watched};
use crate::walk::{Drained, Look, Stop};

/// Records that a ring may hand out before the next ring has its turn.
const TURN: u64 = 64;

/// Several rings, read in turn and waited for together.
///
/// A flood in one starves none: in a drain each ring has 64 records a turn, and the next drain
/// goes on with the ring at which the last one stopped. A record that is reserved and not yet
/// submitted stops its own ring and no other.
#[derive(Debug)]
pub struct RingSet {
    rings: Vec<RingReader>,
    /// Edge-triggered: a ring with a record that is not yet submitted is readable all the time.
    epoll: OwnedFd,
    waiter: Waiter,
    /// The ring whose turn is next.
    turn: usize,
}

impl RingSet {
    /// Takes the rings; their numbers are their places in `rings`.
    ///
    /// # Errors
    ///
    /// When the process has no descriptor left.
    pub fn new(rings: Vec<RingReader>) -> Result<Self, RingError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|e| RingError::io("making the descriptor to wait for many rings", e))?;
        for (number, ring) in rings.iter().enumerate() {
            let events = epoll::EventFlags::IN | epoll::EventFlags::ET;
            let data = epoll::EventData::new_u64(number as u64);
            epoll::add(&epoll, ring, data, events)
                .map_err(|e| RingError::io("adding a ring to those waited for", e))?;
        }
        Ok(Self {
            rings,
            epoll,
            waiter: Waiter::default(),
            turn: 0,
        })
    }

    /// The rings, by number.
    #[must_use]
    pub fn rings(&self) -> &[RingReader] {
        &self.rings
    }

    /// Hands at most `records_max` records of all rings together to `each`, with their ring's
    /// number: of each ring oldest first. Never waits; else as [`RingReader::drain`].
    ///
    /// [`Drained::stop`] is `Empty` when every ring is empty, `Busy` when at least one waits for a
    /// record to be submitted and the others are empty.
    ///
    /// # Errors
    ///
    /// [`is_corrupt`](RingError::is_corrupt) of the first damaged ring that is met; the others can
    /// still be drained by [`rings_mut`](Self::rings_mut).
    pub fn drain(
        &mut self,
        records_max: u64,
        mut each: impl FnMut(usize, Record<'_>),
    ) -> Result<Drained, RingError> {
        let mut sum = Drained::NOTHING;
        let (mut quiet, mut is_any_busy) = (0, false);
        while quiet < self.rings.len() {
            let left = records_max - sum.records - sum.discarded;
            if left == 0 {
                sum.stop = Stop::Budget;
                return Ok(sum);
            }
            let number = self.turn;
            let drained =
                self.rings[number].drain(left.min(TURN), |record| each(number, record))?;
            sum.add(drained);
            match drained.stop {
                Stop::Budget => quiet = 0,
                stop => {
                    quiet += 1;
                    is_any_busy |= stop == Stop::Busy;
                }
            }
            self.turn = (number + 1) % self.rings.len();
        }
        sum.stop = if is_any_busy { Stop::Busy } else { Stop::Empty };
        Ok(sum)
    }

    /// The rings, by number, to drain one by itself.
    pub fn rings_mut(&mut self) -> &mut [RingReader] {
        &mut self.rings
    }

    /// Waits until a ring has something to [`drain`](Self::drain); false when the time is over
    /// first, or the set is closed. Drain until `Empty` or `Busy` before.
    ///
    /// # Errors
    ///
    /// As [`RingReader::wait`].
    pub fn wait(&mut self, wait: Wait) -> Result<bool, RingError> {
        let watched = WatchedSet {
            rings: &self.rings,
            epoll: &self.epoll,
        };
        self.waiter.wait(wait, &watched)
    }

    /// What ends the waits of this set, from any thread.
    ///
    /// # Errors
    ///
    /// When the process has no descriptor left.
    pub fn closer(&mut self) -> Result<Closer, RingError> {
        self.waiter.closer()
    }
}

struct WatchedSet<'s> {
    rings: &'s [RingReader],
    epoll: &'s OwnedFd,
}

impl Watched for WatchedSet<'_> {
    fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    fn look(&self) -> Result<Look, RingError> {
        for ring in self.rings {
            if ring.watched().look()? == Look::Ready {
                return Ok(Look::Ready);
            }
        }
        // The edge that comes when a busy head is submitted wakes: no need to look for it.
        Ok(Look::Empty)
    }

    /// Takes the edges, which say no more than the rings themselves.
    fn forget(&self) -> Result<(), RingError> {
        const AT_ONCE: usize = 16;
        const NOW: Timespec = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut edges = Vec::with_capacity(AT_ONCE);
        loop {
            edges.clear();
            match epoll::wait(self.epoll, spare_capacity(&mut edges), Some(&NOW)) {
                Ok(AT_ONCE) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(e) => return Err(RingError::io("waiting for many rings", e)),
            }
        }
    }
}

/// Readable, for poll and epoll, from a ring's new record until [`RingSet::wait`].
impl AsFd for RingSet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
