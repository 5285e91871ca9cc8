//! Behaviour of schedules and of the scheduler as their users see it.

mod cron;
mod cron_model;
#[cfg(feature = "store")]
mod once;
mod runner;
