//! Who sets the wall clock? The clock's thread sleeps by the steady one, until the next fire time as it was read on the
//! wall: it has to be told when the two part. Linux tells, through a timer that is cancelled when the clock is set or the
//! machine wakes from sleep; elsewhere the thread has to look again now and then.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// The year 2255: the timer is there to be cancelled, not to fire.
const NEVER_S: i64 = 9_000_000_000;

/// Waits for the wall clock to be set.
pub(crate) struct Wall {
    timer: OwnedFd,
    end: OwnedFd,
}

impl Wall {
    pub(crate) fn new() -> io::Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Realtime,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let never = Itimerspec {
            it_interval: zero,
            it_value: Timespec {
                tv_sec: NEVER_S,
                tv_nsec: 0,
            },
        };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        timerfd_settime(&timer, flags, &never)?;
        let end = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { timer, end })
    }

    /// Waits until the clock is set: true then, false after [`end`](Self::end).
    pub(crate) fn wait(&self) -> bool {
        loop {
            let mut watched = [
                PollFd::new(&self.end, PollFlags::IN),
                PollFd::new(&self.timer, PollFlags::IN),
            ];
            match poll(&mut watched, None) {
                Ok(_) if !watched[0].revents().is_empty() => return false,
                // Reading takes the news; the timer stays where it is and can be cancelled again.
                Ok(_) => match rustix::io::read(&self.timer, &mut [0_u8; 8]) {
                    Ok(_) | Err(Errno::CANCELED) => return true,
                    Err(_) => {}
                },
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }

    /// Ends the wait, now and for ever.
    pub(crate) fn end(&self) {
        // A counter that is full wakes as well.
        let _full = rustix::io::write(&self.end, &1_u64.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::Wall;
    use std::sync::Arc;

    #[test]
    fn a_wait_ends_when_it_is_told_to() {
        let wall = Arc::new(Wall::new().unwrap());
        let waiting = Arc::clone(&wall);
        let thread = std::thread::spawn(move || waiting.wait());
        wall.end();
        assert!(!thread.join().unwrap());
        assert!(!wall.wait(), "and stays ended");
    }
}
