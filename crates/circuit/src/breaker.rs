//! The breaker: closed, open, half-open (Michael Nygard, "Release It!", 2007).

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::AtomicU32;

use crate::config::Config;
use crate::permit::{Permit, Probe, Rejected};
use crate::window::Window;

/// How a permitted call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The callee works.
    Success,
    /// The callee does not work. An error that is the caller's own fault is a success in this sense.
    Failure,
}

/// What a breaker does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Lets all calls through and watches them.
    Closed,
    /// Refuses all calls for some time.
    Open,
    /// Lets a few probes through to see whether the callee works again.
    HalfOpen,
}

/// Why a breaker changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Too large a share of the last calls failed.
    FailureRate,
    /// Too many calls failed in a row.
    ConsecutiveFailures,
    /// The breaker was open long enough.
    OpenElapsed,
    /// A probe failed.
    ProbeFailed,
    /// Enough probes succeeded.
    ProbesSucceeded,
    /// [`Breaker::trip`] or [`Breaker::reset`].
    Manual,
}

/// A change of state, for logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
    /// What caused it.
    pub reason: Reason,
}

/// A circuit breaker.
///
/// Ask [`try_call`](Self::try_call) before each call and tell [`record`](Self::record) how it ended. Outcomes of
/// calls that began in an earlier state are ignored: a slow failure from before the trip says nothing about
/// the probes. Time is any millisecond clock. All operations are O(1).
///
/// To share a breaker between threads, put it into a mutex: no operation takes more than some tens of
/// nanoseconds, and permits need no lock to be dropped.
///
/// ```
/// use circuit::{Breaker, Config, Outcome, State};
///
/// let mut breaker = Breaker::new(Config::essay());
/// for _ in 0..10 {
///     let permit = breaker.try_call(0).expect("closed");
///     breaker.record(permit, Outcome::Failure, 0);
/// }
/// assert_eq!(breaker.state(0), State::Open);
/// assert_eq!(breaker.try_call(20_000).unwrap_err().retry_after_ms(), 40_000);
///
/// for _ in 0..3 {
///     let probe = breaker.try_call(60_000).expect("half-open");
///     breaker.record(probe, Outcome::Success, 60_010);
/// }
/// assert_eq!(breaker.state(60_010), State::Closed);
/// ```
pub struct Breaker {
    config: Config,
    phase: Phase,
    /// Counts changes of state: a permit of another epoch is ignored.
    epoch: u64,
    window: Window,
    failures_in_row: u32,
    /// Times that the breaker opened since it was closed last.
    trips_in_row: u32,
}

enum Phase {
    Closed,
    Open {
        until_ms: u64,
    },
    HalfOpen {
        /// Probes that are out or have succeeded.
        taken: Arc<AtomicU32>,
        successes: u32,
        /// When a probe went out or reported last.
        heard_ms: u64,
    },
}

impl Breaker {
    /// A closed breaker. Values of `config` outside their ranges are brought into them.
    pub fn new(config: Config) -> Self {
        let config = config.sane();
        Breaker {
            phase: Phase::Closed,
            epoch: 0,
            window: Window::new(config.window_calls),
            failures_in_row: 0,
            trips_in_row: 0,
            config,
        }
    }

    /// Asks whether to make a call now.
    ///
    /// # Errors
    ///
    /// When the breaker is open, or half-open with all probes out.
    pub fn try_call(&mut self, now_ms: u64) -> Result<Permit, Rejected> {
        let mut transition = None;
        match &self.phase {
            Phase::Closed => {
                return Ok(Permit {
                    epoch: self.epoch,
                    probe: None,
                    transition: None,
                });
            }
            Phase::Open { until_ms } if now_ms < *until_ms => {
                return Err(Rejected {
                    half_open: false,
                    retry_after_ms: until_ms - now_ms,
                });
            }
            Phase::Open { .. } => {
                self.half_open(now_ms);
                transition = Some(Transition {
                    from: State::Open,
                    to: State::HalfOpen,
                    reason: Reason::OpenElapsed,
                });
            }
            Phase::HalfOpen { .. } => {}
        }
        self.try_probe(now_ms, transition)
    }

