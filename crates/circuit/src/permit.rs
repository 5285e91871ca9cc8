//! What a breaker answers: a permit to call, or a refusal.

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::breaker::Transition;

/// The right to make one call. Hand it back to [`Breaker::record`](crate::Breaker::record) with the outcome.
///
/// A permit that is dropped, because its call was cancelled or panicked, counts as no call at all: the permit of
/// a probe goes back to the half-open breaker. It may be dropped on any thread.
#[must_use = "a permit that is dropped counts as a call that was never made"]
pub struct Permit {
    pub(crate) epoch: u64,
    pub(crate) probe: Option<Probe>,
    pub(crate) transition: Option<Transition>,
}

impl Permit {
    /// Whether this call tests a half-open breaker.
    pub fn is_probe(&self) -> bool {
        self.probe.is_some()
    }

    /// The change of state that asking for this permit made: open to half-open, for the first probe.
    pub fn transition(&self) -> Option<Transition> {
        self.transition
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("is_probe", &self.is_probe())
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
    pub(crate) half_open: bool,
    pub(crate) retry_after_ms: u64,
}

impl Rejected {
    /// The breaker is open: too many calls failed.
    pub fn is_open(&self) -> bool {
        !self.half_open
    }

    /// The breaker is half-open and all its probes are out.
    pub fn is_half_open(&self) -> bool {
        self.half_open
    }

    /// When asking again can have another answer; 0 when a probe may report at any time.
    pub fn retry_after_ms(&self) -> u64 {
        self.retry_after_ms
    }
}

impl fmt::Debug for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected")
            .field("is_half_open", &self.half_open)
            .field("retry_after_ms", &self.retry_after_ms)
            .finish()
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.half_open {
            f.write_str(
                "the circuit breaker is half-open and all its probes are out; ask again soon",
            )
        } else {
            let ms = self.retry_after_ms;
            write!(f, "the circuit breaker is open; ask again in {ms} ms")
        }
    }
}

impl core::error::Error for Rejected {}
