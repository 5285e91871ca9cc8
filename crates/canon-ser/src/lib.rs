#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod arrange;
mod buf;
pub mod cbor;
#[cfg(any(feature = "digest", feature = "blake3"))]
pub mod digest;
mod error;
pub mod json;
mod levels;
mod order;

mod profile;
pub mod semantic;

#[cfg(feature = "digest")]
pub use digest::digest;
pub use error::Error;
pub use profile::{Profile, UnknownProfile};
