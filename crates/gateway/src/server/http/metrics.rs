//! `GET /metrics` in the OpenMetrics text format.

mod clock;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::Shared;
use crate::server::histogram::Counts;
use crate::server::snapshot::Snapshot;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(crate) async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let snapshot = Snapshot::take(&shared).await;
    let mut registry = Registry::with_prefix("mainstay");
    registry.register_collector(Box::new(Page { shared, snapshot }));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)
        .expect("writing to a string does not fail");
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text)
}

/// One scrape.
struct Page {
    shared: Arc<Shared>,
    snapshot: Snapshot,
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Page")
    }
}

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = Writer(encoder);
        self.devices(&mut page)?;
        self.datagrams(&mut page)?;
        self.reactor(&mut page)?;
        self.commands(&mut page)?;
        self.jobs(&mut page)?;
        self.groups(&mut page)?;
        self.store(&mut page)
    }
}

impl Page {
    fn devices(&self, page: &mut Writer<'_>) -> fmt::Result {
        let directory = &self.shared.directory;
        let (known, online, gone) = (directory.known(), directory.online(), directory.gone());
        let offline = known.saturating_sub(online + gone);
        page.gauges(
            "devices",
            "Known devices by state",
            "state",
            &[
                ("online", online as u64),
                ("offline", offline as u64),
                ("gone", gone as u64),
            ],
        )?;
        let counters = &self.shared.counters;
        page.gauge(
            "devices_suspect",
            "Devices among those online whose beats are later than their rhythm explains",
            counters.devices_suspect(),
        )?;
        let registry = &self.shared.registry;
        page.gauge(
            "device_list_unsaved",
            "Devices of which the list on disk does not say yet that they are known or forgotten",
            registry.unsaved() as u64,
        )?;
        page.counter(
            "device_list_failures",
            "Writes of the device list that the disk refused",
            registry.failures(),
        )?;
        page.counter("beats", "Beats heard", self.snapshot.beats)?;
        page.counter(
            "beat_bytes",
            "Bytes that beats took on their connections and in datagrams",
            counters.beat_bytes.load(Relaxed),
        )?;
        page.counter(
            "devices_gone",
            "Devices whose deadline passed",
            counters.devices_gone.load(Relaxed),
        )?;
        page.histogram(
            "beat_round_trip",
            "Round trips of beats as the devices report them",
            &self.snapshot.beat_rtt_ms,
            1e-3,
        )?;
        page.counters(
            "rejections",
            "Device connections that were refused or closed for breaking the protocol",
            "reason",
            &self.snapshot.rejections,
        )
    }

    fn datagrams(&self, page: &mut Writer<'_>) -> fmt::Result {
        let Some(datagrams) = &self.shared.datagrams else {
            return Ok(());
        };
        page.gauge(
            "datagram_sessions",
            "Sessions that may beat in datagrams",
            datagrams.sessions() as u64,
        )?;
        let (heard, late) = datagrams.heard();
        page.counter(
            "datagram_beats",
            "Beats among those heard that came in datagrams",
            heard,
        )?;
        page.counter(
            "datagrams_late",
            "Authentic beats in datagrams that a later one had overtaken",
            late,
        )?;
        page.counters(
            "datagrams_refused",
            "Datagrams that changed nothing",
            "reason",
            &datagrams.refusals().collect::<Vec<_>>(),
        )
    }

    fn reactor(&self, page: &mut Writer<'_>) -> fmt::Result {
        let totals = &self.snapshot.reactor;
        let connections = self.snapshot.connections as u64;
        page.gauge("connections", "Open device connections", connections)?;
        page.counter("accepts", "Device connections accepted", totals.accepts)?;
        page.counter("accept_errors", "Accepts that failed", totals.accept_errors)?;
        page.counter("closes", "Device connections closed", totals.closes)?;
        page.counter("reads", "Reads of device sockets", totals.reads)?;
        page.counter("writes", "Writes to device sockets", totals.writes)?;
        page.counter("waits", "Waits for socket events", totals.waits)?;
        page.counter(
            "interest_changes",
            "Changes of what the kernel watches (epoll_ctl)",
            totals.interest_changes,
        )?;
        page.counter(
            "interest_merged",
            "Changes of what the kernel watches that became one with another",
            totals.interest_merged,
        )?;
        page.counter(
            "interest_elided",
            "Changes of what the kernel watches that it needs not be told",
            totals.interest_elided,
        )?;
        page.counter("received_bytes", "Bytes from devices", totals.bytes_in)?;
        page.counter("sent_bytes", "Bytes to devices", totals.bytes_out)?;
        page.histogram(
            "timer_lateness",
            "How late timers fired",
            &self.snapshot.timer_lateness_us,
            1e-6,
        )?;
        #[cfg(target_os = "linux")]
        if let Ok(open) = conn_reactor::descriptors::count() {
            page.gauge(
                "open_fds",
                "Descriptors that the process has open",
                open as u64,
            )?;
        }
        let depths: Vec<_> = self.snapshot.mailboxes.iter().enumerate().collect();
        let depths: Vec<_> = depths
            .iter()
            .map(|(i, n)| (i.to_string(), **n as u64))
            .collect();
        let depths: Vec<_> = depths
            .iter()
            .map(|(shard, n)| (shard.as_str(), *n))
            .collect();
        page.gauges(
            "mailbox_depth",
            "Messages that wait for a shard",
            "shard",
            &depths,
        )?;
        let full = self.shared.counters.mailbox_full.load(Relaxed);
        page.counter("mailbox_full", "Messages that a full mailbox refused", full)
    }

