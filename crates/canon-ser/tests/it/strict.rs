//! Inputs made to be read as something that they are not: what `from_slice` takes is canonical, and each key, string and
//! number of it is what the type says.

use std::collections::{BTreeMap, HashMap};

use canon_ser::{Error, Profile, cbor, json};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, SeqAccess, Visitor};

fn json_as<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    json::check(text.as_bytes()).expect("canonical JSON");
    json::from_slice(text.as_bytes())
}

fn cbor_as<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    cbor::check(bytes).expect("deterministic CBOR");
    cbor::from_slice(bytes)
}

#[test]
fn two_keys_never_become_one_number() {
    for text in [
        r#"{"+1":1,"1":2}"#,
        r#"{"01":1,"1":2}"#,
        r#"{"-0":1,"0":2}"#,
    ] {
        assert!(
            json_as::<HashMap<i32, u8>>(text).unwrap_err().is_data(),
            "{text}"
        );
        assert!(
            json_as::<HashMap<i128, u8>>(text).unwrap_err().is_data(),
            "{text}"
        );
    }
    assert!(
        json_as::<HashMap<u64, u8>>(r#"{"+1":1}"#)
            .unwrap_err()
            .is_data()
    );
    let error = json_as::<BTreeMap<u8, u8>>(r#"{"1":1,"1.0":2}"#).unwrap_err();
    assert_eq!((error.is_data(), error.offset()), (true, Some(7)));

    #[derive(Debug, Deserialize)]
    struct Float(f64);
    struct Floats(Vec<f64>);
    impl<'de> Deserialize<'de> for Floats {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Floats, D::Error> {
            struct Keys;
            impl<'de> Visitor<'de> for Keys {
                type Value = Floats;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(
                    self,
                    mut map: A,
                ) -> Result<Floats, A::Error> {
                    let mut keys = Vec::new();
                    while let Some((Float(key), IgnoredAny)) = map.next_entry()? {
                        keys.push(key);
                    }
                    Ok(Floats(keys))
                }
            }
            deserializer.deserialize_map(Keys)
        }
    }
    assert_eq!(
        json_as::<Floats>(r#"{"1.5":1,"1e+21":2}"#).unwrap().0,
        [1.5, 1e21]
    );
    for key in [
        "NaN",
        "inf",
        "-infinity",
        "1.50",
        "1e0",
        ".5",
        "5.",
        "+1",
        "1E+21",
        "-0",
        "1e400",
    ] {
        assert!(
            json_as::<Floats>(&format!("{{\"{key}\":1}}")).is_err(),
            "{key}"
        );
    }
}

#[test]
fn integer_keys_of_every_width_come_back() {
    let keys = [
        i128::MIN,
        i64::MIN.into(),
        -1,
        0,
        1,
        1 << 60,
        u64::MAX.into(),
        i128::MAX,
    ];
    let map: BTreeMap<i128, u8> = keys.iter().map(|&key| (key, 1)).collect();
    let text = json::to_vec(&map).unwrap();
    assert_eq!(json::from_slice::<BTreeMap<i128, u8>>(&text).unwrap(), map);
    let bytes = cbor::to_vec(&map).unwrap();
    assert_eq!(cbor::from_slice::<BTreeMap<i128, u8>>(&bytes).unwrap(), map);
}

#[test]
fn byte_strings_of_cbor_are_no_text() {
    // {h'61': 1, "a": 2}
    let both = b"\xa2\x41a\x01\x61a\x02";
    assert!(cbor_as::<HashMap<String, u8>>(both).unwrap_err().is_data());
    assert!(cbor_as::<String>(b"\x41a").unwrap_err().is_data());
    assert!(cbor_as::<char>(b"\x41a").unwrap_err().is_data());
    assert!(cbor_as::<Option<String>>(b"\x41a").unwrap_err().is_data());
    let text = b"\x61a";
    assert!(
        cbor::from_slice::<&serde_bytes_lite::Bytes>(text)
            .unwrap_err()
            .is_data()
    );
    let bytes = cbor::from_slice::<&serde_bytes_lite::Bytes>(b"\x41a").unwrap();
    assert_eq!(&bytes.0, b"a");
}

/// Bytes as `serde_bytes` reads them: from byte strings, and leniently from text.
mod serde_bytes_lite {
    use super::*;

    #[derive(Debug)]
    #[repr(transparent)]
    pub(super) struct Bytes(pub(super) Vec<u8>);

    impl<'de> Deserialize<'de> for &'de Bytes {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<&'de Bytes, D::Error> {
            struct Lenient;
            impl<'de> Visitor<'de> for Lenient {
                type Value = &'de Bytes;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("bytes")
                }
                fn visit_borrowed_bytes<E: serde::de::Error>(
                    self,
                    bytes: &'de [u8],
                ) -> Result<&'de Bytes, E> {
                    Ok(Box::leak(Box::new(Bytes(bytes.to_vec()))))
                }
                fn visit_borrowed_str<E: serde::de::Error>(
                    self,
                    text: &'de str,
                ) -> Result<&'de Bytes, E> {
                    self.visit_borrowed_bytes(text.as_bytes())
                }
            }
            deserializer.deserialize_bytes(Lenient)
        }
    }
}

