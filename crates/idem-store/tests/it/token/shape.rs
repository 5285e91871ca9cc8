//! Bits, bytes and text of tokens; the pure core.

use idem_store::token::{Compact, EPOCH_MS, FingerprintHalf, Id, Snowflake, Token, Turn};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

fn token() -> Token {
    let id = Id::new(0x123_4567_89AB, 0x2A5, 0xC3D).unwrap();
    Token::new(id, FingerprintHalf::of(b"charge order-17"))
}

#[test]
fn the_bits_are_41_10_12_and_the_half_is_of_sha_256() {
    let number = token().id().as_u64();
    let expected = 0x123_4567_89AB_u64 << 22 | 0x2A5 << 12 | 0xC3D;
    assert_eq!(number, expected);
    let mut bytes = expected.to_be_bytes().to_vec();
    bytes.extend_from_slice(&Sha256::digest(b"charge order-17")[..8]);
    assert_eq!(token().to_bytes().to_vec(), bytes);
}

/// Fixed for ever: these texts are stored by others.
#[test]
fn golden_texts() {
    let id = Id::new(0x123_4567_89AB, 0x2A5, 0xC3D).unwrap();
    let half = FingerprintHalf([0, 1, 2, 0xFD, 0xFE, 0xFF, 0x80, 0x7F]);
    let token = Token::new(id, half);
    assert_eq!(token.to_string(), "SNFZ4mrqXD0AAQL9_v-Afw");
    assert_eq!(token.compact().to_string(), "SNBbH5QV3EI");
}

#[test]
fn the_largest_parts_fit_and_larger_ones_do_not() {
    let id = Id::new((1 << 41) - 1, 1023, 4095).unwrap();
    assert_eq!(id.as_u64(), u64::MAX >> 1);
    assert_eq!(Id::new(1 << 41, 0, 0), None);
    assert_eq!(Id::new(0, 1024, 0), None);
    assert_eq!(Id::new(0, 0, 4096), None);
    assert_eq!(Id::from_u64(1 << 63), None);
}

#[test]
fn only_one_text_is_the_token() {
    let text = token().to_string();
    let mut wrong = vec![
        String::new(),
        text[..21].to_owned(),
        format!("{text}="),
        format!("{text}A"),
        text.replacen(|c: char| c.is_ascii_alphanumeric(), "+", 1),
        text.replacen(|c: char| c.is_ascii_alphanumeric(), "é", 1),
        format!("_{}", &text[1..]),
    ];
    // The last character carries two bits; another of its sixteen spellings is refused.
    let last = text.chars().last().unwrap();
    for spelling in ('A'..='Z').filter(|c| *c != last && !"AQgw".contains(*c)) {
        wrong.push(format!("{}{spelling}", &text[..21]));
    }
    for text in wrong {
        let error = text.parse::<Token>().unwrap_err();
        assert!(error.is_malformed(), "{text}: {error}");
    }
    assert!("".parse::<Compact>().unwrap_err().is_malformed());
}

#[test]
fn a_token_matches_its_fingerprint_only() {
    assert!(token().matches(b"charge order-17"));
    assert!(!token().matches(b"charge order-18"));
    let half = FingerprintHalf::of(b"charge order-17");
    assert_eq!(token().compact().id(half), Some(token().id()));
}

#[test]
fn ids_of_one_millisecond_end_and_the_next_one_starts_anew() {
    let mut ids = Snowflake::new(EPOCH_MS, &[9, 3], 0).unwrap();
    let now_ms = EPOCH_MS + 1_000;
    ids.reserve(now_ms + 10);
    let mut last = None;
    for n in 0..2 * 4096 {
        let Turn::Id(id) = ids.next(now_ms) else {
            panic!("id {n}");
        };
        assert!(Some(id) > last, "{id:?} after {last:?}");
        assert_eq!(id.worker(), if n < 4096 { 3 } else { 9 });
        last = Some(id);
    }
    let until_ms = now_ms + 1;
    assert_eq!(ids.next(now_ms), Turn::Full { until_ms });
    let first = Id::new(1_001, 3, 0).unwrap();
    assert_eq!(ids.next(until_ms), Turn::Id(first));
}

#[test]
fn no_id_below_the_floor_or_beyond_what_is_reserved() {
    let now_ms = EPOCH_MS + 1_000;
    let mut ids = Snowflake::new(EPOCH_MS, &[0], now_ms).unwrap();
    let behind = Turn::Behind { until_ms: now_ms };
    assert_eq!(ids.next(now_ms - 1), behind);
    assert_eq!(ids.next(now_ms), Turn::Reserve);
    assert_eq!(ids.floor_ms(), now_ms);
    ids.reserve(now_ms + 2);
    ids.reserve(now_ms + 1);
    assert!(matches!(ids.next(now_ms), Turn::Id(_)));
    assert!(matches!(ids.next(now_ms + 1), Turn::Id(_)));
    assert_eq!(ids.next(now_ms + 2), Turn::Reserve);
    assert_eq!(
        ids.next(now_ms),
        Turn::Behind {
            until_ms: now_ms + 1
        }
    );
    assert_eq!(ids.floor_ms(), now_ms + 2);
}

