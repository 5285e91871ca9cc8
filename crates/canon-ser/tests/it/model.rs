//! Against a slow model that is obviously right: sort with std, print with ryu-js, concatenate.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use canon_ser::{cbor, json, semantic};
use proptest::prelude::*;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// A document whose members come in any order, without duplicates.
#[derive(Clone, Debug)]
enum Doc {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Array(Vec<Doc>),
    Object(Vec<(String, Doc)>),
}

impl Serialize for Doc {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Doc::Null => serializer.serialize_unit(),
            Doc::Bool(value) => serializer.serialize_bool(*value),
            Doc::Int(value) => serializer.serialize_i64(*value),
            Doc::Float(value) => serializer.serialize_f64(*value),
            Doc::Text(value) => serializer.serialize_str(value),
            Doc::Array(items) => serializer.collect_seq(items),
            Doc::Object(members) => {
                let mut map = serializer.serialize_map(None)?;
                members
                    .iter()
                    .try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
        }
    }
}

fn model_string(text: &str) -> String {
    let mut out = String::from("\"");
    for char in text.chars() {
        match char {
            '"' => out += "\\\"",
            '\\' => out += "\\\\",
            '\u{8}' => out += "\\b",
            '\t' => out += "\\t",
            '\n' => out += "\\n",
            '\u{c}' => out += "\\f",
            '\r' => out += "\\r",
            control if control < ' ' => out += &format!("\\u{:04x}", control as u32),
            other => out.push(other),
        }
    }
    out + "\""
}

fn model_json(doc: &Doc) -> String {
    match doc {
        Doc::Null => "null".into(),
        Doc::Bool(value) => value.to_string(),
        Doc::Int(value) => value.to_string(),
        Doc::Float(value) => ryu_js::Buffer::new().format(*value).to_string(),
        Doc::Text(text) => model_string(text),
        Doc::Array(items) => format!(
            "[{}]",
            items.iter().map(model_json).collect::<Vec<_>>().join(",")
        ),
        Doc::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by_key(|(key, _)| key.encode_utf16().collect::<Vec<_>>());
            let text = |(key, value): &(String, Doc)| {
                format!("{}:{}", model_string(key), model_json(value))
            };
            format!(
                "{{{}}}",
                sorted.into_iter().map(text).collect::<Vec<_>>().join(",")
            )
        }
    }
}

fn model_head(major: u8, argument: u64) -> Vec<u8> {
    let bytes = argument.to_be_bytes();
    let (info, from) = match argument {
        0..=23 => return vec![major << 5 | argument as u8],
        24..=0xff => (24, 7),
        0x100..=0xffff => (25, 6),
        0x1_0000..=0xffff_ffff => (26, 4),
        _ => (27, 0),
    };
    [&[major << 5 | info], &bytes[from..]].concat()
}

fn model_cbor(doc: &Doc) -> Vec<u8> {
    match doc {
        Doc::Null => vec![0xf6],
        Doc::Bool(value) => vec![0xf4 + u8::from(*value)],
        Doc::Int(value) if *value < 0 => model_head(1, !*value as u64),
        Doc::Int(value) => model_head(0, *value as u64),
        Doc::Float(value) => model_float(*value),
        Doc::Text(text) => [&model_head(3, text.len() as u64), text.as_bytes()].concat(),
        Doc::Array(items) => {
            let body: Vec<_> = items.iter().flat_map(model_cbor).collect();
            [model_head(4, items.len() as u64), body].concat()
        }
        Doc::Object(members) => {
            let entry = |(key, value): &(String, Doc)| {
                (model_cbor(&Doc::Text(key.clone())), model_cbor(value))
            };
            let sorted: BTreeMap<_, _> = members.iter().map(entry).collect();
            let body: Vec<_> = sorted
                .into_iter()
                .flat_map(|(key, value)| [key, value].concat())
                .collect();
            [model_head(5, members.len() as u64), body].concat()
        }
    }
}

