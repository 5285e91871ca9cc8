//! serde values to deterministic CBOR and back.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

use canon_ser::cbor;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};

use crate::rfc8949::hex;

/// Writes a value by every way there is to it, and reads it back.
#[track_caller]
fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) -> Vec<u8> {
    let bytes = written(value);
    assert_eq!(
        &cbor::from_slice::<T>(&bytes).expect("it can be read back"),
        value
    );
    assert_eq!(
        &ciborium::from_reader::<T, _>(&bytes[..]).expect("ciborium reads it too"),
        value
    );
    bytes
}

#[track_caller]
fn written<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let bytes = cbor::to_vec(value).expect("the value has a form");
    cbor::check(&bytes).expect("what to_vec writes is deterministic");
    assert_eq!(cbor::canonicalize(&bytes).unwrap(), bytes);
    let mut stream = Vec::new();
    cbor::to_writer(&mut stream, value).unwrap();
    assert_eq!(stream, bytes);
    let mut exact = vec![0; bytes.len()];
    assert_eq!(
        cbor::to_slice(value, &mut exact).expect("it fits exactly"),
        bytes
    );
    let mut short = vec![0; bytes.len() - 1];
    assert!(
        cbor::to_slice(value, &mut short)
            .unwrap_err()
            .is_buffer_full()
    );
    let mut encoder = cbor::Encoder::new();
    for _ in 0..2 {
        assert_eq!(encoder.encode(value).unwrap(), bytes);
    }
    bytes
}

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
enum Shape {
    Unit,
    Newtype(Option<u8>),
    Tuple(u8, String),
    Struct { b: f64, a: i64 },
}

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
struct Row {
    zebra: u64,
    apple: Option<bool>,
    shapes: Vec<Shape>,
    map: HashMap<u16, char>,
    pair: (i8, f32),
    unit: (),
    boxed: Option<Box<Row>>,
}

fn row() -> Row {
    Row {
        zebra: u64::MAX,
        apple: None,
        shapes: vec![
            Shape::Unit,
            Shape::Newtype(Some(3)),
            Shape::Newtype(None),
            Shape::Tuple(1, "x\n".into()),
            Shape::Struct {
                b: 0.1,
                a: i64::MIN,
            },
        ],
        map: (0..300)
            .map(|n| (n * 211, char::from(b'a' + (n % 26) as u8)))
            .collect(),
        pair: (-5, 1.5),
        unit: (),
        boxed: None,
    }
}

#[test]
fn structs_enums_maps() {
    let outer = Row {
        boxed: Some(Box::new(row())),
        ..row()
    };
    let bytes = round_trip(&outer);
    assert!(
        bytes.starts_with(b"\xa7\x63map"),
        "keys in bytewise order: shorter heads first"
    );
    round_trip(&vec![row(); 30]);
    round_trip(&(u64::MAX, i64::MIN, u8::MAX, 'é', String::new(), false));
    round_trip(&[
        i128::MAX,
        i128::MIN,
        -1,
        0,
        1 << 64,
        -(1 << 64),
        -(1 << 64) - 1,
    ]);
    round_trip(&[u128::MAX, 0]);
    assert_eq!(round_trip(&Shape::Unit), hex("64556e6974"));
    assert_eq!(
        round_trip(&Shape::Struct { b: 1.0, a: 1 }),
        hex("a166537472756374a2616101 6162f93c00")
    );
}

#[test]
fn keys_of_every_type_in_order_of_their_encodings() {
    /// A map with the entries as given.
    struct Mixed;
    impl Serialize for Mixed {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(None)?;
            map.serialize_entry(&false, &0)?;
            map.serialize_entry(&[-1], &1)?;
            map.serialize_entry(&[100], &2)?;
            map.serialize_entry("aa", &3)?;
            map.serialize_entry("z", &4)?;
            map.serialize_entry(&-1, &5)?;
            map.serialize_entry(&100, &6)?;
            map.serialize_entry(&10, &7)?;
            map.serialize_entry(&HashMap::from([(2, 2), (1, 1)]), &8)?;
            map.serialize_entry(&1.5, &9)?;
            map.end()
        }
    }
    // The keys of the example in RFC 8949 section 4.2.1 are in its order.
    let bytes = written(&Mixed);
    assert_eq!(
        bytes,
        hex("aa 0a07 186406 2005 617a04 62616103 81186402 812001 a20101020208 f400 f93e0009")
    );
}

#[test]
fn duplicates_are_errors() {
    struct Twice;
    impl Serialize for Twice {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(Some(3))?;
            map.serialize_entry(&1_u8, "a")?;
            map.serialize_entry(&0_u8, "a")?;
            map.serialize_entry(&1_i64, "b")?;
            map.end()
        }
    }
    assert!(cbor::to_vec(&Twice).unwrap_err().is_duplicate_key());
}

/// A sequence or map that announces a length and has another.
struct Lies {
    announced: Option<usize>,
    len: usize,
}

impl Serialize for Lies {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(self.announced)?;
        (0..self.len).try_for_each(|n| seq.serialize_element(&n))?;
        seq.end()
    }
}

struct LyingMap(Lies);

impl Serialize for LyingMap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(self.0.announced)?;
        (0..self.0.len)
            .rev()
            .try_for_each(|n| map.serialize_entry(&n, &n))?;
        map.end()
    }
}

