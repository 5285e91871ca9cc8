//! The life of a command: claimed, sent, answered, stored; or released, or in doubt.
//!
//! One task lives as long as the command does, whatever its HTTP client does. Three rules:
//!
//! - The claim, and the fact that the device may now act, are durable before the first byte is sent.
//! - The outcome is durable before the device is told to forget the command and before the caller
//!   is answered.
//! - Once a byte may have been sent, only an outcome ends the claim. A device that recognises the
//!   command (same boot id) is sent it again; one that lost its memory leaves it in doubt.

use std::sync::Arc;

use idem_store::{Begin, Begun, Failure, Fingerprint, Lookup, Permit, Stored};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Duration, Instant, sleep_until};

use super::Shared;
use super::device::{CommandSlot, Device, Session};
use super::drain::{Phase, until};
use super::groups::Call;
use super::outcome::{Memo, Outcome};
use super::settle::{LEASE_SLACK_MS, outcome_of, store_outcome};
use super::shard::ShardMessage;
use super::table::{NotSent, OpenClaim, Reply, Superseded, Waiter};
use crate::proto::{BootId, CommandId};

/// How long a command that may be out already waits before it knocks at a full queue again.
const QUEUE_RETRY: Duration = Duration::from_millis(20);

/// What a caller wants done.
pub(crate) struct Request {
    pub(crate) device: Arc<Device>,
    /// Made by [`store_key`](super::outcome::store_key).
    pub(crate) key: Vec<u8>,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) payload: Arc<[u8]>,
    pub(crate) timeout_ms: u64,
}

/// What the caller is told.
#[derive(Debug)]
pub(crate) enum Answer {
    Done(Outcome),
    Replayed(Outcome),
    InProgress,
    OtherPayload,
    QueueFull,
    Draining,
    /// Nothing was sent; the key is free again.
    TimedOutUnsent,
    /// The command keeps running.
    TimedOutSent,
    /// The claim is open and nobody works on it; only its device can end it.
    Open,
    /// The device is not connected to this gateway, which shares its store with others: nothing was
    /// claimed.
    NotHere,
    /// The breaker of the device's group lets nothing through: nothing was claimed.
    BreakerOpen {
        retry_after_s: u32,
    },
    /// Too much waits for the disk: nothing was claimed.
    StoreBusy,
    /// The disk is full: nothing was claimed.
    StoreFull,
    /// The disk is full: how the command ended is not durable yet.
    EndNotStored,
    StoreFailed(idem_store::Error),
}

/// Runs `request` to its end, also when nobody waits for the answer any more. `call` hears the answer, too.
pub(crate) async fn submit(shared: &Arc<Shared>, request: Request, call: Option<Call>) -> Answer {
    let (sender, receiver) = oneshot::channel();
    let caller = Caller {
        sender: Some(sender),
        call,
    };
    tokio::spawn(run(Arc::clone(shared), request, caller));
    receiver.await.unwrap_or(Answer::Draining)
}

/// What can be said about `key` without claiming it, if it is known.
pub(crate) async fn replay(
    shared: &Shared,
    key: &[u8],
    fingerprint: &Fingerprint,
) -> Result<Option<Answer>, idem_store::Error> {
    let found = match shared.store.get(key, shared.unix_ms()).await {
        // It has ended, and that waits to be stored.
        Err(error) if error.is_full() => return Ok(Some(Answer::EndNotStored)),
        found => found?,
    };
    let (known, answer) = match found {
        Lookup::Absent => return Ok(None),
        Lookup::InFlight { .. } => return Ok(Some(Answer::InProgress)),
        Lookup::InDoubt(claim) => (claim.fingerprint, Answer::Open),
        Lookup::Stored(stored) => (
            stored.fingerprint(),
            Answer::Replayed(read_outcome(&stored)),
        ),
    };
    Ok(Some(if known == *fingerprint {
        answer
    } else {
        Answer::OtherPayload
    }))
}

