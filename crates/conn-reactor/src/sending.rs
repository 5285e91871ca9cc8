//! Sending to a shard from async code, whatever the runtime: who waits for room in a mailbox.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::{SendError, Sender};

/// Tasks that wait for room in one mailbox, in the order in which they came.
#[derive(Default)]
pub(crate) struct Waiters {
    by_ticket: BTreeMap<u64, Waker>,
    next_ticket: u64,
}

impl Waiters {
    /// Waits, at the place that the ticket has already or at the end.
    pub(crate) fn wait(&mut self, ticket: &mut Option<u64>, waker: &Waker) {
        let ticket = *ticket.get_or_insert_with(|| {
            self.next_ticket += 1;
            self.next_ticket
        });
        match self.by_ticket.get_mut(&ticket) {
            Some(waiting) => waiting.clone_from(waker),
            None => drop(self.by_ticket.insert(ticket, waker.clone())),
        }
    }

    /// Waits no longer. `false`: it was woken already.
    pub(crate) fn leave(&mut self, ticket: u64) -> bool {
        self.by_ticket.remove(&ticket).is_some()
    }

    /// The first `room` that wait, to be woken once the mailbox is unlocked. Empty, without memory, when nobody waits.
    pub(crate) fn admit(&mut self, room: usize) -> Vec<Waker> {
        let room = room.min(self.by_ticket.len());
        (0..room)
            .filter_map(|_| Some(self.by_ticket.pop_first()?.1))
            .collect()
    }
}

/// What [`Sender::send`] returns: resolves when the mailbox has taken the message, or the shard has stopped.
///
/// Dropped before, it has sent nothing.
#[must_use = "a future does nothing unless it is awaited"]
pub struct Sending<'a, M> {
    sender: &'a Sender<M>,
    message: Option<M>,
    ticket: Option<u64>,
}

impl<'a, M> Sending<'a, M> {
    pub(crate) fn new(sender: &'a Sender<M>, message: M) -> Self {
        Self {
            sender,
            message: Some(message),
            ticket: None,
        }
    }
}

// The message is moved, never pinned.
impl<M> Unpin for Sending<'_, M> {}

impl<M> Future for Sending<'_, M> {
    type Output = Result<(), SendError<M>>;

    /// # Panics
    /// When it is polled after it was ready.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let message = this.message.take().expect("polled after it was ready");
        match this.sender.poll_send(message, &mut this.ticket, cx) {
            Ok(result) => Poll::Ready(result),
            Err(message) => {
                this.message = Some(message);
                Poll::Pending
            }
        }
    }
}

impl<M> Drop for Sending<'_, M> {
    fn drop(&mut self) {
        self.sender.stop_waiting(&mut self.ticket);
    }
}

impl<M> fmt::Debug for Sending<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending")
            .field("is_waiting", &self.ticket.is_some())
            .finish_non_exhaustive()
    }
}
