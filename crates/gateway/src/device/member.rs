//! One device of a crew, and what a reactor shard does for its members.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use conn_reactor::CloseReason;
use conn_reactor::client::{ClientId, ClientIo, Loss, Protocol, Why};

use super::crew::{CrewConfig, CrewCounters, Execute};
use super::datagrams::{DatagramSockets, ack_within_ms};
use super::ledger::{Admission, Answer, Ledger};
use super::reply::{Command, Outbox, Reply};
use super::session::{Adaptive, Event, Session};
use crate::proto::{
    CommandId, DeviceId, ErrorCode, Forms, FromDevice, GoAway, GoAwayReason, ResultStatus,
    SessionToken, encode_from_device,
};

/// Every so many beats a device repeats the results that the gateway has not acknowledged.
const REPEAT_BEATS: u32 = 4;

/// A gateway that has not answered HELLO by then is given up; its own probe of an older connection
/// takes a second or so.
pub(crate) const WELCOME_WITHIN_MS: u64 = 10_000;

/// How long a device that stops waits for its gateway to have read the goodbye.
const GOODBYE_WITHIN_MS: u64 = 1_000;

/// How many bytes of results are repeated at one time, give or take a result. More than the
/// connection may queue would close it, again after each reconnect.
const REPEAT_BYTES_MAX: usize = 1 << 20;

/// One device: what it says and what it remembers.
pub(crate) struct Member {
    session: Session,
    ledger: Ledger,
    beats: u32,
    /// When the oldest beat was sent whose answer is awaited.
    beat_sent: Option<Instant>,
    /// From the loss of a session to the next WELCOME.
    absence: Option<Absence>,
}

struct Absence {
    since_ms: u64,
    /// Made or planned.
    tries: u32,
}

impl Member {
    pub(crate) fn new(id: DeviceId<'_>, interval_ms: u32, ledger: Ledger, forms: Forms) -> Self {
        Self {
            session: Session::new(id, ledger.boot(), interval_ms, forms),
            ledger,
            beats: 0,
            beat_sent: None,
            absence: None,
        }
    }

    /// Beats at an interval that follows what the way to the gateway bears.
    pub(crate) fn adapt(&mut self, adaptive: Adaptive) {
        self.session.adapt(adaptive);
    }
}

/// What others say to a shard of members.
pub(crate) enum CrewMessage {
    /// Begin to connect; answers come through this outbox.
    Start(Outbox, Option<DatagramSockets>),
    /// The outbox has answers.
    Answers,
    /// The socket for datagrams has acks.
    Acks,
    /// The crew is stopping: look up.
    Stop,
}

/// What one shard's members say.
pub(crate) struct Members {
    config: Arc<CrewConfig>,
    counters: Arc<CrewCounters>,
    execute: Execute,
    /// Those that have not begun to connect.
    waiting: Vec<Member>,
    outbox: Option<Outbox>,
    datagrams: Option<DatagramSockets>,
    out: Vec<u8>,
    /// The crew was told to stop. Mailboxes are only told to look here, so a full one does no harm.
    stopping: Arc<AtomicBool>,
    has_stopped: bool,
}

type MembersIo<'a> = ClientIo<'a, Members>;

impl Members {
    pub(crate) fn new(
        config: Arc<CrewConfig>,
        counters: Arc<CrewCounters>,
        execute: Execute,
        waiting: Vec<Member>,
        stopping: Arc<AtomicBool>,
    ) -> Self {
        Self {
            config,
            counters,
            execute,
            waiting,
            outbox: None,
            datagrams: None,
            out: Vec::new(),
            stopping,
            has_stopped: false,
        }
    }

    fn start(&mut self, io: &mut MembersIo<'_>) {
        // Shards connect side by side, so each one takes its share of the rate.
        let per_s = u64::from(self.config.ramp_per_s)
            .div_ceil(self.config.shards as u64)
            .max(1);
        for (place, member) in std::mem::take(&mut self.waiting).into_iter().enumerate() {
            // None is added only when the crew stops already.
            let _ = io.add(member, place as u64 * 1_000 / per_s);
        }
    }

    fn flush(&mut self, io: &mut MembersIo<'_>, client: ClientId) {
        if !self.out.is_empty()
            && io
                .write(client, &self.out)
                .is_err_and(|error| error.is_full())
        {
            let code = ErrorCode::SlowReader.byte().into();
            io.hang_up(client, CloseReason::Local(code));
        }
        self.out.clear();
    }

