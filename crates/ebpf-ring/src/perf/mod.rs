//! The kernel's perf buffers, one for each CPU, read in place.

mod mapping;
mod reader;
mod walk;

pub use reader::{PerfOptions, PerfReader, PerfRecord, WakeUp};
