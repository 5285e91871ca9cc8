//! The device protocol, version 1: what a device and a gateway say to each other.
//!
//! `docs/PROTOCOL.md` describes every byte; this module is its twin in code. Messages are plain
//! values that borrow from the bytes they were read from ([`FromDevice`], [`ToDevice`]); a
//! [`FrontDoor`] turns a connection's bytes into them and back. The TCP form is [`Native`]; other
//! front doors (WebSocket, MQTT) implement the same trait and leave the gateway untouched.

mod datagram;
mod id;
mod message;
mod native;

pub use datagram::{
    DATAGRAM_ACK_BYTES, DATAGRAM_BYTES, DatagramDoor, DatagramPeers, DatagramRefusal,
    HeardDatagram, datagram_key,
};
pub use heartbeat_codec::beat::{Beat, BeatAck};
pub use heartbeat_codec::capability::Forms;
pub use id::{BootId, CommandId, DeviceId, SessionToken};
pub use message::{
    ErrorCode, FromDevice, GoAway, GoAwayReason, Hello, ResultStatus, ToDevice, Violation, Welcome,
};
pub use native::{Native, NativePhase, decode_to_device, encode_from_device, encode_preface};

/// The version byte of this protocol, last byte of the [preface](PREFACE).
pub const VERSION: u8 = 1;

/// The first bytes that a device sends: three letters and the version.
pub const PREFACE: [u8; 4] = [b'M', b'S', b'T', VERSION];

/// Most bytes of a command's payload or of its result.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

/// Most bytes of a frame's body once the session is open: a payload and its fixed fields.
pub const BODY_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + 32;

/// Most bytes of a HELLO's body, the only frame that a stranger may send.
pub const HELLO_BYTES_MAX: usize = 256;

/// Most bytes of a device id.
pub const DEVICE_ID_BYTES_MAX: usize = 64;

/// How a connection's bytes become messages, and messages bytes.
///
/// Implementations hold no socket: the gateway hands them what arrived and writes what they
/// encode. One value of [`State`](FrontDoor::State) lives in each connection, so keep it small.
pub trait FrontDoor: Send + 'static {
    /// What has to be remembered between two reads of a connection.
    type State: Default + Send;

    /// Reads one step from the front of `input`.
    ///
    /// # Errors
    ///
    /// A [`Violation`] ends the connection; its code and text are sent to the device first.
    fn decode<'a>(state: &mut Self::State, input: &'a [u8]) -> Result<Step<'a>, Violation>;

    /// Appends `message` to `out`. What WELCOME grants holds from then on.
    fn encode(state: &mut Self::State, message: &ToDevice<'_>, out: &mut Vec<u8>);
}

/// What [`FrontDoor::decode`] found.
#[derive(Debug)]
pub enum Step<'a> {
    /// `input` ends inside a message: call again with more bytes behind these.
    NeedMore,
    /// `consumed` bytes were read that carry no message.
    Skip {
        /// Bytes to drop from the front of the input.
        consumed: usize,
    },
    /// One message, which took `consumed` bytes.
    Message {
        /// Bytes to drop from the front of the input.
        consumed: usize,
        /// What the device said.
        message: FromDevice<'a>,
    },
}
