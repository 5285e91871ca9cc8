//! The codecs under random and mutated input.

use std::mem::discriminant;

use gateway::proto::{
    BODY_BYTES_MAX, Beat, BeatAck, BootId, CommandId, DatagramDoor, DeviceId, ErrorCode, Forms,
    FromDevice, FrontDoor, GoAway, GoAwayReason, Hello, Native, NativePhase, PREFACE, ResultStatus,
    SessionToken, Step, ToDevice, Welcome, decode_to_device, encode_from_device,
};
use heartbeat_codec::delta::DeltaDecoder;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// A delta beat that needs no past.
const RESYNC: &[u8] = b"\xff\x04\x03\x02\x01\x30\x75\x00\x00\x2a\x11\x00";

/// An owned message of either side, and how to say it.
#[derive(Clone, Debug)]
enum Message {
    Hello {
        id: String,
        boot: [u8; 16],
        interval_ms: u32,
        resume: Option<[u8; 16]>,
        forms: Forms,
    },
    Beat(u32, Option<u8>, Option<u16>),
    Result([u8; 16], ResultStatus, Vec<u8>),
    GoAway(GoAwayReason, u32),
    Welcome([u8; 16], u32, u32, Forms, Option<u32>),
    BeatAck(u32),
    DeltaAck,
    Probe,
    Command([u8; 16], u32, Vec<u8>),
    ResultAck([u8; 16]),
    Error(ErrorCode, String),
}

