//! `json::from_slice`: values from canonical JSON, and from nothing else.

use std::collections::BTreeMap;

use canon_ser::Profile;
use canon_ser::json::{self, Integers, KeyOrder};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Point,
    Circle(f64),
    Line(i32, i32),
    Box { height: u8, width: u8 },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Everything<'a> {
    borrowed: &'a str,
    char: char,
    escaped: String,
    float: f64,
    integers: (u64, i64, i8),
    map: BTreeMap<i16, Vec<Shape>>,
    none: Option<u8>,
    shape: BTreeMap<bool, Shape>,
    some: Option<Option<u8>>,
    unit: (),
}

#[test]
fn every_shape_comes_back() {
    let value = Everything {
        borrowed: "ascii and €",
        char: '😀',
        escaped: "\"\u{1}\\\n/\u{7f}".into(),
        float: 1.0,
        integers: (1 << 53, -(1 << 53), -7),
        map: BTreeMap::from([
            (-3, vec![]),
            (
                20,
                vec![
                    Shape::Point,
                    Shape::Circle(1e21),
                    Shape::Line(1, -1),
                    Shape::Box {
                        height: 1,
                        width: 2,
                    },
                ],
            ),
        ]),
        none: None,
        shape: BTreeMap::from([(true, Shape::Point)]),
        some: Some(Some(3)),
        unit: (),
    };
    let text = json::to_vec(&value).unwrap();
    assert_eq!(json::from_slice::<Everything<'_>>(&text).unwrap(), value);
    let tree: serde_json::Value = Profile::JcsV1.from_slice(&text).unwrap();
    assert_eq!(json::to_vec(&tree).unwrap(), text);
}

fn error<T: DeserializeOwned>(text: &str) -> canon_ser::Error {
    json::from_slice::<T>(text.as_bytes())
        .map(drop)
        .unwrap_err()
}

#[test]
fn what_is_not_canonical_is_refused_also_where_it_is_ignored() {
    #[derive(Debug, Deserialize)]
    struct Some1 {
        a: u8,
    }
    let found = json::from_slice::<Some1>(br#"{"a":1,"b":[{},"]",{"c":"}"}]}"#).unwrap();
    assert_eq!(found.a, 1);
    for (text, offset) in [
        (r#"{"a":1, "b":2}"#, 7),
        (r#"{"a":1,"b":[1.0]}"#, 12),
        (r#"{"a":1,"b":{"d":1,"c":2}}"#, 18),
        (r#"{"b":2,"a":1}"#, 7),
    ] {
        let error = error::<Some1>(text);
        assert!(error.is_not_canonical(), "{text}: {error}");
        assert_eq!(error.offset(), Some(offset), "{text}: {error}");
    }
    assert!(error::<Some1>(r#"{"a":1,"a":2}"#).is_duplicate_key());
    assert!(error::<Some1>(r#"{"a":1"#).is_syntax());
}

#[test]
fn what_does_not_fit_the_type_says_where() {
    for (text, offset) in [("[1,2,3]", 4), ("[1]", 2), ("[1,\"x\"]", 3), ("{}", 0)] {
        let error = error::<(u8, u8)>(text);
        assert!(error.is_data(), "{text}: {error}");
        assert!(
            error.offset().is_some_and(|at| at >= offset),
            "{text}: {error}"
        );
    }
    assert!(error::<BTreeMap<u8, u8>>(r#"{"300":1}"#).is_data());
    assert!(error::<Shape>(r#"{"Circle":1,"Point":null}"#).is_data());
    assert!(error::<Shape>("{}").is_data());
    assert!(error::<Shape>(r#""Circle""#).is_data());
    assert!(error::<u8>("-1").is_data());
    assert!(error::<Vec<u8>>(&"[".repeat(200)).is_depth());
}

#[test]
fn the_other_key_order() {
    let text = "{\"\u{ffff}\":2,\"\u{10000}\":1}".as_bytes();
    assert!(json::from_slice::<BTreeMap<String, u8>>(text).is_err());
    let map: BTreeMap<String, u8> = json::from_slice_with(text, KeyOrder::Utf8).unwrap();
    assert_eq!(map.len(), 2);
}

#[test]
fn long_integers_keep_their_digits_or_are_refused() {
    let values = [u128::MAX, 100_000_000_000_000_000_000, 1 << 53, 0];
    let text = json::to_vec_with(&values, Integers::Exact).unwrap();
    let read: [u128; 4] = json::from_slice_with(&text, Integers::Exact).unwrap();
    assert_eq!(read, values);
    let least: i128 =
        json::from_slice_with(i128::MIN.to_string().as_bytes(), Integers::Exact).unwrap();
    assert_eq!(least, i128::MIN);
    assert_eq!(
        json::from_slice_with::<u64>(b"18446744073709551615", Integers::Exact).unwrap(),
        u64::MAX
    );
    assert_eq!(
        json::from_slice::<i64>(b"-9007199254740994").unwrap(),
        -9_007_199_254_740_994
    );
    // For a type that takes any number it is the double that it was, so that it can be written again.
    let any: serde_json::Value = json::from_slice(b"-9007199254740994").unwrap();
    assert!(any.is_f64());
    let as_float = json::from_slice_with::<f64>(b"18446744073709551617", Integers::Exact);
    assert!(as_float.unwrap_err().is_data());
    assert_eq!(
        json::from_slice::<f64>(b"100000000000000000000").unwrap(),
        1e20
    );
    assert!(error::<u128>("\"1\"").is_data());
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let scalar = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        (-9_007_199_254_740_992_i64..=9_007_199_254_740_992).prop_map(Into::into),
        any::<f64>()
            .prop_filter("JSON", |value| value.is_finite())
            .prop_map(Into::into),
        ".{0,12}".prop_map(Into::into),
    ];
    scalar.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::hash_map(".{0,6}", inner, 0..6)
                .prop_map(|map| map.into_iter().collect::<serde_json::Value>()),
        ]
    })
}

proptest! {
    #[test]
    fn reads_exactly_what_check_accepts(value in any_json(), at in any::<prop::sample::Index>(), byte in b' '..b'~') {
        let mut text = json::to_vec(&value).unwrap();
        let read: serde_json::Value = json::from_slice(&text).unwrap();
        prop_assert_eq!(json::to_vec(&read).unwrap(), text.clone());
        let changed = at.index(text.len());
        text[changed] = byte;
        let read = json::from_slice::<serde_json::Value>(&text);
        prop_assert_eq!(read.is_ok(), json::check(&text).is_ok());
    }
}
