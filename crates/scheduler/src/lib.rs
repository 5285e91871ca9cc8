//! Which job runs now, and only here?
#![forbid(unsafe_code)]

mod cancel;
mod core;
mod cron;
mod firing;
mod history;
mod keeper;
mod meter;
mod once;
mod policy;
mod runner;
mod schedule;
mod scheduler;
mod spec;
#[cfg(feature = "store")]
mod store;
mod zone;

pub use crate::core::job::JobState;
pub use cancel::{CancelCause, CancelToken, Cancelled};
pub use circuit::{State as BreakerState, TraceId};
pub use cron::{Cron, CronCursor, InvalidCron};
pub use firing::{Firing, JobError};
pub use history::{Counts, Outcome, Record};
pub use once::{Claim, Claimed, Doubt, FiringId, Once, OnceError};
pub use policy::{BreakerRules, InDoubt, Misfire, OnFull, Overlap, Retry};
pub use schedule::{FireTime, Schedule, ScheduleError};
pub use scheduler::{Config, Drained, Job, Load, Scheduler, Status};
pub use spec::JobSpec;
#[cfg(feature = "store")]
pub use store::{Resolution, StoreOnce};
pub use zone::{UnknownZone, Zone};
