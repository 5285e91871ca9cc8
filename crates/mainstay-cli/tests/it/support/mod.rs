//! What tests of the command share: the real binary as a process, and an HTTP client.

pub(crate) mod http;
pub(crate) mod process;
pub(crate) mod random;
