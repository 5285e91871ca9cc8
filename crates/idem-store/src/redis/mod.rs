//! A store on a Redis server: one script per kind of operation, which does many at once, and many scripts
//! in one pipeline.

mod group;
mod link;
mod open;
mod script;
mod url;

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use redis::{RedisError, ServerErrorKind, Value};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::sleep;

use crate::error::{Error, Kind};
use crate::options::Options;
use crate::permit::Unresolved;
use crate::remote::{
    Answer, Counters, Crew, Engine, Job, Jobs, Limits, Op, Service, fitting, in_time, no_answer,
    perhaps_forgotten,
};

use group::Group;
use link::{Link, unreachable_server};
use url::Config;

/// Most operations in one pipeline.
const BATCH_MAX: usize = 512;
/// Pipelines that are on their way at one time. While the server syncs for one the next is formed,
/// so that it grows with the load.
const BATCHES_MAX: u32 = 4;
/// Most operations that wait; beyond that only what a holder asks is taken.
const PENDING_MAX: u64 = 65_536;
/// Pauses between attempts: this long at first, then twice as long each time.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// Declared claims that are read in one step of a listing.
const SCAN_COUNT: usize = 1_000;

/// The store that `url` names.
pub(crate) fn service(url: &str, options: &Options) -> Result<Service, Error> {
    let config = Config::parse(url, options)?;
    let limits = Limits {
        pending_max: PENDING_MAX,
        timeout: config.timeout,
    };
    let connect = |counters| RedisEngine::connect(config, counters);
    Ok(Service::new(
        "mainstay-store-redis",
        options.clone(),
        limits,
        connect,
    ))
}

struct RedisEngine {
    link: Arc<Link>,
    counters: Arc<Counters>,
    /// The connection and the batches that are on their way.
    crew: Crew,
}

impl RedisEngine {
    async fn connect(config: Config, counters: Arc<Counters>) -> Result<Self, Error> {
        let crew = Crew::default();
        let link = Link::connect(config, Arc::clone(&counters), crew.clone());
        let link = Arc::new(crew.run(link).await?);
        Ok(Self {
            link,
            counters,
            crew,
        })
    }
}

impl Engine for RedisEngine {
    async fn serve(self, jobs: Jobs) {
        self.crew.run(self.serve_all(jobs)).await;
    }
}

impl RedisEngine {
    async fn serve_all(&self, mut jobs: Jobs) {
        let places = Arc::new(Semaphore::new(BATCHES_MAX as usize));
        let mut sent = Sent::new();
        let mut batch = Vec::new();
        loop {
            let place = Arc::clone(&places).acquire_owned().await;
            let place = place.expect("it is never closed");
            if !jobs.more(&mut batch, BATCH_MAX).await {
                break;
            }
            let (mut keyed, others) = sort(std::mem::take(&mut batch));
            let mut held = (place, sent.held());
            loop {
                let run = Run {
                    link: Arc::clone(&self.link),
                    counters: Arc::clone(&self.counters),
                };
                let rest = keyed.split_off(fitting(&keyed));
                let jobs = std::mem::replace(&mut keyed, rest);
                self.crew.add(async move {
                    run.run(jobs).await;
                    drop(held);
                });
                if keyed.is_empty() {
                    break;
                }
                let place = Arc::clone(&places).acquire_owned().await;
                held = (place.expect("it is never closed"), sent.held());
            }
            for job in others {
                self.serve_other(job, &places, &mut sent).await;
            }
        }
        // Everything that was sent is answered before the thread ends.
        sent.answered().await;
    }

    async fn serve_other(&self, job: Job, places: &Arc<Semaphore>, sent: &mut Sent) {
        if matches!(job.op, Op::Flush) {
            let answered = sent.answered();
            return self.crew.add(async move {
                answered.await;
                job.answer(Ok(Answer::Done));
            });
        }
        let held = (Arc::clone(places).acquire_owned().await, sent.held());
        let link = Arc::clone(&self.link);
        self.crew.add(async move {
            list_with_patience(&link, job).await;
            drop(held);
        });
    }
}

/// What is on its way: a flush waits for it, and nothing waits for a flush.
struct Sent {
    held: mpsc::Sender<Infallible>,
    over: mpsc::Receiver<Infallible>,
}

impl Sent {
    fn new() -> Self {
        let (held, over) = mpsc::channel(1);
        Self { held, over }
    }

