//! Threads that fire timers: precise, never early, silent while nothing waits. Linux.
//!
//! [`TimerService`] runs one shard (a thread with a wheel) per core. Any thread inserts and cancels; a function of
//! yours gets each value on the shard's thread when its deadline has come. [`FdTimers`] is the form without a
//! thread, for an event loop that waits on descriptors.
//!
//! ```
//! use std::sync::mpsc;
//! use std::time::Duration;
//! use timerwheel::service::{Config, TimerService};
//!
//! let (sender, fired) = mpsc::channel();
//! let mut config = Config::default();
//! config.shards = 1;
//! let service = TimerService::start(config, |_shard| {
//!     let sender = sender.clone();
//!     move |value: &str| sender.send(value).unwrap()
//! })
//! .unwrap();
//! service.after(Duration::from_millis(5), "second").unwrap();
//! service.after(Duration::from_millis(1), "first").unwrap();
//! let never = service.after(Duration::from_millis(3), "never").unwrap();
//! assert!(never.cancel());
//! assert_eq!(fired.recv(), Ok("first"));
//! assert_eq!(fired.recv(), Ok("second"));
//! ```

mod fd;
#[cfg(feature = "tokio")]
mod futures;
#[cfg(all(loom, test))]
mod loom_tests;
mod shard;
mod sleeper;
mod slots;
mod sync;

use core::fmt;
use std::boxed::Box;
use std::format;
use std::io;
use std::num::NonZeroU64;
use std::string::String;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::vec::Vec;

use hdrhistogram::Histogram;

pub use fd::FdTimers;
#[cfg(feature = "tokio")]
pub use futures::{DelayQueue, Elapsed, Sleep, Sleeps, Timeout};
use shard::{Shard, Shared};
pub use sleeper::Clock;
use slots::Ticket;
use sync::Ordering;

/// How a [`TimerService`] works. Start from the default and change what you need.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Shards, each with a thread. Default: one per core that this process may use.
    pub shards: usize,
    /// Timers that may wait in one shard; one more is refused. Default: 2^20.
    pub timers_max: u32,
    /// New timers that may queue up in front of one shard; one more is refused. When half of them queue up, or as
    /// many timers were cancelled, the shard is woken to look at them. Default: 4,096.
    pub commands_max: usize,
    /// The clock of all deadlines.
    pub clock: Clock,
    /// For so long before a deadline the thread spins instead of sleeping: less late, more CPU. Default: 0.
    pub spin_ns: u64,
    /// So much later than its deadline a timer may fire, so that many fire in one wake-up. Default: 0.
    pub slack_ns: u64,
    /// Pin shard n to the n-th core that this process may use.
    pub pin: bool,
    /// Run the shards under SCHED_FIFO at this priority (1..=99).
    pub fifo_priority: Option<u8>,
    /// Keep the whole process in memory (mlockall).
    pub lock_memory: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            shards: std::thread::available_parallelism().map_or(1, usize::from),
            timers_max: 1 << 20,
            commands_max: 4_096,
            clock: Clock::Monotonic,
            spin_ns: 0,
            slack_ns: 0,
            pin: false,
            fifo_priority: None,
            lock_memory: false,
        }
    }
}

/// Threads that fire timers. See the [module](self).
///
/// A value never fires before its deadline. It fires as soon after it as the kernel wakes the thread, and its
/// siblings' handlers return; see [`Config`] for what buys precision and what saves CPU time.
///
/// A shard's memory grows with the most timers that ever waited; below that, it fires without allocating.
///
/// Dropping the service stops the threads and drops what waits.
pub struct TimerService<T> {
    shards: Vec<Arc<Shared<T>>>,
    threads: Vec<JoinHandle<()>>,
    config: Arc<Config>,
    warnings: Arc<Mutex<Vec<String>>>,
}

/// Names a timer of a service; cancels it from any thread. Dropping it cancels nothing.
pub struct Handle<T> {
    shard: Arc<Shared<T>>,
    ticket: Ticket,
}

/// A timer was refused: too many wait, or too many new ones queue up. Holds the value.
pub struct Refused<T> {
    value: T,
    is_queue_full: bool,
}

/// Lateness is recorded up to a minute.
const LATENESS_NS_MAX: u64 = 60_000_000_000;

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENESS_NS_MAX, 2).expect("the bounds are right")
}

