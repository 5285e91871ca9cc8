//! The data plane: what one reactor shard does with its device connections.
//!
//! A connection greets (preface and HELLO), perhaps knocks (its device is connected already, and
//! that connection is being probed), is open, and ends. One timer bounds the greeting and then
//! watches the beats; it is moved lazily, once an interval instead of once a beat.

mod entrance;
mod suspicion;

use std::collections::HashMap;
use std::sync::Arc;

use conn_reactor::{CloseReason, Handler, Io, Opened, TimerKey, Token};
use tokio::sync::oneshot;

use super::Shared;
use super::device::{Beaten, Device, Session};
use super::drain::Order;
use super::strangers::Heard;
use super::table::{Delivery, NotSent, OpenClaim, Reply};
use crate::proto::{
    Beat, BeatAck, BootId, CommandId, ErrorCode, Forms, FromDevice, FrontDoor, GoAway,
    GoAwayReason, SessionToken, Step, ToDevice, Violation,
};

/// How long a closing connection may take to read the last words.
const LAST_WORDS_MS: u64 = 1_000;

/// A deadline that is noticed so late says that the process was stopped or starved for a while.
const STALL_US: u64 = 100_000;

/// How long a shard that is behind hears what waits in its sockets before it calls a device gone, or a holder dead.
const CATCH_UP_MS: u64 = 1_000;

/// What the rest of the gateway says to a shard.
pub(crate) enum ShardMessage {
    /// Send a command on the connection of `session`.
    Command {
        session: Session,
        id: CommandId,
        timeout_ms: u32,
        payload: Arc<[u8]>,
    },
    /// A command's outcome is durable.
    ResultAck { session: Session, id: CommandId },
    /// Find out whether the holder still lives, for a connection that knocks.
    Probe { holder: Session, asker: Asker },
    /// The answer to a probe.
    Probed {
        knocker: Token,
        holder_epoch: u64,
        alive: bool,
    },
    /// Another connection took the session over.
    Replaced { session: Session },
    /// A beat came in a datagram from a device that was a suspect.
    Trusted { session: Session },
    /// A step of the gateway's end.
    Order(Order),
    /// Say what was counted.
    Report(oneshot::Sender<conn_reactor::Stats>),
}

/// A connection that waits for the outcome of a probe.
#[derive(Clone, Copy)]
pub(crate) struct Asker {
    shard: usize,
    token: Token,
}

/// A result that no waiting command took.
pub(crate) struct Stray {
    pub(crate) device: Arc<Device>,
    pub(crate) id: CommandId,
    pub(crate) result: Reply,
    pub(crate) claim: OpenClaim,
}

/// One shard's side of the gateway, for one kind of front door.
pub(crate) struct ShardHandler<P: FrontDoor> {
    shared: Arc<Shared>,
    /// Frames to write at the end of a callback, so that one read leads to at most one write.
    out: Vec<u8>,
    /// As many socket events as one turn fetches.
    event_batch: u64,
    /// Socket events until the end of the last turn.
    events_before: u64,
    behind_until_ms: u64,
    /// The connections that were asked for a sign of life.
    probes: HashMap<Token, Probe>,
    obeyed: Order,
    door: std::marker::PhantomData<P>,
}

pub(crate) struct Conn<P: FrontDoor> {
    door: P::State,
    phase: Phase,
    /// The greeting has to be over, or a beat to have come.
    timer: TimerKey,
}

enum Phase {
    Greeting,
    Knocking(Box<Knocking>),
    Open {
        device: Arc<Device>,
        /// When the last whole message arrived: the low bits of the shard's milliseconds, which come round in 49 days.
        heard_ms: u32,
    },
    /// Last words are being written; whatever still arrives is dropped.
    Closing,
}

/// An owned HELLO that waits for a probe.
struct Knocking {
    device: Box<str>,
    boot: BootId,
    interval_ms: u32,
    resume: Option<SessionToken>,
    forms: Forms,
}

/// A question for a sign of life.
struct Probe {
    asker: Asker,
    holder_epoch: u64,
    /// By when it has to be answered.
    timer: TimerKey,
}

/// As large as a token: every connection has one.
#[derive(Clone, Copy)]
pub(crate) enum Timer {
    /// A probe of the connection has to be answered, if it has one under this timer's key; else the greeting has to be
    /// over, or a beat to have come.
    Of(Token),
    /// The last goodbye has to be read.
    Stop,
}

const _: () = assert!(size_of::<Timer>() == size_of::<Token>());

type ShardIo<P> = Io<ShardHandler<P>>;

impl<P: FrontDoor> ShardHandler<P> {
    pub(crate) fn new(shared: Arc<Shared>, event_batch: usize) -> Self {
        Self {
            shared,
            out: Vec::new(),
            event_batch: event_batch as u64,
            events_before: 0,
            behind_until_ms: 0,
            probes: HashMap::new(),
            obeyed: Order::Serve,
            door: std::marker::PhantomData,
        }
    }

