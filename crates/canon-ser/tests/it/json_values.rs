//! serde values to canonical JSON.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use canon_ser::json::{self, Integers, KeyOrder, Options};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

/// The canonical text of a value, by every way there is to it.
#[track_caller]
fn check<T: Serialize + ?Sized>(value: &T, expected: &str) {
    let bytes = json::to_vec(value).expect("the value has a canonical form");
    assert_eq!(std::str::from_utf8(&bytes).unwrap(), expected);
    json::check(&bytes).expect("what to_vec writes is canonical");
    assert_eq!(json::canonicalize(&bytes).expect("idempotent"), bytes);
    assert_eq!(json::to_string(value).unwrap(), expected);

    let mut written = Vec::new();
    json::to_writer(&mut written, value).unwrap();
    assert_eq!(written, bytes);

    let mut exact = vec![0; bytes.len()];
    assert_eq!(
        json::to_slice(value, &mut exact).expect("it fits exactly"),
        bytes
    );
    let mut short = vec![0; bytes.len() - 1];
    assert!(
        json::to_slice(value, &mut short)
            .unwrap_err()
            .is_buffer_full()
    );

    let mut encoder = json::Encoder::new();
    for _ in 0..2 {
        assert_eq!(encoder.encode(value).unwrap(), bytes);
    }
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
    let row = || Row {
        zebra: 1,
        apple: Some(true),
        euro: 'x',
        newline: (),
    };
    let text = "{\"a\\nb\":null,\"apple\":true,\"zebra\":1,\"€\":\"x\"}";
    check(&row(), text);
    check(&[row(), row()], &format!("[{text},{text}]"));
}

