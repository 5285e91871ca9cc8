//! Every double as ECMAScript prints it, against ryu-js; literals against what they mean.

use canon_ser::json::{self, Integers};

#[track_caller]
fn check(value: f64) {
    if !value.is_finite() {
        return;
    }
    let mut buffer = ryu_js::Buffer::new();
    let expected = buffer.format(value);
    let ours = json::to_vec(&value).unwrap();
    assert_eq!(
        std::str::from_utf8(&ours).unwrap(),
        expected,
        "{:016x}",
        value.to_bits()
    );
    json::check(&ours).unwrap();
    assert_eq!(json::canonicalize(&ours).unwrap(), ours);
}

fn with_neighbours(value: f64) {
    for bits in [
        value.to_bits().wrapping_sub(1),
        value.to_bits(),
        value.to_bits().wrapping_add(1),
    ] {
        check(f64::from_bits(bits));
        check(-f64::from_bits(bits));
    }
}

#[test]
fn every_exponent_with_boundary_fractions() {
    for exponent in 0..0x7ff_u64 {
        for fraction in [
            0,
            1,
            2,
            1 << 51,
            (1 << 52) - 2,
            (1 << 52) - 1,
            0x5555555555555,
        ] {
            check(f64::from_bits(exponent << 52 | fraction));
        }
    }
}

#[test]
fn powers_of_ten_and_of_two_and_small_decimals() {
    for power in -325..310 {
        for digit in 1..10 {
            with_neighbours(format!("{digit}e{power}").parse().unwrap());
        }
    }
    for power in 0..64 {
        with_neighbours((1_u128 << power) as f64);
        with_neighbours((1_u128 << power) as f64 + 0.5);
    }
    for n in 0..5000 {
        check(f64::from(n) / 1000.0);
        check(f64::from(n) * 1e-9);
    }
}

