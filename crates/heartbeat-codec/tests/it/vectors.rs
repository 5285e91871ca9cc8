//! The vectors of docs/FORMAT.md, so that the document cannot drift from the code.

use heartbeat_codec::beat::{Beat, BeatAck};
use heartbeat_codec::capability::{Forms, StreamForm};
use heartbeat_codec::delta::{DeltaBeat, DeltaEncoder};
use heartbeat_codec::fixed::{self, FixedBeat};
use heartbeat_codec::frame::{self, Decoded};

const FORMAT: &str = include_str!("../../docs/FORMAT.md");

/// The lines `left = right` of the document's blocks with this tag.
pub(crate) fn vectors(tag: &str) -> Vec<(&'static str, &'static str)> {
    let fence = format!("```{tag}\n");
    let start = FORMAT.find(&fence).expect("the document has this block") + fence.len();
    let block = &FORMAT[start..];
    let block = &block[..block.find("```").expect("the block ends")];
    let lines: Vec<_> = block
        .lines()
        .map(|line| line.split_once(" = ").expect("left = right"))
        .collect();
    assert!(lines.len() >= 3, "{tag}");
    lines
}

pub(crate) fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for word in text.split_whitespace().filter(|word| *word != "-") {
        let (byte, times) = word.split_once('*').unwrap_or((word, "1"));
        let byte = u8::from_str_radix(byte, 16).expect("a byte in hexadecimal");
        out.extend(std::iter::repeat_n(byte, times.parse().expect("a count")));
    }
    out
}

#[test]
fn frames_are_as_documented() {
    for (left, right) in vectors("frame") {
        let (kind, body) = left.split_once(' ').expect("kind body");
        let kind = u8::from_str_radix(kind, 16).expect("a kind");
        let (body, wire) = (bytes(body), bytes(right));
        let mut out = Vec::new();
        frame::encode_into(&mut out, kind, &body).expect("a valid frame");
        assert!(out == wire, "{left}");
        let consumed = wire.len();
        let decoded = frame::decode(&wire, usize::MAX).expect("a valid frame");
        let expected = Decoded::Frame {
            kind,
            body: &body,
            consumed,
        };
        assert!(decoded == expected, "{left}");
    }
}

#[test]
fn refusals_are_as_documented() {
    for (tag, limit) in [("refused", 1_024), ("refused-max", frame::BODY_BYTES_MAX)] {
        for (left, right) in vectors(tag) {
            let wire = bytes(left);
            let error = frame::decode(&wire, limit).expect_err(left);
            let name = match () {
                () if error.is_reserved_kind() => "reserved-kind",
                () if error.is_malformed_length() => "malformed-length",
                () if error.is_body_too_long() => "body-too-long",
                () => "unnamed",
            };
            assert_eq!(name, right, "{left}");
            // Not one byte earlier.
            let shorter = frame::decode(&wire[..wire.len() - 1], limit);
            assert!(matches!(shorter, Ok(Decoded::NeedMore { .. })), "{left}");
        }
    }
}

#[test]
fn beats_are_as_documented() {
    for (left, right) in vectors("beat") {
        let mut fields = left.split(' ');
        let mut field = || fields.next().expect("three fields");
        let beat = Beat {
            stamp_ms: field().parse().expect("a stamp"),
            load_percent: Some(field())
                .filter(|f| *f != "-")
                .map(|f| f.parse().expect("load")),
            rtt_ms: Some(field())
                .filter(|f| *f != "-")
                .map(|f| f.parse().expect("rtt")),
        };
        assert_eq!(beat.encode()[..], bytes(right), "{left}");
        assert_eq!(Beat::decode(&bytes(right)), Ok(beat), "{left}");
    }
    for (left, right) in vectors("beat-ack") {
        let ack = BeatAck {
            stamp_ms: left.parse().expect("a stamp"),
        };
        assert_eq!(ack.encode()[..], bytes(right), "{left}");
        assert_eq!(BeatAck::decode(&bytes(right)), Ok(ack), "{left}");
    }
}

#[test]
fn delta_beats_are_as_documented() {
    let mut encoder = DeltaEncoder::new(1_000);
    for (left, right) in vectors("delta") {
        let (stamp_ms, load) = left.split_once(' ').expect("stamp load");
        let beat = DeltaBeat {
            stamp_ms: stamp_ms.parse().expect("a stamp"),
            load_percent: Some(load)
                .filter(|load| *load != "-")
                .map(|load| load.parse().expect("a load")),
        };
        let encoded = encoder.encode(&beat, None);
        assert!(
            encoded.as_bytes() == bytes(right),
            "{left}: {:02x?}",
            encoded.as_bytes()
        );
    }
}

#[test]
fn fixed_beats_are_as_documented() {
    for (left, right) in vectors("fixed") {
        let (stamp_ms, load) = left.split_once(' ').expect("stamp load");
        let beat = FixedBeat {
            stamp_ms: stamp_ms.parse().expect("a stamp"),
            load_percent: Some(load)
                .filter(|load| *load != "-")
                .map(|load| load.parse().expect("a load")),
        };
        assert_eq!(beat.encode()[..], bytes(right), "{left}");
    }
    for (left, right) in vectors("fixed-refused") {
        let error = FixedBeat::decode(&bytes(left)).expect_err(left);
        let name = match () {
            () if error.is_not_a_beat() => "not-a-beat",
            () => "bad-load",
        };
        assert_eq!(name, right, "{left}");
    }
    let cut = FixedBeat::decode(&[0x80]);
    assert_eq!(cut, Ok(fixed::Decoded::NeedMore { bytes_min: 5 }));
}

#[test]
fn capabilities_are_as_documented() {
    for (left, right) in vectors("capability") {
        let [offer, supported] = bytes(left)[..] else {
            panic!("offer supported");
        };
        let (answer, form) = right.split_once(' ').expect("answer form");
        let agreed = Forms::from_byte(offer) & Forms::from_byte(supported);
        assert_eq!(vec![agreed.to_byte()], bytes(answer), "{left}");
        let expected = match form {
            "framed" => StreamForm::Framed,
            "fixed" => StreamForm::Fixed,
            _ => StreamForm::Delta,
        };
        assert_eq!(agreed.stream_form(), expected, "{left}");
    }
}
