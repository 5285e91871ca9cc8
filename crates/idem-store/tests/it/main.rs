//! The tests of `idem-store`, one module per behaviour.

mod concurrency;
mod contract;
mod damage;
mod disk;
mod faults;
mod golden;
mod kill;
mod simulation;
