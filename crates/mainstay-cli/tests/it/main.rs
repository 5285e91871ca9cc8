//! The command as a user starts it.
#![cfg(test)]

mod canon;
mod canon_edges;
mod canon_pipes;
mod clockwork;
mod config;
mod crash;
mod dashboard;
mod doctor;
mod schedule;
mod secrets;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "redis"))]
mod shared;
mod stalled;
mod store;
mod support;
mod swarm;
mod token;
#[cfg(all(feature = "trace", target_os = "linux"))]
mod trace;
