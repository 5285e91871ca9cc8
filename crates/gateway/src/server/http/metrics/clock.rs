//! The families of jobs and of breakers.

use std::fmt;

use super::{Counts, Page, Writer};
use crate::server::groups::STATES;
use crate::server::http::jobs::firings;

impl Page {
    /// Nothing without a job.
    pub(super) fn jobs(&self, page: &mut Writer<'_>) -> fmt::Result {
        let Some(jobs) = self.shared.jobs.get() else {
            return Ok(());
        };
        let Some(lateness) = jobs.lateness() else {
            return Ok(());
        };
        let jobs = jobs.list();
        let names = jobs.iter().map(|it| it.job.config.name.as_str());
        let statuses: Vec<_> = names
            .zip(jobs.iter().map(|it| it.handle.status()))
            .filter_map(|(name, status)| Some((name, status?)))
            .collect();
        let outcomes = statuses.iter().flat_map(|(name, status)| {
            firings(&status.counts).map(move |(outcome, count)| ([*name, outcome], count))
        });
        page.counters_of(
            "job_firings",
            "Firings by job and by what became of them",
            ["job", "outcome"],
            outcomes,
        )?;
        let commands = jobs.iter().flat_map(|it| {
            let name = it.job.config.name.as_str();
            it.job.tally.ends().map(move |(end, n)| ([name, end], n))
        });
        page.counters_of(
            "job_commands",
            "Commands of jobs by what became of them",
            ["job", "outcome"],
            commands,
        )?;
        let running = |(name, status): &(_, scheduler::Status)| (*name, status.running as f64);
        page.gauges_of(
            "job_running",
            "Firings that run",
            "job",
            statuses.iter().map(running),
        )?;
        let next = statuses
            .iter()
            .map(|(name, status)| (*name, status.next_ms.map_or(0.0, |ms| ms as f64 / 1e3)));
        page.gauges_of(
            "job_next_timestamp_seconds",
            "The next fire time, 0 for none",
            "job",
            next,
        )?;
        page.histogram(
            "job_lateness",
            "From a firing's nominal time to its first try, jitter included",
            &Counts::by_bit_length(lateness.buckets(), lateness.sum_ms()),
            1e-3,
        )
    }

    /// Nothing while no group was sent a command.
    pub(super) fn groups(&self, page: &mut Writer<'_>) -> fmt::Result {
        let groups = self.shared.groups.read();
        if groups.is_empty() {
            return Ok(());
        }
        let states = groups.iter().map(|it| (&*it.name, it.state as f64));
        page.gauges_of(
            "breaker_state",
            "The breaker of a group of devices: 0 closed, 1 half-open, 2 open",
            "group",
            states,
        )?;
        let changes = groups.iter().flat_map(|it| {
            let counts = STATES.iter().zip(it.changes);
            counts.map(|(to, count)| ([&*it.name, *to], count))
        });
        page.counters_of(
            "breaker_changes",
            "Times that the breaker of a group went into a state",
            ["group", "to"],
            changes,
        )?;
        let refused = groups.iter().map(|it| ([&*it.name], it.refused));
        page.counters_of(
            "breaker_refused",
            "Commands that the breaker of a group refused",
            ["group"],
            refused,
        )
    }
}
