//! What the command says while it runs: lines of text, or of JSON.

use std::net::SocketAddr;

use scheduler::{Drained, FireTime, JobSpec, Outcome, Record};
use serde_json::json;

use super::Changed;

pub(super) struct Report {
    json: bool,
}

impl Report {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(super) fn ready(&self, http: SocketAddr, jobs: usize, store: bool) {
        if !http.ip().is_loopback() {
            tracing::warn!(%http, "everybody who reaches this address sees the jobs");
        }
        if self.json {
            outln!(
                "{}",
                json!({ "event": "ready", "http": http, "jobs": jobs, "store": store })
            );
        } else {
            outln!("jobs    {jobs}");
            outln!("status  http://{http}/");
        }
    }

    /// A firing has its outcome. In words only those that did not succeed are told.
    pub(super) fn settled(&self, spec: &JobSpec, record: &Record) {
        let fire_time = FireTime(record.fire_ms).to_string();
        if self.json {
            let line = json!({
                "event": "firing",
                "job": spec.name(),
                "shard": spec.shard_number(),
                "fire_time": fire_time,
                "outcome": record.outcome.name(),
                "attempts": record.attempts,
                "late_ms": record.began_ms.map(|began| began.saturating_sub(record.fire_ms)),
                "took_ms": record.began_ms.map(|began| record.ended_ms.saturating_sub(began)),
                "trace_id": record.trace.map(|trace| trace.to_string()),
                "error": record.error.as_deref(),
            });
            outln!("{line}");
        } else if !matches!(record.outcome, Outcome::Succeeded | Outcome::Elsewhere) {
            let why = record
                .error
                .as_deref()
                .map(|error| format!(": {error}"))
                .unwrap_or_default();
            outln!("{} {fire_time} {}{why}", spec.name(), record.outcome);
        }
    }

    pub(super) fn reloaded(&self, changed: &Changed) {
        let Changed {
            kept,
            added,
            removed,
        } = changed;
        if self.json {
            let line =
                json!({ "event": "reloaded", "kept": kept, "added": added, "removed": removed });
            outln!("{line}");
        } else {
            outln!("reloaded: {kept} kept, {added} added, {removed} removed");
        }
    }

    pub(super) fn failed(&self, event: &str, error: &str) {
        tracing::error!(error, "{event}");
        self.say(event, &format!("{event}: {error}"));
    }

    pub(super) fn stopped(&self, drained: Drained) {
        let Drained { cancelled, left } = drained;
        if self.json {
            outln!(
                "{}",
                json!({ "event": "stopped", "cancelled": cancelled, "left": left })
            );
        } else {
            outln!("stopped; {cancelled} runs were asked to stop, {left} did not");
        }
    }

    pub(super) fn say(&self, event: &str, text: &str) {
        if self.json {
            outln!("{}", json!({ "event": event, "text": text }));
        } else {
            outln!("{text}");
        }
    }
}
