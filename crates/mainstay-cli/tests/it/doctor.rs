//! `mainstay doctor` with fake tools in a folder of its own.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Writes executable scripts through a shell: a file that this process held open for writing while another test
/// forks could not be started ("text file busy").
fn fake_tools(dir: &Path, tools: &[(&str, &str)]) {
    for (path, answer) in tools {
        let file = dir.join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let script = "printf '#!/bin/sh\\necho \"%s\"\\n' \"$1\" > \"$2\" && chmod 755 \"$2\"";
        let status = Command::new("/bin/sh")
            .args(["-c", script, "sh", answer])
            .arg(&file)
            .status()
            .unwrap();
        assert!(status.success());
    }
}

fn doctor(dir: &Path, path: &str, args: &[&str]) -> Output {
    let path = path.split(':').map(|entry| dir.join(entry));
    Command::new(env!("CARGO_BIN_EXE_mainstay"))
        .arg("doctor")
        .args(args)
        .env_clear()
        .env("PATH", std::env::join_paths(path).unwrap())
        .env("HOME", dir.join("home"))
        .current_dir(dir)
        .output()
        .unwrap()
}

#[test]
fn a_healthy_machine_exits_0_with_the_documented_shape() {
    let dir = tempfile::tempdir().unwrap();
    let tools = [
        ("bin/cargo", "cargo 99.1.0"),
        ("bin/rustc", "rustc 99.1.0"),
        ("bin/clang", "clang version 14.0.6"),
    ];
    fake_tools(dir.path(), &tools);
    std::fs::write(dir.path().join("Cargo.toml"), "rust-version = \"99.0\"\n").unwrap();
    let out = doctor(dir.path(), "bin", &["--json"]);
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    let json: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert!(json["kernel"]["release"].is_string());
    for feature in json["features"].as_array().unwrap() {
        assert!(
            feature["name"].is_string()
                && feature["available"].is_boolean()
                && feature["reason"].is_string()
        );
        assert!(feature.get("fallback").is_some());
    }
    if cfg!(all(target_os = "linux", target_pointer_width = "64")) {
        let named = |name| {
            let features = json["features"].as_array().unwrap();
            features.iter().any(|feature| feature["name"] == name)
        };
        assert!(named("descriptors") && named("ring-buffer") && named("fentry"));
    }
    let cargo = &json["toolchain"][0];
    assert_eq!(cargo["tool"], "cargo");
    assert_eq!(cargo["version"], "99.1.0");
    assert_eq!(cargo["shadowed_by"], Value::Null);
    assert_eq!(cargo["ok"], true);
}

#[test]
fn an_old_cargo_in_front_exits_1_and_says_how_to_mend_it() {
    let dir = tempfile::tempdir().unwrap();
    let tools = [
        ("old/cargo", "cargo 1.1.0"),
        ("new/cargo", "cargo 99.1.0"),
        ("new/rustc", "rustc 99.1.0"),
    ];
    fake_tools(dir.path(), &tools);
    std::fs::write(dir.path().join("Cargo.toml"), "rust-version = \"99.0\"\n").unwrap();

    let out = doctor(dir.path(), "old:new", &[]);
    let text = String::from_utf8_lossy(&out.stdout);
    assert_eq!(out.status.code(), Some(1), "{text}");
    assert!(text.contains("is older than 99.0.0"), "{text}");
    assert!(text.contains("new first on PATH"), "{text}");

    let json: Value =
        serde_json::from_slice(&doctor(dir.path(), "old:new", &["--json"]).stdout).unwrap();
    let hidden = &json["toolchain"][1];
    assert!(hidden["path"].as_str().unwrap().ends_with("new/cargo"));
    assert!(
        hidden["shadowed_by"]
            .as_str()
            .unwrap()
            .ends_with("old/cargo")
    );
}
