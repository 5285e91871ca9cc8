//! Messages from other threads to a shard: a bounded queue and the descriptor that wakes the shard.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker as Task};

use crate::platform::Waker;
use crate::sending::Waiters;
use crate::{SendError, Sending};

/// Sends messages to one shard, from any thread.
///
/// A message that was accepted is delivered to [`Handler::message`](crate::Handler::message) exactly once, in the
/// order of its sender, unless the shard stops first. The shard is woken (one `write` to its eventfd) only when it
/// may be asleep. A sender keeps that descriptor open, even when its shard has stopped.
pub struct Sender<M> {
    shared: Arc<Shared<M>>,
}

struct Shared<M> {
    state: Mutex<State<M>>,
    /// Set by the shard before it looks into the queue for the last time and waits; taken by whoever wakes it.
    asleep: AtomicBool,
    waker: Waker,
    mailbox_max: usize,
}

struct State<M> {
    queue: VecDeque<M>,
    waiters: Waiters,
    stop_requested: bool,
    stopped: bool,
}

impl<M> Sender<M> {
    /// Hands a message over, or gives it back when the mailbox is full or the shard has stopped.
    ///
    /// # Errors
    /// [`SendError::Full`] or [`SendError::Stopped`], with the message in it.
    pub fn try_send(&self, message: M) -> Result<(), SendError<M>> {
        {
            let mut state = self.shared.lock();
            if state.stopped {
                return Err(SendError::Stopped(message));
            }
            if state.queue.len() >= self.shared.mailbox_max {
                return Err(SendError::Full(message));
            }
            state.queue.push_back(message);
        }
        self.shared.wake_if_asleep();
        Ok(())
    }

    /// Hands a message over as soon as the mailbox has room, for async code on any runtime. Those that wait get room in
    /// the order in which they came, but [`try_send`](Self::try_send) and newcomers may be faster.
    ///
    /// # Errors
    /// [`SendError::Stopped`], with the message in it.
    pub fn send(&self, message: M) -> Sending<'_, M> {
        Sending::new(self, message)
    }

    /// Hands a message over or, when the mailbox is full, gives it back and wakes the task when that may have changed.
    /// `ticket` is the task's place among those that wait; [`stop_waiting`](Self::stop_waiting) has to follow.
    pub(crate) fn poll_send(
        &self,
        message: M,
        ticket: &mut Option<u64>,
        cx: &mut Context<'_>,
    ) -> Result<Result<(), SendError<M>>, M> {
        {
            let mut state = self.shared.lock();
            if state.stopped {
                return Ok(Err(SendError::Stopped(message)));
            }
            if state.queue.len() >= self.shared.mailbox_max {
                state.waiters.wait(ticket, cx.waker());
                return Err(message);
            }
            if let Some(ticket) = ticket.take() {
                state.waiters.leave(ticket);
            }
            state.queue.push_back(message);
        }
        self.shared.wake_if_asleep();
        Ok(Ok(()))
    }

    /// The task waits no longer. If it was woken for room that it did not use, the next one is.
    pub(crate) fn stop_waiting(&self, ticket: &mut Option<u64>) {
        let Some(ticket) = ticket.take() else { return };
        let next = {
            let mut state = self.shared.lock();
            let has_room = state.queue.len() < self.shared.mailbox_max;
            match state.waiters.leave(ticket) {
                false if has_room => state.waiters.admit(1),
                _ => Vec::new(),
            }
        };
        next.into_iter().for_each(Task::wake);
    }

    /// Messages that wait now.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.shared.lock().queue.len()
    }

    /// Asks the shard to stop, as [`Io::stop`](crate::Io::stop) does from within; messages that still wait then may
    /// be dropped. Does nothing to a shard that has stopped.
    pub fn stop(&self) {
        self.shared.lock().stop_requested = true;
        self.shared.wake_if_asleep();
    }
}

impl<M> Clone for Sender<M> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<M> fmt::Debug for Sender<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("queued", &self.queued())
            .finish_non_exhaustive()
    }
}

impl<M> Shared<M> {
    fn lock(&self) -> MutexGuard<'_, State<M>> {
        // Nothing panics while the lock is held but an allocation; the queue is whole even then.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_if_asleep(&self) {
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.waker.wake();
        }
    }
}

/// The shard's end.
pub(crate) struct Mailbox<M> {
    shared: Arc<Shared<M>>,
}

