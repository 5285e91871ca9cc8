//! What the dashboard is told once a second: numbers now, and rates and quantiles since the last tick.

use std::time::Duration;

use serde::Serialize;

use super::Shared;
use super::counters::CommandEnd;
use super::drain::Phase;
use super::histogram::Counts;
use super::snapshot::Snapshot;

/// What the dashboard is sent once a second.
#[derive(Serialize)]
pub(crate) struct Tick {
    time_ms: u64,
    uptime_s: u64,
    version: &'static str,
    draining: bool,
    connections: usize,
    devices: Devices,
    totals: Totals,
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
    /// Among those online.
    suspect: u64,
    offline: usize,
    gone: usize,
}

#[derive(Serialize)]
struct Totals {
    accepts: u64,
    beats: u64,
    /// Among the beats; none where none are taken.
    datagram_beats: Option<u64>,
    commands: u64,
    rejections: u64,
    bytes_in: u64,
    bytes_out: u64,
}

#[derive(Serialize)]
struct Rates {
    accepts_per_s: f64,
    beats_per_s: f64,
    datagram_beats_per_s: Option<f64>,
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
    disk_full: bool,
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
        let (known, online) = (shared.directory.known(), shared.directory.online());
        let gone = shared.directory.gone();
        Self {
            time_ms: shared.unix_ms(),
            uptime_s: shared.now_ms() / 1000,
            version: env!("CARGO_PKG_VERSION"),
            draining: shared.phase() != Phase::Serving,
            connections: now.connections,
            devices: Devices {
                known,
                online,
                suspect: shared.counters.devices_suspect(),
                offline: known.saturating_sub(online + gone),
                gone,
            },
            totals: Totals::of(now),
            rates: Rates::between(&Totals::of(before), &Totals::of(now), elapsed),
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
            store: Store::between(&before.store, &now.store, elapsed),
        }
    }
}

impl Totals {
    fn of(snapshot: &Snapshot) -> Self {
        Self {
            accepts: snapshot.reactor.accepts,
            beats: snapshot.beats,
            datagram_beats: snapshot.datagram_beats,
            commands: snapshot.commands.iter().map(|(.., count)| count).sum(),
            rejections: snapshot.rejections.iter().map(|(_, count)| count).sum(),
            bytes_in: snapshot.reactor.bytes_in,
            bytes_out: snapshot.reactor.bytes_out,
        }
    }
}

impl Rates {
    fn between(before: &Totals, now: &Totals, elapsed: Duration) -> Self {
        Self {
            accepts_per_s: per_s(before.accepts, now.accepts, elapsed),
            beats_per_s: per_s(before.beats, now.beats, elapsed),
            datagram_beats_per_s: before
                .datagram_beats
                .zip(now.datagram_beats)
                .map(|(before, now)| per_s(before, now, elapsed)),
            commands_per_s: per_s(before.commands, now.commands, elapsed),
            bytes_in_per_s: per_s(before.bytes_in, now.bytes_in, elapsed),
            bytes_out_per_s: per_s(before.bytes_out, now.bytes_out, elapsed),
        }
    }
}

impl Store {
    fn between(before: &idem_store::Stats, now: &idem_store::Stats, elapsed: Duration) -> Self {
        let mean = |before: &idem_store::Histogram, now: &idem_store::Histogram| {
            let count = now.count().saturating_sub(before.count());
            (count > 0).then(|| now.sum().saturating_sub(before.sum()) as f64 / count as f64)
        };
        Self {
            keys: now.keys_in_flight + now.keys_in_doubt + now.keys_stored,
            in_doubt: now.keys_in_doubt,
            segments: now.segments,
            bytes: now.segment_bytes,
            syncs_per_s: per_s(before.syncs, now.syncs, elapsed),
            batch_mean: mean(&before.batch_records, &now.batch_records),
            sync_us_mean: mean(&before.sync_us, &now.sync_us),
            disk_full: now.disk_full,
            poisoned: now.poisoned,
        }
    }
}

fn per_s(before: u64, now: u64, elapsed: Duration) -> f64 {
    now.saturating_sub(before) as f64 / elapsed.as_secs_f64()
}
