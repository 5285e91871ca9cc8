//! Who drives the runtime of a store that has one of its own.
//!
//! Its thread does while there is much to do, and while there is nothing. An operation that has the
//! store to itself would pay for two changes of thread then, there and back. So the thread rests once
//! callers block one at a time: each drives the runtime on its own thread until its answer is there.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::thread::Thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::{JoinError, JoinHandle};

use crate::completion::{Event, Helper};
use crate::error::Error;
use crate::remote::Counters;

/// So many callers one after the other that blocked alone make the thread rest.
const LONE_MIN: u32 = 2;
/// How long the thread rests while nobody drives: what is neither waited for nor polled (timers, an
/// operation whose completion is only held) may be that late.
const REST: Duration = Duration::from_millis(10);

/// Owned by the thread, and by who drives for as long: it ends with them.
pub(crate) struct Driver {
    /// Taken only when it is dropped.
    runtime: Option<Runtime>,
    counters: Arc<Counters>,
    thread: OnceLock<Thread>,
    /// Callers that drive, or wait for their turn until their answer is there.
    callers: AtomicU32,
    /// Callers that blocked alone, one after the other.
    lone: AtomicU32,
}

impl Driver {
    pub(crate) fn new(counters: Arc<Counters>) -> Result<Self, Error> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::io("start the store's runtime", error))?;
        Ok(Self {
            runtime: Some(runtime),
            counters,
            thread: OnceLock::new(),
            callers: AtomicU32::new(0),
            lone: AtomicU32::new(0),
        })
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("taken only in drop")
    }

    /// What the store's thread does until `service` ends.
    ///
    /// # Panics
    /// When the service does.
    pub(crate) fn run(&self, service: impl Future<Output = ()> + Send + 'static) {
        self.thread
            .set(std::thread::current())
            .expect("a driver runs once");
        let mut service = self.runtime().spawn(service);
        loop {
            let until = self.lone_or_ended(&mut service);
            match self.runtime().block_on(until) {
                None => self.rest(),
                Some(Ok(())) => return,
                Some(Err(ended)) => std::panic::resume_unwind(ended.into_panic()),
            }
        }
    }

    /// Ready when callers come one at a time and nothing is under way, or with the service: then with
    /// how it ended.
    async fn lone_or_ended(&self, service: &mut JoinHandle<()>) -> Option<Result<(), JoinError>> {
        loop {
            let mut idle = pin!(self.counters.idle.notified());
            let ended = poll_fn(|cx| match Pin::new(&mut *service).poll(cx) {
                Poll::Ready(ended) => Poll::Ready(Some(ended)),
                Poll::Pending => idle.as_mut().poll(cx).map(|()| None),
            });
            let ended = ended.await;
            if ended.is_some() || self.lone.load(Ordering::SeqCst) >= LONE_MIN {
                return ended;
            }
        }
    }

    /// Returns when callers do not see to it, one after the other, that the runtime is driven.
    fn rest(&self) {
        loop {
            let before = self.lone.load(Ordering::SeqCst);
            if before == 0 || self.is_left() {
                return;
            }
            std::thread::park_timeout(REST);
            if self.lone.load(Ordering::SeqCst) == before {
                return;
            }
        }
    }

    /// Whether something is under way and no caller drives. Who asks counts the operation and then
    /// itself, who leaves looks the other way round: one of the two sees to it.
    fn is_left(&self) -> bool {
        self.counters.under_way() > 0 && self.callers.load(Ordering::SeqCst) == 0
    }

    fn wake(&self) {
        self.thread.get().inspect(|thread| thread.unpark());
    }
}

impl Helper for Driver {
    fn help(&self, event: &Event) {
        // A thread that is in a runtime cannot drive another one.
        if self.counters.under_way() > 1 || Handle::try_current().is_ok() {
            return self.nudge();
        }
        self.lone.fetch_add(1, Ordering::SeqCst);
        let _caller = Caller::new(self);
        // Whoever comes while another drives waits for the turn and for the event.
        self.runtime().block_on(event.settled());
    }

    fn nudge(&self) {
        self.lone.store(0, Ordering::SeqCst);
        self.wake();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Perhaps within another runtime, where none may be waited for.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

struct Caller<'a>(&'a Driver);

impl<'a> Caller<'a> {
    fn new(driver: &'a Driver) -> Self {
        driver.callers.fetch_add(1, Ordering::SeqCst);
        Self(driver)
    }
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        self.0.callers.fetch_sub(1, Ordering::SeqCst);
        if self.0.is_left() {
            // What others asked meanwhile.
            self.0.nudge();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread::ThreadId;

    use super::*;
    use crate::options::Options;
    use crate::remote::{Answer, Engine, Jobs, Limits, Remote, Service};

    /// Tells on which thread it serves.
    struct Telling(Sender<ThreadId>);

    impl Engine for Telling {
        async fn serve(self, mut jobs: Jobs) {
            let mut taken = Vec::new();
            while jobs.more(&mut taken, 8).await {
                for job in taken.drain(..) {
                    // A test that listens no more has seen what it wanted.
                    let _ = self.0.send(std::thread::current().id());
                    job.answer(Ok(Answer::Known(true)));
                }
            }
        }
    }

    fn store() -> (Arc<Remote>, Receiver<ThreadId>) {
        let (tell, told) = channel();
        let connect = |_| std::future::ready(Ok(Telling(tell)));
        let limits = Limits {
            pending_max: 64,
            timeout: Duration::from_secs(60),
        };
        let service = Service::new("test-store", Options::new(), limits, connect);
        (service.on_thread().unwrap(), told)
    }

    /// A store whose thread rests.
    fn resting() -> (Arc<Remote>, Receiver<ThreadId>) {
        let (store, told) = store();
        let ours = std::thread::current().id();
        for _ in 0..10_000 {
            assert!(store.forget(b"key").unwrap().wait().unwrap());
            if told.recv().unwrap() == ours {
                return (store, told);
            }
        }
        panic!("a lone caller never drove");
    }

    #[test]
    fn a_caller_that_blocks_alone_is_served_on_its_own_thread() {
        let (store, told) = resting();
        drop(told);
        store.close().unwrap();
    }

    #[test]
    fn what_is_only_held_is_done_all_the_same() {
        let (store, told) = resting();
        let held = store.forget(b"key").unwrap();
        told.recv().unwrap();
        assert!(held.wait().unwrap());
    }

    #[test]
    fn what_is_polled_or_dropped_wakes_the_thread() {
        let (store, told) = resting();
        let runtime = Builder::new_current_thread().build().unwrap();
        let ours = std::thread::current().id();
        assert!(runtime.block_on(store.forget(b"key").unwrap()).unwrap());
        assert_ne!(told.recv().unwrap(), ours);
        drop(store.forget(b"key").unwrap());
        told.recv().unwrap();
        store.close().unwrap();
    }

    #[test]
    fn a_thread_of_another_runtime_may_block_and_end_the_store() {
        let (store, _told) = resting();
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(async move {
            assert!(store.forget(b"key").unwrap().wait().unwrap());
            drop(store);
        });
    }

    #[test]
    fn many_that_block_take_turns() {
        let (store, told) = resting();
        drop(told);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        assert!(store.forget(b"key").unwrap().wait().unwrap());
                    }
                });
            }
        });
        store.close().unwrap();
    }
}
