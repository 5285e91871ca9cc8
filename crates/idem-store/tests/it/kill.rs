//! kill -9 of a real process under load: what it acknowledged is there, tokens grow.
//!
//! The child is this test binary again. `MAINSTAY_KILLS` sets the number of cycles (default 20).

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use idem_store::{Begin, Begun, Fingerprint, Lookup, Options, Store};

use crate::progress::Progress;

const CHILD: &str = "MAINSTAY_KILL_CHILD";
const NOW: u64 = 1_700_000_000_000;

fn options() -> Options {
    Options::new()
        .segment_bytes_max(256 << 10)
        .outcome_bytes_max(16 << 10)
        .batch_bytes_max(128 << 10)
        .index_log_bytes(16 << 10)
}

/// Works until it is killed, and tells of each acknowledgement; does nothing in a normal run.
#[test]
fn child() {
    let Ok(setup) = std::env::var(CHILD) else {
        return;
    };
    let (cycle, dir) = setup.split_once(':').expect("cycle:dir");
    let store = Store::open(dir, options()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let store = &store;
            scope.spawn(move || {
                for n in 0u64.. {
                    let key = format!("{cycle}-{thread}-{n}");
                    let begin = Begin::new(key.as_bytes(), Fingerprint([1; 32]), 1_000, NOW);
                    let begun = match store.begin(&begin.declare(b"memo")).wait() {
                        Err(error) if error.is_busy() => continue,
                        begun => begun.unwrap(),
                    };
                    let permit = begun.into_fresh().expect("a new key");
                    tell(&format!("begun {key} {}\n", permit.token()));
                    if n % 4 != 0 {
                        let outcome = key.repeat(1 + n as usize % 50);
                        store
                            .complete(permit, outcome.as_bytes(), 1 << 40, NOW)
                            .wait()
                            .unwrap();
                        tell(&format!("completed {key} 0\n"));
                    } else {
                        std::mem::forget(permit);
                    }
                }
            });
        }
    });
}

fn tell(line: &str) {
    // One write a line, so that a kill leaves whole lines but the last.
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    std::io::stdout().flush().unwrap();
}

#[test]
fn nothing_acknowledged_is_lost_to_kill_9() {
    let cycles: u64 = std::env::var("MAINSTAY_KILLS").map_or(20, |n| n.parse().expect("a number"));
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeMap::new();
    let mut token_max = 0;
    let mut progress = Progress::of(cycles, "kills");
    for cycle in 0..cycles {
        let acks = 50 + cycle * 97 % 700;
        run_and_kill(dir.path(), cycle, acks, &mut acknowledged, &mut token_max);
        let report = idem_store::verify(dir.path()).unwrap();
        assert!(report.ok, "{report:?}");
        check(dir.path(), &acknowledged, &mut token_max);
        progress.at(cycle + 1);
    }
    let keys = acknowledged.len();
    println!("{cycles} kills, {keys} keys acknowledged, none lost");
    assert!(cycles == 0 || acknowledged.values().any(|completed| *completed));
}

fn run_and_kill(
    dir: &Path,
    cycle: u64,
    acks: u64,
    acknowledged: &mut BTreeMap<String, bool>,
    token_max: &mut u64,
) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::child", "--nocapture"])
        .env(CHILD, format!("{cycle}:{}", dir.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let (mut seen, mut tokens) = (0, Vec::new());
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).unwrap() == 0 || !line.ends_with('\n') {
            break;
        }
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["begun", key, token] => {
                acknowledged.insert(key.to_owned(), false);
                tokens.push(token.parse::<u64>().unwrap());
            }
            ["completed", key, _] => {
                acknowledged.insert(key.to_owned(), true);
            }
            _ => continue,
        }
        seen += 1;
        if seen == acks {
            // SIGKILL; what is still in the pipe was acknowledged too.
            child.kill().unwrap();
        }
    }
    assert!(seen >= acks, "the child ended by itself");
    child.wait().unwrap();
    assert!(
        tokens.iter().all(|token| *token > *token_max),
        "a token came back"
    );
    *token_max = tokens.into_iter().max().unwrap();
}

fn check(dir: &Path, acknowledged: &BTreeMap<String, bool>, token_max: &mut u64) {
    let store = Store::open(dir, options()).unwrap();
    for (key, completed) in acknowledged {
        match store.get(key.as_bytes(), NOW).wait().unwrap() {
            Lookup::Stored(stored) => {
                assert!(stored.outcome().starts_with(key.as_bytes()));
            }
            Lookup::InDoubt(doubt) => {
                assert!(!completed, "the outcome of {key} is lost");
                assert_eq!(doubt.memo, b"memo");
            }
            other => panic!("{key} was acknowledged and is {other:?}"),
        }
    }
    let begun = store.begin(&Begin::new(b"probe", Fingerprint([1; 32]), 1, NOW));
    let Begun::Fresh(permit) = begun.wait().unwrap() else {
        panic!("the probe is released by the next opening");
    };
    assert!(permit.token() > *token_max);
    *token_max = permit.token();
    std::mem::forget(permit);
}
