//! A device gateway: very many long-lived connections, who is present, and commands that run once.
//!
//! Three rooms:
//!
//! - [`proto`]: the device protocol as values and bytes. No socket, clock or thread; always built.
//! - `server` (feature `server`): the gateway. Device connections on [`conn-reactor`], beats and
//!   frames by [`heartbeat-codec`], every command claimed and answered through [`idem-store`],
//!   HTTP in front.
//! - `device` (feature `device`): the other side. One device that answers each command once, or a
//!   fleet of simulated ones for load.
//!
//! The bytes on the wire are in `docs/PROTOCOL.md` of the repository, the HTTP contract in
//! [`server`](#modules).
//!
//! [`conn-reactor`]: https://docs.rs/conn-reactor
//! [`heartbeat-codec`]: https://docs.rs/heartbeat-codec
//! [`idem-store`]: https://docs.rs/idem-store
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod proto;

#[cfg(feature = "device")]
pub mod device;
#[cfg(feature = "server")]
pub mod server;

#[cfg(all(doctest, feature = "device", feature = "server"))]
#[doc = include_str!("../README.md")]
struct Readme;
