//! `mainstay token`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn token(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mainstay"))
        .arg("token")
        .args(args)
        .env_remove("MAINSTAY_TOKEN_DIR")
        .env_remove("XDG_STATE_HOME")
        .env("HOME", dir)
        .current_dir(dir)
        .output()
        .unwrap()
}

fn lines(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{output:?}");
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn new_tokens_differ_over_calls_and_inspect_tells_what_is_in_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    for _ in 0..3 {
        let made = token(
            dir.path(),
            &["new", "-n", "50", "--fingerprint", "order-17"],
        );
        all.extend(lines(&made));
    }
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 150);
    assert!(all.iter().all(|token| token.len() == 22));
    assert!(
        dir.path()
            .join(".local/state/mainstay/token-workers/worker-0000")
            .exists()
    );

    let told = token(
        dir.path(),
        &["inspect", "--json", "--fingerprint", "order-17", &all[0]],
    );
    let told: Value = serde_json::from_str(&lines(&told)[0]).unwrap();
    assert_eq!(told["worker"], 0);
    assert_eq!(told["matches"], true);
    assert!(told["time"].as_str().unwrap().ends_with('Z'));
    assert!(told["time_ms"].as_u64().unwrap() > 1_735_689_600_000);
    let id: u64 = told["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(id & 4095, told["sequence"].as_u64().unwrap());

    let other = token(
        dir.path(),
        &["inspect", "--fingerprint", "order-18", &all[0]],
    );
    assert_eq!(other.status.code(), Some(1));
    let none = token(dir.path(), &["inspect", "no token"]);
    assert_eq!(none.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&none.stderr).contains("not a token"));
}

#[test]
fn a_request_is_its_canonical_form() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.json"), r#"{"n": 1e2, "id": 7}"#).unwrap();
    std::fs::write(dir.path().join("b.json"), r#"{"id":7,"n":100}"#).unwrap();
    std::fs::write(dir.path().join("bad.json"), "{").unwrap();
    let new = [
        "new",
        "--request",
        "a.json",
        "--dir",
        "w",
        "--workers",
        "7",
        "--json",
    ];
    let made: Value = serde_json::from_str(&lines(&token(dir.path(), &new))[0]).unwrap();
    assert_eq!(made["worker"], 7);
    let text = made["token"].as_str().unwrap();
    let told = token(dir.path(), &["inspect", "--request", "b.json", text]);
    assert!(told.status.success(), "{told:?}");
    let bad = token(dir.path(), &["inspect", "--request", "bad.json", text]);
    assert_eq!(bad.status.code(), Some(2));
}

#[test]
fn a_compact_token_needs_its_request() {
    let dir = tempfile::tempdir().unwrap();
    let made = lines(&token(
        dir.path(),
        &["new", "--compact", "--fingerprint", "x"],
    ));
    assert_eq!(made[0].len(), 11);
    let alone = token(dir.path(), &["inspect", &made[0]]);
    assert_eq!(alone.status.code(), Some(2));
    let told = token(
        dir.path(),
        &["inspect", "--json", "--fingerprint", "x", &made[0]],
    );
    let told: Value = serde_json::from_str(&lines(&told)[0]).unwrap();
    assert_eq!(told["worker"], 0);
}

#[test]
fn help_has_an_example_and_completions_know_it() {
    let dir = tempfile::tempdir().unwrap();
    for args in [&["--help"][..], &["new", "--help"], &["inspect", "--help"]] {
        let help = lines(&token(dir.path(), args)).join("\n");
        assert!(help.contains("Example"), "{help}");
    }
    let script = Command::new(env!("CARGO_BIN_EXE_mainstay"))
        .args(["completions", "bash"])
        .output()
        .unwrap();
    let script = String::from_utf8(script.stdout).unwrap();
    assert!(
        script.contains("mainstay__subcmd__token__subcmd__inspect"),
        "no completion"
    );
}
