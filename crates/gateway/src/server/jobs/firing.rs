//! One try of a firing: streams the devices that match past a limit of commands that run at one time.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::Duration;

use circuit::{Backoff, Jitter, Policy};
use scheduler::{CancelCause, Firing, JobError};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::{DevicePattern, Job, Report};
use crate::server::Shared;
use crate::server::command::{Answer, replay};
use crate::server::counters::CommandEnd;
use crate::server::device::Device;
use crate::server::dispatch::{Command, UnknownDevice, dispatch};
use crate::server::outcome::store_key;

/// Devices that are read from the directory at one time.
const PAGE: usize = 256;

/// How often it is looked whether absent devices have come. Whether they executed the command through another gateway on the
/// same store is asked after so long, and then after twice the time each time: few questions, however long a firing waits.
const LOOK: Duration = Duration::from_millis(250);

/// How a command is tried again that found a queue full or is under way already, within its device's time.
const AGAIN: Policy = Policy {
    base_ms: 50,
    cap_ms: 2_000,
    jitter: Jitter::Equal,
    first_window_ms: 0,
};

pub(super) async fn run(
    shared: Weak<Shared>,
    job: Arc<Job>,
    firing: Firing,
) -> Result<(), JobError> {
    let shared = shared.upgrade().ok_or("the gateway has ended")?;
    let report = Arc::new(Report::new(&firing));
    *job.last.lock() = Some(Arc::clone(&report));
    let cancel = firing.cancel.clone();
    let work = Work {
        until: Instant::now() + job.timeout,
        shared,
        job,
        report,
        fire_ms: firing.fire_ms,
        commands: JoinSet::new(),
        absent: Vec::new(),
        stranger: None,
    };
    tokio::select! {
        ended = work.drive() => ended,
        // Commands that are out go on by themselves.
        cause = cancel.cancelled() => Err(match cause {
            CancelCause::Superseded => "a later firing took its place",
            _ => "the gateway stopped inside it",
        }.into()),
    }
}

struct Work {
    shared: Arc<Shared>,
    job: Arc<Job>,
    report: Arc<Report>,
    fire_ms: u64,
    /// How long absent devices are waited for.
    until: Instant,
    /// As many as there are places, and those that ended since the last was begun.
    commands: JoinSet<()>,
    /// Devices that match and are not connected here.
    absent: Vec<Arc<Device>>,
    /// The one that the job names, when this gateway has never heard of it.
    stranger: Option<String>,
}

impl Work {
    async fn drive(mut self) -> Result<(), JobError> {
        self.check_age()?;
        match &self.job.config.devices {
            DevicePattern::Prefix(prefix) => {
                let prefix = prefix.clone();
                self.send_to_all(&prefix).await?;
            }
            DevicePattern::Id(id) => match self.shared.directory.get(id) {
                Some(device) => self.meet(device).await?,
                None => self.expect(id.clone()),
            },
        }
        self.wait_for_absent().await?;
        while self.commands.join_next().await.is_some() {}
        self.verdict()
    }

    async fn send_to_all(&mut self, prefix: &str) -> Result<(), JobError> {
        for bucket in 0..self.shared.directory.buckets() {
            let mut after: Option<Arc<Device>> = None;
            loop {
                let behind = after.as_ref().map(|device| device.id());
                let directory = &self.shared.directory;
                let page = directory.matching(bucket, prefix, behind, PAGE);
                let Some(last) = page.last() else { break };
                after = Some(Arc::clone(last));
                for device in page {
                    self.meet(device).await?;
                }
            }
        }
        Ok(())
    }

    /// Sends to a device that matches, or has it wait until it is here.
    async fn meet(&mut self, device: Arc<Device>) -> Result<(), JobError> {
        self.report.matched.fetch_add(1, Relaxed);
        if device.session().is_some() {
            return self.send(device, self.job.timeout).await;
        }
        self.report.waiting.fetch_add(1, Relaxed);
        self.absent.push(device);
        Ok(())
    }

    /// A device that never was here may be on its way: after a start none has been.
    fn expect(&mut self, id: String) {
        self.report.matched.fetch_add(1, Relaxed);
        self.report.waiting.fetch_add(1, Relaxed);
        self.stranger = Some(id);
    }

    /// Sends to absent devices that come in time; what becomes of the others is clear then.
    async fn wait_for_absent(&mut self) -> Result<(), JobError> {
        let (mut seen, mut pause) = (None, LOOK);
        let mut look_at = Instant::now() + pause;
        while self.missing() > 0 && Instant::now() < self.until {
            let changes = self.shared.directory.changes();
            if seen.replace(changes) != Some(changes) {
                self.send_to_arrived().await?;
            }
            if self.shared.store.is_shared() && Instant::now() >= look_at {
                self.leave_to_others(false).await;
                pause *= 2;
                look_at = Instant::now() + pause;
            }
            sleep_until(self.until.min(Instant::now() + LOOK)).await;
        }
        if self.shared.store.is_shared() {
            self.leave_to_others(true).await;
        }
        let missing = self.missing();
        self.absent.clear();
        self.gave_up(CommandEnd::TimedOutUnsent, missing);
        Ok(())
    }

    fn missing(&self) -> u64 {
        self.absent.len() as u64 + u64::from(self.stranger.is_some())
    }

    fn gave_up(&self, end: CommandEnd, count: u64) {
        self.report.waiting.fetch_sub(count, Relaxed);
        tell(&self.job, &self.report, end, count);
    }

