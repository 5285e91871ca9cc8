//! Servers that are set up badly, die, hang, or forget; connections that lose an answer.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use idem_store::{Begin, Begun, Durability, Fingerprint, Options, Store};

use super::OneServer;
use super::server::{Server, url_in};
use crate::contract::{DAY, LEASE, error, fresh, pass_on_server, replayed, request};
use crate::proxy::{Mood, Proxy};

fn connect(url: &str) -> Store {
    Store::connect(url, Options::new()).expect("connects")
}

fn begin(key: &[u8], lease_ms: u64) -> Begin<'_> {
    Begin::new(key, Fingerprint([1; 32]), lease_ms, 0)
}

#[test]
fn a_server_that_may_lose_what_it_acknowledges_is_refused_unless_that_is_asked_for() {
    for (settings, word) in [
        (vec!["--appendonly", "no"], "appendonly is no"),
        (
            vec!["--appendonly", "yes", "--appendfsync", "everysec"],
            "appendfsync is everysec",
        ),
        (
            vec![
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                "--maxmemory-policy",
                "allkeys-lru",
            ],
            "maxmemory-policy is allkeys-lru",
        ),
        (
            vec![
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                "--no-appendfsync-on-rewrite",
                "yes",
            ],
            "no-appendfsync-on-rewrite is yes",
        ),
    ] {
        let server = Server::with(&settings);
        let refused = error(Store::connect(&server.url(""), Options::new()));
        assert!(refused.is_refused(), "{refused}");
        assert!(refused.to_string().contains(word), "{refused}");
        fresh(
            &connect(&server.url("?durability=relaxed")),
            begin(b"k", LEASE),
        );
        let options = Options::new().durability(Durability::None);
        let relaxed = Store::connect(&server.url(""), options).unwrap();
        fresh(&relaxed, begin(b"k", LEASE));
    }
}

/// It takes no writes while it cannot save, as on a full disk: outcomes wait for that to pass.
#[test]
fn a_server_that_cannot_save_for_a_while_is_waited_for() {
    let server = Server::start();
    let store = connect(&server.url("?timeout_ms=30000"));
    let permit = fresh(&store, begin(b"k", LEASE).declare(b""));
    // A directory in the place of its snapshot.
    let snapshot = server.socket().with_file_name("dump.rdb");
    std::fs::create_dir(&snapshot).unwrap();
    let rules = "CONFIG SET save \"3600 1000000\"";
    assert!(server.ask(rules).starts_with("+OK"));
    let save = |status: &str| {
        while !server.ask("BGSAVE").starts_with("+") {}
        let saved = |info: &str| info.contains(&format!("rdb_last_bgsave_status:{status}"));
        while !saved(&server.ask("INFO persistence")) {}
    };
    save("err");
    let completed = store.complete(permit, b"x", DAY, 0);
    let refused = || server.ask("INFO errorstats").contains("errorstat_MISCONF");
    while !refused() {}
    std::fs::remove_dir(&snapshot).unwrap();
    save("ok");
    completed.wait().unwrap();
    assert_eq!(replayed(&store, begin(b"k", LEASE)).outcome(), b"x");
}

#[test]
fn a_server_that_is_not_there_is_unavailable() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("redis+unix://{}/none?timeout_ms=200", dir.path().display());
    assert!(error(Store::connect(&url, Options::new())).is_unavailable());

    let server = Server::start();
    let store = connect(&server.url("?timeout_ms=2000"));
    let permit = fresh(&store, begin(b"k", LEASE).declare(b""));
    server.kill();
    let (got, begun) = (store.get(b"k", 0), store.begin(&begin(b"x", LEASE)));
    let listed = store.unresolved(0, 9);
    assert!(error(got.wait()).is_unavailable());
    assert!(error(begun.wait()).is_unavailable());
    assert!(error(listed.wait()).is_unavailable());
    assert_eq!(store.stats().unavailable, 3);
    server.restart();
    store.complete(permit, b"x", DAY, 0).wait().unwrap();
    assert_eq!(replayed(&store, begin(b"k", LEASE)).outcome(), b"x");
    assert!(store.stats().reconnects > 0);
}