/// Not random enough for anything but picking test cases; the same in every run.
fn xorshift(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn random_bit_patterns() {
    let mut state = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..60_000 {
        check(f64::from_bits(xorshift(&mut state)));
        check((xorshift(&mut state) >> 20) as f64 / 4096.0);
    }
}

#[test]
fn literals_of_the_same_value_have_the_same_form() {
    let mut state = 7;
    for _ in 0..20_000 {
        let digits = 1 | xorshift(&mut state) >> (xorshift(&mut state) % 60);
        let power = (xorshift(&mut state) % 60) as i32 - 40;
        let text = digits.to_string();
        let point = (xorshift(&mut state) as usize) % (text.len() + 1);
        let (int, frac) = text.split_at(point);
        let int = if int.is_empty() { "0" } else { int };
        let shifted = power + frac.len() as i32;
        let spellings = [
            format!("{digits}e{power}"),
            format!("{digits}00E{}", power - 2),
            if frac.is_empty() {
                format!("{int}.0e+{}", power.max(0))
            } else {
                format!("{int}.{frac}e{shifted}")
            },
        ];
        for (nth, text) in spellings.iter().enumerate() {
            if nth == 2 && frac.is_empty() && power < 0 {
                continue;
            }
            let value: f64 = text.parse().unwrap();
            let ours = json::canonicalize(text.as_bytes()).unwrap();
            assert_eq!(
                std::str::from_utf8(&ours).unwrap(),
                ryu_js::Buffer::new().format(value),
                "{text}"
            );
        }
        let exact =
            |text: &String| json::canonicalize_with(text.as_bytes(), Integers::Exact).unwrap();
        assert_eq!(exact(&spellings[0]), exact(&spellings[1]));
        assert_eq!(
            exact(&String::from_utf8(exact(&spellings[0])).unwrap()),
            exact(&spellings[0]),
            "idempotent"
        );
    }
}

#[test]
fn plain_decimals_are_kept_only_when_they_are_canonical() {
    let cases = [
        ("0.1", "0.1"),
        ("0.10", "0.1"),
        ("1.0", "1"),
        ("-0", "0"),
        ("-0.0", "0"),
        ("0e9999999999999999999", "0"),
        ("0.000001", "0.000001"),
        ("0.0000012345", "0.0000012345"),
        ("0.0000001", "1e-7"),
        ("123456789012345.6", "123456789012345.6"),
        ("0.30000000000000004", "0.30000000000000004"),
        ("0.300000000000000044", "0.30000000000000004"),
        ("9007199254740992", "9007199254740992"),
        ("9007199254740994", "9007199254740994"),
        ("100000000000000000000", "100000000000000000000"),
        ("1e21", "1e+21"),
        ("1E-400", "0"),
        ("-12.50e1", "-125"),
        ("1e00000000000000000000000002", "100"),
    ];
    for (text, expected) in cases {
        let ours = json::canonicalize(text.as_bytes()).unwrap();
        assert_eq!(std::str::from_utf8(&ours).unwrap(), expected, "{text}");
        assert_eq!(
            json::check(text.as_bytes()).is_ok(),
            text == expected,
            "{text}"
        );
    }
}

#[test]
fn exact_integers_keep_every_digit() {
    let long = "9".repeat(308);
    let zeros = format!("1{}", "0".repeat(300));
    let cases = [
        ("9007199254740993", "9007199254740993"),
        ("-9007199254740993.000", "-9007199254740993"),
        ("9007199254740993e0", "9007199254740993"),
        ("1e2", "100"),
        ("1.5e1", "15"),
        ("-0", "0"),
        ("-0.0e5", "0"),
        ("1e300", &zeros),
        ("1e-1", "0.1"),
        ("12345678901234567890.5", "12345678901234567000"),
        ("1.5e-7", "1.5e-7"),
        (&long, &long),
    ];
    for (text, expected) in cases {
        let ours = json::canonicalize_with(text.as_bytes(), Integers::Exact).unwrap();
        assert_eq!(std::str::from_utf8(&ours).unwrap(), expected, "{text}");
        assert_eq!(
            json::check_with(text.as_bytes(), Integers::Exact).is_ok(),
            text == expected,
            "{text}"
        );
    }
    let beyond = "9".repeat(309);
    for text in ["1e309", "-1e999999999999999999999", "1e400", &beyond] {
        for policy in [Integers::Error, Integers::Round, Integers::Exact] {
            assert!(
                json::canonicalize_with(text.as_bytes(), policy)
                    .unwrap_err()
                    .is_number(),
                "{text}"
            );
        }
    }
}

#[test]
fn text_policies() {
    let with = |text: &str, policy: Integers| {
        json::canonicalize_with(text.as_bytes(), policy)
            .map(|bytes| String::from_utf8(bytes).unwrap())
    };
    for text in [
        "9007199254740993",
        "-18446744073709551615",
        "100000000000000000001",
    ] {
        let error = with(&format!("[1, {text}]"), Integers::Error).unwrap_err();
        assert!(error.is_number() && error.offset() == Some(4));
        assert_eq!(with(text, Integers::String).unwrap(), format!("\"{text}\""));
        let rounded = ryu_js::Buffer::new()
            .format(text.parse::<f64>().unwrap())
            .to_string();
        assert_eq!(with(text, Integers::Round).unwrap(), rounded);
    }
    // A second pass changes nothing.
    for text in [
        "1e20",
        "100000000000000000000",
        "9007199254740993.5",
        "1e30",
        "-1e17",
    ] {
        let once = with(text, Integers::String).unwrap();
        assert_eq!(with(&once, Integers::String).unwrap(), once);
    }
    assert_eq!(
        with("1e20", Integers::String).unwrap(),
        "\"100000000000000000000\""
    );
}

#[test]
fn integers_of_every_length() {
    let powers = (0..=15).map(|power| 10_u64.pow(power));
    let near = powers.flat_map(|power| [power - 1, power, power + 1, power * 7 + power / 3]);
    for value in near.filter(|&value| value <= 1 << 53).chain([1 << 53]) {
        assert_eq!(json::to_string(&value).unwrap(), value.to_string());
        let negative = -(value as i64);
        assert_eq!(json::to_string(&negative).unwrap(), negative.to_string());
        let exact = json::to_slice(&value, &mut [0; 16][..value.to_string().len()])
            .unwrap()
            .len();
        assert_eq!(exact, value.to_string().len(), "an exact buffer is enough");
    }
}

#[test]
fn texts_of_every_length_fill_an_exact_buffer() {
    for len in 0..70 {
        let text: String = ('a'..='z').cycle().take(len).collect();
        let pair = std::collections::BTreeMap::from([(text.as_str(), text.as_str())]);
        let expected = format!("{{\"{text}\":\"{text}\"}}");
        let mut buffer = vec![0; expected.len()];
        assert_eq!(
            json::to_slice(&pair, &mut buffer).unwrap(),
            expected.as_bytes()
        );
        assert!(
            json::to_slice(&pair, &mut buffer[1..])
                .unwrap_err()
                .is_buffer_full()
        );
        let mut cbor = canon_ser::cbor::to_vec(&pair).unwrap();
        let read: std::collections::BTreeMap<String, String> =
            canon_ser::cbor::from_slice(&cbor).unwrap();
        assert_eq!(read[&text], text);
        let made = cbor.clone();
        assert_eq!(canon_ser::cbor::to_slice(&pair, &mut cbor).unwrap(), made);
    }
}
