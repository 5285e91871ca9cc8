//! How far the gateway has come in stopping, and what its shards are told meanwhile.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::Shared;

/// How long the end waits for a store that does not answer. Its requests time out one after another otherwise.
const STORE_PATIENCE: Duration = Duration::from_secs(4);

/// A gateway serves, drains, stops; never back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Phase {
    /// Everything runs.
    Serving,
    /// No new connection or command; commands that were sent may still end.
    Draining,
    /// Whatever is still open is recorded as open.
    Stopping,
}

/// Resolves when the phase is one that `wanted` accepts.
pub(crate) async fn until(phases: &mut watch::Receiver<Phase>, wanted: impl Fn(Phase) -> bool) {
    // The sender lives as long as the gateway; without it there is nothing left to wait for.
    drop(phases.wait_for(|phase| wanted(*phase)).await);
}

/// What a shard is to do; each one includes those before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(crate) enum Order {
    Serve,
    /// Accept nobody any more.
    StopAccepting,
    /// Say goodbye to every device and stop.
    Stop,
}

/// Orders that a mailbox had no room for, by shard: each shard looks here at the end of every turn.
pub(crate) struct Overflow(Vec<AtomicU8>);

impl Overflow {
    pub(crate) fn new(shards: usize) -> Self {
        let place = |_| AtomicU8::new(Order::Serve as u8);
        Self((0..shards).map(place).collect())
    }

    pub(crate) fn put(&self, shard: usize, order: Order) {
        self.0[shard].fetch_max(order as u8, Ordering::Release);
    }

    pub(crate) fn of(&self, shard: usize) -> Order {
        match self.0[shard].load(Ordering::Acquire) {
            0 => Order::Serve,
            1 => Order::StopAccepting,
            _ => Order::Stop,
        }
    }
}

impl Shared {
    /// Closes what is left when shards and HTTP have ended: beats in datagrams, the devices' names, the store.
    ///
    /// # Errors
    ///
    /// The store's.
    pub(crate) async fn close(self: Arc<Self>) -> io::Result<()> {
        let store = self.store.clone();
        let flush = async {
            // What serves a shared one is a task here, for which closing does not wait.
            if store.is_shared() {
                store.flush().await.map_err(io::Error::other)?;
            }
            Ok(())
        };
        let close = move || {
            if let Some(datagrams) = &self.datagrams {
                datagrams.stop();
            }
            self.registry.close();
            // Ends the store also for tasks that have not noticed the end yet.
            self.store.clone().close().map_err(io::Error::other)
        };
        flush_and_close(STORE_PATIENCE, flush, close).await
    }
}

/// Closes behind `flush`, whatever comes of that, and waits no longer than `patience` for both.
async fn flush_and_close(
    patience: Duration,
    flush: impl Future<Output = io::Result<()>>,
    close: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<()> {
    let deadline = Instant::now() + patience;
    let flushed = timeout_at(deadline, flush).await;
    let closing = tokio::task::spawn_blocking(close);
    let closed = timeout_at(deadline, closing).await;
    if flushed.is_err() || closed.is_err() {
        // What it was still to be told is in doubt, as if this process had been killed.
        tracing::warn!("the store did not hear the last in time");
    }
    let closed = closed.map_or(Ok(()), |closed| closed.map_err(io::Error::other).flatten());
    flushed.unwrap_or(Ok(())).and(closed)
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::mpsc;

    use super::*;

    /// What `flush_and_close` says of this flush and this close, once the close has run.
    async fn end(
        flush: impl Future<Output = io::Result<()>>,
        closed: io::Result<()>,
    ) -> Result<(), String> {
        let (told, hear) = mpsc::channel();
        let close = move || {
            told.send(()).unwrap();
            closed
        };
        let ended = flush_and_close(Duration::from_millis(50), flush, close).await;
        let ran = tokio::task::spawn_blocking(move || hear.recv()).await;
        assert_eq!(ran.unwrap(), Ok(()), "it was closed");
        ended.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn the_store_is_closed_whatever_comes_of_the_flush() {
        let wrong = |what: &str| Err(io::Error::other(what.to_owned()));
        assert_eq!(end(pending(), Ok(())).await, Ok(()));
        assert_eq!(end(ready(Ok(())), Ok(())).await, Ok(()));
        let flush = ready(wrong("flush"));
        assert_eq!(end(flush, Ok(())).await, Err("flush".into()));
        let both = end(ready(wrong("flush")), wrong("close")).await;
        assert_eq!(both, Err("flush".into()), "the first");
    }
}
