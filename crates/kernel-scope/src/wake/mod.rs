//! Which system calls of a process sleep, how long, and who wakes them.
//!
//! Each call that slept gives an [`Event`]: when it was entered, went off the CPU, was woken and by
//! whom, was on a CPU again, and ended. A waker is a task, or an interrupt; an interrupt's wake-up
//! is not laid to the task that it came upon.
//!
//! ```no_run
//! use std::time::Duration;
//! use kernel_scope::wake::{Options, Summary, Wake};
//!
//! let mut summary = Summary::default();
//! let mut tool = Wake::open(&Options::default().pid(1234))?;
//! tool.collect(Duration::from_secs(10), &mut summary)?;
//! let events = tool.finish(&mut summary)?;
//! for row in summary.rows() {
//!     println!("{} slept {} ns in {} calls of {}", row.comm, row.asleep_total_ns, row.calls, row.call);
//! }
//! assert!(events.is_balanced());
//! # Ok::<(), kernel_scope::ScopeError>(())
//! ```
//!
//! A call that has not ended when the tool finishes gives no event. Calls of 32-bit programs are
//! not seen.

mod calls;
mod event;
mod summary;
mod tool;

pub use crate::options::Options;
pub use event::Event;
pub use summary::{Row, Summary, Waker};
pub use tool::Wake;
