//! MariaDB under the suite.

use std::time::{SystemTime, UNIX_EPOCH};

use idem_store::{Begin, Fingerprint, Lookup};

use super::Tables;
use super::server::{MARIADB, Server, Session};
use crate::contract::{DAY, error, fresh, replayed, request, suite};

mod contract {
    use super::*;
    suite!(Tables::on(&MARIADB), Tables::alone_on(&MARIADB));
}

mod shared {
    use super::*;
    crate::shared::suite!(Tables::on(&MARIADB));
    crate::on_runtime::suite!(Tables::on(&MARIADB));
    #[cfg(feature = "token")]
    crate::token::shared::suite!(Tables::on(&MARIADB));
}

mod beyond {
    use super::*;
    crate::sql::more::suite!(&MARIADB);

    #[test]
    fn a_server_that_does_not_sync_is_refused() {
        let server = Server::start(&MARIADB);
        server.sql("SET GLOBAL innodb_flush_log_at_trx_commit = 2");
        let connect = |query: &str| {
            idem_store::Store::connect(&server.url(query), idem_store::Options::new())
        };
        let error = error(connect(""));
        assert!(error.is_refused(), "{error}");
        connect("durability=relaxed").unwrap();
    }

    /// What InnoDB prepared and a lost end of the binary log does not have is rolled back.
    #[test]
    fn a_server_that_does_not_sync_its_binary_log_is_refused() {
        let settings = |_: &_| {
            ["--log-bin=binlog", "--sync-binlog=0"]
                .map(String::from)
                .into()
        };
        let server = Server::start_with(&MARIADB, settings);
        let connect = |query: &str| {
            idem_store::Store::connect(&server.url(query), idem_store::Options::new())
        };
        let error = error(connect(""));
        assert!(error.is_refused(), "{error}");
        assert!(error.to_string().contains("sync_binlog"), "{error}");
        connect("durability=relaxed").unwrap();
        server.sql("SET GLOBAL sync_binlog = 1");
        connect("").unwrap();
    }

    /// The store's clock is UTC, also in the hour that a session's time zone has twice.
    #[test]
    fn the_end_of_summer_time_moves_no_clock() {
        let server = Server::start(&MARIADB);
        // Summer time ends in half an hour in one of the zones, and has ended then in the other.
        for (zone, ends_in_s) in [(1_u8, 1_800), (2, -1_800)] {
            server.sql(&format!(
                "INSERT INTO mysql.time_zone (Time_zone_id, Use_leap_seconds) VALUES ({zone}, 'N');
                 INSERT INTO mysql.time_zone_name (Name, Time_zone_id) VALUES ('zone{zone}', {zone});
                 INSERT INTO mysql.time_zone_transition_type
                     (Time_zone_id, Transition_type_id, `Offset`, Is_DST, Abbreviation)
                     VALUES ({zone}, 0, 3600, 1, 'S'), ({zone}, 1, 0, 0, 'W');
                 INSERT INTO mysql.time_zone_transition
                     (Time_zone_id, Transition_time, Transition_type_id)
                     VALUES ({zone}, UNIX_TIMESTAMP() - 8640000, 0),
                            ({zone}, UNIX_TIMESTAMP() + {ends_in_s}, 1);
                 SET GLOBAL time_zone = 'zone{zone}'"
            ));
            let options = idem_store::Options::new();
            let store = idem_store::Store::connect(&server.url(""), options).unwrap();
            let key = [zone];
            let begin = Begin::new(&key, Fingerprint([1; 32]), DAY, 0);
            let before = unix_ms();
            let _permit = fresh(&store, begin);
            let Lookup::InFlight { until_ms, .. } = store.get(&key, 0).wait().unwrap() else {
                panic!("it is held");
            };
            // The server reads the clock a little less finely.
            let around = before - 1_000..=unix_ms() + 1_000;
            assert!(around.contains(&(until_ms - DAY)), "zone {zone}");
        }
    }

