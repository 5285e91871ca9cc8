//! How many descriptors this process has open, which, and whether they grow (Linux).
//!
//! [`count`] is cheap enough for every scrape of a metrics page: it asks the kernel for the size of `/proc/self/fd`, which
//! is the number of open descriptors since Linux 6.2, and lists the directory only where that says nothing.
//!
//! [`list`] names each one. It asks for the flags of every number that the process's table has room for, a fifth of a
//! microsecond each. That is half of what listing the directory takes, and leaves nothing behind: for a name that is
//! listed the kernel makes a cache entry (about 900 bytes of slab, reclaimed under pressure, and three times the
//! time when it is not there yet). Only a table that is nearly empty is read from the directory, without a `readlink`
//! per descriptor. Who opened them, and when, only the kernel could tell: `mainstay trace fds` watches it.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use rustix::fs::{FileType, Mode, OFlags, RawDir};

/// How many descriptors this process has open now; the one used for asking is not counted.
///
/// # Errors
/// `/proc` is not mounted, or no descriptor is left to list it with where the kernel is older than 6.2.
pub fn count() -> io::Result<usize> {
    // Before 6.2 the size of this directory is 0, and a process with nothing open is as easily counted.
    match usize::try_from(rustix::fs::stat(DIRECTORY)?.st_size) {
        Ok(count) if count > 0 => Ok(count),
        _ => count_by_listing(),
    }
}

/// The numbers of all open descriptors, in order; those used for asking are not among them. What other threads open or
/// close meanwhile may be among them or not.
///
/// # Errors
/// `/proc` is not mounted, or no descriptor is left to ask it with.
pub fn list() -> io::Result<Vec<RawFd>> {
    let mut numbers = Vec::new();
    each_number(|number| numbers.push(number))?;
    numbers.sort_unstable();
    Ok(numbers)
}

/// What one descriptor refers to: a `stat` through `/proc`, a microsecond or two.
///
/// # Errors
/// [`NotFound`](io::ErrorKind::NotFound): it is not open (any more).
pub fn kind(number: RawFd) -> io::Result<Kind> {
    let mode = rustix::fs::stat(format!("{DIRECTORY}/{number}"))?.st_mode;
    Ok(match FileType::from_raw_mode(mode) {
        FileType::Socket => Kind::Socket,
        FileType::Fifo => Kind::Pipe,
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::CharacterDevice | FileType::BlockDevice => Kind::Device,
        _ => Kind::Anonymous,
    })
}

/// What a descriptor refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A socket of any family.
    Socket,
    /// A pipe, named or not.
    Pipe,
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A character or block device.
    Device,
    /// An object without a place in a file system: epoll, eventfd, timerfd, a BPF map and such.
    Anonymous,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Socket => "socket",
            Self::Pipe => "pipe",
            Self::File => "file",
            Self::Directory => "directory",
            Self::Device => "device",
            Self::Anonymous => "anonymous",
        })
    }
}

/// Says when the number of descriptors keeps growing beyond what its owner accounts for.
///
/// Fed with counts, it raises an alarm when the descriptors that nobody accounts for have grown by `step` since they
/// were fewest (or since the last alarm): connections come and go by the thousand, a leak only comes.
///
/// ```
/// # use conn_reactor::descriptors::Growth;
/// let mut growth = Growth::new(100);
/// assert!(!growth.observe(1_020, 1_000)); // 20 that are no connections
/// assert!(!growth.observe(9_050, 9_000)); // many more connections: no alarm
/// assert!(growth.observe(9_120, 9_000)); // 120 that are none
/// assert!(!growth.observe(9_130, 9_000)); // told once
/// ```
#[derive(Clone, Debug)]
pub struct Growth {
    step: usize,
    fewest: Option<usize>,
}

impl Growth {
    /// An alarm each time the unaccounted descriptors have grown by `step` (at least 1).
    #[must_use]
    pub fn new(step: usize) -> Self {
        Self {
            step: step.max(1),
            fewest: None,
        }
    }

    /// Notes that `open` descriptors are open of which `accounted` are known to somebody, as connections to a
    /// reactor. Returns whether this is the moment to look at [`list`].
    pub fn observe(&mut self, open: usize, accounted: usize) -> bool {
        let unaccounted = open.saturating_sub(accounted);
        let fewest = *self.fewest.get_or_insert(unaccounted);
        let alarm = unaccounted >= fewest.saturating_add(self.step);
        if alarm || unaccounted < fewest {
            self.fewest = Some(unaccounted);
        }
        alarm
    }
}

const DIRECTORY: &str = "/proc/self/fd";

/// A place of the table costs a third of an open descriptor's name in the directory.
const PLACES_PER_DESCRIPTOR_MAX: usize = 3;

fn count_by_listing() -> io::Result<usize> {
    let mut count = 0;
    each_listed(|_| count += 1)?;
    Ok(count)
}

/// Calls `each` with the number of every open descriptor, but none that is opened for this.
fn each_number(mut each: impl FnMut(RawFd)) -> io::Result<()> {
    let (open, places) = (count()?, places()?);
    if places > open.saturating_mul(PLACES_PER_DESCRIPTOR_MAX).max(256) {
        return each_listed(each);
    }
    let numbers = 0..RawFd::try_from(places).unwrap_or(RawFd::MAX);
    numbers
        .filter(|number| is_open(*number))
        .for_each(&mut each);
    Ok(())
}

/// Numbers that the table has room for now; no descriptor has a higher one.
fn places() -> io::Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let places = status
        .lines()
        .find_map(|line| line.strip_prefix("FDSize:")?.trim().parse().ok());
    places.ok_or_else(|| io::Error::other("/proc/self/status has no FDSize"))
}

#[expect(unsafe_code, reason = "F_GETFD of a number that may not be open")]
fn is_open(number: RawFd) -> bool {
    // SAFETY: F_GETFD reads the flags of a number that may or may not be open, and touches no memory. (rustix's
    // fcntl_getfd takes a descriptor that is known to be open.)
    unsafe { libc::fcntl(number, libc::F_GETFD) != -1 }
}

/// [`each_number`] by the directory; the one that it is read through is not told.
fn each_listed(mut each: impl FnMut(RawFd)) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(DIRECTORY, flags, Mode::empty())?;
    let mut buffer = Vec::with_capacity(32 * 1024);
    let mut entries = RawDir::new(&directory, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let number = entry.file_name().to_str().ok();
        // `.` and `..` are no numbers.
        match number.and_then(|number| number.parse().ok()) {
            Some(number) if number != directory.as_raw_fd() => each(number),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_comes_once_per_step_and_not_for_what_is_accounted_for() {
        let mut growth = Growth::new(10);
        assert!(!growth.observe(100, 80));
        assert!(!growth.observe(1_029, 1_000), "9 more");
        assert!(growth.observe(1_030, 1_000), "10 more");
        assert!(!growth.observe(1_039, 1_000), "counted from the alarm");
        assert!(growth.observe(1_040, 1_000));
        assert!(!growth.observe(1_005, 1_000), "fewer are a new start");
        assert!(growth.observe(15, 0));
    }
}
