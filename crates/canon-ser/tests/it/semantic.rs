//! Same meaning or not, and where not.

use canon_ser::semantic::{diff, equal};

#[track_caller]
fn differ(left: &str, right: &str, pointer: &str, sides: (Option<&str>, Option<&str>)) {
    for (left, right, sides) in [(left, right, sides), (right, left, (sides.1, sides.0))] {
        let found = diff(left.as_bytes(), right.as_bytes())
            .unwrap()
            .expect("they differ");
        assert_eq!(
            (found.pointer(), found.left(), found.right()),
            (pointer, sides.0, sides.1),
            "{left} {right}"
        );
        assert!(!equal(left.as_bytes(), right.as_bytes()).unwrap());
    }
}

#[test]
fn spelling_does_not_matter() {
    for (left, right) in [
        (r#"{"a":1,"b":2}"#, "{ \"b\":2.0,\n\"a\":1e0 }"),
        (r#"["\u0041/"]"#, r#"["A\/"]"#),
        ("[0, -0, 0.10, 1E3]", "[-0.0,0,0.1,1000]"),
        (
            "123456789012345678901234567890",
            "12345678901234567890123456789e1",
        ),
    ] {
        assert_eq!(diff(left.as_bytes(), right.as_bytes()).unwrap(), None);
        assert!(equal(left.as_bytes(), right.as_bytes()).unwrap());
    }
}

#[test]
fn the_first_difference_is_named() {
    differ("1", "2", "", (Some("1"), Some("2")));
    differ("1", "12", "", (Some("1"), Some("12")));
    differ("[]", "{}", "", (Some("[]"), Some("{}")));
    differ("\"a\"", "\"ab\"", "", (Some("\"a\""), Some("\"ab\"")));
    differ(
        r#"{"a":1,"b":{"c":[1,2,{"d":4}]}}"#,
        r#"{"a":1,"b":{"c":[1,2,{"d":5}]}}"#,
        "/b/c/2/d",
        (Some("4"), Some("5")),
    );
    differ(r#"{"a":1}"#, r#"{"a":12}"#, "/a", (Some("1"), Some("12")));
    differ(
        r#"{"a":1}"#,
        r#"{"a":1,"b":[2]}"#,
        "/b",
        (None, Some("[2]")),
    );
    differ(r#"{}"#, r#"{"b":{"x":1}}"#, "/b", (None, Some("{\"x\":1}")));
    differ(
        r#"{"a":1,"c":3}"#,
        r#"{"b":2,"a":1,"c":3}"#,
        "/b",
        (None, Some("2")),
    );
    differ(
        r#"{"x":{"ab":1}}"#,
        r#"{"x":{"aa":1}}"#,
        "/x/aa",
        (None, Some("1")),
    );
    differ(r#"{"ab":1}"#, r#"{"a":1}"#, "/a", (None, Some("1")));
    differ("[1,2]", "[1,2,3]", "/2", (None, Some("3")));
    differ("[[],1]", "[[\"x\"],1]", "/0/0", (None, Some("\"x\"")));
    differ("[\"a\"]", "[\"a\",\"b\"]", "/1", (None, Some("\"b\"")));
    differ(
        "[\"a\"]",
        "[\"a\",{\"b\":1}]",
        "/1",
        (None, Some("{\"b\":1}")),
    );
    differ(
        r#"{"a/b~":{"\n":0}}"#,
        r#"{"a/b~":{"\n":1}}"#,
        "/a~1b~0/\n",
        (Some("0"), Some("1")),
    );
    differ(
        r#"{"a":[1],"b":1}"#,
        r#"{"a":[1,2],"b":1}"#,
        "/a/1",
        (None, Some("2")),
    );
    differ(
        r#"{"a":{},"b":1}"#,
        r#"{"a":{"z":1},"b":1}"#,
        "/a/z",
        (None, Some("1")),
    );
    differ(
        r#"{"a":1.5}"#,
        r#"{"a":"1.5"}"#,
        "/a",
        (Some("1.5"), Some("\"1.5\"")),
    );
    differ(
        "9007199254740993",
        "9007199254740992",
        "",
        (Some("9007199254740993"), Some("9007199254740992")),
    );
}

#[test]
fn bad_text_is_an_error() {
    assert!(diff(b"{", b"{}").unwrap_err().is_syntax());
    assert!(
        equal(b"{}", b"{\"a\":1,\"a\":1}")
            .unwrap_err()
            .is_duplicate_key()
    );
}
