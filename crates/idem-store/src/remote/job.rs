//! Operations that wait for their answers, and how long they do.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

use crate::error::Error;
use crate::remote::counters::Counters;
use crate::remote::engine::{Answer, Op};

/// Hands an answer to whoever waits for it.
type Reply = Box<dyn FnOnce(Result<Answer, Error>) + Send + Sync>;

/// An operation and who waits for its answer. Dropped, it says that the store is closed.
pub(crate) struct Job {
    pub(crate) op: Op,
    /// Who asked is told by then, whatever became of it.
    deadline: Instant,
    counters: Arc<Counters>,
    /// None once it was told.
    reply: Mutex<Option<Reply>>,
}

impl Job {
    pub(crate) fn new(op: Op, deadline: Instant, counters: &Arc<Counters>, reply: Reply) -> Self {
        counters.asked();
        Self {
            op,
            deadline,
            counters: Arc::clone(counters),
            reply: Mutex::new(Some(reply)),
        }
    }

    /// Does nothing if who asked was told before.
    pub(crate) fn answer(&self, result: Result<Answer, Error>) {
        if let Some(reply) = self.take_reply() {
            reply(result);
        }
    }

    /// Whether who asked was told. Whose time is up is told `why`.
    pub(crate) fn is_over(&self, why: &Error) -> bool {
        if self.deadline <= Instant::now()
            && let Some(reply) = self.take_reply()
        {
            Counters::add(&self.counters.unavailable, 1);
            reply(Err(why.clone()));
        }
        self.reply.lock().is_none()
    }

    /// None once it was told.
    fn open_until(&self) -> Option<Instant> {
        self.reply.lock().as_ref().map(|_| self.deadline)
    }

    fn take_reply(&self) -> Option<Reply> {
        let reply = self.reply.lock().take()?;
        // Whoever is told finds it counted.
        self.counters.answered();
        Some(reply)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        drop(self.take_reply());
    }
}

/// Does `work` for the `doing`, while others are `waiting`. Whose time runs out meanwhile is told
/// `why`; the work is given up, and `None`, once that was said to all of the `doing`.
pub(crate) async fn in_time<T>(
    doing: &[Job],
    waiting: &[Job],
    why: &Error,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = pin!(work);
    loop {
        let first = doing.iter().filter_map(Job::open_until).min()?;
        let others = waiting.iter().filter_map(Job::open_until);
        let next = others.fold(first, Instant::min);
        if let Ok(done) = timeout_at(next, work.as_mut()).await {
            return Some(done);
        }
        for job in doing.iter().chain(waiting) {
            job.is_over(why);
        }
    }
}

/// What is said when the server said nothing.
pub(crate) fn no_answer() -> Error {
    let text = "no answer came in time";
    Error::unavailable("get an answer from the server", text)
}

/// The queue.
pub(crate) struct Jobs {
    queue: UnboundedReceiver<Job>,
    counters: Arc<Counters>,
    /// How many were taken the last time.
    taken: usize,
    ended: bool,
}

impl Jobs {
    pub(crate) fn new(queue: UnboundedReceiver<Job>, counters: Arc<Counters>) -> Self {
        Self {
            queue,
            counters,
            taken: 0,
            ended: false,
        }
    }

    /// Takes what is there, at most `max`, and waits while nothing is; `false` when nothing comes
    /// any more.
    pub(crate) async fn more(&mut self, jobs: &mut Vec<Job>, max: usize) -> bool {
        if self.ended {
            return false;
        }
        let before = jobs.len();
        let mut taken = self.queue.recv_many(jobs, max).await;
        if taken == 0 {
            self.ended = true;
        } else if taken < max && (self.taken > 1 || self.counters.pending() > taken as u64) {
            // On a runtime with its callers it is woken by the first of many: let the others ask.
            yield_now().await;
            while taken < max
                && let Ok(job) = self.queue.try_recv()
            {
                jobs.push(job);
                taken += 1;
            }
        }
        self.taken = taken;
        let stop = jobs[before..]
            .iter()
            .position(|job| matches!(job.op, Op::Stop));
        if let Some(stop) = stop {
            self.ended = true;
            jobs.truncate(before + stop);
        }
        jobs.len() > before
    }
}
