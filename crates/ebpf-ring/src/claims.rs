//! Many threads on one ring: each claims a run of records, and space goes back in order.
//!
//! The kernel knows one consumer position. A run that was claimed later and is done earlier waits
//! until all runs before it are done; only then does the position move over both.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use crate::sync::Ordering;
use crate::walk::{Consumer, Corrupt, Memory, Step, producer};

/// A run of records for one claimant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// Counts runs as they are claimed.
    id: u64,
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Records in it, discarded ones not counted.
    pub(crate) records: u64,
}

/// Which part of a ring is claimed and not yet done.
#[derive(Debug)]
pub(crate) struct Claims {
    /// Its position is where the next run begins.
    pub(crate) consumer: Consumer,
    /// The id of the first run in `open`.
    first: u64,
    /// The runs that are not given back, in order.
    open: VecDeque<Open>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    end: u64,
    done: bool,
}

impl Claims {
    pub(crate) fn new(consumer: Consumer) -> Self {
        Self {
            consumer,
            first: 0,
            open: VecDeque::new(),
        }
    }

    /// Whether a part of the ring is claimed. While it is, the kernel wakes nobody for new records:
    /// it only does when the consumer's position has reached them.
    pub(crate) fn is_any_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Claims up to `records_max` records; `None` when there is none.
    ///
    /// On `Err` what lies before the damage is not claimed by this call, but by the next.
    pub(crate) fn claim<M: Memory>(
        &mut self,
        memory: M,
        records_max: u64,
    ) -> Result<Option<Span>, Corrupt> {
        let end = producer(memory, self.consumer.position)?;
        let before = self.consumer;
        for _ in 0..records_max {
            match self.consumer.step(memory, end) {
                Ok(Step::Record(_) | Step::Discarded) => {}
                Ok(Step::Stop(_)) => break,
                // Told when nothing lies before it.
                Err(_) if self.consumer != before => break,
                Err(damage) => return Err(damage),
            }
        }
        if self.consumer == before {
            return Ok(None);
        }
        let span = Span {
            id: self.first + self.open.len() as u64,
            start: before.position,
            end: self.consumer.position,
            records: self.consumer.records - before.records,
        };
        self.open.push_back(Open {
            end: span.end,
            done: false,
        });
        Ok(Some(span))
    }

    /// The claimant will not read the run's bytes any more.
    pub(crate) fn finish<M: Memory>(&mut self, memory: M, span: Span) {
        let at = usize::try_from(span.id - self.first).expect("fewer runs than bytes");
        self.open[at].done = true;
        let mut free = None;
        while let Some(open) = self.open.front().filter(|open| open.done) {
            free = Some(open.end);
            self.first += 1;
            self.open.pop_front();
        }
        if let Some(position) = free {
            // As in `Walk::commit`. The other claimants' reads of these runs are done as well:
            // they said so holding the lock that this claimant holds.
            memory.consumer().store(position, Ordering::Release);
        }
    }
}
