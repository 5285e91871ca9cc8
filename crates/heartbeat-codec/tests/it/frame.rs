//! Frames: round trips, prefixes, hostile bytes.

use heartbeat_codec::frame::{self, BODY_BYTES_MAX, Decoded};
use proptest::prelude::*;

fn encoded(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    frame::encode_into(&mut wire, kind, body).expect("a valid frame");
    wire
}

/// Lengths around the borders of the length's own size.
fn body_len() -> impl Strategy<Value = usize> {
    prop_oneof![0usize..300, 16_380usize..16_390, 0usize..70_000]
}

proptest! {
    #[test]
    fn what_is_encoded_decodes(kind in 0u8..0x80, len in body_len(), fill: u8, tail: [u8; 3]) {
        let body = vec![fill; len];
        let mut wire = encoded(kind, &body);
        let consumed = wire.len();
        wire.extend(tail);
        let whole = Decoded::Frame { kind, body: &body, consumed };
        prop_assert!(frame::decode(&wire, len) == Ok(whole));
        if len > 0 {
            let error = frame::decode(&wire, len - 1).expect_err("over the limit");
            prop_assert!(error.is_body_too_long());
        }
    }

    #[test]
    fn a_prefix_says_how_much_it_needs(kind in 0u8..0x80, len in body_len(), cut: prop::sample::Index) {
        let wire = encoded(kind, &vec![0; len]);
        let header = wire.len() - len;
        // Every cut in the header, and one anywhere.
        for cut in (0..=header).chain([cut.index(wire.len())]).filter(|cut| *cut < wire.len()) {
            let expected = if cut < header { (cut + 1).max(2) } else { wire.len() };
            prop_assert_eq!(
                frame::decode(&wire[..cut], len),
                Ok(Decoded::NeedMore { bytes_min: expected })
            );
        }
    }

    #[test]
    fn any_bytes_decode_to_something(input in prop::collection::vec(any::<u8>(), 0..40), limit in 0usize..50) {
        match frame::decode(&input, limit) {
            Ok(Decoded::Frame { kind, body, consumed }) => {
                prop_assert!(body.len() <= limit);
                // One spelling only: what was decoded encodes to the same bytes.
                prop_assert_eq!(encoded(kind, body), &input[..consumed]);
            }
            Ok(Decoded::NeedMore { bytes_min }) => {
                prop_assert!(bytes_min > input.len());
                prop_assert!(bytes_min <= limit + frame::HEADER_BYTES_MAX);
            }
            Err(error) => {
                // An error is final: no further byte repairs it.
                let mut longer = input.clone();
                longer.extend([0; 8]);
                prop_assert_eq!(frame::decode(&longer, limit), Err(error));
            }
        }
    }
}

/// Every header there is: all kinds with all lengths of up to three bytes, against the rule in plain words.
#[test]
fn every_length_field_is_judged_right() {
    for first in 0..=255u8 {
        for second in [0, 1, 0x7f, 0x80, 0x81, 0xff] {
            for third in [0, 1, 0x7f, 0x80, 0xff] {
                let wire = [1, first, second, third];
                let bytes = [first, second, third];
                let used = 1 + bytes.iter().take_while(|b| **b >= 0x80).count();
                let result = frame::decode(&wire, usize::MAX);
                if used > 3 || (used > 1 && bytes[used - 1] == 0) {
                    assert!(
                        result.expect_err("malformed").is_malformed_length(),
                        "{wire:?}"
                    );
                    continue;
                }
                let length: usize = (0..used)
                    .map(|n| usize::from(bytes[n] & 0x7f) << (7 * n))
                    .sum();
                let end = 1 + used + length;
                match result.expect("well formed") {
                    Decoded::Frame { consumed, .. } => assert_eq!(consumed, end),
                    Decoded::NeedMore { bytes_min } => assert_eq!(bytes_min, end),
                }
            }
        }
    }
}

#[test]
fn a_lying_length_is_refused_before_its_body() {
    // 4 GiB in LEB128, as a stranger would write it.
    let error = frame::decode(&[1, 0x80, 0x80, 0x80, 0x80, 0x10], 64 << 10).expect_err("too long");
    assert!(error.is_malformed_length());
    // 2 MiB is spelled well and refused at its second byte: it cannot end below 16 KiB.
    let error = frame::decode(&[1, 0xff, 0xff], 1 << 10).expect_err("too long");
    assert!(error.is_body_too_long());
    assert!(error.to_string().contains("1024"));
}

#[test]
fn what_cannot_be_sent_is_refused_and_leaves_no_bytes() {
    let mut out = vec![9];
    let error = frame::encode_into(&mut out, 0x80, b"").expect_err("reserved");
    assert!(error.is_reserved_kind());
    let error = frame::encode_into(&mut out, 1, &vec![0; BODY_BYTES_MAX + 1]).expect_err("long");
    assert!(error.is_body_too_long());
    assert_eq!(out, [9]);
}
