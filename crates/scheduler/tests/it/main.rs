//! Behaviour of schedules and of the scheduler as their users see it.
#![cfg(test)]

mod cron;
mod cron_model;
#[cfg(feature = "store")]
mod once;
mod runner;
