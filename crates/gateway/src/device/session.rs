//! A device's side of one connection, without the connection: bytes and times in, bytes and events
//! out.

use std::sync::Arc;

use heartbeat_codec::delta::{DELTA_BYTES_MAX, DeltaBeat, DeltaEncoder};

use super::datagrams::DatagramBeats;
use crate::proto::{
    Beat, BootId, CommandId, DeviceId, ErrorCode, Forms, FromDevice, GoAway, Hello, SessionToken,
    ToDevice, Violation, Welcome, decode_to_device, encode_from_device, encode_preface,
};

/// After so many delta beats one is a resync, which alone can tell the gateway a new round trip.
const RESYNC_BEATS: u8 = 64;

/// The protocol state of one device. It outlives connections.
#[derive(Debug)]
pub(crate) struct Session {
    device: Arc<str>,
    boot: BootId,
    /// What the device asks for; the gateway decides.
    wanted_interval_ms: u32,
    /// The forms of beat that the device offers.
    forms: Forms,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    welcome: Welcome,
    heard_ms: u64,
    rtt_ms: Option<u16>,
    delta: Option<Delta>,
    datagrams: Option<DatagramBeats>,
}

/// Where the delta beats of a connection stand.
#[derive(Debug)]
struct Delta {
    encoder: DeltaEncoder,
    since_resync: u8,
    has_told_rtt: bool,
}

/// What a device learns from its gateway.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    Welcome {
        /// For the next HELLO: it resumes this session if the gateway still holds it open.
        resume: SessionToken,
        /// When to come back after the session is lost, counted from there.
        slot_ms: Option<u32>,
    },
    Probe,
    BeatAck,
    Command {
        id: CommandId,
        timeout_ms: u32,
        payload: &'a [u8],
    },
    ResultAck {
        id: CommandId,
    },
    GoAway(GoAway),
    Refused {
        code: ErrorCode,
        text: &'a str,
    },
}

impl Session {
    pub(crate) fn new(
        device: DeviceId<'_>,
        boot: BootId,
        wanted_interval_ms: u32,
        forms: Forms,
    ) -> Self {
        let device = device.as_str().into();
        Self {
            device,
            boot,
            wanted_interval_ms,
            forms,
            open: None,
        }
    }

    pub(crate) fn device(&self) -> &Arc<str> {
        &self.device
    }

    /// A connection stands: says who is there, and which session it would resume.
    pub(crate) fn greet(&mut self, resume: Option<SessionToken>, out: &mut Vec<u8>) {
        self.open = None;
        encode_preface(out);
        let device = DeviceId::parse(self.device.as_bytes()).expect("new took a checked id");
        let hello = Hello {
            device,
            boot: self.boot,
            interval_ms: self.wanted_interval_ms,
            resume,
            forms: self.forms,
        };
        encode_from_device(&FromDevice::Hello(hello), out);
    }

    /// The connection is gone.
    pub(crate) fn disconnected(&mut self) {
        self.open = None;
    }

    /// The agreed beat interval while the session is open.
    pub(crate) fn interval_ms(&self) -> Option<u32> {
        self.open.as_ref().map(|open| open.welcome.interval_ms)
    }

    /// The gateway has been silent for longer than it may leave beats unanswered.
    pub(crate) fn is_deserted(&self, now_ms: u64) -> bool {
        self.open.as_ref().is_some_and(|open| {
            let patience =
                u64::from(open.welcome.interval_ms) * 2 + u64::from(open.welcome.grace_ms);
            now_ms.saturating_sub(open.heard_ms) > patience
        })
    }

    /// How long the gateway waits for a beat beyond the interval, while the session is open.
    pub(crate) fn grace_ms(&self) -> Option<u32> {
        self.open.as_ref().map(|open| open.welcome.grace_ms)
    }

    /// The beats in datagrams, if they were agreed on.
    pub(crate) fn datagrams(&mut self) -> Option<&mut DatagramBeats> {
        self.open.as_mut()?.datagrams.as_mut()
    }

