//! `mainstay store` on stores made here.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use idem_store::{Begin, Fingerprint, Options, Store};
use serde_json::{Value, json};

const FAR_MS: u64 = 4_000_000_000_000;

/// A store with an outcome, a final failure and a key in doubt; closed.
fn filled(dir: &Path) {
    let store = Store::open(dir, Options::new()).unwrap();
    let begin = |key: &'static [u8]| {
        let begin = Begin::new(key, Fingerprint([7; 32]), 1_000, 1).declare(b"memo\x01");
        store.begin(&begin).wait().unwrap().into_fresh().unwrap()
    };
    store
        .complete(begin(b"done"), b"it worked", FAR_MS, 1)
        .wait()
        .unwrap();
    store
        .complete(begin(&[0xff, 1]), b"binary", FAR_MS, 1)
        .wait()
        .unwrap();
    drop(begin(b"doubt"));
    store.close().unwrap();
}

fn mainstay(dir: &Path, before: &[&str], after: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mainstay"))
        .arg("store")
        .args(before)
        .arg(dir)
        .args(after)
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it was not killed")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Flips a bit of the first claim's key.
fn damage(dir: &Path) -> PathBuf {
    let path = dir.join("0000000001.seg");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes
        .windows(4)
        .position(|window| window == b"done")
        .unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn verify_of_a_whole_store_has_the_documented_shape() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let output = mainstay(dir.path(), &["verify", "--json"], &[]);
    assert_eq!(code(&output), 0);
    let found = json(&output);
    assert_eq!(found["ok"], true);
    assert_eq!(found["segments"], 1);
    // Opened, three claims, two outcomes, closed.
    assert_eq!(found["records"], 7);
    assert_eq!(found["bad"], json!([]));
    assert_eq!(found["in_use"], false);
    let output = mainstay(dir.path(), &["verify"], &[]);
    assert_eq!(text(&output.stdout), "whole: 7 records in 1 segments\n");
}

#[test]
fn verify_of_a_damaged_store_exits_1_and_says_where() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    damage(dir.path());
    let output = mainstay(dir.path(), &["verify", "--json"], &[]);
    assert_eq!(code(&output), 1);
    let found = json(&output);
    assert_eq!(found["ok"], false);
    assert_eq!(found["bad"][0]["segment"], 1);
    assert!(found["bad"][0]["offset"].as_u64().unwrap() >= 4096);
    assert_eq!(found["bad"][0]["reason"], "record checksum does not match");
    let output = mainstay(dir.path(), &["verify"], &[]);
    assert_eq!(code(&output), 1);
    assert!(
        text(&output.stdout).starts_with("DAMAGED"),
        "{}",
        text(&output.stdout)
    );
}

#[test]
fn a_store_in_use_can_be_looked_at_but_not_repaired() {
    let dir = tempfile::tempdir().unwrap();
    // As a gateway lays it out: the store is in a directory below --data.
    filled(&dir.path().join("store"));
    let store = Store::open(dir.path().join("store"), Options::new()).unwrap();
    let output = mainstay(dir.path(), &["verify", "--json"], &[]);
    assert_eq!(code(&output), 0);
    assert_eq!(json(&output)["in_use"], true);
    assert_eq!(code(&mainstay(dir.path(), &["stats"], &[])), 0);
    assert_eq!(code(&mainstay(dir.path(), &["get"], &["done"])), 0);
    assert_eq!(
        code(&mainstay(dir.path(), &["repair", "--dry-run"], &[])),
        0
    );
    let output = mainstay(dir.path(), &["repair"], &[]);
    assert_eq!(code(&output), 2);
    assert!(
        text(&output.stderr).contains("open elsewhere"),
        "{}",
        text(&output.stderr)
    );
    drop(store);
}

