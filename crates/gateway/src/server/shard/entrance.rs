//! How a device gets its session: HELLO, and what happens when it is connected already.
//!
//! A connection whose device has another one *knocks*: the holder is asked for a sign of life, on
//! whichever shard it is. If it gives one the knocker is refused; if not, the holder is closed and the
//! knocker admitted. The epoch of the holder travels with question and answer, so that an answer about
//! an older session opens nothing.

use std::sync::Arc;

use conn_reactor::Token;

use super::{
    Asker, CATCH_UP_MS, Knocking, Phase, Probe, ShardHandler, ShardIo, ShardMessage, Timer,
};
use crate::proto::{
    ErrorCode, Forms, FrontDoor, Hello, SessionToken, ToDevice, Violation, Welcome,
};
use crate::server::device::{Device, Session};
use crate::server::directory::{Admission, Knock};

/// The forms of beat that a stream may have. Datagrams come beside it.
const FORMS: Forms = Forms::DELTA;

impl<P: FrontDoor> ShardHandler<P> {
    pub(super) fn on_hello(&mut self, io: &mut ShardIo<P>, token: Token, hello: &Hello<'_>) {
        let limits = &self.shared.config.devices;
        let interval_ms = match hello.interval_ms {
            0 => limits.interval_ms,
            wanted => wanted.clamp(limits.interval_ms_min, limits.interval_ms_max),
        };
        let knocking = Knocking {
            device: hello.device.as_str().into(),
            boot: hello.boot,
            interval_ms,
            resume: hello.resume,
            forms: hello.forms,
        };
        self.knock(io, token, knocking, None);
    }

    /// Asks the directory for the session; `displace` is the epoch of a holder that failed its probe.
    fn knock(&mut self, io: &mut ShardIo<P>, token: Token, who: Knocking, displace: Option<u64>) {
        let knock = Knock {
            id: &who.device,
            shard: io.shard(),
            token,
            boot: who.boot,
            resume: who.resume,
            now_ms: self.shared.now_ms(),
            interval_ms: who.interval_ms,
            displace,
        };
        let shared = Arc::clone(&self.shared);
        match shared
            .directory
            .admit(&knock, |id| shared.registry.forget(&id))
        {
            Admission::Accepted {
                device,
                epoch,
                token: session,
                replaced,
                first_time,
                was_suspect,
            } => {
                if was_suspect {
                    shared.counters.trusted_again();
                }
                if first_time {
                    shared.registry.remember(device.id());
                }
                if let Some(session) = replaced {
                    self.send(session.shard(), ShardMessage::Replaced { session });
                }
                self.open(io, token, &device, epoch, &who, session);
            }
            Admission::InUse { holder } => {
                let asker = Asker {
                    shard: io.shard(),
                    token,
                };
                if let Some(conn) = io.state(token) {
                    conn.phase = Phase::Knocking(Box::new(who));
                }
                self.send(holder.shard(), ShardMessage::Probe { holder, asker });
            }
            Admission::Full => self.reject(
                io,
                token,
                Violation::new(
                    ErrorCode::Busy,
                    "the gateway knows as many devices as it may",
                ),
            ),
        }
    }

    fn open(
        &mut self,
        io: &mut ShardIo<P>,
        token: Token,
        device: &Arc<Device>,
        epoch: u64,
        who: &Knocking,
        session: SessionToken,
    ) {
        let now_ms = io.now_ms();
        let Some(conn) = io.state(token) else { return };
        conn.phase = Phase::Open {
            device: Arc::clone(device),
            heard_ms: now_ms as u32,
        };
        let door = self.shared.datagrams.as_ref();
        let door = door.filter(|_| who.forms.contains(Forms::DATAGRAM));
        let door = door.and_then(|it| it.admit(io.shard(), token, device, epoch, &session));
        let datagrams = match door {
            Some(_) => Forms::DATAGRAM,
            None => Forms::FRAMED,
        };
        let welcome = Welcome {
            session,
            interval_ms: who.interval_ms,
            grace_ms: self.shared.config.devices.grace_ms,
            forms: (who.forms & FORMS) | datagrams,
            datagrams: door,
            slot_ms: self.shared.return_slot_ms(io.shard(), token),
        };
        self.watch_from_welcome(io, token, device, &welcome);
        self.say(io, token, &ToDevice::Welcome(welcome));
    }

    /// Somebody knocks with the id of the device behind `holder`.
    pub(super) fn on_probe(&mut self, io: &mut ShardIo<P>, holder: Session, asker: Asker) {
        let due_ms = io.now_ms() + self.shared.config.devices.probe_timeout_ms;
        let token = holder.token;
        if !Self::is_open(io, token) {
            return self.answer_probe(asker, holder.epoch, false);
        }
        if self.probes.contains_key(&token) {
            // One knocker at a time: this one hears what it would hear from a live holder.
            return self.answer_probe(asker, holder.epoch, true);
        }
        let probe = Probe {
            asker,
            holder_epoch: holder.epoch,
            timer: io.set_timer(due_ms, Timer::Of(token)),
        };
        self.probes.insert(token, probe);
        self.say(io, token, &ToDevice::Probe);
        self.flush(io, token);
    }

    /// The holder was asked and has not answered. While this shard `is_behind` its answer may be among what waits.
    pub(super) fn on_probe_deadline(&mut self, io: &mut ShardIo<P>, token: Token) {
        if !self.is_behind(io) {
            return self.replaced(io, token);
        }
        let timer = io.set_timer(io.now_ms() + CATCH_UP_MS, Timer::Of(token));
        if let Some(probe) = self.probes.get_mut(&token) {
            probe.timer = timer;
        }
    }

    pub(super) fn on_probed(
        &mut self,
        io: &mut ShardIo<P>,
        token: Token,
        holder_epoch: u64,
        alive: bool,
    ) {
        let Some(conn) = io.state(token) else { return };
        let who = match std::mem::replace(&mut conn.phase, Phase::Greeting) {
            Phase::Knocking(who) => *who,
            other => {
                conn.phase = other;
                return;
            }
        };
        if alive {
            let why = "the device is connected already and that connection answers";
            self.reject(io, token, Violation::new(ErrorCode::InUse, why));
        } else {
            self.knock(io, token, who, Some(holder_epoch));
            self.flush(io, token);
        }
    }

    /// The connection gave a sign of life, or ended. The mailbox that a question was asked from hears it.
    pub(super) fn answer_probe_of(&mut self, io: &mut ShardIo<P>, token: Token, alive: bool) {
        // There is none, mostly, and then nothing has to be looked up for each message.
        if let Some(probe) = (!self.probes.is_empty())
            .then(|| self.probes.remove(&token))
            .flatten()
        {
            io.cancel_timer(probe.timer);
            self.answer_probe(probe.asker, probe.holder_epoch, alive);
        }
    }

    pub(super) fn answer_probe(&self, asker: Asker, holder_epoch: u64, alive: bool) {
        let answer = ShardMessage::Probed {
            knocker: asker.token,
            holder_epoch,
            alive,
        };
        self.send(asker.shard, answer);
    }
}
