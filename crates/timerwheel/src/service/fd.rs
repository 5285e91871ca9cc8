//! Timers behind a descriptor, for event loops that wait on descriptors.

use core::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::sleeper::{Clock, arm, timerfd};
use crate::{Key, OrderedWheel};

/// A wheel with a timer of the kernel (timerfd_create(2)) that becomes readable when something is due.
///
/// Register it for reading with epoll, poll, io_uring or a runtime's wrapper of descriptors; when it is readable,
/// call [`fire`](Self::fire). Level-triggered waiting needs nothing else; an edge-triggered loop must call `fire`
/// until it says that nothing more is due. Never early; nothing wakes the loop while nothing waits.
///
/// ```
/// use std::time::Duration;
/// use timerwheel::service::{Clock, FdTimers};
/// use rustix::event::{PollFd, PollFlags, poll};
///
/// let mut timers = FdTimers::new(Clock::Monotonic)?;
/// timers.after(Duration::from_millis(1), "due")?;
/// poll(&mut [PollFd::new(&timers, PollFlags::IN)], None)?;
/// let mut fired = Vec::new();
/// timers.fire(100, |_, value| fired.push(value))?;
/// assert_eq!(fired, ["due"]);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct FdTimers<T> {
    wheel: OrderedWheel<T>,
    timer: OwnedFd,
    clock: Clock,
    /// When the timer goes off.
    armed_ns: Option<u64>,
}

impl<T> FdTimers<T> {
    /// An empty set on `clock`.
    ///
    /// # Errors
    ///
    /// When the system refuses the descriptor.
    pub fn new(clock: Clock) -> io::Result<Self> {
        let tick = core::num::NonZeroU64::new(1 << 20).expect("not zero");
        Ok(FdTimers {
            wheel: OrderedWheel::with_tick(clock.now_ns(), tick),
            timer: timerfd(clock)?,
            clock,
            armed_ns: None,
        })
    }

    /// Adds a timer that fires after `delay`, counted from now. A system call when it is the first one due.
    ///
    /// # Errors
    ///
    /// When the timer of the kernel cannot be set; the value waits all the same, for the next `fire`.
    pub fn after(&mut self, delay: Duration, value: T) -> io::Result<Key> {
        let delay_ns = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        self.at_ns(self.clock.now_ns().saturating_add(delay_ns), value)
    }

    /// Adds a timer that fires at a time of the clock.
    ///
    /// # Errors
    ///
    /// As [`after`](Self::after).
    pub fn at_ns(&mut self, deadline_ns: u64, value: T) -> io::Result<Key> {
        let key = self.wheel.insert(deadline_ns, (), value);
        if self.armed_ns.is_none_or(|armed| deadline_ns < armed) {
            self.set(Some(deadline_ns))?;
        }
        Ok(key)
    }

    /// Takes a timer out; `None` when it has fired or was cancelled.
    ///
    /// The descriptor may then become readable once without anything due.
    pub fn cancel(&mut self, key: Key) -> Option<T> {
        self.wheel.cancel(key)
    }

    /// Fires what is due, up to `budget` units of work (see [`OrderedWheel::advance`]), and sets the timer of the
    /// kernel for the next one. Returns whether more is due; the descriptor stays readable then.
    ///
    /// # Errors
    ///
    /// When the timer of the kernel cannot be set.
    pub fn fire(&mut self, budget: usize, fire: impl FnMut(Key, T)) -> io::Result<bool> {
        let now_ns = self.clock.now_ns();
        let more_due = self.wheel.advance(now_ns, budget, fire).more_due;
        let next = match more_due {
            true => Some(now_ns),
            false => self.wheel.look_ahead(),
        };
        self.set(next)?;
        Ok(more_due)
    }

    /// Timers that wait.
    pub fn len(&self) -> usize {
        self.wheel.len()
    }

    /// Whether no timer waits.
    pub fn is_empty(&self) -> bool {
        self.wheel.is_empty()
    }

    fn set(&mut self, deadline_ns: Option<u64>) -> io::Result<()> {
        // Setting it also makes it unreadable until it goes off, so nobody need read it.
        arm(&self.timer, deadline_ns)?;
        self.armed_ns = deadline_ns;
        Ok(())
    }
}

impl<T> AsFd for FdTimers<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

impl<T> fmt::Debug for FdTimers<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FdTimers")
            .field("len", &self.len())
            .field("armed_ns", &self.armed_ns)
            .finish_non_exhaustive()
    }
}
