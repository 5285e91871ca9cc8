//! `mainstay canon` as a user starts it.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

pub(crate) fn canon(args: &[&str], stdin: &[u8]) -> Output {
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
pub(crate) fn gives(args: &[&str], stdin: &[u8], code: i32, stdout: &[u8]) -> String {
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
fn the_other_profiles_of_cbor() {
    gives(
        &["cbor", "--profile", "cbor-length-first/1"],
        b"\xa2\x18\x64\x00\x20\x00",
        0,
        b"\xa2\x20\x00\x18\x64\x00",
    );
    gives(
        &["cbor", "--from", "json", "--profile", "dag-cbor/1"],
        b"{\"b\": 1.5, \"a\": -0.0}",
        0,
        b"\xa2\x61a\x00\x61b\xfb\x3f\xf8\0\0\0\0\0\0",
    );
    let refused = gives(
        &["cbor", "--profile", "dag-cbor/1"],
        b"\xa1\x01\x02",
        2,
        b"",
    );
    assert!(refused.contains("text keys only at offset 1"), "{refused}");
    gives(
        &["cbor", "--profile", "dag-cbor/1", "--check", "--json"],
        b"\x81\xf9\x3c\x00",
        1,
        b"{\"canonical\":false,\"column\":null,\"line\":null,\"offset\":1,\"pointer\":null,\"reason\":\"not canonical: floats take 64 bits here\"}\n",
    );
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
        b"{\"canonical\":false,\"column\":4,\"line\":1,\"offset\":3,\"pointer\":\"/1\",\"reason\":\"not canonical: whitespace between tokens\"}\n",
    );
    gives(
        &["cbor", "--check", "--json"],
        b"\x01",
        0,
        b"{\"canonical\":true,\"column\":null,\"line\":null,\"offset\":null,\"pointer\":null,\"reason\":null}\n",
    );
    gives(
        &["cbor", "--check", "--json"],
        b"\x82\x01\x18\x02",
        1,
        b"{\"canonical\":false,\"column\":null,\"line\":null,\"offset\":2,\"pointer\":null,\"reason\":\"not canonical: the length or integer fits a shorter head\"}\n",
    );
    let damaged = canon(&["json", "--check", "--json"], b"{");
    assert_eq!(
        damaged.status.code(),
        Some(1),
        "what is no JSON is not canonical either"
    );
    gives(&["json", "--check", "--from", "cbor"], b"\x01", 2, b"");
    gives(&["json", "--check", "--digest", "sha256"], b"1", 2, b"");
    let stderr = gives(&["json", "--json"], b"1", 2, b"");
    assert!(stderr.contains("--check or --digest"), "{stderr}");
}

#[test]
fn tagged_digests_name_the_profile() {
    // printf '\377jcs/1\000{}' | sha256sum
    gives(
        &["json", "--digest", "sha256", "--tagged"],
        b" { } ",
        0,
        b"7c8c1480da0c7c4cdb58ce5469fb79a24fdbe5d0bc8e9842b775b637579f5b81\n",
    );
    let plain = canon(&["json", "--digest", "blake3"], b"{}").stdout;
    let tagged = |profile: &str| {
        let args = [
            "json",
            "--profile",
            profile,
            "--digest",
            "blake3",
            "--tagged",
        ];
        canon(&args, b"{}").stdout
    };
    assert_ne!(tagged("jcs/1"), plain);
    assert_ne!(tagged("jcs/1"), tagged("json-utf8/1"));
    let json = canon(&["json", "--digest", "sha256", "--tagged", "--json"], b"{}").stdout;
    let json = String::from_utf8(json).expect("JSON");
    assert!(
        json.ends_with("\"profile\":\"jcs/1\",\"tagged\":true}\n"),
        "{json}"
    );
    assert!(json.contains("\"bytes\":2"), "{json}");
    gives(&["json", "--tagged"], b"{}", 2, b"");
    let departed = [
        "json",
        "--digest",
        "sha256",
        "--tagged",
        "--integers",
        "exact",
    ];
    let stderr = gives(&departed, b"{}", 2, b"");
    assert!(stderr.contains("--integers"), "{stderr}");
}

#[test]
fn digests_for_machines() {
    gives(
        &["json", "--digest", "sha256", "--json"],
        b" { } ",
        0,
        b"{\"algorithm\":\"sha256\",\"bytes\":2,\"digest\":\
        \"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\",\"profile\":\"jcs/1\"}\n",
    );
}

#[test]
fn integers_beyond_2_to_the_53_fall_under_the_policy() {
    let text = b"[18014398509481985]";
    let stderr = gives(&["json"], text, 2, b"");
    assert!(stderr.contains("beyond 2^53"), "{stderr}");
    gives(
        &["json", "--integers", "round"],
        text,
        0,
        b"[18014398509481984]",
    );
    gives(
        &["json", "--integers", "string"],
        text,
        0,
        b"[\"18014398509481985\"]",
    );
    let mut child = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    let child = child
        .args(["canon", "json"])
        .env("MAINSTAY_CANON_INTEGERS", "string");
    let mut child = child
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the command starts");
    child
        .stdin
        .take()
        .expect("stdin is piped")
        .write_all(text)
        .expect("it reads");
    let output = child.wait_with_output().expect("the command ends");
    assert_eq!(output.stdout, b"[\"18014398509481985\"]");
    gives(
        &["json", "--from", "cbor", "--integers", "string"],
        b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff",
        0,
        b"\"18446744073709551615\"",
    );
    let from_json = |policy, code, bytes: &[u8]| {
        let id = b"9007199254740993";
        gives(
            &["cbor", "--from", "json", "--integers", policy],
            id,
            code,
            bytes,
        );
    };
    from_json("error", 2, b"");
    from_json("round", 0, b"\x1b\0\x20\0\0\0\0\0\0");
    from_json("string", 0, b"\x709007199254740993");
    from_json("exact", 0, b"\x1b\0\x20\0\0\0\0\0\x01");
}

#[test]
fn bytes_that_the_policy_changed_are_not_called_the_profiles() {
    let exact = ["json", "--integers", "exact"];
    let check = [&exact[..], &["--check"]].concat();
    let said = "stdin: canonical (jcs/1 but for --integers exact)\n";
    gives(&check, b"9007199254740993", 0, said.as_bytes());
    gives(&["json", "--check"], b"1", 0, b"stdin: canonical (jcs/1)\n");
    gives(
        &["cbor", "--integers", "exact", "--check"],
        b"\x01",
        0,
        b"stdin: canonical (cbor-core-det/1)\n",
    );
    let digest = ["--digest", "sha256", "--json"];
    let of_profile = canon(&[&["json"][..], &digest].concat(), b"1").stdout;
    let departed = canon(&[&exact[..], &digest].concat(), b"1").stdout;
    assert!(!String::from_utf8_lossy(&of_profile).contains("integers"));
    assert!(String::from_utf8_lossy(&departed).contains("\"integers\":\"exact\""));
}

#[test]
fn the_limit_on_depth_is_settable() {
    let text = [[b'['; 200], [b']'; 200]].concat();
    let cbor = [&[0x81; 199][..], &[0x80]].concat();
    for (form, input, more) in [
        ("json", &text, vec![]),
        ("cbor", &cbor, vec!["--profile", "dag-cbor/1"]),
    ] {
        let args = [&[form][..], &more].concat();
        let refused = canon(&args, input);
        assert_eq!(refused.status.code(), Some(2));
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains("--depth-max"), "{said}");
        gives(
            &[&args[..], &["--depth-max", "200"]].concat(),
            input,
            0,
            input,
        );
        gives(
            &[&args[..], &["--depth-max", "199"]].concat(),
            input,
            2,
            b"",
        );
        let checked = canon(
            &[&args[..], &["--check", "--depth-max", "200"]].concat(),
            input,
        );
        assert_eq!(checked.status.code(), Some(0));
    }
    gives(
        &["cbor", "--from", "json", "--depth-max", "200"],
        &text,
        0,
        &cbor,
    );
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("deep.json");
    std::fs::write(&file, &text).expect("written");
    let file = file.to_str().expect("a UTF-8 path");
    let stderr = gives(&["eq", file, "-"], &text, 2, b"");
    assert!(stderr.contains("--depth-max"), "{stderr}");
    gives(&["eq", "--depth-max", "200", file, "-"], &text, 0, b"");
}

