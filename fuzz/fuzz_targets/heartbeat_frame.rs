//! Frames and beats over arbitrary bytes: no panic, no lie about lengths, one spelling for each frame.
#![no_main]

use heartbeat_codec::beat::{Beat, BeatAck};
use heartbeat_codec::frame::{self, Decoded};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, &[u8])| {
    let (limit, mut rest) = (usize::from(input.0), input.1);
    loop {
        match frame::decode(rest, limit) {
            Ok(Decoded::Frame {
                kind,
                body,
                consumed,
            }) => {
                assert!(body.len() <= limit);
                let mut again = Vec::new();
                frame::encode_into(&mut again, kind, body)
                    .expect("what was decoded can be encoded");
                assert_eq!(again, rest[..consumed]);
                if let Ok(beat) = Beat::decode(body) {
                    assert_eq!(beat.encode()[..], *body);
                }
                if let Ok(ack) = BeatAck::decode(body) {
                    assert_eq!(ack.encode()[..], *body);
                }
                rest = &rest[consumed..];
            }
            Ok(Decoded::NeedMore { bytes_min }) => {
                assert!(bytes_min > rest.len());
                assert!(bytes_min <= limit + frame::HEADER_BYTES_MAX);
                return;
            }
            Err(_) => return,
        }
    }
});