#[derive(Debug, Deserialize, PartialEq)]
struct Named {
    name: String,
}

#[derive(Debug, Deserialize, PartialEq)]
enum Choice {
    First,
    Second(u8),
}

#[test]
fn fields_and_variants_have_names_not_numbers() {
    assert!(cbor_as::<Named>(b"\xa1\x00\x61x").unwrap_err().is_data());
    assert!(
        cbor_as::<Named>(b"\xa1\x44name\x61x")
            .unwrap_err()
            .is_data()
    );
    assert_eq!(
        cbor_as::<Named>(b"\xa1\x64name\x61x").unwrap(),
        Named { name: "x".into() }
    );
    assert!(cbor_as::<Choice>(b"\xa1\x01\x05").unwrap_err().is_data());
    assert_eq!(
        cbor_as::<Choice>(b"\xa1\x66Second\x05").unwrap(),
        Choice::Second(5)
    );
    assert!(cbor_as::<Choice>(b"\x00").unwrap_err().is_data());
    assert!(cbor_as::<Choice>(b"\x45First").unwrap_err().is_data());
    for text in [
        "{}",
        "0",
        "null",
        "[]",
        r#"{"First":null,"Second":5}"#,
        r#"{"First":{}}"#,
        r#""Second""#,
        r#"{"Second":[5]}"#,
    ] {
        assert!(json_as::<Choice>(text).unwrap_err().is_data(), "{text}");
    }
    assert_eq!(json_as::<Choice>(r#""First""#).unwrap(), Choice::First);
}

#[test]
fn bytes_that_the_type_never_reads_are_refused() {
    #[derive(Debug)]
    struct Lazy;
    impl<'de> Deserialize<'de> for Lazy {
        fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Lazy, D::Error> {
            Ok(Lazy)
        }
    }
    assert!(json_as::<Lazy>("[1,2]").unwrap_err().is_data());
    assert!(json_as::<Vec<Lazy>>("[11,2]").is_err());
    assert!(json_as::<HashMap<String, Lazy>>(r#"{"a":false}"#).is_err());
    assert!(cbor_as::<Lazy>(b"\x82\x01\x02").unwrap_err().is_data());

    #[derive(Debug)]
    struct Impatient;
    impl<'de> Deserialize<'de> for Impatient {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Impatient, D::Error> {
            struct One;
            impl<'de> Visitor<'de> for One {
                type Value = Impatient;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("a list")
                }
                fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Impatient, A::Error> {
                    seq.next_element::<IgnoredAny>().map(|_| Impatient)
                }
            }
            deserializer.deserialize_seq(One)
        }
    }
    assert!(json_as::<Impatient>("[1,2]").unwrap_err().is_data());
    assert!(json_as::<Impatient>("[1]").is_ok());
    assert!(cbor_as::<Impatient>(b"\x82\x01\x02").unwrap_err().is_data());
    assert!(json_as::<(u8,)>("[1,2]").unwrap_err().is_data());
}

/// JSON that is not canonical, and where in it that is seen.
const NOT_CANONICAL_JSON: &[(&str, usize)] = &[
    ("1.0", 0),
    ("-0", 0),
    ("1e2", 0),
    ("1E+21", 0),
    ("0.50", 0),
    ("1e-7 ", 4),
    (" 1", 0),
    ("\t1", 0),
    ("100000000000000000001", 0),
    ("1e400", 0),
    ("0.1e1", 0),
    ("1e21", 0),
    ("1.7976931348623157e308", 0),
    ("123456789012345680000.0", 0),
    ("0.30000000000000005", 0),
    ("5e-325", 0),
    ("01", 1),
    ("+1", 0),
    ("\"\\u0041\"", 1),
    ("\"\\/\"", 1),
    ("\"\\u000A\"", 1),
    ("\"\\u000a\"", 1),
    ("\"\\u001F\"", 1),
    ("\"\\u00e9\"", 1),
    ("\"\\ud83d\\ude00\"", 1),
    ("\"\\ud800\"", 1),
    ("\"\u{1f}\"", 1),
    ("\"\\x\"", 1),
    ("[1, 2]", 3),
    ("{\"b\":1,\"a\":2}", 7),
    ("{\"a\":1,\"a\":2}", 7),
    ("{\"\\u0061\":1}", 2),
    ("{\"a\" :1}", 4),
    ("[1,]", 3),
    ("{\"a\":1,}", 7),
    ("tRue", 0),
    ("NaN", 0),
    ("// 1\n1", 0),
];

/// As [`NOT_CANONICAL_JSON`], for CBOR under each profile.
const NOT_CANONICAL_CBOR: &[(&[u8], usize)] = &[
    (b"\x18\x17", 0),
    (b"\x19\x00\xff", 0),
    (b"\x1a\x00\x00\xff\xff", 0),
    (b"\x38\x00", 0),
    (b"\x1b\x00\x00\x00\x00\xff\xff\xff\xff", 0),
    (b"\x58\x01a", 0),
    (b"\x78\x01a", 0),
    (b"\x98\x01\x01", 0),
    (b"\xb8\x01\x61a\x01", 0),
    (b"\x5f\x41a\xff", 0),
    (b"\x7f\x61a\xff", 0),
    (b"\x9f\x01\xff", 0),
    (b"\xbf\x61a\x01\xff", 0),
    (b"\xa2\x61b\x01\x61a\x02", 4),
    (b"\xa2\x61a\x01\x61a\x02", 4),
    (b"\xf8\x14", 0),
    (b"\x1c", 0),
    (b"\xff", 0),
    (b"\x61\xff", 1),
    (b"\xf9\x7e\x01", 0),
    (b"\xfa\x7f\xc0\x00\x00", 0),
    (b"\xfb\x7f\xf8\x00\x00\x00\x00\x00\x00", 0),
    (b"\xfb\x7f\xf0\x00\x00\x00\x00\x00\x00", 0),
    (b"\xfa\x3f\x80\x00\x00", 0),
    (b"\x81\x81\x18\x01", 2),
];

/// What DAG-CBOR refuses besides.
const NOT_DAG_CBOR: &[(&[u8], usize)] = &[
    (b"\xf9\x3c\x00", 0),
    (b"\xfa\x3f\x80\x00\x01", 0),
    (b"\xf9\x7e\x00", 0),
    (b"\xc1\x01", 0),
    (b"\xf7", 0),
    (b"\xf0", 0),
    (b"\xa1\x01\x02", 1),
    (b"\xd8\x2a\x41\x00", 2),
    (b"\xd8\x2a\x42\x01\x00", 2),
    (b"\xfb\x80\x00\x00\x00\x00\x00\x00\x00", 0),
    (b"\xa2\x62aa\x01\x61b\x02", 5),
    (b"\xc2\x49\x01\x00\x00\x00\x00\x00\x00\x00\x00", 0),
];

/// What the other CBOR profiles refuse besides.
const NOT_DETERMINISTIC_CBOR: &[(&[u8], usize)] = &[
    (b"\xfb\x3f\xf0\x00\x00\x00\x00\x00\x00", 0),
    (b"\xc2\x41\x01", 0),
    (b"\xc3\x48\xff\xff\xff\xff\xff\xff\xff\xff", 0),
    (b"\xc2\x4a\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00", 0),
    (b"\xc2\x61a", 1),
    (b"\xd8\x01\x01", 0),
    (b"\xc1\x18\x01", 1),
    (b"\xa1\x81\x18\x01\x00", 2),
];

#[derive(Debug, Deserialize)]
struct Two {
    #[expect(dead_code, reason = "reading it is the test")]
    z: u8,
}

#[derive(Debug, Deserialize)]
struct Flat {
    #[expect(dead_code, reason = "reading it is the test")]
    z: u8,
    #[serde(flatten)]
    _rest: BTreeMap<String, IgnoredAny>,
}

/// Refused by all readers, at the same offset, and for its form.
#[track_caller]
fn assert_refused(profile: Profile, bytes: &[u8], offset: usize) {
    for error in [
        profile.from_slice::<IgnoredAny>(bytes).unwrap_err(),
        profile.from_slice::<Two>(bytes).unwrap_err(),
        profile.from_slice::<Flat>(bytes).unwrap_err(),
        profile.check(bytes).unwrap_err(),
    ] {
        let shown = bytes.escape_ascii();
        assert_eq!(
            error.offset(),
            Some(offset),
            "{profile}: {error} of {shown}"
        );
        let by_form = !error.is_data() || profile == Profile::DagCborV1;
        assert!(by_form, "{profile}: {error} of {shown}");
    }
}

#[test]
fn ignored_parts_of_json_are_as_strict_as_the_others() {
    for profile in [Profile::JcsV1, Profile::JsonUtf8V1] {
        for (ignored, at) in NOT_CANONICAL_JSON {
            let text = format!("{{\"a\":{ignored},\"z\":1}}");
            assert_refused(profile, text.as_bytes(), 5 + at);
        }
        assert_refused(profile, b"{\"a\":1,\"z\":1}\n", 13);
        assert_refused(profile, b"\xef\xbb\xbf{\"a\":1,\"z\":1}", 0);
        assert_refused(profile, b"{\"a\":\"\xff\",\"z\":1}", 6);
        assert_refused(profile, b"{\"a\":\"\xed\xa0\x80\",\"z\":1}", 6);
        assert_refused(profile, b"{\"a\":1,\"z\":1", 12);
    }
}

#[test]
fn ignored_parts_of_cbor_are_as_strict_as_the_others() {
    for (profile, more) in [
        (Profile::CborCoreDetV1, NOT_DETERMINISTIC_CBOR),
        (Profile::CborLengthFirstV1, NOT_DETERMINISTIC_CBOR),
        (Profile::DagCborV1, NOT_DAG_CBOR),
    ] {
        for (ignored, at) in NOT_CANONICAL_CBOR.iter().chain(more) {
            let bytes = [&b"\xa2\x61a"[..], ignored, b"\x61z\x01"].concat();
            assert_refused(profile, &bytes, 3 + at);
        }
        assert_refused(profile, b"\xa2\x61a\x01\x61z\x01\x00", 7);
        assert_refused(profile, b"\xa2\x61a\x01\x61z", 6);
    }
}

#[test]
fn a_million_levels_overflow_no_stack_whatever_reads_them() {
    #[derive(Debug, Deserialize)]
    struct List(#[expect(dead_code, reason = "reading it is the test")] Vec<List>);
    #[derive(Debug, Deserialize)]
    #[serde(untagged)]
    #[expect(dead_code, reason = "reading it is the test")]
    enum Any {
        Number(f64),
        List(Vec<Any>),
        Map(BTreeMap<String, Any>),
    }
    let depth = 1_000_000;
    let text = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let objects = format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    for text in [text.as_bytes(), objects.as_bytes()] {
        for profile in [Profile::JcsV1, Profile::JsonUtf8V1] {
            assert!(
                profile
                    .from_slice::<IgnoredAny>(text)
                    .unwrap_err()
                    .is_depth()
            );
            assert!(profile.from_slice::<List>(text).unwrap_err().is_depth());
            assert!(profile.from_slice::<Any>(text).unwrap_err().is_depth());
            assert!(profile.canonicalize(text).unwrap_err().is_depth());
        }
    }
    for opening in [
        &b"\x81"[..],
        b"\xa1\x61a",
        b"\xa1\x81",
        b"\xd8\x2a",
        b"\x9f",
        b"\xbf\x61a",
    ] {
        let bytes = opening.repeat(depth);
        for profile in [
            Profile::CborCoreDetV1,
            Profile::CborLengthFirstV1,
            Profile::DagCborV1,
        ] {
            assert!(profile.from_slice::<IgnoredAny>(&bytes).is_err());
            assert!(profile.from_slice::<List>(&bytes).is_err());
            assert!(profile.from_slice::<Any>(&bytes).is_err());
            assert!(profile.canonicalize(&bytes).is_err());
        }
    }
}

#[test]
fn an_empty_input_is_called_empty() {
    use canon_ser::Profile;
    for profile in Profile::ALL {
        for error in [
            profile.canonicalize(b"").unwrap_err(),
            profile.check(b"").unwrap_err(),
            profile.check_from(std::io::Cursor::new(b"")).unwrap_err(),
        ] {
            assert!(error.is_syntax() && error.offset() == Some(0), "{error}");
            assert!(error.reason().starts_with("the input is empty"), "{error}");
        }
    }
    let blank = canon_ser::json::canonicalize(b" \n").unwrap_err();
    assert!(blank.reason().starts_with("the input is empty"), "{blank}");
    for begun in [&b"["[..], b"[1, ", b"{\"a\": "] {
        let error = canon_ser::json::canonicalize(begun).unwrap_err();
        assert!(error.reason().contains("in the middle"), "{error}");
    }
}
