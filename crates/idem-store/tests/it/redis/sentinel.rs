//! A failover: what a replica confirmed is there, tokens grow on.

use std::net::Ipv4Addr;
use std::process::Child;
use std::time::{Duration, Instant};

use idem_store::{Begin, Fingerprint, Options, Store};

use super::server::Server;
use crate::contract::{DAY, LEASE, error, fresh, replayed};
use crate::ports::free_port;

/// Only a failover that does not happen takes so long.
const PATIENCE: Duration = Duration::from_secs(30);

struct Sentinel {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Sentinel {
    fn watch(master: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let settings = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor m 127.0.0.1 {master} 1\n\
             sentinel down-after-milliseconds m 60000\nsentinel failover-timeout m 3000\n"
        );
        std::fs::write(dir.path().join("sentinel.conf"), settings).unwrap();
        let mut command = std::process::Command::new("setpriv");
        let child = command
            .args([
                "--pdeathsig",
                "KILL",
                "redis-server",
                "sentinel.conf",
                "--sentinel",
            ])
            .current_dir(dir.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            port,
            _dir: dir,
        }
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn server(port: u16, more: &[&str]) -> Server {
    let port = port.to_string();
    let mut settings = vec!["--appendonly", "yes", "--appendfsync", "always"];
    settings.extend(["--bind", "127.0.0.1", "--port", &port]);
    settings.extend(["--repl-diskless-sync-delay", "0"]);
    settings.extend(more);
    Server::with(&settings)
}

fn wait_for(server: &Server, section: &str, word: &str) {
    let started = Instant::now();
    while !server.ask(&format!("INFO {section}")).contains(word) {
        assert!(started.elapsed() < PATIENCE, "{word} does not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn begin(key: &[u8]) -> Begin<'_> {
    Begin::new(key, Fingerprint([1; 32]), LEASE, 0)
}

#[test]
fn what_a_replica_confirmed_survives_a_failover() {
    let port = free_port();
    let master = server(port, &[]);
    let replica = server(free_port(), &["--replicaof", &format!("127.0.0.1 {port}")]);
    wait_for(&replica, "replication", "master_link_status:up");
    let sentinel = Sentinel::watch(port);
    let url = format!(
        "redis+sentinel://127.0.0.1:{}/m?timeout_ms=25000",
        sentinel.port
    );
    let started = Instant::now();
    let confirmed = loop {
        match Store::connect(&format!("{url}&wait_replicas=1"), Options::new()) {
            Ok(store) => break store,
            // The sentinel is starting.
            Err(error) => assert!(
                error.is_unavailable() && started.elapsed() < PATIENCE,
                "{error}"
            ),
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let store = Store::connect(&url, Options::new()).unwrap();
    let mut last = 0;
    for key in 0..50u8 {
        let permit = fresh(&confirmed, begin(&[key]).declare(b""));
        last = permit.token();
        confirmed
            .complete(permit, &[key; 3], DAY, 0)
            .wait()
            .unwrap();
    }
    // The sentinel has to know of the replica before it can promote it.
    let started = Instant::now();
    while !asks(sentinel.port, "SENTINEL replicas m").contains("role-reported") {
        assert!(
            started.elapsed() < PATIENCE,
            "the sentinel does not see the replica"
        );
        std::thread::sleep(Duration::from_millis(50));
    }

    master.kill();
    // By order, because a sentinel that finds out by itself would also take a busy machine's silence for
    // a dead master.
    let started = Instant::now();
    while !asks(sentinel.port, "SENTINEL failover m").starts_with("+OK") {
        assert!(started.elapsed() < PATIENCE, "nobody can be promoted");
        std::thread::sleep(Duration::from_millis(50));
    }
    for key in 0..50u8 {
        let stored = replayed(&store, begin(&[key]));
        assert_eq!(stored.outcome(), [key; 3]);
    }
    assert!(replica.ask("ROLE").contains("master"));
    assert!(fresh(&store, begin(b"new")).token() > last);
    // No replica is left to confirm anything.
    let brief = format!("{url}&wait_replicas=1").replace("25000", "2000");
    let alone = Store::connect(&brief, Options::new()).unwrap();
    assert!(error(alone.begin(&begin(b"other")).wait()).is_unavailable());
}

fn asks(port: u16, command: &str) -> String {
    use std::io::{Read, Write};
    let Ok(mut stream) = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
        return String::new();
    };
    stream
        .write_all(format!("{command}\r\n").as_bytes())
        .unwrap();
    let mut answer = [0; 4096];
    let got = stream.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..got]).into_owned()
}
