//! `mainstay canon` as a user starts it.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

fn canon(args: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mainstay"))
        .arg("canon")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    // A command that refuses its arguments may be gone before it reads.
    let _ = child.stdin.take().expect("stdin is piped").write_all(stdin);
    child.wait_with_output().expect("the command ends")
}

#[track_caller]
fn gives(args: &[&str], stdin: &[u8], code: i32, stdout: &[u8]) -> String {
    let output = canon(args, stdin);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{shown} {stderr}");
    assert_eq!(output.stdout, stdout, "{shown} {stderr}");
    stderr
}

#[test]
fn canonical_bytes_without_a_newline() {
    gives(
        &["json"],
        b"{\"b\": 1e2,\n \"a\": \"\\u0041\"}\n",
        0,
        b"{\"a\":\"A\",\"b\":100}",
    );
    gives(&["json", "-"], b" 1.0 ", 0, b"1");
    gives(
        &["cbor", "--from", "json"],
        b"{\"b\": 1.5, \"a\": [1]}",
        0,
        b"\xa2\x61a\x81\x01\x61b\xf9\x3e\x00",
    );
    gives(&["cbor"], b"\x9f\x18\x01\xff", 0, b"\x81\x01");
    gives(
        &["json", "--from", "cbor"],
        b"\xbf\x61b\x01\x61a\xf6\xff",
        0,
        b"{\"a\":null,\"b\":1}",
    );
    gives(&["json", "--from=json"], b"[ ]", 0, b"[]");
}

#[test]
fn profiles_differ_in_key_order() {
    let text = "{\"\u{10000}\":1,\"\u{ffff}\":2}".as_bytes();
    let other = "{\"\u{ffff}\":2,\"\u{10000}\":1}".as_bytes();
    gives(&["json", "--profile", "jcs/1"], other, 0, text);
    gives(&["json", "--profile", "json-utf8/1"], text, 0, other);
    let cbor = canon(
        &["cbor", "--from", "json", "--profile", "cbor-core-det/1"],
        text,
    )
    .stdout;
    gives(
        &["json", "--from", "cbor", "--profile", "json-utf8/1"],
        &cbor,
        0,
        other,
    );
    gives(&["json", "--from", "cbor"], &cbor, 0, text);
    assert!(gives(&["cbor", "--profile", "jcs/1"], b"\x01", 2, b"").contains("jcs/1"));
    assert!(gives(&["json", "--profile", "jcs/9"], b"1", 2, b"").contains("known are jcs/1"));
}

#[test]
fn digests_in_hex_with_a_newline() {
    // As sha256sum and b3sum print them for the bytes `{}` and (CBOR) 0xa0.
    gives(
        &["json", "--digest", "sha256"],
        b" { } ",
        0,
        b"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\n",
    );
    let blake3 = canon(&["json", "--digest", "blake3"], b"{ }");
    assert_eq!(
        (blake3.stdout.len(), blake3.stdout.last()),
        (65, Some(&b'\n'))
    );
    assert_eq!(
        canon(&["json", "--digest", "blake3"], b"{}").stdout,
        blake3.stdout
    );
    assert_ne!(
        canon(&["cbor", "--from", "json", "--digest", "blake3"], b"{}").stdout,
        blake3.stdout
    );
}

#[test]
fn check_says_whether_and_where() {
    gives(
        &["json", "--check"],
        b"{\"a\":1}",
        0,
        b"stdin: canonical (jcs/1)\n",
    );
    gives(
        &["json", "--check"],
        b"{\"b\":1,\"a\":2}",
        1,
        b"stdin: not canonical: keys are out of order at line 1, column 8 (offset 7, in /a)\n",
    );
    gives(
        &["json", "--check", "--json"],
        b"[1, 2]",
        1,
        b"{\"canonical\":false,\"offset\":3,\"reason\":\"not canonical: whitespace between tokens\"}\n",
    );
    gives(
        &["cbor", "--check", "--json"],
        b"\x01",
        0,
        b"{\"canonical\":true,\"offset\":null,\"reason\":null}\n",
    );
    gives(
        &["cbor", "--check", "--json"],
        b"\x82\x01\x18\x02",
        1,
        b"{\"canonical\":false,\"offset\":2,\"reason\":\"not canonical: the length or integer fits a shorter head\"}\n",
    );
    let damaged = canon(&["json", "--check", "--json"], b"{");
    assert_eq!(
        damaged.status.code(),
        Some(1),
        "what is no JSON is not canonical either"
    );
    gives(&["json", "--check", "--from", "cbor"], b"\x01", 2, b"");
    gives(&["json", "--check", "--digest", "sha256"], b"1", 2, b"");
    gives(&["json", "--json"], b"1", 2, b"");
}

#[test]
fn failures_are_named_on_stderr_and_write_nothing() {
    let stderr = gives(&["json"], b"{\"a\":1,\n\"a\":2}", 2, b"");
    assert_eq!(
        stderr,
        "mainstay: stdin: duplicate key at line 2, column 1 (offset 8, in /a)\n"
    );
    assert!(gives(&["cbor"], b"\x82\x01", 2, b"").contains("offset 2"));
    assert!(gives(&["json", "/no/such/file"], b"", 2, b"").contains("/no/such/file"));
    gives(&["xml"], b"", 2, b"");
}

#[test]
fn eq_compares_meaning() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("a UTF-8 path").to_string()
    };
    let one = file("one.json", "{\"a\": [1, 2.50], \"b\": {\"x\": null}}");
    let same = file("same.json", "{\"b\":{\"x\":null},\"a\":[1.0,25e-1]}\n");
    let other = file("other.json", "{\"a\":[1,2.5,3],\"b\":{}}");
    let broken = file("broken.json", "{\"a\":}");
    gives(&["eq", &one, &same], b"", 0, b"");
    gives(
        &["eq", "--json", &one, &same],
        b"",
        0,
        b"{\"equal\":true,\"left\":null,\"pointer\":null,\"right\":null}\n",
    );
    gives(
        &["eq", &one, &other],
        b"",
        1,
        b"/a/2 is only on the right: 3\n",
    );
    gives(
        &["eq", "--json", &other, &one],
        b"",
        1,
        b"{\"equal\":false,\"left\":\"3\",\"pointer\":\"/a/2\",\"right\":null}\n",
    );
    gives(
        &["eq", "-", &same],
        std::fs::read(&one).expect("readable").as_slice(),
        0,
        b"",
    );
    assert!(
        gives(&["eq", &one, &broken], b"", 2, b"")
            .contains("broken.json: expected a value at line 1, column 6")
    );
    gives(&["eq", "-", "-"], b"{}", 2, b"");
    gives(&["eq", &one], b"", 2, b"");
}