    /// Dropped when it is answered.
    fn held(&self) -> mpsc::Sender<Infallible> {
        self.held.clone()
    }

    /// Until everything that is on its way now is answered.
    fn answered(&mut self) -> impl Future<Output = ()> + Send + use<> {
        let Self { held, mut over } = std::mem::replace(self, Self::new());
        drop(held);
        // What comes is answered after it, to the next flush.
        let earlier = self.held();
        async move {
            let None = over.recv().await;
            drop(earlier);
        }
    }
}

/// Operations on a key, and the others.
fn sort(batch: Vec<Job>) -> (Vec<Job>, Vec<Job>) {
    batch
        .into_iter()
        .partition(|job| !matches!(job.op, Op::Flush | Op::Unresolved { .. }))
}

/// What becomes of one operation in one attempt.
enum Verdict {
    Answered(Result<Answer, Error>),
    /// To be sent again: its script is not known to the server any more.
    Unknown,
    /// A forget that is to be sent again, with the token that it has found meanwhile.
    Found,
    /// To be sent again: the server refused one of those that were sent with it, or this one.
    Alone,
    /// To be sent again on another connection, or a little later.
    Later(Error),
}

/// A batch on its way.
struct Run {
    link: Arc<Link>,
    counters: Arc<Counters>,
}

impl Run {
    /// Sends the operations until each is answered or its time is up.
    async fn run(self, mut jobs: Vec<Job>) {
        let mut pause = PAUSE_MIN;
        let mut how = How::default();
        let mut why = no_answer();
        let attempt = self.link.is_connected().then(|| self.link.attempt_time());
        jobs.retain(|job| job.is_to_be_sent(&why, attempt));
        loop {
            jobs.retain(|job| !job.is_over(&why));
            let attempt = self.attempt(&jobs, how);
            let Some(verdicts) = in_time(&jobs, &[], &why, attempt).await else {
                return;
            };
            let mut left = Vec::new();
            let mut is_later = false;
            for (job, verdict) in jobs.into_iter().zip(verdicts) {
                match verdict {
                    Verdict::Answered(answer) => {
                        job.answer(answer);
                        continue;
                    }
                    Verdict::Unknown => how.in_full = true,
                    Verdict::Found => {}
                    Verdict::Alone => {
                        how.alone = true;
                        how.again = true;
                    }
                    Verdict::Later(error) => {
                        why = error;
                        is_later = true;
                    }
                }
                left.push(job);
            }
            jobs = left;
            if is_later {
                how.again = true;
                in_time(&jobs, &[], &why, sleep(pause)).await;
                pause = PAUSE_MAX.min(pause * 2);
            }
        }
    }

    async fn attempt(&self, jobs: &[Job], how: How) -> Vec<Verdict> {
        let all = |verdict: &dyn Fn() -> Verdict| jobs.iter().map(|_| verdict()).collect();
        let (mut connection, number) = match self.link.connection().await {
            Ok(connection) => connection,
            Err(error) if error.is_unavailable() => {
                return all(&|| Verdict::Later(error.clone()));
            }
            Err(error) => return all(&|| Verdict::Answered(Err(error.clone()))),
        };
        let layout = &self.link.layout;
        let (groups, places) = group::group(jobs.iter().map(|job| &job.op), layout, how.alone);
        let command = |group| self.link.scripts.command(group, layout, how.in_full);
        let mut cmds: Vec<_> = groups.iter().map(command).collect();
        let replicas = self.link.config.wait_replicas;
        let waits = replicas > 0 && jobs.iter().any(|job| writes(&job.op));
        if waits {
            cmds.push(self.link.scripts.mark(layout));
            let mut wait = redis::cmd("WAIT");
            let wait_ms = (self.link.config.timeout / 4).as_millis() as u64;
            wait.arg(replicas).arg(wait_ms.max(1));
            cmds.push(wait);
        }
        self.count(jobs.len(), &cmds);
        let mut answers = match connection.ask_all(cmds).await {
            Ok(answers) => answers,
            Err(error) => {
                self.link.lost(number);
                let error = unreachable_server(error);
                return all(&|| Verdict::Later(error.clone()));
            }
        };
        let confirmed = !waits || {
            let (waited, marked) = (answers.pop(), answers.pop());
            matches!(marked, Some(Ok(_))) && waited.is_some_and(|waited| reached(waited, replicas))
        };
        let mut verdicts: Vec<_> = groups
            .iter()
            .zip(answers)
            .map(|(group, answer)| judge(group, answer, how.again, confirmed).into_iter())
            .collect();
        if verdicts.iter().any(|verdicts| {
            let mut verdicts = verdicts.as_slice().iter();
            verdicts.any(|verdict| matches!(verdict, Verdict::Later(_)))
        }) {
            // It may be a master no longer: find out who is.
            self.link.lost(number);
        }
        let verdict = |place: usize| verdicts[place].next().expect("one for each operation");
        places.into_iter().map(verdict).collect()
    }

