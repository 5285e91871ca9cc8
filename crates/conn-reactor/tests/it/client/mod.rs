//! Clients: the machines alone, and on real sockets with servers that are killed.

mod peer;
mod queue;
mod reconnect;
mod sockets;
mod storm;