/// What is known of the key of `request`; `otherwise` when nothing is.
async fn known_or(shared: &Shared, request: &Request, otherwise: Answer) -> Answer {
    match replay(shared, &request.key, &request.fingerprint).await {
        Ok(known) => known.unwrap_or(otherwise),
        Err(error) => Answer::StoreFailed(error),
    }
}

impl Answer {
    /// The store did not take what had to be durable before the command could be sent.
    fn of_refusal(error: idem_store::Error) -> Self {
        if error.is_fenced() {
            Self::InProgress
        } else if error.is_busy() {
            Self::StoreBusy
        } else if error.is_full() {
            Self::StoreFull
        } else {
            Self::StoreFailed(error)
        }
    }
}

/// An outcome that this version cannot read ended somehow, so nothing but in doubt can be said.
fn read_outcome(stored: &Stored) -> Outcome {
    Outcome::decode(stored.outcome()).unwrap_or(Outcome::Interrupted)
}

/// The task that waits for the answer, until it was given one.
struct Caller {
    sender: Option<oneshot::Sender<Answer>>,
    /// The permit of the breaker that let the command through.
    call: Option<Call>,
}

impl Caller {
    fn answer(&mut self, shared: &Shared, answer: Answer) {
        if let Some(sender) = self.sender.take() {
            shared.counters.command(&answer);
            if let Some(call) = self.call.take() {
                call.ended(&answer);
            }
            // The client may have hung up; its command ran all the same.
            drop(sender.send(answer));
        }
    }
}

async fn run(shared: Arc<Shared>, request: Request, mut caller: Caller) {
    let answer = run_to_end(&shared, &request, &mut caller).await;
    // Its places are free by now: whoever hears the answer may take them.
    caller.answer(&shared, answer);
}

async fn run_to_end(shared: &Arc<Shared>, request: &Request, caller: &mut Caller) -> Answer {
    let deadline = Instant::now() + Duration::from_millis(request.timeout_ms);
    let Some((slot, total)) = take_places(shared, request) else {
        return known_or(shared, request, Answer::QueueFull).await;
    };
    let memo = Memo {
        id: CommandId(shared.random_id()),
        boot: request.device.session().map(|session| session.boot),
    };
    let memo_bytes = memo.encode();
    let wait_ms = shared
        .config
        .commands
        .result_wait_ms
        .max(request.timeout_ms);
    let lease = Lease::of(shared);
    let lease_ms = lease.as_ref().map_or_else(
        || wait_ms.saturating_mul(2).saturating_add(LEASE_SLACK_MS),
        |lease| lease.ms,
    );
    let mut begin = Begin::new(
        &request.key,
        request.fingerprint,
        lease_ms,
        shared.unix_ms(),
    );
    if memo.boot.is_some() {
        begin = begin.declare(&memo_bytes);
    }
    let (permit, memo, inherited) = match shared.store.begin(&begin).await {
        Ok(Begun::Fresh(permit)) => (permit, memo, false),
        Ok(Begun::InDoubt(permit)) => match Memo::decode(permit.memo()) {
            Some(memo) => (permit, memo, true),
            None => return Answer::Open,
        },
        Ok(Begun::Replay(stored)) => {
            return Answer::Replayed(read_outcome(&stored));
        }
        Ok(Begun::InFlight { .. }) => return Answer::InProgress,
        Ok(Begun::Conflict) => return Answer::OtherPayload,
        Err(error) => {
            return match Answer::of_refusal(error) {
                failed @ Answer::StoreFailed(_) => failed,
                // An earlier request may have sent it: then it would not do to say that nothing was.
                no_room => known_or(shared, request, no_room).await,
            };
        }
    };
    let mut running = Running {
        shared,
        request,
        slot,
        _total: total,
        id: memo.id,
        waiter: shared.table.wait(memo.id, &request.device),
        declared: memo.boot,
        inherited,
        sends: 0,
        sent_epoch: 0,
        pauses: false,
        refused: false,
        lease,
    };
    let end = running.drive(&permit, caller, deadline).await;
    running.finish(permit, end).await
}

