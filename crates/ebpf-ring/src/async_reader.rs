//! A reader awaited on tokio, by its descriptor and [`Wait::Event`].

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::RingError;
use crate::map::duplicate;
use crate::perf::PerfReader;
use crate::ring::{OverwriteReader, RingReader, RingSet, ShardedRings};
use crate::wait::{Closer, Wait};

/// A reader that an [`AsyncReader`] can hold. Not for others to implement.
pub trait EventReader: AsFd + sealed::Sealed {
    /// As the reader's own.
    ///
    /// # Errors
    ///
    /// As the reader's own.
    fn wait(&mut self, wait: Wait) -> Result<bool, RingError>;

    /// As the reader's own.
    ///
    /// # Errors
    ///
    /// As the reader's own.
    fn closer(&mut self) -> Result<Closer, RingError>;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! event_readers {
    ($($reader:ty),*) => {$(
        impl sealed::Sealed for $reader {}
        impl EventReader for $reader {
            fn wait(&mut self, wait: Wait) -> Result<bool, RingError> {
                <$reader>::wait(self, wait)
            }

            fn closer(&mut self) -> Result<Closer, RingError> {
                <$reader>::closer(self)
            }
        }
    )*};
}

event_readers!(
    RingReader,
    RingSet,
    ShardedRings,
    PerfReader,
    OverwriteReader
);

/// A reader that is awaited instead of waited for.
///
/// ```no_run
/// # async fn follow(ring: ebpf_ring::RingReader) -> Result<(), ebpf_ring::RingError> {
/// let mut ring = ebpf_ring::AsyncReader::new(ring)?;
/// while ring.ready().await? {
///     ring.get_mut().drain(1_000, |record| println!("{} bytes", record.bytes().len()))?;
///     tokio::task::yield_now().await; // a flood shall not keep the thread for itself
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct AsyncReader<R> {
    reader: R,
    closer: Closer,
    records: AsyncFd<OwnedFd>,
    closing: AsyncFd<OwnedFd>,
}

impl<R: EventReader> AsyncReader<R> {
    /// Registers the reader with the runtime of the caller.
    ///
    /// # Errors
    ///
    /// When the process has no descriptor left.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, or in one without its I/O driver.
    pub fn new(mut reader: R) -> Result<Self, RingError> {
        let closer = reader.closer()?;
        let event = closer.event();
        let event = event.map_err(|e| RingError::io("duplicating the closer's descriptor", e))?;
        Ok(Self {
            records: register(duplicate(&reader)?)?,
            closing: register(event)?,
            closer,
            reader,
        })
    }

    /// Waits until there is something to drain; false once the reader is closed.
    ///
    /// Cancel safe: nothing is consumed. Records that a program submits with `BPF_RB_NO_WAKEUP` are
    /// only found when something else wakes: bound this with a timeout then.
    ///
    /// # Errors
    ///
    /// As the reader's `wait`.
    pub async fn ready(&mut self) -> Result<bool, RingError> {
        loop {
            // First look, then sleep: after a false, the next record is an edge, and an edge that
            // came before is still in the runtime's memory, so that this loops once more.
            if self.reader.wait(Wait::Event)? {
                return Ok(true);
            }
            if self.closer.is_closed() {
                return Ok(false);
            }
            let edge = poll_fn(|cx| self.poll_edge(cx)).await;
            edge.map_err(|e| RingError::io("awaiting the ring", e))?;
        }
    }

    /// Ready once for each edge of either descriptor.
    fn poll_edge(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for fd in [&self.records, &self.closing] {
            if let Poll::Ready(guard) = fd.poll_read_ready(cx) {
                // Only this edge: one that comes meanwhile stays.
                guard?.clear_ready();
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Pending
    }
}

impl<R> AsyncReader<R> {
    /// The reader.
    #[must_use]
    pub fn get_ref(&self) -> &R {
        &self.reader
    }

    /// The reader, to drain it.
    #[must_use]
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.reader
    }

    /// The reader, no longer registered.
    #[must_use]
    pub fn into_inner(self) -> R {
        self.reader
    }
}

fn register(fd: OwnedFd) -> Result<AsyncFd<OwnedFd>, RingError> {
    // SAFETY: the AsyncFd owns the descriptor: it stays open and the same for as long as that lives.
    let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    registered.map_err(|e| RingError::io("registering with the runtime", io::Error::from(e)))
}
