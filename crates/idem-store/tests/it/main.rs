//! The tests of `idem-store`, one module per behaviour.

mod contract;
mod damage;
mod disk;
mod simulation;
