//! What the command says while it runs: lines of text, or of JSON.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use scheduler::{Drained, FireTime, JobSpec, Outcome, Record};
use serde_json::json;

use super::Changed;
use crate::out::Out;

/// When the end is said, whoever reads has so long to do so.
const LAST_LINES: Duration = Duration::from_secs(1);

pub(super) struct Report {
    json: bool,
    out: Arc<Out>,
}

macro_rules! say {
    ($report:expr, $($argument:tt)*) => { $report.out.line(format!($($argument)*)) };
}

impl Report {
    pub(super) fn new(json: bool, out: Arc<Out>) -> Self {
        Self { json, out }
    }

    pub(super) fn ready(&self, http: SocketAddr, jobs: usize, store: bool) {
        if !http.ip().is_loopback() {
            tracing::warn!(%http, "everybody who reaches this address sees the jobs");
        }
        if self.json {
            say!(
                self,
                "{}",
                json!({ "event": "ready", "http": http, "jobs": jobs, "store": store })
            );
        } else {
            say!(self, "jobs    {jobs}");
            say!(self, "status  http://{http}/");
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
            say!(self, "{line}");
        } else if !matches!(record.outcome, Outcome::Succeeded | Outcome::Elsewhere) {
            let why = record
                .error
                .as_deref()
                .map(|error| format!(": {error}"))
                .unwrap_or_default();
            say!(self, "{} {fire_time} {}{why}", spec.name(), record.outcome);
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
            say!(self, "{line}");
        } else {
            say!(
                self,
                "reloaded: {kept} kept, {added} added, {removed} removed"
            );
        }
    }

    pub(super) fn failed(&self, event: &str, error: &str) {
        tracing::error!(error, "{event}");
        self.say(event, &format!("{event}: {error}"));
    }

    pub(super) fn stopped(&self, drained: Drained) {
        let Drained { cancelled, left } = drained;
        if self.json {
            say!(
                self,
                "{}",
                json!({ "event": "stopped", "cancelled": cancelled, "left": left })
            );
        } else {
            say!(
                self,
                "stopped; {cancelled} runs were asked to stop, {left} did not"
            );
        }
        self.out.flush(LAST_LINES);
    }

    pub(super) fn say(&self, event: &str, text: &str) {
        if self.json {
            say!(self, "{}", json!({ "event": event, "text": text }));
        } else {
            say!(self, "{text}");
        }
    }
}
