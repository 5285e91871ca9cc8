//! Asking a run to stop.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Why a run is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CancelCause {
    /// Its time ran out.
    TimedOut,
    /// A later firing takes its place (overlap policy).
    Superseded,
    /// Somebody asked for it.
    Requested,
    /// The scheduler shuts down and its deadline has passed.
    ShuttingDown,
}

const TIMED_OUT: u8 = 1;

/// Tells a run that it should stop. Nothing stops a run that does not look.
///
/// Cheap to clone; all clones are one token.
#[derive(Clone, Default)]
pub struct CancelToken(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// 0 while nobody asked; then the cause.
    cause: AtomicU8,
    wakers: Mutex<Vec<Waker>>,
    changed: Condvar,
}

impl CancelToken {
    /// Why the run should stop; none while it may go on.
    #[must_use]
    pub fn cause(&self) -> Option<CancelCause> {
        // Pairs with the exchange in `cancel`: what was done before it is seen behind it.
        match self.0.cause.load(Ordering::Acquire) {
            0 => None,
            TIMED_OUT => Some(CancelCause::TimedOut),
            2 => Some(CancelCause::Superseded),
            3 => Some(CancelCause::Requested),
            _ => Some(CancelCause::ShuttingDown),
        }
    }

    /// Whether the run should stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cause().is_some()
    }

    /// Sleeps for `time`, or until the run should stop: true then.
    #[must_use]
    pub fn sleep(&self, time: Duration) -> bool {
        let until = Instant::now().checked_add(time);
        let mut wakers = self.0.wakers.lock();
        while !self.is_cancelled() {
            match until {
                Some(until) => {
                    if self.0.changed.wait_until(&mut wakers, until).timed_out() {
                        break;
                    }
                }
                None => self.0.changed.wait(&mut wakers),
            }
        }
        self.is_cancelled()
    }

    /// Ready when the run should stop.
    #[must_use]
    pub fn cancelled(&self) -> Cancelled {
        Cancelled(self.clone())
    }

    /// The first cause stays, but a timeout gives way: whoever wants the run to stop does not want its next try.
    pub(crate) fn cancel(&self, cause: CancelCause) {
        let cause = match cause {
            CancelCause::TimedOut => TIMED_OUT,
            CancelCause::Superseded => 2,
            CancelCause::Requested => 3,
            CancelCause::ShuttingDown => 4,
        };
        // Under the lock, so that nobody falls asleep between looking and waiting.
        let mut wakers = self.0.wakers.lock();
        let asked = self
            .0
            .cause
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |asked| {
                (asked == 0 || asked == TIMED_OUT && cause != TIMED_OUT).then_some(cause)
            });
        if asked.is_ok() {
            self.0.changed.notify_all();
            wakers.drain(..).for_each(Waker::wake);
        }
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CancelToken").field(&self.cause()).finish()
    }
}

/// Ready when a run should stop. Made by [`CancelToken::cancelled`].
#[derive(Clone, Debug)]
pub struct Cancelled(CancelToken);

impl Future for Cancelled {
    type Output = CancelCause;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CancelCause> {
        let mut wakers = self.0.0.wakers.lock();
        if let Some(cause) = self.0.cause() {
            return Poll::Ready(cause);
        }
        if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }
}