    fn beat(&mut self, io: &mut MembersIo<'_>, client: ClientId) {
        let now_ms = io.now_ms();
        let Some(member) = io.state(client) else {
            return;
        };
        let Some(interval_ms) = member.session.interval_ms() else {
            return;
        };
        if member.session.is_deserted(now_ms) {
            return io.hang_up(client, CloseReason::TimedOut);
        }
        let load = load_of(&self.config, &self.counters, client, member.beats);
        member.beats = member.beats.wrapping_add(1);
        // The stamp wraps every 49 days; it only has to tell two beats apart.
        member.session.beat(now_ms as u32, load, &mut self.out);
        // Acknowledgements come in order, so the next one is that of the oldest beat without.
        member.beat_sent.get_or_insert_with(Instant::now);
        if member.beats.is_multiple_of(REPEAT_BEATS) {
            put_results(&member.ledger, &mut self.out);
        }
        self.counters.beat();
        self.flush(io, client);
        io.set_alarm(client, interval_ms.into());
    }

    /// Beats beside the connection, and waits for the ack. `false`: that way is not there, or not open now.
    fn beat_in_datagram(&mut self, io: &mut MembersIo<'_>, client: ClientId) -> bool {
        let now_ms = io.now_ms();
        let endpoint = io
            .endpoint(client)
            .and_then(|at| self.config.gateways.get(at));
        let (Some(socket), Some(endpoint)) = (&mut self.datagrams, endpoint) else {
            return false;
        };
        let mut to = *endpoint;
        let Some(member) = io.state(client).filter(|it| !it.session.must_resync()) else {
            return false;
        };
        let (Some(interval_ms), Some(grace_ms)) =
            (member.session.interval_ms(), member.session.grace_ms())
        else {
            return false;
        };
        if member.session.is_deserted(now_ms) {
            return false;
        }
        let load = load_of(&self.config, &self.counters, client, member.beats);
        let beat = member.session.plain_beat(now_ms as u32, load);
        let Some(beats) = member.session.datagrams() else {
            return false;
        };
        let Some(datagram) = beats.seal(now_ms, &beat) else {
            return false;
        };
        to.set_port(beats.door().port);
        socket.send(client, beats.door().peer, to, &datagram);
        member.beats = member.beats.wrapping_add(1);
        member.beat_sent = Some(Instant::now());
        if member.beats.is_multiple_of(REPEAT_BEATS) {
            put_results(&member.ledger, &mut self.out);
        }
        self.counters.beat();
        self.counters.datagram();
        self.flush(io, client);
        io.set_alarm(client, ack_within_ms(interval_ms, grace_ms).into());
        true
    }

    fn on_acks(&mut self, io: &mut MembersIo<'_>) {
        let now_ms = io.now_ms();
        let acks = self.datagrams.as_mut().map(DatagramSockets::take);
        for (client, ack) in acks.unwrap_or_default() {
            let Some(member) = io.state(client) else {
                continue;
            };
            let beats = member.session.datagrams();
            let Some(ago_ms) = beats.and_then(|it| it.hear(now_ms, &ack)) else {
                continue;
            };
            member.session.heard(now_ms);
            member.session.beat_answered();
            if let Some(sent) = member.beat_sent.take() {
                let rtt = sent.elapsed();
                let rtt_ms = u16::try_from(rtt.as_millis()).unwrap_or(u16::MAX);
                member.session.set_rtt_ms(rtt_ms);
                self.counters.round_trip(rtt);
            }
            let interval_ms = member.session.interval_ms().unwrap_or(1);
            io.set_alarm(client, u64::from(interval_ms).saturating_sub(ago_ms));
        }
    }

