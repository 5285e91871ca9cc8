//! `rediss://` to a real server, with a certificate that the system trusts and with another.

use idem_store::{Options, Store};

use super::server::Server;
use crate::certificate::{self, begin, certificate, run_child};
use crate::contract::replayed;
use crate::ports::free_port;

const CHILD: &str = "redis::tls::child";

#[test]
fn child() {
    certificate::child();
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
    let refused = run_child(CHILD, &url, &other);
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("certificate"), "{said}");
    let reached = run_child(CHILD, &url, &ours);
    assert!(reached.status.success(), "{reached:?}");
    let direct = Store::connect(&server.url(""), Options::new()).unwrap();
    assert_eq!(replayed(&direct, begin()).outcome(), b"done");
}
