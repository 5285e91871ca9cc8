//! Real sockets against real shards.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;
mod closing;
mod connecting;
mod ctx;
#[cfg(all(
    any(target_os = "linux", target_os = "android"),
    not(conn_reactor_portable)
))]
mod descriptors;
mod flow;
mod interest;
mod limits;
mod messages;
mod reading;
mod rig;
mod soak;
mod stress;
mod timers;
#[cfg(feature = "tokio")]
mod tokio;