    fn on_event(&mut self, io: &mut MembersIo<'_>, client: ClientId, event: Event<'_>) {
        match event {
            Event::Welcome { resume, slot_ms } => self.on_welcome(io, client, resume, slot_ms),
            Event::Probe => self.beat(io, client),
            Event::BeatAck => {
                if let Some(member) = io.state(client)
                    && let Some(sent) = member.beat_sent.take()
                {
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
            } => self.on_command(io, client, id, timeout_ms, payload),
            Event::ResultAck { id } => {
                if let Some(member) = io.state(client) {
                    member.ledger.forget(id);
                }
            }
            Event::GoAway(goaway) => self.on_goaway(io, client, goaway),
            Event::Refused { code, text } => self.on_refusal(io, client, code, text),
        }
    }

    fn on_welcome(
        &mut self,
        io: &mut MembersIo<'_>,
        client: ClientId,
        resume: SessionToken,
        slot_ms: Option<u32>,
    ) {
        if !io.is_established(client) {
            self.counters.connected_one();
        }
        io.set_resume(client, Some(resume));
        io.established(client);
        if let Some(slot_ms) = slot_ms {
            io.assign_slot(client, slot_ms);
        }
        let (first_beat, now_ms) = (io.random(), io.now_ms());
        let Some(member) = io.state(client) else {
            return;
        };
        if let Some(absence) = member.absence.take() {
            let took_ms = now_ms.saturating_sub(absence.since_ms);
            self.counters.returned(absence.tries, took_ms);
        }
        put_results(&member.ledger, &mut self.out);
        let interval_ms = u64::from(member.session.interval_ms().unwrap_or(1)).max(1);
        // The first beat falls anywhere into the interval, so that a crowd does not beat as one.
        io.set_alarm(client, first_beat % interval_ms);
    }

    fn on_command(
        &mut self,
        io: &mut MembersIo<'_>,
        client: ClientId,
        id: CommandId,
        timeout_ms: u32,
        payload: &[u8],
    ) {
        self.counters.command_received();
        let Some(member) = io.state(client) else {
            return;
        };
        match member.ledger.admit(id) {
            Admission::Execute => {
                self.counters.command_executed();
                let payload = payload.to_vec();
                let command = Command {
                    device: Arc::clone(member.session.device()),
                    id,
                    payload,
                    timeout_ms,
                };
                (self.execute)(command, Reply::new(self.outbox(), client, id));
            }
            Admission::Running => self.counters.duplicate_ignored(),
            Admission::Repeat(answer) => {
                self.counters.duplicate_ignored();
                put_result(id, &answer, &mut self.out);
            }
            Admission::Refuse => put_result(id, &Answer::refused(), &mut self.out),
        }
    }

    fn outbox(&self) -> Outbox {
        self.outbox
            .clone()
            .expect("members connect only after Start")
    }

    fn on_goaway(&mut self, io: &mut MembersIo<'_>, client: ClientId, goaway: GoAway) {
        match goaway.reason {
            GoAwayReason::Gone => self.counters.false_gone(),
            GoAwayReason::Replaced => {
                return self.retire(io, client, "another session took the device's id over");
            }
            _ => {}
        }
        match goaway.retry_within_ms {
            0 => io.forget_slot(client),
            window_ms => io.return_within(client, window_ms),
        }
        self.hang_up(io, client);
    }

    fn on_refusal(
        &mut self,
        io: &mut MembersIo<'_>,
        client: ClientId,
        code: ErrorCode,
        text: &str,
    ) {
        if let Some(member) = io.state(client) {
            let device = &**member.session.device();
            tracing::warn!(device, code = code.name(), text, "refused");
        }
        self.counters.refused();
        if matches!(
            code,
            ErrorCode::BadVersion | ErrorCode::BadDeviceId | ErrorCode::BadPreface
        ) {
            return self.retire(io, client, text);
        }
        io.answered(client);
        io.forget_slot(client);
        self.hang_up(io, client);
    }

    fn hang_up(&mut self, io: &mut MembersIo<'_>, client: ClientId) {
        self.out.clear();
        io.hang_up(client, CloseReason::PeerClosed);
    }

    /// This member will not connect again.
    fn retire(&mut self, io: &mut MembersIo<'_>, client: ClientId, why: &str) {
        self.out.clear();
        if io.is_established(client) {
            self.counters.disconnected_one(true);
        }
        if let Some(member) = io.remove(client) {
            self.counters.retired(member.session.device(), why);
        }
        if io.is_empty() && self.config.ends_with_members {
            io.stop(GOODBYE_WITHIN_MS);
        }
    }

    fn on_answers(&mut self, io: &mut MembersIo<'_>) {
        for (client, id, answer) in self.outbox().take() {
            // A member that retired has no ledger any more.
            let Some(member) = io.state(client) else {
                continue;
            };
            if answer.status == ResultStatus::Refused {
                // It was not begun, so there is nothing to remember.
                member.ledger.forget(id);
            } else if !member.ledger.finish(id, &answer) {
                continue;
            }
            // Before the session is open nothing but HELLO may be said; WELCOME asks for results.
            if io.is_established(client) {
                put_result(id, &answer, &mut self.out);
                self.flush(io, client);
            }
        }
    }

    fn stop(&mut self, io: &mut MembersIo<'_>) {
        if self.outbox.is_some() {
            self.on_answers(io);
        }
        let leaving = GoAway {
            reason: GoAwayReason::Leaving,
            retry_within_ms: 0,
        };
        for client in io.clients() {
            if io.is_established(client) {
                encode_from_device(&FromDevice::GoAway(leaving), &mut self.out);
                self.flush(io, client);
            }
        }
        io.stop(GOODBYE_WITHIN_MS);
    }
}

fn load_of(
    config: &CrewConfig,
    counters: &CrewCounters,
    client: ClientId,
    beats: u32,
) -> Option<u8> {
    if config.simulates_load {
        // Up and down by 2 a beat, each device from another place.
        let place = (client.index() * 37 + beats as usize * 2) % 200;
        return Some(place.min(200 - place) as u8);
    }
    counters.load()
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

impl Protocol for Members {
    type Client = Member;
    type Resume = SessionToken;
    type Message = CrewMessage;

    fn connected(&mut self, io: &mut MembersIo<'_>, client: ClientId) {
        let resume = io.resume(client).copied();
        if let Some(member) = io.state(client) {
            member.session.greet(resume, &mut self.out);
        }
        self.flush(io, client);
    }

    fn data(&mut self, io: &mut MembersIo<'_>, client: ClientId, input: &[u8]) -> usize {
        let now_ms = io.now_ms();
        let mut consumed = 0;
        while io.is_connected(client)
            && let Some(member) = io.state(client)
        {
            match member.session.receive(now_ms, &input[consumed..]) {
                Ok(None) => break,
                Ok(Some((bytes, event))) => {
                    consumed += bytes;
                    self.on_event(io, client, event);
                }
                Err(violation) => {
                    tracing::warn!(%violation, "the gateway does not speak this protocol");
                    self.hang_up(io, client);
                    return input.len();
                }
            }
        }
        self.flush(io, client);
        consumed
    }

    fn lost(&mut self, io: &mut MembersIo<'_>, client: ClientId, loss: Loss) {
        let now_ms = io.now_ms();
        let Some(member) = io.state(client) else {
            return;
        };
        let is_beat_unanswered = member.beat_sent.take().is_some();
        if loss.was_established {
            member.absence = Some(Absence {
                since_ms: now_ms,
                tries: 0,
            });
        }
        if let Some(absence) = &mut member.absence {
            absence.tries += 1;
        }
        let peer = member.session.datagrams().map(|it| it.door().peer);
        if let (Some(socket), Some(peer)) = (&mut self.datagrams, peer) {
            socket.forget(client, peer);
        }
        member.session.disconnected(is_beat_unanswered);
        let why = &loss.why;
        tracing::debug!(device = &**member.session.device(), %why, "disconnected");
        if matches!(why, Why::Connect(_)) {
            self.counters.connect_failed();
        }
        if loss.was_established {
            self.counters.disconnected_one(loss.retry_in_ms.is_some());
        }
        if let Some(delay_ms) = loss.retry_in_ms {
            self.counters.reconnecting(delay_ms);
        }
    }

    fn alarm(&mut self, io: &mut MembersIo<'_>, client: ClientId) {
        let Some(member) = io.state(client) else {
            return;
        };
        let is_lost = member.session.datagrams().is_some_and(|it| it.give_up());
        if is_lost {
            member.beat_sent = None;
            member.session.beat_lost();
            self.counters.datagram_unanswered();
        }
        if is_lost || !self.beat_in_datagram(io, client) {
            self.beat(io, client);
        }
    }

    fn message(&mut self, io: &mut MembersIo<'_>, message: CrewMessage) {
        match message {
            CrewMessage::Start(outbox, datagrams) => {
                self.outbox = Some(outbox);
                self.datagrams = datagrams;
                self.start(io);
            }
            CrewMessage::Answers => self.on_answers(io),
            CrewMessage::Acks => self.on_acks(io),
            CrewMessage::Stop => {}
        }
    }

    fn turn_ended(&mut self, io: &mut MembersIo<'_>) {
        if !self.has_stopped && self.stopping.load(Ordering::Acquire) {
            self.has_stopped = true;
            self.stop(io);
        }
    }
}
