//! Devices against a gateway made of a socket, which says what it likes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::Duration;

use super::crew::{Crew, CrewConfig};
use super::ledger::Ledger;
use super::member::Member;
use super::{Answer, Command, Device, Reply, reconnect};
use crate::proto::{
    BeatAck, BootId, CommandId, DeviceId, Forms, FromDevice, FrontDoor, Native, NativePhase,
    ResultStatus, SessionToken, Step, ToDevice, Welcome,
};

/// What the gateway hears, owned.
#[derive(Debug, PartialEq)]
enum Heard {
    Hello(BootId),
    Beat,
    Result(CommandId, ResultStatus),
    Goodbye,
    End,
}

struct Gateway(TcpListener);

struct Session {
    stream: TcpStream,
    phase: NativePhase,
    bytes: Vec<u8>,
}

impl Gateway {
    fn start() -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        (Self(listener), addr)
    }

    /// Accepts a connection and hears its HELLO.
    fn accept(&self) -> (Session, BootId) {
        let (stream, _) = self.0.accept().unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(120)))
            .unwrap();
        let mut session = Session {
            stream,
            phase: NativePhase::default(),
            bytes: Vec::new(),
        };
        match session.hear() {
            Heard::Hello(boot) => (session, boot),
            other => panic!("{other:?} before HELLO"),
        }
    }
}

impl Session {
    fn say(&mut self, message: &ToDevice<'_>) {
        let mut bytes = Vec::new();
        Native::encode(&mut self.phase, message, &mut bytes);
        self.stream.write_all(&bytes).unwrap();
    }

    fn welcome(&mut self) {
        let session = SessionToken([1; 16]);
        self.say(&ToDevice::Welcome(Welcome {
            session,
            interval_ms: 200,
            grace_ms: 60_000,
            forms: Forms::FRAMED,
            datagrams: None,
            slot_ms: None,
        }));
    }

    fn command(&mut self, id: CommandId) {
        self.say(&ToDevice::Command {
            id,
            timeout_ms: 1_000,
            payload: b"{}",
        });
    }

    fn hear(&mut self) -> Heard {
        loop {
            let (consumed, heard) = match Native::decode(&mut self.phase, &self.bytes).unwrap() {
                Step::NeedMore => {
                    let mut more = [0; 4096];
                    match self.stream.read(&mut more).unwrap() {
                        0 => return Heard::End,
                        count => self.bytes.extend_from_slice(&more[..count]),
                    }
                    continue;
                }
                Step::Skip { consumed } => (consumed, None),
                Step::Message { consumed, message } => (
                    consumed,
                    Some(match message {
                        FromDevice::Hello(hello) => Heard::Hello(hello.boot),
                        FromDevice::Beat(beat) | FromDevice::Resync { beat, .. } => {
                            let ack = ToDevice::BeatAck(BeatAck {
                                stamp_ms: beat.stamp_ms,
                            });
                            let mut bytes = Vec::new();
                            Native::encode(&mut NativePhase::Open, &ack, &mut bytes);
                            // The device may have gone meanwhile.
                            drop(self.stream.write_all(&bytes));
                            Heard::Beat
                        }
                        FromDevice::Result { id, status, .. } => Heard::Result(id, status),
                        FromDevice::GoAway(_) => Heard::Goodbye,
                    }),
                ),
            };
            self.bytes.drain(..consumed);
            if let Some(heard) = heard {
                return heard;
            }
        }
    }

    /// Hears the result of `id`. Beats may come before it, and repetitions of the results in `earlier`,
    /// which were not acknowledged.
    fn hear_result(&mut self, id: CommandId, earlier: &[CommandId]) {
        loop {
            match self.hear() {
                Heard::Beat => {}
                Heard::Result(heard, ResultStatus::Json) if heard == id => return,
                Heard::Result(heard, ResultStatus::Json) if earlier.contains(&heard) => {}
                other => panic!("{other:?} instead of the result of {id}"),
            }
        }
    }
}

const A: CommandId = CommandId([0xa; 16]);
const B: CommandId = CommandId([0xb; 16]);

