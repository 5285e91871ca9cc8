//! A command on its way through a device, and the promise to answer it.

use std::sync::Arc;

use conn_reactor::Sender;
use conn_reactor::client::ClientId;
use parking_lot::Mutex;

use super::ledger::Answer;
use super::member::CrewMessage;
use crate::proto::{CommandId, PAYLOAD_BYTES_MAX};

/// A command to execute, once.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Command {
    /// Which device of a fleet it is for.
    pub device: Arc<str>,
    /// Names the command for ever.
    pub id: CommandId,
    /// The payload, JSON.
    pub payload: Vec<u8>,
    /// Milliseconds that the caller waited at most when the command was sent.
    pub timeout_ms: u32,
}

/// The promise to answer a command. Dropped without an answer, for instance by a panic, it answers
/// that the command was interrupted: its effect may have happened.
#[derive(Debug)]
pub struct Reply {
    outbox: Outbox,
    member: ClientId,
    id: CommandId,
    answered: bool,
}

/// Answers that wait for their shard. As many as commands run, so bounded by the ledgers.
#[derive(Clone)]
pub(crate) struct Outbox {
    answers: Arc<Mutex<Vec<(ClientId, CommandId, Answer)>>>,
    shard: Sender<CrewMessage>,
}

impl Outbox {
    pub(crate) fn new(shard: Sender<CrewMessage>) -> Self {
        Self {
            answers: Arc::default(),
            shard,
        }
    }

    pub(crate) fn take(&self) -> Vec<(ClientId, CommandId, Answer)> {
        std::mem::take(&mut *self.answers.lock())
    }
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outbox")
    }
}

impl Reply {
    pub(crate) fn new(outbox: Outbox, member: ClientId, id: CommandId) -> Self {
        Self {
            outbox,
            member,
            id,
            answered: false,
        }
    }

    /// Answers from any thread. An answer of more than 64 KiB cannot be sent: the caller then hears
    /// that the command is in doubt.
    pub fn answer(mut self, answer: Answer) {
        if answer.body.len() > PAYLOAD_BYTES_MAX {
            let bytes = answer.body.len();
            tracing::error!(id = %self.id, bytes, "an answer is larger than {PAYLOAD_BYTES_MAX} bytes");
            return self.send(Answer::interrupted());
        }
        self.send(answer);
    }

    fn send(&mut self, answer: Answer) {
        self.answered = true;
        let mut answers = self.outbox.answers.lock();
        answers.push((self.member, self.id, answer));
        if answers.len() == 1 {
            // A full mailbox will be read anyway, and a stopped shard needs no answers.
            drop(self.outbox.shard.try_send(CrewMessage::Answers));
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.answered {
            self.send(Answer::interrupted());
        }
    }
}
