//! For programs on tokio (feature `tokio`): a shard as a task, and a way out of a handler.
//!
//! - [`run`] drives a shard as a task. A `current_thread` runtime then hosts it without another thread.
//! - [`outlet`] takes items out of a handler: a bounded channel whose other end is a
//!   [`Stream`](futures_core::Stream), and which tells the handler when there is room again.
//! - [`Sender::send`](crate::Sender::send) is the way in; it waits for room, and needs no feature.
//!
//! `examples/tokio.rs` is a server whose lines are answered by async code, all on one thread.

mod outlet;
mod task;

pub use outlet::{Items, Outlet, outlet};
pub use task::run;