fn take_places(
    shared: &Arc<Shared>,
    request: &Request,
) -> Option<(CommandSlot, OwnedSemaphorePermit)> {
    let slot = request
        .device
        .command_slot(shared.config.commands.per_device_max)?;
    let total = Arc::clone(&shared.running).try_acquire_owned().ok()?;
    Some((slot, total))
}

/// A claimed command.
struct Running<'a> {
    shared: &'a Arc<Shared>,
    request: &'a Request,
    slot: CommandSlot,
    _total: OwnedSemaphorePermit,
    id: CommandId,
    waiter: Waiter,
    /// The memory that the store knows the command may have reached.
    declared: Option<BootId>,
    /// Somebody before this task may have sent the command.
    inherited: bool,
    /// How often this task may have sent it.
    sends: u32,
    /// The session that the command was last sent on; epochs start at 1.
    sent_epoch: u64,
    /// The device's queue was full a moment ago.
    pauses: bool,
    /// The device refused it on the session that it was last sent on.
    refused: bool,
    lease: Option<Lease>,
}

/// A claim on a shared store, renewed for as long as its gateway lives and has the device.
struct Lease {
    ms: u64,
    renew_at: Instant,
    /// When the device was last seen here.
    here_at: Instant,
}

impl Lease {
    /// None on a store of this gateway's own, whose claims end with it.
    fn of(shared: &Shared) -> Option<Self> {
        let ms = shared.config.commands.lease_ms;
        let now = Instant::now();
        shared.store.is_shared().then_some(Self {
            ms,
            renew_at: now + Duration::from_millis(ms / 3),
            here_at: now,
        })
    }
}

/// How a claimed command ends.
enum End {
    /// The device executed it, or it is certain that nobody will ever know.
    Outcome(Outcome),
    /// It was not executed and will not be.
    Release(Answer),
    /// Nobody waits any more; what becomes of it depends on whether it may have been sent.
    Stop(Answer),
    /// The claim passed to another task, which does the rest.
    Superseded,
}

/// What one attempt to send came to.
enum Sending {
    /// Nothing to do until something changes.
    Wait,
    /// Try again soon: the shard's mailbox is full.
    Later,
    /// The device lost the memory that would recognise the command.
    DeviceForgot,
    StoreFailed(idem_store::Error),
}

