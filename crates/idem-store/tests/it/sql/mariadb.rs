//! MariaDB under the suite.

use super::Tables;
use super::server::{MARIADB, Server, Session};
use crate::contract::{DAY, fresh, replayed, request, suite};

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
        let error = connect("").unwrap_err();
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
        let error = connect("").unwrap_err();
        assert!(error.is_refused(), "{error}");
        assert!(error.to_string().contains("sync_binlog"), "{error}");
        connect("durability=relaxed").unwrap();
        server.sql("SET GLOBAL sync_binlog = 1");
        connect("").unwrap();
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
        let waits = || {
            let waits =
                "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'";
            while rig.server.sql(waits).trim() == "0" {}
        };
        let (mut one, mut other) = (Session::on(&rig.server), Session::on(&rig.server));
        one.run("CREATE TABLE work (n INT PRIMARY KEY) ENGINE=InnoDB");
        one.run("BEGIN; INSERT INTO work SELECT seq FROM seq_1_to_1000");
        one.run(&lock("b"));
        other.run(&format!("BEGIN; {}", lock("z")));
        // While this waits the two after it become one transaction.
        let z = store.complete(z, b"z", DAY, 0);
        waits();
        let (a, b) = (
            store.complete(a, b"a", DAY, 0),
            store.complete(b, b"b", DAY, 0),
        );
        other.run("COMMIT");
        z.wait().unwrap();
        waits();
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
