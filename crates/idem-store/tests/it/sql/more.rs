//! What SQL stores promise beyond the suite.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use idem_store::{Begin, Begun, Fingerprint, Lookup, Options, Store};

use super::Tables;
use super::server::{Kind, Server};
use crate::contract::{DAY, Rig, error, fresh, in_doubt, replayed, request};

/// Runs every function here as a test of its own.
macro_rules! suite {
    ($kind:expr) => {
        $crate::sql::more::suite!(@ $kind, [
            callers_on_new_keys_of_several_handles_all_get_theirs,
            what_is_asked_of_a_key_is_done_in_its_order,
            what_the_database_does_not_hold_is_refused_at_once,
            acknowledged_is_kept_over_kill_9_under_load,
            while_the_server_is_gone_errors_come_in_time,
            expired_rows_are_swept_and_the_others_stay,
            a_sweep_goes_on_beyond_one_batch,
            a_sweep_reads_only_what_expired,
            tables_of_a_newer_program_are_left_alone,
            tables_of_older_versions_get_what_they_lack,
            pages_of_the_unresolved_are_in_the_order_of_tokens,
            many_open_at_once_and_one_makes_the_tables,
        ]);
    };
    (@ $kind:expr, [$($name:ident,)*]) => {
        $(
            #[test]
            fn $name() {
                $crate::sql::more::$name($kind);
            }
        )*
    };
}
pub(crate) use suite;

/// New keys that lie beside each other are where gap locks meet.
pub(crate) fn callers_on_new_keys_of_several_handles_all_get_theirs(kind: &'static Kind) {
    const CALLERS: usize = 64;
    let rig = Tables::on(kind);
    let stores: Vec<Store> = (0..4).map(|_| rig.open()).collect();
    let start = Barrier::new(CALLERS);
    let tokens = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (rig, start, tokens) = (&rig, &start, &tokens);
            let store = &stores[caller % stores.len()];
            scope.spawn(move || {
                start.wait();
                for round in 0..8 {
                    let key = format!("{round:03}-{caller:03}");
                    let permit = fresh(store, request(rig, key.as_bytes()).declare(b"m"));
                    tokens.lock().unwrap().push(permit.token());
                    let completed = store.complete(permit, key.as_bytes(), DAY, 0);
                    completed.wait().unwrap();
                }
            });
        }
    });
    let mut tokens = tokens.into_inner().unwrap();
    let all = tokens.len();
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!((all, tokens.len()), (CALLERS * 8, CALLERS * 8));
}

/// A forget asks twice; what was asked after it waits.
pub(crate) fn what_is_asked_of_a_key_is_done_in_its_order(kind: &'static Kind) {
    let rig = Tables::on(kind);
    let store = Store::connect(&rig.url("&connections=1"), Options::new()).unwrap();
    let keys: Vec<[u8; 1]> = (0..60).map(|key| [key]).collect();
    let begin = |key: &[u8]| store.begin(&request(&rig, key).declare(b""));
    for key in &keys {
        std::mem::forget(fresh(&store, request(&rig, key).declare(b"")));
    }
    let asked: Vec<_> = keys
        .iter()
        .map(|key| (store.forget(key), begin(key), store.forget(key), begin(key)))
        .collect();
    for (forgotten, begun, again, anew) in asked {
        assert!(forgotten.wait().unwrap());
        let first = begun
            .wait()
            .unwrap()
            .into_fresh()
            .expect("forgotten before");
        assert!(again.wait().unwrap());
        let second = anew.wait().unwrap().into_fresh().expect("forgotten before");
        assert!(first.token() < second.token());
    }
}

pub(crate) fn what_the_database_does_not_hold_is_refused_at_once(kind: &'static Kind) {
    let rig = Tables::on(kind);
    let max = (16 << 20) - 1;
    let refused = [
        Options::new().outcome_bytes_max(max + 1),
        Options::new().memo_bytes_max(max + 1),
    ];
    for options in refused {
        assert!(error(Store::connect(&rig.url(""), options)).is_options());
    }
}

