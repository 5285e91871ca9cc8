//! Detectors: when does silence mean that the other side is gone?
//!
//! Both are pure and small. Time is any millisecond clock that does not go back; a beat that seems to come
//! before the last one counts as coming with it.

/// Gone when `misses` beats in a row did not come, with some grace for the last.
///
/// ```
/// let rule = heartbeat_codec::detector::FixedMisses::new(10_000, 2_000);
/// assert_eq!(rule.deadline_ms(5_000), 17_000);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedMisses {
    /// The agreed time between two beats.
    pub interval_ms: u32,
    /// Beats that may be missed; the last of them makes the other side gone.
    pub misses: u32,
    /// What the network may add.
    pub grace_ms: u32,
}

impl FixedMisses {
    /// Gone at the first missed beat.
    pub fn new(interval_ms: u32, grace_ms: u32) -> Self {
        FixedMisses {
            interval_ms,
            misses: 1,
            grace_ms,
        }
    }

    /// The time at which silence since `last_ms` means gone: `last + interval * misses + grace`.
    pub fn deadline_ms(&self, last_ms: u64) -> u64 {
        let silence = u64::from(self.interval_ms) * u64::from(self.misses);
        last_ms
            .saturating_add(silence)
            .saturating_add(u64::from(self.grace_ms))
    }
}

/// What all peers' [`PhiAccrual`] states share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PhiConfig {
    /// The interval to expect before any was seen.
    pub interval_first_ms: u32,
    /// How many intervals back the estimates reach: the weight of a new one is `2 / (window + 1)`.
    pub window: u16,
    /// Suspicion at which the peer counts as gone. At 8 a peer whose intervals were normally
    /// distributed would be wronged once in 10^7 beats; real lines have longer tails: docs/DETECTORS.md.
    pub threshold: f32,
    /// A floor for the standard deviation, so that a very regular peer is not suspected for a small delay.
    pub std_min_ms: f32,
    /// Silence that is always forgiven, on top of the mean interval: garbage collections, radio handovers.
    pub pause_ms: u32,
}

impl PhiConfig {
    /// Window 100, threshold 8, standard deviation at least a tenth of the interval, no pause.
    pub fn new(interval_first_ms: u32) -> Self {
        PhiConfig {
            interval_first_ms,
            window: 100,
            threshold: 8.0,
            std_min_ms: interval_first_ms as f32 / 10.0,
            pause_ms: 0,
        }
    }
}

/// Suspicion that grows with silence, on a scale that each peer's own rhythm sets. 16 bytes a peer.
///
/// Suspicion is `phi = -log10(P(a beat comes this late or later))`: at phi 1 one in ten such suspicions is
/// wrong, at phi 2 one in a hundred (Hayashibara, Defago, Yared, Katayama, "The phi accrual failure detector", SRDS
/// 2004). Intervals are taken as normally distributed; with `y = (silence - mean - pause) / std` and
/// `x = y * (1.5976 + 0.070566 * y^2)`, the tail is `1 / (1 + e^x)` within 0.00014 (the logistic approximation
/// that Akka's `PhiAccrualFailureDetector` uses), so `phi = log10(1 + e^x)`. Far out it falls a little faster than the normal
/// tail: phi 8 stands where that is 8.7e-8, and lines with retransmissions and losses are far above both.
///
/// Mean and variance are exponentially weighted: `d = interval - mean; mean += a * d;
/// variance = (1 - a) * (variance + a * d^2)` (Finch, "Incremental calculation of weighted mean and variance",
/// 2009). An interval longer than the one that raised suspicion is learned as that one: a single outage does
/// not blunt the detector, and a peer that slows down for good is understood after some beats.
///
/// ```
/// use heartbeat_codec::detector::{PhiAccrual, PhiConfig};
///
/// let config = PhiConfig::new(1_000);
/// let mut peer = PhiAccrual::new(&config, 0);
/// for beat in 1..=20 {
///     peer.heartbeat(&config, beat * 1_000);
/// }
/// assert!(peer.phi(&config, 21_000) < 1.0);
/// assert!(peer.phi(&config, 23_000) > 8.0);
/// // For a timer: when will suspicion reach the threshold, if nothing comes?
/// let gone_ms = peer.deadline_ms(&config);
/// assert!(21_000 < gone_ms && gone_ms < 22_500);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PhiAccrual {
    last_ms: u64,
    mean_ms: f32,
    variance_ms2: f32,
}

