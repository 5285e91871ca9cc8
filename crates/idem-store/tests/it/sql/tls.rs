//! `sslmode=require` to a real PostgreSQL, with a certificate that the system trusts and with another.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Output};

use idem_store::{Begin, Fingerprint, Options, Store};

use super::server::{POSTGRES, Server, give_to};
use crate::certificate::certificate;
use crate::contract::{DAY, LEASE, fresh, replayed};
use crate::ports::free_port;

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
    let (server, port) = server_with(&ours);
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

fn run_child(url: &str, trusted: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sql::tls::child", "--nocapture"])
        .env(URL, url)
        .env("SSL_CERT_FILE", trusted)
        .env_remove("SSL_CERT_DIR")
        .output()
        .unwrap()
}
