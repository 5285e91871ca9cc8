//! The store on Redis: the suite of all backends, on servers of the tests' own.

#[cfg(feature = "redis-cluster")]
mod cluster;
mod faults;
#[cfg(feature = "tower")]
mod layer;
#[cfg(feature = "redis-sentinel")]
mod sentinel;
mod server;
#[cfg(feature = "redis-tls-ring")]
mod tls;

use std::path::{Path, PathBuf};

use idem_store::{Options, Store};

use crate::contract::{Rig, pass_on_server, suite};
use crate::shared::Shared;
use server::{Server, url_in};

struct OneServer(Server);

impl OneServer {
    fn new() -> Self {
        Self(Server::start())
    }
}

impl Rig for OneServer {
    fn open_with(&self, options: Options) -> Store {
        Store::connect(&self.0.url(""), options).expect("connects")
    }

    fn crash(&self, store: Store) -> Store {
        self.0.kill_and_restart();
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
        100
    }

    fn is_shared(&self) -> bool {
        true
    }
}

impl Shared for OneServer {
    fn url(&self) -> String {
        self.0.url("")
    }

    fn socket(&self) -> PathBuf {
        self.0.socket()
    }

    fn url_through(&self, dir: &Path, timeout_ms: u32) -> String {
        url_in(dir, &format!("?timeout_ms={timeout_ms}"))
    }
}

suite!(OneServer::new());
crate::shared::suite!(OneServer::new());
crate::on_runtime::suite!(OneServer::new());
#[cfg(feature = "token")]
crate::token::shared::suite!(OneServer::new());
