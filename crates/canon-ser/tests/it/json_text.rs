//! JSON text to canonical text: what is refused, and where.

use canon_ser::cbor;
use canon_ser::json::{self, Integers, Options};

#[track_caller]
fn refused(text: &str, line_column: (usize, usize)) -> canon_ser::Error {
    let error = json::canonicalize(text.as_bytes()).expect_err(text);
    assert_eq!(
        (error.line().unwrap(), error.column().unwrap()),
        line_column,
        "{text}: {error}"
    );
    error
}

#[test]
fn malformed_text_with_its_place() {
    for (text, column) in [
        ("", 1),
        (" ", 2),
        ("nul", 1),
        ("nulL", 1),
        ("tru", 1),
        ("[1,]", 4),
        ("[,1]", 2),
        ("[1 2]", 4),
        ("[1", 3),
        ("[1}", 3),
        ("{\"a\":1]", 7),
        ("{\"a\" 1}", 6),
        ("{\"a\":}", 6),
        ("{\"a\":1,}", 8),
        ("{a:1}", 2),
        ("{1:1}", 2),
        ("{", 2),
        ("{\"a\"", 5),
        ("01", 2),
        ("-", 2),
        ("-a", 2),
        ("+1", 1),
        ("1.", 3),
        ("1.e1", 3),
        (".5", 1),
        ("1e", 3),
        ("1e+", 4),
        ("1ex", 3),
        ("0x10", 2),
        ("NaN", 1),
        ("Infinity", 1),
        ("'a'", 1),
        ("\"a", 3),
        ("\"a\\", 4),
        ("\"a\\\"", 5),
        ("\"\u{1}\"", 2),
        ("\"\t\"", 2),
        ("\"\\x\"", 2),
        ("\"\\u12\"", 2),
        ("\"\\u12g4\"", 2),
        ("\"ab\\ud800\"", 4),
        ("\"\\ud800x\"", 2),
        ("\"\\ud800\\u0041\"", 2),
        ("\"\\udc00\\ud800\"", 2),
        ("\"\\ud800\\ud800\"", 2),
        ("\"\\udc00\\udc00\"", 2),
        ("\"\\udfff\\udfff\"", 2),
        ("1 2", 3),
        ("{} []", 4),
        ("\u{feff}1", 1),
        ("[1] // no", 5),
    ] {
        assert!(refused(text, (1, column)).is_syntax(), "{text}");
    }
    refused("[1,\n 2,\n\n  x]", (4, 3));
}

#[test]
fn bytes_that_are_not_utf8() {
    for bad in [
        &b"\"\xff\""[..],
        b"\"\xed\xa0\x80\"",
        b"\"\xc0\x80\"",
        b"\xff",
        b"\"a\xe2\x82\"",
    ] {
        let error = json::canonicalize(bad).unwrap_err();
        assert!(error.is_syntax());
        assert!(error.offset().is_some());
        assert!(json::check(bad).unwrap_err().is_syntax());
    }
}