/// Some 3.5 MB: members in order, whose records are not.
pub(crate) fn large_text() -> (Vec<u8>, Vec<u8>) {
    let (mut text, mut canonical) = (Vec::from(*b"{"), Vec::from(*b"{"));
    for record in 0..40_000 {
        let comma = if record == 0 { "" } else { "," };
        text.extend(format!("{comma} \"key-{record:06}\": {{\"z\": {record}.0, \"name\": \"the record number {record}\", \"a\": []}}\n").into_bytes());
        canonical.extend(format!("{comma}\"key-{record:06}\":{{\"a\":[],\"name\":\"the record number {record}\",\"z\":{record}}}").into_bytes());
    }
    text.push(b'}');
    canonical.push(b'}');
    (text, canonical)
}

/// Runs under a limit of 6 MB for all data of the process: less than a document and its canonical form.
fn with_little_memory(arguments: &str, input: &std::path::Path) -> Output {
    Command::new("sh")
        .args([
            "-c",
            &format!("ulimit -d 6000; exec \"$0\" canon {arguments}"),
        ])
        .arg(env!("CARGO_BIN_EXE_mainstay"))
        .stdin(std::fs::File::open(input).expect("the document opens"))
        .output()
        .expect("the command starts")
}

#[test]
fn large_documents_in_order_stream_through() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("large.json");
    let (text, canonical) = large_text();
    std::fs::write(&file, &text).expect("written");
    // From a file, and from a pipe.
    let path = file.to_str().expect("a UTF-8 path");
    for output in [
        with_little_memory("json", &file),
        with_little_memory(&format!("json {path}"), &file),
        canon(&["json"], &text),
    ] {
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.stdout == canonical, "{} bytes", output.stdout.len());
    }
    std::fs::write(&file, &canonical).expect("written");
    let checked = with_little_memory("json --check", &file);
    assert_eq!(checked.stdout, b"stdin: canonical (jcs/1)\n");
    let digest = with_little_memory("json --digest sha256", &file);
    assert_eq!(
        digest.stdout,
        canon(&["json", "--digest", "sha256"], &text).stdout
    );
    // The limit is one: with everything in memory it does not work.
    let cbor = with_little_memory("cbor --from json", &file);
    assert!(!cbor.status.success());
    // And the same for CBOR.
    std::fs::write(&file, canon(&["cbor", "--from", "json"], &text).stdout).expect("written");
    let streamed = with_little_memory("cbor", &file);
    assert!(streamed.stdout == std::fs::read(&file).expect("readable"));
    let checked = with_little_memory("cbor --check", &file);
    assert_eq!(checked.stdout, b"stdin: canonical (cbor-core-det/1)\n");
    // Text keys have the same order in all profiles, and there are no floats.
    for profile in ["cbor-length-first/1", "dag-cbor/1"] {
        let streamed = with_little_memory(&format!("cbor --profile {profile}"), &file);
        assert!(streamed.stdout == std::fs::read(&file).expect("readable"));
        let checked = with_little_memory(&format!("cbor --profile {profile} --check"), &file);
        let said = format!("stdin: canonical ({profile})\n");
        assert_eq!(checked.stdout, said.as_bytes());
    }
}

