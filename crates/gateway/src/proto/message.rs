//! The messages of the protocol as values, without their bytes.

use std::fmt;

use super::{Beat, BeatAck, BootId, CommandId, DatagramDoor, DeviceId, Forms, SessionToken};

/// What a device says.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum FromDevice<'a> {
    /// Who it is; the first message of a connection.
    Hello(Hello<'a>),
    /// It lives.
    Beat(Beat),
    /// It lives, and beats at this interval from now on.
    Resync {
        /// What a beat says.
        beat: Beat,
        /// The interval, 1 to 3,600,000 ms; that much also stands for a longer one.
        interval_ms: u32,
    },
    /// How a command ended. Repeated until the gateway acknowledges it.
    Result {
        /// The command.
        id: CommandId,
        /// How it ended.
        status: ResultStatus,
        /// What the device answers; JSON or opaque as `status` says.
        body: &'a [u8],
    },
    /// It is about to close the connection on purpose.
    GoAway(GoAway),
}

/// What a gateway says.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum ToDevice<'a> {
    /// The session is open.
    Welcome(Welcome),
    /// A beat was heard.
    BeatAck(BeatAck),
    /// A beat was heard, on a connection with delta beats: the oldest that was not acknowledged yet.
    DeltaAck,
    /// Answer with a beat now: somebody asks whether this connection still lives.
    Probe,
    /// Do this, once.
    Command {
        /// Names the command for ever.
        id: CommandId,
        /// Milliseconds that the caller will still wait; 0 when nobody waits any more.
        timeout_ms: u32,
        /// The payload, JSON.
        payload: &'a [u8],
    },
    /// The result is stored: forget the command.
    ResultAck {
        /// The command.
        id: CommandId,
    },
    /// The gateway is about to close the connection.
    GoAway(GoAway),
    /// The device broke the protocol; the connection closes behind this message.
    Error {
        /// Which rule.
        code: ErrorCode,
        /// A sentence for a person.
        text: &'a str,
    },
}

/// A device's first message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello<'a> {
    /// The device's name.
    pub device: DeviceId<'a>,
    /// Names the memory in which this device remembers commands.
    pub boot: BootId,
    /// The beat interval that the device would like; 0 leaves the choice to the gateway.
    pub interval_ms: u32,
    /// The token of the session to take over, if the device still has it.
    pub resume: Option<SessionToken>,
    /// The forms of beat that it speaks.
    pub forms: Forms,
}

/// The gateway's answer to [`Hello`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// Names this session.
    pub session: SessionToken,
    /// The device beats at least this often.
    pub interval_ms: u32,
    /// The device is gone when nothing was heard for `interval_ms + grace_ms`.
    pub grace_ms: u32,
    /// Of the forms of beat that the device speaks, those that the gateway reads.
    pub forms: Forms,
    /// Where beats may go in datagrams; only when [`forms`](Self::forms) has those.
    pub datagrams: Option<DatagramDoor>,
    /// The device's place among those that come back when the gateway is lost: the first try falls this many
    /// milliseconds after the loss. `None` leaves it to the device, and so does `u32::MAX` on the wire.
    pub slot_ms: Option<u32>,
}

/// Why one side closes, and when to come back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GoAway {
    /// Why.
    pub reason: GoAwayReason,
    /// The device reconnects after a random time up to this; 0 leaves it to the device.
    pub retry_within_ms: u32,
}

/// Declares a wire enumeration: an open set of byte values with names for the known ones.
macro_rules! wire_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $value:literal => $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant = $value,)* }

        impl $name {
            /// Every known value, in the order of the bytes.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The byte that travels.
            #[must_use]
            pub const fn byte(self) -> u8 {
                self as u8
            }

            /// The value of `byte`, if it is a known one.
            #[must_use]
            pub const fn from_byte(byte: u8) -> Option<Self> {
                match byte { $($value => Some(Self::$variant),)* _ => None }
            }

            /// A short stable name, used in metrics and logs.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

wire_enum! {
    /// How a command ended on the device.
    ResultStatus {
        /// Executed; the body is JSON.
        Json = 0 => "json",
        /// Executed; the body is bytes of the device's own kind.
        Opaque = 1 => "opaque",
        /// Started before the device was interrupted: it cannot tell whether the effect happened.
        Interrupted = 2 => "interrupted",
        /// Not executed and never will be under this id: the device has no room.
        Refused = 3 => "refused",
    }
}

wire_enum! {
    /// Why a side closes a connection on purpose.
    GoAwayReason {
        /// Nothing was heard for the agreed interval and grace.
        Gone = 1 => "gone",
        /// The same device opened another session.
        Replaced = 2 => "replaced",
        /// The gateway stops.
        Draining = 3 => "draining",
        /// The device stops.
        Leaving = 4 => "leaving",
    }
}

wire_enum! {
    /// Which rule of the protocol was broken.
    ErrorCode {
        /// The first four bytes are not the preface.
        BadPreface = 1 => "bad-preface",
        /// The preface names a version that this gateway does not speak.
        BadVersion = 2 => "bad-version",
        /// A frame or one of its fields cannot be read.
        Malformed = 3 => "malformed",
        /// A frame is longer than it may be.
        TooLarge = 4 => "too-large",
        /// The device id is empty, too long, not UTF-8 or has control characters.
        BadDeviceId = 5 => "bad-device-id",
        /// The device is connected already, and that connection answers.
        InUse = 6 => "in-use",
        /// No whole HELLO arrived in time.
        HelloTimeout = 7 => "hello-timeout",
        /// A message that may not be sent now.
        Unexpected = 8 => "unexpected",
        /// The gateway has no room: come back later.
        Busy = 9 => "busy",
        /// The device does not read what it is sent.
        SlowReader = 10 => "slow-reader",
    }
}

/// A broken rule: what a connection is closed for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Violation {
    code: ErrorCode,
    detail: &'static str,
}

impl Violation {
    /// A violation of the rule `code`, in words.
    #[must_use]
    pub const fn new(code: ErrorCode, detail: &'static str) -> Self {
        Self { code, detail }
    }

    /// The rule.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        self.code
    }

    /// A sentence for a person.
    #[must_use]
    pub const fn detail(&self) -> &'static str {
        self.detail
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.detail)
    }
}

impl std::error::Error for Violation {}