/// The bits of every half-precision float by the bits of the double of its value, straight from the definition.
fn halves() -> &'static HashMap<u64, u16> {
    static HALVES: OnceLock<HashMap<u64, u16>> = OnceLock::new();
    HALVES.get_or_init(|| {
        let value = |bits: u16| {
            let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
            let magnitude = match (bits >> 10 & 31, f64::from(bits & 1023)) {
                (31, 0.0) => f64::INFINITY,
                (31, _) => return None,
                (0, fraction) => fraction * 2_f64.powi(-24),
                (exponent, fraction) => (1024.0 + fraction) * 2_f64.powi(i32::from(exponent) - 25),
            };
            Some(((sign * magnitude).to_bits(), bits))
        };
        (0..=u16::MAX).filter_map(value).collect()
    })
}

fn model_float(value: f64) -> Vec<u8> {
    if let Some(bits) = halves().get(&value.to_bits()) {
        return [&[0xf9][..], &bits.to_be_bytes()].concat();
    }
    if f64::from(value as f32) == value {
        return [&[0xfa][..], &(value as f32).to_be_bytes()].concat();
    }
    [&[0xfb][..], &value.to_be_bytes()].concat()
}

/// The same document as loose text: whitespace, escapes and number spellings picked by `noise`.
fn loose_text(doc: &Doc, noise: &mut impl FnMut() -> usize) -> String {
    let space = |noise: &mut dyn FnMut() -> usize| ["", " ", "\n\t", "", "\r\n  "][noise() % 5];
    let (before, after) = (space(noise), space(noise));
    let body = match doc {
        Doc::Text(text) => loose_string(text, noise),
        Doc::Int(value) => match noise() % 4 {
            0 => format!("{value}.0"),
            1 => format!("{value}e0"),
            2 if *value % 10 == 0 => format!("{}E+1", value / 10),
            _ => value.to_string(),
        },
        Doc::Float(value) if noise().is_multiple_of(2) => format!("{value:e}"),
        Doc::Float(value) => format!("{value:?}"),
        Doc::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| loose_text(item, noise)).collect();
            if items.is_empty() {
                format!("[{before}]")
            } else {
                format!("[{}]", items.join(","))
            }
        }
        Doc::Object(members) => {
            let members: Vec<_> = members
                .iter()
                .map(|(key, value)| {
                    let (a, b) = (space(noise), space(noise));
                    format!(
                        "{a}{}{b}:{}",
                        loose_string(key, noise),
                        loose_text(value, noise)
                    )
                })
                .collect();
            format!("{{{}{after}}}", members.join(","))
        }
        Doc::Null | Doc::Bool(_) => model_json(doc),
    };
    format!("{before}{body}{after}")
}

fn loose_string(text: &str, noise: &mut impl FnMut() -> usize) -> String {
    let mut out = String::from("\"");
    for char in text.chars() {
        if noise().is_multiple_of(4) || char < ' ' || char == '"' || char == '\\' {
            let upper = noise().is_multiple_of(2);
            for unit in char.encode_utf16(&mut [0; 2]) {
                out += &if upper {
                    format!("\\u{unit:04X}")
                } else {
                    format!("\\u{unit:04x}")
                };
            }
        } else if char == '/' {
            out += "\\/";
        } else {
            out.push(char);
        }
    }
    out + "\""
}

fn text() -> impl Strategy<Value = String> {
    let char = prop_oneof![
        4 => prop::char::range('a', 'c'),
        2 => prop::char::range('\0', '\u{7f}'),
        1 => prop::char::range('\u{d000}', '\u{d7ff}'),
        1 => prop::char::range('\u{e000}', '\u{ffff}'),
        1 => prop::char::range('\u{10000}', '\u{10ffff}'),
    ];
    prop::collection::vec(char, 0..14).prop_map(String::from_iter)
}

fn docs() -> impl Strategy<Value = Doc> {
    let leaf = prop_oneof![
        Just(Doc::Null),
        any::<bool>().prop_map(Doc::Bool),
        (-(1_i64 << 53)..=1 << 53).prop_map(Doc::Int),
        (-1000_i64..1000).prop_map(Doc::Int),
        any::<f64>()
            .prop_filter("finite", |value| value.is_finite())
            .prop_map(Doc::Float),
        (-1000_i32..1000).prop_map(|n| Doc::Float(f64::from(n) / 8.0)),
        any::<f32>()
            .prop_filter("finite", |value| value.is_finite())
            .prop_map(|value| Doc::Float(value.into())),
        text().prop_map(Doc::Text),
    ];
    leaf.prop_recursive(5, 120, 10, |inner| {
        let members = prop::collection::hash_map(text(), inner.clone(), 0..40);
        prop_oneof![
            prop::collection::vec(inner, 0..6).prop_map(Doc::Array),
            members.prop_map(|members| Doc::Object(members.into_iter().collect())),
        ]
    })
}