    /// What a beat in a datagram says now.
    pub(crate) fn plain_beat(&self, stamp_ms: u32, load_percent: Option<u8>) -> Beat {
        Beat {
            stamp_ms,
            load_percent,
            rtt_ms: self.open.as_ref().and_then(|open| open.rtt_ms),
        }
    }

    /// The gateway answered, on the connection or elsewhere.
    pub(crate) fn heard(&mut self, now_ms: u64) {
        if let Some(open) = &mut self.open {
            open.heard_ms = now_ms;
        }
    }

    /// Says that the device lives.
    pub(crate) fn beat(&mut self, stamp_ms: u32, load_percent: Option<u8>, out: &mut Vec<u8>) {
        let rtt_ms = self.open.as_ref().and_then(|open| open.rtt_ms);
        if let Some(open) = &mut self.open
            && let Some(delta) = &mut open.delta
        {
            return delta.beat(
                stamp_ms,
                load_percent,
                rtt_ms,
                open.welcome.interval_ms,
                out,
            );
        }
        let beat = self.plain_beat(stamp_ms, load_percent);
        encode_from_device(&FromDevice::Beat(beat), out);
    }

    /// Remembers the newest round trip for the next beat.
    pub(crate) fn set_rtt_ms(&mut self, rtt_ms: u16) {
        if let Some(open) = &mut self.open {
            open.rtt_ms = Some(rtt_ms);
        }
    }

    /// Reads one message from the front of `input`: how many bytes it took and what it says, or
    /// `None` when `input` ends inside a message.
    pub(crate) fn receive<'a>(
        &mut self,
        now_ms: u64,
        input: &'a [u8],
    ) -> Result<Option<(usize, Event<'a>)>, Violation> {
        let Some((consumed, message)) = decode_to_device(input)? else {
            return Ok(None);
        };
        self.heard(now_ms);
        let event = match message {
            ToDevice::Welcome(welcome) => {
                let agreed = self.forms.accept(welcome.forms).map_err(|_| {
                    let why = "WELCOME grants a form of beat that was not offered";
                    Violation::new(ErrorCode::Malformed, why)
                })?;
                self.open = Some(Open {
                    welcome,
                    heard_ms: now_ms,
                    rtt_ms: None,
                    datagrams: welcome
                        .datagrams
                        .map(|door| DatagramBeats::new(door, &welcome.session)),
                    delta: agreed
                        .contains(Forms::DELTA)
                        .then(|| Delta::new(welcome.interval_ms)),
                });
                Event::Welcome {
                    resume: welcome.session,
                    slot_ms: welcome.slot_ms,
                }
            }
            ToDevice::BeatAck(_) | ToDevice::DeltaAck => Event::BeatAck,
            ToDevice::Probe => Event::Probe,
            ToDevice::Command {
                id,
                timeout_ms,
                payload,
            } => Event::Command {
                id,
                timeout_ms,
                payload,
            },
            ToDevice::ResultAck { id } => Event::ResultAck { id },
            ToDevice::GoAway(goaway) => Event::GoAway(goaway),
            ToDevice::Error { code, text } => Event::Refused { code, text },
        };
        Ok(Some((consumed, event)))
    }
}

impl Delta {
    fn new(interval_ms: u32) -> Self {
        Self {
            encoder: DeltaEncoder::new(interval_ms),
            since_resync: 0,
            has_told_rtt: false,
        }
    }

    fn beat(
        &mut self,
        stamp_ms: u32,
        load_percent: Option<u8>,
        rtt_ms: Option<u16>,
        interval_ms: u32,
        out: &mut Vec<u8>,
    ) {
        let has_news = rtt_ms.is_some() && !self.has_told_rtt;
        if has_news || self.since_resync >= RESYNC_BEATS {
            self.encoder.resync(interval_ms);
        }
        let beat = DeltaBeat {
            stamp_ms,
            load_percent,
        };
        let encoded = self.encoder.encode(&beat, rtt_ms);
        out.extend_from_slice(encoded.as_bytes());
        if encoded.as_bytes().len() == DELTA_BYTES_MAX {
            self.since_resync = 0;
            self.has_told_rtt = rtt_ms.is_some();
        } else {
            self.since_resync += 1;
        }
    }
}
