//! Behaviour of backoff, budget and breaker as their users see it.

mod backoff;
mod breaker;
mod model;
