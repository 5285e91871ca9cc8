//! The password in a store's URL is told to nobody.

use std::process::Command;

/// Starts a gateway that cannot start; what it says.
fn complaint(args: &[&str], store: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_mainstay"))
        .args([
            "gateway",
            "--listen",
            "127.0.0.1:0",
            "--http",
            "127.0.0.1:0",
        ])
        .args(args)
        .arg("--data")
        .arg(dir.path().join("data"))
        .env("MAINSTAY_STORE", store)
        .env("RUST_LOG", "trace")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8(text).unwrap()
}

#[test]
fn a_store_that_cannot_be_reached_is_named_without_its_password() {
    for store in [
        "redis://u:sesame@127.0.0.1:1/?timeout_ms=100",
        "redis://u:sesame@127.0.0.1:x/",
        "redis+sentinel://u:sesame@127.0.0.1:1/?timeout_ms=100&sentinel_password=sesame",
        "postgres://u:sesame@127.0.0.1:1/d?timeout_ms=100",
        "postgres://u:x?sesame@127.0.0.1:1/d",
        "postgres://u@127.0.0.1:1/d?password=sesame&nonsense=1",
        "mysql://u:sesame@127.0.0.1:1/d?timeout_ms=100",
        "mysql://u:x?sesame@127.0.0.1:1/d",
        "mysql://u:x/sesame@127.0.0.1:1/d",
        "nonsense://u:sesame@127.0.0.1:1/d",
    ] {
        let text = complaint(&[], store);
        assert!(text.len() > 20, "{store} says nothing: {text}");
        assert!(!text.contains("sesame"), "{store}: {text}");
    }
}

#[test]
fn a_configuration_file_that_cannot_be_read_is_not_quoted() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gateway.toml");
    let wrong = "shards = 1\nstore = \"redis://u:sesame@h\nhttp = \"h\"\n";
    std::fs::write(&file, wrong).unwrap();
    let text = complaint(&["--config", file.to_str().unwrap()], "");
    assert!(text.contains("line 2"), "{text}");
    assert!(!text.contains("sesame"), "{text}");
}
