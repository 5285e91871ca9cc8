//! `mainstay swarm` as a user starts it.

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::http::Client;
use crate::support::process::{GatewayProcess, Launch};

/// Only a swarm that hangs takes so long.
const PATIENCE: Duration = Duration::from_secs(120);

fn swarm(args: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mainstay"))
        .arg("swarm")
        .args(args)
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn report(out: &Output) -> Value {
    serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{out:?}"))
}

#[test]
fn variables_set_what_no_flag_does() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Launch::new(dir.path().join("data")).start();
    let listen = gateway.listen.to_string();
    let variables = [
        ("MAINSTAY_SWARM_CONNECT", listen.as_str()),
        ("MAINSTAY_SWARM_DEVICES", "7"),
        ("MAINSTAY_SWARM_BEAT", "100ms"),
        ("MAINSTAY_SWARM_FOR", "5s"),
        ("MAINSTAY_SWARM_PREFIX", "env"),
        ("MAINSTAY_SWARM_RAMP", "1000"),
        ("MAINSTAY_SWARM_SHARDS", "2"),
        ("MAINSTAY_SWARM_BEATS", "plain"),
        ("MAINSTAY_SWARM_JSON", "1"),
    ];
    let out = swarm(&["--devices", "5"], &variables);
    let report = report(&out);
    assert_eq!(out.status.code(), Some(0), "{report}");
    assert_eq!(report["connected_max"], 5, "a flag wins over its variable");
    for quantile in ["p50", "p99", "p999", "max"] {
        assert!(report["beat_rtt_ms"][quantile].as_f64().unwrap() > 0.0);
    }
    let mut client = Client::new(gateway.http);
    let listed = client.get("/v1/devices/env-00004");
    assert_eq!(listed.unwrap().status, 200);
    let page = client.get("/metrics").unwrap().text();
    let total = |name: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    let bytes = total("mainstay_beat_bytes_total");
    assert_eq!(bytes, 9 * total("mainstay_beats_total"), "plain beats");
}

#[test]
fn without_a_round_trip_there_are_no_quantiles() {
    // Somebody listens and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let args = ["--connect", &addr, "--devices", "1", "--for", "100ms"];
    let out = swarm(&[&args[..], &["--json"]].concat(), &[]);
    let report = report(&out);
    assert_eq!(out.status.code(), Some(1), "{report}");
    let none = json!({ "p50": null, "p99": null, "p999": null, "max": null });
    assert_eq!(report["beat_rtt_ms"], none);
    let words = swarm(&args, &[]);
    let words = String::from_utf8_lossy(&words.stdout);
    assert!(words.contains("none was measured"), "{words}");
}

#[test]
fn tries_to_come_back_are_counted_with_their_pauses() {
    // Nobody listens there any more.
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    let addr = addr.unwrap().to_string();
    let args = ["--connect", &addr, "--devices", "50", "--for", "3s"];
    let out = swarm(&[&args[..], &["--json"]].concat(), &[]);
    let report = report(&out);
    let failed = report["connect_failed"].as_u64().unwrap();
    let tries = report["reconnects"]["tries"].as_u64().unwrap();
    assert!(failed >= 50 && tries >= 50, "{report}");
    let pauses = ["p50", "p99", "p999", "max"].map(|at| {
        let pause = &report["reconnects"]["delay_ms"][at];
        pause.as_f64().unwrap()
    });
    assert!(pauses.is_sorted() && pauses[3] > 0.0, "{report}");
    let words = swarm(&args, &[]);
    let words = String::from_utf8_lossy(&words.stdout);
    assert!(words.contains("reconnects "), "{words}");
}

/// Nobody listens, and with a breaker a few devices find that out for all.
#[test]
fn a_breaker_spares_most_tries() {
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    let addr = addr.unwrap().to_string();
    let args = ["--connect", &addr, "--devices=500", "--for=3s", "--json"];
    let failed = |out: &Output| report(out)["connect_failed"].as_u64().unwrap();
    let each_alone = failed(&swarm(&args, &[]));
    assert!(each_alone >= 500, "{each_alone}");
    let together = failed(&swarm(&args, &[("MAINSTAY_SWARM_BREAKER", "1")]));
    assert!((5..100).contains(&together), "{together} of {each_alone}");
}