#[test]
fn stats_and_get_tell_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let stats = json(&mainstay(dir.path(), &["stats", "--json"], &[]));
    assert_eq!(stats["keys_stored"], 2);
    assert_eq!(stats["keys_in_doubt"], 1);

    let output = mainstay(dir.path(), &["get", "--json"], &["done"]);
    assert_eq!(code(&output), 0);
    let found = json(&output);
    assert_eq!(
        (&found["state"], &found["outcome"]),
        (&json!("completed"), &json!("it worked"))
    );
    assert_eq!(found["fingerprint"], "07".repeat(32));

    let found = json(&mainstay(
        dir.path(),
        &["get", "--json", "--hex"],
        &["ff01"],
    ));
    assert_eq!(found["outcome_hex"], "62696e617279");

    // Without a key: all that are in doubt, with nothing that could control a terminal.
    let output = mainstay(dir.path(), &["get"], &[]);
    assert!(
        text(&output.stdout).contains("doubt  token"),
        "{}",
        text(&output.stdout)
    );
    assert!(
        text(&output.stdout).contains(r"memo memo\x01"),
        "{}",
        text(&output.stdout)
    );
    let found = json(&mainstay(dir.path(), &["get", "--json"], &[]));
    assert_eq!(found["in_doubt"][0]["key"], "doubt");

    let found = json(&mainstay(dir.path(), &["get", "--json"], &["doubt"]));
    assert_eq!(
        (&found["state"], &found["memo_hex"]),
        (&json!("in-doubt"), &json!("6d656d6f01"))
    );

    let output = mainstay(dir.path(), &["get", "--json"], &["unknown"]);
    assert_eq!(
        (code(&output), &json(&output)["state"]),
        (1, &json!("absent"))
    );
}

#[test]
fn repair_says_first_then_does_and_keeps_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let path = damage(dir.path());
    let before = std::fs::read(&path).unwrap();
    let output = mainstay(dir.path(), &["repair", "--dry-run", "--json"], &[]);
    assert_eq!(code(&output), 1);
    assert_eq!(json(&output)["changed"], false);
    assert_eq!(std::fs::read(&path).unwrap(), before);

    let output = mainstay(dir.path(), &["repair", "--json"], &[]);
    assert_eq!(code(&output), 0);
    let done = json(&output);
    assert_eq!(done["changed"], true);
    let backup = dir.path().join(done["backups"][0].as_str().unwrap());
    assert_eq!(std::fs::read(backup).unwrap(), before);
    assert_eq!(code(&mainstay(dir.path(), &["verify"], &[])), 0);
    // The damaged record was a claim; its outcome came later and is whole.
    assert_eq!(code(&mainstay(dir.path(), &["get"], &["done"])), 0);
    let output = mainstay(dir.path(), &["repair"], &[]);
    assert_eq!(text(&output.stdout), "whole: there is nothing to repair\n");
}

#[test]
fn a_directory_without_a_store_is_a_failure_that_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["verify", "stats", "get", "repair"] {
        let output = mainstay(dir.path(), &[command], &[]);
        assert_eq!(code(&output), 2, "{command}");
        assert!(text(&output.stderr).contains("no store in"), "{command}");
    }
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    for no_hex in ["xyz", "a", "+f", "0x", "é"] {
        let output = mainstay(dir.path(), &["get", "--hex"], &[no_hex]);
        assert_eq!(code(&output), 2, "{no_hex}");
        assert!(text(&output.stderr).contains("hexadecimal"), "{no_hex}");
    }
}

#[test]
fn a_path_that_holds_no_store_is_called_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("file"), "text").unwrap();
    for name in ["other", "outer", "lost", "inner"] {
        std::fs::create_dir(at(name)).unwrap();
    }
    std::fs::write(at("other").join("notes.seg"), "text").unwrap();
    std::fs::write(at("outer").join("store"), "text").unwrap();
    std::fs::create_dir(at("inner").join("store")).unwrap();
    std::fs::write(at("lost").join("index.snap"), "text").unwrap();
    for (name, says) in [
        ("absent", "there is no directory"),
        ("file", "is not a directory"),
        ("file/below", "is not a directory"),
        ("other", "there is no store in"),
        ("inner", "there is no store in"),
        ("outer", "outer/store is not a directory"),
        ("lost", "has lost its segments"),
    ] {
        for command in ["verify", "stats", "get", "repair"] {
            let output = mainstay(&at(name), &[command], &[]);
            assert_eq!(code(&output), 2, "{command} {name}");
            let told = text(&output.stderr);
            assert!(told.contains(says), "{command} {name}: {told}");
        }
    }
}

/// Runs `command` as a user whom permissions bind; root they do not.
fn as_somebody(program: &Path, command: &str, dir: &Path) -> Output {
    const NOBODY: u32 = 65_534;
    let mut somebody = Command::new(program);
    somebody.args(["store", command]).arg(dir);
    if rustix::process::geteuid().is_root() {
        somebody.uid(NOBODY).gid(NOBODY);
    }
    somebody.output().unwrap()
}

