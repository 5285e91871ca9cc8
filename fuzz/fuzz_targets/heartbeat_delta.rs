//! Delta and fixed beats over arbitrary bytes: no panic, no lie about lengths, one spelling for each beat.
#![no_main]

use heartbeat_codec::delta::{DELTA_BYTES_MAX, Decoded, DeltaDecoder, DeltaEncoder};
use heartbeat_codec::fixed::{self, FixedBeat};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    delta(input);
    fixed(input);
});

fn delta(mut rest: &[u8]) {
    let (mut decoder, mut encoder) = (DeltaDecoder::new(), DeltaEncoder::new(1));
    loop {
        match decoder.decode(rest) {
            Ok(Decoded::Beat {
                beat,
                resync,
                consumed,
            }) => {
                if let Some(resync) = resync {
                    encoder.resync(resync.interval_ms);
                }
                let rtt_ms = resync.and_then(|resync| resync.rtt_ms);
                assert_eq!(encoder.encode(&beat, rtt_ms).as_bytes(), &rest[..consumed]);
                rest = &rest[consumed..];
            }
            Ok(Decoded::NeedMore { bytes_min }) => {
                assert!(bytes_min > rest.len() && bytes_min <= DELTA_BYTES_MAX);
                return;
            }
            Err(_) => return,
        }
    }
}

fn fixed(input: &[u8]) {
    match FixedBeat::decode(input) {
        Ok(fixed::Decoded::Beat { beat, consumed }) => {
            assert_eq!(beat.encode()[..], input[..consumed]);
        }
        Ok(fixed::Decoded::NeedMore { bytes_min }) => assert!(bytes_min > input.len()),
        Err(_) => {}
    }
}
