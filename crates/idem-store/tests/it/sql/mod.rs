//! The store in SQL databases: the suite of all backends, on servers of the tests' own.
//!
//! Tests share a server, each with tables of its own. One that kills its server has one of its own: what
//! the others see must not depend on who runs at the same time.

#[cfg(feature = "mysql")]
mod mariadb;
mod more;
#[cfg(feature = "postgres")]
mod postgres;
mod server;
#[cfg(feature = "postgres-tls-ring")]
mod tls;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use idem_store::{Options, Store};

use crate::contract::{Rig, pass_on_server};
use crate::shared::Shared;
use server::{Kind, Server};

/// A store of its own.
pub(crate) struct Tables {
    server: Arc<Server>,
    name: String,
    is_alone: bool,
}

impl Tables {
    /// On the server that tests share.
    fn on(kind: &'static Kind) -> Self {
        static TABLES: AtomicU64 = AtomicU64::new(0);
        let number = TABLES.fetch_add(1, Ordering::Relaxed);
        Self {
            server: Server::shared(kind),
            name: format!("t{number}"),
            is_alone: false,
        }
    }

    /// On a server that this test may kill.
    fn alone_on(kind: &'static Kind) -> Self {
        Self {
            server: Arc::new(Server::start(kind)),
            name: "alone".to_owned(),
            is_alone: true,
        }
    }

    fn kill_and_restart(&self) {
        assert!(self.is_alone, "other tests use this server");
        self.server.kill_and_restart();
    }

    fn url(&self, query: &str) -> String {
        // Waiting for a server that recovers on a busy machine takes its time.
        let own = format!("name={}&timeout_ms=30000{query}", self.name);
        self.server.url(&own)
    }
}

impl Rig for Tables {
    fn open_with(&self, options: Options) -> Store {
        Store::connect(&self.url("&connections=8"), options).expect("connects")
    }

    fn crash(&self, store: Store) -> Store {
        self.kill_and_restart();
        store
    }

    fn pass(&self, ms: u64) {
        pass_on_server(ms);
    }

    fn now(&self) -> u64 {
        // Nobody may look at it.
        0
    }

    fn short_ms(&self) -> u64 {
        150
    }

    fn is_shared(&self) -> bool {
        true
    }
}

impl Shared for Tables {
    fn url(&self) -> String {
        self.url("")
    }

    fn socket(&self) -> PathBuf {
        self.server.socket()
    }

    fn url_through(&self, dir: &Path, timeout_ms: u32) -> String {
        let name = &self.name;
        let query = format!("name={name}&timeout_ms={timeout_ms}&connections=1");
        self.server.url_in(dir, &query)
    }
}

#[cfg(all(feature = "postgres", not(feature = "postgres-tls")))]
#[test]
fn a_postgres_url_that_demands_tls_is_refused() {
    refused_for_tls("postgres://u@127.0.0.1:1/d?sslmode=require");
}

#[cfg(feature = "mysql")]
#[test]
fn a_mysql_url_that_demands_tls_is_refused() {
    refused_for_tls("mysql://u@127.0.0.1:1/d?require_ssl=true");
}

#[cfg(any(
    feature = "mysql",
    all(feature = "postgres", not(feature = "postgres-tls"))
))]
fn refused_for_tls(url: &str) {
    let refused = Store::connect(url, Options::new()).unwrap_err();
    assert!(refused.is_options(), "{refused}");
    assert!(refused.to_string().contains("TLS"), "{refused}");
}
