//! How a device gets its session: HELLO, and what happens when it is connected already.
//!
//! A connection whose device has another one *knocks*: the holder is asked for a sign of life, on
//! whichever shard it is. If it gives one the knocker is refused; if not, the holder is closed and the
//! knocker admitted. The epoch of the holder travels with question and answer, so that an answer about
//! an older session opens nothing.

use std::sync::Arc;

use conn_reactor::Token;

use super::{Asker, Knocking, Open, Phase, ShardHandler, ShardIo, ShardMessage, Timer};
use crate::proto::{
    ErrorCode, Forms, FrontDoor, GoAway, GoAwayReason, Hello, SessionToken, ToDevice, Violation,
    Welcome,
};
use crate::server::directory::{Admission, Device, Knock, Presence, Session};

/// The forms of beat that a stream may have.
const FORMS: Forms = Forms::DELTA;

impl<P: FrontDoor> ShardHandler<P> {
    pub(super) fn on_hello(&mut self, io: &mut ShardIo<P>, token: Token, hello: &Hello<'_>) {
        let knocking = Knocking {
            device: hello.device.as_str().into(),
            boot: hello.boot,
            interval_ms: hello.interval_ms,
            resume: hello.resume,
            forms: hello.forms,
        };
        self.knock(io, token, knocking, None);
    }

    /// Asks the directory for the session; `displace` is the epoch of a holder that failed its probe.
    fn knock(&mut self, io: &mut ShardIo<P>, token: Token, who: Knocking, displace: Option<u64>) {
        let secret = SessionToken(self.shared.random_id());
        let knock = Knock {
            id: &who.device,
            shard: io.shard(),
            token,
            boot: who.boot,
            resume: who.resume,
            secret,
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
                replaced,
                first_time,
            } => {
                if first_time {
                    shared.registry.remember(device.id());
                }
                if let Some(session) = replaced {
                    self.send(session.shard, ShardMessage::Replaced { session });
                }
                self.open(io, token, device, epoch, &who, secret);
            }
            Admission::InUse { holder } => {
                let asker = Asker {
                    shard: io.shard(),
                    token,
                };
                if let Some(conn) = io.state(token) {
                    conn.phase = Phase::Knocking(Box::new(who));
                }
                self.send(holder.shard, ShardMessage::Probe { holder, asker });
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
        device: Arc<Device>,
        epoch: u64,
        who: &Knocking,
        session: SessionToken,
    ) {
        let limits = &self.shared.config.devices;
        let interval_ms = match who.interval_ms {
            0 => limits.interval_ms,
            wanted => wanted.clamp(limits.interval_ms_min, limits.interval_ms_max),
        };
        let grace_ms = limits.grace_ms;
        let gateway_ms = self.shared.now_ms();
        device.pulse.start(gateway_ms, interval_ms, grace_ms);
        let silence_ms = u64::from(interval_ms) + u64::from(grace_ms);
        let doubt_ms = device.pulse.doubt_in_ms(gateway_ms).unwrap_or(0);
        let now_ms = io.now_ms();
        let Some(conn) = io.state(token) else { return };
        conn.heard_ms = now_ms;
        conn.phase = Phase::Open(Box::new(Open {
            device,
            epoch,
            interval_ms,
            suspect: false,
            probe: None,
        }));
        let timer = conn.timer;
        io.reschedule_timer(timer, now_ms + silence_ms.min(doubt_ms));
        self.say(
            io,
            token,
            &ToDevice::Welcome(Welcome {
                session,
                interval_ms,
                grace_ms,
                forms: who.forms & FORMS,
            }),
        );
    }

    /// Somebody knocks with the id of the device behind `holder`.
    pub(super) fn on_probe(&mut self, io: &mut ShardIo<P>, holder: Session, asker: Asker) {
        let due_ms = io.now_ms() + self.shared.config.devices.probe_timeout_ms;
        let token = holder.token;
        let open = match io.state(token).map(|conn| &mut conn.phase) {
            Some(Phase::Open(open)) if open.epoch == holder.epoch => open,
            _ => return self.answer_probe(asker, holder.epoch, false),
        };
        if open.probe.is_some() {
            // One knocker at a time: this one hears what it would hear from a live holder.
            return self.answer_probe(asker, holder.epoch, true);
        }
        let timer = io.set_timer(due_ms, Timer::Probe(token));
        if let Some(Phase::Open(open)) = io.state(token).map(|conn| &mut conn.phase) {
            open.probe = Some((asker, timer));
        }
        self.say(io, token, &ToDevice::Probe);
        self.flush(io, token);
    }

    pub(super) fn on_probe_timeout(&mut self, io: &mut ShardIo<P>, token: Token) {
        self.leave(io, token, Presence::Offline);
        let words = GoAway {
            reason: GoAwayReason::Replaced,
            retry_within_ms: 0,
        };
        self.part(
            io,
            token,
            &ToDevice::GoAway(words),
            GoAwayReason::Replaced.byte(),
        );
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

    pub(super) fn answer_probe(&self, asker: Asker, holder_epoch: u64, alive: bool) {
        let answer = ShardMessage::Probed {
            knocker: asker.token,
            holder_epoch,
            alive,
        };
        self.send(asker.shard, answer);
    }
}