#[test]
fn lengths_are_true_whatever_serde_announces() {
    for len in [0, 1, 23, 24, 255, 256, 70_000] {
        for announced in [
            None,
            Some(0),
            Some(23),
            Some(24),
            Some(300),
            Some(len),
            Some(usize::MAX),
        ] {
            let truth: Vec<usize> = (0..len).collect();
            let map: BTreeMap<_, _> = truth.iter().map(|n| (n, n)).collect();
            let bytes = cbor::to_vec(&Lies { announced, len }).unwrap();
            assert_eq!(bytes, cbor::to_vec(&truth).unwrap());
            if len < 1000 {
                let bytes = cbor::to_vec(&LyingMap(Lies { announced, len })).unwrap();
                assert_eq!(bytes, cbor::to_vec(&map).unwrap());
            }
        }
    }
}

#[test]
fn flatten_needs_no_length() {
    #[derive(Serialize)]
    struct Outer {
        z: u8,
        #[serde(flatten)]
        rest: BTreeMap<String, u8>,
    }
    let rest: BTreeMap<String, u8> = (0..40).map(|n| (format!("k{n}"), n)).collect();
    let mut all = rest.clone();
    all.insert("z".into(), 9);
    assert_eq!(written(&Outer { z: 9, rest }), cbor::to_vec(&all).unwrap());
}

#[test]
fn every_half_float_is_written_as_one() {
    let mut halves = 0;
    for bits in 0..=u16::MAX {
        let [a, b] = bits.to_be_bytes();
        let canonical = cbor::canonicalize(&[0xf9, a, b]).unwrap();
        let value: f64 = cbor::from_slice(&canonical).unwrap();
        let (sign, exponent, fraction) = (
            bits >> 15,
            i32::from(bits >> 10 & 31),
            f64::from(bits & 1023),
        );
        let magnitude = match exponent {
            31 if fraction == 0.0 => f64::INFINITY,
            31 => f64::NAN,
            0 => fraction / 1024.0 * 2_f64.powi(-14),
            _ => (1.0 + fraction / 1024.0) * 2_f64.powi(exponent - 15),
        };
        let expected = if sign == 1 { -magnitude } else { magnitude };
        if expected.is_nan() {
            assert_eq!(canonical, [0xf9, 0x7e, 0]);
            continue;
        }
        halves += 1;
        assert_eq!(value.to_bits(), expected.to_bits(), "{bits:04x}");
        assert_eq!(cbor::to_vec(&expected).unwrap(), [0xf9, a, b]);
        // With any bit more, single precision is needed. One bit each, all of them for some.
        if expected.is_finite() {
            let single = (expected as f32).to_bits();
            let below_normal = 113_u32.saturating_sub(single >> 23 & 0xff).min(10);
            let spare = 13 + if expected == 0.0 { 0 } else { below_normal };
            let all = bits.is_multiple_of(37) || bits & 0x7fff < 64;
            for bit in if all { 0..spare } else { spare - 1..spare } {
                let more = f32::from_bits(single ^ 1 << bit);
                assert_eq!(cbor::to_vec(&more).unwrap()[0], 0xfa, "{more:e}");
            }
        }
    }
    assert_eq!(halves, 65536 - 2 * 1023);
}

#[test]
fn strict_reading() {
    assert!(
        cbor::from_slice::<Vec<u8>>(b"\x9f\x01\xff")
            .unwrap_err()
            .is_not_canonical()
    );
    assert!(cbor::from_slice::<u8>(b"\x01\x02").unwrap_err().is_syntax());
    assert!(
        cbor::from_slice::<u8>(b"\x19\x01\x00")
            .unwrap_err()
            .is_data()
    );
    assert!(cbor::from_slice::<String>(b"\x01").unwrap_err().is_data());
    assert!(
        cbor::from_slice::<(u8, u8)>(b"\x83\x01\x02\x03")
            .unwrap_err()
            .is_data()
    );
    assert!(
        cbor::from_slice::<Shape>(b"\x67Newtype")
            .unwrap_err()
            .is_data()
    );
    assert!(
        cbor::from_slice::<Shape>(b"\x65Wrong")
            .unwrap_err()
            .is_data()
    );
    assert!(
        cbor::from_slice::<u8>(b"\xc1\x01").unwrap_err().is_data(),
        "tags have no serde form"
    );

    // Fields that the struct ignores are held to the same rules.
    #[derive(Deserialize, Debug, PartialEq)]
    struct Few {
        b: u8,
    }
    let canonical = hex("a2 6161 a1 00 82 01 f7 6162 05");
    assert_eq!(cbor::from_slice::<Few>(&canonical).unwrap(), Few { b: 5 });
    cbor::from_slice::<IgnoredAny>(&canonical).unwrap();
    let loose = hex("a2 6161 a1 00 82 1801 f7 6162 05");
    let error = cbor::from_slice::<Few>(&loose).unwrap_err();
    assert!(error.is_not_canonical());
    assert_eq!(error.offset(), Some(6));
    let borrowed: &str = cbor::from_slice(b"\x62ab").unwrap();
    assert_eq!(borrowed, "ab");
}

#[test]
fn depth_is_limited() {
    struct Deep(usize);
    impl Serialize for Deep {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self.0 {
                0 => serializer.serialize_unit(),
                more => serializer.serialize_newtype_variant("Deep", 0, "d", &Deep(more - 1)),
            }
        }
    }
    let bytes = written(&Deep(128));
    assert!(cbor::to_vec(&Deep(129)).unwrap_err().is_depth());
    cbor::from_slice::<IgnoredAny>(&bytes).unwrap();
    assert!(
        cbor::to_vec_with(&Deep(2), cbor::Options::new().depth_max(1))
            .unwrap_err()
            .is_depth()
    );
}