impl<M> Mailbox<M> {
    pub(crate) fn new(waker: Waker, mailbox_max: usize) -> Self {
        let state = State {
            queue: VecDeque::new(),
            waiters: Waiters::default(),
            stop_requested: false,
            stopped: false,
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                asleep: AtomicBool::new(false),
                waker,
                mailbox_max,
            }),
        }
    }

    pub(crate) fn sender(&self) -> Sender<M> {
        Sender {
            shared: Arc::clone(&self.shared),
        }
    }

    pub(crate) fn waker(&self) -> &Waker {
        &self.shared.waker
    }

    /// Moves at most `count` messages to the end of `into`. Returns whether the shard was asked to stop.
    pub(crate) fn take(&self, into: &mut VecDeque<M>, count: usize) -> bool {
        let mut state = self.shared.lock();
        if state.queue.len() <= count && into.is_empty() {
            std::mem::swap(&mut state.queue, into);
        } else {
            let count = count.min(state.queue.len());
            into.extend(state.queue.drain(..count));
        }
        let room = self.shared.mailbox_max.saturating_sub(state.queue.len());
        let admitted = state.waiters.admit(room);
        let stop_requested = state.stop_requested;
        drop(state);
        admitted.into_iter().for_each(Task::wake);
        stop_requested
    }

    /// Announces that the shard is going to wait. `false`: something came meanwhile, so it must not.
    ///
    /// The flag is set before the queue is looked at and a sender looks at the flag after it has pushed, both under
    /// or after the same lock: either the shard sees the message here or the sender sees the flag and wakes.
    pub(crate) fn fall_asleep(&self) -> bool {
        self.shared.asleep.store(true, Ordering::SeqCst);
        let state = self.shared.lock();
        let quiet = state.queue.is_empty() && !state.stop_requested;
        if !quiet {
            self.shared.asleep.store(false, Ordering::SeqCst);
        }
        quiet
    }

    pub(crate) fn wake_up(&self) {
        self.shared.asleep.store(false, Ordering::SeqCst);
    }
}

impl<M> Drop for Mailbox<M> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.stopped = true;
        let left = std::mem::take(&mut state.queue);
        let waiting = state.waiters.admit(usize::MAX);
        drop(state);
        // Wakers run, and the messages' own drops, without the lock: they may send.
        waiting.into_iter().for_each(Task::wake);
        drop(left);
    }
}

#[cfg(test)]
#[cfg(all(
    any(target_os = "linux", target_os = "android"),
    not(conn_reactor_portable)
))]
mod tests {
    use super::*;

    fn mailbox(mailbox_max: usize) -> Mailbox<u32> {
        let poller = Arc::new(polling::Poller::new().unwrap());
        Mailbox::new(Waker::new(&poller).unwrap(), mailbox_max)
    }

    fn woken<M>(mailbox: &Mailbox<M>) -> u64 {
        let mut count = [0; 8];
        match rustix::io::read(mailbox.waker().source().unwrap(), &mut count) {
            Ok(_) => u64::from_ne_bytes(count),
            Err(_) => 0,
        }
    }

    #[test]
    fn a_sleeping_shard_is_woken_once_and_a_waking_one_not_at_all() {
        let mailbox = mailbox(10);
        let sender = mailbox.sender();
        sender.try_send(1).unwrap();
        assert_eq!(woken(&mailbox), 0, "an awake shard needs no wake-up");
        assert!(!mailbox.fall_asleep(), "a message waits");
        let mut taken = VecDeque::new();
        assert!(!mailbox.take(&mut taken, 10));
        assert_eq!(taken, [1]);
        assert!(mailbox.fall_asleep());
        sender.try_send(2).unwrap();
        sender.try_send(3).unwrap();
        assert_eq!(woken(&mailbox), 1, "the first of two messages wakes");
    }

    #[test]
    fn a_full_mailbox_and_a_stopped_one_give_the_message_back() {
        let mailbox = mailbox(2);
        let sender = mailbox.sender();
        sender.try_send(1).unwrap();
        sender.try_send(2).unwrap();
        assert_eq!(sender.try_send(3), Err(SendError::Full(3)));
        let mut taken = VecDeque::new();
        mailbox.take(&mut taken, 1);
        assert_eq!(taken, [1]);
        sender.try_send(3).unwrap();
        sender.stop();
        assert!(mailbox.take(&mut taken, 9));
        assert_eq!(taken, [1, 2, 3]);
        drop(mailbox);
        assert!(sender.try_send(4).unwrap_err().is_stopped());
    }
}
