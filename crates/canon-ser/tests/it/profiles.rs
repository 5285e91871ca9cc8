//! The profiles `cbor-length-first/1` and `dag-cbor/1`, against encoders that are not ours.

use std::collections::BTreeMap;

use canon_ser::{Profile, cbor};
use ciborium::Value;
use ciborium::value::CanonicalValue;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

const LENGTH_FIRST: Profile = Profile::CborLengthFirstV1;
const DAG: Profile = Profile::DagCborV1;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn length_first_is_the_order_of_rfc_7049() {
    // The keys of the example in RFC 8949 section 4.2.3, in its order.
    let core = hex("a8 0a00 186400 2000 617a00 62616100 81186400 812000 f400");
    let expected = hex("a8 0a00 2000 f400 186400 617a00 812000 62616100 81186400");
    cbor::check(&core).unwrap();
    assert_eq!(LENGTH_FIRST.canonicalize(&core).unwrap(), expected);
    LENGTH_FIRST.check(&expected).unwrap();
    let error = LENGTH_FIRST.check(&core).unwrap_err();
    assert!(error.is_not_canonical());
    assert_eq!(error.offset(), Some(6), "{error}");
    assert_eq!(cbor::check(&expected).unwrap_err().offset(), Some(7));
}

#[test]
fn length_first_of_many_keys_of_every_length() {
    // Among them lengths at the edge of 16 bits, where those of one length differ in the last byte.
    let texts = [0, 1, 7, 8, 30, 250, 65_530, 65_532, 65_533, 70_000];
    let mut keys: Vec<Vec<u8>> = texts
        .iter()
        .flat_map(|&len| ["a", "b", "c"].map(|end| cbor::to_vec(&("x".repeat(len) + end)).unwrap()))
        .chain((0..300_i64).map(|n| cbor::to_vec(&(n * n * n - 2_000_000)).unwrap()))
        .chain((0..300_u16).map(|n| cbor::to_vec(&[n]).unwrap()))
        .collect();
    let map_of = |keys: &[&Vec<u8>]| {
        let mut map = vec![0xb9];
        map.extend(u16::try_from(keys.len()).unwrap().to_be_bytes());
        keys.iter()
            .for_each(|key| map.extend([&key[..], &[0xf6]].concat()));
        map
    };
    let given: Vec<&Vec<u8>> = (0..keys.len())
        .map(|n| &keys[n * 7919 % keys.len()])
        .collect();
    let canonical = LENGTH_FIRST.canonicalize(&map_of(&given)).unwrap();
    let core = cbor::canonicalize(&map_of(&given)).unwrap();
    keys.sort();
    assert_eq!(core, map_of(&keys.iter().collect::<Vec<_>>()));
    keys.sort_by_key(Vec::len);
    assert_eq!(canonical, map_of(&keys.iter().collect::<Vec<_>>()));
    LENGTH_FIRST.check(&canonical).unwrap();
}

#[test]
fn length_first_inside_keys_arrays_and_tags() {
    // {{100: 0, -1: 0}: [{...}], ...}: maps as keys are in order too, and sorted by what they are then.
    let core = hex("a2 a2 186400 2000 81 c1 a2 186400 2000 a2 186401 2000 00");
    let expected = hex("a2 a2 2000 186400 81 c1 a2 2000 186400 a2 2000 186401 00");
    assert_eq!(LENGTH_FIRST.canonicalize(&core).unwrap(), expected);
    LENGTH_FIRST.check(&expected).unwrap();
}

