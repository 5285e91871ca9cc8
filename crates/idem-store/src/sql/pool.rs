//! Connections that share the work: operations of one key always go the same way, in order.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::SWEEP_ROWS;
use super::url::Settings;
use crate::error::Error;
use crate::remote::{Answer, Counters, Crew, Engine, Job, Jobs, Op, fitting, in_time, no_answer};

/// The first pause before an operation is tried again; each one after it is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// Jobs that are taken from the queue at once.
const JOBS_MAX: usize = 256;

/// Operations that one transaction makes durable.
const BATCH_MAX: usize = 64;

/// Why an operation has no answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// A deadlock, a serialization failure: try again.
    Passing(String),
    /// The connection is of no use any more.
    Lost(String),
    /// Trying again would not help.
    Final(Error),
}

impl Fault {
    /// The key was changed by another while it was looked at: look again.
    pub(super) fn changed() -> Self {
        Self::Passing(CHANGED.to_owned())
    }
}

/// What is told of a key that was changed by another while it was looked at.
pub(super) const CHANGED: &str = "the key changed meanwhile";

/// A key that was changed by another while it was looked at: look again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Changed;

/// A kind of database.
pub(super) trait Database: Send + Sync + 'static {
    type Connection: Send + 'static;

    /// Connects, checks the server and makes the tables when they are missing. `crew`: does what the
    /// connection needs to have done besides.
    fn connect(&self, crew: &Crew) -> impl Future<Output = Result<Self::Connection, Fault>> + Send;

    /// Does one operation. After an error that is not `Lost` the connection can be used.
    fn serve(
        &self,
        connection: &mut Self::Connection,
        op: &Op,
    ) -> impl Future<Output = Result<Answer, Fault>> + Send;

    /// Does several, made durable together; they are sorted by key. An error stands for all of them,
    /// they can be done again one by one.
    fn serve_all(
        &self,
        connection: &mut Self::Connection,
        ops: &[&Op],
    ) -> impl Future<Output = Result<Vec<Result<Answer, Changed>>, Fault>> + Send;

    /// Deletes at most [`SWEEP_ROWS`] rows that nothing rests on; how many.
    fn sweep(
        &self,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<u64, Fault>> + Send;
}

pub(super) struct Pool<D: Database> {
    database: D,
    first: (D::Connection, Crew),
    settings: Settings,
    counters: Arc<Counters>,
}

impl<D: Database> Pool<D> {
    /// Connects once, to find out at once what does not fit.
    pub(super) async fn connect(
        database: D,
        settings: Settings,
        counters: Arc<Counters>,
    ) -> Result<Self, Error> {
        let first = first_connection(&database, &settings).await?;
        Ok(Self {
            database,
            first,
            settings,
            counters,
        })
    }
}

impl<D: Database> Engine for Pool<D> {
    async fn serve(self, mut jobs: Jobs) {
        let shared = Arc::new(Shared {
            database: self.database,
            settings: self.settings,
            counters: self.counters,
        });
        let mut first = Some(self.first);
        let (lanes, tasks): (Vec<_>, Vec<_>) = (0..shared.settings.connections)
            .map(|_| {
                let (sender, receiver) = unbounded_channel();
                let (connection, crew) = first.take().unzip();
                let crew = crew.unwrap_or_default();
                let lane = Lane {
                    shared: Arc::clone(&shared),
                    has_connected: connection.is_some(),
                    connection,
                    crew: crew.clone(),
                };
                let running = async move { crew.run(lane.run(receiver)).await };
                (sender, tokio::spawn(running))
            })
            .unzip();
        let sweeper = tokio::spawn(sweep(shared));
        let hasher = RandomState::new();
        let mut batch = Vec::new();
        while jobs.more(&mut batch, JOBS_MAX).await {
            for job in batch.drain(..) {
                dispatch(&lanes, &hasher, job);
            }
        }
        sweeper.abort();
        drop(lanes);
        for task in tasks {
            // One that panicked has dropped its jobs, which tells those who wait.
            drop(task.await);
        }
    }
}

