//! The kernel's perf buffers, one for each CPU, read in place.

#[cfg(any(test, fuzzing))]
mod heap;
mod mapping;
mod reader;
mod walk;

#[cfg(fuzzing)]
pub(crate) use heap::walk_hostile_buffer;
pub use reader::{PerfOptions, PerfReader, PerfRecord, WakeUp};
