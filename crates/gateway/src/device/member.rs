//! One device of a crew, and what a reactor shard does for its members.

use std::sync::Arc;
use std::time::Instant;

use circuit::Backoff;
use conn_reactor::{CloseReason, Handler, Io, Opened, TimerKey, Token};

use super::crew::{CrewConfig, CrewCounters, Execute};
use super::ledger::{Admission, Answer, Ledger};
use super::random_u64;
use super::reply::{Command, Outbox, Reply};
use super::session::{Event, Session};
use crate::proto::{
    CommandId, DeviceId, ErrorCode, Forms, FromDevice, GoAway, GoAwayReason, ResultStatus,
    encode_from_device,
};

/// Every so many beats a device repeats the results that the gateway has not acknowledged.
const REPEAT_BEATS: u32 = 4;

/// A gateway that has not answered HELLO by then is given up; its own probe of an older connection
/// takes a second or so.
const WELCOME_WITHIN_MS: u64 = 10_000;

/// How many bytes of results are repeated at one time, give or take a result. More than the
/// connection may queue would close it, again after each reconnect.
const REPEAT_BYTES_MAX: usize = 1 << 20;

/// One device: what it says, what it remembers, and its connection.
pub(crate) struct Member {
    device: Arc<str>,
    session: Session,
    ledger: Ledger,
    backoff: Backoff,
    connection: Option<Token>,
    timer: Option<TimerKey>,
    beats: u32,
    /// When the oldest beat was sent whose answer is awaited.
    beat_sent: Option<Instant>,
    /// The gateway said within which time to come back.
    return_within_ms: Option<u32>,
    retired: bool,
}

impl Member {
    pub(crate) fn new(
        id: DeviceId<'_>,
        interval_ms: u32,
        ledger: Ledger,
        delta_beats: bool,
    ) -> Self {
        let forms = if delta_beats {
            Forms::DELTA
        } else {
            Forms::FRAMED
        };
        Self {
            device: id.as_str().into(),
            session: Session::new(id, ledger.boot(), interval_ms, forms),
            ledger,
            backoff: Backoff::new(),
            connection: None,
            timer: None,
            beats: 0,
            beat_sent: None,
            return_within_ms: None,
            retired: false,
        }
    }
}

/// What others say to a shard of members.
pub(crate) enum CrewMessage {
    /// Begin to connect; answers come through this outbox.
    Start(Outbox),
    /// The outbox has answers.
    Answers,
    /// Say goodbye and end.
    Stop,
}

/// What a member's one timer is for.
#[derive(Clone, Copy)]
pub(crate) enum Alarm {
    Connect(usize),
    /// The gateway has to have said something.
    Welcome(usize),
    Beat(usize),
}

/// One shard's members.
pub(crate) struct Members {
    config: Arc<CrewConfig>,
    counters: Arc<CrewCounters>,
    execute: Execute,
    members: Vec<Member>,
    outbox: Option<Outbox>,
    out: Vec<u8>,
    active: usize,
    stopping: bool,
}

type MembersIo = Io<Members>;

impl Members {
    pub(crate) fn new(
        config: Arc<CrewConfig>,
        counters: Arc<CrewCounters>,
        execute: Execute,
        members: Vec<Member>,
    ) -> Self {
        let active = members.len();
        Self {
            config,
            counters,
            execute,
            members,
            outbox: None,
            out: Vec::new(),
            active,
            stopping: false,
        }
    }

    fn start(&mut self, io: &mut MembersIo) {
        // Shards connect side by side, so each one takes its share of the rate.
        let per_s = u64::from(self.config.ramp_per_s)
            .div_ceil(self.config.shards as u64)
            .max(1);
        for member in 0..self.members.len() {
            self.set_alarm(io, Alarm::Connect(member), member as u64 * 1_000 / per_s);
        }
    }

