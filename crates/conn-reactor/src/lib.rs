//! Edge-triggered reactor for very many quiet sockets.
//!
//! ```
//! use conn_reactor::{CloseReason, Handler, Io, Opened, Options, Reactor, TimerKey, Token};
//!
//! struct Echo;
//!
//! impl Handler for Echo {
//!     type Conn = ();
//!     type Timer = ();
//!     type Message = ();
//!
//!     fn opened(&mut self, _: &mut Io<Self>, _: Token, _: Opened) -> Option<()> {
//!         Some(())
//!     }
//!     fn data(&mut self, io: &mut Io<Self>, token: Token, input: &[u8]) -> usize {
//!         match io.write(token, input) {
//!             Ok(()) => {}
//!             Err(_) => io.close(token, CloseReason::Local(1)),
//!         }
//!         input.len()
//!     }
//!     fn closed(&mut self, io: &mut Io<Self>, _: Token, _: (), _: CloseReason) {
//!         io.stop();
//!     }
//!     fn connect_failed(&mut self, _: &mut Io<Self>, _: u64, _: std::io::Error) {}
//!     fn timer(&mut self, _: &mut Io<Self>, _: TimerKey, _: ()) {}
//!     fn message(&mut self, _: &mut Io<Self>, _: ()) {}
//! }
//!
//! # fn main() -> std::io::Result<()> {
//! let options = Options { shards: 1, ..Options::default() };
//! let reactor = Reactor::builder(options).listen(([127, 0, 0, 1], 0).into()).build(|_shard| Echo)?;
//! let addr = reactor.local_addrs()[0];
//! let running = reactor.run()?;
//!
//! use std::io::{Read, Write};
//! let mut client = std::net::TcpStream::connect(addr)?;
//! client.write_all(b"hello")?;
//! let mut answer = [0; 5];
//! client.read_exact(&mut answer)?;
//! assert_eq!(&answer, b"hello");
//! drop(client);
//! running.join()?;
//! # Ok(())
//! # }
//! ```

#![deny(unsafe_code)]

#[cfg(not(unix))]
compile_error!("conn-reactor runs on epoll and kqueue only");
#[cfg(not(target_pointer_width = "64"))]
compile_error!("conn-reactor needs 64-bit poller keys for slot and generation");

mod budget;
pub mod client;
mod conn;
mod ctx;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub mod descriptors;
mod drive;
mod error;
mod flags;
mod handler;
mod interest;
mod io;
mod mailbox;
mod options;
mod phase;
mod platform;
mod polled;
mod queue;
mod reactor;
mod sending;
mod shard;
mod slab;
mod stats;
mod steps;
mod sys;
mod token;
#[cfg(feature = "tokio")]
pub mod tokio;

pub use ctx::{Ctx, TraceId};
pub use error::{CloseReason, SendError, WriteError};
pub use handler::{Handler, Opened};
pub use io::{Io, TimerKey};
pub use mailbox::Sender;
pub use options::{Keepalive, Options, WhenFull};
pub use polled::{Polled, PollerFd, Turn};
pub use reactor::{Builder, Reactor, Running};
pub use sending::Sending;
pub use shard::Shard;
pub use stats::{Lateness, Stats};
pub use token::Token;

/// Compiles the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