#[test]
fn length_first_checks_the_rest_as_the_core_does() {
    for (bytes, offset) in [
        ("a2 6161 00 6161 01", 4),
        ("18 01", 0),
        ("9f ff", 0),
        ("fb 3ff0000000000000", 0),
    ] {
        let error = LENGTH_FIRST.check(&hex(bytes)).unwrap_err();
        assert_eq!(error.offset(), Some(offset), "{bytes}: {error}");
    }
    let map: BTreeMap<i64, u8> = LENGTH_FIRST.from_slice(&hex("a2 2000 186400")).unwrap();
    assert_eq!(map, BTreeMap::from([(-1, 0), (100, 0)]));
    assert!(
        LENGTH_FIRST
            .from_slice::<BTreeMap<i64, u8>>(&hex("a2 186400 2000"))
            .unwrap_err()
            .is_not_canonical()
    );
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Reading {
    unit: String,
    at: u64,
    value: f64,
    tags: BTreeMap<String, Option<i32>>,
    raw: Vec<f32>,
}

fn reading() -> Reading {
    Reading {
        unit: "°C".into(),
        at: 1_700_000_000,
        value: 1.0,
        tags: BTreeMap::from([("room".into(), Some(-7)), ("a".into(), None)]),
        raw: vec![0.5, -0.0, 1e-30],
    }
}

#[test]
fn dag_cbor_is_what_serde_ipld_dagcbor_writes() {
    let value = reading();
    let ours = DAG.to_vec(&value).unwrap();
    assert_eq!(ours, serde_ipld_dagcbor::to_vec(&value).unwrap());
    DAG.check(&ours).unwrap();
    assert_eq!(DAG.from_slice::<Reading>(&ours).unwrap(), value);
    assert_eq!(
        serde_ipld_dagcbor::from_slice::<Reading>(&ours).unwrap(),
        value
    );
    // Core deterministic CBOR of the same is no DAG-CBOR, for its short floats.
    let error = DAG.check(&cbor::to_vec(&value).unwrap()).unwrap_err();
    assert!(
        error.is_not_canonical() && error.reason().contains("64 bits"),
        "{error}"
    );
}

#[test]
fn dag_cbor_refuses_what_it_has_not() {
    // Bytes, offset, and whether a loose reader may put it right.
    let link = "d82a 4500aabbccdd";
    DAG.check(&hex(link)).unwrap();
    assert_eq!(DAG.canonicalize(&hex(link)).unwrap(), hex(link));
    for (bytes, offset) in [
        ("82 01 f97e00", 2),
        ("81 fb7ff0000000000000", 1),
        ("a1 01 02", 1),
        ("a1 8100 02", 1),
        ("81 c1 00", 1),
        ("81 d82a 42aabb", 3),
        ("d82a 6100", 2),
        ("d82a 41 00", 2),
        ("d82a 81 00", 2),
        ("81 f7", 1),
        ("81 f8ff", 1),
        ("c2 49 010000000000000000", 0),
    ] {
        for result in [
            DAG.check(&hex(bytes)),
            DAG.canonicalize(&hex(bytes)).map(drop),
        ] {
            let error = result.unwrap_err();
            assert_eq!(error.offset(), Some(offset), "{bytes}: {error}");
            assert!(
                !error.is_not_canonical() && (error.is_data() || error.is_number()),
                "{bytes}: {error}"
            );
        }
    }
    for value in [f64::NAN, f64::INFINITY] {
        let error = DAG.to_vec(&[value]).unwrap_err();
        assert!(error.is_number() && error.offset().is_none(), "{error}");
    }
    assert!(DAG.to_vec(&BTreeMap::from([(1, 2)])).unwrap_err().is_data());
    assert!(DAG.to_vec(&u128::MAX).is_err());
}

#[test]
fn dag_cbor_puts_loose_input_right() {
    let loose = hex("bf 6162 f93c00 6161 9f 1801 ff ff");
    let strict = hex("a2 6161 8101 6162 fb3ff0000000000000");
    assert_eq!(DAG.canonicalize(&loose).unwrap(), strict);
    DAG.check(&strict).unwrap();
    // The specification has excluded -0.0 since July 2026 (ipld/ipld#380).
    let zero = hex("fb 0000000000000000");
    assert_eq!(DAG.canonicalize(&hex("f9 8000")).unwrap(), zero);
    let error = DAG.check(&hex("81 fb 8000000000000000")).unwrap_err();
    assert!(
        error.is_not_canonical() && error.offset() == Some(1),
        "{error}"
    );
    assert_eq!(
        DAG.check(&hex("a2 6162 01 6161 02")).unwrap_err().offset(),
        Some(4)
    );
    assert_eq!(
        DAG.check(&hex("a1 6161 fa3f800000")).unwrap_err().offset(),
        Some(3)
    );
}

/// Sorts every map as ciborium's CanonicalValue does, which is the order of RFC 7049.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(elements) => Value::Array(elements.iter().map(sorted).collect()),
        Value::Tag(tag, value) => Value::Tag(*tag, Box::new(sorted(value))),
        Value::Map(entries) => {
            let mut entries: Vec<_> = entries
                .iter()
                .map(|(key, value)| (sorted(key), sorted(value)))
                .collect();
            entries.sort_by_key(|(key, _)| CanonicalValue::from(key.clone()));
            entries.dedup_by_key(|(key, _)| key.clone());
            Value::Map(entries)
        }
        other => other.clone(),
    }
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(|value| Value::Integer(value.into())),
        (-30_i64..300).prop_map(|value| Value::Integer(value.into())),
        any::<f64>()
            .prop_filter("one NaN", |value| !value.is_nan())
            .prop_map(Value::Float),
        any::<i8>().prop_map(|value| Value::Float(f64::from(value) / 4.0)),
        "[a-z]{0,30}".prop_map(Value::Text),
        prop::collection::vec(any::<u8>(), 0..5).prop_map(Value::Bytes),
        any::<bool>().prop_map(Value::Bool),
        Just(Value::Null),
    ]
}