impl PhiAccrual {
    /// A peer that was last heard at `now_ms` and whose rhythm is not known yet: the mean is taken as the
    /// configured first interval and the standard deviation as a quarter of it.
    pub fn new(config: &PhiConfig, now_ms: u64) -> Self {
        let mean_ms = config.interval_first_ms as f32;
        PhiAccrual {
            last_ms: now_ms,
            mean_ms,
            variance_ms2: mean_ms * mean_ms / 16.0,
        }
    }

    /// Learns from a beat that arrived at `now_ms`.
    pub fn heartbeat(&mut self, config: &PhiConfig, now_ms: u64) {
        let mut interval_ms = now_ms.saturating_sub(self.last_ms);
        if self.phi(config, now_ms) >= config.threshold {
            interval_ms = interval_ms.min(self.deadline_ms(config) - self.last_ms);
        }
        let weight = 2.0 / (f32::from(config.window) + 1.0);
        let weight = weight.min(1.0);
        let delta = interval_ms as f32 - self.mean_ms;
        self.mean_ms += weight * delta;
        self.variance_ms2 = (1.0 - weight) * (self.variance_ms2 + weight * delta * delta);
        self.last_ms = self.last_ms.max(now_ms);
    }

    /// Suspicion at `now_ms`, from 0 up; it never falls while nothing arrives.
    pub fn phi(&self, config: &PhiConfig, now_ms: u64) -> f32 {
        let silence_ms = now_ms.saturating_sub(self.last_ms) as f32;
        let y = (silence_ms - self.mean_ms - config.pause_ms as f32) / self.std_ms(config);
        let x = y * (1.5976 + 0.070_566 * y * y);
        // log10(1 + e^x), without overflow for a large x and without loss for a small one.
        let soft = x.max(0.0) + libm::log1pf(libm::expf(-x.abs()));
        soft * core::f32::consts::LOG10_E
    }

    /// When suspicion reaches the threshold if nothing arrives: set a timer instead of asking again and again.
    pub fn deadline_ms(&self, config: &PhiConfig) -> u64 {
        let y = solve_cubic(x_of_phi(config.threshold));
        let silence_ms = self.mean_ms + config.pause_ms as f32 + y * self.std_ms(config);
        self.last_ms
            .saturating_add(libm::ceilf(silence_ms.max(0.0)) as u64)
    }

    /// When the peer was last heard.
    pub fn last_ms(&self) -> u64 {
        self.last_ms
    }

    /// The mean interval, as estimated now.
    pub fn mean_ms(&self) -> f32 {
        self.mean_ms
    }

    /// The standard deviation of the intervals, as estimated now and not below the floor.
    pub fn std_ms(&self, config: &PhiConfig) -> f32 {
        libm::sqrtf(self.variance_ms2)
            .max(config.std_min_ms)
            .max(1e-3)
    }
}

/// The x with `log10(1 + e^x) = phi`: `ln(10^phi - 1)`.
fn x_of_phi(phi: f32) -> f32 {
    let scaled = phi.max(1e-6) * core::f32::consts::LN_10;
    // ln(e^s - 1) = s + ln(1 - e^-s)
    scaled + libm::logf(-libm::expm1f(-scaled))
}

/// The y with `y * (1.5976 + 0.070566 * y^2) = x`, by Newton's method: the cubic rises everywhere.
fn solve_cubic(x: f32) -> f32 {
    let mut y = libm::cbrtf(x / 0.070_566);
    if x.abs() < 5.0 {
        y = x / 1.5976;
    }
    if y.is_infinite() {
        // Beyond what a number can say: a threshold that is never reached.
        return y;
    }
    for _ in 0..8 {
        let error = y * (1.5976 + 0.070_566 * y * y) - x;
        y -= error / (1.5976 + 3.0 * 0.070_566 * y * y);
    }
    y
}