#[test]
fn duplicates_with_the_place_of_the_second() {
    let duplicate = |text: &str, place, pointer: &str| {
        let error = refused(text, place);
        assert!(error.is_duplicate_key(), "{error}");
        assert_eq!(error.pointer(), Some(pointer));
    };
    duplicate(r#"{"a":1,"a":2}"#, (1, 8), "/a");
    duplicate(
        "[{\"b\":1,\n \"a\":2,\n \"c\":{\"x\":1}, \"b\":3, \"d\":4}]",
        (3, 15),
        "/0/b",
    );
    duplicate(
        r#"{"z":{"y":[{"b":"}","a":"\"{","b":0,"a":0}]}}"#,
        (1, 31),
        "/z/y/0/b",
    );
    duplicate(r#"{"é":1,"\u00e9":2}"#, (1, 9), "/é");
    duplicate(r#"{"x":1,"\n":1,"\u000a":2}"#, (1, 15), "/\n");
}

#[test]
fn strings_take_their_one_form() {
    let text = r#"["\u0041\/\u005C\u0022\b\f\n\r\t\u0000\u001F\u007f\ud83d\ude00", "😀é", ""]"#;
    let expected = "[\"A/\\\\\\\"\\b\\f\\n\\r\\t\\u0000\\u001f\u{7f}😀\",\"😀é\",\"\"]";
    assert_eq!(
        json::canonicalize(text.as_bytes()).unwrap(),
        expected.as_bytes()
    );
    json::check(expected.as_bytes()).unwrap();
}

#[test]
fn escaped_keys_sort_by_what_they_stand_for() {
    let text = r#"{"\u0062":1,"a":2,"\u000a":3,"\"":4,"\u0001":5,"\\":6,"[":7}"#;
    let expected = r#"{"\u0001":5,"\n":3,"\"":4,"[":7,"\\":6,"a":2,"b":1}"#;
    assert_eq!(
        String::from_utf8(json::canonicalize(text.as_bytes()).unwrap()).unwrap(),
        expected
    );
    json::check(expected.as_bytes()).unwrap();
}

#[test]
fn a_million_levels_cost_no_stack() {
    let depth = 1_000_000;
    let open = "[".repeat(depth);
    let objects = "{\"a\":".repeat(depth);
    for text in [&open, &objects] {
        assert!(json::canonicalize(text.as_bytes()).unwrap_err().is_depth());
        assert!(json::check(text.as_bytes()).unwrap_err().is_depth());
    }
    let options = Options::new().depth_max(usize::MAX);
    let whole = format!("{open}{}", "]".repeat(depth));
    assert_eq!(
        json::canonicalize_with(whole.as_bytes(), options).unwrap(),
        whole.as_bytes()
    );
    json::check_with(whole.as_bytes(), options).unwrap();
    let nested = format!(
        "{objects}1{}",
        ",\"0\":2}".repeat(1000) + &"}".repeat(depth - 1000)
    );
    let canonical = json::canonicalize_with(nested.as_bytes(), options).unwrap();
    assert_eq!(canonical.len(), nested.len());
    json::check_with(&canonical, options).unwrap();
}

#[test]
fn depth_counts_open_containers() {
    let nest = |depth: usize| format!("[[],{}{}]", "[".repeat(depth - 1), "]".repeat(depth - 1));
    json::canonicalize(nest(128).as_bytes()).unwrap();
    let error = json::canonicalize(nest(129).as_bytes()).unwrap_err();
    assert!(error.is_depth());
    assert_eq!(error.offset(), Some(4 + 127));
    json::check(nest(128).as_bytes()).unwrap();
    assert!(json::check(nest(129).as_bytes()).unwrap_err().is_depth());
}

#[test]
fn long_disordered_objects() {
    let entries: Vec<String> = (0..3000)
        .map(|n| format!("\"k{}\" : [ {n} ]", (n * 7919) % 3001))
        .collect();
    let text = format!("{{{}}}", entries.join(" , "));
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        json::canonicalize(text.as_bytes()).unwrap(),
        serde_json::to_vec(&value).unwrap()
    );
}

#[test]
fn errors_inside_a_policy_have_a_path() {
    let error = json::canonicalize_with(b"{\"a\":[0,{\"b\":1e999}]}", Integers::Exact).unwrap_err();
    assert_eq!(error.pointer(), Some("/a/1/b"));
    assert_eq!(
        error.to_string(),
        "number out of the range of a double at line 1, column 14 (offset 13, in /a/1/b)"
    );
}

#[test]
fn a_key_that_is_not_read_to_its_end_names_no_member() {
    for (text, pointer) in [
        ("{\"a\":{\"b\":1,\"cd", "/a"),
        ("{\"a\":{\"b\":1,\"cd\\x\":2}}", "/a"),
        ("{\"a\":{\"b\":1,\"cd\u{1}\":2}}", "/a"),
        ("{\"a\":{\"b\":1,\"cd\"", "/a/cd"),
        ("{\"a\":[1,\"cd", "/a/1"),
    ] {
        let error = json::canonicalize(text.as_bytes()).unwrap_err();
        assert_eq!(error.pointer(), Some(pointer), "{text}");
    }
}

/// Groups of many keys that tie in eight bytes behind a prefix, and again behind longer ones.
#[test]
fn keys_that_tie_more_than_once() {
    let long = "x".repeat(40);
    for special in ["", "\\n"] {
        let key = |n: usize| {
            let (outer, inner) = (["a", "b"][n % 2], ["c", "d", "e"][n % 3]);
            format!("{outer}{long}{special}{inner}{long}{}", n * 7919 % 3001)
        };
        let members = |range: std::ops::Range<usize>| -> Vec<String> {
            range.map(|n| format!("\"{}\":{n}", key(n))).collect()
        };
        let text = format!("{{{}}}", members(0..3000).join(","));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let canonical = json::canonicalize(text.as_bytes()).unwrap();
        assert_eq!(canonical, serde_json::to_vec(&value).unwrap());
        let bytes = cbor::from_json(text.as_bytes()).unwrap();
        cbor::check(&bytes).unwrap();
        let twice = [members(0..3000), members(1234..1235)].concat();
        let error = json::canonicalize(format!("{{{}}}", twice.join(",")).as_bytes());
        assert!(error.unwrap_err().is_duplicate_key());
    }
}
