//! Client-side throttling: refuse locally what the callee would refuse anyway.

use core::fmt;

use crate::permit::Rejected;
use crate::trace::TraceId;
use crate::window::TimeWindow;

/// Adaptive throttling as in "Site Reliability Engineering" (Google, 2016), chapter 21, "Client-Side Throttling".
///
/// Over the last two minutes it counts the requests that the application made and those that the callee
/// accepted. Once there are more than `k` times as many requests as accepts, a request is refused with
/// probability `(requests - k * accepts) / (requests + 1)`. So a callee that refuses everything gets a small
/// steady trickle, and there is no state in which nothing is tried. O(1), about 1.5 KB.
///
/// ```
/// use circuit::Throttle;
///
/// let mut throttle = Throttle::new(200); // K = 2
/// for _ in 0..100 {
///     if throttle.try_call(0, u64::MAX).is_ok() {
///         throttle.record(false, 0); // overloaded
///     }
/// }
/// // 100 requests, none accepted: refused with a probability of 100/101.
/// assert!(throttle.try_call(0, u64::MAX / 2).unwrap_err().is_throttled());
/// ```
pub struct Throttle {
    requests: TimeWindow,
    accepted: TimeWindow,
    k_percent: u32,
}

impl Throttle {
    /// A throttle with K in hundredths: 200 lets about as many requests in vain through as succeed; lower is
    /// stricter, and below 101 even a callee that accepts everything would be spared.
    #[must_use]
    pub fn new(k_percent: u32) -> Self {
        Self::with_window(k_percent, 120_000, 60)
    }

    /// As [`new`](Self::new), counting over another time than two minutes; see [`Lookback::Time`](crate::Lookback::Time).
    #[must_use]
    pub fn with_window(k_percent: u32, span_ms: u64, buckets: u32) -> Self {
        Throttle {
            requests: TimeWindow::new(span_ms, buckets),
            accepted: TimeWindow::new(span_ms, buckets),
            k_percent: k_percent.max(100),
        }
    }

    /// Asks whether to make a request now; it counts as one either way. `random` must be uniform over all `u64`.
    ///
    /// # Errors
    ///
    /// [`Rejected::is_throttled`]: refuse the request without calling.
    pub fn try_call(&mut self, now_ms: u64, random: u64) -> Result<(), Rejected> {
        self.try_call_traced(now_ms, random, None)
    }

    /// As [`try_call`](Self::try_call); a refusal names the trace.
    ///
    /// # Errors
    ///
    /// As [`try_call`](Self::try_call).
    pub fn try_call_traced(
        &mut self,
        now_ms: u64,
        random: u64,
        trace: Option<TraceId>,
    ) -> Result<(), Rejected> {
        let probability = self.refusal_probability(now_ms);
        self.requests.push(false, false, now_ms);
        // The 24 bits that an f32 holds exactly.
        let uniform = (random >> 40) as f32 / (1u32 << 24) as f32;
        if uniform < probability {
            return Err(Rejected::throttled(trace));
        }
        Ok(())
    }

    /// Tells whether the callee accepted a request that went out. An error that is not "overloaded" is accepted.
    pub fn record(&mut self, accepted: bool, now_ms: u64) {
        if accepted {
            self.accepted.push(false, false, now_ms);
        }
    }

    /// The probability with which a request would be refused now, 0 to 1.
    pub fn refusal_probability(&mut self, now_ms: u64) -> f32 {
        let requests = self.requests.counts(now_ms).calls as f32;
        let accepts = self.accepted.counts(now_ms).calls as f32;
        let excess = requests - self.k_percent as f32 / 100.0 * accepts;
        (excess / (requests + 1.0)).max(0.0)
    }
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle")
            .field("k_percent", &self.k_percent)
            .finish_non_exhaustive()
    }
}