    fn count(&self, operations: usize, cmds: &[redis::Cmd]) {
        let bytes: usize = cmds.iter().map(sent_bytes).sum();
        Counters::add(&self.counters.operations, operations as u64);
        Counters::add(&self.counters.bytes, bytes as u64);
        Counters::add(&self.counters.batches, 1);
    }
}

/// How operations are sent.
#[derive(Clone, Copy, Default)]
struct How {
    /// They may have been done by an earlier attempt.
    again: bool,
    /// With the text of their scripts.
    in_full: bool,
    /// Each in a script of its own.
    alone: bool,
}

/// The length of a command on the wire: it is packed only once, by the client library.
fn sent_bytes(cmd: &redis::Cmd) -> usize {
    // A sign, a number, CR and LF.
    let line = |number: usize| 4 + number.checked_ilog10().unwrap_or_default() as usize;
    let arg = |arg: redis::Arg<&[u8]>| match arg {
        redis::Arg::Simple(bytes) => line(bytes.len()) + bytes.len() + 2,
        _ => 0,
    };
    let args = cmd.args_iter();
    line(args.len()) + args.map(arg).sum::<usize>()
}

fn writes(op: &Op) -> bool {
    !matches!(op, Op::Get { .. })
}

/// Whether enough replicas have it.
fn reached(waited: Result<Value, RedisError>, replicas: u32) -> bool {
    matches!(waited, Ok(Value::Int(count)) if count >= i64::from(replicas))
}

/// A verdict for each operation of the group.
fn judge(
    group: &Group<'_>,
    answer: Result<Value, RedisError>,
    again: bool,
    confirmed: bool,
) -> Vec<Verdict> {
    let ops = group.ops.iter();
    match answer {
        Ok(Value::Array(values)) if values.len() == ops.len() => {
            let pairs = ops.zip(values);
            pairs
                .map(|(op, value)| match script::found_token(op, &value) {
                    Some(token) => found(op, token, again),
                    None => Verdict::Answered(read(op, value, again, confirmed)),
                })
                .collect()
        }
        Ok(_) => ops
            .map(|_| Verdict::Answered(Err(script::unreadable())))
            .collect(),
        Err(error) => ops.map(|_| refused(&error, group.ops.len() > 1)).collect(),
    }
}

/// A forget has met this token, and not the one that it had found before, if it had.
fn found(op: &Op, token: u64, again: bool) -> Verdict {
    let Op::Forget { found, .. } = op else {
        unreachable!("only a forget is answered so");
    };
    if again && found.token().is_some() {
        return Verdict::Answered(Err(perhaps_forgotten()));
    }
    found.set(Some(token));
    Verdict::Found
}

fn read(op: &Op, value: Value, again: bool, confirmed: bool) -> Result<Answer, Error> {
    if confirmed || !writes(op) {
        return script::read_answer(op, value, again);
    }
    let text = "fewer replicas than wait_replicas confirmed it in time";
    Err(Error::unavailable(
        "the write is not on enough servers",
        text,
    ))
}

/// What becomes of an operation whose script failed, or did not run.
fn refused(error: &RedisError, in_company: bool) -> Verdict {
    match error.code() {
        Some("NOSCRIPT") => Verdict::Unknown,
        _ if is_passing(error) => Verdict::Later(unreachable_server(error.clone())),
        _ if in_company => Verdict::Alone,
        Some("OOM") => Verdict::Answered(Err(Error::new(Kind::ServerFull))),
        Some("WRONGTYPE") => Verdict::Answered(Err(script::unreadable())),
        _ => Verdict::Answered(Err(unreachable_server(error.clone()))),
    }
}

