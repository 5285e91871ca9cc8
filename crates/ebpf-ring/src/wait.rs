//! How a reader waits: asleep in the kernel, awake on its CPU, or in somebody else's event loop.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::error::RingError;
use crate::walk::Look;

/// How long a sleeping waiter lets a record be written before it looks again.
///
/// The kernel's poll reports such a ring as readable, so polling it would be a busy loop.
const BUSY_LOOK: Duration = Duration::from_micros(100);

/// Looks between two readings of the clock while spinning.
const LOOKS_PER_CLOCK: u32 = 32;

/// How to wait for records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wait {
    /// Sleep in the kernel until a record is there or the time is over; `None` waits for ever.
    /// Interrupted sleeps go on.
    Block {
        /// The longest wait, kept to the nanosecond that the kernel's timers allow.
        timeout: Option<Duration>,
    },
    /// Stay awake for a while, then sleep as with `Block`: the lowest latency, for CPU time.
    Spin {
        /// How long to stay awake.
        policy: SpinPolicy,
        /// As in `Block`, the time awake included.
        timeout: Option<Duration>,
    },
    /// Do not wait: for a reader whose descriptor sits in an event loop of the caller's.
    ///
    /// An answer of false is a promise: the next record makes the descriptor readable, with an
    /// edge for edge-triggered loops too. Not for records that a program submits with
    /// `BPF_RB_NO_WAKEUP`.
    Event,
}

impl Wait {
    /// Sleep for at most `timeout`.
    #[must_use]
    pub fn up_to(timeout: Duration) -> Self {
        Self::Block {
            timeout: Some(timeout),
        }
    }

    /// Sleep until a record comes or the reader is closed.
    #[must_use]
    pub fn forever() -> Self {
        Self::Block { timeout: None }
    }

    /// Spin by the default policy, then sleep until a record comes or the reader is closed.
    #[must_use]
    pub fn spin() -> Self {
        Self::Spin {
            policy: SpinPolicy::default(),
            timeout: None,
        }
    }
}

/// How long [`Wait::Spin`] stays awake.
///
/// A wait spins (with the CPU's pause instruction), then yields its CPU to whoever wants it, then
/// sleeps. Both times are upper limits that adapt: each wait in which staying awake did not help
/// halves them, down to 1/64, and each sleep that was shorter than they are doubles them again. So
/// an idle reader costs next to nothing, whatever the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpinPolicy {
    /// The longest time to spin.
    pub spin_max: Duration,
    /// The longest time to go on looking between yields to other threads of this CPU.
    pub yield_max: Duration,
}

/// 50 us each: about the time of a sleep and a wake-up.
impl Default for SpinPolicy {
    fn default() -> Self {
        Self {
            spin_max: Duration::from_micros(50),
            yield_max: Duration::from_micros(50),
        }
    }
}

/// Ends the waits of a reader, from any thread.
///
/// Made by the reader's `closer`. Dropping it changes nothing.
#[derive(Debug, Clone)]
pub struct Closer {
    signal: Arc<Signal>,
}

#[derive(Debug)]
struct Signal {
    closed: AtomicBool,
    /// Readable once closed.
    event: OwnedFd,
}

impl Closer {
    pub(crate) fn new() -> Result<Self, RingError> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|e| RingError::io("making the descriptor that ends a wait", e))?;
        let closed = AtomicBool::new(false);
        let signal = Arc::new(Signal { closed, event });
        Ok(Self { signal })
    }

    /// Ends the wait that runs, as soon as the system gives its thread a CPU (within a millisecond, mostly), and every later one: they
    /// return false.
    /// Records that lie in the ring can still be drained.
    pub fn close(&self) {
        self.signal.closed.store(true, Ordering::Release);
        // It can only fail when the counter is at its end, and then the descriptor is readable.
        let _ = rustix::io::write(&self.signal.event, &1u64.to_ne_bytes());
    }

    /// Readable from [`close`](Self::close) on.
    #[cfg(feature = "tokio")]
    pub(crate) fn event(&self) -> std::io::Result<OwnedFd> {
        self.signal.event.as_fd().try_clone_to_owned()
    }

    /// Whether [`close`](Self::close) was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.signal.closed.load(Ordering::Acquire)
    }
}

/// What a reader waits for.
pub(crate) trait Watched {
    /// Readable, by poll, whenever there is a record that `look` has not seen.
    fn fd(&self) -> BorrowedFd<'_>;
    fn look(&self) -> Result<Look, RingError>;
    /// Forgets what made the descriptor readable, if that does not go away by reading records.
    fn forget(&self) -> Result<(), RingError> {
        Ok(())
    }
}

