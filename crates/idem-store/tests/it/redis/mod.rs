//! The store on Redis: the suite of all backends, on servers of the tests' own.

#[cfg(feature = "redis-cluster")]
mod cluster;
mod faults;
mod proxy;
#[cfg(feature = "redis-sentinel")]
mod sentinel;
mod server;
#[cfg(feature = "redis-tls-ring")]
mod tls;

use idem_store::{Options, Store};

use crate::contract::{Rig, pass_on_server, suite};
use crate::linearizability;
use server::Server;

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

suite!(OneServer::new());

/// Two handles, as of two processes.
#[test]
fn histories_are_linearizable() {
    let rig = OneServer::new();
    linearizability::check_server(&[rig.open(), rig.open()], linearizability::histories(12));
}
