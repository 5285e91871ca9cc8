//! Circuit breaker and backoff as pure state machines: time and randomness are arguments
