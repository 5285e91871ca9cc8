//! Which descriptors are open, what made them, from where, and how long ago.
//!
//! Events tell who opens and closes; about every second, and at the end, an iterator of the kernel
//! lists what is open. That list decides, so the result is what `/proc/PID/fd` shows, also when
//! events were lost; and what appears in it without an event is there as `unknown`. Where events were
//! lost, the origin may be that of a descriptor that had the same number before.
//!
//! ```no_run
//! use std::time::Duration;
//! use kernel_scope::fds::{Fds, Options};
//!
//! let mut tool = Fds::open(&Options::default().pid(1234))?;
//! tool.collect(Duration::from_secs(10))?;
//! let events = tool.finish()?;
//! for group in tool.groups() {
//!     println!("{} by {} at {:?}: {:?}", group.fds.len(), group.call, group.stack.first(), group.fds);
//! }
//! assert!(events.is_balanced());
//! # Ok::<(), kernel_scope::ScopeError>(())
//! ```
//!
//! Where functions of the kernel can be watched, nothing is made unseen. Elsewhere these are
//! `unknown`: what io_uring, `ioctl`, `clone` with `CLONE_PIDFD` and 32-bit programs open, and what
//! lies beyond the eighth message of a `recvmmsg`. Stacks end where code has no frame pointers.

mod calls;
mod event;
mod found;
mod groups;
mod state;
mod tool;

pub use crate::options::Options;
pub use groups::Group;
pub use tool::Fds;