    fn try_probe(
        &mut self,
        now_ms: u64,
        transition: Option<Transition>,
    ) -> Result<Permit, Rejected> {
        let probes_max = self.config.probes_max;
        let timeout_ms = self.config.probe_timeout_ms;
        if let Phase::HalfOpen {
            taken, heard_ms, ..
        } = &mut self.phase
        {
            if let Some(probe) = Probe::take(taken, probes_max) {
                *heard_ms = now_ms.max(*heard_ms);
                return Ok(Permit {
                    epoch: self.epoch,
                    probe: Some(probe),
                    transition,
                });
            }
            if now_ms < heard_ms.saturating_add(timeout_ms) {
                return Err(Rejected {
                    half_open: true,
                    retry_after_ms: 0,
                });
            }
        }
        // All probes are lost, leaked perhaps: a new period begins with new ones.
        self.half_open(now_ms);
        self.try_probe(now_ms, transition)
    }

    fn half_open(&mut self, now_ms: u64) {
        self.epoch += 1;
        self.phase = Phase::HalfOpen {
            taken: Arc::new(AtomicU32::new(0)),
            successes: 0,
            heard_ms: now_ms,
        };
    }

    /// Tells how a permitted call ended; returns the change of state that followed, if any.
    ///
    /// A permit of another breaker, or of an earlier state of this one, changes nothing.
    pub fn record(&mut self, permit: Permit, outcome: Outcome, now_ms: u64) -> Option<Transition> {
        if permit.epoch != self.epoch {
            return None;
        }
        let failed = outcome == Outcome::Failure;
        match (&mut self.phase, permit.probe) {
            (Phase::Closed, None) => self.record_closed(failed, now_ms),
            (
                Phase::HalfOpen {
                    successes,
                    heard_ms,
                    ..
                },
                Some(probe),
            ) => {
                probe.keep();
                if failed {
                    return Some(self.open(Reason::ProbeFailed, now_ms));
                }
                *successes += 1;
                *heard_ms = now_ms.max(*heard_ms);
                (*successes >= self.config.successes_to_close)
                    .then(|| self.close(Reason::ProbesSucceeded))
            }
            _ => None,
        }
    }

    fn record_closed(&mut self, failed: bool, now_ms: u64) -> Option<Transition> {
        self.window.push(failed);
        self.failures_in_row = if failed {
            self.failures_in_row.saturating_add(1)
        } else {
            0
        };
        let limit = self.config.consecutive_failures;
        if limit > 0 && self.failures_in_row >= limit {
            return Some(self.open(Reason::ConsecutiveFailures, now_ms));
        }
        let rate = u64::from(self.config.failure_rate_percent);
        let (calls, failures) = (self.window.calls(), self.window.failures());
        let enough = rate > 0 && calls >= self.config.calls_min;
        if enough && u64::from(failures) * 100 >= rate * u64::from(calls) {
            return Some(self.open(Reason::FailureRate, now_ms));
        }
        None
    }

    fn open(&mut self, reason: Reason, now_ms: u64) -> Transition {
        let config = &self.config;
        let factor = 1u64.checked_shl(self.trips_in_row).unwrap_or(u64::MAX);
        let open_ms = config
            .open_ms
            .saturating_mul(factor)
            .min(config.open_max_ms);
        self.trips_in_row = self.trips_in_row.saturating_add(1);
        let until_ms = now_ms.saturating_add(open_ms);
        self.enter(Phase::Open { until_ms }, reason)
    }

    fn close(&mut self, reason: Reason) -> Transition {
        self.trips_in_row = 0;
        self.enter(Phase::Closed, reason)
    }

    fn enter(&mut self, phase: Phase, reason: Reason) -> Transition {
        let from = self.phase.state();
        self.epoch += 1;
        self.window.clear();
        self.failures_in_row = 0;
        self.phase = phase;
        Transition {
            from,
            to: self.phase.state(),
            reason,
        }
    }

    /// What the breaker would do with a call now: an open one that was open long enough is half-open.
    pub fn state(&self, now_ms: u64) -> State {
        match self.phase {
            Phase::Open { until_ms } if now_ms >= until_ms => State::HalfOpen,
            _ => self.phase.state(),
        }
    }

    /// Calls and failures among them that the window holds now.
    pub fn window(&self) -> (u32, u32) {
        (self.window.calls(), self.window.failures())
    }

    /// Opens the breaker by hand, for as long as a trip would.
    pub fn trip(&mut self, now_ms: u64) -> Transition {
        self.open(Reason::Manual, now_ms)
    }

    /// Closes the breaker by hand and forgets all outcomes.
    pub fn reset(&mut self) -> Transition {
        self.close(Reason::Manual)
    }
}

impl Phase {
    fn state(&self) -> State {
        match self {
            Phase::Closed => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen { .. } => State::HalfOpen,
        }
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("state", &self.phase.state())
            .field("calls", &self.window.calls())
            .field("failures", &self.window.failures())
            .finish_non_exhaustive()
    }
}
