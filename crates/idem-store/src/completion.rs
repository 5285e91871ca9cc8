//! Completions: what an operation returns at once, and how it learns that its batch is durable.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use rustix::thread::futex;

use crate::error::Error;

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
            if self.event().is_some_and(|event| !event.is_settled()) {
                return Err(self);
            }
            if let Step::Done(result) = self.step() {
                return Ok(result);
            }
        }
    }

    fn event(&self) -> Option<Arc<Event>> {
        match &self.state {
            State::Value { event, .. } | State::Then { event, .. } => Some(Arc::clone(event)),
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

impl<T> fmt::Debug for Completion<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ready = self.event().is_none_or(|event| event.is_settled());
        f.debug_struct("Completion").field("ready", &ready).finish()
    }
}

const PENDING: u32 = 0;
const DONE: u32 = 1;
const TIMED_OUT: u32 = 2;
const FAILED: u32 = 3;

/// Something that happens once and that many wait for: a batch becoming durable, a holder ending.
pub(crate) struct Event {
    /// Written once, under the lock of `wakers`; also the word that blocked threads sleep on.
    /// SeqCst pairs with `threads`: either the settler sees the thread, or the thread sees the
    /// state.
    state: AtomicU32,
    threads: AtomicU32,
    error: OnceLock<Error>,
    wakers: Mutex<Vec<Waker>>,
}

impl Event {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: AtomicU32::new(PENDING),
            threads: AtomicU32::new(0),
            error: OnceLock::new(),
            wakers: Mutex::new(Vec::new()),
        })
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
        self.state.store(state, Ordering::SeqCst);
        let wakers = std::mem::take(&mut *registered);
        drop(registered);
        if self.threads.load(Ordering::SeqCst) > 0 {
            // One call for all of them, and none has to take a lock when it wakes. It fails only
            // for a bad address.
            let _ = futex::wake(&self.state, futex::Flags::PRIVATE, i32::MAX as u32);
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
        self.threads.fetch_add(1, Ordering::SeqCst);
        while self.state.load(Ordering::SeqCst) == PENDING {
            // Returns at once when the state has changed; errors are wake-ups like any other.
            let _ = futex::wait(&self.state, futex::Flags::PRIVATE, PENDING, None);
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
        false
    }
}
