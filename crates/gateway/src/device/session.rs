//! A device's side of one connection, without the connection: bytes and times in, bytes and events
//! out.

use std::sync::Arc;

use heartbeat_codec::delta::{DELTA_BYTES_MAX, DeltaBeat, DeltaEncoder, INTERVAL_MS_MAX};
use heartbeat_codec::pace::{Pace, PaceConfig};

use super::datagrams::DatagramBeats;
use crate::proto::{
    Beat, BootId, CommandId, DeviceId, ErrorCode, Forms, FromDevice, GoAway, GoAwayReason, Hello,
    SessionToken, ToDevice, Violation, Welcome, decode_to_device, encode_from_device,
    encode_preface,
};

/// After so many delta beats one is a resync, which alone can tell the gateway a new round trip.
const RESYNC_BEATS: u8 = 64;

/// So many answered beats in a row make an adaptive interval longer.
const STABLE_BEATS: u16 = 4;

/// An interval that follows what the way to the gateway bears.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Adaptive {
    config: PaceConfig,
    pace: Pace,
}

impl Adaptive {
    /// Between `interval_min_ms`, where it begins, and `interval_max_ms`, at most what a resync can say.
    pub(crate) fn new(interval_min_ms: u32, interval_max_ms: u32) -> Self {
        let config = PaceConfig {
            interval_min_ms: interval_min_ms.min(INTERVAL_MS_MAX),
            interval_max_ms: interval_max_ms.min(INTERVAL_MS_MAX),
            stable_beats: STABLE_BEATS,
        };
        let pace = Pace::new(&config);
        Self { config, pace }
    }

    /// A session begins whose gateway and device want no longer interval than this.
    fn agree(&mut self, interval_max_ms: u32) {
        self.config.interval_max_ms = interval_max_ms;
        if self.pace.interval_ms() > interval_max_ms {
            self.pace = Pace::new(&self.config);
        }
    }
}

/// The protocol state of one device. It outlives connections.
#[derive(Debug)]
pub(crate) struct Session {
    device: Arc<str>,
    boot: BootId,
    /// What the device asks for; the gateway decides.
    wanted_interval_ms: u32,
    /// The forms of beat that the device offers.
    forms: Forms,
    /// Seldom there, so elsewhere.
    adaptive: Option<Box<Adaptive>>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    welcome: Welcome,
    heard_ms: u64,
    rtt_ms: Option<u16>,
    /// The gateway said why it ends the session, and it is not that it heard too little.
    has_parted: bool,
    delta: Option<Delta>,
    datagrams: Option<DatagramBeats>,
}

/// Where the delta beats of a connection stand.
#[derive(Debug)]
struct Delta {
    encoder: DeltaEncoder,
    /// What the last resync said, or WELCOME.
    interval_ms: u32,
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
            adaptive: None,
            open: None,
        }
    }

    /// Beats at an interval that follows what the way bears. The longest is what the device asks for.
    pub(crate) fn adapt(&mut self, adaptive: Adaptive) {
        self.wanted_interval_ms = adaptive.config.interval_max_ms;
        self.adaptive = Some(Box::new(adaptive));
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

    /// The connection is gone; `is_beat_unanswered` as it went.
    pub(crate) fn disconnected(&mut self, is_beat_unanswered: bool) {
        if let Some(open) = self.open.take()
            && is_beat_unanswered
            && !open.has_parted
        {
            self.beat_lost();
        }
    }

    /// The time between two beats while the session is open: the agreed one, or a shorter one that the way bears.
    pub(crate) fn interval_ms(&self) -> Option<u32> {
        let agreed_ms = self.open.as_ref()?.welcome.interval_ms;
        let adaptive = self.adaptive.as_ref();
        Some(adaptive.map_or(agreed_ms, |it| it.pace.interval_ms().min(agreed_ms)))
    }

    /// A beat was answered.
    pub(crate) fn beat_answered(&mut self) {
        if let Some(adaptive) = &mut self.adaptive {
            adaptive.pace.answered(&adaptive.config);
        }
    }

    /// A beat was not answered in time.
    pub(crate) fn beat_lost(&mut self) {
        if let Some(adaptive) = &mut self.adaptive {
            adaptive.pace.lost(&adaptive.config);
        }
    }

    /// The gateway has to hear of another interval, which only a resync can say.
    pub(crate) fn must_resync(&self) -> bool {
        let delta = self.open.as_ref().and_then(|open| open.delta.as_ref());
        delta.is_some_and(|delta| Some(delta.interval_ms) != self.interval_ms())
    }

    /// The gateway has been silent for longer than it may leave beats unanswered.
    pub(crate) fn is_deserted(&self, now_ms: u64) -> bool {
        self.open.as_ref().is_some_and(|open| {
            let interval_ms = self.interval_ms().unwrap_or(open.welcome.interval_ms);
            let patience = u64::from(interval_ms) * 2 + u64::from(open.welcome.grace_ms);
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
        let interval_ms = self.interval_ms();
        let delta = self.open.as_mut().and_then(|open| open.delta.as_mut());
        if let (Some(delta), Some(interval_ms)) = (delta, interval_ms) {
            return delta.beat(stamp_ms, load_percent, rtt_ms, interval_ms, out);
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
                if let Some(adaptive) = &mut self.adaptive {
                    adaptive.agree(self.wanted_interval_ms.min(welcome.interval_ms));
                }
                self.open = Some(Open {
                    welcome,
                    heard_ms: now_ms,
                    rtt_ms: None,
                    has_parted: false,
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
            ToDevice::BeatAck(_) | ToDevice::DeltaAck => {
                self.beat_answered();
                Event::BeatAck
            }
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
            ToDevice::GoAway(goaway) => {
                self.parted(goaway.reason != GoAwayReason::Gone);
                Event::GoAway(goaway)
            }
            ToDevice::Error { code, text } => {
                self.parted(true);
                Event::Refused { code, text }
            }
        };
        Ok(Some((consumed, event)))
    }
}

impl Session {
    fn parted(&mut self, has_parted: bool) {
        if let Some(open) = &mut self.open {
            open.has_parted = has_parted;
        }
    }
}

impl Delta {
    fn new(interval_ms: u32) -> Self {
        Self {
            encoder: DeltaEncoder::new(interval_ms),
            interval_ms,
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
        let has_news = rtt_ms.is_some() && !self.has_told_rtt || interval_ms != self.interval_ms;
        if has_news || self.since_resync >= RESYNC_BEATS {
            self.interval_ms = interval_ms;
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
