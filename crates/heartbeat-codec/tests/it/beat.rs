//! Beats: round trips and exact errors.

use heartbeat_codec::beat::{Beat, BeatAck};
use proptest::prelude::*;

proptest! {
    #[test]
    fn what_is_encoded_decodes(
        stamp_ms: u32,
        load_percent in prop::option::of(0u8..=100),
        rtt_ms in prop::option::of(0u16..0xffff),
    ) {
        let beat = Beat { stamp_ms, load_percent, rtt_ms };
        prop_assert_eq!(Beat::decode(&beat.encode()), Ok(beat));
        prop_assert_eq!(BeatAck::decode(&beat.ack().encode()), Ok(BeatAck { stamp_ms }));
    }

    #[test]
    fn any_body_is_a_beat_or_a_named_error(body in prop::collection::vec(any::<u8>(), 0..12)) {
        match Beat::decode(&body) {
            Ok(beat) => prop_assert_eq!(&beat.encode()[..], &body),
            Err(error) if body.len() == 7 => prop_assert!(error.is_bad_load()),
            Err(error) => prop_assert!(error.is_wrong_length()),
        }
        match BeatAck::decode(&body) {
            Ok(ack) => prop_assert_eq!(&ack.encode()[..], &body),
            Err(error) => prop_assert!(body.len() != 4 && error.is_wrong_length()),
        }
    }
}

#[test]
fn every_load_is_judged() {
    for load in 0..=255u8 {
        let result = Beat::decode(&[0, 0, 0, 0, load, 0, 0]);
        match load {
            0..=100 => assert_eq!(result.map(|b| b.load_percent), Ok(Some(load))),
            255 => assert_eq!(result.map(|b| b.load_percent), Ok(None)),
            _ => assert!(result.expect_err("no such load").is_bad_load()),
        }
    }
}

#[test]
fn values_without_a_spelling_are_clamped() {
    let beat = Beat {
        stamp_ms: 0,
        load_percent: Some(255),
        rtt_ms: Some(u16::MAX),
    };
    let read = Beat::decode(&beat.encode()).expect("what we send is valid");
    assert_eq!(read.load_percent, Some(100));
    assert_eq!(read.rtt_ms, Some(65_534));
}

#[test]
fn errors_say_what_to_do() {
    let error = Beat::decode(&[0; 6]).expect_err("short");
    assert_eq!(
        error.to_string(),
        "the body has 6 bytes and must have 7; check the sender's version"
    );
}