pub(crate) fn acknowledged_is_kept_over_kill_9_under_load(kind: &'static Kind) {
    let rig = Tables::alone_on(kind);
    let store = rig.open();
    let stop = AtomicBool::new(false);
    let done = AtomicU64::new(0);
    let acknowledged: Vec<Vec<(String, bool, u64)>> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..6)
            .map(|caller| {
                let (rig, store, stop, done) = (&rig, &store, &stop, &done);
                scope.spawn(move || {
                    let mut list = Vec::new();
                    for n in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            return list;
                        }
                        let key = format!("{caller}-{n}");
                        // An answer that was lost must not make the caller's own claim strange.
                        let permit = fresh(store, request(rig, key.as_bytes()).declare(b"m"));
                        let token = permit.token();
                        if n % 3 == 0 {
                            drop(permit);
                            list.push((key, false, token));
                        } else {
                            let completed = store.complete(permit, key.as_bytes(), DAY, 0);
                            completed.wait().unwrap();
                            list.push((key, true, token));
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    unreachable!()
                })
            })
            .collect();
        for kills in 1..=2 {
            while done.load(Ordering::Relaxed) < kills * 60 {
                std::thread::yield_now();
            }
            rig.kill_and_restart();
        }
        let then = done.load(Ordering::Relaxed);
        while done.load(Ordering::Relaxed) < then + 30 {
            std::thread::yield_now();
        }
        stop.store(true, Ordering::Relaxed);
        callers
            .into_iter()
            .map(|caller| caller.join().unwrap())
            .collect()
    });
    store.flush().wait().unwrap();
    for (key, completed, token) in acknowledged.into_iter().flatten() {
        if completed {
            let stored = replayed(&store, request(&rig, key.as_bytes()));
            assert_eq!((stored.outcome(), stored.token()), (key.as_bytes(), token));
        } else {
            let found = store.get(key.as_bytes(), 0).wait().unwrap();
            let Lookup::InDoubt(doubt) = found else {
                panic!("{key}: {found:?}");
            };
            assert_eq!((&doubt.memo[..], doubt.token), (&b"m"[..], token));
            assert!(in_doubt(&store, request(&rig, key.as_bytes())).token() > token);
        }
    }
}

pub(crate) fn while_the_server_is_gone_errors_come_in_time(kind: &'static Kind) {
    let server = Server::start(kind);
    let url = server.url("timeout_ms=3000");
    let store = Store::connect(&url, Options::new()).unwrap();
    let begin = |key: &'static [u8]| {
        let begin = Begin::new(key, Fingerprint([1; 32]), 60_000, 0);
        store.begin(&begin.declare(b"m"))
    };
    let held = begin(b"held").wait().unwrap().into_fresh().unwrap();
    server.without(|| {
        let refused = begin(b"k");
        let late = error(Store::connect(&url, Options::new()));
        assert!(late.is_unavailable(), "{late}");
        let refused = error(refused.wait());
        assert!(refused.is_unavailable(), "{refused}");
    });
    // The same handle goes on.
    store.complete(held, b"x", DAY, 0).wait().unwrap();
    begin(b"k").wait().unwrap();
    assert!(store.stats().reconnects > 0);
    assert!(store.stats().unavailable > 0);
}

pub(crate) fn expired_rows_are_swept_and_the_others_stay(kind: &'static Kind) {
    let rig = Tables::on(kind);
    let options = Options::new();
    let store = Store::connect(&rig.url("&sweep_ms=20"), options).unwrap();
    let short_ms = rig.short_ms();
    for (key, retain_ms) in [(b"old", 0), (b"new", DAY)] {
        let permit = fresh(&store, request(&rig, key));
        store.complete(permit, b"x", retain_ms, 0).wait().unwrap();
    }
    drop(fresh(&store, request(&rig, b"doubt").declare(b"m")));
    let begin = Begin::new(b"lapsed", Fingerprint([1; 32]), short_ms, 0);
    let lapsed = fresh(&store, begin);
    let forgotten = fresh(&store, request(&rig, b"forgotten").declare(b"m"));
    store.forget(b"forgotten").wait().unwrap();
    store.flush().wait().unwrap();
    let name = &rig.name;
    let count = || -> usize {
        let rows = rig.server.sql(&format!("SELECT count(*) FROM {name}_keys"));
        rows.trim().parse().unwrap()
    };
    // What expired is kept for a minute, because of decisions that are under way; a claim lasts an hour beyond
    // its lease.
    assert_eq!(count(), 5);
    let minute_ago = format!("UPDATE {name}_keys SET expires_ms = expires_ms - 3660200");
    rig.server
        .sql(&format!("{minute_ago} WHERE expires_ms IS NOT NULL"));
    while count() > 2 {
        std::thread::yield_now();
    }
    assert_eq!(replayed(&store, request(&rig, b"new")).outcome(), b"x");
    in_doubt(&store, request(&rig, b"doubt"));
    for permit in [lapsed, forgotten] {
        let late = error(store.complete(permit, b"late", DAY, 0).wait());
        assert!(late.is_fenced(), "{late}");
    }
}

