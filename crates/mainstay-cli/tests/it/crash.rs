//! The promise of the gateway under `kill -9`: every answered key replays its answer, no key is
//! executed twice, and a key that can be neither is in doubt and says so.
//!
//! A real process is killed at random instants under load, or drained, and started again on the
//! same data and ports. The devices live in this process, where their effects are counted.
//! `MAINSTAY_KILLS` and `MAINSTAY_SEED` change how often and where.

#[path = "crash/devices.rs"]
mod devices;
#[path = "crash/load.rs"]
mod load;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use devices::{Devices, Effects, Memory, Report};
use load::{End, Load, Record};

use crate::support::http::Client;
use crate::support::process::{GatewayProcess, Launch, tail};
use crate::support::random::{Random, number_from_env};

const CALLERS: usize = 48;

/// Clients that ask again after a restart.
const CHECKERS: usize = 8;

/// Keys of earlier restarts that are asked again after each one, besides all newer ones.
const OLD_REPLAYS: usize = 100;

/// Only a gateway that hangs takes so long to drain.
const DRAIN_PATIENCE: Duration = Duration::from_secs(120);

/// How the gateway is ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    Kill,
    Drain,
}

#[test]
fn a_kill_at_any_moment_loses_no_answer_and_repeats_no_effect() {
    run(Ending::Kill, number_from_env("MAINSTAY_KILLS", 20), &[]);
}

#[cfg(any(feature = "mysql", feature = "postgres", feature = "redis"))]
crate::support::servers::on_each_server!(a_kill_at_any_moment_keeps_the_same_promises);

#[cfg(any(feature = "mysql", feature = "postgres", feature = "redis"))]
fn a_kill_at_any_moment_keeps_the_same_promises(store: crate::support::servers::SharedStore) {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("gateway.toml");
    // Short leases: the claims of a killed gateway are free to be taken up soon.
    std::fs::write(&config, "[commands]\nlease_ms = 500\n").unwrap();
    let (store, config) = (store.url(), config.display().to_string());
    let args = ["--store", &store, "--config", &config];
    run(Ending::Kill, number_from_env("MAINSTAY_KILLS", 3), &args);
}

#[test]
fn a_drain_under_load_exits_0_and_keeps_the_same_promises() {
    run(Ending::Drain, 2, &[]);
}

fn run(ending: Ending, times: u64, args: &[&str]) {
    let by_clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_nanos() as u64;
    let seed = number_from_env("MAINSTAY_SEED", by_clock);
    println!("MAINSTAY_SEED={seed}");
    let mut random = Random::new(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut launch = Launch::new(dir.path().join("data"))
        .arg("--drain-timeout")
        .arg("1s");
    for arg in args {
        launch = launch.arg(*arg);
    }
    let first = launch.start();
    let effects = Arc::<Effects>::default();
    let of_devices = Random::new(random.next());
    let devices = Devices::start(first.listen, dir.path(), &effects, of_devices);
    let load = Load::new(first.http, devices::names(), Arc::clone(&effects));

    let started = Instant::now();
    let mut killed = started.elapsed();
    let gateway = thread::scope(|scope| {
        let gives_up = GivesUp(&load);
        for _ in 0..CALLERS {
            let of_caller = Random::new(random.next());
            scope.spawn(|| load.call(of_caller));
        }
        let mut gateway = first;
        let mut checked = 0;
        for _ in 0..times {
            thread::sleep(pause(ending, &mut random));
            end(gateway, ending);
            gateway = launch.start();
            checked = check_replays(&load, gateway.http, checked, &mut random);
        }
        load.stop();
        killed = started.elapsed();
        std::mem::forget(gives_up);
        gateway
    });
    let settled = started.elapsed();
    let report = devices.stop();

    // Once more, with no device in the world: answers come from the store alone.
    end(gateway, ending);
    let gateway = launch.start();
    check_all_replays(&load, gateway.http, &mut random);
    end(gateway, ending);
    let log = tail(&launch.log());
    println!(
        "load {killed:.1?}, all keys ended {settled:.1?}, checked {:.1?}",
        started.elapsed()
    );
    conclude(ending, times, &load, &effects, &report, &log);
}

/// Lets the callers go when the test itself panics.
struct GivesUp<'a>(&'a Load);

impl Drop for GivesUp<'_> {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