/// A reader's waiting: what ends it, and what it learned about spinning.
#[derive(Debug, Default)]
pub(crate) struct Waiter {
    closer: Option<Closer>,
    /// Spinning is at present cut to `1 / 2^restraint` of the policy.
    restraint: u32,
}

impl Waiter {
    const RESTRAINT_MAX: u32 = 6;

    pub(crate) fn closer(&mut self) -> Result<Closer, RingError> {
        if let Some(closer) = &self.closer {
            return Ok(closer.clone());
        }
        let closer = Closer::new()?;
        self.closer = Some(closer.clone());
        Ok(closer)
    }

    pub(crate) fn closed_by(closer: Option<Closer>) -> Self {
        Self {
            closer,
            restraint: 0,
        }
    }

    pub(crate) fn into_closer(self) -> Option<Closer> {
        self.closer
    }

    fn is_closed(&self) -> bool {
        self.closer.as_ref().is_some_and(Closer::is_closed)
    }

    /// Waits until there is something to read; false when the time is over or the reader closed.
    pub(crate) fn wait(&mut self, wait: Wait, watched: &impl Watched) -> Result<bool, RingError> {
        let started = Instant::now();
        // A timeout beyond what the clock can hold is none.
        let deadline_after = |timeout: Option<Duration>| started.checked_add(timeout?);
        match wait {
            Wait::Event => {
                watched.forget()?;
                // The producer wakes only a consumer whose position it sees: publish, then look.
                fence(Ordering::SeqCst);
                Ok(!self.is_closed() && watched.look()? == Look::Ready)
            }
            Wait::Block { timeout } => self.sleep(watched, deadline_after(timeout)),
            Wait::Spin { policy, timeout } => {
                let deadline = deadline_after(timeout);
                if let Some(found) = self.spin(watched, policy, started, deadline)? {
                    return Ok(found);
                }
                let asleep = Instant::now();
                let found = self.sleep(watched, deadline)?;
                self.learn(policy, asleep.elapsed());
                Ok(found)
            }
        }
    }

    /// `None`: it is time to sleep.
    fn spin(
        &self,
        watched: &impl Watched,
        policy: SpinPolicy,
        started: Instant,
        deadline: Option<Instant>,
    ) -> Result<Option<bool>, RingError> {
        let spin_end = policy.spin_max / (1 << self.restraint);
        let end = spin_end.saturating_add(policy.yield_max / (1 << self.restraint));
        loop {
            for _ in 0..LOOKS_PER_CLOCK {
                if self.is_closed() {
                    return Ok(Some(false));
                }
                if watched.look()? == Look::Ready {
                    return Ok(Some(true));
                }
                std::hint::spin_loop();
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                return Ok(Some(false));
            }
            match now.saturating_duration_since(started) {
                awake if awake >= end => return Ok(None),
                awake if awake >= spin_end => std::thread::yield_now(),
                _ => {}
            }
        }
    }

    /// Spins longer the next time if that would have saved a sleep of this length, else shorter.
    fn learn(&mut self, policy: SpinPolicy, asleep: Duration) {
        let saved = asleep < policy.spin_max.saturating_add(policy.yield_max);
        self.restraint = match saved {
            true => self.restraint.saturating_sub(1),
            false => (self.restraint + 1).min(Self::RESTRAINT_MAX),
        };
    }

    fn sleep(&self, watched: &impl Watched, deadline: Option<Instant>) -> Result<bool, RingError> {
        fence(Ordering::SeqCst);
        loop {
            if self.is_closed() {
                return Ok(false);
            }
            let head = watched.look()?;
            if head == Look::Ready {
                return Ok(true);
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(false);
            }
            if head == Look::Busy {
                std::thread::sleep(left.map_or(BUSY_LOOK, |left| left.min(BUSY_LOOK)));
            } else {
                self.poll(watched.fd(), left)?;
                watched.forget()?;
            }
        }
    }

