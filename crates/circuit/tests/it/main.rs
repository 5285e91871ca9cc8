//! Behaviour of backoff, budget and breaker as their users see it.

mod adaptive;
mod backoff;
mod breaker;
#[cfg(feature = "tower")]
mod layer;
mod model;
mod throttle;
mod trace;