impl<T: Send + 'static> TimerService<T> {
    /// Starts the threads. `make` is called once per shard and makes the function that gets the shard's values; a
    /// slow one delays the timers behind it, and one that panics (the panic hook says so) is called for the next value all the
    /// same. What the configuration asks for and the system refuses (pinning, SCHED_FIFO, mlockall) becomes a
    /// [warning](Self::warnings).
    ///
    /// # Errors
    ///
    /// When the system refuses threads or descriptors.
    pub fn start<F: FnMut(T) + Send + 'static>(
        config: Config,
        mut make: impl FnMut(usize) -> F,
    ) -> io::Result<Self> {
        let mut service = TimerService {
            shards: Vec::new(),
            threads: Vec::new(),
            config: Arc::new(config),
            warnings: Arc::new(Mutex::new(Vec::new())),
        };
        if service.config.lock_memory {
            let all = rustix::mm::MlockAllFlags::CURRENT | rustix::mm::MlockAllFlags::FUTURE;
            if let Err(error) = rustix::mm::mlockall(all) {
                warn(&service.warnings, format!("mlockall: {error}"));
            }
        }
        for shard in 0..service.config.shards.max(1) {
            service.start_shard(shard, make(shard))?;
        }
        Ok(service)
    }

    fn start_shard<F: FnMut(T) + Send + 'static>(&mut self, at: usize, fire: F) -> io::Result<()> {
        let shared = Arc::new(Shared::new(&self.config)?);
        self.shards.push(shared.clone());
        let (config, warnings) = (self.config.clone(), self.warnings.clone());
        let prepared = Arc::new(std::sync::Barrier::new(2));
        let ready = prepared.clone();
        let thread = std::thread::Builder::new()
            .name(format!("timers-{at}"))
            .spawn(move || {
                prepare_thread(at, &config, &warnings);
                ready.wait();
                Shard::new(&shared, &config, fire).run();
            })?;
        prepared.wait();
        self.threads.push(thread);
        Ok(())
    }

    /// Fires `value` after `delay`, counted from now.
    ///
    /// # Errors
    ///
    /// As [`at_ns`](Self::at_ns).
    pub fn after(&self, delay: Duration, value: T) -> Result<Handle<T>, Refused<T>> {
        let delay_ns = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        self.at_ns(self.now_ns().saturating_add(delay_ns), value)
    }

    /// Fires `value` at `deadline`.
    ///
    /// # Errors
    ///
    /// As [`at_ns`](Self::at_ns).
    pub fn at(&self, deadline: Instant, value: T) -> Result<Handle<T>, Refused<T>> {
        // In this order, what passes between the two readings makes the timer late, not early.
        let delay = deadline.saturating_duration_since(Instant::now());
        self.after(delay, value)
    }

    /// Fires `value` at a time of the service's clock. Each thread has its shard; the work is a few atomic
    /// operations, and a system call when the shard sleeps for longer.
    ///
    /// # Errors
    ///
    /// When `timers_max` wait in the shard, or `commands_max` new ones queue up: try again later, or elsewhere.
    pub fn at_ns(&self, deadline_ns: u64, value: T) -> Result<Handle<T>, Refused<T>> {
        self.insert_on(own_shard() % self.shards.len(), deadline_ns, value)
    }

    /// As [`at_ns`](Self::at_ns), on a shard of your choice (modulo their number).
    ///
    /// # Errors
    ///
    /// As [`at_ns`](Self::at_ns).
    pub fn insert_on(
        &self,
        shard: usize,
        deadline_ns: u64,
        value: T,
    ) -> Result<Handle<T>, Refused<T>> {
        let shard = &self.shards[shard % self.shards.len()];
        let wake_ns = deadline_ns
            .saturating_add(self.config.slack_ns)
            .saturating_sub(self.config.spin_ns);
        Ok(Handle {
            ticket: shard.insert(deadline_ns, wake_ns, value)?,
            shard: shard.clone(),
        })
    }
}

impl<T> TimerService<T> {
    /// The service's clock.
    pub fn now_ns(&self) -> u64 {
        self.config.clock.now_ns()
    }

    /// What was asked for and not permitted.
    pub fn warnings(&self) -> Vec<String> {
        let warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        warnings.clone()
    }

