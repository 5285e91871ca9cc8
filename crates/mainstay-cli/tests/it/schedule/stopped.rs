//! A scheduler that is stopped (SIGSTOP) for longer than its claims last.

use std::thread;
use std::time::{Duration, Instant};

use idem_store::{Options, Store};
use rustix::process::Signal;
use scheduler::{FireTime, FiringId, Resolution, StoreOnce};

use super::crash::now_ms;
use super::daemon::{Daemon, PATIENCE, write};
use crate::support::servers::{SharedStore, on_each_server};

on_each_server!(a_scheduler_that_was_stopped_for_longer_than_its_lease_asks_before_it_tries_again);

fn a_scheduler_that_was_stopped_for_longer_than_its_lease_asks_before_it_tries_again(
    store: SharedStore,
) {
    let dir = tempfile::tempdir().unwrap();
    let at_ms = now_ms() + 1_000;
    let at = FireTime(at_ms);
    let jobs = format!(
        "[[job]]\nname = \"job\"\nat = \"{at}\"\nonce = true\nin_doubt = \"ask\"\n\
         retry = {{ attempts = 2, base = \"4s\", cap = \"4s\" }}\n\
         run = [\"sh\", \"-c\", \"echo $MAINSTAY_FIRE_TIME >> fired.log; exit 1\"]\n"
    );
    write(dir.path(), &jobs);
    let url = store.url();
    let daemon = Daemon::start(dir.path(), &["--store", &url, "--lease", "500ms"]);
    let log = dir.path().join("fired.log");
    while !std::fs::read_to_string(&log).is_ok_and(|text| text.ends_with('\n')) {
        thread::yield_now();
    }
    daemon.signal(Signal::STOP);
    let once = StoreOnce::new(Store::connect(&url, Options::new()).unwrap());
    let id = FiringId {
        job: "job".to_owned(),
        fire_ms: at_ms,
        shard: 0,
    };
    // Somebody looks into it once its lease has passed.
    let started = Instant::now();
    while !once.resolve(&id, Resolution::Skip).unwrap() {
        assert!(started.elapsed() < PATIENCE, "never in doubt");
        thread::sleep(Duration::from_millis(20));
    }
    daemon.signal(Signal::CONT);
    assert_eq!(daemon.firing("job")["outcome"], "elsewhere");
    let fired = std::fs::read_to_string(&log).unwrap();
    assert_eq!(fired.lines().count(), 1, "{fired}");
    assert!(daemon.stop().success());
}
