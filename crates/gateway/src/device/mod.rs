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
mod fleet;
mod journal;
mod ledger;
mod member;
mod reply;
mod session;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;

use circuit::{Jitter, Policy};

pub use fleet::{Fleet, FleetConfig, FleetReport, Percentiles};
pub use ledger::Answer;
pub use reply::{Command, Reply};

use crate::proto::{BootId, DeviceId};
use crew::{Crew, CrewConfig};
use ledger::Ledger;
use member::Member;

/// Most commands that a device remembers: running ones, and results that the gateway has not
/// acknowledged yet.
pub const COMMANDS_MAX: usize = 1_024;

/// How a device that lost its gateway comes back: spread over two seconds at once, then doubling
/// up to half a minute with full jitter.
const RECONNECT: Policy = Policy {
    base_ms: 500,
    cap_ms: 30_000,
    jitter: Jitter::Full,
    first_window_ms: 2_000,
};

/// One device that is connected to a gateway, or tries to be.
pub struct Device {
    crew: Crew,
    worker: thread::JoinHandle<()>,
}

/// Settings of a [`Device`].
#[derive(Debug, Clone)]
pub struct Builder {
    gateway: SocketAddr,
    id: String,
    interval_ms: u32,
    journal: Option<PathBuf>,
}

impl Device {
    /// A device named `id` that connects to `gateway`.
    #[must_use]
    pub fn builder(gateway: SocketAddr, id: impl Into<String>) -> Builder {
        Builder {
            gateway,
            id: id.into(),
            interval_ms: 0,
            journal: None,
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

    /// Says goodbye and disconnects; commands that were begun are finished and written down first.
    ///
    /// # Errors
    ///
    /// The reactor failed.
    pub fn stop(self) -> io::Result<()> {
        self.crew.stop();
        self.join()
    }

    /// Waits until the device ends: when the gateway refuses it for good, for example because
    /// another session took its id over.
    ///
    /// # Errors
    ///
    /// The reactor failed, or the gateway refused the device for good: then the error says why.
    pub fn join(self) -> io::Result<()> {
        let ended = self.crew.join();
        if self.worker.join().is_err() {
            return Err(io::Error::other("the device's worker panicked"));
        }
        ended
    }
}

impl Builder {
    /// Asks for a beat every `interval_ms` milliseconds; 0, the default, leaves it to the gateway.
    #[must_use]
    pub fn interval_ms(mut self, interval_ms: u32) -> Self {
        self.interval_ms = interval_ms;
        self
    }

    /// Keeps command ids and results in a file, so that the device does not repeat a command after
    /// a restart. Without it the device's memory of commands ends with the process.
    #[must_use]
    pub fn journal(mut self, path: impl Into<PathBuf>) -> Self {
        self.journal = Some(path.into());
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
        let (jobs, inbox) = sync_channel(COMMANDS_MAX);
        let worker = thread::Builder::new()
            .name("mainstay-device-worker".into())
            .spawn(move || run_commands(&inbox, execute))?;
        let member = Member::new(id, self.interval_ms, ledger);
        let config = CrewConfig {
            gateway: self.gateway,
            shards: 1,
            ramp_per_s: u32::MAX,
            reconnect: RECONNECT,
            ends_with_members: true,
            simulates_load: false,
        };
        let execute = move |command, reply| queue(&jobs, command, reply);
        let crew = Crew::start(config, vec![member], Arc::new(execute))?;
        Ok(Device { crew, worker })
    }
}

type Job = (Command, Reply);

fn queue(jobs: &SyncSender<Job>, command: Command, reply: Reply) {
    match jobs.try_send((command, reply)) {
        Ok(()) => {}
        Err(TrySendError::Full((_, reply)) | TrySendError::Disconnected((_, reply))) => {
            // Nothing was done, but the command is remembered as started.
            reply.answer(Answer::interrupted());
        }
    }
}

fn run_commands(
    inbox: &std::sync::mpsc::Receiver<Job>,
    mut execute: impl FnMut(&Command) -> Answer,
) {
    for (command, reply) in inbox {
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

pub(crate) fn random_u64() -> u64 {
    getrandom::u64().expect("the kernel's random source works after boot")
}
