//! Idempotent effects: a durable, fenced, at-most-once key store
