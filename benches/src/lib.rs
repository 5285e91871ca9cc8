//! Every crate beside its peers, in one run: what the benches share.

pub mod counting;
pub mod random;
pub mod rounds;