/// A server that starts or recovers is waited for.
async fn first_connection<D: Database>(
    database: &D,
    settings: &Settings,
) -> Result<(D::Connection, Crew), Error> {
    let crew = Crew::default();
    let deadline = Instant::now() + settings.timeout;
    let mut pause = PAUSE_MIN;
    loop {
        let why = match timeout_at(deadline, crew.run(database.connect(&crew))).await {
            Ok(Ok(connection)) => return Ok((connection, crew)),
            Ok(Err(Fault::Final(error))) => return Err(error),
            Ok(Err(Fault::Lost(why) | Fault::Passing(why))) => why,
            Err(_) => "no answer came in time".to_owned(),
        };
        if Instant::now() + pause >= deadline {
            return Err(Error::unavailable("connect to the database", why));
        }
        sleep(pause).await;
        pause = PAUSE_MAX.min(pause * 2);
    }
}

enum Task {
    Job(Job),
    /// Every connection gets one; the last one answers.
    Flush(#[expect(dead_code, reason = "it is dropped in its turn")] Arc<Flush>),
}

/// Answered when nobody has it any more.
struct Flush(Job);

impl Drop for Flush {
    fn drop(&mut self) {
        self.0.answer(Ok(Answer::Done));
    }
}

fn dispatch(lanes: &[UnboundedSender<Task>], hasher: &RandomState, job: Job) {
    if matches!(job.op, Op::Flush) {
        let flush = Arc::new(Flush(job));
        for lane in lanes {
            drop(lane.send(Task::Flush(Arc::clone(&flush))));
        }
        return;
    }
    let hash = key_of(&job.op).map_or(0, |key| hasher.hash_one(key));
    let lane = &lanes[hash as usize % lanes.len()];
    // A lane that is gone has panicked; the job says so as it is dropped.
    drop(lane.send(Task::Job(job)));
}

pub(super) fn key_of(op: &Op) -> Option<&[u8]> {
    match op {
        Op::Begin { key, .. }
        | Op::Declare { key, .. }
        | Op::Extend { key, .. }
        | Op::Complete { key, .. }
        | Op::Release { key, .. }
        | Op::Get { key }
        | Op::Forget { key, .. } => Some(&key[..]),
        Op::Unresolved { .. } | Op::Flush | Op::Stop => None,
    }
}

struct Shared<D> {
    database: D,
    settings: Settings,
    counters: Arc<Counters>,
}

impl<D> Shared<D> {
    /// An attempt takes half the time, so that another one is left when a connection is silent.
    fn attempt_time(&self) -> Duration {
        self.settings.timeout / 2
    }
}

/// One connection and the operations that go over it.
struct Lane<D: Database> {
    shared: Arc<Shared<D>>,
    connection: Option<D::Connection>,
    has_connected: bool,
    crew: Crew,
}

impl<D: Database> Lane<D> {
    async fn run(mut self, mut tasks: UnboundedReceiver<Task>) {
        let (mut taken, mut jobs) = (Vec::new(), Vec::new());
        while tasks.recv_many(&mut taken, BATCH_MAX).await > 0 {
            for task in taken.drain(..) {
                match task {
                    Task::Job(job) => jobs.push(job),
                    Task::Flush(_) => self.answer_all(&mut jobs).await,
                }
            }
            self.answer_all(&mut jobs).await;
        }
    }

    async fn answer_all(&mut self, jobs: &mut Vec<Job>) {
        let why = no_answer();
        let attempt = self.connection.as_ref();
        let attempt = attempt.map(|_| self.shared.attempt_time());
        jobs.retain(|job| job.is_to_be_sent(&why, attempt));
        let mut left = &mut jobs[..];
        while !left.is_empty() {
            let (jobs, waiting) = left.split_at_mut(fitting(left));
            if jobs.len() > 1 {
                self.answer_together(jobs, waiting).await;
            }
            let count = jobs.len();
            // What has no answer yet: one alone, or each by itself after an error.
            for at in 0..count {
                let (job, waiting) = left[at..].split_first().expect("one of them");
                self.answer(job, waiting).await;
            }
            left = &mut left[count..];
        }
        jobs.clear();
    }

