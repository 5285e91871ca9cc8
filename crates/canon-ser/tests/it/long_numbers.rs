//! Numbers spelled with very many digits, and with exponents that only those outweigh.

use canon_ser::json::{self, Integers};
use canon_ser::{cbor, semantic};

const POLICIES: [Integers; 4] = [
    Integers::Error,
    Integers::Round,
    Integers::String,
    Integers::Exact,
];

/// Both spell one number: that must show in every face that reads numbers.
#[track_caller]
fn same(long: &str, short: &str) {
    let (text, expected) = (long.as_bytes(), short.as_bytes());
    let shown = format!("{}... of {} bytes", &long[..long.len().min(20)], long.len());
    for policy in POLICIES {
        let (ours, of_short) = (
            json::canonicalize_with(text, policy),
            json::canonicalize_with(expected, policy),
        );
        assert_eq!(ours.ok(), of_short.ok(), "{shown} {policy:?}");
        let (ours, of_short) = (
            cbor::from_json_with(text, policy),
            cbor::from_json_with(expected, policy),
        );
        assert_eq!(ours.ok(), of_short.ok(), "{shown} {policy:?}");
    }
    assert!(json::check(text).is_err(), "{shown}");
    assert_eq!(
        semantic::equal(text, expected).ok(),
        json::canonicalize(expected).is_ok().then_some(true),
        "{shown}"
    );
    let mut streamed = Vec::new();
    let done = json::canonicalize_to(
        std::io::Cursor::new(text),
        &mut streamed,
        json::Options::new(),
    );
    assert_eq!(
        done.ok().map(|()| streamed),
        json::canonicalize(expected).ok(),
        "{shown}"
    );
}

fn zeros(count: usize) -> String {
    "0".repeat(count)
}

#[test]
fn zeros_outweigh_the_exponent() {
    for count in [1_000, 65_537, 655_360] {
        let sign = ["", "-"][count % 2];
        let fraction =
            |digits: &str, power: usize| format!("{sign}0.{}{digits}e{power}", zeros(count));
        same(&fraction("15", count + 1), &format!("{sign}1.5"));
        same(&fraction("1", count), &format!("{sign}0.1"));
        same(&fraction("1", count + 309), &format!("{sign}1e308"));
        same(&fraction("1", count + 310), &format!("{sign}1e309"));
        same(&fraction("5", count - 323), &format!("{sign}5e-324"));
        same(&fraction("2", count - 323), "0.0");
        let integer =
            |digits: &str, power: usize| format!("{sign}{digits}{}e-{power}", zeros(count));
        same(&integer("1", count), &format!("{sign}1"));
        same(&integer("25", count + 1), &format!("{sign}2.5"));
        same(&integer("1", count - 16), &format!("{sign}1e16"));
        same(&integer("1", count - 308), &format!("{sign}1e308"));
        same(&integer("1", count - 309), &format!("{sign}1e309"));
        same(&integer("5", count + 324), &format!("{sign}5e-324"));
        same(&integer("2", count + 324), "0.0");
    }
}

#[test]
fn exponents_of_any_length() {
    let powers = [
        "99999999999999999999",
        "9223372036854775808",
        "18446744073709551616",
        "655360",
        "65536",
    ];
    let huge = "9".repeat(2_000);
    for power in powers.into_iter().chain([huge.as_str()]) {
        for filler in [0, 2_000] {
            let zeros = zeros(filler);
            same(&format!("1{zeros}e{power}"), "1e400");
            same(&format!("-0.{zeros}1e+{power}"), "-1e400");
            same(&format!("1{zeros}e-{power}"), "0.0");
            same(&format!("-0.{zeros}1E-{power}"), "0.0");
            same(&format!("0e{power}"), "0.0");
            same(&format!("-0.0{zeros}e{power}"), "0.0");
            same(&format!("0.0{zeros}e-{power}"), "0.0");
        }
    }
    let leading = zeros(2_000);
    same(&format!("15e{leading}2"), "1500.0");
    same(&format!("15e-{leading}1"), "1.50");
    same(&format!("0.15e+{leading}0"), "1.5e-1");
}

/// However far behind the tie between two doubles a digit stands, it counts.
#[test]
fn the_last_of_many_digits_decides() {
    // 2^53 + 1, between 2^53 and 2^53 + 2.
    for count in [1_100, 700_000] {
        let zeros = zeros(count);
        let of_tie = |end: &str| {
            let spelled = format!("9007199254740993.{zeros}{end}");
            let scaled = format!("0.{zeros}9007199254740993{zeros}{end}e{}", count + 16);
            [spelled, scaled].map(|text| {
                String::from_utf8(json::canonicalize(text.as_bytes()).unwrap()).unwrap()
            })
        };
        assert_eq!(of_tie("0"), ["9007199254740992"; 2]);
        assert_eq!(of_tie("1"), ["9007199254740994"; 2]);
    }
    // 2^-1075, between zero and the least double, in all its 752 digits.
    let least = format!("{:.1074}", f64::from_bits(1));
    let mut rest = 0;
    let mut half: String = least
        .strip_prefix("0.")
        .unwrap()
        .bytes()
        .chain(*b"0")
        .map(|digit| {
            let value = rest * 10 + (digit - b'0');
            rest = value % 2;
            char::from(b'0' + value / 2)
        })
        .collect();
    assert_eq!(half.trim_start_matches('0').len(), 752);
    half.insert_str(0, "0.");
    same(&half, "0.0");
    same(&format!("{half}{}", zeros(5_000)), "0.0");
    same(&format!("{half}{}1", zeros(5_000)), "5e-324");
    half.pop();
    same(&format!("{half}4{}", "9".repeat(5_000)), "0.0");
}
