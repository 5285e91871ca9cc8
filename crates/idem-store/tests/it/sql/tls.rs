//! `sslmode=require` to a real PostgreSQL, with a certificate that the system trusts and with another.

use std::os::unix::fs::{PermissionsExt, symlink};

use idem_store::{Options, Store};

use super::server::{POSTGRES, Server, give_to};
use crate::certificate::{self, begin, certificate, run_child};
use crate::contract::replayed;
use crate::ports::free_port;

const CHILD: &str = "sql::tls::child";

#[test]
fn child() {
    certificate::child();
}

#[test]
fn a_server_is_reached_over_tls_if_its_certificate_is_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let [ours, other] = ["ours", "other"].map(|name| certificate(dir.path(), name));
    let (server, port) = server_with(&ours);
    let url = |timeout_ms: u32| {
        format!(
            "postgres://mainstay@localhost:{port}/postgres?sslmode=require&timeout_ms={timeout_ms}"
        )
    };
    let refused = run_child(CHILD, &url(1_000), &other);
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("certificate"), "{said}");
    let reached = run_child(CHILD, &url(20_000), &ours);
    assert!(reached.status.success(), "{reached:?}");
    let direct = Store::connect(&server.url(""), Options::new()).unwrap();
    assert_eq!(replayed(&direct, begin()).outcome(), b"done");
    // The rule of the server lets nobody in over TCP without it.
    let plain = run_child(CHILD, &url(1_000).replace("require", "disable"), &ours);
    assert!(!plain.status.success());
}

/// A server that is reached over TLS too, with this certificate, and its port on localhost.
fn server_with(certificate: &str) -> (Server, u16) {
    let port = free_port();
    let server = Server::start_with(&POSTGRES, |dir| {
        for (from, to) in [("", "server.crt"), (".key", "server.key")] {
            let to = dir.join("data").join(to);
            std::fs::copy(format!("{certificate}{from}"), &to).unwrap();
            std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o600)).unwrap();
            give_to(&to, POSTGRES.user);
        }
        // The others look for the socket under its usual name.
        symlink(format!(".s.PGSQL.{port}"), dir.join(POSTGRES.socket)).unwrap();
        let rules = "local all all trust\nhostssl all all 127.0.0.1/32 trust\n\
                     hostssl all all ::1/128 trust\n";
        std::fs::write(dir.join("data/pg_hba.conf"), rules).unwrap();
        let port = format!("port={port}");
        ["listen_addresses=localhost", "ssl=on", &port]
            .into_iter()
            .flat_map(|setting| ["-c".to_owned(), setting.to_owned()])
            .collect()
    });
    (server, port)
}