impl Running<'_> {
    /// Works until it is clear how the command ends. Answers the caller only when its time is up
    /// before that.
    async fn drive(&mut self, permit: &Permit, caller: &mut Caller, deadline: Instant) -> End {
        let result_wait = Duration::from_millis(self.shared.config.commands.result_wait_ms);
        let give_up = deadline.max(Instant::now() + result_wait);
        let mut drain = self.shared.drain.subscribe();
        let sessions = self.slot.changed();
        loop {
            let changed = sessions.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(end) = self.read_replies() {
                return end;
            }
            if must_stop(self.shared.phase(), self.maybe_sent()) {
                return End::Stop(Answer::Draining);
            }
            let mut wake_at = if caller.sender.is_some() {
                deadline
            } else {
                give_up
            };
            if let Some(end) = self.keep_claim(permit).await {
                return end;
            }
            if let Some(lease) = &self.lease {
                wake_at = wake_at.min(lease.renew_at);
            }
            let sending = if std::mem::take(&mut self.pauses) {
                Sending::Later
            } else {
                self.send(permit).await
            };
            match sending {
                Sending::Wait => {}
                Sending::Later if self.maybe_sent() => {
                    wake_at = wake_at.min(Instant::now() + QUEUE_RETRY);
                }
                Sending::Later => return End::Release(Answer::QueueFull),
                // Its last words may have come just before it did.
                Sending::DeviceForgot => match self.read_replies() {
                    Some(end) => return end,
                    None if self.maybe_sent() => return End::Outcome(Outcome::DeviceForgot),
                    // The word that it was not sent has just come.
                    None => continue,
                },
                Sending::StoreFailed(error) => return End::Stop(Answer::of_refusal(error)),
            }
            // What a copy that an earlier task sent may still come to needs no task to wait for it.
            let give_up = if self.refused { deadline } else { give_up };
            wake_at = wake_at.min(give_up);
            // After sending: however short its time is, a command goes out if its device is there.
            if let Some(end) = self.check_times(caller, deadline, give_up) {
                return end;
            }
            let maybe_sent = self.maybe_sent();
            tokio::select! {
                () = self.waiter.woken() => {}
                () = changed => {}
                () = until(&mut drain, |phase| must_stop(phase, maybe_sent)) => {}
                () = sleep_until(wake_at) => {}
            }
        }
    }

    /// Renews the claim when it is time to; `Some` when it is to be left to others.
    async fn keep_claim(&mut self, permit: &Permit) -> Option<End> {
        let maybe_sent = self.maybe_sent();
        let lease = self.lease.as_mut()?;
        let now = Instant::now();
        if self.slot.device().session().is_some() {
            lease.here_at = now;
        } else if maybe_sent && now > lease.here_at + Duration::from_millis(lease.ms) {
            // The device may have gone to another gateway, which cannot end this claim before.
            return Some(End::Stop(Answer::TimedOutSent));
        }
        if now < lease.renew_at {
            return None;
        }
        lease.renew_at = now + Duration::from_millis(lease.ms / 3);
        let renewed = self
            .shared
            .store
            .extend(permit, lease.ms, self.shared.unix_ms());
        match renewed.await {
            Err(error) if error.is_fenced() => Some(End::Stop(Answer::InProgress)),
            // A store that does not answer may do so in time for the next try.
            Ok(()) | Err(_) => None,
        }
    }

    fn check_times(&self, caller: &mut Caller, deadline: Instant, give_up: Instant) -> Option<End> {
        let now = Instant::now();
        if now >= deadline && !self.maybe_sent() {
            return Some(End::Release(Answer::TimedOutUnsent));
        }
        if now >= give_up {
            return Some(End::Stop(Answer::TimedOutSent));
        }
        if now >= deadline {
            caller.answer(self.shared, Answer::TimedOutSent);
        }
        None
    }

    /// Reads what came for this command; `Some` when that ends it.
    fn read_replies(&mut self) -> Option<End> {
        loop {
            match self.shared.table.read(self.id, &self.waiter) {
                Ok(None) => return None,
                Ok(Some(Reply::Result {
                    epoch,
                    status,
                    body,
                })) => match outcome_of(status, body) {
                    Some(outcome) => return Some(End::Outcome(outcome)),
                    // Refused. Another copy of the command may be on its way on a later session,
                    None if epoch != self.sent_epoch => {}
                    // or on the same one, by the task that left this claim behind.
                    None if self.inherited => self.refused = true,
                    // The device has seen all that was sent on earlier ones: it will not be executed.
                    None => return Some(End::Release(Answer::QueueFull)),
                },
                Ok(Some(Reply::NotSent { epoch, why })) => {
                    self.sends = self.sends.saturating_sub(1);
                    if why == NotSent::QueueFull && epoch == self.sent_epoch {
                        // Not on this session any more, so it may be tried there again.
                        (self.sent_epoch, self.pauses) = (0, true);
                    }
                }
                Err(Superseded) => return Some(End::Superseded),
            }
        }
    }

    /// Sends the command to the device's session, unless that session has it already.
    async fn send(&mut self, permit: &Permit) -> Sending {
        loop {
            let Some(session) = self.slot.device().session() else {
                return Sending::Wait;
            };
            if session.epoch == self.sent_epoch {
                return Sending::Wait;
            }
            if self.declared == Some(session.boot) {
                return self.post(session);
            }
            if self.maybe_sent() {
                return Sending::DeviceForgot;
            }
            let memo = Memo {
                id: self.id,
                boot: Some(session.boot),
            };
            if let Err(error) = self.shared.store.declare(permit, &memo.encode()).await {
                return Sending::StoreFailed(error);
            }
            self.declared = memo.boot;
        }
    }

    fn post(&mut self, session: Session) -> Sending {
        let command = ShardMessage::Command {
            session,
            id: self.id,
            timeout_ms: u32::try_from(self.request.timeout_ms).unwrap_or(u32::MAX),
            payload: Arc::clone(&self.request.payload),
        };
        if self.shared.send(session.shard(), command).is_err() {
            return Sending::Later;
        }
        self.sent_epoch = session.epoch;
        self.refused = false;
        self.sends += 1;
        Sending::Wait
    }
}

