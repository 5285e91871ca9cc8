//! Certificates that sign themselves, and processes that trust one of them.

use std::path::Path;
use std::process::{Command, Output};

use idem_store::{Begin, Fingerprint, Options, Store};

use crate::contract::{DAY, LEASE, fresh};

/// Where a child connects to.
const URL: &str = "MAINSTAY_TLS_URL";

/// A certificate for this machine that signs itself; its key lies beside it.
pub(crate) fn certificate(dir: &Path, name: &str) -> String {
    let file = dir.join(name).into_os_string().into_string().unwrap();
    let settings = format!("{file}.settings");
    let text = "[req]\ndistinguished_name = name\nx509_extensions = extensions\nprompt = no\n\
                [name]\nCN = localhost\n\
                [extensions]\nbasicConstraints = CA:FALSE\nsubjectAltName = DNS:localhost\n";
    std::fs::write(&settings, text).unwrap();
    let mut openssl = Command::new("openssl");
    openssl
        .args(["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec"])
        .args(["-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-config", &settings, "-out", &file])
        .args(["-keyout", &format!("{file}.key")]);
    let made = openssl.output().expect("openssl is installed");
    assert!(made.status.success(), "{made:?}");
    file
}

/// What a child does once.
pub(crate) fn begin() -> Begin<'static> {
    Begin::new(b"over TLS", Fingerprint([1; 32]), LEASE, 0)
}

/// What a child does; nothing in a normal run.
pub(crate) fn child() {
    let Ok(url) = std::env::var(URL) else {
        return;
    };
    let store = Store::connect(&url, Options::new()).expect("connects");
    let permit = fresh(&store, begin());
    store.complete(permit, b"done", DAY, 0).wait().unwrap();
}

/// Runs `test`, which calls [`child`], in a process of its own: trusted certificates are named by the environment.
pub(crate) fn run_child(test: &str, url: &str, trusted: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(URL, url)
        .env("SSL_CERT_FILE", trusted)
        .env_remove("SSL_CERT_DIR")
        .output()
        .unwrap()
}
