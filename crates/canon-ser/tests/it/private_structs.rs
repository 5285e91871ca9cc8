//! What serde_json's features put in place of numbers and text must not corrupt the output.

use canon_ser::cbor;
use canon_ser::json::{self, Integers};
use serde::Serialize;
use serde_json::value::RawValue;

/// How serde_json's `Number` serializes under its feature arbitrary_precision.
#[derive(Serialize)]
#[serde(rename = "$serde_json::private::Number")]
struct Number {
    #[serde(rename = "$serde_json::private::Number")]
    text: String,
}

fn number(text: &str) -> Number {
    Number { text: text.into() }
}

#[test]
fn arbitrary_precision_numbers_are_numbers() {
    for (text, json_text, cbor_bytes) in [
        ("1", "1", &[0x01][..]),
        ("-7", "-7", &[0x26]),
        ("1.50", "1.5", &[0xf9, 0x3e, 0x00]),
        ("1e2", "100", &[0xf9, 0x56, 0x40]),
        ("2.0", "2", &[0xf9, 0x40, 0x00]),
        (
            "100000000000000000000",
            "100000000000000000000",
            &[0xfb, 0x44, 0x15, 0xaf, 0x1d, 0x78, 0xb5, 0x8c, 0x40],
        ),
    ] {
        assert_eq!(
            json::to_string(&[number(text)]).unwrap(),
            format!("[{json_text}]")
        );
        assert_eq!(cbor::to_vec(&number(text)).unwrap(), cbor_bytes, "{text}");
    }
    // As a u64 of the same value.
    for text in [
        "9007199254740993",
        "9007199254740994",
        "18446744073709551615",
    ] {
        assert!(json::to_vec(&number(text)).unwrap_err().is_number());
        let exact = json::to_vec_with(&number(text), Integers::Exact).unwrap();
        assert_eq!(exact, text.as_bytes());
    }
    for (text, bytes) in [
        (
            "18446744073709551617",
            &[0xc2, 0x49, 1, 0, 0, 0, 0, 0, 0, 0, 1][..],
        ),
        (
            "-18446744073709551617",
            &[0xc3, 0x49, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
    ] {
        assert_eq!(cbor::to_vec(&number(text)).unwrap(), bytes, "{text}");
    }
    let too_long = number("340282366920938463463374607431768211457");
    assert!(cbor::to_vec(&too_long).unwrap_err().is_number());
    // Never in silence.
    for text in ["18446744073709551617", "-9223372036854775809", "1e999"] {
        assert!(
            json::to_vec(&number(text)).unwrap_err().is_number(),
            "{text}"
        );
    }
    for text in ["", "1x", "x", "1 ", "+1"] {
        assert!(
            json::to_vec(&number(text)).unwrap_err().is_syntax(),
            "{text}"
        );
        assert!(
            cbor::to_vec(&number(text)).unwrap_err().is_syntax(),
            "{text}"
        );
    }
}

#[derive(Serialize)]
struct Row<'a> {
    z: u8,
    raw: &'a RawValue,
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.into()).unwrap()
}

#[test]
fn raw_text_is_canonicalized_in_place() {
    let text = raw(r#"{ "b": [1.0, 1E2], "a": "\u0041" }"#);
    let row = Row { z: 1, raw: &text };
    assert_eq!(
        json::to_string(&row).unwrap(),
        r#"{"raw":{"a":"A","b":[1,100]},"z":1}"#
    );
    assert_eq!(
        cbor::to_vec(&row).unwrap(),
        cbor::from_json(br#"{"z":1,"raw":{"a":"A","b":[1,100]}}"#).unwrap()
    );
    let duplicate = raw(r#"{"a":1,"a":2}"#);
    assert!(json::to_vec(&duplicate).unwrap_err().is_duplicate_key());
    assert!(cbor::to_vec(&duplicate).unwrap_err().is_duplicate_key());
    let deep = raw(&format!("{}{}", "[".repeat(120), "]".repeat(120)));
    json::to_vec(&deep).unwrap();
    let wrapped = [[[[[[[[[&deep]]]]]]]]];
    assert!(
        json::to_vec(&wrapped).unwrap_err().is_depth(),
        "depth goes on counting inside raw text"
    );
    assert!(cbor::to_vec(&wrapped).unwrap_err().is_depth());
}

#[test]
fn a_private_struct_with_anything_but_text_is_refused() {
    #[derive(Serialize)]
    #[serde(rename = "$serde_json::private::RawValue")]
    struct Fake<T> {
        a: T,
    }
    assert!(json::to_vec(&Fake { a: 5 }).unwrap_err().is_data());
    assert!(json::to_vec(&Fake { a: vec![1] }).unwrap_err().is_data());
    assert!(cbor::to_vec(&Fake { a: None::<u8> }).unwrap_err().is_data());
    assert_eq!(json::to_vec(&Fake { a: Some("[ ]") }).unwrap(), b"[]");
}