/// More devices than a shard hears in one turn; their beats wait in its sockets while it stands still.
#[test]
fn a_gateway_that_stood_still_does_not_blame_its_devices() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Launch::new(dir.path().join("data"))
        .arg("--shards=1")
        .arg("--grace=3s")
        .start();
    let listen = gateway.listen.to_string();
    let swarm = Command::new(env!("CARGO_BIN_EXE_mainstay"))
        .args(["swarm", "--connect", &listen, "--devices=4000", "--beat=1s"])
        // Ends by itself should the test not live to end it.
        .args(["--for=5m", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut client = Client::new(gateway.http);
    let started = Instant::now();
    let mut until = |what: &str, done: &dyn Fn(u64, u64) -> bool| {
        loop {
            let page = client.get("/v1/devices?limit=1").unwrap().json();
            let metrics = client.get("/metrics").unwrap().text();
            let beats = metrics
                .lines()
                .find_map(|line| line.strip_prefix("mainstay_beats_total "))
                .and_then(|beats| beats.parse().ok());
            let (online, beats) = (page["total"].as_u64().unwrap(), beats.unwrap());
            if done(online, beats) {
                return beats;
            }
            assert!(started.elapsed() < PATIENCE, "{what}: {online}, {beats}");
            thread::sleep(Duration::from_millis(20));
        }
    };
    let before = until("all are online", &|online, _| online == 4_000);
    let before = until("each has beaten", &|_, beats| beats > before + 6_000);
    // Most of their deadlines pass; none gives its gateway up before 5 s.
    gateway.freeze(Duration::from_millis(3_600));
    until("each was heard", &|_, beats| beats > before + 24_000);
    kill_process(Pid::from_child(&swarm), Signal::INT).unwrap();
    let report = report(&swarm.wait_with_output().unwrap());
    assert_eq!(report["connected_max"], 4_000, "{report}");
    assert_eq!(report["false_gone"], 0, "{report}");
}

/// `kill -9` and a new start: each device comes back in the slot that its gateway gave it, 300 over six seconds.
#[test]
fn devices_of_a_killed_gateway_come_back_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("gateway.toml");
    std::fs::write(&config, "[devices]\nreturn_per_s = 50\n").unwrap();
    let mut launch = Launch::new(dir.path().join("data"))
        // With more of them some slots stay free: those of the shards that have fewer devices.
        .arg("--shards=1")
        .arg("--config")
        .arg(config.display().to_string());
    let gateway = launch.start();
    let listen = gateway.listen.to_string();
    let swarm = Command::new(env!("CARGO_BIN_EXE_mainstay"))
        .args(["swarm", "--connect", &listen, "--devices=300"])
        .args(["--for=5m", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until_online(&gateway, 300);
    gateway.kill();
    let gateway = launch.start();
    until_online(&gateway, 300);
    kill_process(Pid::from_child(&swarm), Signal::INT).unwrap();
    let report = report(&swarm.wait_with_output().unwrap());
    assert_eq!(
        (&report["lost"], &report["returns"]["devices"]),
        (&json!(300), &json!(300))
    );
    // Without slots the first pause is below two seconds. How long the start takes says how many tries find nobody, and how
    // long their next pauses are, so no more than this is certain.
    let latest = report["reconnects"]["delay_ms"]["max"].as_f64().unwrap();
    assert!(latest >= 5_500.0, "{report}");
    let tries = report["returns"]["tries_each"].as_f64().unwrap();
    assert!(tries >= 1.0, "{report}");
}

fn until_online(gateway: &GatewayProcess, devices: u64) {
    let started = Instant::now();
    let mut client = Client::new(gateway.http);
    loop {
        let page = client.get("/v1/devices?limit=1").unwrap().json();
        if page["total"] == devices {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{page}");
        thread::sleep(Duration::from_millis(20));
    }
}
