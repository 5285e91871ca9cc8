//! Commands that are out: who waits for which result.
//!
//! A command id stays here from the moment before its first byte is sent until its outcome is
//! durable. So an id that is not here was answered long ago, and a device that repeats its result
//! can be told to forget it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::device::Device;
use crate::proto::{CommandId, ResultStatus};

const BUCKETS: usize = 16;

/// Every command that is out.
#[derive(Default)]
pub(crate) struct CommandTable {
    buckets: [Mutex<HashMap<CommandId, Entry>>; BUCKETS],
}

struct Entry {
    device: Box<str>,
    state: State,
}

enum State {
    /// A task waits for the result.
    Waiting(Inbox),
    /// A result that no task waited for is on its way into the store.
    Settling,
    /// Nobody waits; the store holds the key as in doubt.
    Unresolved(OpenClaim),
}

/// What a task has not read yet: at most one refusal and one word that it was not sent for each
/// session that it was sent on, and one result.
struct Inbox {
    replies: Vec<Reply>,
    answered: bool,
    wake: Arc<Notify>,
}

/// A task's place in the table.
pub(crate) struct Waiter(Arc<Notify>);

/// A claim in the store whose command may have been executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OpenClaim {
    pub(crate) key: Vec<u8>,
    pub(crate) fingerprint: idem_store::Fingerprint,
}

/// What a waiting task learns.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The device answered on the session `epoch`.
    Result {
        epoch: u64,
        status: ResultStatus,
        body: Vec<u8>,
    },
    /// Of what was to be sent on the session `epoch`, no whole command was.
    NotSent { epoch: u64, why: NotSent },
}

/// Why a command was not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NotSent {
    /// The session is over; the device's next one will be tried.
    SessionOver,
    /// The device does not read as fast as it is sent commands.
    QueueFull,
}

/// What a result that arrived leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// Whoever has to act on it knows it.
    Delivered,
    /// It ends a claim that nobody waits for.
    Settle(OpenClaim),
    /// Its outcome is stored, or there never was such a command: the device may forget it.
    Unknown,
    /// The command belongs to another device.
    Foreign,
}

/// Another task waits for the command now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Superseded;

impl CommandTable {
    fn bucket(&self, id: CommandId) -> &Mutex<HashMap<CommandId, Entry>> {
        &self.buckets[usize::from(id.0[0]) % BUCKETS]
    }

    /// A task will wait for `id`. It takes the place of an unresolved claim, or of a task that lost
    /// its claim.
    pub(crate) fn wait(&self, id: CommandId, device: &Device) -> Waiter {
        let wake = Arc::new(Notify::new());
        let inbox = Inbox {
            replies: Vec::new(),
            answered: false,
            wake: Arc::clone(&wake),
        };
        let entry = Entry {
            device: device.id().into(),
            state: State::Waiting(inbox),
        };
        let before = self.bucket(id).lock().insert(id, entry);
        if let Some(Entry {
            state: State::Waiting(superseded),
            ..
        }) = before
        {
            superseded.wake.notify_one();
        }
        Waiter(wake)
    }

    /// The oldest reply that the task has not read.
    pub(crate) fn read(&self, id: CommandId, waiter: &Waiter) -> Result<Option<Reply>, Superseded> {
        let mut bucket = self.bucket(id).lock();
        let inbox = bucket.get_mut(&id).and_then(|entry| entry.inbox_of(waiter));
        let inbox = inbox.ok_or(Superseded)?;
        Ok((!inbox.replies.is_empty()).then(|| inbox.replies.remove(0)))
    }

    /// The task will not wait any more, and its claim stays open. A result that arrived before that
    /// is given back, and the task goes on waiting.
    pub(crate) fn leave(&self, id: CommandId, waiter: &Waiter, claim: OpenClaim) -> Option<Reply> {
        let mut bucket = self.bucket(id).lock();
        let entry = bucket.get_mut(&id)?;
        let replies = &mut entry.inbox_of(waiter)?.replies;
        if let Some(at) = replies.iter().position(Reply::is_final) {
            return Some(replies.remove(at));
        }
        entry.state = State::Unresolved(claim);
        None
    }

    /// An earlier run of the gateway, or another one, left this claim open; unless somebody here
    /// is at it.
    pub(crate) fn recall(&self, id: CommandId, device: &str, claim: OpenClaim) {
        let entry = Entry {
            device: device.into(),
            state: State::Unresolved(claim),
        };
        self.bucket(id).lock().entry(id).or_insert(entry);
    }

