//! The protocol's own bytes over TCP: a preface, then frames of `kind, length, body`.
//!
//! `docs/PROTOCOL.md` is the description; the vectors in this crate's tests hold both together.

use heartbeat_codec::delta::{self, DeltaBeat, DeltaDecoder, DeltaEncoder};
use heartbeat_codec::frame::{self, Decoded};

use super::{
    BODY_BYTES_MAX, Beat, BeatAck, BootId, CommandId, DatagramDoor, DeviceId, ErrorCode, Forms,
    FromDevice, FrontDoor, GoAway, GoAwayReason, HELLO_BYTES_MAX, Hello, PAYLOAD_BYTES_MAX,
    PREFACE, ResultStatus, SessionToken, Step, ToDevice, VERSION, Violation, Welcome,
};

/// The frame kinds, first byte of each frame.
mod kind {
    pub(super) const HELLO: u8 = 0x01;
    pub(super) const WELCOME: u8 = 0x02;
    pub(super) const BEAT: u8 = 0x03;
    pub(super) const BEAT_ACK: u8 = 0x04;
    pub(super) const PROBE: u8 = 0x05;
    pub(super) const COMMAND: u8 = 0x06;
    pub(super) const RESULT: u8 = 0x07;
    pub(super) const RESULT_ACK: u8 = 0x08;
    pub(super) const GOAWAY: u8 = 0x09;
    pub(super) const ERROR: u8 = 0x0a;
}

/// Bit 0 of HELLO's flags: a resume token follows.
const HELLO_HAS_RESUME: u8 = 1;

/// `slot_ms` of a WELCOME without a slot that has fields behind it.
const NO_SLOT: u32 = u32::MAX;

/// The acknowledgement of a beat on a connection with delta beats; a reserved kind, like those.
const DELTA_ACK: u8 = 0x80;

/// The TCP front door.
#[derive(Debug, Clone, Copy, Default)]
pub struct Native;

/// How far a TCP connection has come.
#[derive(Debug, Clone, Default)]
pub enum NativePhase {
    /// Nothing but the preface is expected.
    #[default]
    Preface,
    /// The preface was read; only a HELLO may follow.
    Hello,
    /// HELLO was read.
    Open,
    /// WELCOME granted delta beats; this is what they have said so far.
    Delta(DeltaDecoder),
}

impl FrontDoor for Native {
    type State = NativePhase;

    fn decode<'a>(phase: &mut NativePhase, input: &'a [u8]) -> Result<Step<'a>, Violation> {
        match phase {
            NativePhase::Preface => read_preface(phase, input),
            NativePhase::Hello => {
                let step = read_frame(input, HELLO_BYTES_MAX, decode_from_device)?;
                match step {
                    Step::Message {
                        message: FromDevice::Hello(_),
                        ..
                    } => *phase = NativePhase::Open,
                    Step::Message { .. } => {
                        return Err(Violation::new(
                            ErrorCode::Unexpected,
                            "the first message is HELLO",
                        ));
                    }
                    Step::NeedMore | Step::Skip { .. } => {}
                }
                Ok(step)
            }
            NativePhase::Delta(decoder) if input.first().is_some_and(|first| *first >= 0x80) => {
                read_delta(decoder, input)
            }
            NativePhase::Open | NativePhase::Delta(_) => {
                read_frame(input, BODY_BYTES_MAX, decode_from_device)
            }
        }
    }

    fn encode(phase: &mut NativePhase, message: &ToDevice<'_>, out: &mut Vec<u8>) {
        match (&*phase, message) {
            (NativePhase::Open, ToDevice::Welcome(welcome))
                if welcome.forms.contains(Forms::DELTA) =>
            {
                *phase = NativePhase::Delta(DeltaDecoder::new());
                encode_to_device(message, out);
            }
            (NativePhase::Delta(_), ToDevice::BeatAck(_)) => out.push(DELTA_ACK),
            _ => encode_to_device(message, out),
        }
    }
}

/// Appends what a device sends before its first frame.
pub fn encode_preface(out: &mut Vec<u8>) {
    out.extend_from_slice(&PREFACE);
}

