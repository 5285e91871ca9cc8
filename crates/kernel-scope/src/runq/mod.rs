//! How long tasks wait for a CPU after they were woken or preempted, who woke them, and where they
//! had gone off the CPU.
//!
//! The kernel's scheduler is watched at its tracepoints, and everything is summed up there, in a
//! row per task; so a hundred thousand switches a second cost little. A wait begins when somebody
//! begins to wake the task (so the time that the waker needs is in it), or when the task is
//! preempted, and ends when it runs again.
//!
//! ```no_run
//! use std::time::Duration;
//! use kernel_scope::runq::{Options, RunQ};
//!
//! let mut tool = RunQ::open(&Options::default())?;
//! tool.collect(Duration::from_secs(10))?;
//! let events = tool.finish()?;
//! for task in tool.tasks()? {
//!     let waits = task.all_waits();
//!     println!("{} ({}): {} waits, p99 {:?} ns", task.comm, task.tid, waits.count(), waits.quantile_ns(0.99));
//!     for waker in &task.wakers {
//!         println!("  {} times by {} {}", waker.count, waker.class, waker.comm);
//!     }
//! }
//! assert!(events.is_balanced());
//! # Ok::<(), kernel_scope::ScopeError>(())
//! ```

mod ended;
mod off_cpu;
mod row;
mod stack_key;
mod task;
mod tool;
mod total;
mod waker_key;

pub use off_cpu::{OffCpu, flame_graph};
pub use task::{Task, WaitKind, Waits, Waker};
pub use tool::{Options, RunQ, TASKS_MAX};
