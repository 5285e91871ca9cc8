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
pub(crate) const REST: Duration = Duration::from_millis(10);

/// Owned by the thread, and by who drives for as long: it ends with them.
pub(crate) struct Driver {
    /// Taken only when it is dropped.
    runtime: Option<Runtime>,
    counters: Arc<Counters>,
    rest: Duration,
    thread: OnceLock<Thread>,
    /// Callers that drive, or wait for their turn until their answer is there.
    callers: AtomicU32,
    /// Callers that blocked alone, one after the other.
    lone: AtomicU32,
}

impl Driver {
    /// `rest`: how long the thread rests while nobody drives.
    pub(crate) fn new(counters: Arc<Counters>, rest: Duration) -> Result<Self, Error> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::io("start the store's runtime", error))?;
        Ok(Self {
            runtime: Some(runtime),
            counters,
            rest,
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
            std::thread::park_timeout(self.rest);
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

    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

    use super::*;
    use crate::completion::Completion;
    use crate::options::Options;
    use crate::remote::{Answer, Engine, Jobs, Limits, Remote, Service};

    /// So long that what a test waits for must have come about by itself.
    const NEVER: Duration = Duration::from_secs(1 << 30);
    /// Only a test that has failed waits so long.
    const HANGS: Duration = Duration::from_secs(60);

    /// Tells on which thread it has taken an operation, and answers it when it is let.
    struct Telling {
        taken: Sender<ThreadId>,
        lets: UnboundedReceiver<()>,
    }

    impl Engine for Telling {
        async fn serve(mut self, mut jobs: Jobs) {
            let mut taken = Vec::new();
            while jobs.more(&mut taken, 8).await {
                for job in taken.drain(..) {
                    // A test that listens no more has seen what it wanted.
                    let _ = self.taken.send(std::thread::current().id());
                    // Nor does it hold back anything.
                    let _ = self.lets.recv().await;
                    job.answer(Ok(Answer::Known(true)));
                }
            }
        }
    }

    struct Rig {
        store: Arc<Remote>,
        taken: Receiver<ThreadId>,
        lets: UnboundedSender<()>,
    }

    impl Rig {
        /// Its thread rests, for `rest` while nobody drives.
        fn resting(rest: Duration) -> Self {
            let (tell, taken) = channel();
            let (lets, let_go) = unbounded_channel();
            let telling = Telling {
                taken: tell,
                lets: let_go,
            };
            let connect = |_| std::future::ready(Ok(telling));
            let limits = Limits {
                pending_max: 64,
                timeout: HANGS,
            };
            let service = Service::new("test-store", Options::new(), limits, connect);
            let store = service.on_thread_that_rests(rest).unwrap();
            let rig = Self { store, taken, lets };
            let ours = std::thread::current().id();
            for _ in 0..10_000 {
                rig.block();
                if rig.taken() == ours {
                    return rig;
                }
            }
            panic!("a lone caller never drove");
        }

        /// An operation that will be answered.
        fn ask(&self) -> Completion<bool> {
            self.lets.send(()).unwrap();
            self.store.forget(b"key").unwrap()
        }

        fn block(&self) {
            assert!(self.ask().wait().unwrap());
        }

        fn taken(&self) -> ThreadId {
            let taken = self.taken.recv_timeout(HANGS);
            taken.expect("somebody drives")
        }

        /// Holds nothing back any more, and listens to nothing.
        fn let_all(self) -> Arc<Remote> {
            self.store
        }
    }

    #[test]
    fn a_caller_that_blocks_alone_is_served_on_its_own_thread() {
        let rig = Rig::resting(NEVER);
        rig.let_all().close().unwrap();
    }

    #[test]
    fn what_is_only_held_is_done_all_the_same() {
        let rig = Rig::resting(REST);
        let held = rig.ask();
        rig.taken();
        assert!(held.wait().unwrap());
    }

    #[test]
    fn what_is_polled_or_dropped_wakes_the_thread() {
        let runtime = Builder::new_current_thread().build().unwrap();
        let ours = std::thread::current().id();
        let rig = Rig::resting(NEVER);
        assert!(runtime.block_on(rig.ask()).unwrap());
        assert_ne!(rig.taken(), ours);
        let rig = Rig::resting(NEVER);
        let polled = rig.ask().try_now();
        assert_ne!(rig.taken(), ours);
        assert!(polled.unwrap_or_else(Completion::wait).unwrap());
        let rig = Rig::resting(NEVER);
        drop(rig.ask());
        assert_ne!(rig.taken(), ours);
        rig.let_all().close().unwrap();
    }

    #[test]
    fn who_waits_beside_another_wakes_the_thread() {
        let rig = Rig::resting(NEVER);
        let held = rig.ask();
        rig.block();
        assert!(held.try_now().unwrap().unwrap());
    }

    /// It drove what was asked meanwhile too, as long as it had to wait itself.
    #[test]
    fn what_a_caller_leaves_that_drove_is_taken_over() {
        let rig = Rig::resting(NEVER);
        let store = Arc::clone(&rig.store);
        let driving = std::thread::spawn(move || store.forget(b"key").unwrap().wait());
        rig.taken();
        let held = [b"one", b"two"].map(|key| rig.store.forget(key).unwrap());
        rig.lets.send(()).unwrap();
        assert!(driving.join().unwrap().unwrap());
        // The first may have been taken just before; the second one is not before the first is answered.
        rig.taken();
        rig.lets.send(()).unwrap();
        rig.taken();
        drop((held, rig.let_all()));
    }

    #[test]
    fn a_thread_of_another_runtime_may_block_and_end_the_store() {
        let rig = Rig::resting(NEVER);
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(async move {
            rig.block();
            drop(rig);
        });
    }

    #[test]
    fn a_store_that_rests_ends() {
        let rig = Rig::resting(NEVER);
        rig.let_all().close().unwrap();
    }

    #[test]
    fn many_that_block_take_turns() {
        let rig = Rig::resting(NEVER);
        let store = rig.let_all();
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