#[test]
fn a_directory_that_may_not_be_read_is_not_called_empty() {
    let allow = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let dir = tempfile::tempdir().unwrap();
    allow(dir.path(), 0o755);
    // Where it was built somebody else may have no way to.
    let program = dir.path().join("mainstay");
    let built = env!("CARGO_BIN_EXE_mainstay");
    if std::fs::hard_link(built, &program).is_err() {
        std::fs::copy(built, &program).unwrap();
    }
    let data = dir.path().join("data");
    let store = data.join("store");
    std::fs::create_dir(&data).unwrap();
    filled(&store);
    let segment = store.join("0000000001.seg");
    for (forbidden, mode, says) in [
        (&data, 0o000, "may not be read"),
        (&data, 0o311, "may not be read"),
        (&store, 0o300, "may not be read"),
        (&segment, 0o000, "Permission denied"),
    ] {
        let before = forbidden.metadata().unwrap().permissions().mode();
        allow(forbidden, mode);
        for command in ["verify", "stats", "get"] {
            let output = as_somebody(&program, command, &data);
            let told = text(&output.stderr);
            assert_eq!(code(&output), 2, "{command} {forbidden:?}: {told}");
            assert!(told.contains(says), "{command} {forbidden:?}: {told}");
            assert!(!told.contains("no store"), "{command}: {told}");
        }
        allow(forbidden, before);
    }
}

#[test]
fn keys_of_a_gateway_are_shown_and_asked_for_by_device() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::new()).unwrap();
    let begin = |key: &[u8]| {
        let begin = Begin::new(key, Fingerprint([7; 32]), 1_000, 1).declare(b"memo");
        store.begin(&begin).wait().unwrap().into_fresh().unwrap()
    };
    let done = begin(&gateway::server::store_key("sensor-1", "order-17"));
    store.complete(done, b"ok", FAR_MS, 1).wait().unwrap();
    drop(begin(&gateway::server::store_key("sensor-2", "order-18")));
    store.close().unwrap();

    let get = ["get", "--json", "--device", "sensor-1"];
    let output = mainstay(dir.path(), &get, &["order-17"]);
    assert_eq!(code(&output), 0);
    assert_eq!(json(&output)["outcome"], "ok");
    assert_eq!(code(&mainstay(dir.path(), &["get"], &["order-17"])), 1);

    let output = mainstay(dir.path(), &["get"], &[]);
    let shown = text(&output.stdout);
    assert!(shown.contains("device sensor-2 key order-18"), "{shown}");
    let found = json(&mainstay(dir.path(), &["get", "--json"], &[]));
    let doubt = &found["in_doubt"][0];
    assert_eq!(
        (&doubt["device"], &doubt["idempotency_key"]),
        (&json!("sensor-2"), &json!("order-18"))
    );
    let stats = json(&mainstay(dir.path(), &["stats", "--json"], &[]));
    assert!(stats["retention_bytes"]["later"].as_u64().unwrap() > 0);
    assert_eq!(stats["index"], Value::Null);
}

#[test]
fn an_index_snapshot_is_checked_shown_and_removed_when_it_is_bad() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().index_log_bytes(1);
    let store = Store::open(dir.path(), options).unwrap();
    let mut number = 0_u32;
    while store.stats().index_snapshots == 0 {
        let key = number.to_le_bytes();
        let begin = Begin::new(&key, Fingerprint([7; 32]), 1_000, 1);
        let permit = store.begin(&begin).wait().unwrap().into_fresh().unwrap();
        store.complete(permit, b"ok", FAR_MS, 1).wait().unwrap();
        number += 1;
    }
    store.close().unwrap();
    let output = mainstay(dir.path(), &["verify"], &[]);
    assert_eq!(code(&output), 0);
    assert!(text(&output.stdout).contains("index snapshot of"));
    let stats = json(&mainstay(dir.path(), &["stats", "--json"], &[]));
    assert!(stats["index"]["bytes"].as_u64().unwrap() > 4_096);

    let path = dir.path().join("index.snap");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[90] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let output = mainstay(dir.path(), &["verify", "--json"], &[]);
    assert_eq!(code(&output), 1);
    assert!(json(&output)["index"]["bad"].is_string());
    let output = mainstay(dir.path(), &["repair", "--json"], &[]);
    assert_eq!((code(&output), path.exists()), (0, false));
    assert_eq!(json(&output)["index_removed"], true);
    assert_eq!(code(&mainstay(dir.path(), &["verify"], &[])), 0);
}
