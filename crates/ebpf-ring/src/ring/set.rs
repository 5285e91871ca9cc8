use std::os::fd::{AsFd, BorrowedFd};

use super::reader::{Record, RingReader};
use crate::edges::Edges;
use crate::error::RingError;
use crate::turns::{Turn, Turns};
use crate::wait::{Closer, Wait, Waiter, Watched};
use crate::walk::{Drained, Look};

/// Several rings, read in turn and waited for together.
///
/// A flood in one starves none: in a drain each ring has 64 records a turn, and the next drain
/// goes on with the ring at which the last one stopped. A record that is reserved and not yet
/// submitted stops its own ring and no other.
#[derive(Debug)]
pub struct RingSet {
    rings: Vec<RingReader>,
    /// Which of them the last drain found damaged, and said so.
    damage_told: Vec<bool>,
    /// Edge-triggered: a ring with a record that is not yet submitted is readable all the time.
    edges: Edges,
    waiter: Waiter,
    turns: Turns,
}

impl RingSet {
    /// Takes the rings; their numbers are their places in `rings`.
    ///
    /// # Errors
    ///
    /// When the process has no descriptor left.
    pub fn new(rings: Vec<RingReader>) -> Result<Self, RingError> {
        let edges = Edges::new()?;
        for (number, ring) in rings.iter().enumerate() {
            edges.add(ring, number as u64)?;
        }
        Ok(Self {
            damage_told: vec![false; rings.len()],
            rings,
            edges,
            waiter: Waiter::default(),
            turns: Turns::default(),
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
    /// [`is_corrupt`](RingError::is_corrupt) of the first damaged ring that is met: what came before
    /// the damage was delivered, and the next call goes on with the next ring.
    pub fn drain(
        &mut self,
        records_max: u64,
        mut each: impl FnMut(usize, Record<'_>),
    ) -> Result<Drained, RingError> {
        let (rings, damage_told) = (&mut self.rings, &mut self.damage_told);
        self.turns.drain(rings.len(), records_max, |number, max| {
            let drained = rings[number].drain(max, |record| each(number, record));
            damage_told[number] = drained.is_err();
            let drained = drained?;
            let steps = drained.records + drained.discarded;
            Ok(Turn { drained, steps })
        })
    }

    /// The rings, by number, to drain one by itself. A ring that takes the place of another here is
    /// drained, but not waited for.
    pub fn rings_mut(&mut self) -> &mut [RingReader] {
        &mut self.rings
    }

    /// Waits until a ring has something to [`drain`](Self::drain); false when the time is over
    /// first, or the set is closed. Drain until `Empty` or `Busy` before.
    ///
    /// A ring that is damaged ends one wait, so that [`drain`](Self::drain) tells of it, and no
    /// further one.
    ///
    /// # Errors
    ///
    /// What poll(2) says.
    pub fn wait(&mut self, wait: Wait) -> Result<bool, RingError> {
        let watched = WatchedSet {
            rings: &self.rings,
            damage_told: &self.damage_told,
            edges: &self.edges,
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
    damage_told: &'s [bool],
    edges: &'s Edges,
}

impl Watched for WatchedSet<'_> {
    fn fd(&self) -> BorrowedFd<'_> {
        self.edges.as_fd()
    }

    fn look(&self) -> Result<Look, RingError> {
        for (ring, damage_told) in self.rings.iter().zip(self.damage_told) {
            match ring.look() {
                Ok(Look::Ready) => return Ok(Look::Ready),
                Err(_) if !damage_told => return Ok(Look::Ready),
                _ => {}
            }
        }
        // The edge that comes when a busy head is submitted wakes: no need to look for it.
        Ok(Look::Empty)
    }

    fn forget(&self) -> Result<(), RingError> {
        self.edges.take()
    }
}

/// Readable, for poll and epoll, from a ring's new record until [`RingSet::wait`].
impl AsFd for RingSet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.edges.as_fd()
    }
}
