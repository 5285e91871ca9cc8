//! Futures that wake each other, in one task.
//!
//! A client library wants a task for each connection, and an engine one for each batch. What a task
//! wakes waits for its turn with the runtime, and after a few hands the runtime wakes another thread to
//! take it over, which costs more than the whole work of one operation. Here they are polled in turns
//! until none of them has woken another.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;
use tokio::task::coop::has_budget_remaining;

/// Rounds without a break: then the runtime's other tasks have a turn.
const ROUNDS_MAX: usize = 64;

type Member = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Futures that are polled together. All clones are one crew.
#[derive(Clone, Default)]
pub(crate) struct Crew(Arc<Mutex<Vec<Member>>>);

impl Crew {
    /// Adds a future, which [`run`](Self::run) polls.
    pub(crate) fn add(&self, member: impl Future<Output = ()> + Send + 'static) {
        self.0.lock().push(Box::pin(member));
    }

    /// Does `work`, and meanwhile what was added. What is not done with `work` stays for the next.
    ///
    /// Only one can be at it at a time.
    pub(crate) async fn run<T>(&self, work: impl Future<Output = T> + Send) -> T {
        let mut work = pin!(work);
        let mut members = Vec::new();
        let mut rounds = Rounds::new();
        let done = poll_fn(|cx| {
            rounds.poll(cx, |cx| {
                let polled = work.as_mut().poll(cx);
                // Those that it added have their first turn at once.
                members.append(&mut self.0.lock());
                members.retain_mut(|member: &mut Member| member.as_mut().poll(cx).is_pending());
                polled
            })
        });
        let done = done.await;
        self.0.lock().append(&mut members);
        done
    }
}

/// Polls again what was woken while it was polled.
struct Rounds {
    bell: Arc<Bell>,
    waker: Waker,
}

impl Rounds {
    fn new() -> Self {
        let bell = Arc::<Bell>::default();
        let waker = Waker::from(Arc::clone(&bell));
        Self { bell, waker }
    }

    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut round: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.bell.set_task(cx.waker());
        for _ in 0..ROUNDS_MAX {
            self.bell.is_polled.store(true, Ordering::SeqCst);
            self.bell.has_rung.store(false, Ordering::SeqCst);
            if let Poll::Ready(done) = round(&mut Context::from_waker(&self.waker)) {
                return Poll::Ready(done);
            }
            // Whoever rings from now on wakes the task; who rang before is seen here.
            self.bell.is_polled.store(false, Ordering::SeqCst);
            if !self.bell.has_rung.load(Ordering::SeqCst) {
                return Poll::Pending;
            }
            if !has_budget_remaining() {
                break;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// What members wake.
#[derive(Default)]
struct Bell {
    has_rung: AtomicBool,
    /// The task is in its poll and looks whether it rang before it ends.
    is_polled: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Bell {
    fn set_task(&self, waker: &Waker) {
        let mut task = self.task.lock();
        if !task.as_ref().is_some_and(|task| task.will_wake(waker)) {
            *task = Some(waker.clone());
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.has_rung.store(true, Ordering::SeqCst);
        if !self.is_polled.load(Ordering::SeqCst) {
            // Not under the lock: it may run anything.
            let task = self.task.lock().clone();
            task.inspect(Waker::wake_by_ref);
        }
    }
}
