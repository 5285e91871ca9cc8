#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(feature = "alloc"),
    expect(dead_code, reason = "some of it serves only what allocates")
)]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod arrange;
mod buf;
pub mod cbor;
#[cfg(any(feature = "digest", feature = "blake3"))]
pub mod digest;
#[cfg(any(feature = "std", feature = "digest", feature = "blake3"))]
mod drain;
mod emit;
mod encoder;
mod error;
pub mod json;
mod levels;
mod order;
mod profile;
#[cfg(feature = "rules")]
pub mod rules;
#[cfg(feature = "alloc")]
pub mod semantic;
mod ser;
#[cfg(feature = "std")]
mod stream;

#[cfg(feature = "digest")]
pub use digest::digest;
pub use error::Error;
pub use profile::{Profile, UnknownProfile};
