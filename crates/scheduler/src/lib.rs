//! Which job runs now, and only here? Cron, intervals and single times, with an answer for everything that does not go
//! by the clock.
//!
//! - [`Cron`], [`Schedule`]: when. Pure: time is an argument. Fire times are Unix milliseconds.
//! - [`JobSpec`]: what, and by which rules ([`Misfire`], [`Overlap`], [`Retry`], [`BreakerRules`], [`InDoubt`]).
//! - [`Scheduler`], [`Job`]: threads that run jobs, and the handles to them.
//! - [`Once`], and `StoreOnce` (feature `store`): a firing runs once across replicas, or is in doubt and reported.
//!
//! ```
//! use scheduler::{Cron, FireTime, Zone};
//!
//! let cron: Cron = "0 9 LW * *".parse()?; // nine o'clock on each month's last weekday
//! let after = FireTime::parse("2026-05-01T00:00:00Z")?;
//! let next_ms = cron.next_after_ms(after.0, &Zone::named("America/New_York")?);
//! assert_eq!(FireTime(next_ms.unwrap()).to_string(), "2026-05-29T13:00:00.000Z");
//! # Ok::<(), scheduler::ScheduleError>(())
//! ```
//!
//! # How it works
//!
//! One state machine holds the jobs, what waits and what runs. Its timers are two of timerwheel's wheels: fire times on the wall
//! clock, timeouts and retries on the steady one. A thread watches the clocks, workers take what is ready, and, with a
//! [`Once`] hook, two threads talk to the store: one keeps the claims of long runs, one asks about firings that no worker has in
//! hand. The lock around it is held for well under a microsecond at a time, and longer where all runs or jobs are gone through: to
//! hand the extension of each claim to the store, to remember how far jobs came, to shut down. It is never held while a job or an
//! observer is called, or while an answer of the store is waited for.
//!
//! A healthy job has no breaker: it gets one when it first fails, and loses it when it has recovered. A claim is durable before the
//! job's code is called, and its outcome is written after it; a crash in between leaves the firing in doubt, and nothing repeats it
//! unless the job's [`InDoubt`] policy or somebody's answer says so.
#![forbid(unsafe_code)]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

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
#[cfg(target_os = "linux")]
mod wall;
mod zone;

pub use crate::core::job::JobState;
pub use cancel::{CancelCause, CancelToken, Cancelled};
pub use circuit::{State as BreakerState, TraceId};
pub use cron::{Cron, CronCursor, InvalidCron};
pub use firing::{Firing, JobError};
pub use history::{Counts, Outcome, Record};
pub use meter::Lateness;
pub use once::{Claim, Claimed, FiringId, Once, OnceError, Unsettled};
pub use policy::{BreakerRules, InDoubt, Misfire, OnFull, Overlap, Retry};
pub use schedule::{FireTime, Schedule, ScheduleError};
pub use scheduler::{Config, Drained, Job, Load, Scheduler, Status};
pub use spec::JobSpec;
#[cfg(feature = "store")]
pub use store::{Resolution, StoreOnce};
pub use zone::{UnknownZone, Zone};
