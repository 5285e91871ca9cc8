//! The crate's tests from outside; those that need the kernel's BPF need the feature `libbpf`.

mod counters;
#[cfg(all(
    feature = "libbpf",
    target_os = "linux",
    target_pointer_width = "64",
    not(loom)
))]
mod kernel;
#[cfg(all(
    feature = "libbpf",
    target_os = "linux",
    target_pointer_width = "64",
    not(loom)
))]
mod skip;
