//! Commands that are out: who waits for which result.
//!
//! A command id stays here from the moment before its first byte is sent until its outcome is
//! durable. So an id that is not here was answered long ago, and a device that repeats its result
//! can be told to forget it.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::directory::Device;
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
    Waiting(oneshot::Sender<Reply>),
    /// The result is here and on its way into the store.
    Settling,
    /// The task was told that a send failed and is about to wait again; the device may have answered
    /// an earlier send in between.
    Between(Option<Reply>),
    /// Nobody waits; the store holds the key as in doubt.
    Unresolved(OpenClaim),
}

/// A claim in the store whose command may have been executed.
#[derive(Clone, Debug)]
pub(crate) struct OpenClaim {
    pub(crate) key: Vec<u8>,
    pub(crate) fingerprint: idem_store::Fingerprint,
}

/// What a waiting task learns.
#[derive(Debug)]
pub(crate) enum Reply {
    /// The device answered.
    Result { status: ResultStatus, body: Vec<u8> },
    /// No byte of the command was sent.
    NotSent(NotSent),
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
pub(crate) enum Delivery {
    /// A task has it.
    Delivered,
    /// It is being stored already; its acknowledgement is on the way.
    Settling,
    /// It ends a claim that nobody waits for.
    Settle(OpenClaim),
    /// Its outcome is stored, or there never was such a command: the device may forget it.
    Unknown,
    /// The command belongs to another device.
    Foreign,
}

impl CommandTable {
    fn bucket(&self, id: CommandId) -> &Mutex<HashMap<CommandId, Entry>> {
        &self.buckets[usize::from(id.0[0]) % BUCKETS]
    }

    /// A task will wait for `id`. It replaces an unresolved claim.
    pub(crate) fn wait(&self, id: CommandId, device: &Device) -> oneshot::Receiver<Reply> {
        let (sender, receiver) = oneshot::channel();
        let mut bucket = self.bucket(id).lock();
        let early = match bucket.get_mut(&id).map(|entry| &mut entry.state) {
            Some(State::Between(early)) => early.take(),
            _ => None,
        };
        let state = match early {
            Some(reply) => {
                drop(sender.send(reply));
                State::Settling
            }
            None => State::Waiting(sender),
        };
        bucket.insert(
            id,
            Entry {
                device: device.id().into(),
                state,
            },
        );
        receiver
    }

    /// The claim behind `id` has no task any more, but may have an effect. To be called before its
    /// permit is given up: the next holder of the permit replaces this entry.
    pub(crate) fn leave_unresolved(&self, id: CommandId, device: &str, claim: OpenClaim) {
        let entry = Entry {
            device: device.into(),
            state: State::Unresolved(claim),
        };
        self.bucket(id).lock().insert(id, entry);
    }

    /// A result that was [to be settled](Delivery::Settle) could not be. Changes nothing when a retry
    /// waits for the command by now.
    pub(crate) fn unsettle(&self, id: CommandId, claim: OpenClaim) {
        if let Some(entry) = self.bucket(id).lock().get_mut(&id)
            && matches!(entry.state, State::Settling)
        {
            entry.state = State::Unresolved(claim);
        }
    }

    /// The outcome of `id` is durable, or its claim was released.
    pub(crate) fn remove(&self, id: CommandId) {
        self.bucket(id).lock().remove(&id);
    }

    /// A result of `id` arrived from `device`.
    pub(crate) fn deliver(
        &self,
        id: CommandId,
        device: &Device,
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
        let reply = || Reply::Result {
            status,
            body: body.to_vec(),
        };
        match std::mem::replace(&mut entry.state, State::Settling) {
            State::Waiting(waiter) => {
                // A task that stopped listening in this very moment hears it when it is repeated.
                drop(waiter.send(reply()));
                Delivery::Delivered
            }
            State::Settling => Delivery::Settling,
            State::Between(early) => {
                entry.state = State::Between(Some(early.unwrap_or_else(reply)));
                Delivery::Delivered
            }
            State::Unresolved(claim) => Delivery::Settle(claim),
        }
    }

    /// `id` could not be sent.
    pub(crate) fn not_sent(&self, id: CommandId, why: NotSent) {
        let mut bucket = self.bucket(id).lock();
        let Some(entry) = bucket.get_mut(&id) else {
            return;
        };
        match std::mem::replace(&mut entry.state, State::Between(None)) {
            State::Waiting(waiter) => drop(waiter.send(Reply::NotSent(why))),
            // Its task has the result already, or has left the claim open.
            other => entry.state = other,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.lock().len()).sum()
    }
}
