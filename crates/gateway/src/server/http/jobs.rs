//! `GET /v1/jobs`: what fires when, and what became of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::Json;
use axum::extract::State;
use scheduler::{Counts, FireTime, Outcome, Record};
use serde::Serialize;

use super::Shared;
use crate::server::jobs::{Report, Running, Tally};

#[derive(Serialize)]
pub(crate) struct JobList {
    jobs: Vec<JobView>,
}

#[derive(Serialize)]
struct JobView {
    name: String,
    schedule: String,
    devices: String,
    state: &'static str,
    next: Option<String>,
    running: usize,
    waiting: usize,
    breaker: &'static str,
    /// Firings by outcome.
    firings: BTreeMap<&'static str, u64>,
    /// Commands of all firings, by what they came to.
    commands: BTreeMap<&'static str, u64>,
    last: Option<LastView>,
    /// Settled firings, oldest first.
    history: Vec<RecordView>,
}

/// The newest firing that began; it may run still.
#[derive(Serialize)]
struct LastView {
    fire_time: String,
    attempt: u32,
    trace_id: String,
    devices: u64,
    /// Devices that are waited for.
    waiting: u64,
    commands: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct RecordView {
    fire_time: String,
    began: Option<String>,
    ended: String,
    attempts: u32,
    outcome: &'static str,
    trace_id: Option<String>,
    error: Option<String>,
}

pub(crate) async fn list(State(shared): State<Arc<Shared>>) -> Json<JobList> {
    let jobs = shared.jobs.get().map_or(&[][..], |jobs| jobs.list());
    Json(JobList {
        jobs: jobs.iter().filter_map(view).collect(),
    })
}

fn view(Running { job, handle }: &Running) -> Option<JobView> {
    let status = handle.status()?;
    Some(JobView {
        name: job.config.name.clone(),
        schedule: job.config.schedule.to_string(),
        devices: job.config.devices.to_string(),
        state: status.state.name(),
        next: status.next_ms.map(time),
        running: status.running,
        waiting: status.waiting,
        breaker: status.breaker.name(),
        firings: firings(&status.counts).collect(),
        commands: commands(&job.tally),
        last: job.last.lock().as_deref().map(last),
        history: handle.history().iter().map(record).collect(),
    })
}

fn last(report: &Report) -> LastView {
    LastView {
        fire_time: time(report.fire_ms),
        attempt: report.attempt,
        trace_id: report.trace.to_string(),
        devices: report.matched.load(Relaxed),
        waiting: report.waiting.load(Relaxed),
        commands: commands(&report.tally),
    }
}

fn record(record: &Record) -> RecordView {
    RecordView {
        fire_time: time(record.fire_ms),
        began: record.began_ms.map(time),
        ended: time(record.ended_ms),
        attempts: record.attempts,
        outcome: record.outcome.name(),
        trace_id: record.trace.map(|trace| trace.to_string()),
        error: record.error.as_deref().map(str::to_owned),
    }
}

/// Outcomes that there were.
pub(super) fn firings(counts: &Counts) -> impl Iterator<Item = (&'static str, u64)> {
    let all = Outcome::ALL.iter();
    let all = all.map(|outcome| (outcome.name(), counts.of(*outcome)));
    all.filter(|(_, count)| *count > 0)
}

fn commands(tally: &Tally) -> BTreeMap<&'static str, u64> {
    tally.ends().collect()
}

fn time(ms: u64) -> String {
    FireTime(ms).to_string()
}
