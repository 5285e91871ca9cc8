#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod buf;
#[cfg(any(feature = "digest", feature = "blake3"))]
pub mod digest;
mod error;
pub mod json;
mod order;

mod profile;

#[cfg(feature = "digest")]
pub use digest::digest;
pub use error::Error;
pub use profile::{Profile, UnknownProfile};