    fn unix_ms() -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.unwrap().as_millis().try_into().unwrap()
    }

    #[test]
    fn a_server_that_does_not_take_long_outcomes_is_refused() {
        let server = Server::start_with(&MARIADB, |_| vec!["--max-allowed-packet=4M".to_owned()]);
        let connect = |outcome_bytes_max| {
            let options = idem_store::Options::new().outcome_bytes_max(outcome_bytes_max);
            idem_store::Store::connect(&server.url(""), options)
        };
        let refused = error(connect(4 << 20));
        assert!(refused.is_options(), "{refused}");
        assert!(
            refused.to_string().contains("max_allowed_packet"),
            "{refused}"
        );
        let length = (4 << 20) - (64 << 10);
        let store = connect(length).unwrap();
        let begin = Begin::new(b"k", Fingerprint([1; 32]), DAY, 0);
        let permit = fresh(&store, begin);
        let outcome = vec![7; length as usize];
        store.complete(permit, &outcome, DAY, 0).wait().unwrap();
        assert_eq!(replayed(&store, begin).outcome(), outcome);
    }

    #[test]
    fn a_server_that_commits_nothing_by_itself_keeps_what_is_acknowledged() {
        for setting in ["--autocommit=0", "--completion-type=CHAIN"] {
            let server = Server::start_with(&MARIADB, |_| vec![setting.to_owned()]);
            let connect = || {
                let url = server.url("connections=1");
                idem_store::Store::connect(&url, idem_store::Options::new()).unwrap()
            };
            let (store, other) = (connect(), connect());
            let begin = Begin::new(b"k", Fingerprint([1; 32]), DAY, 0).declare(b"");
            let permit = fresh(&store, begin);
            store.complete(permit, b"x", DAY, 0).wait().unwrap();
            assert_eq!(replayed(&other, begin).outcome(), b"x", "{setting}");
            assert!(store.forget(b"k").wait().unwrap());
            fresh(&other, begin);
        }
    }

    /// What holds a statement up for longer than an operation may take ends it on the server too.
    #[test]
    fn a_statement_ends_with_its_time() {
        let rig = Tables::alone_on(&MARIADB);
        let url = rig
            .url("&connections=1")
            .replace("timeout_ms=30000", "timeout_ms=1000");
        let store = idem_store::Store::connect(&url, idem_store::Options::new()).unwrap();
        let permit = fresh(&store, request(&rig, b"k").declare(b""));
        let name = &rig.name;
        rig.server.sql(&format!(
            "CREATE TRIGGER late BEFORE UPDATE ON {name}_keys FOR EACH ROW
             SET @busy = BENCHMARK(1000000000000, 1)"
        ));
        let late = error(store.complete(permit, b"x", DAY, 0).wait());
        assert!(late.is_unavailable(), "{late}");
        let busy = "SELECT count(*) FROM information_schema.processlist
                    WHERE command IN ('Execute', 'Query') AND id <> CONNECTION_ID()";
        while rig.server.sql(busy).trim() != "0" {}
    }

    /// Operations that go out together are answered one by one, also when a begin in their midst has to
    /// go another way because it is long.
    #[test]
    fn what_does_not_fit_into_a_message_shifts_no_answers() {
        let rig = Tables::alone_on(&MARIADB);
        let url = rig.url("&connections=1");
        let options = idem_store::Options::new().memo_bytes_max(200_000);
        let store = idem_store::Store::connect(&url, options).unwrap();
        let [a, c, z] = ["a", "c", "z"].map(|key| fresh(&store, request(&rig, key.as_bytes())));
        store.forget(b"c").wait().unwrap();
        let mut other = Session::on(&rig.server);
        let name = &rig.name;
        other.run(&format!(
            "BEGIN; SELECT id FROM {name}_keys WHERE id = 'z' FOR UPDATE"
        ));
        // While this waits those after it become one transaction.
        let z = store.complete(z, b"z", DAY, 0);
        waits_for_a_lock(&rig.server);
        let a = store.complete(a, &[7; 500_000], DAY, 0);
        let b = store.begin(&request(&rig, b"b").declare(&[7; 100_000]));
        let c = store.extend(&c, DAY, 0);
        let d = store.begin(&request(&rig, b"d"));
        other.run("COMMIT");
        z.wait().unwrap();
        a.wait().unwrap();
        assert!(error(c.wait()).is_fenced());
        let [b, d] = [b, d].map(|begun| begun.wait().unwrap().into_fresh().expect("new"));
        assert_ne!(b.token(), d.token());
        for permit in [b, d] {
            store.complete(permit, b"x", DAY, 0).wait().unwrap();
        }
    }

    /// Until a transaction waits for another.
    fn waits_for_a_lock(server: &Server) {
        // Not innodb_trx, which tells what was so a while ago.
        let waits = "SELECT variable_value FROM information_schema.global_status
                     WHERE variable_name = 'innodb_row_lock_current_waits'";
        while server.sql(waits).trim() == "0" {}
    }

    /// Neither one that waits for it nor a listing holds up the keys of other connections.
    #[test]
    fn a_connection_that_hangs_stops_no_other_one() {
        let rig = Tables::alone_on(&MARIADB);
        let url = rig.url("&connections=2");
        let store = idem_store::Store::connect(&url, idem_store::Options::new()).unwrap();
        let z = fresh(&store, request(&rig, b"z"));
        let mut other = Session::on(&rig.server);
        let name = &rig.name;
        other.run(&format!(
            "BEGIN; SELECT id FROM {name}_keys WHERE id = 'z' FOR UPDATE"
        ));
        let completed = store.complete(z, b"z", DAY, 0);
        waits_for_a_lock(&rig.server);
        let (flushed, listed) = (store.flush(), store.unresolved(0, 9));
        let mut asked: Vec<_> = (0..64_u8).map(|key| store.get(&[key], 0)).collect();
        // Those of the other connection.
        while asked.len() > 56 {
            let still = asked.into_iter().map(idem_store::Completion::try_now);
            asked = still.filter_map(Result::err).collect();
        }
        let flushed = flushed.try_now().expect_err("one waits");
        other.run("COMMIT");
        flushed.wait().unwrap();
        completed
            .try_now()
            .expect("it was before the flush")
            .unwrap();
        assert!(listed.wait().unwrap().is_empty());
        for asked in asked {
            assert_eq!(asked.wait().unwrap(), idem_store::Lookup::Absent);
        }
    }

    /// InnoDB ends the transaction that changed less: the store's.
    #[test]
    fn a_deadlock_is_tried_again() {
        let rig = Tables::alone_on(&MARIADB);
        let url = rig.url("&connections=1");
        let store = idem_store::Store::connect(&url, idem_store::Options::new()).unwrap();
        let [a, b, z] = ["a", "b", "z"].map(|key| fresh(&store, request(&rig, key.as_bytes())));
        let name = &rig.name;
        let lock = |key| format!("SELECT id FROM {name}_keys WHERE id = '{key}' FOR UPDATE");
        let (mut one, mut other) = (Session::on(&rig.server), Session::on(&rig.server));
        one.run("CREATE TABLE work (n INT PRIMARY KEY) ENGINE=InnoDB");
        one.run("BEGIN; INSERT INTO work SELECT seq FROM seq_1_to_1000");
        one.run(&lock("b"));
        other.run(&format!("BEGIN; {}", lock("z")));
        // While this waits the two after it become one transaction.
        let z = store.complete(z, b"z", DAY, 0);
        waits_for_a_lock(&rig.server);
        let (a, b) = (
            store.complete(a, b"a", DAY, 0),
            store.complete(b, b"b", DAY, 0),
        );
        other.run("COMMIT");
        z.wait().unwrap();
        waits_for_a_lock(&rig.server);
        one.run(&lock("a"));
        one.run("COMMIT");
        a.wait().unwrap();
        b.wait().unwrap();
        for key in ["a", "b", "z"] {
            let stored = replayed(&store, request(&rig, key.as_bytes()));
            assert_eq!(stored.outcome(), key.as_bytes());
        }
        let deadlocks = rig.server.sql("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'");
        assert_eq!(
            deadlocks.split_whitespace().last(),
            Some("1"),
            "{deadlocks}"
        );
    }
}