fn noise(seed: u64) -> impl FnMut() -> usize {
    let mut state = seed | 1;
    move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as usize
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn json_is_what_the_model_says(doc in docs(), seed in any::<u64>()) {
        let expected = model_json(&doc);
        prop_assert_eq!(&json::to_string(&doc).unwrap(), &expected);
        let mut exact = vec![0; expected.len()];
        prop_assert_eq!(&*json::to_slice(&doc, &mut exact).unwrap(), expected.as_bytes());
        let loose = loose_text(&doc, &mut noise(seed));
        let canonical = String::from_utf8(json::canonicalize(loose.as_bytes()).unwrap()).unwrap();
        prop_assert_eq!(&canonical, &expected);
        prop_assert!(json::check(expected.as_bytes()).is_ok());
        prop_assert_eq!(json::check(loose.as_bytes()).is_ok(), loose == expected);
        prop_assert!(semantic::equal(loose.as_bytes(), expected.as_bytes()).unwrap());
        let value: serde_json::Value = serde_json::from_str(&expected).unwrap();
        prop_assert!(semantic::diff(serde_json::to_vec(&value).unwrap().as_slice(), expected.as_bytes()).unwrap().is_none());
    }

    #[test]
    fn cbor_is_what_the_model_says(doc in docs()) {
        let expected = model_cbor(&doc);
        prop_assert_eq!(&cbor::to_vec(&doc).unwrap(), &expected);
        let mut exact = vec![0; expected.len()];
        prop_assert_eq!(&*cbor::to_slice(&doc, &mut exact).unwrap(), &expected[..]);
        prop_assert!(cbor::check(&expected).is_ok());
        let mut loose = Vec::new();
        ciborium::into_writer(&doc, &mut loose).unwrap();
        prop_assert_eq!(cbor::canonicalize(&loose).unwrap(), expected.clone());
        let json = cbor::to_json(&expected, json::Integers::Error).unwrap();
        prop_assert_eq!(String::from_utf8(json.clone()).unwrap(), model_json(&doc));
        let back = cbor::from_json(&json).unwrap();
        prop_assert_eq!(cbor::to_json(&back, json::Integers::Error).unwrap(), json);
        cbor::check(&back).unwrap();
    }

    #[test]
    fn differences_are_found_where_they_are(doc in docs(), other in docs()) {
        let (left, right) = (model_json(&doc), model_json(&other));
        let found = semantic::diff(left.as_bytes(), right.as_bytes()).unwrap();
        prop_assert_eq!(found.is_none(), semantic::equal(left.as_bytes(), right.as_bytes()).unwrap());
        if let Some(found) = found {
            let at = |text: &str| {
                let value: serde_json::Value = serde_json::from_str(text).unwrap();
                value.pointer(found.pointer()).cloned()
            };
            let parse = |text: Option<&str>| text.map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap());
            prop_assert_eq!(at(&left).map(drop), parse(found.left()).map(drop));
            prop_assert_eq!(at(&right).map(drop), parse(found.right()).map(drop));
        }
    }

    #[test]
    fn bytes_from_outside_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), text in "[\\[\\]{}:,\"a\\\\u0-9eE+. -]{0,40}") {
        for input in [&bytes[..], text.as_bytes()] {
            if let Ok(canonical) = json::canonicalize(input) {
                prop_assert_eq!(&json::canonicalize(&canonical).unwrap(), &canonical);
                prop_assert_eq!(json::check(input).is_ok(), canonical == input);
            }
            if let Ok(canonical) = cbor::canonicalize(input) {
                prop_assert_eq!(&cbor::canonicalize(&canonical).unwrap(), &canonical);
                prop_assert_eq!(cbor::check(input).is_ok(), canonical == input);
            }
            let _ = (cbor::from_json(input), cbor::to_json(input, json::Integers::Exact));
        }
    }
}
