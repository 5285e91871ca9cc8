//! MariaDB under the suite.

use super::Tables;
use super::server::{MARIADB, Server};
use crate::contract::suite;

mod contract {
    use super::*;
    suite!(Tables::on(&MARIADB), Tables::alone_on(&MARIADB));
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
}
