//! The device side: connect, say HELLO, beat, do each command once, reconnect.
//!
//! A [`Device`] is one device with its own worker for commands; a [`Fleet`] is many simulated ones
//! that share a reactor, for load. Both speak through the same [`conn_reactor`] handler.
//!
//! ```no_run
//! use gateway::device::{Answer, Device};
//!
//! let device = Device::builder("127.0.0.1:7400".parse().unwrap(), "pump-7")
//!     .journal("pump-7.journal")
//!     .start(|command| {
//!         println!("doing {}", String::from_utf8_lossy(&command.payload));
//!         Answer::json(r#"{"done":true}"#)
//!     })?;
//! device.join()?;
//! # Ok::<(), std::io::Error>(())
//! ```

mod crew;
mod datagrams;
mod fleet;
mod journal;
mod ledger;
mod member;
mod reply;
mod session;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use conn_reactor::client::Reconnect;

pub use fleet::{Fleet, FleetConfig, FleetReport, Percentiles};
pub use ledger::Answer;
pub use reply::{Command, Reply};

use crate::proto::{BootId, DeviceId, Forms};
use crew::{Crew, CrewConfig};
use ledger::Ledger;
use member::Member;
use session::Adaptive;

/// Most commands that a device remembers: running ones, and results that the gateway has not
/// acknowledged yet.
pub const COMMANDS_MAX: usize = 1_024;

/// The longest pause between two tries to connect, unless the device is told another one.
const RECONNECT_CAP_MS: u32 = 30_000;

/// How a device that lost its gateway comes back: spread over two seconds at once, then doubling
/// up to `cap_ms` with full jitter. A breaker spares a gateway that is down some tries, for a few seconds at most.
fn reconnect(cap_ms: u32) -> Reconnect {
    let cap_ms = cap_ms.max(1);
    let mut reconnect = Reconnect::default();
    reconnect.backoff.base_ms = cap_ms.min(500);
    reconnect.backoff.cap_ms = cap_ms;
    reconnect.backoff.first_window_ms = cap_ms.min(2_000);
    reconnect.stable_ms = cap_ms.min(5_000);
    if let Some(breaker) = &mut reconnect.breaker {
        breaker.open_ms = cap_ms.min(1_000).into();
        breaker.open_max_ms = cap_ms.min(5_000).into();
    }
    reconnect
}

/// The forms of beat to offer.
fn forms(delta: bool, datagrams: bool) -> Forms {
    let stream = if delta { Forms::DELTA } else { Forms::FRAMED };
    let beside = match datagrams {
        true => Forms::DATAGRAM,
        false => Forms::FRAMED,
    };
    stream | beside
}

/// One device that is connected to a gateway, or tries to be.
pub struct Device {
    crew: Crew,
    worker: Worker,
}

/// Settings of a [`Device`].
#[derive(Debug, Clone)]
pub struct Builder {
    gateways: Vec<SocketAddr>,
    id: String,
    interval_ms: u32,
    adaptive: Option<(u32, u32)>,
    journal: Option<PathBuf>,
    reconnect_cap_ms: u32,
    delta_beats: bool,
    datagrams: bool,
}

impl Device {
    /// A device named `id` that connects to `gateway`.
    #[must_use]
    pub fn builder(gateway: SocketAddr, id: impl Into<String>) -> Builder {
        Builder {
            gateways: vec![gateway],
            id: id.into(),
            interval_ms: 0,
            adaptive: None,
            journal: None,
            reconnect_cap_ms: RECONNECT_CAP_MS,
            delta_beats: true,
            datagrams: false,
        }
    }

    /// Whether the gateway has welcomed the device and the connection stands.
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.crew.counters().connected() > 0
    }

    /// Says how busy the device is, 0 to 100; the next beats carry it.
    pub fn set_load_percent(&self, percent: u8) {
        self.crew.counters().set_load(percent);
    }

    /// Finishes the command that runs, refuses those that wait behind it, says goodbye and
    /// disconnects.
    ///
    /// # Errors
    ///
    /// The reactor failed.
    pub fn stop(self) -> io::Result<()> {
        let worked = self.worker.end();
        self.crew.stop();
        self.crew.join().and(worked)
    }

    /// Waits until the device ends: when the gateway refuses it for good, for example because
    /// another session took its id over.
    ///
    /// # Errors
    ///
    /// The reactor failed, or the gateway refused the device for good: then the error says why.
    pub fn join(self) -> io::Result<()> {
        let ended = self.crew.join();
        let worked = self.worker.end();
        ended.and(worked)
    }
}

impl Builder {
    /// Another gateway on the same store, for when those named before cannot be reached. The device stays with the one
    /// that welcomed it, and comes back to that one first.
    #[must_use]
    pub fn fallback(mut self, gateway: SocketAddr) -> Self {
        self.gateways.push(gateway);
        self
    }

    /// Asks for a beat every `interval_ms` milliseconds; 0, the default, leaves it to the gateway.
    #[must_use]
    pub fn interval_ms(mut self, interval_ms: u32) -> Self {
        self.interval_ms = interval_ms;
        self
    }

    /// Lets the device find out how seldom it may beat, instead of [`interval_ms`](Self::interval_ms): it begins with a beat
    /// every `min_ms` milliseconds, beats less often while all beats are answered, at most every `max_ms` and as often as
    /// its gateway wants, and twice as often after one was lost. For connections through middleboxes that forget quiet ones,
    /// after a time that nobody tells. Off by default.
    #[must_use]
    pub fn adaptive_interval_ms(mut self, min_ms: u32, max_ms: u32) -> Self {
        self.adaptive = Some((min_ms.max(1), max_ms.max(min_ms).max(1)));
        self
    }