    fn say(&mut self, io: &mut ShardIo<P>, token: Token, message: &ToDevice<'_>) {
        if let Some(conn) = io.state(token) {
            P::encode(&mut conn.door, message, &mut self.out);
        }
    }

    /// Writes what was said. A device that does not read until its queue is full is closed.
    fn flush(&mut self, io: &mut ShardIo<P>, token: Token) {
        if self.out.is_empty() {
            return;
        }
        let written = io.write(token, &self.out);
        self.out.clear();
        if written.is_err_and(|error| error.is_full()) {
            self.shared.counters.rejected(ErrorCode::SlowReader);
            io.close(
                token,
                CloseReason::Local(u16::from(ErrorCode::SlowReader.byte())),
            );
        }
    }

    /// Says the last words and closes.
    fn part(&mut self, io: &mut ShardIo<P>, token: Token, words: &ToDevice<'_>, code: u8) {
        self.say(io, token, words);
        if let Some(conn) = io.state(token) {
            conn.phase = Phase::Closing;
        }
        self.flush(io, token);
        io.close_after_flush(token, CloseReason::Local(u16::from(code)), LAST_WORDS_MS);
    }

    fn reject(&mut self, io: &mut ShardIo<P>, token: Token, violation: Violation) {
        self.shared.counters.rejected(violation.code());
        tracing::debug!(?token, %violation, "connection rejected");
        self.leave(io, token, false);
        let words = ToDevice::Error {
            code: violation.code(),
            text: violation.detail(),
        };
        self.part(io, token, &words, violation.code().byte());
    }

    /// Ends the session in the directory, if this connection is an open one.
    fn leave(&mut self, io: &mut ShardIo<P>, token: Token, is_gone: bool) {
        let Some(conn) = io.state(token) else { return };
        if let Phase::Open { device, .. } = std::mem::replace(&mut conn.phase, Phase::Closing) {
            self.end_session(io, token, &device, is_gone);
        }
    }

    fn end_session(
        &mut self,
        io: &mut ShardIo<P>,
        token: Token,
        device: &Arc<Device>,
        is_gone: bool,
    ) {
        let directory = &self.shared.directory;
        if directory.leave(device, io.shard(), token, is_gone) {
            self.shared.counters.trusted_again();
        }
        if let Some(datagrams) = &self.shared.datagrams {
            datagrams.dismiss(io.shard(), token);
        }
        self.answer_probe_of(io, token, false);
    }

    fn on_message(&mut self, io: &mut ShardIo<P>, token: Token, message: FromDevice<'_>) {
        let now_ms = io.now_ms();
        let Some(conn) = io.state(token) else { return };
        match (&mut conn.phase, message) {
            (Phase::Greeting, FromDevice::Hello(hello)) => self.on_hello(io, token, &hello),
            (Phase::Open { device, heard_ms }, message)
                if !matches!(message, FromDevice::Hello(_)) =>
            {
                *heard_ms = now_ms as u32;
                let device = Arc::clone(device);
                self.answer_probe_of(io, token, true);
                match self.session_of(io, token, &device) {
                    Some(session) => {
                        self.on_open_message(io, token, &device, session.epoch, message);
                    }
                    // The word of it waits in the mailbox.
                    None => self.replaced(io, token),
                }
            }
            (Phase::Closing, _) => {}
            _ => self.reject(
                io,
                token,
                Violation::new(ErrorCode::Unexpected, "this message may not be sent now"),
            ),
        }
    }

    /// The session of an open connection, unless another one speaks for its device by now.
    fn session_of(&self, io: &ShardIo<P>, token: Token, device: &Device) -> Option<Session> {
        let session = device.session();
        session.filter(|session| session.is_of(io.shard(), token))
    }

    fn on_open_message(
        &mut self,
        io: &mut ShardIo<P>,
        token: Token,
        device: &Arc<Device>,
        epoch: u64,
        message: FromDevice<'_>,
    ) {
        match message {
            FromDevice::Beat(beat) => self.on_beat(io, token, device, epoch, beat, None),
            FromDevice::Resync { beat, interval_ms } => {
                self.on_beat(io, token, device, epoch, beat, Some(interval_ms));
            }
            FromDevice::Result { id, status, body } => {
                match self.shared.table.deliver(id, device, epoch, status, body) {
                    Delivery::Delivered => {}
                    Delivery::Unknown if self.shared.store.is_shared() => {
                        self.shared.strangers.hear(Heard {
                            device: Arc::clone(device),
                            epoch,
                            id,
                            status,
                            body: body.to_vec(),
                        });
                    }
                    Delivery::Unknown => self.acknowledge(device, epoch, id),
                    Delivery::Settle(claim) => {
                        let result = Reply::Result {
                            epoch,
                            status,
                            body: body.to_vec(),
                        };
                        let device = Arc::clone(device);
                        self.shared.settle(Stray {
                            device,
                            id,
                            result,
                            claim,
                        });
                    }
                    Delivery::Foreign => {
                        let why = "the command belongs to another device";
                        self.reject(io, token, Violation::new(ErrorCode::Unexpected, why));
                    }
                }
            }
            FromDevice::GoAway(_) => {
                self.leave(io, token, false);
                io.close(token, CloseReason::PeerClosed);
            }
            FromDevice::Hello(_) => unreachable!("on_message lets no HELLO through"),
        }
    }