#[test]
fn scripts_that_the_server_forgot_are_sent_again() {
    let server = Server::start();
    let store = connect(&server.url(""));
    assert!(server.ask("SCRIPT FLUSH").starts_with("+OK"));
    let permit = fresh(&store, begin(b"k", LEASE).declare(b""));
    assert!(server.ask("SCRIPT FLUSH").starts_with("+OK"));
    store.complete(permit, b"x", DAY, 0).wait().unwrap();
    assert_eq!(replayed(&store, begin(b"k", LEASE)).outcome(), b"x");
}

/// The outcome of a `begin` is unknown: whoever comes next is never told that the key is new while
/// the claim may stand.
#[test]
fn a_begin_that_may_have_claimed_blocks_its_key_for_one_lease_only() {
    let server = Server::start();
    let proxy = Proxy::start(&server.socket());
    let store = connect(&url_in(proxy.dir(), "?timeout_ms=1000"));
    let direct = connect(&server.url(""));
    proxy.set(Mood::LoseAnswersAfter(0));
    // Long enough that it has not ended when this machine has been busy with something else.
    let lease_ms = 6_000;
    let plain = store.begin(&begin(b"plain", lease_ms));
    let declared = store.begin(&begin(b"declared", lease_ms).declare(b"m"));
    assert!(error(plain.wait()).is_unavailable());
    assert!(error(declared.wait()).is_unavailable());
    for key in [&b"plain"[..], b"declared"] {
        let begun = direct.begin(&begin(key, LEASE)).wait().unwrap();
        assert!(matches!(begun, Begun::InFlight { .. }), "{begun:?}");
    }
    pass_on_server(lease_ms);
    drop(fresh(&direct, begin(b"plain", LEASE)));
    let begun = direct.begin(&begin(b"declared", LEASE)).wait().unwrap();
    assert!(matches!(begun, Begun::InDoubt(_)), "{begun:?}");
}

#[test]
fn kill_9_of_the_server_under_load_loses_no_outcome_and_repeats_no_effect() {
    const CALLERS: u64 = 16;
    const KILLS: u64 = 5;
    let server = Server::start();
    let stores = [0; 2].map(|_| connect(&server.url("?timeout_ms=20000")));
    let stopping = AtomicBool::new(false);
    let next_key = AtomicU64::new(0);
    let effects = Mutex::new(HashMap::<u64, u32>::new());
    let acknowledged = Mutex::new(HashMap::<u64, Vec<u8>>::new());
    let call = |caller: u64| {
        let store = &stores[(caller % 2) as usize];
        while !stopping.load(Ordering::Relaxed) {
            // Each key is worked on by two callers at about the same time.
            let number = next_key.fetch_add(1, Ordering::Relaxed) / 2;
            let key = number.to_be_bytes();
            match store
                .begin(&begin(&key, LEASE).declare(b"m"))
                .wait()
                .unwrap()
            {
                Begun::Fresh(permit) => {
                    *effects.lock().unwrap().entry(number).or_default() += 1;
                    let outcome = permit.token().to_be_bytes();
                    store.complete(permit, &outcome, DAY, 0).wait().unwrap();
                    acknowledged
                        .lock()
                        .unwrap()
                        .insert(number, outcome.to_vec());
                }
                Begun::Replay(stored) => {
                    let outcome = stored.into_outcome();
                    acknowledged.lock().unwrap().insert(number, outcome);
                }
                Begun::InFlight { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    };
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            scope.spawn(move || call(caller));
        }
        for kill in 1..=KILLS {
            // Under load: something was acknowledged since the last time.
            let before = acknowledged.lock().unwrap().len();
            while acknowledged.lock().unwrap().len() < before + 50 * kill as usize {
                std::thread::yield_now();
            }
            server.kill_and_restart();
        }
        stopping.store(true, Ordering::Relaxed);
    });
    // One of them may sleep through a kill between two attempts.
    let reconnects: u64 = stores.iter().map(|store| store.stats().reconnects).sum();
    assert!(reconnects >= KILLS, "{reconnects}");
    let effects = effects.into_inner().unwrap();
    assert!(effects.values().all(|&count| count == 1));
    for (number, outcome) in acknowledged.into_inner().unwrap() {
        let key = number.to_be_bytes();
        let stored = replayed(&stores[0], begin(&key, LEASE));
        assert_eq!(stored.outcome(), outcome, "key {number}");
    }
}