#[test]
fn a_full_disk_is_not_blamed_on_the_input() {
    let (text, _) = large_text();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("large.json");
    std::fs::write(&file, &text).unwrap();
    let full = std::fs::File::options().write(true).open("/dev/full");
    let output = Command::new(env!("CARGO_BIN_EXE_mainstay"))
        .args(["canon", "json"])
        .arg(&file)
        .stdout(full.unwrap())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("cannot write to stdout: No space"),
        "{stderr}"
    );
    assert!(!stderr.contains("large.json"), "{stderr}");
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
fn eq_under_rules() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("a UTF-8 path").to_string()
    };
    let rules = file(
        "rules.json",
        r#"{"id":"r","version":"1.0.0","effective_from":"2026-01-01T00:00:00Z","rules":{"null_is_absent":true,
            "fields":{"at":{"time":"epoch_s"},"m":{"aliases":{"cm":{"factor":"0.01"}}}}}}"#,
    );
    let one = file("one.json", r#"{"at":0,"m":2.5,"x":null}"#);
    let same = file(
        "same.json",
        r#"{"cm":250,"at":"1970-01-01T01:00:00+01:00"}"#,
    );
    let other = file("other.json", r#"{"cm":251,"at":0}"#);
    let wrong = file("wrong.json", r#"{"at":true}"#);
    gives(&["eq", "--rules", &rules, &one, &same], b"", 0, b"");
    gives(
        &["eq", &one, &same],
        b"",
        1,
        b"/at differs: 0 against \"1970-01-01T01:00:00+01:00\"\n",
    );
    gives(
        &["eq", "--rules", &rules, &one, &other],
        b"",
        1,
        b"/m differs: 2.5 against 2.51\n",
    );
    let stderr = gives(&["eq", "--rules", &rules, &one, &wrong], b"", 2, b"");
    assert!(
        stderr.contains("wrong.json: the rules want") && stderr.contains("at /at"),
        "{stderr}"
    );
    let stderr = gives(&["eq", "--rules", &one, &one, &same], b"", 2, b"");
    assert!(stderr.contains("one.json: "), "{stderr}");
}

#[test]
fn eq_under_a_rule_book() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("a UTF-8 path").to_string()
    };
    let set = |version: &str, from: &str, rules: &str| {
        let text = format!(
            r#"{{"id":"r","version":"{version}","effective_from":"{from}","rules":{rules}}}"#
        );
        canon_ser::rules::RuleSet::from_json(text.as_bytes()).expect("a rule set")
    };
    let first = set("1.0.0", "2026-01-01T00:00:00Z", "{}");
    let mut rules = canon_ser::rules::RuleBook::new();
    rules.publish(first.clone()).expect("the first version");
    rules
        .publish(set(
            "1.1.0",
            "2026-07-01T00:00:00Z",
            r#"{"null_is_absent":true}"#,
        ))
        .expect("a newer one");
    let book = file("book.json", &rules.to_json());
    let single = file("set.json", first.canonical());
    let one = file("one.json", br#"{"a":1,"x":null}"#);
    let other = file("other.json", br#"{"a":1.0}"#);
    let differs = b"/x is only on the left: null\n";
    let eq = |rules: &str, at: &str, code, stdout: &[u8]| {
        gives(
            &["eq", "--rules", rules, "--at", at, &one, &other],
            b"",
            code,
            stdout,
        )
    };
    eq(&book, "2026-06-30T23:59:59.9999Z", 1, differs);
    eq(&book, "2026-07-01T02:00:00+02:00", 0, b"");
    eq(&single, "2026-07-01T00:00:00Z", 1, differs);
    assert!(eq(&book, "2025-12-31T23:59:59Z", 2, b"").contains("no rules hold at"));
    assert!(eq(&single, "2025-12-31T23:59:59Z", 2, b"").contains("no rules hold at"));
    assert!(eq(&book, "yesterday", 2, b"").contains("RFC 3339"));
    let stderr = gives(&["eq", "--rules", &book, &one, &other], b"", 2, b"");
    assert!(stderr.contains("--at"), "{stderr}");
    gives(
        &["eq", "--at", "2026-07-01T00:00:00Z", &one, &other],
        b"",
        2,
        b"",
    );
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