    /// Every command whose claim is open and that nobody here is at.
    pub(crate) fn unresolved(&self) -> HashSet<CommandId> {
        let mut ids = HashSet::new();
        for bucket in &self.buckets {
            let bucket = bucket.lock();
            let open = bucket.iter().filter(|(_, entry)| entry.is_unresolved());
            ids.extend(open.map(|(id, _)| *id));
        }
        ids
    }

    /// The claim of `id` is not open any more, unless somebody here is at it.
    pub(crate) fn forget_unresolved(&self, id: CommandId) {
        let mut bucket = self.bucket(id).lock();
        if bucket.get(&id).is_some_and(Entry::is_unresolved) {
            bucket.remove(&id);
        }
    }

    /// A result that [`deliver`](Self::deliver) gave out for settling could not be stored. A task that
    /// waits by now gets it; otherwise the claim is open again, until the device repeats it.
    pub(crate) fn restore(&self, id: CommandId, result: Reply, claim: OpenClaim) {
        let mut bucket = self.bucket(id).lock();
        match bucket.get_mut(&id).map(|entry| &mut entry.state) {
            Some(State::Waiting(inbox)) => inbox.put(result),
            Some(state @ State::Settling) => *state = State::Unresolved(claim),
            // Somebody else ended the claim.
            Some(State::Unresolved(_)) | None => {}
        }
    }

    /// The outcome of `id` is durable, or its claim was released.
    pub(crate) fn remove(&self, id: CommandId) {
        self.bucket(id).lock().remove(&id);
    }

    /// A result of `id` arrived from `device` on its session `epoch`.
    pub(crate) fn deliver(
        &self,
        id: CommandId,
        device: &Device,
        epoch: u64,
        status: ResultStatus,
        body: &[u8],
    ) -> Delivery {
        let mut bucket = self.bucket(id).lock();
        let Some(entry) = bucket.get_mut(&id) else {
            return Delivery::Unknown;
        };
        if *entry.device != *device.id() {
            return Delivery::Foreign;
        }
        match &mut entry.state {
            State::Waiting(inbox) => {
                // Nobody reads why a command was refused.
                let is_read = status != ResultStatus::Refused;
                let body = if is_read { body.to_vec() } else { Vec::new() };
                inbox.put(Reply::Result {
                    epoch,
                    status,
                    body,
                });
                Delivery::Delivered
            }
            // An unresolved command may be out more than once, and another copy of it may be
            // executed: a refusal says nothing.
            State::Unresolved(_) if status == ResultStatus::Refused => Delivery::Delivered,
            State::Settling => Delivery::Delivered,
            State::Unresolved(claim) => {
                let claim = claim.clone();
                entry.state = State::Settling;
                Delivery::Settle(claim)
            }
        }
    }

    /// `id` could not be sent on the session `epoch`.
    pub(crate) fn not_sent(&self, id: CommandId, epoch: u64, why: NotSent) {
        if let Some(Entry {
            state: State::Waiting(inbox),
            ..
        }) = self.bucket(id).lock().get_mut(&id)
        {
            inbox.put(Reply::NotSent { epoch, why });
        }
    }

    #[cfg(test)]
    pub(crate) fn is_awaited(&self, id: CommandId) -> bool {
        let bucket = self.bucket(id).lock();
        matches!(
            bucket.get(&id),
            Some(Entry {
                state: State::Waiting(_),
                ..
            })
        )
    }

    pub(crate) fn len(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.lock().len()).sum()
    }
}

impl Waiter {
    /// Resolves when there may be something to read.
    pub(crate) async fn woken(&self) {
        self.0.notified().await;
    }
}

impl Reply {
    /// Nothing that comes after it matters.
    fn is_final(&self) -> bool {
        matches!(self, Self::Result { status, .. } if *status != ResultStatus::Refused)
    }
}

impl Entry {
    fn is_unresolved(&self) -> bool {
        matches!(self.state, State::Unresolved(_))
    }

    fn inbox_of(&mut self, waiter: &Waiter) -> Option<&mut Inbox> {
        match &mut self.state {
            State::Waiting(inbox) if Arc::ptr_eq(&inbox.wake, &waiter.0) => Some(inbox),
            _ => None,
        }
    }
}

