//! Is the other side alive? Frames, beats and failure detectors for long-lived connections.
//!
//! Sans-IO: bytes and time are arguments, nothing here reads a socket or a clock or panics on any input. Without
//! features there is no allocation either.
//!
//! - [`frame`]: a kind, a length and a body; the framing of version 1 of the gateway's device protocol.
//! - [`beat`]: the body of a heartbeat (7 bytes) and of its echo (4 bytes).
//! - [`delta`]: the same in one byte, mostly, by a prediction that both sides share.
//! - [`fixed`]: the same in five bytes, without state.
//! - [`capability`]: which of these forms both sides speak.
//! - [`detector`]: when silence means gone, by a fixed rule or by suspicion that grows (phi-accrual).
//! - [`pace`]: how often to beat, by how well it goes.
//! - [`node`]: a node's beat for other languages: protobuf (feature `protobuf`) and JSON (feature `serde`).
//! - `datagram` (feature `datagram`): beats that survive loss, repetition and reordering, authenticated.
//! - `batch` (feature `batch`; needs std and a C compiler): the beats of thousands of nodes, in about a byte each.
//!
//! Every byte is described in the crate's `docs/FORMAT.md`, with vectors that the tests hold the code to.
//!
//! ```
//! use heartbeat_codec::beat::Beat;
//! use heartbeat_codec::frame::{self, Decoded};
//!
//! const BEAT: u8 = 0x03; // kinds are the protocol's to choose, below 0x80
//!
//! let beat = Beat { stamp_ms: 1_000, load_percent: Some(40), rtt_ms: None };
//! let mut wire = Vec::new();
//! frame::encode_into(&mut wire, BEAT, &beat.encode())?;
//! assert_eq!(wire.len(), 9);
//!
//! match frame::decode(&wire, 1024)? {
//!     Decoded::Frame { kind, body, consumed } => {
//!         assert_eq!((kind, consumed), (BEAT, 9));
//!         assert_eq!(Beat::decode(body)?, beat);
//!     }
//!     Decoded::NeedMore { bytes_min } => println!("read on until {bytes_min} bytes are here"),
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(feature = "batch", feature = "protobuf"))]
extern crate alloc;
#[cfg(feature = "batch")]
extern crate std;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(feature = "batch")]
pub mod batch;
pub mod beat;
pub mod capability;
#[cfg(feature = "datagram")]
pub mod datagram;
pub mod delta;
pub mod detector;
pub mod fixed;
pub mod frame;
pub mod node;
pub mod pace;
mod track;
