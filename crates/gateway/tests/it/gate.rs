//! A gateway by hand, for tests of devices.

use std::io::Read;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};

use gateway::proto::{
    Beat, BootId, CommandId, Forms, FromDevice, FrontDoor, Native, NativePhase, ResultStatus,
    SessionToken, Step, ToDevice, Welcome,
};

use crate::rig::{PATIENCE, until};

pub(crate) struct Gate {
    listener: TcpListener,
    stream: Option<TcpStream>,
    phase: NativePhase,
    input: Vec<u8>,
    /// What the last resync said.
    pub(crate) interval_ms: Option<u32>,
}

/// An owned message of a device.
#[derive(Debug, PartialEq)]
pub(crate) enum Said {
    Hello {
        device: String,
        boot: BootId,
        resume: Option<SessionToken>,
    },
    Beat(Beat),
    Result {
        id: CommandId,
        status: ResultStatus,
        body: Vec<u8>,
    },
    GoAway,
}

impl Gate {
    pub(crate) fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self {
            listener,
            stream: None,
            phase: NativePhase::Preface,
            input: Vec::new(),
            interval_ms: None,
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Closes the connection and takes the next one. Returns its HELLO.
    pub(crate) fn accept(&mut self) -> Said {
        self.stream = None;
        until("the device connects", || match self.listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                self.stream = Some(stream);
                true
            }
            Err(_) => false,
        });
        (self.phase, self.input) = (NativePhase::Preface, Vec::new());
        self.hear().unwrap()
    }

    pub(crate) fn welcome(&mut self, session: SessionToken, interval_ms: u32) {
        self.welcome_with(Forms::FRAMED, session, interval_ms);
    }

    /// A WELCOME with a slot to come back in.
    pub(crate) fn welcome_in_slot(&mut self, session: SessionToken, slot_ms: u32) {
        self.say(&ToDevice::Welcome(Welcome {
            session,
            interval_ms: 3_600_000,
            grace_ms: 10_000,
            forms: Forms::FRAMED,
            datagrams: None,
            slot_ms: Some(slot_ms),
        }));
    }

    /// A WELCOME that grants `forms` of beat.
    pub(crate) fn welcome_with(&mut self, forms: Forms, session: SessionToken, interval_ms: u32) {
        self.say(&ToDevice::Welcome(Welcome {
            session,
            interval_ms,
            grace_ms: 10_000,
            forms,
            datagrams: None,
            slot_ms: None,
        }));
    }

    pub(crate) fn say(&mut self, message: &ToDevice<'_>) {
        let mut bytes = Vec::new();
        Native::encode(&mut self.phase, message, &mut bytes);
        self.stream.as_ref().unwrap().write_all(&bytes).unwrap();
    }

    pub(crate) fn command(&mut self, id: CommandId, payload: &str) {
        self.say(&ToDevice::Command {
            id,
            timeout_ms: 1_000,
            payload: payload.as_bytes(),
        });
    }

    /// The next message; `None` when the device has closed.
    pub(crate) fn hear(&mut self) -> Option<Said> {
        loop {
            match Native::decode(&mut self.phase, &self.input).unwrap() {
                Step::NeedMore => {
                    let mut buffer = [0; 16 * 1024];
                    let bytes = self.stream.as_ref().unwrap().read(&mut buffer).unwrap();
                    if bytes == 0 {
                        return None;
                    }
                    self.input.extend_from_slice(&buffer[..bytes]);
                }
                Step::Skip { consumed } => drop(self.input.drain(..consumed)),
                Step::Message { consumed, message } => {
                    if let FromDevice::Resync { interval_ms, .. } = message {
                        self.interval_ms = Some(interval_ms);
                    }
                    let said = own(message);
                    self.input.drain(..consumed);
                    return Some(said);
                }
            }
        }
    }

    /// The next result; beats are answered on the way.
    #[track_caller]
    pub(crate) fn result(&mut self) -> (CommandId, ResultStatus, Vec<u8>) {
        loop {
            match self.hear() {
                Some(Said::Result { id, status, body }) => return (id, status, body),
                Some(Said::Beat(beat)) => self.say(&ToDevice::BeatAck(beat.ack())),
                other => panic!("{other:?} instead of RESULT"),
            }
        }
    }
}

fn own(message: FromDevice<'_>) -> Said {
    match message {
        FromDevice::Hello(hello) => Said::Hello {
            device: hello.device.as_str().to_owned(),
            boot: hello.boot,
            resume: hello.resume,
        },
        FromDevice::Beat(beat) | FromDevice::Resync { beat, .. } => Said::Beat(beat),
        FromDevice::Result { id, status, body } => Said::Result {
            id,
            status,
            body: body.to_vec(),
        },
        FromDevice::GoAway(_) => Said::GoAway,
    }
}
