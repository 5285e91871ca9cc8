//! Two schedulers on one store, killed at random instants: no firing runs twice, and every firing has a verdict.

use std::collections::HashMap;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use idem_store::{Lookup, Options, Store};
use rustix::process::Signal;
use scheduler::{FireTime, FiringId, Once, StoreOnce};

use super::daemon::{Daemon, PATIENCE, write};
use crate::support::http::Client;
use crate::support::random::{Random, number_from_env};
use crate::support::servers::{SharedStore, on_each_server};

const PERIOD_MS: u64 = 50;
const JOBS: &str = "[[job]]\nname = \"job\"\nevery = \"50ms\"\nonce = true\noverlap = \"allow\"\n\
                    misfire = \"all:5\"\nmisfire_after = \"200ms\"\n\
                    run = [\"sh\", \"-c\", \"echo $MAINSTAY_FIRE_TIME >> fired.log\"]\n";

on_each_server!(killed_schedulers_run_no_firing_twice_and_lose_none);

fn killed_schedulers_run_no_firing_twice_and_lose_none(store: SharedStore) {
    let firings = number_from_env("MAINSTAY_FIRINGS", 150);
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), JOBS);
    let url = store.url();
    let args = ["--store", &url, "--lease", "500ms"];
    let mut random = Random::new(number_from_env("MAINSTAY_SEED_FIRST", 1));
    let mut daemons = [0, 1].map(|_| Some(Daemon::start(dir.path(), &args)));
    // From here on each firing counts.
    let from_ms = now_ms();
    let mut kills = 0;
    while now_ms() < from_ms + firings * PERIOD_MS {
        thread::sleep(Duration::from_millis(random.within(20..400)));
        let place = &mut daemons[random.within(0..2) as usize];
        match place.take() {
            Some(daemon) => {
                daemon.kill();
                kills += 1;
            }
            None => *place = Some(Daemon::start(dir.path(), &args)),
        }
    }
    let until_ms = now_ms();
    for place in &mut daemons {
        place.get_or_insert_with(|| Daemon::start(dir.path(), &args));
    }
    let seen = Seen {
        store: Store::connect(&url, Options::new()).unwrap(),
        fired: HashMap::new(),
    };
    seen.wait_until_settled(until_ms);
    for daemon in daemons.into_iter().flatten() {
        assert!(daemon.stop().success());
    }
    let counts = seen.with_log(dir.path()).judge(from_ms, until_ms);
    let total: u64 = counts.values().sum();
    assert!(total >= firings && kills > 5, "{kills} kills, {counts:?}");
    assert!(counts["succeeded"] > 0, "{counts:?}");
}

pub(super) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis() as u64
}

#[cfg(feature = "redis")]
#[test]
fn a_reload_while_the_store_is_away_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let job = |name: &str, every: &str| {
        let run = "run = [\"true\"]";
        format!("[[job]]\nname = \"{name}\"\nevery = \"{every}\"\n{run}\n")
    };
    let jobs = |every: &str| {
        let once = "once = true\n";
        job("plain", every) + &job("changed", every) + once
    };
    write(dir.path(), &jobs("1h"));
    let store = SharedStore::redis();
    let daemon = Daemon::start(dir.path(), &["--store", &store.url()]);
    let mut client = Client::new(daemon.http);
    let mut ids = || {
        let answer = client.get("/v1/jobs").unwrap().json();
        let jobs = answer["jobs"].as_array().unwrap().clone();
        let id = |job: &serde_json::Value| (job["name"].to_string(), job["id"].to_string());
        jobs.iter().map(id).collect::<Vec<_>>()
    };
    let before = ids();
    assert_eq!(before.len(), 2);
    drop(store);
    write(dir.path(), &jobs("2h"));
    daemon.signal(Signal::HUP);
    let failed = daemon.event("reload-failed");
    let text = failed["text"].as_str().unwrap();
    assert!(text.contains("job \"changed\": the store"), "{text}");
    assert_eq!(ids(), before);
}

#[cfg(feature = "redis")]
#[test]
fn a_store_that_does_not_answer_holds_up_no_signal() {
    let dir = tempfile::tempdir().unwrap();
    let job = "[[job]]\nname = \"x\"\nevery = \"1h\"\nonce = true\nrun = [\"true\"]\n";
    write(dir.path(), job);
    let store = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}/", store.local_addr().unwrap());
    let args = ["--config", "jobs.toml", "--http", "127.0.0.1:0", "--store"];
    let child = super::daemon::command(dir.path())
        .args(args)
        .arg(&url)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let _connected = store.accept().unwrap();
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("ended before it was ready"), "{text}");
}

struct Seen {
    store: Store,
    /// How often each firing wrote its line.
    fired: HashMap<u64, u32>,
}

impl Seen {
    /// Waits until a later firing than all that count is settled and none is open or in doubt.
    fn wait_until_settled(&self, until_ms: u64) {
        let once = StoreOnce::new(self.store.clone());
        let started = Instant::now();
        loop {
            let reached = once.recall("job", 0).unwrap();
            let open = self.store.unresolved(0, 1_000).wait().unwrap();
            let old = open
                .iter()
                .filter_map(|key| FiringId::parse(str::from_utf8(&key.key).ok()?));
            let is_open = old.into_iter().any(|id| id.fire_ms <= until_ms);
            if reached > Some(until_ms) && !is_open {
                return;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "{reached:?} of {until_ms}, {open:?}"
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn with_log(mut self, dir: &Path) -> Self {
        let log = std::fs::read_to_string(dir.join("fired.log")).unwrap();
        for line in log.lines() {
            *self
                .fired
                .entry(FireTime::parse(line).unwrap().0)
                .or_default() += 1;
        }
        self
    }

    /// Counts verdicts; panics where there is none, or where it does not go with what ran.
    fn judge(&self, from_ms: u64, until_ms: u64) -> HashMap<String, u64> {
        let twice: Vec<_> = self.fired.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "ran twice: {twice:?}");
        let mut counts = HashMap::new();
        let first_ms = (from_ms / PERIOD_MS + 1) * PERIOD_MS;
        for fire_ms in (first_ms..=until_ms).step_by(PERIOD_MS as usize) {
            let id = FiringId {
                job: "job".to_owned(),
                fire_ms,
                shard: 0,
            };
            let key = id.to_string();
            let verdict = match self.store.get(key.as_bytes(), 0).wait().unwrap() {
                Lookup::Stored(stored) => String::from_utf8(stored.outcome().to_vec()).unwrap(),
                other => panic!("{id} has no verdict: {other:?}"),
            };
            let ran = self.fired.contains_key(&fire_ms);
            match verdict.as_str() {
                "succeeded" => assert!(ran, "{id} did not run"),
                "misfired" => assert!(!ran, "{id} ran"),
                // Its runner died before, while or after it ran.
                "in-doubt" => {}
                other => panic!("{id}: {other}"),
            }
            *counts.entry(verdict).or_default() += 1;
        }
        counts
    }
}
