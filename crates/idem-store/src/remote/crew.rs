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
    #[cfg(any(feature = "postgres", feature = "redis", test))]
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
                poll_all(&mut members, cx);
                // Those that were added have their first turn at once.
                loop {
                    let mut added = std::mem::take(&mut *self.0.lock());
                    if added.is_empty() {
                        break;
                    }
                    poll_all(&mut added, cx);
                    members.append(&mut added);
                }
                polled
            })
        });
        let done = done.await;
        self.0.lock().append(&mut members);
        done
    }
}

/// Drops those that are done.
fn poll_all(members: &mut Vec<Member>, cx: &mut Context<'_>) {
    members.retain_mut(|member| member.as_mut().poll(cx).is_pending());
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
            // Reads what it overwrites: what was rung for is seen by the round.
            self.bell.has_rung.swap(false, Ordering::SeqCst);
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::oneshot;

    use super::*;

    /// A task that counts how often it is woken.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn poll<T>(
        count: &Arc<Count>,
        future: Pin<&mut (impl Future<Output = T> + ?Sized)>,
    ) -> Poll<T> {
        let waker = Waker::from(Arc::clone(count));
        future.poll(&mut Context::from_waker(&waker))
    }

    #[test]
    fn what_wakes_each_other_is_done_in_one_poll_that_wakes_no_task() {
        let crew = Crew::default();
        let (there, hears) = oneshot::channel::<oneshot::Sender<()>>();
        crew.add(async move {
            let answer = hears.await.unwrap();
            answer.send(()).unwrap();
        });
        let count = Arc::<Count>::default();
        let run = crew.run(async {
            let (back, answered) = oneshot::channel();
            there.send(back).unwrap();
            answered.await.unwrap();
        });
        assert!(poll(&count, pin!(run)).is_ready());
        assert_eq!(count.0.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_wake_from_elsewhere_wakes_the_task() {
        let crew = Crew::default();
        let (tell, told) = oneshot::channel::<()>();
        let count = Arc::<Count>::default();
        let mut run = pin!(crew.run(told));
        assert!(poll(&count, run.as_mut()).is_pending());
        let telling = std::thread::spawn(move || tell.send(()));
        telling.join().unwrap().unwrap();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert!(poll(&count, run).is_ready());
    }

    #[test]
    fn a_member_that_never_rests_leaves_others_their_turn() {
        let crew = Crew::default();
        crew.add(poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::Pending
        }));
        let count = Arc::<Count>::default();
        let run = crew.run(std::future::pending::<()>());
        assert!(poll(&count, pin!(run)).is_pending());
        assert_eq!(count.0.load(Ordering::SeqCst), 1, "it comes back");
    }

    #[test]
    fn a_member_that_a_member_adds_has_its_turn() {
        let crew = Crew::default();
        let (tell, told) = oneshot::channel();
        let adds = crew.clone();
        crew.add(async move { adds.add(async { tell.send(()).unwrap() }) });
        let count = Arc::<Count>::default();
        assert!(poll(&count, pin!(crew.run(told))).is_ready());
    }

    #[test]
    fn members_outlive_the_work_that_added_them() {
        let crew = Crew::default();
        let (tell, told) = oneshot::channel::<()>();
        let (done, is_done) = oneshot::channel();
        let count = Arc::<Count>::default();
        let first = crew.run(async {
            crew.add(async move {
                told.await.unwrap();
                done.send(()).unwrap();
            });
        });
        assert!(poll(&count, pin!(first)).is_ready());
        tell.send(()).unwrap();
        assert!(poll(&count, pin!(crew.run(is_done))).is_ready());
    }
}