    fn poll(&self, fd: BorrowedFd<'_>, timeout: Option<Duration>) -> Result<(), RingError> {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let ring = PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let done = match &self.closer {
            Some(closer) => {
                let event = closer.signal.event.as_fd();
                let event = PollFd::from_borrowed_fd(event, PollFlags::IN);
                poll(&mut [ring, event], timeout.as_ref())
            }
            None => poll(&mut [ring], timeout.as_ref()),
        };
        match done {
            // The caller's loop computes what is left of the time.
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(RingError::io("waiting for the ring", e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    struct Fake {
        /// Its own descriptor is never readable.
        closer: Closer,
        head: Look,
        looks: Cell<u32>,
    }

    impl Fake {
        fn new(head: Look) -> Self {
            Self {
                closer: Closer::new().expect("a descriptor is left"),
                head,
                looks: Cell::new(0),
            }
        }
    }

    impl Watched for Fake {
        fn fd(&self) -> BorrowedFd<'_> {
            self.closer.signal.event.as_fd()
        }

        fn look(&self) -> Result<Look, RingError> {
            self.looks.set(self.looks.get() + 1);
            Ok(self.head)
        }
    }

    #[test]
    fn a_closed_waiter_finds_nothing_in_any_way() {
        let mut waiter = Waiter::default();
        let fake = Fake::new(Look::Ready);
        let all = [Wait::forever(), Wait::spin(), Wait::Event];
        for wait in all {
            assert!(waiter.wait(wait, &fake).expect("nothing fails"), "{wait:?}");
        }
        let closer = waiter.closer().expect("a descriptor is left");
        closer.close();
        closer.clone().close();
        assert!(waiter.is_closed());
        for wait in all {
            assert!(
                !waiter.wait(wait, &fake).expect("nothing fails"),
                "{wait:?}"
            );
        }
    }

    #[test]
    fn closing_ends_a_sleep_and_a_look_at_a_busy_head() {
        for head in [Look::Empty, Look::Busy] {
            let mut waiter = Waiter::default();
            let closer = waiter.closer().expect("a descriptor is left");
            let fake = Fake::new(head);
            let closing = std::thread::spawn(move || closer.close());
            assert!(!waiter.wait(Wait::forever(), &fake).expect("nothing fails"));
            closing.join().expect("no panic");
        }
    }

    #[test]
    fn times_end() {
        let mut waiter = Waiter::default();
        let timeout = Some(Duration::from_micros(200));
        let policy = SpinPolicy::default();
        for head in [Look::Empty, Look::Busy] {
            let fake = Fake::new(head);
            for wait in [Wait::Block { timeout }, Wait::Spin { policy, timeout }] {
                let started = Instant::now();
                assert!(!waiter.wait(wait, &fake).expect("nothing fails"));
                assert!(started.elapsed() >= Duration::from_micros(200), "{wait:?}");
            }
        }
    }

    #[test]
    fn spinning_that_does_not_pay_gets_shorter_and_longer_again() {
        let mut waiter = Waiter::default();
        let policy = SpinPolicy::default();
        for _ in 0..20 {
            waiter.learn(policy, Duration::from_secs(1));
        }
        assert_eq!(waiter.restraint, Waiter::RESTRAINT_MAX);
        waiter.learn(policy, Duration::from_micros(99));
        assert_eq!(waiter.restraint, Waiter::RESTRAINT_MAX - 1);
        for _ in 0..20 {
            waiter.learn(policy, Duration::from_micros(1));
        }
        assert_eq!(waiter.restraint, 0);
    }

    #[test]
    fn a_policy_without_an_end_spins_until_the_time_is_over() {
        let policy = SpinPolicy {
            spin_max: Duration::MAX,
            yield_max: Duration::MAX,
        };
        let timeout = Some(Duration::from_micros(200));
        let (mut waiter, fake) = (Waiter::default(), Fake::new(Look::Empty));
        let wait = Wait::Spin { policy, timeout };
        assert!(!waiter.wait(wait, &fake).expect("nothing fails"));
        waiter.learn(policy, Duration::MAX);
        assert_eq!(waiter.restraint, 1);
    }

    #[test]
    fn spinning_ends_in_sleep() {
        let waiter = Waiter::default();
        let policy = SpinPolicy {
            spin_max: Duration::from_micros(5),
            yield_max: Duration::from_micros(5),
        };
        let fake = Fake::new(Look::Empty);
        let spin = |deadline| waiter.spin(&fake, policy, Instant::now(), deadline);
        assert_eq!(spin(None).expect("nothing fails"), None);
        assert_eq!(
            spin(Some(Instant::now())).expect("nothing fails"),
            Some(false)
        );
        assert!(fake.looks.get() >= 2 * LOOKS_PER_CLOCK);
    }
}