#[test]
fn every_kind_of_enum() {
    #[derive(Serialize)]
    enum Outer {
        Unit,
        Newtype(u8),
        Tuple(u8, bool),
        Struct { b: u8, a: u8 },
    }
    check(&Outer::Unit, r#""Unit""#);
    check(&Outer::Newtype(7), r#"{"Newtype":7}"#);
    check(&Outer::Tuple(7, false), r#"{"Tuple":[7,false]}"#);
    check(&Outer::Struct { b: 1, a: 2 }, r#"{"Struct":{"a":2,"b":1}}"#);

    #[derive(Serialize)]
    #[serde(tag = "zz")]
    enum Internal {
        One { y: u8, a: u8 },
    }
    check(&Internal::One { y: 1, a: 2 }, r#"{"a":2,"y":1,"zz":"One"}"#);

    #[derive(Serialize)]
    #[serde(tag = "t", content = "c")]
    enum Adjacent {
        One(u8),
    }
    check(&Adjacent::One(3), r#"{"c":3,"t":"One"}"#);

    #[derive(Serialize)]
    #[serde(untagged)]
    enum Untagged {
        Number(f64),
        Text(String),
    }
    check(
        &[Untagged::Number(1.5), Untagged::Text("x".into())],
        r#"[1.5,"x"]"#,
    );
}

#[test]
fn flatten_sorts_into_its_parent_and_duplicates_across_it_are_found() {
    #[derive(Serialize)]
    struct Inner {
        b: u8,
        d: u8,
    }
    #[derive(Serialize)]
    struct Outer {
        c: u8,
        #[serde(flatten)]
        inner: Inner,
        #[serde(flatten)]
        more: HashMap<String, u8>,
        a: u8,
    }
    let outer = |key: &str| Outer {
        c: 3,
        inner: Inner { b: 2, d: 4 },
        more: HashMap::from([(key.to_string(), 5)]),
        a: 1,
    };
    check(&outer("e"), r#"{"a":1,"b":2,"c":3,"d":4,"e":5}"#);
    assert!(json::to_vec(&outer("a")).unwrap_err().is_duplicate_key());
}

#[test]
fn keys_of_every_type_with_a_text_form() {
    #[derive(Serialize, PartialEq, Eq, Hash, PartialOrd, Ord)]
    enum Unit {
        Zulu,
        Alpha,
    }
    #[derive(Serialize, PartialEq, Eq, Hash)]
    struct Newtype(i16);

    check(
        &HashMap::from([(10, 'x'), (9, 'y'), (-1, 'z')]),
        r#"{"-1":"z","10":"x","9":"y"}"#,
    );
    check(
        &HashMap::from([(u128::MAX, 0)]),
        r#"{"340282366920938463463374607431768211455":0}"#,
    );
    check(
        &HashMap::from([(i128::MIN, 0)]),
        r#"{"-170141183460469231731687303715884105728":0}"#,
    );
    check(
        &HashMap::from([(true, 1), (false, 0)]),
        r#"{"false":0,"true":1}"#,
    );
    check(&BTreeMap::from([('é', 1), ('"', 0)]), r#"{"\"":0,"é":1}"#);
    check(
        &BTreeMap::from([(Unit::Zulu, 1), (Unit::Alpha, 0)]),
        r#"{"Alpha":0,"Zulu":1}"#,
    );
    check(&HashMap::from([(Newtype(4), 1)]), r#"{"4":1}"#);
    check(&HashMap::from([(Some("k"), 1)]), r#"{"k":1}"#);
    for error in [
        json::to_vec(&HashMap::from([((1, 2), 1)])).unwrap_err(),
        json::to_vec(&HashMap::from([((), 1)])).unwrap_err(),
        json::to_vec(&HashMap::from([(None::<u8>, 1)])).unwrap_err(),
    ] {
        assert!(error.is_data(), "{error}");
    }
}

/// A map with the entries as given.
struct Entries<K, V>(Vec<(K, V)>);

impl<K: Serialize, V: Serialize> Serialize for Entries<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.0
            .iter()
            .try_for_each(|(key, value)| map.serialize_entry(key, value))?;
        map.end()
    }
}

#[test]
fn duplicate_keys_are_errors_wherever_they_stand() {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Key {
        Number(u8),
        Text(&'static str),
    }
    let twice = Entries(vec![(Key::Number(1), 'a'), (Key::Text("1"), 'b')]);
    assert!(json::to_vec(&twice).unwrap_err().is_duplicate_key());

    for order in [
        ["a", "a", "b"],
        ["a", "b", "a"],
        ["b", "a", "b"],
        ["b", "a", "a"],
    ] {
        let error = json::to_vec(&[Entries(order.map(|key| (key, 0)).to_vec())]).unwrap_err();
        assert!(error.is_duplicate_key(), "{order:?}");
        assert_eq!(error.offset(), None);
    }
    let many = (0..1000).rev().map(|n| (n % 999, 0)).collect();
    assert!(json::to_vec(&Entries(many)).unwrap_err().is_duplicate_key());
    let escaped = Entries(vec![("z\n", 0), ("a", 0), ("z\n", 0)]);
    assert!(json::to_vec(&escaped).unwrap_err().is_duplicate_key());
}

#[test]
fn long_disordered_maps_also_after_a_long_ordered_start() {
    for (ordered, then) in [(0, 500), (31, 3), (32, 1), (33, 1), (100, 50), (1000, 1)] {
        let key = |n: usize| format!("key{n:06}");
        let mut entries: Vec<_> = (0..ordered)
            .map(|n| (key(n * 2 + 100), vec![n; n % 5]))
            .collect();
        entries.extend((0..then).rev().map(|n| (key(n * 2 + 1), vec![])));
        let sorted: BTreeMap<_, _> = entries.iter().cloned().collect();
        let nested = Entries(vec![("z", Entries(entries))]);
        check(
            &nested,
            &serde_json::to_string(&BTreeMap::from([("z", sorted)])).unwrap(),
        );
    }
}

#[test]
fn large_entries_are_moved_through_the_scratch() {
    let long = |byte: &str| byte.repeat(10_000);
    let map = Entries(vec![("b", long("x")), ("c", long("\n")), ("a", long("é"))]);
    let sorted = BTreeMap::from([("b", long("x")), ("c", long("\n")), ("a", long("é"))]);
    check(&map, &serde_json::to_string(&sorted).unwrap());
}

#[test]
fn keys_sort_by_utf16_or_by_utf8() {
    let keys = [
        "\u{10000}",
        "\u{e000}",
        "\u{ffff}",
        "\u{d7ff}",
        "a\u{10ffff}",
        "a\u{f000}",
        "\n\u{ffff}",
        "\n\u{10000}",
    ];
    let map = Entries(keys.map(|key| (key, 0)).to_vec());
    let text = |sorted: Vec<&str>| serde_json::to_string(&Ordered(sorted)).unwrap();
    let mut sorted = keys.to_vec();
    sorted.sort_by_key(|key| key.encode_utf16().collect::<Vec<_>>());
    check(&map, &text(sorted.clone()));
    let by_utf16 = sorted.clone();
    sorted.sort();
    assert_ne!(sorted, by_utf16);
    let bytes = json::to_vec_with(&map, KeyOrder::Utf8).unwrap();
    assert_eq!(String::from_utf8(bytes.clone()).unwrap(), text(sorted));
    json::check_with(&bytes, KeyOrder::Utf8).unwrap();
    assert!(json::check(&bytes).unwrap_err().is_not_canonical());
}

struct Ordered<'a>(Vec<&'a str>);

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|key| (key, 0)))
    }
}

#[test]
fn strings_and_everything_that_prints_as_one() {
    let all: String = (0..0x80_u8)
        .map(char::from)
        .chain("é€\u{10ffff}".chars())
        .collect();
    let expected = serde_json::to_string(&all).unwrap();
    check(&all, &expected);
    for len in 0..40 {
        for special in ["\"", "\\", "\u{1f}", "é", "\u{7f}"] {
            let text = format!("{}{special}{}", "x".repeat(len), "y".repeat(40 - len));
            check(&text, &serde_json::to_string(&text).unwrap());
        }
    }
    struct Shown;
    impl Serialize for Shown {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_str(self)
        }
    }
    impl fmt::Display for Shown {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a\"{}", 5)
        }
    }
    check(&Shown, r#""a\"5""#);
}

#[test]
fn bytes_are_arrays_as_in_serde_json() {
    struct Bytes;
    impl Serialize for Bytes {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(&[0, 255, 7])
        }
    }
    check(&Bytes, "[0,255,7]");
    check(
        &((), Some(1), None::<u8>, [true, false]),
        "[null,1,null,[true,false]]",
    );
}

#[test]
fn integers_beyond_2_53_follow_the_policy() {
    const EDGE: u64 = 1 << 53;
    check(&[EDGE], "[9007199254740992]");
    check(&[-(EDGE as i64)], "[-9007199254740992]");
    for value in [
        i128::from(EDGE) + 1,
        -i128::from(EDGE) - 1,
        u64::MAX.into(),
        i64::MIN.into(),
        i128::MIN,
    ] {
        let error = json::to_vec(&value).unwrap_err();
        assert!(error.is_number());
        if let Ok(narrow) = i64::try_from(value) {
            assert!(json::to_vec(&narrow).unwrap_err().is_number());
        }
        let with = |policy: Integers| {
            String::from_utf8(json::to_vec_with(&value, policy).unwrap()).unwrap()
        };
        assert_eq!(with(Integers::String), format!("\"{value}\""));
        assert_eq!(with(Integers::Exact), value.to_string());
        assert_eq!(
            with(Integers::Round),
            ryu_js::Buffer::new().format(value as f64)
        );
    }
    assert_eq!(
        json::to_vec_with(&u64::MAX, Integers::Round).unwrap(),
        b"18446744073709552000"
    );
    assert_eq!(
        json::to_vec_with(&[1e21, 1e300, 0.5, -1e22], Integers::Exact)
            .unwrap()
            .len(),
        22 + 301 + 3 + 24 + 5
    );
}

#[test]
fn not_finite_at_any_depth() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let nested = BTreeMap::from([("a", vec![Some((1.0, bad))])]);
        let error = json::to_vec(&nested).unwrap_err();
        assert!(error.is_number());
        assert_eq!(error.pointer(), Some("/a/0/1"));
        assert!(json::to_vec(&(bad as f32)).unwrap_err().is_number());
    }
    let error = json::to_vec(&BTreeMap::from([("a/b~c\n", f64::NAN)])).unwrap_err();
    assert_eq!(error.pointer(), Some("/a~1b~0c\n"));
    assert_eq!(
        error.to_string(),
        "NaN and infinity have no form in JSON at /a~1b~0c\n"
    );
}