/// Operations that go out together share a script: what spoils it for one must not for the others.
#[test]
fn what_is_refused_to_one_is_not_refused_to_those_beside_it() {
    let rig = OneServer::new();
    let store = connect(&rig.0.url(""));
    let done = fresh(&store, request(&rig, b"done"));
    store.complete(done, b"x", DAY, 0).wait().unwrap();
    let held = fresh(&store, request(&rig, b"held").declare(b""));
    let gone = fresh(&store, request(&rig, b"gone"));
    let list = "LPUSH {ms:default}k:list hello";
    assert!(rig.0.ask(list).starts_with(":1"));
    // While the server is busy everything after the first operation becomes one batch.
    rig.0.pause();
    let first = store.get(b"first", 0);
    let begin = |key: &[u8]| store.begin(&request(&rig, key));
    let begun = [&b"new"[..], b"list", b"done", b"held"].map(begin);
    let ended = (
        store.complete(held, b"y", DAY, 0),
        store.fail(gone, idem_store::Failure::Retryable, 0),
    );
    rig.0.resume();
    first.wait().unwrap();
    let [new, list, done, held] = begun.map(|begun| begun.wait());
    assert!(matches!(new.unwrap(), Begun::Fresh(_)));
    assert!(error(list).is_damaged());
    assert!(matches!(done.unwrap(), Begun::Replay(_)));
    // Its outcome was on the way.
    let held = held.unwrap();
    assert!(matches!(held, Begun::InFlight { .. } | Begun::Replay(_)));
    ended.0.wait().unwrap();
    ended.1.wait().unwrap();

    assert!(rig.0.ask("CONFIG SET maxmemory 1").starts_with("+OK"));
    rig.0.pause();
    let first = store.get(b"first", 0);
    let begun = [&b"newer"[..], b"done", b"held"].map(begin);
    rig.0.resume();
    first.wait().unwrap();
    let [newer, done, held] = begun.map(|begun| begun.wait());
    assert!(error(newer).is_full());
    assert!(matches!(done.unwrap(), Begun::Replay(_)));
    assert!(matches!(held.unwrap(), Begun::Replay(_)));
}

#[test]
fn short_memory_refuses_new_keys_and_takes_outcomes() {
    let rig = OneServer::new();
    let store = connect(&rig.0.url(""));
    let held = fresh(&store, request(&rig, b"held").declare(b""));
    let done = fresh(&store, request(&rig, b"done"));
    store.complete(done, b"x", DAY, 0).wait().unwrap();
    assert!(rig.0.ask("CONFIG SET maxmemory 1").starts_with("+OK"));
    let full = error(store.begin(&request(&rig, b"new")).wait());
    assert!(full.is_full(), "{full}");
    assert_eq!(replayed(&store, request(&rig, b"done")).outcome(), b"x");
    store.complete(held, b"y", DAY, 0).wait().unwrap();
    assert_eq!(replayed(&store, request(&rig, b"held")).outcome(), b"y");
}

#[test]
fn short_memory_keeps_nobody_from_coming_back() {
    let rig = OneServer::new();
    let store = connect(&rig.0.url(""));
    let held = fresh(&store, request(&rig, b"held").declare(b""));
    assert!(rig.0.ask("CONFIG SET maxmemory 1").starts_with("+OK"));
    assert!(rig.0.ask("CLIENT KILL TYPE normal").starts_with(":1"));
    store.complete(held, b"x", DAY, 0).wait().unwrap();
    assert_eq!(replayed(&store, request(&rig, b"held")).outcome(), b"x");
    assert!(store.stats().reconnects > 0);
}

/// What breaks off while a server is asked whether it keeps its promises says nothing about them.
#[test]
fn a_connection_that_is_lost_while_it_is_checked_is_no_refusal() {
    let server = Server::start();
    let proxy = Proxy::start(&server.socket());
    let url = url_in(proxy.dir(), "?timeout_ms=20000");
    for answer in 0.. {
        proxy.set(Mood::LoseAnswerAfter(answer));
        let connected = Store::connect(&url, Options::new());
        if proxy.lost() <= answer {
            connected.unwrap();
            assert!(answer > 6, "there were too few answers to lose");
            return;
        }
        let error = error(connected);
        assert!(error.is_unavailable(), "answer {answer}: {error}");
    }
}

