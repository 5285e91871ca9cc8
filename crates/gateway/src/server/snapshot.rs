//! The gateway's numbers at one moment, for metrics and the dashboard.

use conn_reactor::Stats;
use serde::Serialize;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::oneshot;
use tokio::time::{Duration, timeout};

use super::Shared;
use super::counters::CommandEnd;
use super::drain::Phase;
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
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

impl Snapshot {
    /// Asks every shard and the store.
    pub(crate) async fn take(shared: &Shared) -> Self {
        let mut snapshot = Self {
            beats: shared.counters.beats.load(Relaxed),
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
        totals.bytes_in += stats.bytes_in;
        totals.bytes_out += stats.bytes_out;
        let lateness = Counts::new(stats.timer_lateness.buckets().to_vec(), 0);
        self.timer_lateness_us.add(&lateness);
    }

    fn count(&self, wanted: CommandEnd) -> u64 {
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

/// What the dashboard is sent once a second.
#[derive(Serialize)]
pub(crate) struct Tick {
    time_ms: u64,
    uptime_s: u64,
    version: &'static str,
    draining: bool,
    connections: usize,
    devices: Devices,
    totals: TickTotals,
    rates: Rates,
    beat_rtt_ms: Quantiles,
    command_ms: Quantiles,
    timer_lateness_us: Quantiles,
    commands: Commands,
    store: Store,
}

#[derive(Serialize)]
struct Devices {
    known: usize,
    online: usize,
    offline: usize,
    gone: usize,
}

#[derive(Serialize)]
struct TickTotals {
    accepts: u64,
    beats: u64,
    commands: u64,
    rejections: u64,
}

#[derive(Serialize)]
struct Rates {
    accepts_per_s: f64,
    beats_per_s: f64,
    commands_per_s: f64,
    bytes_in_per_s: f64,
    bytes_out_per_s: f64,
}

#[derive(Serialize)]
struct Quantiles {
    p50: Option<f64>,
    p99: Option<f64>,
}

#[derive(Serialize)]
struct Commands {
    running: usize,
    open: usize,
    done: u64,
    replayed: u64,
    in_doubt: u64,
    timed_out: u64,
}

#[derive(Serialize)]
struct Store {
    keys: u64,
    in_doubt: u64,
    segments: u64,
    bytes: u64,
    syncs_per_s: f64,
    batch_mean: Option<f64>,
    sync_us_mean: Option<f64>,
    poisoned: bool,
}

impl Quantiles {
    fn of(counts: &Counts, scale: f64) -> Self {
        let quantile = |q| counts.quantile(q).map(|value| value * scale);
        Self {
            p50: quantile(0.5),
            p99: quantile(0.99),
        }
    }
}

impl Tick {
    /// The numbers of `now`, with rates and quantiles over the time since `before`.
    pub(crate) fn between(
        shared: &Shared,
        before: &Snapshot,
        now: &Snapshot,
        elapsed: Duration,
    ) -> Self {
        let per_s = |now: u64, before: u64| (now - before.min(now)) as f64 / elapsed.as_secs_f64();
        let commands = |snapshot: &Snapshot| {
            snapshot
                .commands
                .iter()
                .map(|(.., count)| count)
                .sum::<u64>()
        };
        let (known, online) = (shared.directory.known(), shared.directory.online());
        let gone = shared.directory.gone();
        let batches = now.store.batches - before.store.batches.min(now.store.batches);
        let mean = |sum: u64, sum_before: u64| {
            (batches > 0).then(|| (sum - sum_before.min(sum)) as f64 / batches as f64)
        };
        Self {
            time_ms: shared.unix_ms(),
            uptime_s: shared.now_ms() / 1000,
            version: env!("CARGO_PKG_VERSION"),
            draining: shared.phase() != Phase::Serving,
            connections: now.connections,
            devices: Devices {
                known,
                online,
                offline: known.saturating_sub(online + gone),
                gone,
            },
            totals: TickTotals {
                accepts: now.reactor.accepts,
                beats: now.beats,
                commands: commands(now),
                rejections: now.rejections.iter().map(|(_, count)| count).sum(),
            },
            rates: Rates {
                accepts_per_s: per_s(now.reactor.accepts, before.reactor.accepts),
                beats_per_s: per_s(now.beats, before.beats),
                commands_per_s: per_s(commands(now), commands(before)),
                bytes_in_per_s: per_s(now.reactor.bytes_in, before.reactor.bytes_in),
                bytes_out_per_s: per_s(now.reactor.bytes_out, before.reactor.bytes_out),
            },
            beat_rtt_ms: Quantiles::of(&now.beat_rtt_ms.since(&before.beat_rtt_ms), 1.0),
            command_ms: Quantiles::of(&now.command_us.since(&before.command_us), 0.001),
            timer_lateness_us: Quantiles::of(
                &now.timer_lateness_us.since(&before.timer_lateness_us),
                1.0,
            ),
            commands: Commands {
                running: shared.commands_running(),
                open: shared.table.len(),
                done: now.count(CommandEnd::Done),
                replayed: now.count(CommandEnd::Replayed),
                in_doubt: now.count(CommandEnd::InDoubt),
                timed_out: now.count(CommandEnd::TimedOutSent)
                    + now.count(CommandEnd::TimedOutUnsent),
            },
            store: Store {
                keys: store_keys(&now.store),
                in_doubt: now.store.keys_in_doubt,
                segments: now.store.segments,
                bytes: now.store.segment_bytes,
                syncs_per_s: per_s(now.store.syncs, before.store.syncs),
                batch_mean: mean(
                    now.store.batch_records.sum(),
                    before.store.batch_records.sum(),
                ),
                sync_us_mean: mean(now.store.sync_us.sum(), before.store.sync_us.sum()),
                poisoned: now.store.poisoned,
            },
        }
    }
}

/// Keys in every state.
pub(crate) fn store_keys(store: &idem_store::Stats) -> u64 {
    store.keys_in_flight + store.keys_in_doubt + store.keys_stored
}