#[test]
fn single_floats_are_doubles_of_the_same_value() {
    check(
        &[0.1_f32, 0.5, 16_777_216.0],
        "[0.10000000149011612,0.5,16777216]",
    );
}

/// `depth` arrays within one another.
struct Deep(usize);

impl Serialize for Deep {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(None)?;
        if self.0 > 1 {
            seq.serialize_element(&Deep(self.0 - 1))?;
        }
        seq.end()
    }
}

#[test]
fn depth_is_limited() {
    check(
        &Deep(128),
        &format!("{}{}", "[".repeat(128), "]".repeat(128)),
    );
    assert!(json::to_vec(&Deep(129)).unwrap_err().is_depth());
    assert!(json::to_vec(&Deep(1_000_000)).unwrap_err().is_depth());
    let options = Options::new().depth_max(2);
    assert!(json::to_vec_with(&Deep(2), options).is_ok());
    assert!(json::to_vec_with(&Deep(3), options).unwrap_err().is_depth());
}

#[test]
fn own_errors_come_through_with_their_place() {
    struct Refuses;
    impl Serialize for Refuses {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("not today"))
        }
    }
    let error = json::to_vec(&BTreeMap::from([("x", Refuses)])).unwrap_err();
    assert!(error.is_data());
    assert_eq!(error.to_string(), "not today at /x");
}