impl Message {
    fn with_device<T>(&self, then: impl FnOnce(&FromDevice<'_>) -> T) -> Option<T> {
        Some(match self {
            Self::Hello {
                id,
                boot,
                interval_ms,
                resume,
                forms,
            } => then(&FromDevice::Hello(Hello {
                device: DeviceId::parse(id.as_bytes()).unwrap(),
                boot: BootId(*boot),
                interval_ms: *interval_ms,
                resume: resume.map(SessionToken),
                forms: *forms,
            })),
            Self::Beat(stamp_ms, load_percent, rtt_ms) => then(&FromDevice::Beat(Beat {
                stamp_ms: *stamp_ms,
                load_percent: *load_percent,
                rtt_ms: *rtt_ms,
            })),
            Self::Result(id, status, body) => then(&FromDevice::Result {
                id: CommandId(*id),
                status: *status,
                body,
            }),
            Self::GoAway(reason, retry_within_ms) => then(&FromDevice::GoAway(GoAway {
                reason: *reason,
                retry_within_ms: *retry_within_ms,
            })),
            _ => return None,
        })
    }

    fn with_gateway<T>(&self, then: impl FnOnce(&ToDevice<'_>) -> T) -> Option<T> {
        Some(match self {
            Self::Welcome(session, interval_ms, grace_ms, forms, slot_ms) => {
                then(&ToDevice::Welcome(Welcome {
                    session: SessionToken(*session),
                    interval_ms: *interval_ms,
                    grace_ms: *grace_ms,
                    forms: *forms,
                    datagrams: forms.contains(Forms::DATAGRAM).then_some(DatagramDoor {
                        peer: *interval_ms,
                        port: *grace_ms as u16,
                    }),
                    slot_ms: *slot_ms,
                }))
            }
            Self::DeltaAck => then(&ToDevice::DeltaAck),
            Self::BeatAck(stamp_ms) => then(&ToDevice::BeatAck(BeatAck {
                stamp_ms: *stamp_ms,
            })),
            Self::Probe => then(&ToDevice::Probe),
            Self::Command(id, timeout_ms, payload) => then(&ToDevice::Command {
                id: CommandId(*id),
                timeout_ms: *timeout_ms,
                payload,
            }),
            Self::ResultAck(id) => then(&ToDevice::ResultAck { id: CommandId(*id) }),
            Self::GoAway(reason, retry_within_ms) => then(&ToDevice::GoAway(GoAway {
                reason: *reason,
                retry_within_ms: *retry_within_ms,
            })),
            Self::Error(code, text) => then(&ToDevice::Error { code: *code, text }),
            _ => return None,
        })
    }
}

fn device_message() -> impl Strategy<Value = Message> {
    let id = "[ -~\u{e9}\u{1f980}]{1,16}";
    prop_oneof![
        (
            id,
            any::<[u8; 16]>(),
            any::<u32>(),
            any::<Option<[u8; 16]>>(),
            any::<u8>(),
        )
            .prop_map(|(id, boot, interval_ms, resume, forms)| Message::Hello {
                id,
                boot,
                interval_ms,
                resume,
                forms: Forms::from_byte(forms),
            }),
        (
            any::<u32>(),
            proptest::option::of(0..=100_u8),
            proptest::option::of(0..u16::MAX)
        )
            .prop_map(|(stamp, load, rtt)| Message::Beat(stamp, load, rtt)),
        (
            any::<[u8; 16]>(),
            select(ResultStatus::ALL),
            vec(any::<u8>(), 0..300)
        )
            .prop_map(|(id, status, body)| Message::Result(id, status, body)),
        (select(GoAwayReason::ALL), any::<u32>())
            .prop_map(|(reason, ms)| Message::GoAway(reason, ms)),
    ]
}

fn gateway_message() -> impl Strategy<Value = Message> {
    prop_oneof![
        any::<([u8; 16], u32, u32, u8, Option<u32>)>().prop_map(|(s, i, g, f, slot_ms)| {
            // The largest is how none is written.
            let slot_ms = slot_ms.filter(|ms| *ms < u32::MAX);
            Message::Welcome(s, i, g, Forms::from_byte(f), slot_ms)
        }),
        Just(Message::DeltaAck),
        any::<u32>().prop_map(Message::BeatAck),
        Just(Message::Probe),
        (any::<[u8; 16]>(), any::<u32>(), vec(any::<u8>(), 0..300))
            .prop_map(|(id, ms, payload)| Message::Command(id, ms, payload)),
        any::<[u8; 16]>().prop_map(Message::ResultAck),
        (select(GoAwayReason::ALL), any::<u32>())
            .prop_map(|(reason, ms)| Message::GoAway(reason, ms)),
        (select(ErrorCode::ALL), "\\PC{0,80}").prop_map(|(code, text)| Message::Error(code, text)),
    ]
}

/// Frames that look like frames: small kinds, bodies of likely lengths, lengths that sometimes lie.
fn likely_bytes() -> impl Strategy<Value = Vec<u8>> {
    let frame = (0..=12_u8, vec(any::<u8>(), 0..60), any::<u8>(), 0..8_u8).prop_map(
        |(kind, body, lie, lies)| {
            let honest = u8::try_from(body.len()).unwrap();
            let length = if lies == 0 { lie } else { honest };
            [&[kind, length][..], &body].concat()
        },
    );
    prop_oneof![
        3 => vec(frame, 0..6).prop_map(|frames| frames.concat()),
        1 => vec(any::<u8>(), 0..300),
    ]
}

/// Reads `input` to its end as a gateway does, and checks every step.
fn read_as_gateway(mut phase: NativePhase, input: &[u8]) -> Result<usize, TestCaseError> {
    let mut at = 0;
    loop {
        match Native::decode(&mut phase, &input[at..]) {
            Ok(Step::NeedMore) | Err(_) => return Ok(at),
            Ok(Step::Skip { consumed }) => at += consumed,
            Ok(Step::Message { consumed, message }) => {
                prop_assert!(consumed > 0 && consumed <= input.len() - at);
                // What was understood can be said again, and means the same.
                let mut again = Vec::new();
                encode_from_device(&message, &mut again);
                let mut phase = match message {
                    FromDevice::Hello(_) => NativePhase::Hello,
                    FromDevice::Resync { .. } => NativePhase::Delta(DeltaDecoder::new()),
                    _ => NativePhase::Open,
                };
                match Native::decode(&mut phase, &again) {
                    Ok(Step::Message {
                        consumed,
                        message: there,
                    }) => {
                        prop_assert_eq!((consumed, there), (again.len(), message));
                    }
                    other => prop_assert!(false, "{other:?} from {again:?}"),
                }
                at += consumed;
            }
        }
    }
}

fn read_as_device(input: &[u8]) -> Result<(), TestCaseError> {
    let mut rest = input;
    while let Ok(Some((consumed, message))) = decode_to_device(rest) {
        prop_assert!(consumed > 0 && consumed <= rest.len());
        let mut again = Vec::new();
        Native::encode(&mut NativePhase::Open, &message, &mut again);
        prop_assert_eq!(decode_to_device(&again), Ok(Some((again.len(), message))));
        rest = &rest[consumed..];
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_a_device_says_is_understood(message in device_message()) {
        let mut bytes = Vec::new();
        message.with_device(|message| encode_from_device(message, &mut bytes));
        let start = if matches!(message, Message::Hello { .. }) { NativePhase::Hello } else { NativePhase::Open };
        for cut in 0..bytes.len() {
            let mut phase = start.clone();
            prop_assert!(matches!(Native::decode(&mut phase, &bytes[..cut]), Ok(Step::NeedMore)));
            prop_assert_eq!(discriminant(&phase), discriminant(&start));
        }
        let mut phase = start;
        match Native::decode(&mut phase, &bytes) {
            Ok(Step::Message { consumed, message: there }) => {
                prop_assert_eq!(consumed, bytes.len());
                prop_assert_eq!(message.with_device(|message| *message == there), Some(true));
            }
            other => prop_assert!(false, "{other:?}"),
        }
        prop_assert!(matches!(phase, NativePhase::Open));
    }

    #[test]
    fn what_a_gateway_says_is_understood(message in gateway_message()) {
        let mut bytes = Vec::new();
        message.with_gateway(|message| Native::encode(&mut NativePhase::Open, message, &mut bytes));
        for cut in 0..bytes.len() {
            prop_assert_eq!(decode_to_device(&bytes[..cut]), Ok(None));
        }
        let (consumed, there) = decode_to_device(&bytes).unwrap().unwrap();
        prop_assert_eq!(consumed, bytes.len());
        prop_assert_eq!(message.with_gateway(|message| *message == there), Some(true));
    }

    #[test]
    fn nothing_makes_the_codecs_panic(input in likely_bytes()) {
        for phase in [NativePhase::Preface, NativePhase::Hello, NativePhase::Open, NativePhase::Delta(DeltaDecoder::new())] {
            read_as_gateway(phase, &input)?;
        }
        let synced = [RESYNC, input.as_slice()].concat();
        read_as_gateway(NativePhase::Delta(DeltaDecoder::new()), &synced)?;
        read_as_gateway(NativePhase::Preface, &[&PREFACE, input.as_slice()].concat())?;
        read_as_device(&input)?;
    }

    #[test]
    fn a_changed_byte_makes_nothing_panic(
        messages in vec(prop_oneof![device_message(), gateway_message()], 1..6),
        places in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = Vec::new();
        for message in &messages {
            message.with_device(|message| encode_from_device(message, &mut bytes));
            message.with_gateway(|message| Native::encode(&mut NativePhase::Open, message, &mut bytes));
        }
        for (place, byte) in places {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        read_as_gateway(NativePhase::Open, &bytes)?;
        let synced = [RESYNC, bytes.as_slice()].concat();
        read_as_gateway(NativePhase::Delta(DeltaDecoder::new()), &synced)?;
        read_as_gateway(NativePhase::Hello, &bytes)?;
        read_as_device(&bytes)?;
    }

    #[test]
    fn a_stream_means_the_same_in_any_pieces(
        messages in vec(device_message().prop_filter("HELLO comes once", |m| !matches!(m, Message::Hello { .. })), 0..8),
        sizes in vec(1..40_usize, 1..60),
    ) {
        let mut bytes = crate::peer::greeting(0, "a", BootId([1; 16]), None);
        for message in &messages {
            message.with_device(|message| encode_from_device(message, &mut bytes));
        }
        let (mut phase, mut held, mut fed, mut count) = (NativePhase::Preface, Vec::new(), 0, 0);
        for size in sizes.iter().cycle() {
            match Native::decode(&mut phase, &held).unwrap() {
                Step::NeedMore if fed == bytes.len() => break,
                Step::NeedMore => {
                    let piece = &bytes[fed..bytes.len().min(fed + size)];
                    held.extend_from_slice(piece);
                    fed += piece.len();
                }
                Step::Skip { consumed } => drop(held.drain(..consumed)),
                Step::Message { consumed, .. } => {
                    held.drain(..consumed);
                    count += 1;
                }
            }
        }
        prop_assert!(held.is_empty());
        prop_assert_eq!(count, messages.len() + 1);
    }
}

#[test]
fn the_largest_payloads_fit_and_larger_ones_do_not() {
    for (bytes, fits) in [
        (65_536, true),
        (65_537, false),
        (BODY_BYTES_MAX - 17, false),
    ] {
        let body = vec![b'x'; bytes];
        let mut result = Vec::new();
        let id = CommandId([1; 16]);
        let status = ResultStatus::Opaque;
        encode_from_device(
            &FromDevice::Result {
                id,
                status,
                body: &body,
            },
            &mut result,
        );
        let step = Native::decode(&mut NativePhase::Open, &result);
        assert_eq!(
            step.as_ref().map_err(|v| v.code()).err(),
            (!fits).then_some(ErrorCode::TooLarge)
        );
        let mut command = Vec::new();
        let message = ToDevice::Command {
            id,
            timeout_ms: 0,
            payload: &body,
        };
        Native::encode(&mut NativePhase::Open, &message, &mut command);
        assert_eq!(decode_to_device(&command).is_ok(), fits);
    }
}
