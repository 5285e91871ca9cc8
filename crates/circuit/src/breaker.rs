//! The breaker: closed, open, half-open (Michael Nygard, "Release It!", 2007).

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::AtomicU32;

use crate::config::Config;
use crate::permit::{Permit, Probe, Rejected};
use crate::trace::TraceId;
use crate::watch::{Ended, Watch};
use crate::window::Counts;

/// How a permitted call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The callee works.
    Success,
    /// The callee does not work. An error that is the caller's own fault is a success in this sense.
    Failure,
}

impl<T, E> From<&Result<T, E>> for Outcome {
    /// `Ok` is a success.
    fn from(result: &Result<T, E>) -> Self {
        match result {
            Ok(_) => Self::Success,
            Err(_) => Self::Failure,
        }
    }
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
    /// Refuses all calls until it is released.
    ForcedOpen,
    /// Lets all calls through, whatever comes of them, until it is released.
    ForcedClosed,
}

impl State {
    /// A word for logs and labels: `closed`, `half-open` or `open`; a forced state is what it does.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed | Self::ForcedClosed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open | Self::ForcedOpen => "open",
        }
    }
}

/// Why a breaker changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Too large a share of the last calls failed.
    FailureRate,
    /// Too large a share of the last calls was slow.
    SlowCallRate,
    /// Too many calls failed in a row.
    ConsecutiveFailures,
    /// The breaker was open long enough.
    OpenElapsed,
    /// A probe failed, or was slow.
    ProbeFailed,
    /// Enough probes succeeded.
    ProbesSucceeded,
    /// [`Breaker::trip`], [`Breaker::reset`], [`Breaker::force_open`], [`Breaker::force_closed`] or
    /// [`Breaker::release`].
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
    /// When, on the clock that the breaker is given.
    pub at_ms: u64,
    /// The trace whose call caused it, where one did and is known.
    pub trace: Option<TraceId>,
}

/// A circuit breaker.
///
/// Ask [`try_call`](Self::try_call) before each call and tell [`record`](Self::record) how it ended, or let
/// [`call`](Self::call) do both. Outcomes of calls that began in an earlier state are ignored: a slow failure
/// from before the trip says nothing about the probes. Time is any millisecond clock. All operations are O(1).
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
    watch: Watch,
    /// Times that the breaker opened since it was closed last.
    trips_in_row: u32,
    observers: Vec<Observer>,
}

type Observer = Box<dyn FnMut(&Transition) + Send + Sync>;

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
    ForcedOpen,
    ForcedClosed,
}

