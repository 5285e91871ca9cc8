//! Behaviour of the wheel as its users see it.

mod allocations;
mod basics;
#[cfg(feature = "tokio")]
mod futures;
mod model;
mod ordered;
#[cfg(feature = "service")]
mod service;
