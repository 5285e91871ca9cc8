//! The command as a user starts it.
#![cfg(test)]

mod canon;
mod config;
mod crash;
mod dashboard;
mod doctor;
mod store;
mod support;
#[cfg(all(feature = "trace", target_os = "linux"))]
mod trace;