impl Breaker {
    /// A closed breaker. Values of `config` outside their ranges are brought into them.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let config = config.sane();
        Breaker {
            phase: Phase::Closed,
            epoch: 0,
            watch: Watch::new(&config),
            trips_in_row: 0,
            observers: Vec::new(),
            config,
        }
    }

    /// Calls `observer` with each change of state from now on, whichever method makes it.
    pub fn observe(&mut self, observer: impl FnMut(&Transition) + Send + Sync + 'static) {
        self.observers.push(Box::new(observer));
    }

    /// Asks whether to make a call now.
    ///
    /// # Errors
    ///
    /// When the breaker is open, or half-open with all probes out.
    pub fn try_call(&mut self, now_ms: u64) -> Result<Permit, Rejected> {
        self.try_call_traced(now_ms, None)
    }

    /// As [`try_call`](Self::try_call) for the call of a trace: the permit, the refusal and the change of state that
    /// may follow name it.
    ///
    /// # Errors
    ///
    /// As [`try_call`](Self::try_call).
    pub fn try_call_traced(
        &mut self,
        now_ms: u64,
        trace: Option<TraceId>,
    ) -> Result<Permit, Rejected> {
        let mut transition = None;
        match &self.phase {
            Phase::Closed | Phase::ForcedClosed => {
                return Ok(self.permit(now_ms, trace, None, None));
            }
            Phase::ForcedOpen => return Err(Rejected::forced(trace)),
            Phase::Open { until_ms } if now_ms < *until_ms => {
                return Err(Rejected::open(until_ms - now_ms, trace));
            }
            Phase::Open { .. } => {
                let phase = Phase::half_open(now_ms);
                transition = Some(self.enter(phase, Reason::OpenElapsed, now_ms, trace));
            }
            Phase::HalfOpen { .. } => {}
        }
        self.try_probe(now_ms, trace, transition)
    }

    fn try_probe(
        &mut self,
        now_ms: u64,
        trace: Option<TraceId>,
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
                return Ok(self.permit(now_ms, trace, Some(probe), transition));
            }
            if now_ms < heard_ms.saturating_add(timeout_ms) {
                return Err(Rejected::half_open(trace));
            }
        }
        // All probes are lost, leaked perhaps: new ones go. They may only be slow, so what they report late counts: else
        // calls that take longer than the timeout would never close the breaker.
        if let Phase::HalfOpen {
            taken, heard_ms, ..
        } = &mut self.phase
        {
            *taken = Arc::default();
            *heard_ms = now_ms;
        }
        self.try_probe(now_ms, trace, transition)
    }

    fn permit(
        &self,
        begun_ms: u64,
        trace: Option<TraceId>,
        probe: Option<Probe>,
        transition: Option<Transition>,
    ) -> Permit {
        Permit {
            epoch: self.epoch,
            begun_ms,
            trace,
            probe,
            transition,
        }
    }

    /// Tells how a permitted call ended; returns the change of state that followed, if any.
    ///
    /// A permit of another breaker, or of an earlier state of this one, changes nothing.
    pub fn record(&mut self, permit: Permit, outcome: Outcome, now_ms: u64) -> Option<Transition> {
        if permit.epoch != self.epoch {
            return None;
        }
        let trace = permit.trace;
        let took_ms = now_ms.saturating_sub(permit.begun_ms);
        let ended = Ended {
            failed: outcome == Outcome::Failure,
            slow: took_ms >= self.config.slow_call_ms,
            trace,
        };
        match permit.probe {
            Some(probe) => self.record_probe(probe, ended, now_ms),
            None if matches!(self.phase, Phase::Closed) => {
                let reason = self.watch.record(&self.config, ended, now_ms)?;
                Some(self.open(reason, now_ms, trace))
            }
            None => None,
        }
    }

    fn record_probe(&mut self, probe: Probe, ended: Ended, now_ms: u64) -> Option<Transition> {
        let Phase::HalfOpen {
            successes,
            heard_ms,
            ..
        } = &mut self.phase
        else {
            return None;
        };
        probe.keep();
        let too_slow = ended.slow && self.config.slow_rate_percent > 0;
        if ended.failed || too_slow {
            return Some(self.open(Reason::ProbeFailed, now_ms, ended.trace));
        }
        *successes += 1;
        *heard_ms = now_ms.max(*heard_ms);
        if *successes < self.config.successes_to_close {
            return None;
        }
        self.trips_in_row = 0;
        Some(self.enter(Phase::Closed, Reason::ProbesSucceeded, now_ms, ended.trace))
    }

    /// Makes the call when the breaker lets it, reading `clock_ms` before and after: `Ok` is a success, `Err` and a
    /// panic are failures.
    ///
    /// ```
    /// use circuit::{Breaker, CallError, Config};
    ///
    /// let mut breaker = Breaker::new(Config::essay());
    /// let clock_ms = || 0; // your clock
    /// let answer = breaker.call(clock_ms, || "17".parse::<u32>());
    /// assert_eq!(answer, Ok(17));
    /// assert!(matches!(breaker.call(clock_ms, || "x".parse::<u32>()), Err(CallError::Failed(_))));
    /// ```
    ///
    /// # Errors
    ///
    /// [`CallError::Rejected`] when no call was made, [`CallError::Failed`] with the error of the call.
    pub fn call<T, E>(
        &mut self,
        clock_ms: impl Fn() -> u64,
        call: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, CallError<E>> {
        let permit = self.try_call(clock_ms()).map_err(CallError::Rejected)?;
        let mut report = Report {
            breaker: self,
            clock_ms,
            permit: Some(permit),
            outcome: Outcome::Failure,
        };
        let result = call();
        report.outcome = Outcome::from(&result);
        drop(report);
        result.map_err(CallError::Failed)
    }

    fn open(&mut self, reason: Reason, now_ms: u64, trace: Option<TraceId>) -> Transition {
        let config = &self.config;
        let factor = 1u64.checked_shl(self.trips_in_row).unwrap_or(u64::MAX);
        let open_ms = config
            .open_ms
            .saturating_mul(factor)
            .min(config.open_max_ms);
        self.trips_in_row = self.trips_in_row.saturating_add(1);
        let until_ms = now_ms.saturating_add(open_ms);
        self.enter(Phase::Open { until_ms }, reason, now_ms, trace)
    }

    fn enter(
        &mut self,
        phase: Phase,
        reason: Reason,
        at_ms: u64,
        trace: Option<TraceId>,
    ) -> Transition {
        let from = self.phase.state();
        self.epoch += 1;
        self.watch.clear();
        self.phase = phase;
        let transition = Transition {
            from,
            to: self.phase.state(),
            reason,
            at_ms,
            trace,
        };
        for observer in &mut self.observers {
            observer(&transition);
        }
        transition
    }

    /// What the breaker would do with a call now: an open one that was open long enough is half-open.
    #[must_use]
    pub fn state(&self, now_ms: u64) -> State {
        match self.phase {
            Phase::Open { until_ms } if now_ms >= until_ms => State::HalfOpen,
            _ => self.phase.state(),
        }
    }

    /// What the window holds now.
    pub fn counts(&mut self, now_ms: u64) -> Counts {
        self.watch.counts(now_ms)
    }

    /// The share of failures, 0 to 1, that opens the breaker now; none when the rate opens nothing.
    #[must_use]
    pub fn threshold(&self) -> Option<f32> {
        self.watch.threshold(&self.config)
    }

    /// Tells the share of failed calls, 0 to 1, that the whole fleet sees, valid until `until_ms`. As long as this
    /// breaker's window holds fewer than `calls_min` calls, the fleet's rate stands in for the missing
    /// ones, so that a client of few calls need not find an outage out alone.
    pub fn set_fleet_failure_rate(&mut self, rate: f32, until_ms: u64) {
        self.watch.set_fleet(rate, until_ms);
    }

    /// Opens the breaker by hand, for as long as a trip would.
    pub fn trip(&mut self, now_ms: u64) -> Transition {
        self.open(Reason::Manual, now_ms, None)
    }

    /// Closes the breaker by hand and forgets all outcomes.
    pub fn reset(&mut self, now_ms: u64) -> Transition {
        self.trips_in_row = 0;
        self.enter(Phase::Closed, Reason::Manual, now_ms, None)
    }

    /// Refuses all calls until [`release`](Self::release).
    pub fn force_open(&mut self, now_ms: u64) -> Transition {
        self.enter(Phase::ForcedOpen, Reason::Manual, now_ms, None)
    }

    /// Lets all calls through, whatever comes of them, until [`release`](Self::release).
    pub fn force_closed(&mut self, now_ms: u64) -> Transition {
        self.enter(Phase::ForcedClosed, Reason::Manual, now_ms, None)
    }

    /// Ends a forced state: the breaker is closed and knows no calls. None when nothing was forced.
    pub fn release(&mut self, now_ms: u64) -> Option<Transition> {
        let forced = matches!(self.phase, Phase::ForcedOpen | Phase::ForcedClosed);
        forced.then(|| self.reset(now_ms))
    }
}

