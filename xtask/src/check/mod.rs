//! Checks that no other tool makes for us. Each is one file and one stage of `cargo xtask test`.

pub(crate) mod features;
pub(crate) mod layers;
pub(crate) mod layouts;
pub(crate) mod links;
pub(crate) mod native;
mod rooms;
mod source;
pub(crate) mod targets;
pub(crate) mod tidy;