fn any_value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::vec((scalar(), inner.clone()), 0..6).prop_map(Value::Map),
            (30_u64..1000, inner).prop_map(|(tag, value)| Value::Tag(tag, Box::new(value))),
        ]
    })
}

proptest! {
    #[test]
    fn length_first_is_ciboriums_canonical_order(value in any_value()) {
        let value = sorted(&value);
        let mut expected = Vec::new();
        ciborium::into_writer(&value, &mut expected).unwrap();
        let core = cbor::canonicalize(&expected).unwrap();
        prop_assert_eq!(&LENGTH_FIRST.canonicalize(&core).unwrap(), &expected);
        prop_assert!(LENGTH_FIRST.check(&expected).is_ok());
        prop_assert_eq!(LENGTH_FIRST.check(&core).is_ok(), core == expected);
    }

    #[test]
    fn text_keys_agree_with_serde_ipld_dagcbor(map in prop::collection::hash_map(".{0,30}", any::<(i64, Option<bool>)>(), 0..40)) {
        let ours = DAG.to_vec(&map).unwrap();
        prop_assert_eq!(&ours, &serde_ipld_dagcbor::to_vec(&map).unwrap());
        prop_assert!(DAG.check(&ours).is_ok());
    }
}

#[cfg(feature = "ciborium")]
mod values {
    use super::*;

    proptest! {
        #[test]
        fn ciboriums_value_both_ways(value in any_value()) {
            let value = sorted(&value);
            let bytes = cbor::from_value(&value).unwrap();
            prop_assert!(cbor::check(&bytes).is_ok());
            let back = cbor::to_value(&bytes).unwrap();
            prop_assert_eq!(sorted(&back), value);
            prop_assert_eq!(cbor::from_value(&back).unwrap(), bytes);
        }
    }

    #[test]
    fn edges_of_the_value() {
        let big = Value::Tag(
            2,
            Box::new(Value::Bytes(vec![0, 1, 0, 0, 0, 0, 0, 0, 0, 0])),
        );
        let bytes = cbor::from_value(&big).unwrap();
        assert_eq!(bytes, hex("c2 49 010000000000000000"));
        let least = hex("3b ffffffffffffffff");
        assert_eq!(
            cbor::from_value(&cbor::to_value(&least).unwrap()).unwrap(),
            least
        );
        let twice = Value::Map(vec![(Value::Null, Value::Null), (Value::Null, Value::Null)]);
        assert!(cbor::from_value(&twice).unwrap_err().is_duplicate_key());
        let deep = (0..200).fold(Value::Null, |value, _| Value::Array(vec![value]));
        assert!(cbor::from_value(&deep).unwrap_err().is_depth());
        assert!(cbor::to_value(&hex("f7")).unwrap_err().is_data());
    }
}

proptest! {
    #[test]
    fn check_accepts_exactly_what_canonicalize_makes(value in any_value(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = Vec::new();
        ciborium::into_writer(&sorted(&value), &mut bytes).unwrap();
        let changed = at.index(bytes.len());
        bytes[changed] = byte;
        for &profile in Profile::ALL.iter().filter(|profile| !profile.is_json()) {
            match profile.canonicalize(&bytes) {
                Ok(canonical) => {
                    prop_assert!(profile.check(&canonical).is_ok(), "{profile}");
                    prop_assert_eq!(&profile.canonicalize(&canonical).unwrap(), &canonical);
                    prop_assert_eq!(profile.check(&bytes).is_ok(), canonical == bytes, "{}", profile);
                }
                Err(_) => prop_assert!(profile.check(&bytes).is_err(), "{profile}"),
            }
        }
    }
}
