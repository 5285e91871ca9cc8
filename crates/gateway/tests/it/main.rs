//! The gateway from outside: its HTTP contract, its device protocol, its device library.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod bad_requests;
mod commands;
mod datagrams;
mod delta;
mod doubt;
mod draining;
mod gate;
mod groups;
mod hostile;
mod http;
mod http_edge;
mod jobs;
mod leak;
mod limits;
mod numbers;
mod peer;
mod presence;
mod proto;
#[cfg(test)]
mod python;
mod returns;
mod rig;
mod sdk;
mod takeover;
mod vectors;
