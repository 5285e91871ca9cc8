//! The threads: one that watches the clock, workers that run, one that talks to the store.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::core::job::Foreign;
use crate::core::slab::Key;
use crate::core::{Core, NotOurs, Now, Start, Tried, Wanted};
#[cfg(feature = "tokio")]
use crate::firing::Firing;
use crate::firing::{JobError, Task};
use crate::history::{Outcome, Record};
use crate::keeper;
use crate::once::{Claim, Claimed, Once, OnceError};
use crate::policy::InDoubt;
use crate::spec::JobSpec;

/// Where nobody tells the clock's thread that the wall clock was set, it looks up at least this often.
const NAP_MAX: Duration = Duration::from_secs(1);

/// It lets others at the jobs after so many firings.
const ADVANCE_BUDGET: usize = 256;

/// Is told each settled firing, on the thread that settled it.
pub(crate) type Observer = dyn Fn(&JobSpec, &Record) + Send + Sync;

pub(crate) struct Shared {
    state: Mutex<State>,
    /// The clock's thread has to look again.
    pub(crate) clock: Condvar,
    /// There is a run to take.
    work: Condvar,
    /// The last run ended that had begun.
    pub(crate) quiet: Condvar,
    /// There is something to tell the store.
    pub(crate) keeper: Condvar,
    /// The end has come for whoever keeps claims.
    pub(crate) claims: Condvar,
    pub(crate) once: Option<Arc<dyn Once>>,
    observer: Option<Box<Observer>>,
    epoch: Instant,
    #[cfg(target_os = "linux")]
    wall: Option<crate::wall::Wall>,
}

pub(crate) struct State {
    pub(crate) core: Core,
    idle_workers: usize,
    /// When the clock's thread looks next, on the steady clock.
    clock_ms: u64,
    /// The threads end.
    pub(crate) is_over: bool,
}

impl Shared {
    pub(crate) fn new(
        make: impl FnOnce(Now) -> Core,
        once: Option<Arc<dyn Once>>,
        observer: Option<Box<Observer>>,
    ) -> Self {
        let epoch = Instant::now();
        let core = make(now_since(epoch));
        Self {
            state: Mutex::new(State {
                core,
                idle_workers: 0,
                clock_ms: 0,
                is_over: false,
            }),
            clock: Condvar::new(),
            work: Condvar::new(),
            quiet: Condvar::new(),
            keeper: Condvar::new(),
            claims: Condvar::new(),
            once,
            observer,
            epoch,
            #[cfg(target_os = "linux")]
            wall: crate::wall::Wall::new()
                .inspect_err(|error| tracing::debug!(%error, "nobody tells when the clock is set"))
                .ok(),
        }
    }

    /// The clock's thread need not look up for the sake of the wall clock.
    fn hears_of_clock(&self) -> bool {
        #[cfg(target_os = "linux")]
        return self.wall.is_some();
        #[cfg(not(target_os = "linux"))]
        false
    }

    pub(crate) fn now(&self) -> Now {
        now_since(self.epoch)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Does something with the jobs, and wakes whom it concerns.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Core, Now) -> R) -> R {
        let mut state = self.lock();
        let now = self.now();
        let result = act(&mut state.core, now);
        self.release(state, now);
        result
    }

    /// Wakes whom the new state concerns, and hands out what it left to do, without the lock.
    fn release(&self, mut state: MutexGuard<'_, State>, now: Now) {
        if state.idle_workers > 0 && !state.core.ready.is_empty() {
            self.work.notify_one();
        }
        let due_ms = state
            .core
            .quiet_ms(now)
            .map(|quiet_ms| now.mono_ms.saturating_add(quiet_ms));
        if due_ms.is_some_and(|due_ms| due_ms < state.clock_ms) {
            self.clock.notify_one();
        }
        if !state.core.verdicts.is_empty() {
            self.keeper.notify_one();
        }
        if state.core.is_stopped && state.core.runs.len() == state.core.claiming {
            self.quiet.notify_all();
        }
        let ended = std::mem::take(&mut state.core.ended);
        let unsettled = std::mem::take(&mut state.core.unsettled);
        drop(state);
        for (claim, outcome) in unsettled {
            self.settle(claim, outcome);
        }
        if let Some(observer) = &self.observer {
            ended
                .iter()
                .for_each(|(spec, record)| observer(spec, record));
        }
    }

    pub(crate) fn settle(&self, claim: Claim, outcome: Outcome) {
        if let Some(once) = &self.once {
            once.settle(claim, outcome);
        }
    }

    pub(crate) fn wake_all(&self) {
        #[cfg(target_os = "linux")]
        if let Some(wall) = &self.wall {
            wall.end();
        }
        self.clock.notify_all();
        self.work.notify_all();
        self.keeper.notify_all();
        self.claims.notify_all();
    }

    fn tried(&self, run: Key, tried: Tried) {
        self.with(|core, now| {
            let end = core.tried(run, tried, now);
            core.unsettled.extend(end.settle);
        });
    }
}