#[test]
fn time_before_the_epoch_and_after_69_years_is_refused() {
    let mut ids = Snowflake::new(EPOCH_MS, &[0], 0).unwrap();
    ids.reserve(u64::MAX);
    assert_eq!(ids.next(EPOCH_MS - 1), Turn::OutOfTime);
    assert!(matches!(ids.next(EPOCH_MS + (1 << 41) - 1), Turn::Id(_)));
    assert_eq!(ids.next(EPOCH_MS + (1 << 41)), Turn::OutOfTime);
}

#[test]
fn workers_must_be_different_and_at_most_1023() {
    for workers in [&[][..], &[1, 1], &[1024]] {
        assert!(Snowflake::new(EPOCH_MS, workers, 0).is_err(), "{workers:?}");
    }
}

/// What the docs of `Compact` derive, against a simulation of fewer bits: the birthday bound.
#[test]
fn the_odds_in_the_docs_are_right() {
    let p = |n: f64, space: f64| -(-n * (n - 1.0) / (2.0 * space)).exp_m1();
    let two64 = 2_f64.powi(64);
    assert!((p(1e9, two64) - 0.027).abs() < 0.0005);
    assert!((p(5.06e9, two64) - 0.5).abs() < 0.001);

    // 10^9 of 2^64 is like 60 of 2^16: the same share of systems collides.
    let n = 60;
    let expected = p(f64::from(n), 65_536.0);
    let rounds = 4_000_u32;
    let collided = (0..rounds).filter(|round| {
        let mut seen = std::collections::BTreeSet::new();
        (0..n).any(|request| {
            let id = Id::new(u64::from(*round), 1, request as u16).unwrap();
            let half = FingerprintHalf::of(format!("{round}/{request}").as_bytes());
            !seen.insert(Compact::new(id, half).to_bytes()[..2].to_vec())
        })
    });
    let share = collided.count() as f64 / f64::from(rounds);
    assert!(
        (share - expected).abs() < 0.012,
        "{share} is not {expected}"
    );
}

proptest! {
    #[test]
    fn text_and_bytes_come_back(number in 0..=u64::MAX >> 1, half: [u8; 8]) {
        let token = Token::new(Id::from_u64(number).unwrap(), FingerprintHalf(half));
        prop_assert_eq!(token.to_string().parse::<Token>().unwrap(), token);
        prop_assert_eq!(Token::from_bytes(token.to_bytes()).unwrap(), token);
        let compact = token.compact();
        prop_assert_eq!(compact.to_string().parse::<Compact>().unwrap(), compact);
        prop_assert_eq!(compact.id(token.half()), Some(token.id()));
        let id = token.id();
        prop_assert_eq!(Id::new(id.since_epoch_ms(), id.worker(), id.sequence()), Some(id));
    }

    #[test]
    fn whatever_is_read_is_written_the_same(text in "[A-Za-z0-9_-]{22}") {
        if let Ok(token) = text.parse::<Token>() {
            prop_assert_eq!(token.to_string(), text);
        }
    }

    /// A clock that jumps about, restarts and shared workers: no id twice, ids of a run ascend.
    #[test]
    fn no_id_twice_whatever_the_clock_does(
        steps in prop::collection::vec((0_u64..50, 0_u8..20), 1..400),
    ) {
        let mut floor_ms = 0;
        let mut ids = Snowflake::new(EPOCH_MS, &[5], floor_ms).unwrap();
        let mut seen = std::collections::HashSet::new();
        let mut last = None;
        for (time, event) in steps {
            let now_ms = EPOCH_MS + time;
            if event == 0 {
                // A crash: only what was reserved is known.
                ids = Snowflake::new(EPOCH_MS, &[5], floor_ms).unwrap();
            } else if event == 1 {
                // A clean end.
                floor_ms = floor_ms.min(ids.floor_ms());
                ids = Snowflake::new(EPOCH_MS, &[5], floor_ms).unwrap();
            }
            match ids.next(now_ms) {
                Turn::Id(id) => {
                    prop_assert!(seen.insert(id));
                    prop_assert!(Some(id) > last);
                    last = Some(id);
                }
                Turn::Reserve => {
                    floor_ms = now_ms + 3;
                    ids.reserve(floor_ms);
                }
                _ => {}
            }
        }
    }
}
