//! `mainstay canon` where its options meet.

use std::process::Command;

use crate::canon::{canon, gives};

#[test]
fn the_environment_conflicts_with_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let rules = file(
        "rules.json",
        r#"{"id":"r","version":"1.0.0","effective_from":"2026-01-01T00:00:00Z","rules":{}}"#,
    );
    let nested = format!("{}{}", "[".repeat(20), "]".repeat(20));
    let nested = file("nested.json", &nested);
    let eq = |more: &[&str], with_rules: bool| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
        command.args(["canon", "eq"]).args(more);
        if with_rules {
            command.arg("--rules").arg(&rules);
        }
        command.args([&nested, &nested]);
        command.env("MAINSTAY_CANON_DEPTH_MAX", "10");
        let output = command.output().expect("the command starts");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), stderr)
    };
    assert_eq!(eq(&[], true), (Some(0), String::new()));
    let (code, stderr) = eq(&["--depth-max", "200"], true);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("--depth-max") && stderr.contains("--rules"));
    assert_eq!(eq(&[], false).0, Some(2), "it holds without rules");
    assert_eq!(eq(&["--depth-max", "20"], false).0, Some(0));
}

#[test]
fn stdin_is_one_document() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("one.json");
    std::fs::write(&file, "{}").expect("written");
    let file = file.to_str().expect("a UTF-8 path");
    for args in [["-", file, "-"], ["-", "-", file], [file, "-", "-"]] {
        let stderr = gives(&[&["eq", "--rules"][..], &args].concat(), b"{}", 2, b"");
        assert!(stderr.contains("only one of"), "{stderr}");
    }
}

#[test]
fn a_check_for_machines_names_the_policy() {
    let args = ["json", "--check", "--json", "--integers", "exact"];
    for (text, code) in [("9007199254740993", 0), ("[9007199254740993, 1]", 1)] {
        let output = canon(&args, text.as_bytes());
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(",\"integers\":\"exact\",\"line\""), "{said}");
    }
}

#[test]
fn what_dag_cbor_cannot_say_of_json_is_told_in_words_of_json() {
    let mut args = vec!["cbor", "--from", "json", "--profile", "dag-cbor/1"];
    gives(
        &args,
        b"[1e20]",
        0,
        b"\x81\xfb\x44\x15\xaf\x1d\x78\xb5\x8c\x40",
    );
    args.extend(["--integers", "exact"]);
    let said = "mainstay: stdin: an integer beyond 64 bits has no form in DAG-CBOR (--integers)\n";
    assert_eq!(gives(&args, b"[1, 1e20]", 2, b""), said);
    let stderr = gives(&args, b"[1, 1e20", 2, b"");
    assert!(stderr.contains("offset 8"), "{stderr}");
}

#[test]
fn one_number_has_one_cbor_under_string() {
    let args = ["cbor", "--from", "json", "--integers", "string"];
    for text in ["1e17", "100000000000000000"] {
        gives(&args, text.as_bytes(), 0, b"\x72100000000000000000");
    }
}
