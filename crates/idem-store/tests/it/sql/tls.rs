//! `sslmode=require` to a real PostgreSQL, with a certificate that the system trusts and with another.

use std::process::{Command, Output};

use idem_store::{Begin, Fingerprint, Options, Store};

use super::server::{POSTGRES, Server};
use crate::certificate::certificate;
use crate::contract::{DAY, LEASE, fresh, replayed};

/// Where the child connects to.
const URL: &str = "MAINSTAY_SQL_TLS_URL";

fn begin() -> Begin<'static> {
    Begin::new(b"over TLS", Fingerprint([1; 32]), LEASE, 0)
}

/// A process of its own, because trusted certificates are named by the environment; does nothing in
/// a normal run.
#[test]
fn child() {
    let Ok(url) = std::env::var(URL) else {
        return;
    };
    let store = Store::connect(&url, Options::new()).expect("connects");
    let permit = fresh(&store, begin());
    store.complete(permit, b"done", DAY, 0).wait().unwrap();
}

#[test]
fn a_server_is_reached_over_tls_if_its_certificate_is_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let [ours, other] = ["ours", "other"].map(|name| certificate(dir.path(), name));
    let (server, port) = Server::with_tls(&POSTGRES, &ours);
    let url = |timeout_ms: u32| {
        format!(
            "postgres://mainstay@localhost:{port}/postgres?sslmode=require&timeout_ms={timeout_ms}"
        )
    };
    let refused = run_child(&url(1_000), &other);
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("certificate"), "{said}");
    let reached = run_child(&url(20_000), &ours);
    assert!(reached.status.success(), "{reached:?}");
    let direct = Store::connect(&server.url(""), Options::new()).unwrap();
    assert_eq!(replayed(&direct, begin()).outcome(), b"done");
    // The rule of the server lets nobody in over TCP without it.
    let plain = run_child(&url(1_000).replace("require", "disable"), &ours);
    assert!(!plain.status.success());
}

fn run_child(url: &str, trusted: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sql::tls::child", "--nocapture"])
        .env(URL, url)
        .env("SSL_CERT_FILE", trusted)
        .env_remove("SSL_CERT_DIR")
        .output()
        .unwrap()
}