    /// Answers as many as it can.
    async fn answer_together(&mut self, jobs: &mut [Job], waiting: &[Job]) {
        // In one order everywhere, so that transactions do not wait for each other in a circle. The
        // order of operations on one key stays.
        jobs.sort_by(|one, two| key_of(&one.op).cmp(&key_of(&two.op)));
        let ops: Vec<&Op> = jobs.iter().map(|job| &job.op).collect();
        let answers = match in_time(jobs, waiting, &no_answer(), self.attempt_all(&ops)).await {
            Some(Ok(answers)) => answers,
            Some(Err(Fault::Lost(_))) | None => {
                self.connection = None;
                return;
            }
            Some(Err(Fault::Passing(_) | Fault::Final(_))) => return,
        };
        for (job, answer) in jobs.iter().zip(answers) {
            if let Ok(answer) = answer {
                job.answer(Ok(answer));
            }
        }
    }

    /// Tries until it is answered or its time is up. Every operation may be sent again. Others are
    /// `waiting`, and are told when their time is up.
    async fn answer(&mut self, job: &Job, waiting: &[Job]) {
        let mut pause = PAUSE_MIN;
        let mut why = no_answer();
        while !job.is_over(&why) {
            let doing = std::slice::from_ref(job);
            let text = match in_time(doing, waiting, &why, self.attempt(&job.op)).await {
                Some(Ok(answer)) => return job.answer(Ok(answer)),
                Some(Err(Fault::Final(error))) => return job.answer(Err(error)),
                Some(Err(Fault::Passing(text))) => text,
                Some(Err(Fault::Lost(text))) => {
                    self.connection = None;
                    text
                }
                None => {
                    // Something may be under way on it.
                    self.connection = None;
                    return;
                }
            };
            why = Error::unavailable("get an answer from the database", text);
            in_time(doing, waiting, &why, sleep(pause)).await;
            pause = PAUSE_MAX.min(pause * 2);
        }
    }

    async fn attempt(&mut self, op: &Op) -> Result<Answer, Fault> {
        let shared = Arc::clone(&self.shared);
        let served = async {
            let connection = self.connection(1).await?;
            shared.database.serve(connection, op).await
        };
        within(shared.attempt_time(), served).await
    }

    async fn attempt_all(&mut self, ops: &[&Op]) -> Result<Vec<Result<Answer, Changed>>, Fault> {
        let shared = Arc::clone(&self.shared);
        let served = async {
            let connection = self.connection(ops.len() as u64).await?;
            shared.database.serve_all(connection, ops).await
        };
        within(shared.attempt_time(), served).await
    }

    /// The connection, for so many operations.
    async fn connection(&mut self, operations: u64) -> Result<&mut D::Connection, Fault> {
        let Shared {
            database, counters, ..
        } = &*self.shared;
        Counters::add(&counters.operations, operations);
        Counters::add(&counters.batches, 1);
        match &mut self.connection {
            Some(connection) => Ok(connection),
            none => {
                let connection = database.connect(&self.crew).await?;
                let again = std::mem::replace(&mut self.has_connected, true);
                Counters::add(&counters.reconnects, again.into());
                Ok(none.insert(connection))
            }
        }
    }
}

/// Deletes what expired, in batches, over a connection that is open only for that.
async fn sweep<D: Database>(shared: Arc<Shared<D>>) {
    let patience = shared.settings.timeout;
    loop {
        sleep(shared.settings.sweep_every).await;
        let crew = Crew::default();
        let swept = crew.run(async {
            let mut connection = within(patience, shared.database.connect(&crew)).await?;
            let mut rows = 0;
            loop {
                let swept = within(patience, shared.database.sweep(&mut connection)).await?;
                rows += swept;
                if swept < SWEEP_ROWS {
                    return Ok::<u64, Fault>(rows);
                }
            }
        });
        match swept.await {
            Ok(rows) => tracing::debug!(rows, "swept expired keys"),
            Err(fault) => tracing::warn!(?fault, "expired keys were not swept"),
        }
    }
}

async fn within<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    let late = |_| Err(Fault::Lost("no answer came in time".to_owned()));
    timeout(patience, work).await.unwrap_or_else(late)
}