#[test]
fn an_encoder_survives_failures() {
    let mut encoder = json::Encoder::with_options(Integers::Round);
    let bad = Entries((0..100).rev().map(|n| (n, f64::NAN)).collect());
    for _ in 0..3 {
        assert!(encoder.encode(&[&bad]).is_err());
        assert!(encoder.encode_text(b"{\"b\":{\"d\":1,\"c\":[}}").is_err());
        assert_eq!(encoder.encode(&u64::MAX).unwrap(), b"18446744073709552000");
        assert_eq!(
            encoder.encode_text(b"{\"b\":1, \"a\":2}").unwrap(),
            b"{\"a\":2,\"b\":1}"
        );
    }
}

/// Maps of every size around the limits of the ways to sort, with keys that differ in one to five places.
#[test]
fn large_maps_in_any_order_are_sorted() {
    for entries in [19, 21, 33, 199, 200, 201, 999, 20_000] {
        for step in [1, 7, 8_191] {
            let key = |n: usize| format!("key {:05}", (n * step) % 65_537);
            let map: Vec<(String, usize)> = (0..entries).map(|n| (key(n), n)).collect();
            let sorted: std::collections::BTreeMap<_, _> = map.iter().cloned().collect();
            assert_eq!(sorted.len(), entries);
            struct Pairs(Vec<(String, usize)>);
            impl serde::Serialize for Pairs {
                fn serialize<S: serde::Serializer>(
                    &self,
                    serializer: S,
                ) -> Result<S::Ok, S::Error> {
                    serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
                }
            }
            let bytes = canon_ser::json::to_vec(&Pairs(map)).unwrap();
            assert_eq!(
                bytes,
                serde_json::to_vec(&sorted).unwrap(),
                "{entries} by {step}"
            );
        }
    }
}

/// Texts of up to three characters, each kind of escape among them, behind some beginning.
fn texts_with_escapes(beginning: &str) -> Vec<String> {
    let chars = [
        '\0',
        '\u{1}',
        '\u{10}',
        '\n',
        '"',
        '\\',
        'u',
        '0',
        'n',
        '\u{ffff}',
        '\u{10000}',
    ];
    let mut texts = vec![beginning.to_owned()];
    let mut shorter = 0;
    for _ in 0..3 {
        let upto = texts.len();
        for at in core::mem::replace(&mut shorter, upto)..upto {
            texts.extend(chars.map(|char| format!("{}{char}", texts[at])));
        }
    }
    texts
}

#[test]
fn many_keys_with_escapes_sort_by_what_they_stand_for() {
    // Prefixes that all keys share end anywhere in an escape, before it and behind it; two groups tie in eight bytes.
    for beginnings in [
        &[""][..],
        &["abc"],
        &["abc\n", "abc\"", "abc\\", "abc\u{1}", "abc\u{10}"],
        &["\\\\\u{1}"],
        &["0123456\u{1}\\"],
        &[
            "some long beginning",
            "\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}",
        ],
    ] {
        let mut keys: Vec<String> = beginnings
            .iter()
            .flat_map(|beginning| texts_with_escapes(beginning))
            .collect();
        // Any order but the right one: steps of a number that divides no such length.
        let given: Vec<&String> = (0..keys.len())
            .map(|n| &keys[n * 7919 % keys.len()])
            .collect();
        let members: Vec<String> = given
            .iter()
            .map(|key| format!("{}:{}", serde_json::to_string(key).unwrap(), key.len()))
            .collect();
        let text = format!("{{{}}}", members.join(","));
        let value: HashMap<&String, usize> = given.iter().map(|key| (*key, key.len())).collect();
        let canonical = json::canonicalize(text.as_bytes()).unwrap();
        assert_eq!(json::to_vec(&value).unwrap(), canonical);
        json::check(&canonical).unwrap();
        let doubled = format!("{{{},{}}}", members.join(","), members[members.len() / 2]);
        assert!(
            json::canonicalize(doubled.as_bytes())
                .unwrap_err()
                .is_duplicate_key()
        );

        keys.sort_by_key(|key| key.encode_utf16().collect::<Vec<_>>());
        let expected: Vec<String> = keys
            .iter()
            .map(|key| json::to_string(key).unwrap() + &format!(":{}", key.len()))
            .collect();
        assert_eq!(
            canonical,
            format!("{{{}}}", expected.join(",")).as_bytes(),
            "{beginnings:?}"
        );
    }
}