    fn on_beat(
        &mut self,
        io: &mut ShardIo<P>,
        token: Token,
        device: &Device,
        epoch: u64,
        beat: Beat,
        interval_ms: Option<u32>,
    ) {
        match self.shared.beat(device, epoch, beat, interval_ms) {
            Beaten::Trusted | Beaten::Repaced => self.look_again(io, token),
            Beaten::Heard | Beaten::SessionOver => {}
        }
        let ack = BeatAck {
            stamp_ms: beat.stamp_ms,
        };
        self.say(io, token, &ToDevice::BeatAck(ack));
    }

    /// Lets the device forget a command. Goes through the mailbox, so that it stays behind a copy of
    /// the command that waits there: the other way round the device would execute that copy.
    fn acknowledge(&self, device: &Device, epoch: u64, id: CommandId) {
        if let Some(session) = device.session().filter(|session| session.epoch == epoch) {
            self.send(session.shard(), ShardMessage::ResultAck { session, id });
        }
    }

    /// Whether what a device said in time may still wait in its socket: events came as many as one turn
    /// fetches, or this shard stood still a moment ago.
    fn is_behind(&mut self, io: &ShardIo<P>) -> bool {
        let (stats, now_ms) = (io.stats(), io.now_ms());
        let is_full = stats.events - self.events_before >= self.event_batch;
        if is_full || stats.timer_lateness.last_us() > STALL_US {
            self.behind_until_ms = now_ms + CATCH_UP_MS;
        }
        now_ms < self.behind_until_ms
    }

    fn on_deadline(&mut self, io: &mut ShardIo<P>, token: Token) {
        let is_behind = self.is_behind(io);
        let Some(conn) = io.state(token) else { return };
        match &conn.phase {
            Phase::Open { device, heard_ms } => {
                let (device, heard_ms) = (Arc::clone(device), *heard_ms);
                self.on_silence(io, token, &device, heard_ms, is_behind);
            }
            Phase::Greeting | Phase::Knocking(_) => self.reject(
                io,
                token,
                Violation::new(ErrorCode::HelloTimeout, "no whole HELLO arrived in time"),
            ),
            Phase::Closing => {}
        }
    }

    /// Sends to a shard. A full mailbox loses the message: whoever waits for it runs into its own
    /// deadline.
    fn send(&self, shard: usize, message: ShardMessage) {
        drop(self.shared.send(shard, message));
    }

    fn on_command(
        &mut self,
        io: &mut ShardIo<P>,
        session: Session,
        command: &ToDevice<'_>,
        id: CommandId,
    ) {
        let why = if Self::is_open(io, session.token) {
            self.say(io, session.token, command);
            let written = io.write(session.token, &self.out);
            self.out.clear();
            match written {
                Ok(()) => return,
                Err(error) if error.is_full() => NotSent::QueueFull,
                // At most a part of the command went out, and its connection is closing.
                Err(_) => NotSent::SessionOver,
            }
        } else {
            NotSent::SessionOver
        };
        self.shared.table.not_sent(id, session.epoch, why);
    }

    /// Another connection speaks for the device of this one.
    fn replaced(&mut self, io: &mut ShardIo<P>, token: Token) {
        let words = GoAway {
            reason: GoAwayReason::Replaced,
            retry_within_ms: 0,
        };
        self.leave(io, token, false);
        let code = GoAwayReason::Replaced.byte();
        self.part(io, token, &ToDevice::GoAway(words), code);
    }

    /// Whether the connection has a session, which is then the one that was told with the token: a connection has but one.
    fn is_open(io: &mut ShardIo<P>, token: Token) -> bool {
        let phase = io.state(token).map(|conn| &conn.phase);
        matches!(phase, Some(Phase::Open { .. }))
    }

    fn obey(&mut self, io: &mut ShardIo<P>, order: Order) {
        if order <= self.obeyed {
            return;
        }
        self.obeyed = order;
        io.stop_accepting();
        if order == Order::Stop {
            self.say_goodbye(io);
        }
    }

