//! The tests of `idem-store`, one module per behaviour.

mod contract;
mod disk;
mod simulation;
