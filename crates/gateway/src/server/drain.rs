//! How far the gateway has come in stopping, and what its shards are told meanwhile.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::watch;

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
