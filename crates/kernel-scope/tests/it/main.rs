//! The tools on the running kernel. What the machine does not allow is skipped with its reason.
#![cfg(all(target_os = "linux", target_pointer_width = "64"))]

mod alone;
mod fds;
mod forms;
mod map_iter;
mod namespace;
mod runq;
mod skip;
mod summary;
mod tasks;
mod wake;
