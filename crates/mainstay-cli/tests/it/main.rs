//! The `mainstay` command from outside.

#[cfg(all(feature = "trace", target_os = "linux"))]
mod trace;
