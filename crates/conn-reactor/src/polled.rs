//! A shard that somebody else's event loop drives.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use polling::Poller;

use crate::shard::Running;
use crate::{Handler, Shard};

/// A shard without a thread: whoever owns it calls [`turn`](Self::turn) when its descriptor is readable, or a time has
/// passed. It stays on the thread that made it, by [`Shard::into_polled`].
///
/// The descriptor is the shard's poller (`epoll(7)` says how one poller waits for another). Clear what your poller
/// noted about it, then call `turn` until it says [`Turn::Wait`]: what comes after that makes the descriptor readable
/// again. To end a shard in order, [stop](crate::Sender::stop) it and call `turn` until it says [`Turn::Stopped`];
/// dropped before, it closes its descriptors and tells its handler nothing.
pub struct Polled<H: Handler> {
    running: Running<H>,
    poller: Arc<Poller>,
    has_stopped: bool,
}

/// What a turn left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There is more to do: call `turn` again, after what else has to be done.
    Again,
    /// Nothing to do until the descriptor is readable or this time has passed; `None`: only the descriptor counts.
    Wait(Option<Duration>),
    /// The shard has stopped: every connection is closed and its handler was told.
    Stopped,
}

impl<H: Handler> Shard<H> {
    /// Begins to run the shard, to be driven by the caller.
    ///
    /// # Errors
    /// The poller cannot be used or a listener not be watched.
    pub fn into_polled(self) -> io::Result<Polled<H>> {
        let poller = Arc::clone(&self.poller);
        let mut running = self.start()?;
        running.begin();
        Ok(Polled {
            running,
            poller,
            has_stopped: false,
        })
    }
}

impl<H: Handler> Polled<H> {
    /// Does what can be done now, within the limits of one turn, and does not wait.
    ///
    /// # Errors
    /// The poller cannot be used.
    ///
    /// # Panics
    /// When the handler panics.
    pub fn turn(&mut self) -> io::Result<Turn> {
        if self.has_stopped {
            return Ok(Turn::Stopped);
        }
        let events_before = self.running.io.stats.events;
        if !self.running.io.stopping {
            self.running.turn(Some(0))?;
        }
        if self.running.io.stopping {
            self.running.close_everything();
            self.has_stopped = true;
            return Ok(Turn::Stopped);
        }
        // A full batch may have left events behind, which make no new edge.
        let fetched = self.running.io.stats.events - events_before;
        if fetched >= self.running.io.options.event_batch as u64 {
            return Ok(Turn::Again);
        }
        Ok(match self.running.timeout_ms() {
            Some(0) => Turn::Again,
            timeout_ms => Turn::Wait(timeout_ms.map(Duration::from_millis)),
        })
    }

    /// The handler, for instance after the shard has stopped.
    #[must_use]
    pub fn into_handler(self) -> H {
        self.running.handler
    }

    /// The descriptor alone, which outlives this value: for pollers that want to own what they watch.
    #[must_use]
    pub fn poller(&self) -> PollerFd {
        PollerFd(Arc::clone(&self.poller))
    }
}

impl<H: Handler> AsFd for Polled<H> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poller.as_fd()
    }
}

impl<H: Handler> fmt::Debug for Polled<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Polled")
            .field("io", &self.running.io)
            .field("has_stopped", &self.has_stopped)
            .finish_non_exhaustive()
    }
}

/// The descriptor of a [`Polled`] shard's poller.
#[derive(Clone, Debug)]
pub struct PollerFd(Arc<Poller>);

impl AsFd for PollerFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for PollerFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