    fn set_alarm(&mut self, io: &mut MembersIo, alarm: Alarm, delay_ms: u64) {
        let (Alarm::Connect(index) | Alarm::Welcome(index) | Alarm::Beat(index)) = alarm;
        let timer = io.set_timer(io.deadline_after(delay_ms), alarm);
        if let Some(old) = self.members[index].timer.replace(timer) {
            io.cancel_timer(old);
        }
    }

    fn connect(&mut self, io: &mut MembersIo, index: usize) {
        if let Err(error) = io.connect(self.config.gateway, None, index as u64) {
            tracing::debug!(%error, "a connection could not be started");
            self.come_back(io, index);
        }
    }

    /// Sets the alarm for the next try to connect.
    fn come_back(&mut self, io: &mut MembersIo, index: usize) {
        let member = &mut self.members[index];
        if self.stopping || member.retired {
            return;
        }
        let delay_ms = match member.return_within_ms.take() {
            Some(within_ms) => random_u64() % (u64::from(within_ms) + 1),
            None => member
                .backoff
                .next_delay_ms(&self.config.reconnect, random_u64()),
        };
        self.counters.reconnecting(delay_ms);
        self.set_alarm(io, Alarm::Connect(index), delay_ms);
    }

    fn flush(&mut self, io: &mut MembersIo, index: usize) {
        let Some(token) = self.members[index]
            .connection
            .filter(|_| !self.out.is_empty())
        else {
            return self.out.clear();
        };
        if io
            .write(token, &self.out)
            .is_err_and(|error| error.is_full())
        {
            io.close(
                token,
                CloseReason::Local(u16::from(ErrorCode::SlowReader.byte())),
            );
        }
        self.out.clear();
    }

    fn beat(&mut self, io: &mut MembersIo, index: usize) {
        let now_ms = io.now_ms();
        let load = self.load_of(index);
        let member = &mut self.members[index];
        let (Some(interval_ms), Some(token)) = (member.session.interval_ms(), member.connection)
        else {
            return;
        };
        if member.session.is_deserted(now_ms) {
            return io.close(token, CloseReason::TimedOut);
        }
        member.beats = member.beats.wrapping_add(1);
        // The stamp wraps every 49 days; it only has to tell two beats apart.
        member.session.beat(now_ms as u32, load, &mut self.out);
        // Acknowledgements come in order, so the next one is that of the oldest beat without.
        member.beat_sent.get_or_insert_with(Instant::now);
        if member.beats.is_multiple_of(REPEAT_BEATS) {
            put_results(&member.ledger, &mut self.out);
        }
        self.counters.beat();
        self.flush(io, index);
        self.set_alarm(io, Alarm::Beat(index), interval_ms.into());
    }

    fn load_of(&self, index: usize) -> Option<u8> {
        if self.config.simulates_load {
            let beats = self.members[index].beats as usize;
            // Up and down by 2 a beat, each device from another place.
            let place = (index * 37 + beats * 2) % 200;
            return Some(place.min(200 - place) as u8);
        }
        self.counters.load()
    }

    fn on_event(&mut self, io: &mut MembersIo, index: usize, event: Event<'_>) {
        match event {
            Event::Welcome => self.on_welcome(io, index),
            Event::Probe => self.beat(io, index),
            Event::BeatAck => {
                let member = &mut self.members[index];
                if let Some(sent) = member.beat_sent.take() {
                    let rtt = sent.elapsed();
                    member
                        .session
                        .set_rtt_ms(u16::try_from(rtt.as_millis()).unwrap_or(u16::MAX));
                    self.counters.round_trip(rtt);
                }
            }
            Event::Command {
                id,
                timeout_ms,
                payload,
            } => {
                self.on_command(index, id, timeout_ms, payload);
            }
            Event::ResultAck { id } => self.members[index].ledger.forget(id),
            Event::GoAway(goaway) => self.on_goaway(io, index, goaway),
            Event::Refused { code, text } => self.on_refusal(io, index, code, text),
        }
    }