    /// How many nanoseconds after their deadlines the values fired, all shards together, to two digits.
    pub fn lateness_ns(&self) -> Histogram<u64> {
        let mut all = histogram();
        for shard in &self.shards {
            let own = shard
                .lateness_ns
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            all.add(&*own).expect("the bounds are the same");
        }
        all
    }

    /// How often the shards' threads have woken up. It stands still while nothing waits.
    pub fn wakeups(&self) -> u64 {
        let each = |shard: &Arc<Shared<T>>| shard.wakeups.load(Ordering::Relaxed);
        self.shards.iter().map(each).sum()
    }
}

impl<T> Drop for TimerService<T> {
    fn drop(&mut self) {
        for shard in &self.shards {
            shard.stop();
        }
        for thread in self.threads.drain(..) {
            // It panics only if a value's drop does, and that has been said.
            let _ = thread.join();
        }
        // Handles keep the queues alive, not the values in them.
        self.shards.iter().for_each(|shard| shard.drop_inserts());
    }
}

impl<T> Handle<T> {
    /// Cancels the timer: true when it has not fired and never will. From any thread, without waiting.
    ///
    /// The shard drops the value, and frees its place, when it next wakes up: at the latest at the deadline, or when
    /// half of `commands_max` are cancelled, or when a timer is refused for want of places.
    pub fn cancel(&self) -> bool {
        self.shard.cancel(self.ticket)
    }

    /// Whether the timer has neither fired nor been cancelled.
    pub fn is_waiting(&self) -> bool {
        self.shard.is_waiting(self.ticket)
    }
}

impl<T> Refused<T> {
    fn new(value: T, is_queue_full: bool) -> Self {
        Refused {
            value,
            is_queue_full,
        }
    }

    /// The value that was refused.
    pub fn into_value(self) -> T {
        self.value
    }

    /// Too many new timers queue up: the shard is behind, try again soon.
    pub fn is_queue_full(&self) -> bool {
        self.is_queue_full
    }

    /// `timers_max` timers wait: try again when some have fired.
    pub fn is_too_many(&self) -> bool {
        !self.is_queue_full
    }
}

impl<T> fmt::Display for Refused<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.is_queue_full {
            true => "the shard's command queue is full; try again soon or raise commands_max",
            false => "the shard holds as many timers as it may; raise timers_max",
        })
    }
}

impl<T> fmt::Debug for Refused<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused")
            .field("is_queue_full", &self.is_queue_full)
            .finish_non_exhaustive()
    }
}

impl<T> core::error::Error for Refused<T> {}

impl<T> fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("is_waiting", &self.is_waiting())
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for TimerService<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimerService")
            .field("config", &self.config)
            .field("wakeups", &self.wakeups())
            .finish_non_exhaustive()
    }
}

/// Gives each thread that inserts a number.
fn own_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    std::thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    OWN.with(|own| *own)
}

fn warn(warnings: &Mutex<Vec<String>>, warning: String) {
    let mut warnings = warnings.lock().unwrap_or_else(PoisonError::into_inner);
    warnings.push(warning);
}

/// Pins and promotes the calling thread, and takes the kernel's 50 us of slack from its sleeps.
fn prepare_thread(at: usize, config: &Config, warnings: &Mutex<Vec<String>>) {
    if let Err(error) = rustix::thread::set_current_timer_slack(Some(NonZeroU64::MIN)) {
        warn(warnings, format!("timer slack of shard {at}: {error}"));
    }
    if config.pin
        && let Err(error) = pin(at)
    {
        warn(warnings, format!("pinning shard {at}: {error}"));
    }
    if let Some(priority) = config.fifo_priority
        && let Err(error) = crate::rt::set_fifo(priority)
    {
        warn(warnings, format!("SCHED_FIFO for shard {at}: {error}"));
    }
}

fn pin(at: usize) -> io::Result<()> {
    let allowed = rustix::thread::sched_getaffinity(None)?;
    let cores: Box<[usize]> = (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|core| allowed.is_set(*core))
        .collect();
    let Some(core) = cores.get(at % cores.len().max(1)) else {
        return Ok(());
    };
    let mut own = rustix::thread::CpuSet::new();
    own.set(*core);
    rustix::thread::sched_setaffinity(None, &own)?;
    Ok(())
}
