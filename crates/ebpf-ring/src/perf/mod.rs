//! The kernel's perf buffers, one for each CPU, read in place.

mod cpus;
#[cfg(feature = "libbpf")]
mod libbpf;
mod mapping;
mod reader;
mod walk;

pub use reader::{PerfOptions, PerfReader, PerfRecord, WakeUp};
