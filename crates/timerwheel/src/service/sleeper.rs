//! Sleeping to the nanosecond, and waking a sleeper.

use std::io;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fd::OwnedFd;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};

use super::sync::{AtomicU64, Ordering, Word, fence};

/// The clock that deadlines are read on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Clock {
    /// Stands still while the machine is suspended.
    #[default]
    Monotonic,
    /// Counts suspended time: a timer that fell due meanwhile fires on resume.
    Boottime,
}

impl Clock {
    /// Nanoseconds since some moment before the service started.
    pub fn now_ns(self) -> u64 {
        if cfg!(loom) {
            // Every run of a model must see the same.
            return 0;
        }
        let now = clock_gettime(match self {
            Clock::Monotonic => ClockId::Monotonic,
            Clock::Boottime => ClockId::Boottime,
        });
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    }
}

pub(crate) fn timespec(ns: u64) -> Timespec {
    Timespec {
        tv_sec: (ns / 1_000_000_000) as i64,
        tv_nsec: (ns % 1_000_000_000) as i64,
    }
}

/// A deadline for timerfd: zero would disarm it.
pub(crate) fn arm(timer: &OwnedFd, deadline_ns: Option<u64>) -> io::Result<()> {
    let new = Itimerspec {
        it_interval: timespec(0),
        it_value: timespec(deadline_ns.map_or(0, |ns| ns.max(1))),
    };
    timerfd_settime(timer, TimerfdTimerFlags::ABSTIME, &new)?;
    Ok(())
}

/// A timer on `clock`.
pub(crate) fn timerfd(clock: Clock) -> io::Result<OwnedFd> {
    let clock = match clock {
        Clock::Monotonic => TimerfdClockId::Monotonic,
        Clock::Boottime => TimerfdClockId::Boottime,
    };
    Ok(timerfd_create(
        clock,
        TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
    )?)
}

/// One sleeping thread and those who may wake it.
pub(crate) struct Sleeper {
    /// Changes with every wake-up call.
    epoch: Word,
    /// Until when the thread sleeps; 0 while it is awake, `u64::MAX` when nothing but a call wakes it.
    until: AtomicU64,
    /// The futex takes deadlines on CLOCK_MONOTONIC only: for others, a timer and an event.
    fds: Option<(OwnedFd, OwnedFd)>,
}

impl Sleeper {
    pub(crate) fn new(clock: Clock) -> io::Result<Self> {
        let fds = match clock {
            Clock::Monotonic => None,
            Clock::Boottime => {
                let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
                Some((timerfd(clock)?, event))
            }
        };
        Ok(Sleeper {
            epoch: Word::new(),
            until: AtomicU64::new(0),
            fds,
        })
    }

    /// Sleeps until `until_ns` or a call; not at all when `has_work`, which is asked after callers can see that
    /// the thread sleeps. Returns whether it slept.
    pub(crate) fn sleep(&self, until_ns: u64, has_work: impl Fn() -> bool) -> bool {
        let epoch = self.epoch.load();
        self.until.store(until_ns, Ordering::SeqCst);
        // Against the fence in `wake_before`: either the caller sees `until`, or its work is seen here.
        fence(Ordering::SeqCst);
        let sleeps = !has_work();
        if sleeps {
            match &self.fds {
                None => self.epoch.sleep_while(epoch, until_ns),
                Some((timer, event)) => wait_fds(timer, event, until_ns),
            }
        }
        self.until.store(0, Ordering::SeqCst);
        sleeps
    }

    /// Wakes the thread if it would sleep beyond `deadline_ns`. To be called after the work was handed over.
    pub(crate) fn wake_before(&self, deadline_ns: u64) {
        fence(Ordering::SeqCst);
        if deadline_ns < self.until.load(Ordering::SeqCst) {
            self.wake();
        }
    }

    /// Wakes the thread if it sleeps, whatever it waits for. To be called after the work was handed over.
    pub(crate) fn wake_now(&self) {
        self.wake_before(0);
    }

    /// Wakes the thread, or keeps it from falling asleep.
    pub(crate) fn wake(&self) {
        self.epoch.change();
        if let Some((_, event)) = &self.fds {
            // A full counter has woken it already.
            let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
        }
    }
}

fn wait_fds(timer: &OwnedFd, event: &OwnedFd, until_ns: u64) {
    let deadline = (until_ns != u64::MAX).then_some(until_ns);
    // Arming fails for no argument that comes from here; were it to, polling without a wait is the safe answer.
    let timeout = timespec(0);
    let timeout = arm(timer, deadline).is_err().then_some(&timeout);
    let mut fds = [
        PollFd::new(timer, PollFlags::IN),
        PollFd::new(event, PollFlags::IN),
    ];
    let _ = poll(&mut fds, timeout);
    let mut count = [0; 8];
    let _ = rustix::io::read(event, &mut count);
}
