//! `mainstay canon` and what comes through a pipe.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Output, Stdio};

use crate::canon::{canon, gives, large_text};

/// Starts the command with pipes around it, and a folder in place of the temporary one.
fn start(args: &[&str], temporary: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_mainstay"))
        .arg("canon")
        .args(args)
        .env("TMPDIR", temporary)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts")
}

/// Runs it while the input is being written.
fn while_reading(args: &[&str], input: &[u8]) -> Output {
    let mut child = start(args, NOWHERE);
    let mut stdin = child.stdin.take().expect("stdin is piped");
    std::thread::scope(|scope| {
        // It may be gone before it has read everything.
        scope.spawn(move || _ = stdin.write_all(input));
        child.wait_with_output().expect("the command ends")
    })
}

const NOWHERE: &str = "/nowhere/at/all";

#[test]
fn a_pipe_that_cannot_be_copied_names_the_directory() {
    let mut child = start(&["json", "--digest", "sha256"], NOWHERE);
    let _ = child.stdin.take().unwrap().write_all(&vec![b' '; 2 << 20]);
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains(NOWHERE), "{stderr}");
}

/// The pipe stays open: an answer comes nevertheless, once what is wrong has been read.
#[test]
fn damage_is_told_while_the_pipe_is_open() {
    let whole = [b"[2,".to_vec(), b"1,".repeat(1 << 20)].concat();
    for (args, input, code) in [
        (&["json", "--check"][..], &b"{\"b\":1,\"a\":2,"[..], 1),
        (&["cbor", "--check"], b"\x82\x01\x18\x02", 1),
        (&["json", "--stream"], b"[1,x", 2),
        // A first piece is awaited, but not the rest.
        (&["json"], &[b"[1,x", &whole[..]].concat(), 2),
    ] {
        let mut child = start(args, NOWHERE);
        let mut stdin = child.stdin.take().expect("stdin is piped");
        // It may be gone before it has read everything.
        let _ = stdin.write_all(input);
        let status = child.wait().expect("the command ends");
        assert_eq!(status.code(), Some(code), "{args:?}");
        drop(stdin);
    }
    // It has not ended, and it is not said to have.
    let mut child = start(&["cbor", "--check"], NOWHERE);
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let _ = stdin.write_all(&[0x9b, 255, 255, 255, 255, 255, 255, 255, 255]);
    let output = child.wait_with_output().expect("the command ends");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("more than any input holds"), "{said}");
    drop(stdin);
}

#[test]
fn a_check_copies_nothing() {
    let (_, canonical) = large_text();
    let mut child = start(&["json", "--check"], NOWHERE);
    let mut stdin = child.stdin.take().expect("stdin is piped");
    stdin.write_all(&canonical).expect("it reads all of it");
    drop(stdin);
    let output = child.wait_with_output().expect("the command ends");
    assert_eq!(output.stdout, b"stdin: canonical (jcs/1)\n");
    let late = canon(
        &["json", "--check", "--json"],
        &[&canonical[..], b"x"].concat(),
    );
    let said = String::from_utf8(late.stdout).expect("JSON");
    let column = format!("\"column\":{},\"line\":1,", canonical.len() + 1);
    assert!(said.contains(&column), "{said}");
}

/// Written while it is read: output comes before the input ends, and no file is needed.
#[test]
fn what_is_in_order_streams_from_a_pipe() {
    let (text, canonical) = large_text();
    let mut child = start(&["json", "--stream"], NOWHERE);
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let mut stdout = child.stdout.take().expect("stdout is piped");
    let half = text.len() / 2;
    let (first, rest) = text.split_at(half);
    let first = first.to_vec();
    let writer = std::thread::spawn(move || {
        stdin.write_all(&first).expect("it reads");
        stdin
    });
    let mut out = vec![0; 1 << 20];
    stdout
        .read_exact(&mut out)
        .expect("output before the end of the input");
    let rest = rest.to_vec();
    let writer = std::thread::spawn(move || {
        let mut stdin = writer.join().expect("the first half was written");
        stdin.write_all(&rest).expect("it reads");
    });
    stdout.read_to_end(&mut out).expect("the rest");
    writer.join().expect("the second half was written");
    assert!(out == canonical, "{} bytes", out.len());
    assert!(child.wait().expect("the command ends").success());
    let cbor = canon(&["cbor", "--from", "json"], &text).stdout;
    let streamed = while_reading(&["cbor", "--stream"], &cbor).stdout;
    assert!(streamed == cbor, "{} bytes", streamed.len());
    let digest = canon(&["json", "--digest", "sha256"], &text).stdout;
    let streamed = while_reading(&["json", "--digest", "sha256", "--stream"], &text);
    assert_eq!(streamed.stdout, digest);
}

#[test]
fn what_is_out_of_order_too_late_needs_another_reading() {
    let (mut text, mut canonical) = large_text();
    text.truncate(text.len() - 1);
    text.extend(b",\"a\":1}");
    canonical.splice(1..1, *b"\"a\":1,");
    gives(&["json"], &text, 0, &canonical);
    let refused = while_reading(&["json", "--stream"], &text);
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("leave --stream out"), "{said}");
    gives(&["cbor", "--stream", "--from", "json"], b"1", 2, b"");
    gives(&["json", "--stream", "--check"], b"1", 2, b"");
}

#[test]
fn no_more_of_a_pipe_is_kept_than_allowed() {
    let (text, canonical) = large_text();
    for args in [
        &["json", "--spool-max", "2MiB"][..],
        &["cbor", "--from", "json", "--spool-max", "2MiB"],
    ] {
        let stderr = gives(args, &text, 2, b"");
        assert!(stderr.contains("--spool-max"), "{stderr}");
    }
    let enough = text.len().to_string();
    gives(&["json", "--spool-max", &enough], &text, 0, &canonical);
    // A file is not copied.
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("large.json");
    std::fs::write(&file, &text).expect("written");
    let file = file.to_str().expect("a UTF-8 path");
    gives(&["json", "--spool-max", "0", file], b"", 0, &canonical);
}