pub(crate) fn a_sweep_goes_on_beyond_one_batch(kind: &'static Kind) {
    const ROWS: usize = 2_500;
    // As often as a round that stops after one batch is looked at in vain.
    const LOOKS_MAX: usize = 50;
    let rig = Tables::on(kind);
    let store = Store::connect(&rig.url("&sweep_ms=5000"), Options::new()).unwrap();
    let kept = fresh(&store, request(&rig, b"kept"));
    store.complete(kept, b"x", DAY, 0).wait().unwrap();
    let name = &rig.name;
    let is_postgres = rig.url("").starts_with("postgres");
    let (numbers, tokens) = if is_postgres {
        (format!("generate_series(1, {ROWS}) AS n"), String::new())
    } else {
        let numbers = format!("(SELECT seq AS n FROM seq_1_to_{ROWS}) numbers");
        let tokens = format!("INSERT INTO {name}_token SELECT NULL FROM {numbers}");
        (numbers, tokens)
    };
    let key = if is_postgres {
        "decode(md5(n::text), 'hex')"
    } else {
        "MD5(n)"
    };
    rig.server.sql(&format!(
        "INSERT INTO {name}_keys SELECT {key}, 3, n, '', '', 0, 0, 1, '', '', 0 FROM {numbers}; {tokens}"
    ));
    let count = |table: &str| -> usize {
        let rows = rig
            .server
            .sql(&format!("SELECT count(*) FROM {name}_{table}"));
        rows.trim().parse().unwrap()
    };
    let (mut last, mut looks) = (ROWS + 1, 0);
    while last > 1 {
        let rows = count("keys");
        looks = if rows == last { looks + 1 } else { 0 };
        assert!(last > ROWS || looks < LOOKS_MAX, "{rows} rows stay");
        last = rows;
    }
    if !is_postgres {
        while count("token") > 1 {
            std::thread::yield_now();
        }
    }
    assert_eq!(replayed(&store, request(&rig, b"kept")).outcome(), b"x");
}

pub(crate) fn a_sweep_reads_only_what_expired(kind: &'static Kind) {
    const ROWS: u64 = 20_000;
    const SWEEPS: u64 = 5;
    let rig = Tables::alone_on(kind);
    let _store = Store::connect(&rig.url("&sweep_ms=20"), Options::new()).unwrap();
    let name = &rig.name;
    let is_postgres = rig.url("").starts_with("postgres");
    let (numbers, digest, key, reads) = if is_postgres {
        (
            format!("generate_series(1, {ROWS}) AS n"),
            "decode(md5(n::text), 'hex')",
            "key",
            "SELECT sum(idx_tup_read)::bigint + sum(seq_tup_read)::bigint
             FROM pg_stat_user_indexes JOIN pg_stat_user_tables USING (relid)",
        )
    } else {
        (
            format!("(SELECT seq AS n FROM seq_1_to_{ROWS}) numbers"),
            "MD5(n)",
            "id",
            "SELECT SUM(variable_value) FROM information_schema.global_status
             WHERE variable_name LIKE 'handler_read%'",
        )
    };
    let reads = || -> u64 {
        let reads = rig.server.sql(reads);
        reads.trim().parse::<f64>().unwrap() as u64
    };
    let insert = |digest: &str, expires_ms: u64, numbers: &str| {
        rig.server.sql(&format!(
            "INSERT INTO {name}_keys SELECT {digest}, 3, 1, '', '', 0, 0, {expires_ms}, '', '', 0 {numbers}"
        ))
    };
    insert(digest, 9_999_999_999_999, &format!("FROM {numbers}"));
    let before = reads();
    let count = format!("SELECT count(*) FROM {name}_keys WHERE {key} = 'gone'");
    for _ in 0..SWEEPS {
        insert("'gone'", 1, "");
        while rig.server.sql(&count).trim() != "0" {}
    }
    // Those of the last one may not have been counted yet.
    let read = reads() - before;
    assert!(read < (SWEEPS - 2) * ROWS, "{read}");
}

