//! CBOR from outside: hostile, loose, and to and from JSON.

use canon_ser::cbor::{self, Options};
use canon_ser::json::{self, Integers};

use crate::rfc8949::hex;

#[test]
fn not_deterministic_with_place_and_reason() {
    for (text, offset, reason) in [
        ("1817", 0, "shorter head"),
        ("1900ff", 0, "shorter head"),
        ("1a0000ffff", 0, "shorter head"),
        ("1b00000000ffffffff", 0, "shorter head"),
        ("3800", 0, "shorter head"),
        ("5801ff", 0, "shorter head"),
        ("780161", 0, "shorter head"),
        ("81980101", 1, "shorter head"),
        ("b8010101", 0, "shorter head"),
        ("d80100", 0, "shorter head"),
        ("9f01ff", 0, "indefinite"),
        ("81bfff", 1, "indefinite"),
        ("5f4101ff", 0, "indefinite"),
        ("8101", usize::MAX, ""),
        ("a2020101 01", 3, "out of order"),
        ("a2 6162 01 6161 01", 4, "out of order"),
        ("a2 6161 01 01 01", 4, "out of order"),
        ("fa3f800000", 0, "shorter one"),
        ("fb3ff8000000000000", 0, "shorter one"),
        ("82 00 f97e01", 2, "NaN"),
        ("fa7fc00000", 0, "NaN"),
        ("c24101", 0, "bignum"),
        ("c240", 0, "bignum"),
        ("81c24900ffffffffffffffff", 1, "bignum"),
        ("c348ffffffffffffffff", 0, "bignum"),
    ] {
        let bytes = hex(text);
        let result = cbor::check(&bytes);
        let canonical = cbor::canonicalize(&bytes).unwrap();
        if offset == usize::MAX {
            assert_eq!(canonical, bytes);
            continue;
        }
        let error = result.expect_err(text);
        assert!(error.is_not_canonical(), "{text}: {error}");
        assert_eq!(error.offset(), Some(offset), "{text}: {error}");
        assert!(error.reason().contains(reason), "{text}: {error}");
        cbor::check(&canonical).unwrap();
        assert_ne!(canonical, bytes);
    }
}

#[test]
fn malformed() {
    for text in [
        "",
        "1c",
        "1d",
        "1e",
        "3c",
        "5c",
        "7c",
        "9c",
        "bc",
        "dc",
        "fc",
        "fd",
        "fe",
        "1f",
        "3f",
        "df",
        "ff",
        "18",
        "19ff",
        "81",
        "8201",
        "a1",
        "a101",
        "5f",
        "5f01ff",
        "5f5f4100ffff",
        "5f6161ff",
        "7f4100ff",
        "9f",
        "bf",
        "bf01ff",
        "bf0102",
        "f800",
        "f81f",
        "f8",
        "f9ff",
        "fa000000",
        "0000",
        "c2",
        "c201",
        "c26161",
        "c27fff",
        "61ff",
        "62c328",
        "7f61c361a9ff",
        "9bffffffffffffffff",
        "bbffffffffffffffff",
        "5bffffffffffffffff00",
        "7b7fffffffffffffff00",
        "bb8000000000000000",
        "8181",
        "c1",
        "81ff",
        "a1ff00",
        "d818ff",
    ] {
        let bytes = hex(text);
        let error = cbor::canonicalize(&bytes).expect_err(text);
        assert!(error.is_syntax(), "{text}: {error}");
        assert!(error.offset().is_some());
        let error = cbor::check(&bytes).expect_err(text);
        assert!(
            error.is_syntax() || error.is_not_canonical(),
            "{text}: {error}"
        );
        assert!(cbor::to_json(&bytes, Integers::Error).is_err());
    }
}

#[test]
fn duplicates() {
    for text in [
        "a2 01 01 01 02",
        "bf 01 01 1801 02 ff",
        "a3 02 00 01 00 02 00",
        "a2 9fff 00 80 00",
        "a2 f97e00 00 f97e01 00",
    ] {
        assert!(
            cbor::canonicalize(&hex(text))
                .expect_err(text)
                .is_duplicate_key(),
            "{text}"
        );
    }
    let error = cbor::check(&hex("81 a2 01 01 01 02")).unwrap_err();
    assert!(error.is_duplicate_key());
    assert_eq!(error.offset(), Some(4));
}

#[test]
fn a_million_levels_cost_no_stack() {
    let depth = 1_000_000;
    for head in [0x81_u8, 0xa1, 0xc1, 0x9f, 0xbf] {
        let bytes = vec![head; depth];
        let error = cbor::canonicalize(&bytes).unwrap_err();
        assert!(error.is_depth(), "{head:02x}: {error}");
        assert_eq!(error.offset(), Some(128));
        assert!(cbor::to_json(&bytes, Integers::Error).is_err());
        assert!(cbor::from_slice::<serde::de::IgnoredAny>(&bytes).is_err());
    }
    let options = Options::new().depth_max(usize::MAX);
    let mut whole = vec![0x81; depth];
    whole.push(0);
    cbor::check_with(&whole, options).unwrap();
    assert_eq!(cbor::canonicalize_with(&whole, options).unwrap(), whole);
    let mut loose = vec![0x9f; depth];
    loose.extend(vec![0xff; depth]);
    let tight = cbor::canonicalize_with(&loose, options).unwrap();
    assert_eq!((tight.len(), tight[depth - 1]), (depth, 0x80));
}

