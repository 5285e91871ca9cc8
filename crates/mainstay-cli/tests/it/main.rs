//! The command as a user starts it.
#![cfg(test)]

mod canon;
mod config;
mod dashboard;
mod doctor;
mod store;
#[cfg(all(feature = "trace", target_os = "linux"))]
mod trace;
