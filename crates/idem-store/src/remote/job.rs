//! Operations that wait for their answers, and how long they do.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

use crate::error::Error;
use crate::remote::counters::Counters;
use crate::remote::engine::{Answer, Op};

/// Hands an answer to whoever waits for it.
type Reply = Box<dyn FnOnce(Result<Answer, Error>) + Send + Sync>;

/// Most bytes of memos and outcomes that are sent together, but for a single longer one: all of them are
/// answered when the last one is there, or sent again.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// An operation and who waits for its answer. Dropped, it says that the store is closed.
pub(crate) struct Job {
    pub(crate) op: Op,
    /// Who asked is told by then, whatever became of it.
    deadline: Instant,
    counters: Arc<Counters>,
    state: Mutex<State>,
}

struct State {
    /// None once it was told.
    reply: Option<Reply>,
    /// It is tried until then although who asked was told.
    owed_until: Option<Instant>,
}

impl Job {
    pub(crate) fn new(op: Op, deadline: Instant, counters: &Arc<Counters>, reply: Reply) -> Self {
        counters.asked();
        Self {
            op,
            deadline,
            counters: Arc::clone(counters),
            state: Mutex::new(State {
                reply: Some(reply),
                owed_until: None,
            }),
        }
    }

    /// Whether it is to be sent for the first time. Whose time is up is told `why` and is not sent, except
    /// that what ends a claim is not lost because the server was slow: it is tried for the time of an
    /// `attempt` if there is one, over a connection that stands.
    pub(crate) fn is_to_be_sent(&self, why: &Error, attempt: Option<Duration>) -> bool {
        if !self.is_over(why) {
            return true;
        }
        let attempt = attempt.filter(|_| self.op.ends_a_claim());
        self.state.lock().owed_until = attempt.map(|time| Instant::now() + time);
        attempt.is_some()
    }

    /// Tells nobody who was told before.
    pub(crate) fn answer(&self, result: Result<Answer, Error>) {
        self.state.lock().owed_until = None;
        if let Some(reply) = self.take_reply() {
            reply(result);
        }
    }

    /// Whether nothing is left to do. Whose time is up is told `why`.
    pub(crate) fn is_over(&self, why: &Error) -> bool {
        if self.deadline <= Instant::now()
            && let Some(reply) = self.take_reply()
        {
            Counters::add(&self.counters.unavailable, 1);
            reply(Err(why.clone()));
        }
        self.open_until().is_none()
    }

    /// None when nothing is left to do.
    fn open_until(&self) -> Option<Instant> {
        let state = self.state.lock();
        let owed = state.owed_until.filter(|until| *until > Instant::now());
        state.reply.as_ref().map(|_| self.deadline).or(owed)
    }

    fn take_reply(&self) -> Option<Reply> {
        let reply = self.state.lock().reply.take()?;
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

/// How many of the first are sent together, at least one.
pub(crate) fn fitting(jobs: &[Job]) -> usize {
    let mut bytes = 0;
    let fits = |job: &Job| {
        bytes += job.op.payload_bytes();
        bytes <= BATCH_BYTES_MAX
    };
    let first_that_does_not = jobs.iter().map(fits).position(|fits| !fits);
    first_that_does_not.map_or(jobs.len(), |count| count.max(1))
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