#[test]
fn from_json_keeps_values_not_spellings() {
    for (spellings, expected) in [
        (&["1", "1.0", "1e0", "10e-1"][..], "01"),
        (&["0", "-0", "-0.0", "0e7", "1e-400"], "00"),
        (&["-1", "-1.000"], "20"),
        (
            &[
                "9007199254740992",
                "9007199254740993.0",
                "9007199254740992.5",
            ],
            "1b0020000000000000",
        ),
        // The same double as Python and as JavaScript print it.
        (
            &[
                "1.2345678901234567e18",
                "1234567890123456800",
                "1234567890123456768.0",
            ],
            "1b112210f47de98100",
        ),
        (
            &["-18446744073709552000", "-1.8446744073709552e19"],
            "3bffffffffffffffff",
        ),
        (
            &["18446744073709552000", "1.8446744073709552e19"],
            "fa5f800000",
        ),
        (
            &["1e30", "1000000000000000000000000000000.0"],
            "fb46293e5939a08cea",
        ),
        // With a fraction or an exponent a number is a double, as canonical JSON has it too.
        (
            &[
                "99999999999999990000.0",
                "9.9999999999999991234e19",
                "99999999999999991234.0",
            ],
            "fb4415af1d78b58c3f",
        ),
        (&["0.5", "5e-1", "0.50"], "f93800"),
        (&["0.1"], "fb3fb999999999999a"),
    ] {
        for text in spellings {
            assert_eq!(
                cbor::from_json(text.as_bytes()).unwrap(),
                hex(expected),
                "{text}"
            );
        }
    }
    let error = cbor::from_json(b"18446744073709551615").unwrap_err();
    assert!(error.is_number());
    let text = cbor::from_json_with(b"18446744073709551615", Integers::String).unwrap();
    assert_eq!(text, b"\x7418446744073709551615");
    let rounded = cbor::from_json_with(b"9007199254740993", Integers::Round).unwrap();
    assert_eq!(rounded, hex("1b0020000000000000"));
    let error = cbor::from_json(b"[1,\n 18446744073709551617]").unwrap_err();
    assert!(error.is_number());
    assert_eq!(
        (error.line(), error.column(), error.pointer()),
        (Some(2), Some(2), Some("/1"))
    );
    assert!(cbor::from_json(b"1e400").unwrap_err().is_number());
    assert!(
        cbor::from_json(b"{\"a\":1,\"\\u0061\":2}")
            .unwrap_err()
            .is_duplicate_key()
    );
    assert!(cbor::from_json(&b"[".repeat(200)).unwrap_err().is_depth());
    let text = r#"{"longer":[],"b":{"z":null,"a":[true,false,"\u00e9\n"]},"":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24]}"#;
    let bytes = cbor::from_json(text.as_bytes()).unwrap();
    cbor::check(&bytes).unwrap();
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    assert_eq!(bytes, cbor::to_vec(&value).unwrap());
}

#[test]
fn exact_keeps_the_digits_of_integers_of_up_to_128_bits() {
    for (text, exact) in [
        ("9007199254740993", "1b0020000000000001"),
        ("18446744073709551615", "1bffffffffffffffff"),
        ("-18446744073709551616", "3bffffffffffffffff"),
        ("1234567890123456800", "1b112210f47de98120"),
        ("18446744073709551616", "c249010000000000000000"),
        ("1.8446744073709551616e19", "c249010000000000000000"),
        ("-18446744073709551617", "c349010000000000000000"),
        // Though a double holds it: what is spelled alike has one form, and 100000000000000000001 is none.
        ("1e20", "c249056bc75e2d63100000"),
        ("100000000000000000001", "c249056bc75e2d63100001"),
        (
            "340282366920938463463374607431768211455",
            "c250ffffffffffffffffffffffffffffffff",
        ),
        // No integers, but what canonical JSON makes of them are.
        ("1.00000000000000000000903699670895736331", "01"),
        ("-1e-400", "00"),
        ("123456789012345678901234.5", "c24a1a249b1f10a06d400a80"),
        // Beyond 128 bits only what a double prints as.
        ("1e300", "fb7e37e43c8800759c"),
    ] {
        let bytes = cbor::from_json_with(text.as_bytes(), Integers::Exact).unwrap();
        assert_eq!(bytes, hex(exact), "{text}");
        let canonical = json::canonicalize_with(text.as_bytes(), Integers::Exact).unwrap();
        assert_eq!(cbor::to_json(&bytes, Integers::Exact).unwrap(), canonical);
        let again = cbor::from_json_with(&canonical, Integers::Exact).unwrap();
        assert_eq!(again, bytes, "{text}");
    }
    for text in [
        "340282366920938463463374607431768211456",
        "-340282366920938463463374607431768211457",
        // By its value, not by its spelling: canonical JSON writes it without the fraction.
        "3402823669209384634633746074317682114561.0",
    ] {
        let error = cbor::from_json_with(text.as_bytes(), Integers::Exact).unwrap_err();
        assert!(
            error.is_number() && !error.reason().contains("policy"),
            "{error}"
        );
    }
}

