//! RFC 8949 Appendix A: every example, as an input of `check` and `canonicalize`, and where serde can say it, of `to_vec`.

use canon_ser::cbor;
use serde::{Serialize, Serializer};

pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// Examples that are in deterministic form as printed.
const DETERMINISTIC: &[&str] = &[
    "00",
    "01",
    "0a",
    "17",
    "1818",
    "1819",
    "1864",
    "1903e8",
    "1a000f4240",
    "1b000000e8d4a51000",
    "1bffffffffffffffff",
    "c249010000000000000000",
    "3bffffffffffffffff",
    "c349010000000000000000",
    "20",
    "29",
    "3863",
    "3903e7",
    "f90000",
    "f98000",
    "f93c00",
    "fb3ff199999999999a",
    "f93e00",
    "f97bff",
    "fa47c35000",
    "fa7f7fffff",
    "fb7e37e43c8800759c",
    "f90001",
    "f90400",
    "f9c400",
    "fbc010666666666666",
    "f97c00",
    "f97e00",
    "f9fc00",
    "f4",
    "f5",
    "f6",
    "f7",
    "f0",
    "f8ff",
    "c074323031332d30332d32315432303a30343a30305a",
    "c11a514b67b0",
    "c1fb41d452d9ec200000",
    "d74401020304",
    "d818456449455446",
    "d82076687474703a2f2f7777772e6578616d706c652e636f6d",
    "40",
    "4401020304",
    "60",
    "6161",
    "6449455446",
    "62225c",
    "62c3bc",
    "63e6b0b4",
    "64f0908591",
    "80",
    "83010203",
    "8301820203820405",
    "98190102030405060708090a0b0c0d0e0f101112131415161718181819",
    "a0",
    "a201020304",
    "a26161016162820203",
    "826161a161626163",
    "a56161614161626142616361436164614461656145",
];

/// Examples that are not: what they become.
const LOOSE: &[(&str, &str)] = &[
    ("fa7f800000", "f97c00"),
    ("fa7fc00000", "f97e00"),
    ("faff800000", "f9fc00"),
    ("fb7ff0000000000000", "f97c00"),
    ("fb7ff8000000000000", "f97e00"),
    ("fbfff0000000000000", "f9fc00"),
    ("5f42010243030405ff", "450102030405"),
    ("7f657374726561646d696e67ff", "6973747265616d696e67"),
    ("9fff", "80"),
    ("9f018202039f0405ffff", "8301820203820405"),
    ("9f01820203820405ff", "8301820203820405"),
    ("83018202039f0405ff", "8301820203820405"),
    ("83019f0203ff820405", "8301820203820405"),
    (
        "9f0102030405060708090a0b0c0d0e0f101112131415161718181819ff",
        "98190102030405060708090a0b0c0d0e0f101112131415161718181819",
    ),
    ("bf61610161629f0203ffff", "a26161016162820203"),
    ("826161bf61626163ff", "826161a161626163"),
    ("bf6346756ef563416d7421ff", "a263416d74216346756ef5"),
];

#[test]
fn deterministic_examples_stay() {
    for text in DETERMINISTIC {
        let bytes = hex(text);
        cbor::check(&bytes).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(cbor::canonicalize(&bytes).unwrap(), bytes, "{text}");
        for cut in 0..bytes.len() {
            assert!(
                cbor::check(&bytes[..cut]).unwrap_err().is_syntax(),
                "{text} cut at {cut}"
            );
            assert!(cbor::canonicalize(&bytes[..cut]).unwrap_err().is_syntax());
        }
    }
}

#[test]
fn loose_examples_become_deterministic() {
    for (text, expected) in LOOSE {
        let bytes = hex(text);
        assert_eq!(
            cbor::canonicalize(&bytes).unwrap_or_else(|error| panic!("{text}: {error}")),
            hex(expected),
            "{text}"
        );
        assert!(
            cbor::check(&bytes).unwrap_err().is_not_canonical(),
            "{text}"
        );
    }
}

#[track_caller]
fn check<T: Serialize + ?Sized>(value: &T, expected: &str) {
    assert_eq!(cbor::to_vec(value).unwrap(), hex(expected), "{expected}");
}

struct Bytes(&'static [u8]);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

#[test]
fn from_serde_values() {
    for (value, expected) in [
        (0_i128, "00"),
        (23, "17"),
        (24, "1818"),
        (25, "1819"),
        (100, "1864"),
        (1000, "1903e8"),
        (1_000_000, "1a000f4240"),
        (1_000_000_000_000, "1b000000e8d4a51000"),
        (18_446_744_073_709_551_615, "1bffffffffffffffff"),
        (18_446_744_073_709_551_616, "c249010000000000000000"),
        (-18_446_744_073_709_551_616, "3bffffffffffffffff"),
        (-18_446_744_073_709_551_617, "c349010000000000000000"),
        (-1, "20"),
        (-10, "29"),
        (-100, "3863"),
        (-1000, "3903e7"),
    ] {
        check(&value, expected);
        if let Ok(narrow) = i64::try_from(value) {
            check(&narrow, expected);
        }
        if let Ok(narrow) = u64::try_from(value) {
            check(&narrow, expected);
        }
    }
    for (value, expected) in [
        (0.0, "f90000"),
        (-0.0, "f98000"),
        (1.0, "f93c00"),
        (1.1, "fb3ff199999999999a"),
        (1.5, "f93e00"),
        (65504.0, "f97bff"),
        (100_000.0, "fa47c35000"),
        (3.402_823_466_385_288_6e38, "fa7f7fffff"),
        (1.0e300, "fb7e37e43c8800759c"),
        (5.960_464_477_539_063e-8, "f90001"),
        (0.000_061_035_156_25, "f90400"),
        (-4.0, "f9c400"),
        (-4.1, "fbc010666666666666"),
        (f64::INFINITY, "f97c00"),
        (f64::NAN, "f97e00"),
        (-f64::NAN, "f97e00"),
        (f64::NEG_INFINITY, "f9fc00"),
    ] {
        check(&value, expected);
        check(
            &f64::from(value as f32),
            &hex_of(&cbor::to_vec(&(value as f32)).unwrap()),
        );
    }
    check(&false, "f4");
    check(&true, "f5");
    check(&(), "f6");
    check(&None::<u8>, "f6");
    check(&Bytes(&[1, 2, 3, 4]), "4401020304");
    check("IETF", "6449455446");
    check("\"\\", "62225c");
    check(&'\u{10151}', "64f0908591");
    check(&Vec::<u8>::new(), "80");
    check(&(1, [2, 3], [4, 5]), "8301820203820405");
    check(
        &(1..=25).collect::<Vec<_>>(),
        "98190102030405060708090a0b0c0d0e0f101112131415161718181819",
    );
    check(
        &std::collections::HashMap::from([(1, 2), (3, 4)]),
        "a201020304",
    );
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
