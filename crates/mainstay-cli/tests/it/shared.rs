//! Two gateways on one shared store: a key runs once, whichever of them is asked.
//!
//! `MAINSTAY_KEYS` says how many keys each caller sends to both (default 8).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use gateway::device::{Answer, Device};

use crate::support::http::{Client, Response};
use crate::support::process::{GatewayProcess, Launch};
use crate::support::random::number_from_env;
use crate::support::servers::{SharedStore, on_each_server};

/// Only a gateway that hangs takes so long.
const PATIENCE: Duration = Duration::from_secs(120);

const DEVICE: &str = "pump-7";

const CALLERS: u64 = 16;

struct World {
    dir: tempfile::TempDir,
    store: SharedStore,
}

impl World {
    fn new(store: SharedStore) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            store,
        }
    }

    fn gateway(&self, name: &str) -> GatewayProcess {
        let config = self.dir.path().join("gateway.toml");
        std::fs::write(&config, "[commands]\nlease_ms = 500\n").unwrap();
        Launch::new(self.dir.path().join(name))
            .arg("--store")
            .arg(self.store.url())
            .arg("--config")
            .arg(config.display().to_string())
            .start()
    }
}

/// How often each key was executed.
type Effects = Arc<Mutex<HashMap<String, u32>>>;

fn device(gateway: SocketAddr, journal: &Path, effects: &Effects, pause: Duration) -> Device {
    let effects = Arc::clone(effects);
    let started = Instant::now();
    let device = loop {
        let effects = Arc::clone(&effects);
        let started_device = Device::builder(gateway, DEVICE)
            .interval_ms(200)
            .reconnect_cap_ms(200)
            .journal(journal)
            .start(move |command| {
                let key = String::from_utf8(command.payload.to_vec()).expect("JSON");
                *effects.lock().unwrap().entry(key.clone()).or_default() += 1;
                thread::sleep(pause);
                Answer::json(format!("{{\"did\":{key}}}"))
            });
        match started_device {
            Ok(device) => break device,
            // A gateway that is being started holds a copy of the journal's descriptor for a moment.
            Err(error) => assert!(started.elapsed() < PATIENCE, "{error}"),
        }
        thread::sleep(Duration::from_millis(1));
    };
    let started = Instant::now();
    while !device.is_online() {
        assert!(started.elapsed() < PATIENCE, "the device is not let in");
        thread::sleep(Duration::from_millis(1));
    }
    device
}

/// Asks until it is answered with 200; counts what else was heard.
fn ask(gateway: SocketAddr, key: &str, heard: &Mutex<HashMap<String, u32>>) -> Response {
    let mut client = Client::new(gateway);
    let started = Instant::now();
    loop {
        let answer = client.command(DEVICE, key, 60_000, &format!("\"{key}\""));
        let text = match answer {
            Ok(response) if response.status == 200 => return response,
            Ok(response) => {
                let code = response.code();
                *heard.lock().unwrap().entry(code).or_default() += 1;
                format!("{} {}", response.status, response.text())
            }
            Err(error) => error.to_string(),
        };
        assert!(started.elapsed() < PATIENCE, "{key}: {text}");
        thread::sleep(Duration::from_millis(3));
    }
}

on_each_server!(
    a_key_that_is_sent_to_both_gateways_runs_once_and_both_say_the_same,
    a_device_that_goes_to_the_other_gateway_takes_its_result_along,
);

fn a_key_that_is_sent_to_both_gateways_runs_once_and_both_say_the_same(store: SharedStore) {
    let world = World::new(store);
    let (a, b) = (world.gateway("a"), world.gateway("b"));
    let effects = Effects::default();
    let journal = world.dir.path().join("journal");
    let _device = device(a.listen, &journal, &effects, Duration::from_millis(1));
    let heard = Mutex::default();
    let keys = number_from_env("MAINSTAY_KEYS", 8);
    thread::scope(|scope| {
        for caller in 0..CALLERS {
            let heard = &heard;
            scope.spawn(move || {
                for number in 0..keys {
                    let key = format!("key-{caller}-{number}");
                    let (here, there) = thread::scope(|twins| {
                        let there = twins.spawn(|| ask(b.http, &key, heard));
                        (ask(a.http, &key, heard), there.join().unwrap())
                    });
                    assert_eq!(here.body, there.body);
                    assert!(there.is_replayed(), "only A has the device");
                }
            });
        }
    });
    let effects = effects.lock().unwrap();
    assert_eq!(effects.len() as u64, CALLERS * keys);
    assert!(effects.values().all(|&count| count == 1), "{effects:?}");
    let heard = heard.into_inner().unwrap();
    // The last one when the store's server is slow.
    let expected = ["not-here", "in-progress", "store-unavailable"];
    let known = |code: &String| expected.contains(&code.as_str());
    assert!(heard.keys().all(known), "{heard:?}");
    assert!(heard.contains_key("not-here"), "{heard:?}");
}

fn a_device_that_goes_to_the_other_gateway_takes_its_result_along(store: SharedStore) {
    let world = World::new(store);
    let (a, b) = (world.gateway("a"), world.gateway("b"));
    let effects = Effects::default();
    let journal = world.dir.path().join("journal");
    // It is inside the command while its gateway dies.
    let slow = Duration::from_millis(300);
    let pump = device(a.listen, &journal, &effects, slow);
    let (asked, waiting) = mpsc::channel();
    let http = a.http;
    let caller = thread::spawn(move || {
        asked.send(()).unwrap();
        Client::new(http).command(DEVICE, "k", 30_000, "\"k\"")
    });
    waiting.recv().unwrap();
    let started = Instant::now();
    while effects.lock().unwrap().is_empty() {
        assert!(started.elapsed() < PATIENCE, "the command does not arrive");
        thread::sleep(Duration::from_millis(1));
    }
    a.kill();
    assert!(caller.join().unwrap().is_err(), "its gateway is gone");
    pump.stop().unwrap();
    let _pump = device(b.listen, &journal, &effects, slow);
    let heard = Mutex::default();
    let answer = ask(b.http, "k", &heard);
    assert_eq!(answer.text(), "{\"did\":\"k\"}");
    assert_eq!(effects.lock().unwrap()["\"k\""], 1);
}
