//! What a breaker answers: a permit to call, or a refusal.

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::breaker::Transition;
use crate::trace::TraceId;

/// The right to make one call. Hand it back to [`Breaker::record`](crate::Breaker::record) with the outcome.
///
/// A permit that is dropped, because its call was cancelled, counts as no call at all: the permit of a probe
/// goes back to the half-open breaker. It may be dropped on any thread.
#[must_use = "a permit that is dropped counts as a call that was never made"]
pub struct Permit {
    pub(crate) epoch: u64,
    pub(crate) begun_ms: u64,
    pub(crate) trace: Option<TraceId>,
    pub(crate) probe: Option<Probe>,
    pub(crate) transition: Option<Transition>,
}

impl Permit {
    /// Whether this call tests a half-open breaker.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.probe.is_some()
    }

    /// The change of state that asking for this permit made: open to half-open, for the first probe.
    #[must_use]
    pub fn transition(&self) -> Option<Transition> {
        self.transition
    }

    /// The trace that asked for it.
    #[must_use]
    pub fn trace(&self) -> Option<TraceId> {
        self.trace
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("is_probe", &self.is_probe())
            .field("trace", &self.trace)
            .finish_non_exhaustive()
    }
}

/// One of a half-open period's probes; dropped, it goes back to them.
pub(crate) struct Probe(Option<Arc<AtomicU32>>);

impl Probe {
    /// Takes a probe when fewer than `max` are out. Only the breaker takes, so the count cannot pass `max`.
    ///
    /// Relaxed: the count guards nothing but itself.
    pub(crate) fn take(out: &Arc<AtomicU32>, max: u32) -> Option<Self> {
        if out.load(Ordering::Relaxed) >= max {
            return None;
        }
        out.fetch_add(1, Ordering::Relaxed);
        Some(Probe(Some(Arc::clone(out))))
    }

    /// The probe has reported: it stays taken.
    pub(crate) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if let Some(out) = &self.0 {
            out.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A call was refused: do not make it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rejected {
    cause: Cause,
    retry_after_ms: u64,
    trace: Option<TraceId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Open,
    HalfOpen,
    Forced,
    Throttled,
}

impl Rejected {
    pub(crate) fn open(retry_after_ms: u64, trace: Option<TraceId>) -> Self {
        Self::new(Cause::Open, retry_after_ms, trace)
    }

    pub(crate) fn half_open(trace: Option<TraceId>) -> Self {
        Self::new(Cause::HalfOpen, 0, trace)
    }

    pub(crate) fn forced(trace: Option<TraceId>) -> Self {
        Self::new(Cause::Forced, u64::MAX, trace)
    }

    pub(crate) fn throttled(trace: Option<TraceId>) -> Self {
        Self::new(Cause::Throttled, 0, trace)
    }

    fn new(cause: Cause, retry_after_ms: u64, trace: Option<TraceId>) -> Self {
        Self {
            cause,
            retry_after_ms,
            trace,
        }
    }

    /// The breaker is open: too many calls failed, or it was forced open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.cause, Cause::Open | Cause::Forced)
    }

    /// The breaker is half-open and all its probes are out.
    #[must_use]
    pub fn is_half_open(&self) -> bool {
        self.cause == Cause::HalfOpen
    }

    /// The breaker was forced open by hand.
    #[must_use]
    pub fn is_forced(&self) -> bool {
        self.cause == Cause::Forced
    }

    /// A [`Throttle`](crate::Throttle) refused, by chance.
    #[must_use]
    pub fn is_throttled(&self) -> bool {
        self.cause == Cause::Throttled
    }

    /// When asking again can have another answer; 0 when that may be at any time, `u64::MAX` when only a hand can
    /// change it.
    #[must_use]
    pub fn retry_after_ms(&self) -> u64 {
        self.retry_after_ms
    }

    /// The trace whose call was refused.
    #[must_use]
    pub fn trace(&self) -> Option<TraceId> {
        self.trace
    }
}

impl fmt::Debug for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected")
            .field("cause", &self.cause)
            .field("retry_after_ms", &self.retry_after_ms)
            .field("trace", &self.trace)
            .finish()
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            Cause::Open => {
                let ms = self.retry_after_ms;
                write!(f, "the circuit breaker is open; ask again in {ms} ms")
            }
            Cause::HalfOpen => f.write_str(
                "the circuit breaker is half-open and all its probes are out; ask again soon",
            ),
            Cause::Forced => {
                f.write_str("the circuit breaker was forced open; release it to let calls through")
            }
            Cause::Throttled => {
                f.write_str("throttled: the callee refuses most requests; ask again later")
            }
        }
    }
}

impl core::error::Error for Rejected {}