    fn on_welcome(&mut self, io: &mut MembersIo, index: usize) {
        let member = &mut self.members[index];
        member.backoff.reset();
        put_results(&member.ledger, &mut self.out);
        let interval_ms = u64::from(member.session.interval_ms().unwrap_or(1)).max(1);
        self.counters.connected_one();
        // The first beat falls anywhere into the interval, so that a crowd does not beat as one.
        self.set_alarm(io, Alarm::Beat(index), random_u64() % interval_ms);
    }

    fn on_command(&mut self, index: usize, id: CommandId, timeout_ms: u32, payload: &[u8]) {
        self.counters.command_received();
        let member = &mut self.members[index];
        match member.ledger.admit(id) {
            Admission::Execute => {
                self.counters.command_executed();
                let outbox = self
                    .outbox
                    .clone()
                    .expect("members connect only after Start");
                let payload = payload.to_vec();
                let command = Command {
                    device: Arc::clone(&member.device),
                    id,
                    payload,
                    timeout_ms,
                };
                (self.execute)(command, Reply::new(outbox, index, id));
            }
            Admission::Running => self.counters.duplicate_ignored(),
            Admission::Repeat(answer) => {
                self.counters.duplicate_ignored();
                put_result(id, &answer, &mut self.out);
            }
            Admission::Refuse => put_result(id, &Answer::refused(), &mut self.out),
        }
    }

    fn on_goaway(&mut self, io: &mut MembersIo, index: usize, goaway: GoAway) {
        match goaway.reason {
            GoAwayReason::Gone => self.counters.false_gone(),
            GoAwayReason::Replaced => {
                self.retire(index, "another session took the device's id over");
            }
            _ => {}
        }
        if goaway.retry_within_ms > 0 {
            self.members[index].return_within_ms = Some(goaway.retry_within_ms);
        }
        self.hang_up(io, index);
    }

    fn on_refusal(&mut self, io: &mut MembersIo, index: usize, code: ErrorCode, text: &str) {
        tracing::warn!(
            device = &*self.members[index].device,
            code = code.name(),
            text,
            "refused"
        );
        self.counters.refused();
        if matches!(
            code,
            ErrorCode::BadVersion | ErrorCode::BadDeviceId | ErrorCode::BadPreface
        ) {
            self.retire(index, text);
        }
        self.hang_up(io, index);
    }

    fn hang_up(&mut self, io: &mut MembersIo, index: usize) {
        self.out.clear();
        if let Some(token) = self.members[index].connection {
            io.close(token, CloseReason::PeerClosed);
        }
    }

    /// This member will not connect again.
    fn retire(&mut self, index: usize, why: &str) {
        let member = &mut self.members[index];
        if !std::mem::replace(&mut member.retired, true) {
            self.active -= 1;
            self.counters.retired(&member.device, why);
        }
    }

    fn on_answers(&mut self, io: &mut MembersIo) {
        let outbox = self
            .outbox
            .clone()
            .expect("members connect only after Start");
        for (index, id, answer) in outbox.take() {
            let member = &mut self.members[index];
            if answer.status == ResultStatus::Refused {
                // It was not begun, so there is nothing to remember.
                member.ledger.forget(id);
            } else if !member.ledger.finish(id, &answer) {
                continue;
            }
            // Before the session is open nothing but HELLO may be said; WELCOME asks for results.
            if member.session.interval_ms().is_some() {
                put_result(id, &answer, &mut self.out);
                self.flush(io, index);
            }
        }
    }

    fn on_stop(&mut self, io: &mut MembersIo) {
        self.on_answers(io);
        self.stopping = true;
        let leaving = GoAway {
            reason: GoAwayReason::Leaving,
            retry_within_ms: 0,
        };
        for index in 0..self.members.len() {
            if self.members[index].session.interval_ms().is_some() {
                encode_from_device(&FromDevice::GoAway(leaving), &mut self.out);
                self.flush(io, index);
            }
        }
        io.stop();
    }
}

