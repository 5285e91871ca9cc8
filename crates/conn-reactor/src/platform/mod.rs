//! What differs between kernels, each with the same face: the poller of a shard, its wake-up, and the sockets' calls.
//!
//! `linux.rs` is for Linux and Android, `portable.rs` for every other system with kqueue. To run the tests over the
//! second on Linux: `RUSTFLAGS="--cfg conn_reactor_portable" cargo test -p conn-reactor`.
//!
//! On either, every descriptor is registered edge-triggered and leaves the interest list by being closed (`epoll(7)`: "Will closing a file descriptor cause it to be removed from all epoll interest
//! lists?"; kqueue drops its filters too). No descriptor of this crate is ever duplicated.

use crate::token::Token;

#[cfg(all(
    any(target_os = "linux", target_os = "android"),
    not(conn_reactor_portable)
))]
#[path = "linux.rs"]
mod imp;
#[cfg(not(all(
    any(target_os = "linux", target_os = "android"),
    not(conn_reactor_portable)
)))]
#[path = "portable.rs"]
mod imp;

pub(crate) use imp::{
    RawEvent, Registry, SHORT_READ_IS_LAST, Waker, accept, set_reuseport, stream_socket,
};

/// One report of the kernel.
#[derive(Clone, Copy)]
pub(crate) struct Event {
    pub(crate) token: Token,
    /// Bytes, a connection to accept, an end or an error can be read.
    pub(crate) readable: bool,
    /// There is room to send, or a connect has ended.
    pub(crate) writable: bool,
    /// The peer finished, sent urgent data, or the socket failed: a read that is short may not be the last, so
    /// reading must go on until the end of the stream, an error or EAGAIN.
    pub(crate) to_the_end: bool,
}
