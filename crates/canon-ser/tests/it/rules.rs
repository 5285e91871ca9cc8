//! Rule sets, the book of them, and comparing under them.

#![cfg(feature = "rules")]

use canon_ser::rules::{RuleBook, RuleSet};
use canon_ser::{digest, json, semantic};

fn document(version: &str, from: &str, rules: &str) -> String {
    format!(
        r#"{{"id":"telemetry","version":"{version}","effective_from":"{from}","rules":{rules}}}"#
    )
}

fn set(version: &str, from: &str, rules: &str) -> RuleSet {
    RuleSet::from_json(document(version, from, rules).as_bytes()).unwrap()
}

fn rules(rules: &str) -> RuleSet {
    set("1.0.0", "2026-01-01T00:00:00Z", rules)
}

#[track_caller]
fn gives(set: &RuleSet, text: &str, expected: &str) {
    let normal = semantic::normalize(text.as_bytes(), set).unwrap();
    assert_eq!(std::str::from_utf8(&normal).unwrap(), expected, "{text}");
    let again = semantic::normalize(&normal, set).unwrap();
    assert_eq!(again, normal, "{text}: idempotent");
}

const TIMES: &str = r#"{"fields":{
    "at": {"time":"epoch_s","aliases":{"at_ms":{"time":"epoch_ms"},"timestamp":{}}},
    "day": {"time":"rfc3339"}
}}"#;