pub(crate) fn tables_of_a_newer_program_are_left_alone(kind: &'static Kind) {
    let rig = Tables::on(kind);
    drop(rig.open());
    let name = &rig.name;
    rig.server
        .sql(&format!("UPDATE {name}_schema SET version = 7"));
    let error = error(Store::connect(&rig.url(""), Options::new()));
    assert!(error.is_version(), "{error}");
}

pub(crate) fn tables_of_older_versions_get_what_they_lack(kind: &'static Kind) {
    let rig = Tables::on(kind);
    let store = rig.open();
    drop(fresh(&store, request(&rig, b"doubt").declare(b"m")));
    store.flush().wait().unwrap();
    drop(store);
    let name = &rig.name;
    let drop_index = if rig.url("").starts_with("postgres") {
        format!("DROP INDEX {name}_keys_unresolved")
    } else {
        format!("DROP INDEX unresolved ON {name}_keys")
    };
    let drop_column = format!("ALTER TABLE {name}_keys DROP COLUMN declares");
    for (older, lacks) in [(1, &[&drop_index, &drop_column][..]), (2, &[&drop_column])] {
        for what in lacks {
            rig.server.sql(what);
        }
        rig.server
            .sql(&format!("UPDATE {name}_schema SET version = {older}"));
        let store = rig.open();
        let version = format!("SELECT version FROM {name}_schema");
        assert_eq!(rig.server.sql(&version).trim(), "3");
        let doubt = in_doubt(&store, request(&rig, b"doubt").declare(b""));
        store.declare(&doubt, b"m").wait().unwrap();
        drop(doubt);
        assert_eq!(store.unresolved(0, 10).wait().unwrap().len(), 1);
    }
    // They are there again, or these would fail.
    rig.server.sql(&drop_index);
    rig.server.sql(&drop_column);
}

/// Claims in doubt for the first and for another time are two ranges of MariaDB's index.
pub(crate) fn pages_of_the_unresolved_are_in_the_order_of_tokens(kind: &'static Kind) {
    let rig = Tables::on(kind);
    let store = rig.open();
    let mut tokens: Vec<u64> = (0..20_u8)
        .map(|n| {
            let request = request(&rig, std::slice::from_ref(&n)).declare(b"m");
            let mut token = fresh(&store, request).token();
            if n % 2 == 1 {
                token = in_doubt(&store, request).token();
            }
            token
        })
        .collect();
    store.flush().wait().unwrap();
    tokens.sort_unstable();
    let (mut listed, mut after) = (Vec::new(), 0);
    loop {
        let page = store.unresolved(after, 3).wait().unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() == 3 || listed.len() + page.len() == tokens.len());
        after = last.token;
        listed.extend(page.iter().map(|unresolved| unresolved.token));
    }
    assert_eq!(listed, tokens);
}

pub(crate) fn many_open_at_once_and_one_makes_the_tables(kind: &'static Kind) {
    let rig = Tables::on(kind);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let begun = rig.open().begin(&request(&rig, b"k")).wait().unwrap();
                assert!(matches!(begun, Begun::Fresh(_) | Begun::InFlight { .. }));
            });
        }
    });
    let versions = rig
        .server
        .sql(&format!("SELECT count(*) FROM {}_schema", rig.name));
    assert_eq!(versions.trim(), "1");
}
