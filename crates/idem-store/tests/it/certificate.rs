//! Certificates that sign themselves.

use std::path::Path;
use std::process::Command;

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
