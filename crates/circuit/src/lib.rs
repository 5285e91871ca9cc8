//! Should I stop trying? Circuit breaker, backoff and retry budget as pure state machines.
//!
//! Time and randomness are arguments, so each decision can be tested and replayed; nothing here sleeps, locks
//! or starts a thread.
//!
//! - [`Backoff`]: how long to wait before the next try, in 8 bytes of state.
//! - [`Breaker`]: whether to try at all; by fixed or [`Adaptive`] thresholds.
//! - [`Throttle`]: which share of the requests to spare an overloaded callee.
//! - [`RetryBudget`]: whether retries are still a small part of the traffic.
//!
//! ```
//! use circuit::{Backoff, Breaker, Config, Jitter, Outcome, Policy};
//!
//! let policy = Policy { base_ms: 100, cap_ms: 10_000, jitter: Jitter::Full, first_window_ms: 0 };
//! let mut backoff = Backoff::new();
//! let mut breaker = Breaker::new(Config::essay());
//!
//! let now_ms = 0; // your clock
//! let permit = breaker.try_call(now_ms)?;
//! let answered = false; // your call
//! if answered {
//!     breaker.record(permit, Outcome::Success, now_ms);
//!     backoff.reset();
//! } else {
//!     breaker.record(permit, Outcome::Failure, now_ms);
//!     let random = 0x9e37_79b9_7f4a_7c15; // your generator
//!     let wait_ms = backoff.next_delay_ms(&policy, random);
//!     assert!(wait_ms <= 100);
//! }
//! # Ok::<(), circuit::Rejected>(())
//! ```

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(feature = "tower")]
extern crate std;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod adaptive;
mod backoff;
mod breaker;
mod budget;
mod config;
mod permit;
mod random;
mod throttle;
#[cfg(feature = "tower")]
mod tower;
mod trace;
mod watch;
mod window;

pub use adaptive::Adaptive;
pub use backoff::{Backoff, Jitter, Policy};
pub use breaker::{Breaker, CallError, Outcome, Reason, State, Transition};
pub use budget::{BudgetPolicy, RetryBudget};
pub use config::{Config, FailureRate};
pub use permit::{Permit, Rejected};
pub use random::SplitMix64;
pub use throttle::Throttle;
#[cfg(feature = "tower")]
pub use tower::{
    BreakerFuture, BreakerLayer, BreakerService, Classify, TraceOf, Unclassified, Untraced,
};
pub use trace::{InvalidTraceId, TraceId};
pub use window::{Counts, Lookback};