#[test]
fn a_result_that_is_ready_between_hello_and_welcome_waits_for_the_welcome() {
    let (gateway, addr) = Gateway::start();
    let (begun, has_begun) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel();
    let device = Device::builder(addr, "a")
        .reconnect_cap_ms(1)
        .start(move |_| {
            begun.send(()).unwrap();
            may_go_on.recv().unwrap();
            Answer::json("1")
        });
    let device = device.unwrap();
    let (mut session, boot) = gateway.accept();
    session.welcome();
    session.command(A);
    session.command(B);
    has_begun.recv().unwrap();
    drop(session);

    let (mut session, same_boot) = gateway.accept();
    assert_eq!(boot, same_boot);
    go_on.send(()).unwrap();
    // The worker takes the second command when the first is answered.
    has_begun.recv().unwrap();
    session.welcome();
    session.hear_result(A, &[]);
    go_on.send(()).unwrap();
    session.hear_result(B, &[A]);
    device.stop().unwrap();
}

#[test]
fn stopping_finishes_the_command_that_runs_and_refuses_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("a.journal");
    let (gateway, addr) = Gateway::start();
    let (begun, has_begun) = mpsc::channel();
    let (flag, stopping) = mpsc::channel::<Arc<AtomicBool>>();
    let device = Device::builder(addr, "a")
        .journal(&journal)
        .start(move |command| {
            begun.send(command.id).unwrap();
            let stopping = stopping.recv().unwrap();
            while !stopping.load(Relaxed) {
                std::thread::yield_now();
            }
            Answer::json("1")
        });
    let device = device.unwrap();
    let (mut session, boot) = gateway.accept();
    session.welcome();
    session.command(A);
    session.command(B);
    assert_eq!(has_begun.recv(), Ok(A));
    flag.send(Arc::clone(&device.worker.ending)).unwrap();
    device.stop().unwrap();
    has_begun.recv().unwrap_err();
    let mut heard: Vec<Heard> =
        std::iter::from_fn(|| Some(session.hear()).filter(|heard| *heard != Heard::End))
            .filter(|heard| *heard != Heard::Beat)
            .collect();
    // What is not acknowledged is repeated now and then.
    heard.dedup();
    let refused = Heard::Result(B, ResultStatus::Refused);
    assert_eq!(
        heard,
        [
            Heard::Result(A, ResultStatus::Json),
            refused,
            Heard::Goodbye
        ]
    );

    // What was refused is new to the next process, what was done is not.
    let device = Device::builder(addr, "a")
        .journal(&journal)
        .start(|_| Answer::json("2"))
        .unwrap();
    let (mut session, same_boot) = gateway.accept();
    assert_eq!(boot, same_boot);
    session.welcome();
    session.hear_result(A, &[]);
    session.command(B);
    session.hear_result(B, &[A]);
    device.stop().unwrap();
}

#[test]
fn a_crew_whose_mailbox_is_full_says_goodbye_too() {
    let (gateway, addr) = Gateway::start();
    let (begun, has_begun) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel();
    let begun = parking_lot::Mutex::new((begun, may_go_on));
    // On the reactor's thread, so meanwhile nobody reads the mailbox.
    let execute = move |_: Command, reply: Reply| {
        let (begun, may_go_on) = &*begun.lock();
        begun.send(()).unwrap();
        may_go_on.recv().unwrap();
        reply.answer(Answer::json("1"));
    };
    let config = CrewConfig {
        gateways: vec![addr],
        shards: 1,
        ramp_per_s: u32::MAX,
        reconnect: reconnect(1),
        ends_with_members: false,
        simulates_load: false,
        datagrams: false,
    };
    let id = DeviceId::parse(b"a").unwrap();
    let member = Member::new(id, 0, Ledger::in_memory(BootId([1; 16]), 16), Forms::FRAMED);
    let crew = Crew::start(config, vec![member], Arc::new(execute)).unwrap();
    let (mut session, _) = gateway.accept();
    session.welcome();
    session.command(A);
    has_begun.recv().unwrap();
    crew.fill_mailboxes();
    crew.stop();
    go_on.send(()).unwrap();
    session.hear_result(A, &[]);
    let said: Vec<Heard> = std::iter::from_fn(|| Some(session.hear()))
        .take_while(|heard| *heard != Heard::End)
        .filter(|heard| *heard != Heard::Beat)
        .collect();
    assert_eq!(said, [Heard::Goodbye]);
    drop(session);
    crew.end().unwrap();
}

#[test]
fn a_device_whose_gateway_cannot_be_reached_goes_to_its_fallback() {
    let (gone, gone_addr) = Gateway::start();
    drop(gone);
    let (gateway, addr) = Gateway::start();
    let device = Device::builder(gone_addr, "a")
        .fallback(addr)
        .reconnect_cap_ms(1)
        .start(|_| Answer::json("1"))
        .unwrap();
    let (mut session, _) = gateway.accept();
    session.welcome();
    session.command(A);
    session.hear_result(A, &[]);
    drop(session);
    device.stop().unwrap();
}