    fn commands(&self, page: &mut Writer<'_>) -> fmt::Result {
        let ends: Vec<_> = self
            .snapshot
            .commands
            .iter()
            .map(|(_, name, count)| (*name, *count))
            .collect();
        page.counters(
            "commands",
            "Commands by what the caller was told",
            "outcome",
            &ends,
        )?;
        let running = self.shared.commands_running() as u64;
        page.gauge(
            "commands_running",
            "Commands that run or wait for their device",
            running,
        )?;
        let open = self.shared.table.len() as u64;
        page.gauge(
            "commands_open",
            "Commands that have no outcome yet, sent or not",
            open,
        )?;
        page.histogram(
            "command_duration",
            "From a command request's arrival to its answer",
            &self.snapshot.command_us,
            1e-6,
        )
    }

    fn store(&self, page: &mut Writer<'_>) -> fmt::Result {
        let store = &self.snapshot.store;
        page.gauges(
            "store_keys",
            "Keys in the store by state",
            "state",
            &[
                ("in-flight", store.keys_in_flight),
                ("in-doubt", store.keys_in_doubt),
                ("stored", store.keys_stored),
            ],
        )?;
        page.gauge("store_segments", "Segment files", store.segments)?;
        page.gauge(
            "store_size_bytes",
            "Bytes of segment files",
            store.segment_bytes,
        )?;
        page.gauge(
            "store_disk_full",
            "1 while new keys are refused because the disk is full",
            store.disk_full.into(),
        )?;
        page.gauge(
            "store_no_descriptors",
            "1 while new keys are refused because too many files are open",
            store.no_descriptors.into(),
        )?;
        page.gauge(
            "store_upkeep_failed",
            "1 while an old segment cannot be read back and keeps its disk space",
            store.upkeep_failed.into(),
        )?;
        page.gauge(
            "store_poisoned",
            "1 after a write or sync failed",
            store.poisoned.into(),
        )?;
        page.counter("store_syncs", "Calls of fdatasync", store.syncs)?;
        let batch_records = Counts::from(&store.batch_records);
        page.histogram(
            "store_batch_records",
            "Records in one durable batch",
            &batch_records,
            1.0,
        )?;
        let sync_us = Counts::from(&store.sync_us);
        page.histogram("store_sync", "Time of one fdatasync", &sync_us, 1e-6)
    }
}

/// The metric kinds that this page uses, on top of the encoder.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: &[(&'static str, u64)],
    ) -> fmt::Result {
        let mut family = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        values.iter().try_for_each(|(value, count)| {
            let labels = [(label, *value)];
            family
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, u64>(count, None)
        })
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        metric.encode_gauge(&value)
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: &[(&str, u64)],
    ) -> fmt::Result {
        let mut family = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        values.iter().try_for_each(|(value, count)| {
            let labels = [(label, *value)];
            family.encode_family(&labels)?.encode_gauge(count)
        })
    }

    /// A counter for each set of labels.
    fn counters_of<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        mut values: impl Iterator<Item = ([&'a str; N], u64)>,
    ) -> fmt::Result {
        let mut family = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        values.try_for_each(|(values, count)| {
            let labels: [_; N] = std::array::from_fn(|at| (labels[at], values[at]));
            family
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, u64>(&count, None)
        })
    }

    /// A gauge for each value of a label.
    fn gauges_of<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        mut values: impl Iterator<Item = (&'a str, f64)>,
    ) -> fmt::Result {
        let mut family = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        values.try_for_each(|(value, number)| {
            family
                .encode_family(&[(label, value)])?
                .encode_gauge(&number)
        })
    }

    /// A histogram whose values are `scale` seconds each, or plain numbers when `scale` is 1.
    fn histogram(&mut self, name: &str, help: &str, counts: &Counts, scale: f64) -> fmt::Result {
        let unit = (scale != 1.0).then_some(Unit::Seconds);
        let doublings = counts.doublings().into_iter();
        let buckets: Vec<_> = doublings.map(|(largest, n)| (largest * scale, n)).collect();
        let sum = counts.sum() as f64 * scale;
        let mut metric =
            self.0
                .encode_descriptor(name, help, unit.as_ref(), MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(sum, counts.total(), &buckets, None)
    }
}