#[test]
fn a_listing_is_as_long_as_one_likes_and_leaves_out_what_cannot_be_read() {
    let server = Server::start();
    let store = connect(&server.url(""));
    let _held = fresh(&store, begin(b"k", LEASE).declare(b""));
    assert!(
        server
            .ask("HSET {ms:default}d other hello")
            .starts_with(":1")
    );
    let listed = store.unresolved(0, usize::MAX).wait().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].key, b"k");
    assert_eq!(store.stats().reconnects, 0);
    assert!(error(store.begin(&begin(b"other", LEASE)).wait()).is_damaged());
}

#[test]
fn what_others_wrote_under_the_stores_keys_is_reported() {
    let server = Server::start();
    let store = connect(&server.url(""));
    assert!(
        server
            .ask("SET {ms:default}k:text hello")
            .starts_with("+OK")
    );
    assert!(
        server
            .ask("LPUSH {ms:default}k:list hello")
            .starts_with(":1")
    );
    for key in [&b"text"[..], b"list"] {
        let damaged = error(store.begin(&begin(key, LEASE)).wait());
        assert!(damaged.is_damaged(), "{damaged}");
        assert!(error(store.get(key, 0).wait()).is_damaged());
    }
    let newer = format!("SET {{ms:default}}k:newer {}", "\u{3}".repeat(90));
    assert!(server.ask(&newer).starts_with("+OK"));
    assert!(error(store.begin(&begin(b"newer", LEASE)).wait()).is_version());
}

#[test]
fn a_newer_or_differently_spread_store_is_not_opened() {
    let server = Server::start();
    connect(&server.url("?name=a")).close().unwrap();
    assert!(server.ask("HSET {ms:a}meta version 2").starts_with(":0"));
    let newer = error(Store::connect(&server.url("?name=a"), Options::new()));
    assert!(newer.is_version(), "{newer}");
    assert!(server.ask("HSET {ms:b}meta shards 64").starts_with(":1"));
    let spread = error(Store::connect(&server.url("?name=b"), Options::new()));
    assert!(spread.is_options(), "{spread}");
}

#[test]
fn stores_of_other_names_know_nothing_of_each_other() {
    let server = Server::start();
    let (a, b) = (
        connect(&server.url("?name=a")),
        connect(&server.url("?name=b")),
    );
    let _a = fresh(&a, begin(b"k", LEASE).declare(b""));
    assert!(b.unresolved(0, 9).wait().unwrap().is_empty());
    let _b = fresh(&b, begin(b"k", LEASE));
}

/// The records of docs/FORMAT.md, byte by byte.
#[test]
fn records_are_those_of_the_format() {
    let server = Server::start();
    let store = connect(&server.url(""));
    let permit = fresh(&store, begin(b"k", LEASE).declare(b"memo"));
    let token = permit.token().to_be_bytes();
    let claim = server.ask_bytes("HGET {ms:default}d k");
    assert_eq!(claim.len(), 75 + 4);
    assert_eq!(&claim[..3], [1, 1, 0]);
    assert_eq!(&claim[3..35], [1; 32]);
    assert_eq!(&claim[35..43], token);
    let number = |at: usize| u64::from_be_bytes(claim[at..at + 8].try_into().unwrap());
    assert_eq!(number(43) - number(51), LEASE, "lease end and begin");
    assert_eq!(&claim[75..], b"memo");
    let sequence = server.ask_bytes("GET {ms:default}s");
    assert_eq!(sequence, permit.token().to_string().as_bytes());
    store.declare(&permit, b"newer").wait().unwrap();
    let again = server.ask_bytes("HGET {ms:default}d k");
    assert_eq!(again[0], 2);
    assert_eq!(again[1..75], claim[1..75]);
    assert_eq!(again[75..83], 1_u64.to_be_bytes());
    assert_eq!(&again[83..], b"newer");
    store.complete(permit, b"out", DAY, 0).wait().unwrap();
    let outcome = server.ask_bytes("GET {ms:default}k:k");
    assert_eq!(&outcome[..3], [1, 2, 0]);
    assert_eq!(&outcome[3..35], [1; 32]);
    assert_eq!(&outcome[35..43], token);
    assert_eq!(&outcome[51..], b"out");
    assert!(server.ask("HLEN {ms:default}d").starts_with(":0"));
    assert_eq!(server.ask_bytes("HGET {ms:default}meta version"), b"1");
    assert_eq!(server.ask_bytes("HGET {ms:default}meta shards"), b"1");
}
