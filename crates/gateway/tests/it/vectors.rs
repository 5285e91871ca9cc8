//! The examples of docs/PROTOCOL.md, byte by byte. A change here is another protocol.

use std::path::Path;

use gateway::proto::{
    Beat, BeatAck, BootId, CommandId, DatagramDoor, DatagramPeers, DeviceId, ErrorCode, Forms,
    FromDevice, FrontDoor, GoAway, GoAwayReason, Hello, Native, NativePhase, PREFACE, ResultStatus,
    SessionToken, Step, ToDevice, Welcome, datagram_key, decode_to_device, encode_from_device,
};
use heartbeat_codec::datagram::Sender;

const BOOT: &str = "00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f";
const COMMAND: &str = "a0 a1 a2 a3 a4 a5 a6 a7 a8 a9 aa ab ac ad ae af";
const TOKEN: &str = "f0 f1 f2 f3 f4 f5 f6 f7 f8 f9 fa fb fc fd fe ff";

fn id(text: &str) -> [u8; 16] {
    bytes(text).try_into().unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    hex.split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

/// Frames of devices, as PROTOCOL.md prints them.
fn from_device() -> Vec<(String, FromDevice<'static>)> {
    let device = |id: &'static str| DeviceId::parse(id.as_bytes()).unwrap();
    let hello = |id, interval_ms, resume, forms| {
        FromDevice::Hello(Hello {
            device: device(id),
            boot: BootId(self::id(BOOT)),
            interval_ms,
            resume,
            forms,
        })
    };
    let beat = |stamp_ms, load_percent, rtt_ms| {
        FromDevice::Beat(Beat {
            stamp_ms,
            load_percent,
            rtt_ms,
        })
    };
    let result = |status, body| FromDevice::Result {
        id: CommandId(id(COMMAND)),
        status,
        body,
    };
    vec![
        (
            format!("01 1c 00 30 75 00 00 {BOOT} 06 70 75 6d 70 2d 37"),
            hello("pump-7", 30_000, None, Forms::FRAMED),
        ),
        (
            format!("01 27 01 00 00 00 00 {BOOT} {TOKEN} 01 61"),
            hello("a", 0, Some(SessionToken(id(TOKEN))), Forms::FRAMED),
        ),
        (
            format!("01 1d 00 30 75 00 00 {BOOT} 06 70 75 6d 70 2d 37 05"),
            hello("pump-7", 30_000, None, Forms::DELTA),
        ),
        (
            format!("01 1d 00 30 75 00 00 {BOOT} 06 70 75 6d 70 2d 37 0d"),
            hello("pump-7", 30_000, None, Forms::DELTA | Forms::DATAGRAM),
        ),
        (
            "03 07 04 03 02 01 2a 11 00".into(),
            beat(0x0102_0304, Some(42), Some(17)),
        ),
        ("03 07 00 00 00 00 ff ff ff".into(), beat(0, None, None)),
        (
            format!("07 13 {COMMAND} 00 34 32"),
            result(ResultStatus::Json, b"42"),
        ),
        (
            format!("07 12 {COMMAND} 01 ff"),
            result(ResultStatus::Opaque, b"\xff"),
        ),
        (
            format!("07 11 {COMMAND} 02"),
            result(ResultStatus::Interrupted, b""),
        ),
        (
            format!("07 11 {COMMAND} 03"),
            result(ResultStatus::Refused, b""),
        ),
        (
            "09 05 04 00 00 00 00".into(),
            FromDevice::GoAway(GoAway {
                reason: GoAwayReason::Leaving,
                retry_within_ms: 0,
            }),
        ),
    ]
}

/// Frames of gateways, as PROTOCOL.md prints them.
fn to_device() -> Vec<(String, ToDevice<'static>)> {
    let goaway = |reason, retry_within_ms| {
        ToDevice::GoAway(GoAway {
            reason,
            retry_within_ms,
        })
    };
    let welcome = Welcome {
        session: SessionToken(id(TOKEN)),
        interval_ms: 30_000,
        grace_ms: 5_000,
        forms: Forms::FRAMED,
        datagrams: None,
        slot_ms: None,
    };
    let delta_welcome = Welcome {
        forms: Forms::DELTA,
        ..welcome
    };
    let datagram_welcome = Welcome {
        forms: Forms::DELTA | Forms::DATAGRAM,
        datagrams: Some(DatagramDoor {
            peer: 7,
            port: 7_400,
        }),
        ..welcome
    };
    let with_slot = |welcome, slot_ms| {
        ToDevice::Welcome(Welcome {
            slot_ms: Some(slot_ms),
            ..welcome
        })
    };
    vec![
        (
            format!("02 18 {TOKEN} 30 75 00 00 88 13 00 00"),
            ToDevice::Welcome(welcome),
        ),
        (
            format!("02 19 {TOKEN} 30 75 00 00 88 13 00 00 05"),
            ToDevice::Welcome(delta_welcome),
        ),
        (
            format!("02 1f {TOKEN} 30 75 00 00 88 13 00 00 0d 07 00 00 00 e8 1c"),
            ToDevice::Welcome(datagram_welcome),
        ),
        (
            format!("02 1d {TOKEN} 30 75 00 00 88 13 00 00 01 a8 43 00 00"),
            with_slot(welcome, 17_320),
        ),
        (
            format!("02 1d {TOKEN} 30 75 00 00 88 13 00 00 05 a8 43 00 00"),
            with_slot(delta_welcome, 17_320),
        ),
        (
            format!("02 23 {TOKEN} 30 75 00 00 88 13 00 00 0d 07 00 00 00 e8 1c a8 43 00 00"),
            with_slot(datagram_welcome, 17_320),
        ),
        (
            "04 04 04 03 02 01".into(),
            ToDevice::BeatAck(BeatAck {
                stamp_ms: 0x0102_0304,
            }),
        ),
        ("80".into(), ToDevice::DeltaAck),
        ("05 00".into(), ToDevice::Probe),
        (
            format!("06 16 {COMMAND} 30 75 00 00 7b 7d"),
            ToDevice::Command {
                id: CommandId(id(COMMAND)),
                timeout_ms: 30_000,
                payload: b"{}",
            },
        ),
        (
            format!("08 10 {COMMAND}"),
            ToDevice::ResultAck {
                id: CommandId(id(COMMAND)),
            },
        ),
        (
            "09 05 03 88 13 00 00".into(),
            goaway(GoAwayReason::Draining, 5_000),
        ),
        (
            "0a 07 06 69 6e 20 75 73 65".into(),
            ToDevice::Error {
                code: ErrorCode::InUse,
                text: "in use",
            },
        ),
    ]
}

#[test]
fn frames_have_exactly_these_bytes() {
    assert_eq!(PREFACE.as_slice(), bytes("4d 53 54 01"));
    for (hex, message) in from_device() {
        let mut there = Vec::new();
        encode_from_device(&message, &mut there);
        assert_eq!(there, bytes(&hex), "{message:?}");
        let hello = matches!(message, FromDevice::Hello(_));
        let mut phase = if hello {
            NativePhase::Hello
        } else {
            NativePhase::Open
        };
        match Native::decode(&mut phase, &there) {
            Ok(Step::Message { message: again, .. }) => assert_eq!(again, message),
            other => panic!("{other:?}"),
        }
    }
    for (hex, message) in to_device() {
        let mut there = Vec::new();
        Native::encode(&mut NativePhase::Open, &message, &mut there);
        assert_eq!(there, bytes(&hex), "{message:?}");
        assert_eq!(decode_to_device(&there), Ok(Some((there.len(), message))));
    }
}

#[test]
fn lengths_have_one_spelling() {
    for (payload_bytes, length) in [
        (107, "7f"),
        (108, "80 01"),
        (16_363, "ff 7f"),
        (16_364, "80 80 01"),
    ] {
        let payload = vec![b' '; payload_bytes];
        let mut there = Vec::new();
        let message = ToDevice::Command {
            id: CommandId([0; 16]),
            timeout_ms: 0,
            payload: &payload,
        };
        Native::encode(&mut NativePhase::Open, &message, &mut there);
        let length = bytes(length);
        assert_eq!(there[..=length.len()], [&[6][..], &length].concat());
    }
}

/// Fields that a later version appends, behind those of today, are ignored where the page says so.
#[test]
fn appended_fields_are_ignored() {
    for (hex, message) in from_device() {
        if matches!(message, FromDevice::Hello(_) | FromDevice::GoAway(_)) {
            let hello = matches!(message, FromDevice::Hello(_));
            let mut phase = if hello {
                NativePhase::Hello
            } else {
                NativePhase::Open
            };
            match Native::decode(&mut phase, &longer(&hex)) {
                Ok(Step::Message { message: there, .. }) => assert_eq!(there, message),
                other => panic!("{other:?}"),
            }
        }
    }
    for (hex, message) in to_device() {
        if matches!(
            message,
            ToDevice::Welcome(_) | ToDevice::ResultAck { .. } | ToDevice::GoAway(_)
        ) {
            let there = longer(&hex);
            assert_eq!(decode_to_device(&there), Ok(Some((there.len(), message))));
        }
    }
}

/// WELCOME without a slot, and a field behind it that nobody knows.
#[test]
fn a_slot_that_is_none_makes_room_for_later_fields() {
    let hex = format!("02 1f {TOKEN} 30 75 00 00 88 13 00 00 05 ff ff ff ff ee ee");
    let there = bytes(&hex);
    let (_, delta_welcome) = to_device().swap_remove(1);
    assert_eq!(
        decode_to_device(&there),
        Ok(Some((there.len(), delta_welcome)))
    );
}

/// The frame with two bytes more in its body.
fn longer(hex: &str) -> Vec<u8> {
    let mut frame = bytes(hex);
    let greets = [1, 2].contains(&frame[0]);
    let has_forms = frame[..2] == [1, 0x1d] || frame[0] == 2 && frame[1] > 0x18;
    if greets && !has_forms {
        // BEAT and a form that nobody knows: as good as no field.
        frame.push(0x81);
    }
    frame.extend_from_slice(&[0xee, 0xee]);
    frame[1] = u8::try_from(frame.len() - 2).unwrap();
    frame
}

/// The delta beats of the page: on a connection to which they were granted, and there only.
#[test]
fn delta_beats_have_exactly_these_bytes() {
    let granted = || {
        let mut phase = NativePhase::Open;
        let (_, welcome) = to_device().swap_remove(1);
        Native::encode(&mut phase, &welcome, &mut Vec::new());
        phase
    };
    let mut phase = granted();
    for (hex, stamp_ms, load, rtt_ms) in DELTA_BEATS {
        let stream = bytes(hex);
        let beat = Beat {
            stamp_ms,
            load_percent: Some(load),
            rtt_ms,
        };
        match Native::decode(&mut phase, &stream) {
            Ok(Step::Message {
                consumed,
                message: FromDevice::Beat(there) | FromDevice::Resync { beat: there, .. },
            }) => assert_eq!((consumed, there), (stream.len(), beat)),
            other => panic!("{other:?}"),
        }
        let mut ack = Vec::new();
        Native::encode(&mut phase, &ToDevice::BeatAck(beat.ack()), &mut ack);
        assert_eq!(ack, [0x80]);
    }
    let [resync, next] = DELTA_BEATS.map(|(hex, ..)| bytes(hex));
    for (mut phase, stream) in [(NativePhase::Open, resync), (granted(), next)] {
        let refused = Native::decode(&mut phase, &stream).unwrap_err();
        assert_eq!(refused.code(), ErrorCode::Malformed);
    }
}

/// As the page prints them, in this order.
const DELTA_BEATS: [(&str, u32, u8, Option<u16>); 2] = [
    (
        "ff 04 03 02 01 30 75 00 00 2a 11 00",
        0x0102_0304,
        42,
        Some(17),
    ),
    ("c9", 0x0102_0304 + 30_003, 43, None),
];

/// A beat in a datagram of the session in the WELCOME above, and its ack; the tags are by Python's `hmac`.
const DATAGRAM: &str = "b1 07 00 00 00 01 00 00 00 04 03 02 01 2a 11 00 14 4f b0 d5 2b 0a b1 53";
const DATAGRAM_ACK: &str = "b2 07 00 00 00 01 00 00 00 04 03 02 01 9c 75 e2 d5 54 71 a9 ce";

#[test]
fn datagrams_have_exactly_these_bytes() {
    let token = SessionToken(id(TOKEN));
    let mut peers = DatagramPeers::new(0);
    peers.insert(7, datagram_key(&token), ());
    let heard = peers.open(0, &bytes(DATAGRAM)).unwrap();
    let beat = Beat {
        stamp_ms: 0x0102_0304,
        load_percent: Some(42),
        rtt_ms: Some(17),
    };
    assert_eq!(
        (heard.beat, &heard.ack[..]),
        (beat, &bytes(DATAGRAM_ACK)[..])
    );
    let mut sender = Sender::new(7, datagram_key(&token));
    assert_eq!(sender.seal(&beat).unwrap()[..], bytes(DATAGRAM));
}

#[test]
fn the_page_prints_these_bytes() {
    // The page lies outside of the package.
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/PROTOCOL.md");
    let Ok(page) = std::fs::read_to_string(path) else {
        return;
    };
    let frames = from_device().into_iter().map(|(hex, _)| hex);
    let deltas = DELTA_BEATS.map(|(hex, ..)| hex.to_owned());
    let datagrams = [DATAGRAM, DATAGRAM_ACK].map(str::to_owned);
    let frames = frames.chain(deltas).chain(datagrams);
    for hex in frames.chain(to_device().into_iter().map(|(hex, _)| hex)) {
        assert!(
            page.contains(&format!("`{hex}`")),
            "PROTOCOL.md lacks {hex}"
        );
    }
    for code in ErrorCode::ALL {
        assert!(
            page.contains(&format!("| {} | `{}` |", code.byte(), code.name())),
            "{code:?}"
        );
    }
    for status in ResultStatus::ALL {
        assert!(
            page.contains(&format!("| {} | `{}` |", status.byte(), status.name())),
            "{status:?}"
        );
    }
    for reason in GoAwayReason::ALL {
        assert!(
            page.contains(&format!("{} `{}`", reason.byte(), reason.name())),
            "{reason:?}"
        );
    }
}
