//! Futures over the service: they need no runtime's timer, and work in any runtime.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker, ready};
use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_core::Stream;

use super::{Config, Handle, TimerService};
use crate::{Key, OrderedWheel};

/// A [`TimerService`] of wakers: what futures sleep on. Cheap to clone.
///
/// ```
/// use std::time::Duration;
/// use timerwheel::service::{Config, Sleeps};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// let mut config = Config::default();
/// config.shards = 1;
/// let sleeps = Sleeps::start(config)?;
/// sleeps.sleep(Duration::from_micros(300)).await;
///
/// let forever = std::future::pending::<()>();
/// assert!(sleeps.timeout(Duration::from_millis(1), forever).await.is_err());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Sleeps {
    service: Arc<TimerService<Waker>>,
}

impl Sleeps {
    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// As [`TimerService::start`].
    pub fn start(config: Config) -> io::Result<Self> {
        let service = Arc::new(TimerService::start(config, |_| Waker::wake)?);
        Ok(Sleeps { service })
    }

    /// The service: its clock, its lateness, its warnings.
    pub fn service(&self) -> &TimerService<Waker> {
        &self.service
    }

    /// Is ready when `delay` has passed from now.
    pub fn sleep(&self, delay: Duration) -> Sleep {
        let delay_ns = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        self.sleep_until_ns(self.service.now_ns().saturating_add(delay_ns))
    }

    /// Is ready at `deadline`.
    pub fn sleep_until(&self, deadline: Instant) -> Sleep {
        self.sleep(deadline.saturating_duration_since(Instant::now()))
    }

    /// Is ready at a time of the service's clock.
    pub fn sleep_until_ns(&self, deadline_ns: u64) -> Sleep {
        Sleep {
            service: self.service.clone(),
            deadline_ns,
            armed: None,
        }
    }

    /// Gives `future` as long as `delay`, counted from now.
    pub fn timeout<F: Future>(&self, delay: Duration, future: F) -> Timeout<F> {
        Timeout {
            future,
            sleep: self.sleep(delay),
        }
    }
}

/// Made by [`Sleeps::sleep`]. Dropping it cancels it.
///
/// When the service refuses the timer (see [`Refused`](super::Refused)), the task is woken at once to try again:
/// it is late only if the service stays full, and never early.
#[must_use = "futures do nothing unless polled"]
pub struct Sleep {
    service: Arc<TimerService<Waker>>,
    deadline_ns: u64,
    armed: Option<(Handle<Waker>, Waker)>,
}

impl Sleep {
    /// When it is ready, on the service's clock.
    pub fn deadline_ns(&self) -> u64 {
        self.deadline_ns
    }

    /// Moves it to another deadline.
    pub fn reset_ns(&mut self, deadline_ns: u64) {
        if deadline_ns != self.deadline_ns {
            self.disarm();
            self.deadline_ns = deadline_ns;
        }
    }

    fn disarm(&mut self) {
        if let Some((handle, _)) = self.armed.take() {
            handle.cancel();
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.service.now_ns() >= self.deadline_ns {
            self.disarm();
            return Poll::Ready(());
        }
        if let Some((handle, waker)) = &self.armed
            && waker.will_wake(context.waker())
            && handle.is_waiting()
        {
            return Poll::Pending;
        }
        self.disarm();
        let waker = context.waker();
        match self.service.at_ns(self.deadline_ns, waker.clone()) {
            Ok(handle) => self.armed = Some((handle, waker.clone())),
            Err(_) => waker.wake_by_ref(),
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.disarm();
    }
}

pin_project_lite::pin_project! {
    /// Made by [`Sleeps::timeout`].
    #[must_use = "futures do nothing unless polled"]
    pub struct Timeout<F> {
        #[pin]
        future: F,
        sleep: Sleep,
    }
}

/// The time was over before the future was ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed(());

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time was over before the future was ready")
    }
}

impl core::error::Error for Elapsed {}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let own = self.project();
        if let Poll::Ready(output) = own.future.poll(context) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(own.sleep).poll(context).map(|()| Err(Elapsed(())))
    }
}

/// Values that come out of a stream when their time has come: a wheel of its own with one [`Sleep`].
///
/// They come in the order of their deadlines. While it is empty the stream says `None`, and goes on after the
/// next insert.
pub struct DelayQueue<T> {
    wheel: OrderedWheel<T>,
    sleep: Sleep,
    /// Who polled last, to be told when an earlier timer came in.
    waker: Option<Waker>,
}

impl<T> DelayQueue<T> {
    /// An empty queue that sleeps on `sleeps`.
    pub fn new(sleeps: &Sleeps) -> Self {
        let tick = NonZeroU64::new(1 << 20).expect("not zero");
        DelayQueue {
            wheel: OrderedWheel::with_tick(sleeps.service.now_ns(), tick),
            sleep: sleeps.sleep_until_ns(u64::MAX),
            waker: None,
        }
    }

    /// Adds a value that comes out after `delay`, counted from now.
    pub fn insert(&mut self, value: T, delay: Duration) -> Key {
        let deadline_ns = self.deadline_ns(delay);
        let key = self.wheel.insert(deadline_ns, (), value);
        self.tell(deadline_ns);
        key
    }

    /// Takes a value out; `None` when it has come out already.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.wheel.cancel(key)
    }

    /// Gives a value another `delay`, counted from now; false when it has come out already.
    pub fn reset(&mut self, key: Key, delay: Duration) -> bool {
        let deadline_ns = self.deadline_ns(delay);
        let waits = self.wheel.reschedule(key, deadline_ns);
        if waits {
            self.tell(deadline_ns);
        }
        waits
    }

    /// Values that wait.
    pub fn len(&self) -> usize {
        self.wheel.len()
    }

    /// Whether no value waits.
    pub fn is_empty(&self) -> bool {
        self.wheel.is_empty()
    }

    /// The next value whose time has come; `None` when the queue is empty.
    pub fn poll_expired(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        loop {
            let now_ns = self.sleep.service.now_ns();
            if let Some((_, value)) = self.wheel.pop_due(now_ns) {
                return Poll::Ready(Some(value));
            }
            self.waker = Some(context.waker().clone());
            let Some(deadline_ns) = self.wheel.look_ahead() else {
                return Poll::Ready(None);
            };
            self.sleep.reset_ns(deadline_ns);
            ready!(Pin::new(&mut self.sleep).poll(context));
        }
    }

    fn deadline_ns(&self, delay: Duration) -> u64 {
        let delay_ns = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        self.sleep.service.now_ns().saturating_add(delay_ns)
    }

    fn tell(&mut self, deadline_ns: u64) {
        if (self.sleep.armed.is_none() || deadline_ns < self.sleep.deadline_ns)
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }
}

impl<T> Unpin for DelayQueue<T> {}

impl<T> Stream for DelayQueue<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.poll_expired(context)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), None)
    }
}

impl fmt::Debug for Sleeps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sleeps").field(&self.service).finish()
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep")
            .field("deadline_ns", &self.deadline_ns)
            .finish_non_exhaustive()
    }
}

impl<F> fmt::Debug for Timeout<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timeout")
            .field("sleep", &self.sleep)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for DelayQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DelayQueue")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
