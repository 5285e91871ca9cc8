//! Items out of a handler, into async code.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use ::tokio::sync::mpsc;
use futures_core::Stream;

use crate::{SendError, Sender};

/// A way out of a handler that holds at most `capacity` items.
///
/// # Panics
/// When `capacity` is 0.
#[must_use]
pub fn outlet<T>(capacity: usize) -> (Outlet<T>, Items<T>) {
    let (items_in, items) = mpsc::channel(capacity);
    let starved = Arc::<AtomicBool>::default();
    let outlet = Outlet {
        items: items_in,
        starved: Arc::clone(&starved),
    };
    let items = Items {
        items,
        starved,
        low_mark: capacity / 2,
        shard: None,
    };
    (outlet, items)
}

/// The handler's end of an [`outlet`]; for one shard.
pub struct Outlet<T> {
    items: mpsc::Sender<T>,
    /// An item found no room, and nobody was told since that there is some.
    starved: Arc<AtomicBool>,
}

/// The other end of an [`outlet`]: a stream that ends when the handler's end is dropped and everything was taken.
pub struct Items<T> {
    items: mpsc::Receiver<T>,
    starved: Arc<AtomicBool>,
    low_mark: usize,
    shard: Option<Box<dyn Tell>>,
}

impl<T> Outlet<T> {
    /// Hands an item out, or gives it back.
    ///
    /// # Errors
    /// [`SendError::Full`]: keep the item, or drop it, and stop producing, by
    /// [`Io::pause_reading`](crate::Io::pause_reading) for instance: the message of [`Items::telling`] comes when half
    /// of the room is free, or when nobody takes items any more. [`SendError::Stopped`]: nobody takes items any more.
    pub fn try_send(&self, item: T) -> Result<(), SendError<T>> {
        let item = match self.items.try_send(item) {
            Ok(()) => return Ok(()),
            Err(mpsc::error::TrySendError::Closed(item)) => return Err(SendError::Stopped(item)),
            Err(mpsc::error::TrySendError::Full(item)) => item,
        };
        // Everything may have been taken before this was noted, and then nobody would tell: so look again.
        self.starved.store(true, Ordering::SeqCst);
        match self.items.try_send(item) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(item)) => Err(SendError::Stopped(item)),
            Err(mpsc::error::TrySendError::Full(item)) => Err(SendError::Full(item)),
        }
    }
}

impl<T> Items<T> {
    /// Sends the handler's shard the message that `room` makes when an item had found no room and half of it is free; dropped
    /// meanwhile, at once, unless the mailbox is full.
    #[must_use]
    pub fn telling<M: Send + 'static>(
        mut self,
        shard: Sender<M>,
        room: impl Fn() -> M + Send + 'static,
    ) -> Self {
        self.shard = Some(Box::new(Told {
            shard,
            room,
            owed: None,
            ticket: None,
        }));
        self
    }

    /// The next item; `None` when there will be none. Dropped before it is ready, it has taken none.
    pub async fn recv(&mut self) -> Option<T> {
        std::future::poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// As [`recv`](Self::recv), by hand.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(shard) = &mut self.shard {
            shard.poll_tell(cx);
        }
        let item = ready!(self.items.poll_recv(cx));
        // Behind the taking: see `Outlet::try_send`.
        if self.items.len() <= self.low_mark
            && let Some(shard) = &mut self.shard
            && self.starved.swap(false, Ordering::SeqCst)
        {
            shard.owe();
            shard.poll_tell(cx);
        }
        Poll::Ready(item)
    }
}

impl<T> Drop for Items<T> {
    /// A handler that waits for room shall not wait for ever: its next item tells it that nobody takes any.
    fn drop(&mut self) {
        // Closed before the look: an item that finds no room behind it finds this end gone.
        self.items.close();
        if let Some(shard) = &mut self.shard {
            if self.starved.swap(false, Ordering::SeqCst) {
                shard.owe();
            }
            shard.tell_last();
        }
    }
}

impl<T> Stream for Items<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.get_mut().poll_recv(cx)
    }
}

/// A shard that is told of room, whatever its messages are.
trait Tell: Send {
    /// There is room.
    fn owe(&mut self);
    /// Says so as soon as the shard's mailbox has room for it.
    fn poll_tell(&mut self, cx: &mut Context<'_>);
    /// Says so now, if the mailbox has room: nobody is there to wait for it any more.
    fn tell_last(&mut self);
}

struct Told<M, F> {
    shard: Sender<M>,
    room: F,
    /// Made and not sent: the mailbox is full.
    owed: Option<M>,
    ticket: Option<u64>,
}

impl<M: Send, F: Fn() -> M + Send> Tell for Told<M, F> {
    fn owe(&mut self) {
        self.owed.get_or_insert_with(&self.room);
    }

    fn poll_tell(&mut self, cx: &mut Context<'_>) {
        if let Some(message) = self.owed.take() {
            // A shard that has stopped needs no word.
            self.owed = self.shard.poll_send(message, &mut self.ticket, cx).err();
        }
    }

    fn tell_last(&mut self) {
        if let Some(message) = self.owed.take() {
            let _ = self.shard.try_send(message);
        }
    }
}

impl<M, F> Drop for Told<M, F> {
    fn drop(&mut self) {
        self.shard.stop_waiting(&mut self.ticket);
    }
}

impl<T> fmt::Debug for Outlet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlet")
            .field("room", &self.items.capacity())
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Items<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Items")
            .field("waiting", &self.items.len())
            .finish_non_exhaustive()
    }
}
