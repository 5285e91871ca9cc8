//! Completions: what an operation returns at once, and how it learns that its batch is durable.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, Waker};

use crate::error::Error;
#[cfg(feature = "_remote")]
use crate::error::Kind;
use crate::sync::{AtomicU32, Mutex, Ordering, Word, fence};

/// The pending answer of an operation: a [`Future`] that needs no runtime, or [`wait`](Self::wait)
/// for threads.
///
/// The operation itself took effect when the method was called; the completion only says when it is
/// durable. Dropping it cancels nothing, with one exception: the permit of a
/// [`begin`](crate::Store::begin) that nobody took is given back, because nobody acted on it.
///
/// # Panics
/// Polling it again after it was ready panics.
#[must_use = "the operation is durable only once the completion says so"]
pub struct Completion<T> {
    state: State<T>,
}

enum State<T> {
    Ready(Result<T, Error>),
    /// `value` stands once `event` is settled; `finish` is applied as it is handed out.
    Value {
        event: Arc<Event>,
        slot: Option<usize>,
        value: T,
        finish: fn(&mut T),
    },
    /// What to do next depends on what is durable then.
    Then {
        event: Arc<Event>,
        slot: Option<usize>,
        next: Box<dyn FnOnce() -> Completion<T> + Send>,
    },
    Taken,
}

impl<T> Unpin for Completion<T> {}

impl<T> Completion<T> {
    pub(crate) fn ready(result: Result<T, Error>) -> Self {
        Self {
            state: State::Ready(result),
        }
    }

    pub(crate) fn failed(error: Error) -> Self {
        Self::ready(Err(error))
    }

    pub(crate) fn on_with(event: Arc<Event>, value: T, finish: fn(&mut T)) -> Self {
        Self {
            state: State::Value {
                event,
                slot: None,
                value,
                finish,
            },
        }
    }

    pub(crate) fn then(
        event: Arc<Event>,
        next: impl FnOnce() -> Completion<T> + Send + 'static,
    ) -> Self {
        Self {
            state: State::Then {
                event,
                slot: None,
                next: Box::new(next),
            },
        }
    }

    /// Blocks until the answer is there.
    ///
    /// # Errors
    /// As the operation that returned this completion says.
    pub fn wait(self) -> Result<T, Error> {
        let mut this = self;
        loop {
            if let Some(event) = this.event() {
                event.wait();
            }
            match this.step() {
                Step::Done(result) => return result,
                Step::Pending => {}
            }
        }
    }

    /// Takes the answer if it is there already, else gives the completion back.
    ///
    /// # Errors
    /// The completion itself, when the answer is still pending.
    pub fn try_now(mut self) -> Result<Result<T, Error>, Self> {
        loop {
            if let Some(event) = self.event()
                && !event.is_settled()
            {
                event.nudge();
                return Err(self);
            }
            if let Step::Done(result) = self.step() {
                return Ok(result);
            }
        }
    }

    fn event(&self) -> Option<&Arc<Event>> {
        match &self.state {
            State::Value { event, .. } | State::Then { event, .. } => Some(event),
            State::Ready(_) | State::Taken => None,
        }
    }

    /// One transition, valid when the event of the state (if any) is settled.
    fn step(&mut self) -> Step<T> {
        match std::mem::replace(&mut self.state, State::Taken) {
            State::Ready(result) => Step::Done(result),
            State::Value {
                event,
                mut value,
                finish,
                ..
            } => Step::Done(event.result().map(|()| {
                finish(&mut value);
                value
            })),
            State::Then { event, next, .. } => match event.result() {
                Ok(()) => {
                    self.state = next().into_state();
                    Step::Pending
                }
                Err(error) => Step::Done(Err(error)),
            },
            State::Taken => panic!("a completion was polled after it was ready"),
        }
    }

    fn into_state(mut self) -> State<T> {
        std::mem::replace(&mut self.state, State::Taken)
    }
}

enum Step<T> {
    Done(Result<T, Error>),
    Pending,
}

impl<T> Future for Completion<T> {
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                State::Value { event, slot, .. } | State::Then { event, slot, .. } => {
                    if !event.poll(slot, cx.waker()) {
                        return Poll::Pending;
                    }
                }
                State::Ready(_) | State::Taken => {}
            }
            if let Step::Done(result) = this.step() {
                return Poll::Ready(result);
            }
        }
    }
}

impl<T> Drop for Completion<T> {
    fn drop(&mut self) {
        if let State::Value { event, .. } | State::Then { event, .. } = &self.state {
            // Nobody may ever look at it, and it is to become durable all the same.
            event.nudge();
        }
    }
}

impl<T> fmt::Debug for Completion<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ready = self.event().is_none_or(|event| event.is_settled());
        f.debug_struct("Completion").field("ready", &ready).finish()
    }
}

/// The other end of a completion: whoever has it settles it. Dropped, it says that the store is
/// closed.
#[cfg(feature = "_remote")]
pub(crate) struct Promise<T> {
    event: Arc<Event>,
    value: Arc<Mutex<Option<T>>>,
}