#[test]
fn times_in_every_form_are_one_time() {
    let set = rules(TIMES);
    let expected = r#"{"at":"2026-01-01T00:00:00.25Z"}"#;
    for text in [
        r#"{"at":1767225600.25}"#,
        r#"{"at":1.76722560025e9}"#,
        r#"{"at_ms":1767225600250}"#,
        r#"{"timestamp":1767225600.250}"#,
        r#"{"at":"2026-01-01T01:00:00.250+01:00"}"#,
        r#"{"at_ms":"2025-12-31T23:00:00.25-01:00"}"#,
    ] {
        gives(&set, text, expected);
    }
    gives(&set, r#"{"at":-0.5}"#, r#"{"at":"1969-12-31T23:59:59.5Z"}"#);
    gives(
        &set,
        r#"[{"at":0},{"b":{"at":null}}]"#,
        r#"[{"at":"1970-01-01T00:00:00Z"},{"b":{"at":null}}]"#,
    );
    for (text, pointer) in [
        (r#"{"a":[{"at":"yesterday"}]}"#, "/a/0/at"),
        (r#"{"day":1767225600}"#, "/day"),
        (r#"{"x/y":{"at":[]}}"#, "/x~1y/at"),
        (r#"{"at":1e30}"#, "/at"),
        (r#"{"at":"2016-12-31T23:59:60Z"}"#, "/at"),
    ] {
        let error = semantic::normalize(text.as_bytes(), &set).unwrap_err();
        assert_eq!(error.pointer(), Some(pointer), "{error}");
        assert!(error.is_data(), "{error}");
    }
}

#[test]
fn null_is_an_empty_container_where_the_rules_say_so() {
    let fields = r#""fields":{
        "labels":{"null_is":"empty_object","aliases":{"tags":{}}},
        "items":{"null_is":"empty_array"}
    }"#;
    let set = rules(&format!("{{{fields}}}"));
    let expected = r#"{"items":[],"labels":{},"other":null}"#;
    gives(
        &set,
        r#"{"labels":null,"other":null,"items":null}"#,
        expected,
    );
    gives(&set, r#"{"tags":null,"other":null,"items":[]}"#, expected);
    gives(
        &set,
        r#"[{"tags":{"items":null}}]"#,
        r#"[{"labels":{"items":[]}}]"#,
    );
    // Of the two rules about null, that of the field counts.
    let absent = rules(&format!(r#"{{"null_is_absent":true,{fields}}}"#));
    gives(
        &absent,
        r#"{"labels":null,"other":null,"a":[null]}"#,
        r#"{"a":[null],"labels":{}}"#,
    );
    assert!(!semantic::equal_with(br#"{"labels":null}"#, b"{}", &absent).unwrap());
    for fields in [
        r#"{"a":{"null_is":"empty_object","time":"epoch_s"}}"#,
        r#"{"a":{"null_is":"empty_object","aliases":{"b":{"time":"epoch_s"}}}}"#,
        r#"{"a":{"null_is":"empty_array","aliases":{"b":{"factor":"2"}}}}"#,
        r#"{"a":{"null_is":"zero"}}"#,
    ] {
        let rules = format!(r#"{{"fields":{fields}}}"#);
        let text = document("1.0.0", "2026-01-01T00:00:00Z", &rules);
        assert!(
            RuleSet::from_json(text.as_bytes())
                .unwrap_err()
                .is_document(),
            "{fields}"
        );
    }
}

#[test]
fn units_are_exact_and_aliases_take_the_name() {
    let set = rules(
        r#"{"fields":{"length_m":{"aliases":{
            "length_cm":{"factor":"0.01"},"length_km":{"factor":"1e3"},"len":{}
        }}}}"#,
    );
    gives(&set, r#"{"length_cm":250}"#, r#"{"length_m":2.5}"#);
    gives(&set, r#"{"length_km":0.0025}"#, r#"{"length_m":2.5}"#);
    gives(&set, r#"{"len":2.50}"#, r#"{"length_m":2.5}"#);
    // In binary floats 110 * 0.01 is 1.1 and a bit.
    gives(&set, r#"{"length_cm":110}"#, r#"{"length_m":1.1}"#);
    // The product is exact; as it is no integer, the nearest double is what is printed.
    gives(
        &set,
        r#"{"length_cm":9007199254740993}"#,
        r#"{"length_m":90071992547409.94}"#,
    );
    gives(
        &set,
        r#"{"len":[{"len":1}]}"#,
        r#"{"length_m":[{"length_m":1}]}"#,
    );
    let error = semantic::normalize(br#"{"length_cm":"250"}"#, &set).unwrap_err();
    assert_eq!(error.pointer(), Some("/length_cm"));
    // Twice the same field is an error, even with equal values.
    let error = semantic::normalize(br#"{"length_cm":250,"length_m":2.5}"#, &set).unwrap_err();
    assert!(error.is_duplicate_key(), "{error}");
}

#[test]
fn null_numbers_and_key_order() {
    let text = "{\"\u{ffff}\":[null],\"\u{10000}\":null,\"n\":9007199254740993}";
    gives(
        &rules("{}"),
        text,
        "{\"n\":9007199254740993,\"\u{10000}\":null,\"\u{ffff}\":[null]}",
    );
    gives(
        &rules(r#"{"null_is_absent":true}"#),
        text,
        "{\"n\":9007199254740993,\"\u{ffff}\":[null]}",
    );
    gives(
        &rules(r#"{"numbers":"round","key_order":"utf8"}"#),
        text,
        "{\"n\":9007199254740992,\"\u{ffff}\":[null],\"\u{10000}\":null}",
    );
    let error = semantic::normalize(text.as_bytes(), &rules(r#"{"numbers":"ecmascript"}"#));
    assert!(error.unwrap_err().is_number());
    gives(
        &rules(r#"{"numbers":"ecmascript"}"#),
        "[1e21,1.0]",
        "[1e+21,1]",
    );
    gives(
        &rules(r#"{"numbers":"string"}"#),
        "[9007199254740993]",
        r#"["9007199254740993"]"#,
    );
}

#[test]
fn equal_and_diff_under_rules() {
    let set = rules(TIMES);
    let (left, right) = (br#"{"at":0,"b":1}"#, br#"{"b":1.0,"at_ms":0}"#);
    assert!(semantic::equal_with(left, right, &set).unwrap());
    assert!(!semantic::equal(left, right).unwrap());
    assert_eq!(semantic::diff_with(left, right, &set).unwrap(), None);
    let later = br#"{"b":1,"at_ms":1}"#;
    let found = semantic::diff_with(left, later, &set).unwrap().unwrap();
    assert_eq!(found.pointer(), "/at");
    assert_eq!(found.right(), Some(r#""1970-01-01T00:00:00.001Z""#));
    // The side that lacks a key is told right in either key order.
    let utf8 = rules(r#"{"key_order":"utf8"}"#);
    let (left, right) = ("{\"\u{10000}\":1}", "{\"\u{ffff}\":1}");
    let found = semantic::diff_with(left.as_bytes(), right.as_bytes(), &utf8)
        .unwrap()
        .unwrap();
    assert_eq!((found.pointer(), found.left()), ("/\u{10000}", Some("1")));
}

#[test]
fn the_digest_is_that_of_the_canonical_document() {
    let one = rules(TIMES);
    let spaced = document("1.0.0", "2026-01-01T00:00:00Z", TIMES)
        .replace(':', " : ")
        .replace("00 : 00 : 00", "00:00:00");
    let two = RuleSet::from_json(spaced.as_bytes()).unwrap();
    assert_eq!(one.digest(), two.digest());
    assert_eq!(one.digest(), digest::sha256_bytes(one.canonical()));
    json::check(one.canonical()).unwrap();
    // Golden: as sha256sum prints it. This document has this digest for ever.
    let hex: String = rules("{}")
        .digest()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        hex,
        "5c72eafdb2569345e966b31c24258a56febbfc14d08324dd2ae6cdba0f4bc245"
    );
}

#[test]
fn malformed_documents_are_refused() {
    let good = "2026-01-01T00:00:00Z";
    for text in [
        document("1.0", good, "{}"),
        document("1.0.0-rc1", good, "{}"),
        document("01.0.0", good, "{}"),
        document("1.0.0", "2026-01-01", "{}"),
        document("1.0.0", "2026-01-01T00:00:00.0001Z", "{}"),
        document("1.0.0", good, r#"{"nul_is_absent":true}"#),
        document("1.0.0", good, r#"{"numbers":"roman"}"#),
        document(
            "1.0.0",
            good,
            r#"{"fields":{"a":{"aliases":{"b":{"factor":"x"}}}}}"#,
        ),
        document(
            "1.0.0",
            good,
            r#"{"fields":{"a":{"aliases":{"b":{"factor":"0.0"}}}}}"#,
        ),
        document(
            "1.0.0",
            good,
            r#"{"fields":{"a":{"aliases":{"b":{}}},"b":{}}}"#,
        ),
        document(
            "1.0.0",
            good,
            r#"{"fields":{"a":{"time":"epoch_s","aliases":{"b":{"factor":"2"}}}}}"#,
        ),
        document("1.0.0", good, r#"{"numbers":"exact","numbers":"exact"}"#),
        "{}".to_owned(),
        "{".to_owned(),
        document("1.0.0", good, "{}").replace("telemetry", ""),
    ] {
        let error = RuleSet::from_json(text.as_bytes()).unwrap_err();
        assert!(error.is_document(), "{text}: {error}");
    }
}

fn book() -> RuleBook {
    let mut book = RuleBook::new();
    book.publish(rules("{}")).unwrap();
    book.publish(set(
        "1.1.0",
        "2026-03-01T00:00:00Z",
        r#"{"null_is_absent":true}"#,
    ))
    .unwrap();
    book.publish(set("2.0.0", "2026-06-01T00:00:00+02:00", TIMES))
        .unwrap();
    book
}

#[test]
fn the_book_answers_which_rules_held_when() {
    let book = book();
    let at = |ms: i64| book.at_ms(ms).map(RuleSet::version);
    let starts: Vec<i64> = book.sets().iter().map(RuleSet::effective_from_ms).collect();
    assert_eq!(
        starts,
        [1_767_225_600_000, 1_772_323_200_000, 1_780_264_800_000]
    );
    assert_eq!(at(starts[0] - 1), None);
    assert_eq!(at(starts[0]), Some("1.0.0"));
    assert_eq!(at(starts[1] - 1), Some("1.0.0"));
    assert_eq!(at(starts[1]), Some("1.1.0"));
    assert_eq!(at(starts[2] - 1), Some("1.1.0"));
    assert_eq!(at(starts[2]), Some("2.0.0"));
    assert_eq!(at(i64::MAX), Some("2.0.0"));
    assert_eq!(RuleBook::new().at_ms(0), None);
}

#[test]
fn the_book_refuses_edits_and_going_back() {
    let mut book = book();
    let before = book.clone();
    // The same once more is no edit.
    book.publish(rules("{}")).unwrap();
    let edit = set("1.1.0", "2026-03-01T00:00:00Z", "{}");
    assert!(book.publish(edit).unwrap_err().is_edit());
    for late in [
        set("1.5.0", "2027-01-01T00:00:00Z", "{}"),
        set("2.1.0", "2026-05-31T22:00:00Z", "{}"),
        set("2.1.0", "2026-01-01T00:00:00Z", "{}"),
    ] {
        assert!(book.publish(late).unwrap_err().is_order());
    }
    let other = document("3.0.0", "2027-01-01T00:00:00Z", "{}").replace("telemetry", "other");
    let other = RuleSet::from_json(other.as_bytes()).unwrap();
    assert!(book.publish(other).unwrap_err().is_order());
    assert_eq!(book, before);
}

#[test]
fn old_digests_verify_after_new_versions() {
    let first = rules("{}").digest();
    let mut book = book();
    book.publish(set("10.0.0", "2027-01-01T00:00:00Z", "{}"))
        .unwrap();
    assert!(book.verify("1.0.0", &first).unwrap());
    assert!(!book.verify("1.1.0", &first).unwrap());
    assert!(book.verify("9.9.9", &first).unwrap_err().is_unknown());
    let text = book.to_json();
    json::check(&text).unwrap();
    let read = RuleBook::from_json(&text).unwrap();
    assert_eq!(read, book);
    assert!(read.verify("1.0.0", &first).unwrap());
    // One changed letter in an old version is found out.
    let edited = String::from_utf8(text)
        .unwrap()
        .replace("null_is_absent\":true", "null_is_absent\":false");
    let error = RuleBook::from_json(edited.as_bytes()).unwrap_err();
    assert!(error.is_edit());
    let said = error.to_string();
    assert!(said.contains("does not match its digest"), "{said}");
    assert!(RuleBook::from_json(b"{}").unwrap_err().is_document());
}

#[test]
fn patches_lead_from_version_to_version() {
    let full = book();
    let patch = full.patch_between("1.1.0", "2.0.0").unwrap();
    json::check(&patch).unwrap();
    let mut short = RuleBook::new();
    for set in &full.sets()[..2] {
        short.publish(set.clone()).unwrap();
    }
    short.publish_patch(&patch).unwrap();
    assert_eq!(short, full);
    // Back as well: the document is the old one again, which the book does not publish twice.
    let back = full.patch_between("2.0.0", "1.0.0").unwrap();
    assert!(short.publish_patch(&back).unwrap_err().is_edit());
    assert_eq!(full.patch_between("1.0.0", "1.0.0").unwrap(), b"[]");
    assert!(
        full.patch_between("1.0.0", "7.0.0")
            .unwrap_err()
            .is_unknown()
    );
    for (patch, is_patch) in [
        ("[", true),
        (r#"[{"op":"remove","path":"/nothing"}]"#, true),
        (r#"[{"op":"test","path":"/id","value":"x"}]"#, true),
        (r#"[{"op":"remove","path":"/id"}]"#, false),
    ] {
        let error = short.publish_patch(patch.as_bytes()).unwrap_err();
        assert_eq!(
            (error.is_patch(), error.is_document()),
            (is_patch, !is_patch),
            "{error}"
        );
    }
    assert!(short.publish_patch(b"[]").unwrap_err().is_edit());
    assert_eq!(short, full);
    assert!(RuleBook::new().publish_patch(b"[]").unwrap_err().is_patch());
}