fn read_preface<'a>(phase: &mut NativePhase, input: &'a [u8]) -> Result<Step<'a>, Violation> {
    let seen = input.len().min(PREFACE.len());
    let letters = seen.min(PREFACE.len() - 1);
    if input[..letters] != PREFACE[..letters] {
        return Err(Violation::new(
            ErrorCode::BadPreface,
            "a connection starts with the bytes 4d 53 54 01",
        ));
    }
    if seen < PREFACE.len() {
        return Ok(Step::NeedMore);
    }
    if input[PREFACE.len() - 1] != VERSION {
        return Err(Violation::new(
            ErrorCode::BadVersion,
            "this gateway speaks version 1",
        ));
    }
    *phase = NativePhase::Hello;
    Ok(Step::Skip {
        consumed: PREFACE.len(),
    })
}

/// Reads one frame and decodes its body with `decode`.
fn read_frame<'a>(
    input: &'a [u8],
    body_bytes_max: usize,
    decode: fn(u8, &'a [u8]) -> Result<FromDevice<'a>, Violation>,
) -> Result<Step<'a>, Violation> {
    match frame::decode(input, body_bytes_max).map_err(|e| frame_violation(&e))? {
        Decoded::NeedMore { .. } => Ok(Step::NeedMore),
        Decoded::Frame {
            kind,
            body,
            consumed,
        } => decode(kind, body).map(|message| Step::Message { consumed, message }),
    }
}

/// Reads one delta beat. What it does not say about the round trip, a frame would not either.
fn read_delta<'a>(decoder: &mut DeltaDecoder, input: &'a [u8]) -> Result<Step<'a>, Violation> {
    let decoded = decoder.decode(input).map_err(|error| {
        let why = if error.is_out_of_sync() {
            "the first delta beat of a connection is a resync"
        } else {
            "the delta beat cannot be read"
        };
        Violation::new(ErrorCode::Malformed, why)
    })?;
    Ok(match decoded {
        delta::Decoded::NeedMore { .. } => Step::NeedMore,
        delta::Decoded::Beat {
            beat,
            resync,
            consumed,
        } => {
            let beat = Beat {
                stamp_ms: beat.stamp_ms,
                load_percent: beat.load_percent,
                rtt_ms: resync.and_then(|resync| resync.rtt_ms),
            };
            let message = match resync {
                Some(delta::Resync { interval_ms, .. }) => FromDevice::Resync { beat, interval_ms },
                None => FromDevice::Beat(beat),
            };
            Step::Message { consumed, message }
        }
    })
}

fn frame_violation(error: &frame::FrameError) -> Violation {
    if error.is_body_too_long() {
        Violation::new(ErrorCode::TooLarge, "the frame is longer than it may be")
    } else {
        Violation::new(
            ErrorCode::Malformed,
            "the frame's kind or length cannot be read",
        )
    }
}

fn decode_from_device(frame_kind: u8, body: &[u8]) -> Result<FromDevice<'_>, Violation> {
    let mut fields = Fields(body);
    match frame_kind {
        kind::HELLO => decode_hello(fields).map(FromDevice::Hello),
        kind::BEAT => Beat::decode(body).map(FromDevice::Beat).map_err(|_| {
            Violation::new(
                ErrorCode::Malformed,
                "a BEAT has 7 bytes and a load of 0 to 100, or 255",
            )
        }),
        kind::RESULT => Ok(FromDevice::Result {
            id: CommandId(fields.array()?),
            status: ResultStatus::from_byte(fields.byte()?).ok_or(Violation::new(
                ErrorCode::Malformed,
                "RESULT has an unknown status",
            ))?,
            body: fields.payload()?,
        }),
        kind::GOAWAY => decode_goaway(fields).map(FromDevice::GoAway),
        _ => Err(Violation::new(
            ErrorCode::Unexpected,
            "a device does not send this kind of frame",
        )),
    }
}

