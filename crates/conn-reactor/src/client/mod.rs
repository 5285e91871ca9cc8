//! Clients: connections that come back, to a list of endpoints, with what they still have to say.
//!
//! [`Clients`] is a [`Handler`](crate::Handler), so one shard drives as many clients as it has connections; what they
//! say is a [`Protocol`]. The parts work alone too, without a reactor, a clock or a thread:
//!
//! - [`Reconnector`] and [`Endpoints`]: when to try, and where. Pauses with full jitter, the first one in a window or in
//!   a slot that the server assigned; the next endpoint after a failure; a breaker for each endpoint.
//! - [`Outbound`] and its peer's half [`Inbound`]: numbered frames that stay until they are acknowledged, go out again in
//!   order after a reconnect, and are dropped by the peer when it has them.
//!
//! ```
//! use std::io::{Read, Write};
//! use conn_reactor::client::{ClientId, ClientIo, ClientOptions, Clients, Loss, Protocol};
//! use conn_reactor::{Options, Reactor};
//!
//! /// Greets with `?`, is welcomed with the number of the last frame that the peer has, and sends frames of one byte.
//! struct Counter;
//!
//! impl Protocol for Counter {
//!     type Client = ();
//!     type Resume = ();
//!     type Message = ();
//!
//!     fn started(&mut self, io: &mut ClientIo<Self>) {
//!         let client = io.add((), 0).expect("the shard begins");
//!         for _ in 0..3 {
//!             // Kept until it is acknowledged, on as many connections as that takes.
//!             io.send(client, |number, frame| frame.push(number as u8)).expect("there is room");
//!         }
//!     }
//!     fn connected(&mut self, io: &mut ClientIo<Self>, client: ClientId) {
//!         let _ = io.write(client, b"?");
//!     }
//!     fn data(&mut self, io: &mut ClientIo<Self>, client: ClientId, input: &[u8]) -> usize {
//!         for number in input {
//!             io.acknowledge(client, u64::from(*number)).expect("an honest peer");
//!             if !io.is_established(client) {
//!                 io.established(client); // from here on the queue flows
//!             }
//!         }
//!         if io.unacknowledged(client) == 0 {
//!             io.stop(1_000);
//!         }
//!         input.len()
//!     }
//!     fn lost(&mut self, _: &mut ClientIo<Self>, _: ClientId, loss: Loss) {
//!         println!("{}; again in {:?} ms", loss.why, loss.retry_in_ms);
//!     }
//!     fn message(&mut self, _: &mut ClientIo<Self>, _: ()) {}
//! }
//!
//! # fn main() -> std::io::Result<()> {
//! let server = std::net::TcpListener::bind("127.0.0.1:0")?;
//! let mut options = ClientOptions::new(server.local_addr()?);
//! options.reconnect.backoff.first_window_ms = 20;
//! let reactor = Reactor::builder(Options { shards: 1, ..Options::default() })
//!     .build(|_shard| Clients::new(Counter, options.clone()))?;
//! let running = reactor.run()?;
//!
//! // A server that hangs up behind the first frame of each connection.
//! std::thread::spawn(move || -> std::io::Result<()> {
//!     let mut received = 0;
//!     loop {
//!         let (mut stream, _) = server.accept()?;
//!         let mut byte = [0];
//!         stream.read_exact(&mut byte)?; // the greeting
//!         stream.write_all(&[received])?;
//!         if stream.read_exact(&mut byte).is_ok() {
//!             assert_eq!(byte[0], received + 1, "in order, none twice");
//!             received = byte[0];
//!         }
//!     }
//! });
//! running.join()?;
//! # Ok(())
//! # }
//! ```

mod clients;
mod io;
mod outbound;
mod reconnect;

pub use clients::{ClientId, ClientOptions, Clients, Loss, Protocol, Why};
pub use io::ClientIo;
pub use outbound::{Arrival, Inbound, Outbound, OutboundLimits, QueueError};
pub use reconnect::{Attempt, Endpoints, Prefer, Reconnect, Reconnector};