#[test]
fn to_json_refuses_what_json_cannot_say() {
    let json = |text: &str, policy: Integers| {
        cbor::to_json(&hex(text), policy).map(|bytes| String::from_utf8(bytes).unwrap())
    };
    assert_eq!(
        json(
            "bf 6162 9f 01 fb3ff8000000000000 f4 f5 f6 ff 6161 a0 6163 7f 6122 610a ff ff",
            Integers::Error
        )
        .unwrap(),
        "{\"a\":{},\"b\":[1,1.5,false,true,null],\"c\":\"\\\"\\n\"}"
    );
    for text in [
        "40",
        "c100",
        "f7",
        "f0",
        "a10001",
        "a1800001",
        "a1c16161 00",
        "a1f600",
    ] {
        assert!(json(text, Integers::Exact).unwrap_err().is_data(), "{text}");
    }
    assert!(json("f97e00", Integers::Exact).unwrap_err().is_number());
    assert!(json("f97c00", Integers::Exact).unwrap_err().is_number());
    assert!(
        json("a2 6161 00 6161 00", Integers::Exact)
            .unwrap_err()
            .is_duplicate_key()
    );
    assert!(
        json("1b0020000000000001", Integers::Error)
            .unwrap_err()
            .is_number()
    );
    assert_eq!(
        json("3bffffffffffffffff", Integers::Exact).unwrap(),
        "-18446744073709551616"
    );
    assert_eq!(
        json("c249010000000000000000", Integers::Exact).unwrap(),
        "18446744073709551616"
    );
    assert_eq!(
        json("c349010000000000000000", Integers::String).unwrap(),
        "\"-18446744073709551617\""
    );
    assert_eq!(json("c24105", Integers::Error).unwrap(), "5");
    assert!(
        json("c251010000000000000000000000000000000000", Integers::Exact)
            .unwrap_err()
            .is_data()
    );
}

#[test]
fn string_makes_text_of_what_it_makes_strings_of_in_json() {
    for (text, expected) in [
        ("1e17", "\x72100000000000000000"),
        ("100000000000000000", "\x72100000000000000000"),
        ("-1.00e17", "\x73-100000000000000000"),
        ("9007199254740993.5", "\x709007199254740994"),
        ("123456789012345678901.5", "\x75123456789012345680000"),
        ("9007199254740992.0", "\x1b\0\x20\0\0\0\0\0\0"),
    ] {
        let bytes = cbor::from_json_with(text.as_bytes(), Integers::String).unwrap();
        assert_eq!(bytes, expected.as_bytes(), "{text}");
    }
    // No integer in canonical JSON either.
    let float = cbor::from_json_with(b"1e21", Integers::String).unwrap();
    assert_eq!(float, cbor::from_json(b"1e21").unwrap());
}

/// What is canonical JSON comes back from CBOR as it was.
#[test]
fn canonical_json_survives_cbor() {
    for text in [
        "10000000000000000000",
        "18014398509481984",
        "9007199254740994",
        "1234567890123456800",
        "-18446744073709552000",
        "1e+21",
        "[0,-1,0.1,5e-324]",
    ] {
        let bytes = cbor::from_json(text.as_bytes()).unwrap();
        let back = cbor::to_json(&bytes, Integers::Error).unwrap();
        assert_eq!(String::from_utf8(back).unwrap(), text);
    }
    // No double is this integer.
    let error = cbor::to_json(b"\x1b\0\x20\0\0\0\0\0\x01", Integers::Error).unwrap_err();
    assert!(error.is_number());
}

proptest::proptest! {
    /// Texts of one canonical JSON have one CBOR, whoever printed their numbers.
    #[test]
    fn cbor_of_text_is_cbor_of_its_canonical_form(
        value in proptest::num::f64::NORMAL | proptest::num::f64::ZERO,
        whole in proptest::prelude::any::<i64>(),
        digits in 0_usize..20,
    ) {
        for text in [
            format!("{value:e}"),
            format!("{value}"),
            format!("{:.digits$e}", value),
            format!("{whole}.{digits}"),
            format!("{whole}"),
            format!("{:e}", whole as f64),
            format!("{digits}e17"),
        ] {
            for policy in [Integers::Error, Integers::Round, Integers::String] {
                let canonical = json::canonicalize_with(text.as_bytes(), policy);
                let bytes = cbor::from_json_with(text.as_bytes(), policy);
                proptest::prop_assert_eq!(canonical.is_ok(), bytes.is_ok(), "{}", text);
                let (Ok(canonical), Ok(bytes)) = (canonical, bytes) else { continue };
                let again = cbor::from_json_with(&canonical, policy).unwrap();
                proptest::prop_assert_eq!(again, bytes.clone(), "{} {:?}", text, policy);
                proptest::prop_assert_eq!(cbor::to_json(&bytes, policy).unwrap(), canonical);
            }
        }
    }
}