impl Inbox {
    fn put(&mut self, reply: Reply) {
        if self.answered {
            // The device repeats its result; it will hear that it is stored.
            return;
        }
        if !reply.is_final() && self.replies.contains(&reply) {
            // A device that refuses again and again says nothing new.
            return;
        }
        self.answered = reply.is_final();
        self.replies.push(reply);
        self.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: CommandId = CommandId([7; 16]);

    fn claim() -> OpenClaim {
        OpenClaim {
            key: b"key".to_vec(),
            fingerprint: idem_store::Fingerprint([1; 32]),
        }
    }

    fn result(epoch: u64) -> Reply {
        Reply::Result {
            epoch,
            status: ResultStatus::Json,
            body: b"1".to_vec(),
        }
    }

    fn deliver(
        table: &CommandTable,
        device: &Device,
        epoch: u64,
        status: ResultStatus,
    ) -> Delivery {
        table.deliver(ID, device, epoch, status, b"1")
    }

    #[test]
    fn nothing_is_lost_between_two_reads() {
        let (table, device) = (CommandTable::default(), Device::new("a", 1));
        let waiter = table.wait(ID, &device);
        table.not_sent(ID, 1, NotSent::SessionOver);
        assert_eq!(
            deliver(&table, &device, 2, ResultStatus::Json),
            Delivery::Delivered
        );
        assert_eq!(
            deliver(&table, &device, 2, ResultStatus::Json),
            Delivery::Delivered
        );
        let not_sent = Reply::NotSent {
            epoch: 1,
            why: NotSent::SessionOver,
        };
        assert_eq!(table.read(ID, &waiter), Ok(Some(not_sent)));
        assert_eq!(table.read(ID, &waiter), Ok(Some(result(2))));
        assert_eq!(
            table.read(ID, &waiter),
            Ok(None),
            "a repeated result is read once"
        );
        assert_eq!(
            deliver(&table, &Device::new("b", 1), 1, ResultStatus::Json),
            Delivery::Foreign
        );
        table.remove(ID);
        assert_eq!(
            deliver(&table, &device, 2, ResultStatus::Json),
            Delivery::Unknown
        );
    }

    #[test]
    fn a_result_in_the_last_moment_keeps_its_task() {
        let (table, device) = (CommandTable::default(), Device::new("a", 1));
        let waiter = table.wait(ID, &device);
        deliver(&table, &device, 1, ResultStatus::Json);
        assert_eq!(table.leave(ID, &waiter, claim()), Some(result(1)));
        assert_eq!(table.leave(ID, &waiter, claim()), None);
        assert_eq!(
            deliver(&table, &device, 1, ResultStatus::Json),
            Delivery::Settle(claim())
        );
    }

    #[test]
    fn a_retry_and_a_stray_result_do_not_disturb_each_other() {
        let (table, device) = (CommandTable::default(), Device::new("a", 1));
        table.recall(ID, "a", claim());
        assert_eq!(
            deliver(&table, &device, 1, ResultStatus::Json),
            Delivery::Settle(claim())
        );
        assert_eq!(
            deliver(&table, &device, 1, ResultStatus::Json),
            Delivery::Delivered
        );
        // The retry got the claim while the result was being settled.
        let waiter = table.wait(ID, &device);
        table.restore(ID, result(1), claim());
        assert_eq!(table.read(ID, &waiter), Ok(Some(result(1))));
        table.remove(ID);
        table.restore(ID, result(1), claim());
        assert_eq!(table.len(), 0, "an ended claim is not opened again");

        table.recall(ID, "a", claim());
        deliver(&table, &device, 1, ResultStatus::Json);
        table.restore(ID, result(1), claim());
        assert_eq!(
            deliver(&table, &device, 2, ResultStatus::Json),
            Delivery::Settle(claim())
        );
    }

    #[test]
    fn a_refusal_settles_nothing() {
        let (table, device) = (CommandTable::default(), Device::new("a", 1));
        table.recall(ID, "a", claim());
        assert_eq!(
            deliver(&table, &device, 1, ResultStatus::Refused),
            Delivery::Delivered
        );
        assert_eq!(
            deliver(&table, &device, 1, ResultStatus::Json),
            Delivery::Settle(claim())
        );
    }

    #[test]
    fn a_task_that_lost_its_claim_is_told_and_changes_nothing() {
        let (table, device) = (CommandTable::default(), Device::new("a", 1));
        let old = table.wait(ID, &device);
        let new = table.wait(ID, &device);
        assert_eq!(table.read(ID, &old), Err(Superseded));
        assert_eq!(table.leave(ID, &old, claim()), None);
        assert_eq!(table.read(ID, &new), Ok(None));
    }
}