/// Whether the same command may succeed a little later, perhaps on another server.
fn is_passing(error: &RedisError) -> bool {
    use redis::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::Io
            | ErrorKind::Server(
                ServerErrorKind::BusyLoading
                    | ServerErrorKind::ClusterDown
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::Moved
                    | ServerErrorKind::Ask
                    | ServerErrorKind::ReadOnly
                    | ServerErrorKind::TryAgain
            )
    ) || error.is_connection_dropped()
        || matches!(
            error.code(),
            Some("BUSY" | "MISCONF" | "NOREPLICAS" | "UNBLOCKED")
        )
}

/// Lists until it is answered or its time is up.
async fn list_with_patience(link: &Link, job: Job) {
    let Op::Unresolved {
        after_token,
        count_max,
    } = job.op
    else {
        unreachable!("other operations have a key");
    };
    let mut pause = PAUSE_MIN;
    let mut why = no_answer();
    while !job.is_over(&why) {
        let doing = std::slice::from_ref(&job);
        let listed = list(link, after_token, count_max);
        match in_time(doing, &[], &why, listed).await {
            Some(Err(error)) if error.is_unavailable() => why = error,
            Some(listed) => job.answer(listed.map(Answer::List)),
            None => {}
        }
        in_time(doing, &[], &why, sleep(pause)).await;
        pause = PAUSE_MAX.min(pause * 2);
    }
}

/// Reads declared claims shard by shard and keeps those with the lowest tokens.
async fn list(link: &Link, after_token: u64, count_max: usize) -> Result<Vec<Unresolved>, Error> {
    let (mut connection, number) = link.connection().await?;
    let mut kept: Vec<Unresolved> = Vec::new();
    for shard in link.layout.all() {
        let mut cursor = 0;
        loop {
            let scanned = scan(&mut connection, &shard.declared, cursor).await;
            let (next, claims) = scanned.inspect_err(|error| {
                if error.is_unavailable() {
                    link.lost(number);
                }
            })?;
            kept.extend(claims.into_iter().filter(|c| c.token > after_token));
            if kept.len() > count_max.max(SCAN_COUNT).saturating_mul(2) {
                shorten(&mut kept, count_max);
            }
            if next == 0 {
                break;
            }
            cursor = next;
        }
    }
    shorten(&mut kept, count_max);
    Ok(kept)
}

/// The lowest tokens in order, each once: a scan may show a claim twice.
fn shorten(kept: &mut Vec<Unresolved>, count_max: usize) {
    kept.sort_by_key(|unresolved| unresolved.token);
    kept.dedup_by_key(|unresolved| unresolved.token);
    kept.truncate(count_max);
}

/// A field of a hash and its value.
type Pair = (Vec<u8>, Vec<u8>);

async fn scan(
    connection: &mut link::Connection,
    hash: &str,
    cursor: u64,
) -> Result<(u64, Vec<Unresolved>), Error> {
    let now_ms = server_ms(connection, hash).await?;
    let mut cmd = redis::cmd("HSCAN");
    cmd.arg(hash).arg(cursor).arg("COUNT").arg(SCAN_COUNT);
    let answer = connection.ask(&cmd).await?;
    let (next, pairs): (u64, Vec<Pair>) =
        redis::from_redis_value(answer).map_err(|_| script::unreadable())?;
    let claims = pairs.iter().filter_map(|(key, record)| {
        let read = script::read_unresolved(key, record, now_ms);
        // A begin of its key is told the same, so nothing happens twice; the others are listed.
        let log = |error: &Error| {
            tracing::error!(%error, key = %key.escape_ascii(), "left out of a listing");
        };
        read.inspect_err(log).ok()
    });
    Ok((next, claims.collect()))
}

/// The clock of the server that has `key`.
async fn server_ms(connection: &mut link::Connection, key: &str) -> Result<u64, Error> {
    let mut cmd = redis::cmd("EVAL");
    cmd.arg("#!lua flags=no-writes\nlocal t = redis.call('TIME') return t[1] * 1000 + math.floor(t[2] / 1000)")
        .arg(1)
        .arg(key);
    let answer = connection.ask(&cmd).await?;
    redis::from_redis_value(answer).map_err(|_| script::unreadable())
}

#[cfg(test)]
mod tests {
    #[test]
    fn sent_bytes_are_those_of_the_packed_command() {
        for length in [0, 1, 9, 10, 99, 100, 12_345] {
            let mut cmd = redis::cmd("SET");
            for _ in 0..length % 13 {
                cmd.arg(vec![b'x'; length]);
            }
            assert_eq!(super::sent_bytes(&cmd), cmd.get_packed_command().len());
        }
    }
}
