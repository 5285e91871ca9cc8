//! A device by hand: every byte under the test's control.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use gateway::proto::{
    Beat, BeatAck, BootId, CommandId, DeviceId, ErrorCode, Forms, FromDevice, GoAwayReason, Hello,
    ResultStatus, SessionToken, ToDevice, Welcome, decode_to_device, encode_from_device,
    encode_preface,
};

use crate::http::connect;

pub(crate) const BOOT: BootId = BootId([0xb0; 16]);

pub(crate) struct Peer {
    stream: TcpStream,
    input: Vec<u8>,
}

/// An owned message of the gateway.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    Welcome(Welcome),
    BeatAck(u32),
    DeltaAck,
    Probe,
    Command {
        id: CommandId,
        timeout_ms: u32,
        payload: Vec<u8>,
    },
    ResultAck(CommandId),
    GoAway(GoAwayReason, u32),
    Error(ErrorCode, String),
}

impl Peer {
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        Self::over(connect(addr))
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            input: Vec::new(),
        }
    }

    pub(crate) fn online(addr: SocketAddr, id: &str) -> Self {
        let mut peer = Self::connect(addr);
        peer.greet(id, BOOT, None);
        peer.welcome();
        peer
    }

    /// Writes bytes; the gateway may have closed already.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        drop(self.stream.write_all(bytes));
    }

    pub(crate) fn say(&mut self, message: &FromDevice<'_>) {
        self.write(&encode(message));
    }

    pub(crate) fn greet(&mut self, id: &str, boot: BootId, resume: Option<SessionToken>) {
        self.greet_every(0, id, boot, resume);
    }

    pub(crate) fn greet_every(
        &mut self,
        interval_ms: u32,
        id: &str,
        boot: BootId,
        resume: Option<SessionToken>,
    ) {
        self.write(&greeting(interval_ms, id, boot, resume));
    }

    pub(crate) fn beat(&mut self, stamp_ms: u32) {
        self.say(&FromDevice::Beat(Beat {
            stamp_ms,
            load_percent: None,
            rtt_ms: None,
        }));
    }

    pub(crate) fn result(&mut self, id: CommandId, status: ResultStatus, body: impl AsRef<[u8]>) {
        self.say(&FromDevice::Result {
            id,
            status,
            body: body.as_ref(),
        });
    }

    /// Says FIN.
    pub(crate) fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// The same connection, to write on another thread.
    pub(crate) fn twin(&self) -> Self {
        Self {
            stream: self.stream.try_clone().unwrap(),
            input: Vec::new(),
        }
    }

    /// Cuts the connection without a FIN.
    pub(crate) fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }

    /// The next message; `None` when the gateway has closed.
    pub(crate) fn hear(&mut self) -> Option<Heard> {
        loop {
            if let Some((consumed, message)) = decode_to_device(&self.input).unwrap() {
                let heard = own(message);
                self.input.drain(..consumed);
                return Some(heard);
            }
            let mut buffer = [0; 16 * 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    assert!(self.input.is_empty(), "closed inside a frame");
                    return None;
                }
                Ok(bytes) => self.input.extend_from_slice(&buffer[..bytes]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("the gateway says nothing: {error}"),
            }
        }
    }

    #[track_caller]
    pub(crate) fn welcome(&mut self) -> Welcome {
        match self.hear() {
            Some(Heard::Welcome(welcome)) => welcome,
            other => panic!("{other:?} instead of WELCOME"),
        }
    }

    #[track_caller]
    pub(crate) fn command(&mut self) -> (CommandId, Vec<u8>) {
        match self.hear() {
            Some(Heard::Command { id, payload, .. }) => (id, payload),
            other => panic!("{other:?} instead of COMMAND"),
        }
    }

    /// Takes a command, answers it with JSON, and hears that the answer is stored.
    #[track_caller]
    pub(crate) fn answer(&mut self, body: &str) -> CommandId {
        let (id, _) = self.command();
        self.result(id, ResultStatus::Json, body);
        assert_eq!(self.hear(), Some(Heard::ResultAck(id)));
        id
    }

    /// Asserts that the gateway answers a beat next: it has said nothing else.
    #[track_caller]
    pub(crate) fn hears_nothing(&mut self) {
        self.beat(4711);
        assert_eq!(self.hear(), Some(Heard::BeatAck(4711)));
    }

    /// Asserts an ERROR with `code` and the end of the connection.
    #[track_caller]
    pub(crate) fn rejected(&mut self, code: ErrorCode) {
        match self.hear() {
            Some(Heard::Error(there, text)) => {
                assert_eq!(there, code, "{text}");
                assert!(!text.is_empty());
            }
            other => panic!("{other:?} instead of ERROR {}", code.name()),
        }
        assert_eq!(self.hear(), None);
    }

    /// Asserts a GOAWAY for `reason` and the end of the connection.
    #[track_caller]
    pub(crate) fn sent_away(&mut self, reason: GoAwayReason) {
        assert!(
            matches!(self.hear(), Some(Heard::GoAway(there, _)) if there == reason),
            "no GOAWAY {}",
            reason.name()
        );
        assert_eq!(self.hear(), None);
    }
}

pub(crate) fn greeting(
    interval_ms: u32,
    id: &str,
    boot: BootId,
    resume: Option<SessionToken>,
) -> Vec<u8> {
    greeting_with(Forms::FRAMED, interval_ms, id, boot, resume)
}

/// A greeting that offers `forms` of beat.
pub(crate) fn greeting_with(
    forms: Forms,
    interval_ms: u32,
    id: &str,
    boot: BootId,
    resume: Option<SessionToken>,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_preface(&mut bytes);
    let device = DeviceId::parse(id.as_bytes()).unwrap();
    let hello = Hello {
        device,
        boot,
        interval_ms,
        resume,
        forms,
    };
    encode_from_device(&FromDevice::Hello(hello), &mut bytes);
    bytes
}

pub(crate) fn encode(message: &FromDevice<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_from_device(message, &mut bytes);
    bytes
}

fn own(message: ToDevice<'_>) -> Heard {
    match message {
        ToDevice::Welcome(welcome) => Heard::Welcome(welcome),
        ToDevice::BeatAck(BeatAck { stamp_ms }) => Heard::BeatAck(stamp_ms),
        ToDevice::DeltaAck => Heard::DeltaAck,
        ToDevice::Probe => Heard::Probe,
        ToDevice::Command {
            id,
            timeout_ms,
            payload,
        } => Heard::Command {
            id,
            timeout_ms,
            payload: payload.to_vec(),
        },
        ToDevice::ResultAck { id } => Heard::ResultAck(id),
        ToDevice::GoAway(goaway) => Heard::GoAway(goaway.reason, goaway.retry_within_ms),
        ToDevice::Error { code, text } => Heard::Error(code, text.to_owned()),
    }
}
