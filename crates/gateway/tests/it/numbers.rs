//! The metrics page and the events of the dashboard.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};

use gateway::proto::{Beat, FromDevice};

use crate::http::Request;
use crate::peer::{Heard, Peer};
use crate::rig::{Rig, until};

#[test]
fn the_metrics_page_is_open_metrics_and_names_what_was_promised() {
    let rig = Rig::start();
    let mut peer = rig.online("a");
    let beat = Beat {
        stamp_ms: 1,
        load_percent: None,
        rtt_ms: Some(9),
    };
    peer.say(&FromDevice::Beat(beat));
    assert_eq!(peer.hear(), Some(Heard::BeatAck(1)));
    let call = rig.post_later("a", "k", "{}");
    peer.answer("1");
    call.join().unwrap().done("1");
    Peer::connect(rig.device_addr).write(b"GET / HTTP/1.1\r\n\r\n");
    until("the garbage is counted", || {
        rig.rejections("bad-preface") == 1.0
    });

    let response = rig.get("/metrics");
    let kind = response.header("content-type").unwrap();
    assert!(
        kind.starts_with("application/openmetrics-text; version=1.0.0"),
        "{kind}"
    );
    let page = response.text();
    let families = parse(&page);
    for family in [
        "mainstay_connections gauge",
        "mainstay_accepts counter",
        "mainstay_devices gauge",
        "mainstay_beats counter",
        "mainstay_beat_bytes counter",
        "mainstay_devices_suspect gauge",
        "mainstay_device_list_unsaved gauge",
        "mainstay_device_list_failures counter",
        "mainstay_beat_round_trip_seconds histogram",
        "mainstay_timer_lateness_seconds histogram",
        "mainstay_commands counter",
        "mainstay_commands_running gauge",
        "mainstay_commands_open gauge",
        "mainstay_command_duration_seconds histogram",
        "mainstay_store_syncs counter",
        "mainstay_store_sync_seconds histogram",
        "mainstay_store_batch_records histogram",
        "mainstay_store_keys gauge",
        "mainstay_mailbox_depth gauge",
        "mainstay_rejections counter",
    ] {
        assert!(families.contains(family), "no {family} in {families:?}");
    }
    for (series, value) in [
        ("mainstay_devices{state=\"online\"}", 1.0),
        ("mainstay_accepts_total", 2.0),
        ("mainstay_beats_total", 1.0),
        ("mainstay_beat_round_trip_seconds_count", 1.0),
        ("mainstay_beat_round_trip_seconds_sum", 0.009),
        ("mainstay_beat_round_trip_seconds_bucket{le=\"0.015\"}", 1.0),
        ("mainstay_beat_round_trip_seconds_bucket{le=\"0.007\"}", 0.0),
        ("mainstay_commands_total{outcome=\"done\"}", 1.0),
        ("mainstay_command_duration_seconds_count", 1.0),
        ("mainstay_store_keys{state=\"stored\"}", 1.0),
        ("mainstay_commands_running", 0.0),
        ("mainstay_mailbox_depth{shard=\"1\"}", 0.0),
    ] {
        // A shard that is late with its report is counted as it was before.
        until(series, || (rig.metric(series) - value).abs() < 1e-9);
    }
    assert!(
        rig.metric("mainstay_store_syncs_total") >= 2.0,
        "the claim and the outcome"
    );
    assert!(rig.metric("mainstay_store_batch_records_sum") >= 2.0);
}

/// Reads a page of OpenMetrics text as strictly as its grammar; returns `name type` of each family.
fn parse(page: &str) -> BTreeSet<String> {
    let mut families = BTreeSet::new();
    let mut family = String::new();
    let (body, end) = page.split_at(page.len() - "# EOF\n".len());
    assert_eq!(end, "# EOF\n");
    for line in body.lines() {
        if let Some(descriptor) = line.strip_prefix("# ") {
            let (what, rest) = descriptor.split_once(' ').unwrap();
            assert!(["HELP", "TYPE", "UNIT"].contains(&what), "{line}");
            if what == "TYPE" {
                assert!(families.insert(rest.to_owned()), "{line} twice");
                family = rest.split_once(' ').unwrap().0.to_owned();
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        value.parse::<f64>().unwrap();
        let name = series.split_once('{').map_or(series, |(name, labels)| {
            let labels = labels.strip_suffix('}').unwrap();
            assert!(labels.ends_with('"') && labels.contains("=\""), "{line}");
            name
        });
        let suffix = name.strip_prefix(family.as_str());
        assert!(
            suffix.is_some_and(|s| ["", "_total", "_bucket", "_sum", "_count"].contains(&s)),
            "{line} in {family}"
        );
    }
    families
}

#[test]
fn the_dashboard_hears_a_tick_a_second() {
    let rig = Rig::with(|config| config.http_limits.events_max = 1);
    let _peer = rig.online("a");
    let mut events = BufReader::new(Request::get("/v1/events").start(rig.http_addr)).lines();
    let mut line = || events.next().unwrap().unwrap();
    assert_eq!(line(), "HTTP/1.1 200 OK");
    let head: Vec<_> =
        std::iter::from_fn(|| Some(line()).filter(|line| !line.is_empty())).collect();
    assert!(
        head.contains(&"content-type: text/event-stream".to_owned()),
        "{head:?}"
    );
    for _ in 0..2 {
        while line() != "event: tick" {}
        let data = line();
        let tick: serde_json::Value =
            serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(
            (&tick["devices"]["online"], &tick["draining"]),
            (&1.into(), &false.into())
        );
        assert!(tick["time_ms"].as_u64() > Some(1_700_000_000_000), "{tick}");
        // Not zero: none can come.
        assert!(tick["totals"]["datagram_beats"].is_null(), "{tick}");
        assert_eq!(line(), "");
    }
    // Listeners have their limit, and give their place back.
    rig.get("/v1/events").problem(503, "too-many-listeners");
    drop(events);
    until("the place is free", || {
        let mut stream = Request::get("/v1/events").start(rig.http_addr);
        let mut status = [0; 12];
        std::io::Read::read_exact(&mut stream, &mut status).unwrap();
        status == *b"HTTP/1.1 200"
    });
}

#[test]
fn the_dashboard_is_one_page_that_loads_nothing_from_elsewhere() {
    let rig = Rig::start();
    let response = rig.get("/");
    assert_eq!(response.status, 200);
    assert!(
        response
            .header("content-type")
            .unwrap()
            .starts_with("text/html")
    );
    assert!(
        response
            .header("content-security-policy")
            .unwrap()
            .contains("default-src 'none'")
    );
}