impl Phase {
    fn half_open(now_ms: u64) -> Self {
        Phase::HalfOpen {
            taken: Arc::new(AtomicU32::new(0)),
            successes: 0,
            heard_ms: now_ms,
        }
    }

    fn state(&self) -> State {
        match self {
            Phase::Closed => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen { .. } => State::HalfOpen,
            Phase::ForcedOpen => State::ForcedOpen,
            Phase::ForcedClosed => State::ForcedClosed,
        }
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("state", &self.phase.state())
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Why [`Breaker::call`] has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError<E> {
    /// The breaker refused: no call was made.
    Rejected(Rejected),
    /// The call was made and failed.
    Failed(E),
}

impl<E: fmt::Display> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(rejected) => rejected.fmt(f),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl<E: core::error::Error + 'static> core::error::Error for CallError<E> {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Rejected(_) => None,
            Self::Failed(error) => error.source(),
        }
    }
}

/// Records the outcome when it is dropped, by a panic too.
struct Report<'a, C: Fn() -> u64> {
    breaker: &'a mut Breaker,
    clock_ms: C,
    permit: Option<Permit>,
    outcome: Outcome,
}

impl<C: Fn() -> u64> Drop for Report<'_, C> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.breaker.record(permit, self.outcome, (self.clock_ms)());
        }
    }
}