fn put_result(id: CommandId, answer: &Answer, out: &mut Vec<u8>) {
    let result = FromDevice::Result {
        id,
        status: answer.status,
        body: &answer.body,
    };
    encode_from_device(&result, out);
}

/// Puts the results that the gateway has not acknowledged, as many as fit: the others follow when
/// these are forgotten.
fn put_results(ledger: &Ledger, out: &mut Vec<u8>) {
    for (id, answer) in ledger.unacknowledged() {
        if out.len() > REPEAT_BYTES_MAX {
            return;
        }
        put_result(id, answer, out);
    }
}

impl Handler for Members {
    type Conn = usize;
    type Timer = Alarm;
    type Message = CrewMessage;

    fn opened(&mut self, io: &mut MembersIo, token: Token, opened: Opened) -> Option<usize> {
        let Opened::Connected { tag, .. } = opened else {
            return None;
        };
        let index = usize::try_from(tag).expect("tags are indices");
        let member = &mut self.members[index];
        member.connection = Some(token);
        member.session.greet(&mut self.out);
        self.flush(io, index);
        self.set_alarm(io, Alarm::Welcome(index), WELCOME_WITHIN_MS);
        Some(index)
    }

    fn data(&mut self, io: &mut MembersIo, token: Token, input: &[u8]) -> usize {
        let now_ms = io.now_ms();
        let mut consumed = 0;
        let Some(&mut index) = io.state(token) else {
            return input.len();
        };
        while self.members[index].connection == Some(token) {
            match self.members[index]
                .session
                .receive(now_ms, &input[consumed..])
            {
                Ok(None) => break,
                Ok(Some((bytes, event))) => {
                    consumed += bytes;
                    self.on_event(io, index, event);
                }
                Err(violation) => {
                    tracing::warn!(%violation, "the gateway does not speak this protocol");
                    self.hang_up(io, index);
                    return input.len();
                }
            }
            if io.state(token).is_none() {
                break;
            }
        }
        self.flush(io, index);
        consumed
    }

    fn closed(&mut self, io: &mut MembersIo, _token: Token, index: usize, why: CloseReason) {
        let member = &mut self.members[index];
        member.connection = None;
        member.beat_sent = None;
        if let Some(timer) = member.timer.take() {
            io.cancel_timer(timer);
        }
        if member.session.interval_ms().is_some() {
            tracing::debug!(device = &*member.device, %why, "connection lost");
            self.counters.disconnected_one(!self.stopping);
        }
        member.session.disconnected();
        self.come_back(io, index);
        if self.active == 0 && self.config.ends_with_members && !self.stopping {
            self.stopping = true;
            io.stop();
        }
    }

    fn connect_failed(&mut self, io: &mut MembersIo, tag: u64, error: std::io::Error) {
        tracing::debug!(%error, "the gateway cannot be reached");
        self.counters.connect_failed();
        self.come_back(io, usize::try_from(tag).expect("tags are indices"));
    }

    fn timer(&mut self, io: &mut MembersIo, _key: TimerKey, alarm: Alarm) {
        match alarm {
            Alarm::Connect(index) => {
                self.members[index].timer = None;
                self.connect(io, index);
            }
            Alarm::Welcome(index) => {
                self.members[index].timer = None;
                if let Some(token) = self.members[index].connection {
                    io.close(token, CloseReason::TimedOut);
                }
            }
            Alarm::Beat(index) => {
                self.members[index].timer = None;
                self.beat(io, index);
            }
        }
    }

    fn message(&mut self, io: &mut MembersIo, message: CrewMessage) {
        match message {
            CrewMessage::Start(outbox) => {
                self.outbox = Some(outbox);
                self.start(io);
            }
            CrewMessage::Answers => self.on_answers(io),
            CrewMessage::Stop => self.on_stop(io),
        }
    }
}