impl Running<'_> {
    /// A byte of the command may have reached the device.
    fn maybe_sent(&self) -> bool {
        self.inherited || self.sends > 0
    }

    async fn finish(self, permit: Permit, end: End) -> Answer {
        match end {
            End::Outcome(outcome) => self.store(permit, outcome).await,
            End::Stop(answer) if self.maybe_sent() => self.leave_open(permit, answer).await,
            End::Release(answer) | End::Stop(answer) => self.release(permit, answer).await,
            End::Superseded => Answer::InProgress,
        }
    }

    /// Stores the outcome and tells the device.
    async fn store(self, permit: Permit, outcome: Outcome) -> Answer {
        let stored =
            store_outcome(self.shared, self.slot.device(), self.id, permit, &outcome).await;
        self.or_left_open(stored.map(|()| Answer::Done(outcome)))
    }

    /// The command was not executed and will not be: frees its key.
    async fn release(self, permit: Permit, answer: Answer) -> Answer {
        let Shared { store, table, .. } = &**self.shared;
        let failed = store
            .fail(permit, Failure::NotHappened, self.shared.unix_ms())
            .await;
        let released = failed.map(|()| {
            table.remove(self.id);
            answer
        });
        self.or_left_open(released)
    }

    /// A store that failed used up the permit; the key is in doubt, and the device must not be told
    /// to forget its command.
    fn or_left_open(&self, ended: Result<Answer, idem_store::Error>) -> Answer {
        ended.unwrap_or_else(|error| {
            let Shared { table, .. } = &**self.shared;
            table.leave(self.id, &self.waiter, self.open_claim());
            if error.is_fenced() {
                // Its lease ran out before it was renewed, and another task has the claim.
                return Answer::InProgress;
            }
            if error.is_full() {
                return Answer::EndNotStored;
            }
            Answer::StoreFailed(error)
        })
    }

    /// Stops waiting for a command that may have been sent. Its key stays in doubt, to be settled by
    /// the device's result or by a retry.
    async fn leave_open(self, permit: Permit, answer: Answer) -> Answer {
        let last = self
            .shared
            .table
            .leave(self.id, &self.waiter, self.open_claim());
        if let Some(Reply::Result { status, body, .. }) = last
            && let Some(outcome) = outcome_of(status, body)
        {
            return self.store(permit, outcome).await;
        }
        // Only now: a retry that gets the claim has to find the table as this task leaves it.
        drop(permit);
        answer
    }

    fn open_claim(&self) -> OpenClaim {
        OpenClaim {
            key: self.request.key.clone(),
            fingerprint: self.request.fingerprint,
        }
    }
}

fn must_stop(phase: Phase, maybe_sent: bool) -> bool {
    match phase {
        Phase::Serving => false,
        Phase::Draining => !maybe_sent,
        Phase::Stopping => true,
    }
}
