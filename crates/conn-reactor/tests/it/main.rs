//! Real sockets against real shards.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod closing;
mod connecting;
mod flow;
mod limits;
mod messages;
mod reading;
mod rig;
mod soak;
mod stress;
mod timers;