    /// Parts from every device, and stops when the last one has gone or its time is up.
    fn say_goodbye(&mut self, io: &mut ShardIo<P>) {
        // Spread the reconnects over time: every device has lost its gateway in the same moment.
        let words = GoAway {
            reason: GoAwayReason::Draining,
            retry_within_ms: self.shared.return_within_ms(io.connections()),
        };
        let code = GoAwayReason::Draining.byte();
        for token in io.tokens() {
            self.leave(io, token, false);
            self.part(io, token, &ToDevice::GoAway(words), code);
        }
        io.set_timer(io.now_ms() + LAST_WORDS_MS, Timer::Stop);
        self.stop_if_alone(io);
    }

    fn stop_if_alone(&self, io: &mut ShardIo<P>) {
        if self.obeyed == Order::Stop && io.connections() == 0 {
            io.stop();
        }
    }
}

impl<P: FrontDoor> Handler for ShardHandler<P> {
    type Conn = Conn<P>;
    type Timer = Timer;
    type Message = ShardMessage;

    fn opened(&mut self, io: &mut ShardIo<P>, token: Token, _opened: Opened) -> Option<Conn<P>> {
        let hello_by_ms = io.now_ms() + self.shared.config.devices.hello_timeout_ms;
        let timer = io.set_timer(hello_by_ms, Timer::Of(token));
        Some(Conn {
            door: P::State::default(),
            phase: Phase::Greeting,
            timer,
        })
    }

    fn data(&mut self, io: &mut ShardIo<P>, token: Token, input: &[u8]) -> usize {
        debug_assert!(self.out.is_empty(), "words for another connection");
        let mut consumed = 0;
        while let Some(conn) = io.state(token) {
            if matches!(conn.phase, Phase::Closing) {
                consumed = input.len();
                break;
            }
            match P::decode(&mut conn.door, &input[consumed..]) {
                Ok(Step::NeedMore) => break,
                Ok(Step::Skip { consumed: skipped }) => consumed += skipped,
                Ok(Step::Message {
                    consumed: bytes,
                    message,
                }) => {
                    consumed += bytes;
                    let is_beat =
                        matches!(message, FromDevice::Beat(_) | FromDevice::Resync { .. });
                    if is_beat && matches!(conn.phase, Phase::Open { .. }) {
                        self.shared.counters.beat_bytes(bytes);
                    }
                    self.on_message(io, token, message);
                }
                Err(violation) => self.reject(io, token, violation),
            }
        }
        self.flush(io, token);
        consumed
    }

    fn closed(&mut self, io: &mut ShardIo<P>, token: Token, conn: Conn<P>, _why: CloseReason) {
        io.cancel_timer(conn.timer);
        if let Phase::Open { device, .. } = conn.phase {
            self.end_session(io, token, &device, false);
        }
        self.stop_if_alone(io);
    }

    fn connect_failed(&mut self, _io: &mut ShardIo<P>, _tag: u64, _error: std::io::Error) {}

    fn turn_ended(&mut self, io: &mut ShardIo<P>) {
        self.events_before = io.stats().events;
        self.obey(io, self.shared.overflow.of(io.shard()));
    }

    fn timer(&mut self, io: &mut ShardIo<P>, key: TimerKey, timer: Timer) {
        debug_assert!(self.out.is_empty(), "words for another connection");
        match timer {
            Timer::Of(token) => match self.probes.get(&token) {
                Some(probe) if probe.timer == key => self.on_probe_deadline(io, token),
                _ => self.on_deadline(io, token),
            },
            Timer::Stop => io.stop(),
        }
    }

    fn message(&mut self, io: &mut ShardIo<P>, message: ShardMessage) {
        debug_assert!(self.out.is_empty(), "words for another connection");
        match message {
            ShardMessage::Command {
                session,
                id,
                timeout_ms,
                payload,
            } => {
                let command = ToDevice::Command {
                    id,
                    timeout_ms,
                    payload: &payload,
                };
                self.on_command(io, session, &command, id);
            }
            ShardMessage::ResultAck { session, id } => {
                if Self::is_open(io, session.token) {
                    self.say(io, session.token, &ToDevice::ResultAck { id });
                    self.flush(io, session.token);
                }
            }
            ShardMessage::Probe { holder, asker } => self.on_probe(io, holder, asker),
            ShardMessage::Probed {
                knocker,
                holder_epoch,
                alive,
            } => {
                self.on_probed(io, knocker, holder_epoch, alive);
            }
            ShardMessage::Replaced { session } => {
                if Self::is_open(io, session.token) {
                    self.replaced(io, session.token);
                }
            }
            ShardMessage::Trusted { session } => {
                if Self::is_open(io, session.token) {
                    self.look_again(io, session.token);
                }
            }
            ShardMessage::Order(order) => self.obey(io, order),
            // Whoever asked may have stopped listening.
            ShardMessage::Report(reply) => drop(reply.send(io.stats().clone())),
        }
    }
}