/// Time for devices to come back, or not quite.
fn pause(ending: Ending, random: &mut Random) -> Duration {
    match ending {
        Ending::Kill => Duration::from_millis(random.within(50..1_000)),
        // Devices take up to five seconds to come back after a drain.
        Ending::Drain => Duration::from_millis(random.within(1_500..4_000)),
    }
}

fn end(mut gateway: GatewayProcess, ending: Ending) {
    match ending {
        Ending::Kill => gateway.kill(),
        Ending::Drain => {
            gateway.terminate();
            let status = gateway.wait_for_end(DRAIN_PATIENCE);
            assert_eq!(status.code(), Some(0), "a drained gateway ends well");
            let output = gateway.output();
            assert!(output.contains(r#""event":"stopped""#), "{output}");
        }
    }
}

/// Right after a start, before most devices are back: asks again with every key that was answered
/// since the last time, and with some older ones.
fn check_replays(
    load: &Load,
    http: std::net::SocketAddr,
    checked: usize,
    random: &mut Random,
) -> usize {
    let records = load.records.lock().unwrap();
    let (old, new) = records.split_at(checked);
    let mut again: Vec<Record> = new.to_vec();
    if !old.is_empty() {
        again.extend((0..OLD_REPLAYS).map(|_| random.pick(old).clone()));
    }
    let count = records.len();
    drop(records);
    assert_eq!(Client::new(http).get("/readyz").unwrap().status, 200);
    check_each(load, http, &again, random);
    count
}

fn check_all_replays(load: &Load, http: std::net::SocketAddr, random: &mut Random) {
    let records = load.records.lock().unwrap().clone();
    check_each(load, http, &records, random);
}

/// By several clients, since a replay from a server takes a round trip.
fn check_each(load: &Load, http: std::net::SocketAddr, records: &[Record], random: &mut Random) {
    thread::scope(|scope| {
        for some in records.chunks(records.len().div_ceil(CHECKERS).max(1)) {
            let mut random = Random::new(random.next());
            scope.spawn(move || {
                let mut client = Client::new(http);
                for record in some {
                    load.check_replay(&mut client, record, &mut random);
                }
            });
        }
    });
}

/// Counts, and holds everything that was answered against everything that happened.
fn conclude(
    ending: Ending,
    times: u64,
    load: &Load,
    effects: &Effects,
    report: &Report,
    log: &str,
) {
    let records = load.records.lock().unwrap();
    let mut violations = load.violations.lock().unwrap().clone();
    let (mut answered, mut in_doubt) = (0, 0);
    for Record { order, end } in &*records {
        let executed = load.effects_of(order);
        let memory = Memory::of(&order.device);
        let complaint = match end {
            End::Answered(_) if executed != 1 => format!("answered, executed {executed} times"),
            End::InDoubt(_) if executed > 1 => format!("in doubt, executed {executed} times"),
            // Only a device that loses its memory, or its answer, leaves a doubt.
            End::InDoubt(body) if memory != Memory::Lost && !order.drops => {
                format!("in doubt for no reason: {}", String::from_utf8_lossy(body))
            }
            End::Answered(_) if order.drops => "answered, though the answer was dropped".to_owned(),
            End::Hangs(last) => format!("hangs, executed {executed} times: {last}"),
            End::Answered(_) => {
                answered += 1;
                continue;
            }
            End::InDoubt(_) => {
                in_doubt += 1;
                continue;
            }
        };
        violations.push(format!("{} {}: {complaint}", order.device, order.key));
    }
    if effects.most_of_one_id() > 1 {
        violations.push(format!(
            "a command id was executed {} times",
            effects.most_of_one_id()
        ));
    }
    println!(
        "{times} times {ending:?}: keys {}, answered {answered}, in doubt {in_doubt}, replayed {}, \
         duplicates ignored {}, device restarts {}, sessions lost {}",
        records.len(),
        load.replayed.load(Relaxed),
        report.fleet.duplicates_ignored,
        report.restarts,
        report.fleet.lost,
    );
    println!("heard {:?}", load.heard.lock().unwrap());
    let some = &violations[..violations.len().min(20)];
    assert!(
        some.is_empty(),
        "{} violations: {some:#?}\nlog:\n{log}",
        violations.len()
    );
    assert!(answered > 0, "the load answered nothing; log:\n{log}");
}
