//! `[[job]]` and `[breaker]` of `mainstay gateway`, with real processes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gateway::device::{Answer, Device};
use gateway::server::store_key;
use idem_store::{Lookup, Options, Store};
use scheduler::FireTime;
use serde_json::Value;

use crate::support::http::Client;
use crate::support::process::{GatewayProcess, Launch};
use crate::support::random::{Random, number_from_env};
#[cfg(any(feature = "mysql", feature = "postgres", feature = "redis"))]
use crate::support::servers::{SharedStore, on_each_server};

/// Only a gateway that hangs takes so long.
const PATIENCE: Duration = Duration::from_secs(120);

const PERIOD_MS: u64 = 250;

const JOB: &str = "[[job]]\nname = \"tick\"\nevery = \"250ms\"\nmisfire = \"all:20\"\noverlap = \"allow\"\n\
                   timeout = \"2s\"\ncommand = { do = \"it\" }\ndevices = \"d-*\"\n";

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_millis() as u64
}

/// How often each device executed a command.
type Effects = Arc<Mutex<HashMap<String, u64>>>;

/// A device that keeps its memory of commands in `dir`.
fn device(gateway: SocketAddr, dir: &Path, id: &str, effects: &Effects) -> Device {
    let started = Instant::now();
    loop {
        let effects = Arc::clone(effects);
        let device = Device::builder(gateway, id)
            .interval_ms(200)
            .reconnect_cap_ms(100)
            .journal(dir.join(format!("{id}.journal")))
            .start(move |command| {
                *effects
                    .lock()
                    .unwrap()
                    .entry(command.device.to_string())
                    .or_default() += 1;
                Answer::json("1")
            });
        match device {
            Ok(device) => return device,
            // A gateway that is being started holds a copy of the journal's descriptor for a moment.
            Err(error) => assert!(started.elapsed() < PATIENCE, "{error}"),
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn job(gateway: &GatewayProcess) -> Value {
    let mut client = Client::new(gateway.http);
    client.get("/v1/jobs").unwrap().json()["jobs"][0].clone()
}

#[cfg(any(feature = "mysql", feature = "postgres", feature = "redis"))]
on_each_server!(
    killed_gateways_on_one_store_send_a_firing_to_no_device_twice,
    a_firing_ends_where_its_devices_executed_it_through_another_gateway,
    a_device_that_is_nowhere_fails_the_firing,
);

/// Two gateways with one file; devices go from one to the other, gateways are killed inside firings.
#[cfg(any(feature = "mysql", feature = "postgres", feature = "redis"))]
fn killed_gateways_on_one_store_send_a_firing_to_no_device_twice(store: SharedStore) {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("gateway.toml");
    let write = |jobs: &str| std::fs::write(&config, format!("[commands]\nlease_ms = 500\n{jobs}"));
    write(JOB).unwrap();
    let mut launches = ["a", "b"].map(|name| {
        Launch::new(dir.path().join(name))
            .arg("--store")
            .arg(store.url())
            .arg("--config")
            .arg(config.display().to_string())
    });
    let from_ms = now_ms();
    let mut gateways = launches.each_mut().map(|it| Some(it.start()));
    let effects = Effects::default();
    let ids = ["d-0", "d-1", "d-2", "d-3"];
    let connect = |to: &GatewayProcess, id| device(to.listen, dir.path(), id, &effects);
    let mut devices = ids.map(|id| Some(connect(gateways[0].as_ref().unwrap(), id)));
    let mut random = Random::new(number_from_env("MAINSTAY_SEED_FIRST", 1));
    for turn in 0..number_from_env("MAINSTAY_TURNS", 12) {
        thread::sleep(Duration::from_millis(random.within(50..500)));
        if turn % 3 == 2 {
            let at = random.within(0..2) as usize;
            gateways[at].take().unwrap().kill();
            gateways[at] = Some(launches[at].start());
            continue;
        }
        let at = random.within(0..4) as usize;
        let to = gateways[random.within(0..2) as usize].as_ref().unwrap();
        devices[at].take().unwrap().stop().unwrap();
        devices[at] = Some(connect(to, ids[at]));
    }
    until("firings run to their end", || {
        gateways
            .iter()
            .flatten()
            .any(|it| job(it)["commands"]["done"].as_u64() > Some(4))
    });
    // The same gateways without the job: what was sent comes to its end. What was only claimed stays open: nobody asks again.
    write("").unwrap();
    let until_ms = now_ms();
    drop(gateways);
    let _gateways = launches.each_mut().map(Launch::start);
    let store = Store::connect(&store.url(), Options::new()).unwrap();
    let stored = |id: &str| {
        let first_ms = from_ms.saturating_sub(10_000) / PERIOD_MS * PERIOD_MS;
        let fired = (first_ms..=until_ms)
            .step_by(PERIOD_MS as usize)
            .filter(|fire_ms| {
                let key = store_key(id, &format!("job:tick:{}", FireTime(*fire_ms)));
                matches!(store.get(&key, 0).wait().unwrap(), Lookup::Stored(_))
            });
        fired.count() as u64
    };
    let executed = |id: &str| effects.lock().unwrap().get(id).copied().unwrap_or(0);
    until("each execution is stored, as one", || {
        let open = store.unresolved(0, 1_000).wait().unwrap();
        open.iter().all(|key| !key.held) && ids.iter().all(|id| executed(id) <= stored(id))
    });
    for device in devices.into_iter().flatten() {
        device.stop().unwrap();
    }
    let counts = ids.map(|id| (executed(id), stored(id)));
    assert!(
        counts.iter().all(|(executed, stored)| executed == stored),
        "{counts:?}"
    );
    let total: u64 = counts.iter().map(|(executed, _)| executed).sum();
    assert!(total > 20, "{total}");
}

/// Two gateways that know a device wait for it; it comes to one of them, and the other need not wait any more.
#[cfg(any(feature = "mysql", feature = "postgres", feature = "redis"))]
fn a_firing_ends_where_its_devices_executed_it_through_another_gateway(store: SharedStore) {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("gateway.toml");
    std::fs::write(&config, "").unwrap();
    let mut launches = ["a", "b"].map(|name| {
        Launch::new(dir.path().join(name))
            .arg("--store")
            .arg(store.url())
            .arg("--config")
            .arg(config.display().to_string())
    });
    let effects = Effects::default();
    for launch in &mut launches {
        let gateway = launch.start();
        let visitor = device(gateway.listen, dir.path(), "d-0", &effects);
        until("it is known", || visitor.is_online());
        visitor.stop().unwrap();
        gateway.terminate();
        gateway.output();
    }
    let at = FireTime(now_ms());
    let once = format!(
        "[[job]]\nname = \"tick\"\nat = \"{at}\"\nmisfire_after = \"1h\"\ntimeout = \"1h\"\n\
         command = {{ do = \"it\" }}\ndevices = \"d-*\"\n"
    );
    std::fs::write(&config, once).unwrap();
    let gateways = launches.each_mut().map(Launch::start);
    for gateway in &gateways {
        until("the device is waited for", || {
            job(gateway)["last"]["waiting"] == 1
        });
    }
    let visitor = device(gateways[0].listen, dir.path(), "d-0", &effects);
    for (gateway, end) in gateways.iter().zip(["done", "replayed"]) {
        until(end, || job(gateway)["firings"]["succeeded"] == 1);
        assert_eq!(job(gateway)["commands"][end], 1);
    }
    visitor.stop().unwrap();
    assert_eq!(effects.lock().unwrap()["d-0"], 1);
}

/// Nobody knows that it executed anything, however many gateways there are.
#[cfg(any(feature = "mysql", feature = "postgres", feature = "redis"))]
fn a_device_that_is_nowhere_fails_the_firing(store: SharedStore) {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("gateway.toml");
    let nowhere = JOB.replace("d-*", "d-0").replace("\"2s\"", "\"100ms\"");
    std::fs::write(&config, nowhere).unwrap();
    let gateway = Launch::new(dir.path().join("a"))
        .arg("--store")
        .arg(store.url())
        .arg("--config")
        .arg(config.display().to_string())
        .start();
    until("it has ended", || {
        !job(&gateway)["history"].as_array().unwrap().is_empty()
    });
    let first = &job(&gateway)["history"][0];
    let error = "1 timed-out-unsent; no device has ever said HELLO as \"d-0\"";
    assert_eq!(
        (&first["outcome"], &first["error"]),
        (&"failed".into(), &error.into())
    );
}

/// A gateway is killed while its firing waits for a device, and goes on with it afterwards.
#[test]
fn a_killed_gateway_continues_its_firing_and_repeats_it_to_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("gateway.toml");
    std::fs::write(&config, "").unwrap();
    let mut launch = Launch::new(dir.path().join("data"))
        .arg("--config")
        .arg(config.display().to_string());
    let effects = Effects::default();
    let gateway = launch.start();
    let connect = |id| device(gateway.listen, dir.path(), id, &effects);
    let (here, absent) = (connect("d-0"), connect("d-1"));
    until("both are known", || here.is_online() && absent.is_online());
    absent.stop().unwrap();
    // A device is told that it is online before the list has it, and the firing is for those on the list.
    until("both are on the list", || {
        let list = std::fs::read_to_string(dir.path().join("data/devices.jsonl")).unwrap();
        ["d-0", "d-1"].iter().all(|id| list.contains(id))
    });
    gateway.kill();

    let at = FireTime(now_ms());
    let once = format!(
        "[[job]]\nname = \"tick\"\nat = \"{at}\"\nmisfire_after = \"1h\"\ntimeout = \"1h\"\n\
         command = {{ do = \"it\" }}\ndevices = \"d-*\"\n"
    );
    std::fs::write(&config, once).unwrap();
    let gateway = launch.start();
    until("one has it, one is waited for", || {
        let job = job(&gateway);
        job["commands"]["done"] == 1 && job["last"]["waiting"] == 1
    });
    gateway.kill();

    let gateway = launch.start();
    until("the other is waited for again", || {
        let job = job(&gateway);
        job["commands"]["replayed"] == 1 && job["last"]["waiting"] == 1
    });
    let absent = device(gateway.listen, dir.path(), "d-1", &effects);
    until("the firing has succeeded", || {
        job(&gateway)["firings"]["succeeded"] == 1
    });
    here.stop().unwrap();
    absent.stop().unwrap();
    let executed = effects.lock().unwrap();
    assert_eq!((executed["d-0"], executed["d-1"]), (1, 1));
}

#[test]
fn an_open_breaker_is_logged_with_the_trace_that_opened_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("gateway.toml");
    std::fs::write(&config, "[breaker]\nprefixes = [\"d-\"]\ncalls = 2\n").unwrap();
    let mut launch = Launch::new(dir.path().join("data"))
        .arg("--config")
        .arg(config.display().to_string());
    let gateway = launch.start();
    let known = device(gateway.listen, dir.path(), "d-0", &Effects::default());
    until("it is known", || known.is_online());
    known.stop().unwrap();
    let mut client = Client::new(gateway.http);
    let mut post = |key: &str| {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let headers = [
            ("Idempotency-Key", key),
            ("Mainstay-Timeout-Ms", "20"),
            ("traceparent", trace),
        ];
        client
            .request("POST", "/v1/devices/d-0/commands", &headers, b"{}")
            .unwrap()
    };
    let codes = ["k1", "k2", "k3"].map(|key| post(key).code());
    assert_eq!(
        codes,
        ["timed-out-unsent", "timed-out-unsent", "breaker-open"]
    );
    // Lines are written behind the backs of those who log.
    let parts = [
        "the breaker changed its state",
        "group=\"d-\"",
        "to=\"open\"",
        "reason=FailureRate",
        "trace_id=4bf92f3577b34da6a3ce929d0e0e4736",
    ];
    until("it is in the log", || {
        let log = std::fs::read_to_string(launch.log()).unwrap();
        parts.iter().all(|part| log.contains(part))
    });
}

#[test]
fn the_guides_job_is_understood() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/GATEWAY.md");
    let page = std::fs::read_to_string(page).unwrap();
    let blocks: Vec<&str> = page.split("```toml\n").skip(1).collect();
    let block = blocks.iter().filter_map(|block| block.split("```").next());
    let mut with_job = block.filter(|block| block.contains("[[job]]"));
    let block = with_job.next().expect("the guide has a job");
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("gateway.toml");
    std::fs::write(&config, block).unwrap();
    let gateway = Launch::new(dir.path().join("data"))
        .arg("--config")
        .arg(config.display().to_string())
        .start();
    assert_eq!(job(&gateway)["state"], "scheduled");
}

#[test]
fn errors_of_a_job_name_the_file_the_line_and_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("gateway.toml");
    std::fs::write(
        &config,
        "shards = 1\n[[job]]\nname = \"x\"\ncron = \"0 0 30 2 *\"\n",
    )
    .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_mainstay"))
        .args(["gateway", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("gateway.toml, line 4, key `cron`:"), "{text}");
}
