//! Which job runs now, and only here?
#![forbid(unsafe_code)]

mod cron;
mod schedule;
mod zone;

pub use cron::{Cron, CronCursor, InvalidCron};
pub use schedule::{FireTime, Schedule, ScheduleError};
pub use zone::{UnknownZone, Zone};
