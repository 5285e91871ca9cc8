//! Real sockets against real shards.

mod closing;
mod connecting;
mod flow;
mod limits;
mod messages;
mod reading;
mod rig;
mod stress;
mod timers;
