//! A device's side of one connection, without the connection: bytes and times in, bytes and events
//! out.

use crate::proto::{
    Beat, BootId, CommandId, DeviceId, ErrorCode, FromDevice, GoAway, Hello, SessionToken,
    ToDevice, Violation, Welcome, decode_to_device, encode_from_device, encode_preface,
};

/// The protocol state of one device. It outlives connections: a new connection resumes the last
/// session when the gateway still holds that one open.
#[derive(Debug)]
pub(crate) struct Session {
    device: Box<str>,
    boot: BootId,
    /// What the device asks for; the gateway decides.
    wanted_interval_ms: u32,
    resume: Option<SessionToken>,
    open: Option<Open>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    welcome: Welcome,
    heard_ms: u64,
    rtt_ms: Option<u16>,
}

/// What a device learns from its gateway.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    Welcome,
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
    pub(crate) fn new(device: DeviceId<'_>, boot: BootId, wanted_interval_ms: u32) -> Self {
        let device = device.as_str().into();
        Self {
            device,
            boot,
            wanted_interval_ms,
            resume: None,
            open: None,
        }
    }

    /// A connection stands: says who is there.
    pub(crate) fn greet(&mut self, out: &mut Vec<u8>) {
        self.open = None;
        encode_preface(out);
        let device = DeviceId::parse(self.device.as_bytes()).expect("new took a checked id");
        let hello = Hello {
            device,
            boot: self.boot,
            interval_ms: self.wanted_interval_ms,
            resume: self.resume,
        };
        encode_from_device(&FromDevice::Hello(hello), out);
    }

    /// The connection is gone.
    pub(crate) fn disconnected(&mut self) {
        self.open = None;
    }

    /// The agreed beat interval while the session is open.
    pub(crate) fn interval_ms(&self) -> Option<u32> {
        self.open.map(|open| open.welcome.interval_ms)
    }

    /// The gateway has been silent for longer than it may leave beats unanswered.
    pub(crate) fn is_deserted(&self, now_ms: u64) -> bool {
        self.open.is_some_and(|open| {
            let patience =
                u64::from(open.welcome.interval_ms) * 2 + u64::from(open.welcome.grace_ms);
            now_ms.saturating_sub(open.heard_ms) > patience
        })
    }

    /// Says that the device lives.
    pub(crate) fn beat(&mut self, stamp_ms: u32, load_percent: Option<u8>, out: &mut Vec<u8>) {
        let rtt_ms = self.open.and_then(|open| open.rtt_ms);
        encode_from_device(
            &FromDevice::Beat(Beat {
                stamp_ms,
                load_percent,
                rtt_ms,
            }),
            out,
        );
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
        if let Some(open) = &mut self.open {
            open.heard_ms = now_ms;
        }
        let event = match message {
            ToDevice::Welcome(welcome) => {
                self.resume = Some(welcome.session);
                self.open = Some(Open {
                    welcome,
                    heard_ms: now_ms,
                    rtt_ms: None,
                });
                Event::Welcome
            }
            ToDevice::BeatAck(_) => Event::BeatAck,
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