    async fn send_to_arrived(&mut self) -> Result<(), JobError> {
        let known = |id: &mut String| self.shared.directory.get(id).is_some();
        if let Some(id) = self.stranger.take_if(known) {
            self.absent.extend(self.shared.directory.get(&id));
        }
        let is_here = |device: &mut Arc<Device>| device.session().is_some();
        let come: Vec<_> = self.absent.extract_if(.., is_here).collect();
        for device in come {
            self.report.waiting.fetch_sub(1, Relaxed);
            let left = self.until.saturating_duration_since(Instant::now());
            self.send(device, left.max(Duration::from_millis(1)))
                .await?;
        }
        Ok(())
    }

    /// Absent devices that executed the command through another gateway need not be waited for. At the last look, what is
    /// still under way elsewhere has ended as that, and fails the firing.
    async fn leave_to_others(&mut self, is_last: bool) {
        if let Some(id) = self.stranger.take() {
            match known_end(&self.shared, &self.job, self.fire_ms, &id, is_last).await {
                Some(end) => self.gave_up(end, 1),
                None => self.stranger = Some(id),
            }
        }
        let mut absent = std::mem::take(&mut self.absent).into_iter().peekable();
        while absent.peek().is_some() {
            let mut looks = JoinSet::new();
            for device in absent.by_ref().take(PAGE) {
                let (shared, job) = (Arc::clone(&self.shared), Arc::clone(&self.job));
                let fire_ms = self.fire_ms;
                looks.spawn(async move {
                    let end = known_end(&shared, &job, fire_ms, device.id(), is_last).await;
                    (device, end)
                });
            }
            for (device, end) in looks.join_all().await {
                match end {
                    Some(end) => self.gave_up(end, 1),
                    None => self.absent.push(device),
                }
            }
        }
    }

    /// Begins a command when there is a place for it.
    async fn send(&mut self, device: Arc<Device>, time: Duration) -> Result<(), JobError> {
        let place = Arc::clone(&self.job.places).acquire_owned().await?;
        self.check_age()?;
        while self.commands.try_join_next().is_some() {}
        let (shared, job) = (Arc::clone(&self.shared), Arc::clone(&self.job));
        let (report, fire_ms) = (Arc::clone(&self.report), self.fire_ms);
        self.commands.spawn(async move {
            let end = command(&shared, &job, &report, fire_ms, &device, time).await;
            drop(place);
            tell(&job, &report, end, 1);
        });
        Ok(())
    }

    /// Half the time for which answers replay is over: soon it is not known any more who executed it.
    fn check_age(&self) -> Result<(), JobError> {
        let retain_ms = self.shared.config.commands.retain_ms;
        if self.shared.unix_ms() > self.fire_ms.saturating_add(retain_ms / 2) {
            return Err("it is older than half of commands.retain_ms".into());
        }
        Ok(())
    }

    /// A firing succeeds when every device is known to have executed the command, through whichever gateway.
    fn verdict(&self) -> Result<(), JobError> {
        let is_good = |end| matches!(end, CommandEnd::Done | CommandEnd::Replayed);
        let tally = &self.report.tally;
        let is_bad = |&(end, _): &(CommandEnd, &str)| !is_good(end) && tally.of(end) > 0;
        match (CommandEnd::ALL.iter().any(is_bad), &self.stranger) {
            (true, Some(id)) => {
                Err(format!("{tally}; no device has ever said HELLO as {id:?}").into())
            }
            (true, None) => Err(tally.to_string().into()),
            (false, _) => Ok(()),
        }
    }
}

fn tell(job: &Job, report: &Report, end: CommandEnd, count: u64) {
    job.tally.add(end, count);
    report.tally.add(end, count);
}

/// How a device's command ended elsewhere: none as long as it has not, unless this is the last look, or the store does not
/// answer.
async fn known_end(
    shared: &Shared,
    job: &Job,
    fire_ms: u64,
    device: &str,
    is_last: bool,
) -> Option<CommandEnd> {
    let key = store_key(device, &job.key(fire_ms));
    match replay(shared, &key, &job.fingerprint).await.ok()?? {
        // The gateway that has it may die, and its device come here.
        Answer::InProgress | Answer::Open if !is_last => None,
        answer => Some(CommandEnd::of(&answer)),
    }
}

/// The command of one device, to its end.
async fn command(
    shared: &Arc<Shared>,
    job: &Job,
    report: &Report,
    fire_ms: u64,
    device: &Device,
    time: Duration,
) -> CommandEnd {
    let until = Instant::now() + time;
    let mut backoff = Backoff::new();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let is_over = left.is_zero();
        let command = Command {
            key: store_key(device.id(), &job.key(fire_ms)),
            fingerprint: job.fingerprint,
            payload: Arc::clone(&job.payload),
            timeout_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1),
            trace: Some(report.trace),
        };
        let answer = match dispatch(shared, device.id(), command).await {
            Ok(answer) => answer,
            // It was forgotten in this moment.
            Err(UnknownDevice) => return CommandEnd::TimedOutUnsent,
        };
        match answer {
            // The firing is about to be cut off: it has not ended.
            Answer::Draining => return std::future::pending().await,
            // Somebody's: an earlier try's that is still out, another gateway's. Or it went while its turn came.
            Answer::InProgress | Answer::NotHere | Answer::QueueFull | Answer::StoreBusy => {
                if is_over {
                    return match answer {
                        Answer::NotHere => CommandEnd::TimedOutUnsent,
                        answer => CommandEnd::of(&answer),
                    };
                }
                let pause_ms = backoff.next_delay_ms(&AGAIN, random_u64(shared));
                sleep_until(until.min(Instant::now() + Duration::from_millis(pause_ms))).await;
            }
            answer => return CommandEnd::of(&answer),
        }
    }
}

fn random_u64(shared: &Shared) -> u64 {
    u64::from_ne_bytes(*shared.random_id().first_chunk().expect("of 16 bytes"))
}
