//! Fixed beats: every load and any stamp, and nonsense refused at its first byte.

use heartbeat_codec::fixed::{Decoded, FIXED_BYTES, FixedBeat};
use proptest::prelude::*;

#[test]
fn every_first_byte_is_judged() {
    for first in 0..=255u8 {
        let wire = [first, 1, 2, 3, 4];
        let load_percent = match first {
            0..0x80 => {
                assert!(FixedBeat::decode(&wire).expect_err("frame").is_not_a_beat());
                continue;
            }
            0xff => None,
            0x80..=0xe4 => Some(first - 0x80),
            _ => {
                assert!(FixedBeat::decode(&wire).expect_err("load").is_bad_load());
                assert!(FixedBeat::decode(&[first]).is_err(), "at the first byte");
                continue;
            }
        };
        let beat = FixedBeat {
            stamp_ms: 0x0403_0201,
            load_percent,
        };
        let consumed = FIXED_BYTES;
        assert_eq!(
            FixedBeat::decode(&wire),
            Ok(Decoded::Beat { beat, consumed })
        );
        assert_eq!(beat.encode(), wire);
        for cut in 0..FIXED_BYTES {
            let bytes_min = if cut == 0 { 1 } else { FIXED_BYTES };
            assert_eq!(
                FixedBeat::decode(&wire[..cut]),
                Ok(Decoded::NeedMore { bytes_min })
            );
        }
    }
}

#[test]
fn a_load_above_100_is_sent_as_100() {
    let beat = FixedBeat {
        stamp_ms: 0,
        load_percent: Some(255),
    };
    assert_eq!(beat.encode()[0], 0x80 + 100);
}

#[test]
fn errors_say_what_to_do() {
    let error = FixedBeat::decode(&[0xf3]).expect_err("no such load");
    assert_eq!(
        error.to_string(),
        "byte 0xf3 has a load of 115; send 0x80 and 0 to 100, or 0xff when it is not known"
    );
}

proptest! {
    #[test]
    fn what_is_encoded_decodes(stamp_ms: u32, load_percent in prop::option::of(0u8..=100), tail: [u8; 3]) {
        let beat = FixedBeat { stamp_ms, load_percent };
        let wire = [&beat.encode()[..], &tail].concat();
        let consumed = FIXED_BYTES;
        prop_assert_eq!(FixedBeat::decode(&wire), Ok(Decoded::Beat { beat, consumed }));
    }
}