#[cfg(feature = "_remote")]
impl<T: Send + 'static> Promise<T> {
    /// `finish` is applied to the value as it is handed out.
    pub(crate) fn new(finish: fn(&mut T)) -> (Self, Completion<T>) {
        let event = Event::new();
        let value = Arc::new(Mutex::new(None));
        let promised = Arc::clone(&value);
        let completion = Completion::then(Arc::clone(&event), move || {
            let value: Option<T> = promised.lock().take();
            let mut value = value.expect("an event without an error was given its value");
            finish(&mut value);
            Completion::ready(Ok(value))
        });
        (Self { event, value }, completion)
    }

    /// Nobody waits for it any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.value) == 1
    }

    pub(crate) fn keep(self, result: Result<T, Error>) {
        match result {
            Ok(value) => {
                *self.value.lock() = Some(value);
                self.event.done();
            }
            Err(error) => self.event.fail(&error),
        }
    }
}

#[cfg(feature = "_remote")]
impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        if !self.event.is_settled() {
            self.event.fail(&Error::new(Kind::Closed));
        }
    }
}

const PENDING: u32 = 0;
const DONE: u32 = 1;
const TIMED_OUT: u32 = 2;
const FAILED: u32 = 3;

/// Whoever settles events, asked by those who wait for one.
pub(crate) trait Helper: Send + Sync {
    /// Somebody is about to block: does what is due on this thread, if nobody else is at it.
    fn help(&self);
    /// Somebody waits: sees to it that what is due is done.
    fn nudge(&self);
}

/// Something that happens once and that many wait for: a batch becoming durable, a holder ending.
pub(crate) struct Event {
    /// Written once, under the lock of `wakers`; also the word that blocked threads sleep on.
    state: Word,
    /// Threads that may sleep. A fence stands between writing one of the two and reading the
    /// other: either the settler sees the thread, or the thread sees the state.
    threads: AtomicU32,
    error: OnceLock<Error>,
    wakers: Mutex<Vec<Waker>>,
    helper: Option<Weak<dyn Helper>>,
}

impl Event {
    pub(crate) fn new() -> Arc<Self> {
        Self::with(None)
    }

    /// An event that its waiters can bring about.
    pub(crate) fn helped(helper: Weak<dyn Helper>) -> Arc<Self> {
        Self::with(Some(helper))
    }

    fn with(helper: Option<Weak<dyn Helper>>) -> Arc<Self> {
        Arc::new(Self {
            state: Word::new(PENDING),
            threads: AtomicU32::new(0),
            error: OnceLock::new(),
            wakers: Mutex::new(Vec::new()),
            helper,
        })
    }

    fn helper(&self) -> Option<Arc<dyn Helper>> {
        self.helper.as_ref().and_then(Weak::upgrade)
    }

    /// Sees to it that it is on its way.
    pub(crate) fn nudge(&self) {
        if !self.is_settled() {
            self.helper().inspect(|helper| helper.nudge());
        }
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.state.load(Ordering::Acquire) != PENDING
    }

    pub(crate) fn is_timed_out(&self) -> bool {
        self.state.load(Ordering::Acquire) == TIMED_OUT
    }

    pub(crate) fn done(&self) {
        self.settle(DONE);
    }

    pub(crate) fn time_out(&self) {
        self.settle(TIMED_OUT);
    }

    pub(crate) fn fail(&self, error: &Error) {
        // A second failure cannot happen: an event is settled once, the first error stands.
        let _ = self.error.set(error.clone());
        self.settle(FAILED);
    }

    fn settle(&self, state: u32) {
        let mut registered = self.wakers.lock();
        if self.state.load(Ordering::Relaxed) != PENDING {
            return;
        }
        self.state.store(state, Ordering::Release);
        let wakers = std::mem::take(&mut *registered);
        drop(registered);
        fence(Ordering::SeqCst);
        if self.threads.load(Ordering::Relaxed) > 0 {
            // Only one, which wakes the others: to wake 64 takes as long as a sync, and the
            // flush thread has the next batch to write meanwhile.
            self.state.wake_one();
        }
        for waker in wakers {
            waker.wake();
        }
    }

    fn result(&self) -> Result<(), Error> {
        match self.state.load(Ordering::Acquire) {
            PENDING => unreachable!("the caller saw the event settled"),
            FAILED => Err(self.error.get().expect("set before FAILED").clone()),
            _ => Ok(()),
        }
    }

    fn wait(&self) {
        if self.is_settled() {
            return;
        }
        if let Some(helper) = self.helper() {
            helper.help();
            if self.is_settled() {
                return;
            }
        }
        self.threads.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        while self.state.load(Ordering::Acquire) == PENDING {
            self.state.sleep_while(PENDING);
        }
        // Whoever comes first wakes all who sleep, in one call and without a lock.
        if self.threads.swap(0, Ordering::Relaxed) > 1 {
            self.state.wake_all();
        }
    }

    /// Whether the event is settled; registers the waker when not. `slot` remembers the place, so
    /// that polling again does not add another.
    fn poll(&self, slot: &mut Option<usize>, waker: &Waker) -> bool {
        if self.is_settled() {
            return true;
        }
        let mut wakers = self.wakers.lock();
        if self.is_settled() {
            return true;
        }
        match *slot {
            Some(at) => wakers[at].clone_from(waker),
            None => {
                *slot = Some(wakers.len());
                wakers.push(waker.clone());
            }
        }
        drop(wakers);
        self.nudge();
        false
    }
}
