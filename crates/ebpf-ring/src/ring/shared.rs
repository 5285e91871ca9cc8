use std::fmt;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::mapping::{Mapping, View};
use super::reader::{Record, RingReader};
use crate::claims::{Claims, Span};
use crate::counters::CounterSource;
use crate::error::RingError;
use crate::stats::RingStats;
use crate::wait::{Closer, Wait, Waiter, Watched};
use crate::walk::{self, Consumer, Look, Step};

/// One ring for many threads: each claims a run of records and reads it in place, without the
/// others.
///
/// Records go to whoever claims first; within a claim they are in order. The lock is held while a
/// claim looks at its headers, a few nanoseconds a record, so claim hundreds at a time. Space goes
/// back in order: a claim that is held keeps the space of all later ones.
///
/// ```no_run
/// # fn work(ring: ebpf_ring::RingReader) -> Result<(), ebpf_ring::RingError> {
/// let ring = ebpf_ring::SharedReader::from(ring);
/// std::thread::scope(|scope| {
///     for _ in 0..4 {
///         scope.spawn(|| -> Result<(), ebpf_ring::RingError> {
///             while ring.wait(None)? {
///                 while let Some(claim) = ring.claim(256)? {
///                     for record in &claim {
///                         println!("{} bytes", record?.bytes().len());
///                     }
///                 }
///             }
///             Ok(())
///         });
///     }
/// });
/// # Ok(())
/// # }
/// ```
pub struct SharedReader {
    fd: OwnedFd,
    mapping: Mapping,
    claims: Mutex<Claims>,
    counters: Option<Mutex<Box<dyn CounterSource>>>,
    closer: Option<Closer>,
}

impl From<RingReader> for SharedReader {
    /// Its [`closer`](RingReader::closer) closes the shared reader too.
    fn from(reader: RingReader) -> Self {
        reader.into_shared()
    }
}

impl SharedReader {
    pub(crate) fn new(
        (fd, mapping): (OwnedFd, Mapping),
        consumer: Consumer,
        counters: Option<Box<dyn CounterSource>>,
        closer: Option<Closer>,
    ) -> Self {
        Self {
            fd,
            mapping,
            claims: Mutex::new(Claims::new(consumer)),
            counters: counters.map(Mutex::new),
            closer,
        }
    }

    /// Claims the next records, at most `records_max`, for the caller alone; `None` when there is
    /// none. Never waits. Dropping the claim, read or not, counts its records as delivered.
    ///
    /// # Errors
    ///
    /// [`is_corrupt`](RingError::is_corrupt), once what came before the damage is claimed.
    pub fn claim(&self, records_max: u64) -> Result<Option<Claim<'_>>, RingError> {
        let span = self.claims().claim(self.mapping.view(), records_max)?;
        Ok(span.map(|span| Claim { ring: self, span }))
    }

    /// Waits until there may be something to [`claim`](Self::claim); false when the time is over
    /// first, or the reader is closed. `None` waits for ever.
    ///
    /// Sleeps in the kernel. While a claim is held, which keeps the kernel from waking anybody,
    /// this looks every 100 us.
    ///
    /// # Errors
    ///
    /// As [`RingReader::wait`].
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool, RingError> {
        Waiter::closed_by(self.closer.clone()).wait(Wait::Block { timeout }, self)
    }

    /// As [`RingReader::stats`]; claimed records count as delivered.
    ///
    /// # Errors
    ///
    /// As [`RingReader::stats`].
    pub fn stats(&self) -> Result<RingStats, RingError> {
        let consumer = self.claims().consumer;
        let counters = self.counters.as_ref().map(|counters| lock(counters));
        let counters = counters.as_deref().map(|counters| &**counters);
        RingStats::of(self.mapping.view(), consumer, counters)
    }

    fn claims(&self) -> MutexGuard<'_, Claims> {
        lock(&self.claims)
    }
}

/// No code that holds one of these locks leaves what it guards half changed when it panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watched for SharedReader {
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn look(&self) -> Result<Look, RingError> {
        let claims = self.claims();
        Ok(
            match walk::look(self.mapping.view(), claims.consumer.position)? {
                // Nobody will be woken, and poll would call what is claimed readable.
                Look::Empty if claims.is_any_open() => Look::Busy,
                look => look,
            },
        )
    }
}

impl fmt::Debug for SharedReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedReader")
            .field("fd", &self.fd)
            .field("claims", &*self.claims())
            .finish_non_exhaustive()
    }
}

/// Records that belong to one thread until this is dropped.
#[derive(Debug)]
pub struct Claim<'s> {
    ring: &'s SharedReader,
    span: Span,
}

impl Claim<'_> {
    /// Records in it.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.span.records
    }

    /// Whether the program discarded all of them.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.span.records == 0
    }

    /// The records, oldest first. An error, which is [`is_corrupt`](RingError::is_corrupt), ends
    /// the iterator: somebody wrote to the ring meanwhile.
    #[must_use]
    pub fn iter(&self) -> ClaimIter<'_> {
        ClaimIter {
            memory: self.ring.mapping.view(),
            at: Consumer::at(self.span.start),
            end: self.span.end,
        }
    }
}

impl<'c> IntoIterator for &'c Claim<'_> {
    type Item = Result<Record<'c>, RingError>;
    type IntoIter = ClaimIter<'c>;

    fn into_iter(self) -> ClaimIter<'c> {
        self.iter()
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.ring
            .claims()
            .finish(self.ring.mapping.view(), self.span);
    }
}

/// The records of a [`Claim`].
#[derive(Debug)]
pub struct ClaimIter<'c> {
    memory: View<'c>,
    at: Consumer,
    end: u64,
}

impl<'c> Iterator for ClaimIter<'c> {
    type Item = Result<Record<'c>, RingError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.at.step(self.memory, self.end) {
                Ok(Step::Record(bytes)) => return Some(Ok(Record::new(bytes))),
                Ok(Step::Discarded) => {}
                Ok(Step::Stop(_)) => return None,
                Err(damage) => {
                    self.at.position = self.end;
                    return Some(Err(damage.into()));
                }
            }
        }
    }
}
