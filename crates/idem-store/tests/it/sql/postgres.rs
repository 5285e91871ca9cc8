//! PostgreSQL under the suite.

use super::Tables;
use super::server::{POSTGRES, Server};
use crate::contract::suite;

mod contract {
    use super::*;
    suite!(Tables::on(&POSTGRES), Tables::alone_on(&POSTGRES));
}

mod shared {
    use super::*;
    crate::shared::suite!(Tables::on(&POSTGRES));
    crate::on_runtime::suite!(Tables::on(&POSTGRES));
    #[cfg(feature = "token")]
    crate::token::shared::suite!(Tables::on(&POSTGRES));
}

mod beyond {
    use super::*;
    crate::sql::more::suite!(&POSTGRES);

    #[test]
    fn a_server_that_does_not_sync_is_refused() {
        let server = Server::start(&POSTGRES);
        server.sql("ALTER SYSTEM SET fsync = off");
        server.sql("SELECT pg_reload_conf()");
        while server.sql("SHOW fsync").trim() != "off" {}
        let connect = |query: &str| {
            idem_store::Store::connect(&server.url(query), idem_store::Options::new())
        };
        let error = connect("").unwrap_err();
        assert!(error.is_refused(), "{error}");
        assert!(error.to_string().contains("fsync"), "{error}");
        connect("durability=relaxed").unwrap();
    }
}
