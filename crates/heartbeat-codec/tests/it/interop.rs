//! docs/FORMAT.md against Python: an implementation of its own, and what protoc generates.

use std::io::Write;
use std::path::Path;
use std::process::Command;

/// The script's output; none, and said so, when there is no Python or the script lacks something.
fn python(test: &str, script: &str, arguments: &[&Path]) -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("python3");
    command
        .arg("-B")
        .arg(root.join("tests/interop").join(script))
        .arg(root.join("docs/FORMAT.md"))
        .args(arguments);
    let Ok(output) = command.output() else {
        skip(test, "python3 is missing");
        return None;
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    match said.strip_prefix("SKIP: ") {
        Some(why) => {
            skip(test, why.trim());
            None
        }
        None => Some(said),
    }
}

/// Says so, also where the test runner collects reasons.
#[expect(clippy::print_stdout, reason = "the harness shows it beside the test")]
fn skip(test: &str, why: &str) {
    println!("SKIP: {test}: {why}");
    if let Some(log) = std::env::var_os("MAINSTAY_SKIP_LOG") {
        let log = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(log);
        writeln!(log.expect("the log opens"), "{test}: {why}").expect("the log takes a line");
    }
}

#[test]
fn python_agrees_with_every_vector() {
    let Some(said) = python("python_agrees_with_every_vector", "format.py", &[]) else {
        return;
    };
    let checked: usize = said
        .lines()
        .map(|line| line.rsplit_once(' ').expect("name count").1)
        .map(|count| count.parse::<usize>().expect("a count"))
        .sum();
    assert!(checked >= 60, "{said}");
}

#[test]
fn protoc_generates_what_reads_and_writes_the_vectors() {
    let empty = tempfile::tempdir().expect("a directory");
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let test = "protoc_generates_what_reads_and_writes_the_vectors";
    if let Some(said) = python(test, "protobuf.py", &[&proto, empty.path()]) {
        assert_eq!(said, "protobuf 5\n");
    }
}