fn now_since(epoch: Instant) -> Now {
    Now {
        wall_ms: u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX),
        mono_ms: u64::try_from(epoch.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

/// A clock before 1970 stands at its beginning.
fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Watches the clock until the end.
pub(crate) fn run_clock(shared: &Shared) {
    loop {
        let mut state = shared.lock();
        if state.is_over {
            return;
        }
        let now = shared.now();
        if state.core.advance(now, ADVANCE_BUDGET) {
            // There is more. What is ready is worth a worker meanwhile.
            state.clock_ms = 0;
            shared.release(state, now);
            continue;
        }
        // Cut off, the milliseconds would make it up to one late.
        let past_ms = Duration::from_nanos(since_1970().as_nanos() as u64 % 1_000_000);
        let quiet_ms = state.core.quiet_ms(now);
        let nap = quiet_ms.map(|ms| {
            let nap = Duration::from_millis(ms).saturating_sub(past_ms);
            match shared.hears_of_clock() {
                true => nap,
                false => nap.min(NAP_MAX),
            }
        });
        state.clock_ms = quiet_ms.map_or(u64::MAX, |ms| now.mono_ms.saturating_add(ms));
        let has_news = !state.core.ended.is_empty()
            || !state.core.verdicts.is_empty()
            || !state.core.unsettled.is_empty()
            || (state.idle_workers > 0 && !state.core.ready.is_empty());
        if has_news {
            shared.release(state, now);
            state = shared.lock();
            let due_ms = state.core.quiet_ms(shared.now());
            if state.is_over || due_ms != quiet_ms && due_ms < quiet_ms.or(Some(u64::MAX)) {
                continue;
            }
        }
        match nap {
            Some(nap) => {
                shared.clock.wait_for(&mut state, nap);
            }
            None => shared.clock.wait(&mut state),
        }
    }
}

/// Tells the clock's thread when the wall clock is set, until the end.
#[cfg(target_os = "linux")]
fn run_wall(shared: &Shared) {
    let Some(wall) = &shared.wall else { return };
    while wall.wait() {
        // Under the lock, so that it does not fall asleep between looking and waiting.
        let _state = shared.lock();
        shared.clock.notify_one();
    }
}

/// Takes runs and runs them until the end.
pub(crate) fn run_worker(shared: &Arc<Shared>) {
    while let Some(mut start) = take(shared) {
        let run = start.run;
        if let Some(wanted) = start.claim.take()
            && let Some(once) = &shared.once
        {
            let id = wanted.id.clone();
            let ask = || claim_in_time(shared, &**once, wanted);
            let claimed = catch_unwind(AssertUnwindSafe(ask));
            let claimed = claimed.unwrap_or_else(|_| Err(OnceError::new("the hook panicked")));
            let is_ours = shared.with(|core, now| match claimed {
                Ok(Ours::Run(claim, asked)) => {
                    core.claimed(run, claim, asked, now);
                    true
                }
                Ok(Ours::Not(why)) => {
                    core.not_claimed(run, why, now);
                    false
                }
                Err(error) => {
                    tracing::warn!(firing = %id, %error, "not claimed");
                    core.unclaimed(run, &error.to_string(), now);
                    false
                }
            });
            if !is_ours {
                continue;
            }
        }
        run_task(shared, start);
    }
}

fn take(shared: &Shared) -> Option<Start> {
    let mut state = shared.lock();
    loop {
        if state.is_over {
            return None;
        }
        let now = shared.now();
        let start = state.core.take(now);
        if start.is_some() {
            shared.release(state, now);
            return start;
        }
        if !state.core.ended.is_empty() || !state.core.unsettled.is_empty() {
            shared.release(state, now);
            state = shared.lock();
            continue;
        }
        state.idle_workers += 1;
        shared.work.wait(&mut state);
        state.idle_workers -= 1;
    }
}

/// Whose a firing is.
enum Ours {
    /// And when the store was asked.
    Run(Claim, Now),
    Not(NotOurs),
}

/// Asks again when the answer was so long in coming that the claim may have lapsed: this process may have been stopped.
fn claim_in_time(shared: &Shared, once: &dyn Once, mut wanted: Wanted) -> Result<Ours, OnceError> {
    loop {
        let (id, in_doubt) = (wanted.id.clone(), wanted.in_doubt);
        let asked = shared.now();
        match claim(once, wanted, asked)? {
            Ours::Run(claim, asked) if shared.now().is_lease_old(asked, once.period_ms()) => {
                let held = Some(claim);
                wanted = Wanted { id, in_doubt, held };
            }
            ours => return Ok(ours),
        }
    }
}

fn claim(once: &dyn Once, wanted: Wanted, asked: Now) -> Result<Ours, OnceError> {
    let Wanted { id, in_doubt, held } = wanted;
    if let Some(held) = held {
        once.extend(&held);
        if once.renew(&held).is_ok() {
            return Ok(Ours::Run(held, asked));
        }
        // It was lost, or nobody answers.
        tracing::warn!(firing = %id, "its claim was not kept in time");
    }
    Ok(match once.claim(&id)? {
        Claimed::Fresh(claim) => Ours::Run(claim, asked),
        Claimed::Settled => Ours::Not(NotOurs::Ended(Outcome::Elsewhere)),
        Claimed::Elsewhere => Ours::Not(NotOurs::Open(Foreign::Held)),
        Claimed::InDoubt { claim, rerun } => match in_doubt {
            _ if rerun => renewed(once, claim, asked)?,
            InDoubt::Rerun => renewed(once, claim, asked)?,
            InDoubt::Skip => {
                once.settle(claim, Outcome::InDoubt);
                Ours::Not(NotOurs::Ended(Outcome::InDoubt))
            }
            InDoubt::Ask => Ours::Not(NotOurs::Open(Foreign::Asked)),
        },
    })
}

fn renewed(once: &dyn Once, claim: Claim, asked: Now) -> Result<Ours, OnceError> {
    once.renew(&claim)?;
    Ok(Ours::Run(claim, asked))
}

fn run_task(shared: &Arc<Shared>, start: Start) {
    let Start {
        run, task, firing, ..
    } = start;
    let span = tracing::info_span!(
        "firing",
        job = %firing.job,
        fire_time = %firing.fire_time(),
        trace_id = %firing.trace,
        attempt = firing.attempt,
    );
    match task {
        Task::Blocking(code) => {
            let tried = span.in_scope(|| tried(catch_unwind(AssertUnwindSafe(|| code(&firing)))));
            shared.tried(run, tried);
        }
        #[cfg(feature = "tokio")]
        Task::Future { make, runtime } => {
            use tracing::Instrument;
            let report = Report {
                shared: Arc::clone(shared),
                run,
                tried: None,
            };
            runtime.spawn(future(make, firing, report).instrument(span));
        }
        #[cfg(not(feature = "tokio"))]
        Task::Future { .. } => unreachable!("nobody can make one"),
    }
}

fn tried(ended: thread::Result<Result<(), JobError>>) -> Tried {
    match ended {
        Ok(Ok(())) => Tried::Succeeded,
        Ok(Err(error)) => Tried::Failed(error.to_string().into()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Tried::Panicked(text.unwrap_or("it panicked").into())
        }
    }
}

#[cfg(feature = "tokio")]
async fn future(make: Arc<crate::firing::Making>, firing: Firing, mut report: Report) {
    let made = catch_unwind(AssertUnwindSafe(|| make(firing)));
    report.tried = Some(match made {
        Ok(future) => tried(Caught(future).await),
        Err(panic) => tried(Err(panic)),
    });
}

/// Tells how a future ended, also when its runtime dropped it.
#[cfg(feature = "tokio")]
struct Report {
    shared: Arc<Shared>,
    run: Key,
    tried: Option<Tried>,
}

#[cfg(feature = "tokio")]
impl Drop for Report {
    fn drop(&mut self) {
        let dropped = || Tried::Failed("its runtime dropped it".into());
        let tried = self.tried.take().unwrap_or_else(dropped);
        self.shared.tried(self.run, tried);
    }
}

/// A future whose panics are answers.
#[cfg(feature = "tokio")]
struct Caught(crate::firing::Made);

#[cfg(feature = "tokio")]
impl Future for Caught {
    type Output = thread::Result<Result<(), JobError>>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        use std::task::Poll;
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(result)) => Poll::Ready(Ok(result)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}

/// Starts the threads.
pub(crate) fn spawn(
    shared: &Arc<Shared>,
    workers: usize,
) -> std::io::Result<Vec<thread::JoinHandle<()>>> {
    let mut threads = Vec::new();
    let mut start = |name: String, run: Box<dyn FnOnce() + Send>| {
        threads.push(thread::Builder::new().name(name).spawn(run)?);
        std::io::Result::Ok(())
    };
    let clock = Arc::clone(shared);
    start(
        "scheduler-clock".into(),
        Box::new(move || run_clock(&clock)),
    )?;
    #[cfg(target_os = "linux")]
    if shared.hears_of_clock() {
        let shared = Arc::clone(shared);
        start("scheduler-wall".into(), Box::new(move || run_wall(&shared)))?;
    }
    if shared.once.is_some() {
        let (keeper, claims) = (Arc::clone(shared), Arc::clone(shared));
        start(
            "scheduler-store".into(),
            Box::new(move || keeper::run(&keeper)),
        )?;
        start(
            "scheduler-claim".into(),
            Box::new(move || keeper::run_claims(&claims)),
        )?;
    }
    for number in 0..workers.max(1) {
        let shared = Arc::clone(shared);
        start(
            format!("scheduler-{number}"),
            Box::new(move || run_worker(&shared)),
        )?;
    }
    Ok(threads)
}
