//! The tests of `idem-store`, one module per behaviour.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod concurrency;
mod contract;
mod damage;
mod disk;
mod faults;
mod golden;
mod kill;
mod simulation;
