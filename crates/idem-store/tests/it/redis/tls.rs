//! `rediss://` to a real server, with a certificate that the system trusts and with another.

use std::process::{Command, Output};

use idem_store::{Options, Store};

use super::server::Server;
use crate::certificate::certificate;
use crate::contract::{DAY, LEASE, fresh, replayed};
use crate::ports::free_port;

/// Where the child connects to.
const URL: &str = "MAINSTAY_TLS_URL";

const KEY: &[u8] = b"over TLS";

fn begin() -> idem_store::Begin<'static> {
    idem_store::Begin::new(KEY, idem_store::Fingerprint([1; 32]), LEASE, 0)
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
    let (ours, other) = (
        certificate(dir.path(), "ours"),
        certificate(dir.path(), "other"),
    );
    let port = free_port();
    let server = Server::with(&[
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--bind",
        "127.0.0.1",
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &ours,
        "--tls-key-file",
        &format!("{ours}.key"),
        "--tls-auth-clients",
        "no",
    ]);
    let url = format!("rediss://localhost:{port}?timeout_ms=20000");
    let refused = run_child(&url, &other);
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("certificate"), "{said}");
    let reached = run_child(&url, &ours);
    assert!(reached.status.success(), "{reached:?}");
    let direct = Store::connect(&server.url(""), Options::new()).unwrap();
    assert_eq!(replayed(&direct, begin()).outcome(), b"done");
}

fn run_child(url: &str, trusted: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "redis::tls::child", "--nocapture"])
        .env(URL, url)
        .env("SSL_CERT_FILE", trusted)
        .env_remove("SSL_CERT_DIR")
        .output()
        .unwrap()
}
