//! Negotiation: every offer against every answer.

use heartbeat_codec::capability::{Forms, StreamForm};

#[test]
fn what_is_agreed_is_in_both() {
    for (offered, supported) in (0..=255u8).flat_map(|a| (0..=255u8).map(move |b| (a, b))) {
        let offer = Forms::from_byte(offered);
        let answer = Forms::from_byte(offer.to_byte()) & Forms::from_byte(supported);
        let agreed = offer.accept(Forms::from_byte(answer.to_byte()));
        assert_eq!(agreed, Ok(answer));
        assert_eq!(answer.to_byte(), offered & supported & 0x1f | 1);
    }
}

#[test]
fn frames_are_spoken_by_all_and_unknown_bits_by_none() {
    assert_eq!(Forms::from_byte(0), Forms::default());
    assert_eq!(Forms::from_byte(0xe0), Forms::FRAMED);
    assert_eq!(Forms::default().stream_form(), StreamForm::Framed);
}

#[test]
fn the_shortest_form_is_taken() {
    assert_eq!(Forms::FIXED.stream_form(), StreamForm::Fixed);
    assert_eq!(Forms::DATAGRAM.stream_form(), StreamForm::Framed);
    let both = Forms::FIXED | Forms::DELTA;
    assert_eq!(both.stream_form(), StreamForm::Delta);
    assert!(both.contains(Forms::FIXED) && !both.contains(Forms::BATCH));
}

#[test]
fn an_answer_beyond_the_offer_is_refused() {
    let error = Forms::FIXED
        .accept(Forms::FIXED | Forms::DELTA)
        .expect_err("delta was not offered");
    assert_eq!(
        error.to_string(),
        "the answer has forms that were not offered (bits 0x04); answer with a part of the offer"
    );
}

#[test]
fn a_set_shows_its_names() {
    let forms = Forms::DELTA | Forms::BATCH;
    assert_eq!(format!("{forms:?}"), "{framed, delta, batch}");
}