    /// Keeps command ids and results in a file, so that the device does not repeat a command after
    /// a restart. Without it the device's memory of commands ends with the process.
    #[must_use]
    pub fn journal(mut self, path: impl Into<PathBuf>) -> Self {
        self.journal = Some(path.into());
        self
    }

    /// The longest pause between two tries to connect, 30 seconds by default. Pauses double up to it,
    /// and each is random below its length, so that a crowd does not come back as one.
    #[must_use]
    pub fn reconnect_cap_ms(mut self, cap_ms: u32) -> Self {
        self.reconnect_cap_ms = cap_ms;
        self
    }

    /// Whether to beat in one byte, mostly, when the gateway can read that; true by default. Otherwise, and with a
    /// gateway that cannot, each beat is a frame of 9 bytes.
    #[must_use]
    pub fn delta_beats(mut self, delta_beats: bool) -> Self {
        self.delta_beats = delta_beats;
        self
    }

    /// Whether to beat in UDP datagrams when the gateway takes them; false by default. A beat that is not acknowledged in
    /// time is repeated on the connection, and a way that swallows datagrams is left alone. One more thread hears the acks.
    #[must_use]
    pub fn datagrams(mut self, datagrams: bool) -> Self {
        self.datagrams = datagrams;
        self
    }

    /// Starts the device: a reactor thread, and a worker thread that runs `execute` for one command
    /// after the other. A panic in `execute` leaves its command in doubt and the worker running.
    ///
    /// # Errors
    ///
    /// The id is not 1 to 64 bytes of UTF-8 without control characters, the journal cannot be used,
    /// or a thread cannot be started.
    pub fn start(
        self,
        execute: impl FnMut(&Command) -> Answer + Send + 'static,
    ) -> io::Result<Device> {
        let id = DeviceId::parse(self.id.as_bytes())
            .map_err(|violation| io::Error::new(io::ErrorKind::InvalidInput, violation))?;
        let boot = BootId(random_id());
        let ledger = match &self.journal {
            Some(path) => Ledger::open(path, boot, COMMANDS_MAX)?,
            None => Ledger::in_memory(boot, COMMANDS_MAX),
        };
        let worker = Worker::start(execute)?;
        let jobs = worker.jobs.clone();
        let mut member = Member::new(
            id,
            self.interval_ms,
            ledger,
            forms(self.delta_beats, self.datagrams),
        );
        if let Some((min_ms, max_ms)) = self.adaptive {
            member.adapt(Adaptive::new(min_ms, max_ms));
        }
        let config = CrewConfig {
            gateways: self.gateways,
            shards: 1,
            ramp_per_s: u32::MAX,
            reconnect: reconnect(self.reconnect_cap_ms),
            ends_with_members: true,
            datagrams: self.datagrams,
            simulates_load: false,
        };
        let execute = move |command, reply| {
            // No room, or the worker has ended: dropped, and so refused.
            drop(jobs.try_send(Job::Run(Waiting(Some((command, reply))))));
        };
        let crew = Crew::start(config, vec![member], Arc::new(execute))?;
        Ok(Device { crew, worker })
    }
}

/// The thread that executes a device's commands, one after the other.
struct Worker {
    jobs: SyncSender<Job>,
    /// What waits is refused from now on.
    ending: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

enum Job {
    Run(Waiting),
    End,
}

/// A command that was not begun: refused when it is dropped, wherever that happens.
struct Waiting(Option<(Command, Reply)>);

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some((_, reply)) = self.0.take() {
            reply.answer(Answer::refused());
        }
    }
}

impl Worker {
    fn start(execute: impl FnMut(&Command) -> Answer + Send + 'static) -> io::Result<Self> {
        let (jobs, inbox) = sync_channel(COMMANDS_MAX);
        let ending = Arc::<AtomicBool>::default();
        let is_ending = Arc::clone(&ending);
        let thread = thread::Builder::new()
            .name("mainstay-device-worker".into())
            .spawn(move || run_commands(&inbox, &is_ending, execute))?;
        Ok(Self {
            jobs,
            ending,
            thread,
        })
    }

    /// Waits for the command that runs.
    fn end(self) -> io::Result<()> {
        self.ending.store(true, Relaxed);
        // Refused when the thread has ended already, which the next line finds out.
        drop(self.jobs.send(Job::End));
        self.thread
            .join()
            .map_err(|_| io::Error::other("the device's worker panicked"))
    }
}

fn run_commands(
    inbox: &Receiver<Job>,
    ending: &AtomicBool,
    mut execute: impl FnMut(&Command) -> Answer,
) {
    while let Ok(Job::Run(mut waiting)) = inbox.recv() {
        if ending.load(Relaxed) {
            continue;
        }
        let Some((command, reply)) = waiting.0.take() else {
            continue;
        };
        // A panic drops the reply, which answers that the command was interrupted.
        let executed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| execute(&command)));
        match executed {
            Ok(answer) => reply.answer(answer),
            Err(_) => tracing::error!(id = %command.id, "a command panicked and is in doubt"),
        }
    }
}

pub(crate) fn random_id() -> [u8; 16] {
    let mut id = [0; 16];
    getrandom::fill(&mut id).expect("the kernel's random source works after boot");
    id
}
