//! serde values to canonical JSON.

use std::collections::{BTreeMap, HashMap};

use canon_ser::json::{self, Integers};
use serde::Serialize;

#[track_caller]
fn check<T: Serialize + ?Sized>(value: &T, expected: &str) {
    let bytes = json::to_vec(value).expect("the value has a canonical form");
    assert_eq!(std::str::from_utf8(&bytes).unwrap(), expected);
    json::check(&bytes).expect("what to_vec writes is canonical");
    let mut exact = vec![0; bytes.len()];
    assert_eq!(
        json::to_slice(value, &mut exact).expect("it fits exactly"),
        expected.as_bytes()
    );
    if !bytes.is_empty() {
        let mut short = vec![0; bytes.len() - 1];
        assert!(
            json::to_slice(value, &mut short)
                .unwrap_err()
                .is_buffer_full()
        );
    }
    assert_eq!(json::canonicalize(&bytes).expect("idempotent"), bytes);
}

#[test]
fn struct_fields_are_sorted() {
    #[derive(Serialize)]
    struct Row {
        zebra: u8,
        apple: Option<bool>,
        #[serde(rename = "\u{20ac}")]
        euro: char,
        #[serde(rename = "a\nb")]
        newline: (),
    }
    let row = Row {
        zebra: 1,
        apple: None,
        euro: 'x',
        newline: (),
    };
    check(
        &row,
        "{\"a\\nb\":null,\"apple\":null,\"zebra\":1,\"€\":\"x\"}",
    );
    check(
        &[row],
        "[{\"a\\nb\":null,\"apple\":null,\"zebra\":1,\"€\":\"x\"}]",
    );
}
