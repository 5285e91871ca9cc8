//! The suite of all backends on a cluster of three servers.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use idem_store::{Options, Store};

use super::server::Server;
use crate::contract::{Rig, pass_on_server, suite};
use crate::ports::free_port;

/// Only a cluster that does not form takes so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// One cluster for all tests: it takes a second or two to form. Each test has a store of its own.
static CLUSTER: OnceLock<Vec<u16>> = OnceLock::new();
static STORES: AtomicU32 = AtomicU32::new(0);

struct Cluster {
    nodes: String,
    name: String,
}

impl Cluster {
    fn new() -> Self {
        let ports = CLUSTER.get_or_init(|| {
            let (tell, told) = mpsc::channel();
            // The servers die with the thread that started them; a test's thread ends too early.
            std::thread::spawn(move || {
                let (ports, _servers) = form();
                tell.send(ports).unwrap();
                loop {
                    std::thread::park();
                }
            });
            told.recv().unwrap()
        });
        let nodes: Vec<_> = ports
            .iter()
            .map(|port| format!("127.0.0.1:{port}"))
            .collect();
        Self {
            nodes: nodes.join(","),
            name: format!("suite-{}", STORES.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

impl Rig for Cluster {
    fn open_with(&self, options: Options) -> Store {
        let (nodes, name) = (&self.nodes, &self.name);
        let url = format!("redis+cluster://{nodes}?name={name}");
        Store::connect(&url, options).expect("connects")
    }

    fn crash(&self, store: Store) -> Store {
        // The servers are those of other tests too: only the client dies.
        drop(store);
        self.open()
    }

    fn pass(&self, ms: u64) {
        pass_on_server(ms);
    }

    fn now(&self) -> u64 {
        0
    }

    fn short_ms(&self) -> u64 {
        100
    }

    fn is_shared(&self) -> bool {
        true
    }
}

suite!(Cluster::new());

/// Three masters that share the slots.
fn form() -> (Vec<u16>, Vec<Server>) {
    let nodes: Vec<(u16, u16)> = (0..3).map(|_| (free_port(), free_port())).collect();
    let servers: Vec<_> = nodes
        .iter()
        .map(|(port, bus)| {
            Server::with(&[
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                "--bind",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--cluster-port",
                &bus.to_string(),
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                "60000",
            ])
        })
        .collect();
    for (server, slots) in servers.iter().zip(["0 5460", "5461 10922", "10923 16383"]) {
        let answer = server.ask(&format!("CLUSTER ADDSLOTSRANGE {slots}"));
        assert!(answer.starts_with("+OK"), "{answer}");
    }
    for (port, bus) in &nodes[1..] {
        let answer = servers[0].ask(&format!("CLUSTER MEET 127.0.0.1 {port} {bus}"));
        assert!(answer.starts_with("+OK"), "{answer}");
    }
    let started = Instant::now();
    let is_formed = |server: &Server| {
        let info = server.ask("CLUSTER INFO");
        info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
    };
    while !servers.iter().all(is_formed) {
        assert!(started.elapsed() < PATIENCE, "the cluster does not form");
        std::thread::sleep(Duration::from_millis(10));
    }
    (nodes.into_iter().map(|(port, _)| port).collect(), servers)
}