/// Reads one message of a gateway from the front of `input`; `None` when it ends inside one.
///
/// # Errors
///
/// A [`Violation`]: this is not a gateway of version 1.
pub fn decode_to_device(input: &[u8]) -> Result<Option<(usize, ToDevice<'_>)>, Violation> {
    if input.first() == Some(&DELTA_ACK) {
        return Ok(Some((1, ToDevice::DeltaAck)));
    }
    let (frame_kind, body, consumed) =
        match frame::decode(input, BODY_BYTES_MAX).map_err(|e| frame_violation(&e))? {
            Decoded::NeedMore { .. } => return Ok(None),
            Decoded::Frame {
                kind,
                body,
                consumed,
            } => (kind, body, consumed),
        };
    let mut fields = Fields(body);
    let message = match frame_kind {
        kind::WELCOME => ToDevice::Welcome(decode_welcome(fields)?),
        kind::BEAT_ACK => ToDevice::BeatAck(
            BeatAck::decode(body)
                .map_err(|_| Violation::new(ErrorCode::Malformed, "a BEAT-ACK has 4 bytes"))?,
        ),
        kind::PROBE => ToDevice::Probe,
        kind::COMMAND => ToDevice::Command {
            id: CommandId(fields.array()?),
            timeout_ms: fields.u32()?,
            payload: fields.payload()?,
        },
        kind::RESULT_ACK => ToDevice::ResultAck {
            id: CommandId(fields.array()?),
        },
        kind::GOAWAY => ToDevice::GoAway(decode_goaway(fields)?),
        kind::ERROR => ToDevice::Error {
            code: ErrorCode::from_byte(fields.byte()?).ok_or(Violation::new(
                ErrorCode::Malformed,
                "ERROR has an unknown code",
            ))?,
            text: std::str::from_utf8(fields.rest())
                .map_err(|_| Violation::new(ErrorCode::Malformed, "ERROR's text is not UTF-8"))?,
        },
        _ => {
            return Err(Violation::new(
                ErrorCode::Unexpected,
                "a gateway does not send this kind of frame",
            ));
        }
    };
    Ok(Some((consumed, message)))
}

