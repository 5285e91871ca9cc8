//! The gateway's numbers at one moment, for metrics and the dashboard.

use conn_reactor::Stats;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::oneshot;
use tokio::time::{Duration, timeout};

use super::Shared;
use super::counters::CommandEnd;
use super::histogram::Counts;
use super::shard::ShardMessage;

/// A shard that does not answer in this time is busy; its numbers are those of the last time.
const REPORT_TIMEOUT: Duration = Duration::from_millis(200);

/// Everything that is counted, summed over shards.
#[derive(Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) connections: usize,
    pub(crate) reactor: Totals,
    pub(crate) beats: u64,
    /// Those among them that came in datagrams, where such are taken.
    pub(crate) datagram_beats: Option<u64>,
    pub(crate) beat_rtt_ms: Counts,
    pub(crate) command_us: Counts,
    pub(crate) timer_lateness_us: Counts,
    pub(crate) commands: Vec<(CommandEnd, &'static str, u64)>,
    pub(crate) rejections: Vec<(&'static str, u64)>,
    pub(crate) mailboxes: Vec<usize>,
    pub(crate) store: idem_store::Stats,
}

/// The sums of the shards' counters.
#[derive(Clone, Default)]
pub(crate) struct Totals {
    pub(crate) accepts: u64,
    pub(crate) accept_errors: u64,
    pub(crate) closes: u64,
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    pub(crate) waits: u64,
    pub(crate) interest_changes: u64,
    pub(crate) interest_merged: u64,
    pub(crate) interest_elided: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

impl Snapshot {
    /// Asks every shard and the store.
    pub(crate) async fn take(shared: &Shared) -> Self {
        let mut snapshot = Self {
            beats: shared.counters.beats.load(Relaxed),
            datagram_beats: shared
                .datagrams
                .as_ref()
                .map(|datagrams| datagrams.heard().0),
            beat_rtt_ms: shared.counters.beat_rtt_ms.counts(),
            command_us: shared.counters.command_us.counts(),
            commands: shared.counters.command_ends().collect(),
            rejections: shared.counters.rejections().collect(),
            mailboxes: shared
                .mailboxes()
                .iter()
                .map(conn_reactor::Sender::queued)
                .collect(),
            store: shared.store.stats(),
            ..Self::default()
        };
        for stats in reports(shared).await {
            snapshot.add(&stats);
        }
        snapshot
    }

    fn add(&mut self, stats: &Stats) {
        let opened = stats.accepts + stats.connects;
        self.connections += usize::try_from(opened.saturating_sub(stats.closes)).unwrap_or(0);
        let totals = &mut self.reactor;
        totals.accepts += stats.accepts;
        totals.accept_errors += stats.accept_errors;
        totals.closes += stats.closes;
        totals.reads += stats.reads;
        totals.writes += stats.writes;
        totals.waits += stats.waits;
        totals.interest_changes += stats.interest_changes;
        totals.interest_merged += stats.interest_merged;
        totals.interest_elided += stats.interest_elided;
        totals.bytes_in += stats.bytes_in;
        totals.bytes_out += stats.bytes_out;
        let lateness = Counts::by_bit_length(
            stats.timer_lateness.buckets(),
            stats.timer_lateness.sum_us(),
        );
        self.timer_lateness_us.add(&lateness);
    }

    /// How many commands ended as `wanted`.
    pub(crate) fn count(&self, wanted: CommandEnd) -> u64 {
        self.commands
            .iter()
            .find(|(end, ..)| *end == wanted)
            .map_or(0, |(.., count)| *count)
    }
}

async fn reports(shared: &Shared) -> Vec<Stats> {
    let asked: Vec<_> = shared
        .mailboxes()
        .iter()
        .map(|mailbox| {
            let (sender, receiver) = oneshot::channel();
            mailbox
                .try_send(ShardMessage::Report(sender))
                .is_ok()
                .then_some(receiver)
        })
        .collect();
    let mut reports = Vec::with_capacity(asked.len());
    for (index, receiver) in asked.into_iter().enumerate() {
        let fresh = match receiver {
            Some(receiver) => timeout(REPORT_TIMEOUT, receiver)
                .await
                .ok()
                .and_then(Result::ok),
            None => None,
        };
        let mut last = shared.reports[index].lock();
        if let Some(fresh) = fresh {
            *last = fresh;
        }
        reports.push(last.clone());
    }
    reports
}
