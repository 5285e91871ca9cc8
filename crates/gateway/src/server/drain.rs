//! How far the gateway has come in stopping.

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