fn decode_hello(mut fields: Fields<'_>) -> Result<Hello<'_>, Violation> {
    let flags = fields.byte()?;
    let interval_ms = fields.u32()?;
    let boot = BootId(fields.array()?);
    let resume = if flags & HELLO_HAS_RESUME == 0 {
        None
    } else {
        Some(SessionToken(fields.array()?))
    };
    let id_bytes = usize::from(fields.byte()?);
    let device = DeviceId::parse(fields.take(id_bytes)?)?;
    Ok(Hello {
        device,
        boot,
        interval_ms,
        resume,
        forms: fields.forms(),
    })
}

fn decode_goaway(mut fields: Fields<'_>) -> Result<GoAway, Violation> {
    Ok(GoAway {
        reason: GoAwayReason::from_byte(fields.byte()?).ok_or(Violation::new(
            ErrorCode::Malformed,
            "GOAWAY has an unknown reason",
        ))?,
        retry_within_ms: fields.u32()?,
    })
}

fn decode_welcome(mut fields: Fields<'_>) -> Result<Welcome, Violation> {
    let mut welcome = Welcome {
        session: SessionToken(fields.array()?),
        interval_ms: fields.u32()?,
        grace_ms: fields.u32()?,
        forms: fields.forms(),
        datagrams: None,
        slot_ms: None,
    };
    if welcome.forms.contains(Forms::DATAGRAM) {
        welcome.datagrams = Some(DatagramDoor {
            peer: fields.u32()?,
            port: fields.array().map(u16::from_le_bytes)?,
        });
    }
    welcome.slot_ms = fields.u32().ok().filter(|slot_ms| *slot_ms != NO_SLOT);
    Ok(welcome)
}

/// Appends a device's message to `out`.
pub fn encode_from_device(message: &FromDevice<'_>, out: &mut Vec<u8>) {
    match message {
        FromDevice::Hello(hello) => {
            let id = hello.device.as_str().as_bytes();
            let id_bytes = u8::try_from(id.len()).expect("a DeviceId has at most 64 bytes");
            let resume: &[u8] = hello.resume.as_ref().map_or(&[], |token| &token.0);
            let flags = if hello.resume.is_some() {
                HELLO_HAS_RESUME
            } else {
                0
            };
            put(
                kind::HELLO,
                &[
                    &[flags],
                    &hello.interval_ms.to_le_bytes(),
                    &hello.boot.0,
                    resume,
                    &[id_bytes],
                    id,
                    forms_field(hello.forms, false, &mut [0]),
                ],
                out,
            );
        }
        FromDevice::Beat(beat) => put(kind::BEAT, &[&beat.encode()], out),
        FromDevice::Resync { beat, interval_ms } => {
            let delta = DeltaBeat {
                stamp_ms: beat.stamp_ms,
                load_percent: beat.load_percent,
            };
            let resync = DeltaEncoder::new(*interval_ms).encode(&delta, beat.rtt_ms);
            out.extend_from_slice(resync.as_bytes());
        }
        FromDevice::Result { id, status, body } => {
            put(kind::RESULT, &[&id.0, &[status.byte()], body], out);
        }
        FromDevice::GoAway(goaway) => put_goaway(goaway, out),
    }
}

fn encode_to_device(message: &ToDevice<'_>, out: &mut Vec<u8>) {
    match message {
        ToDevice::Welcome(welcome) => put_welcome(welcome, out),
        ToDevice::BeatAck(ack) => put(kind::BEAT_ACK, &[&ack.encode()], out),
        ToDevice::DeltaAck => out.push(DELTA_ACK),
        ToDevice::Probe => put(kind::PROBE, &[], out),
        ToDevice::Command {
            id,
            timeout_ms,
            payload,
        } => {
            put(
                kind::COMMAND,
                &[&id.0, &timeout_ms.to_le_bytes(), payload],
                out,
            );
        }
        ToDevice::ResultAck { id } => put(kind::RESULT_ACK, &[&id.0], out),
        ToDevice::GoAway(goaway) => put_goaway(goaway, out),
        ToDevice::Error { code, text } => put(kind::ERROR, &[&[code.byte()], text.as_bytes()], out),
    }
}

/// A field of HELLO and WELCOME; whoever has nothing but BEAT to say, and nothing behind it, leaves it out.
fn forms_field(forms: Forms, is_followed: bool, byte: &mut [u8; 1]) -> &[u8] {
    *byte = [forms.to_byte()];
    let is_needed = is_followed || forms != Forms::FRAMED;
    if is_needed { byte } else { &[] }
}

fn put_welcome(welcome: &Welcome, out: &mut Vec<u8>) {
    let door = welcome.datagrams.map(|door| {
        let mut fields = [0; 6];
        fields[..4].copy_from_slice(&door.peer.to_le_bytes());
        fields[4..].copy_from_slice(&door.port.to_le_bytes());
        fields
    });
    debug_assert_eq!(door.is_some(), welcome.forms.contains(Forms::DATAGRAM));
    let slot = welcome.slot_ms.map(u32::to_le_bytes);
    put(
        kind::WELCOME,
        &[
            &welcome.session.0,
            &welcome.interval_ms.to_le_bytes(),
            &welcome.grace_ms.to_le_bytes(),
            forms_field(welcome.forms, slot.is_some(), &mut [0]),
            door.as_ref().map_or(&[], |fields| fields),
            slot.as_ref().map_or(&[], |field| field),
        ],
        out,
    );
}

fn put_goaway(goaway: &GoAway, out: &mut Vec<u8>) {
    put(
        kind::GOAWAY,
        &[
            &[goaway.reason.byte()],
            &goaway.retry_within_ms.to_le_bytes(),
        ],
        out,
    );
}

/// Appends a frame whose body is `parts`, one behind the other.
fn put(frame_kind: u8, parts: &[&[u8]], out: &mut Vec<u8>) {
    let body_bytes = parts.iter().map(|part| part.len()).sum();
    let mut header = [0; frame::HEADER_BYTES_MAX];
    let header_bytes = frame::encode_header(frame_kind, body_bytes, &mut header)
        .expect("every kind is below 0x80 and every body below 2 MiB");
    out.extend_from_slice(&header[..header_bytes]);
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// Reads fixed fields from the front of a frame's body.
///
/// Bytes behind the last known field are ignored: later versions may append fields.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Violation> {
        let (head, tail) = self.0.split_at_checked(bytes).ok_or(Violation::new(
            ErrorCode::Malformed,
            "the frame ends inside a field",
        ))?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Violation> {
        self.take(N)
            .map(|bytes| bytes.try_into().expect("take returns the length asked for"))
    }

    fn byte(&mut self) -> Result<u8, Violation> {
        self.array().map(|[byte]| byte)
    }

    /// The field may be missing: it came later than version 1.
    fn forms(&mut self) -> Forms {
        self.byte().map_or(Forms::FRAMED, Forms::from_byte)
    }

    fn u32(&mut self) -> Result<u32, Violation> {
        self.array().map(u32::from_le_bytes)
    }

    fn payload(&mut self) -> Result<&'a [u8], Violation> {
        let payload = self.rest();
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(Violation::new(
                ErrorCode::TooLarge,
                "a payload has at most 65,536 bytes",
            ));
        }
        Ok(payload)
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}
