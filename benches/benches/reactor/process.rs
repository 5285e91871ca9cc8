//! A server as a child process, and what the kernel says about it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::Result;

/// A server that runs until this is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) addr: SocketAddr,
    /// The server ends when this does.
    _stdin: ChildStdin,
}

impl Server {
    /// Starts a server that shares the clients' core and gives way to them.
    pub(crate) fn start(name: &str) -> Result<Self> {
        Self::start_as(&[], "serve", name)
    }

    /// Starts a server on a core of its own, if there are two.
    pub(crate) fn start_apart(name: &str) -> Result<Self> {
        Self::start_as(&[], "serve-apart", name)
    }

    /// Starts a server as the argument of another command, as of `strace`.
    pub(crate) fn start_under(wrapper: &[&str], name: &str) -> Result<Self> {
        Self::start_as(wrapper, "serve", name)
    }

    /// Starts a server that is another program.
    pub(crate) fn start_program(program: &Path) -> Result<Self> {
        Self::start_command(&mut Command::new(program))
    }

    fn start_as(wrapper: &[&str], how: &str, name: &str) -> Result<Self> {
        let this = std::env::current_exe()?;
        let mut command = match wrapper {
            [] => Command::new(&this),
            [program, rest @ ..] => {
                let mut command = Command::new(program);
                command.args(rest).arg(&this);
                command
            }
        };
        Self::start_command(command.args([how, name]))
    }

    fn start_command(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().ok_or("the child has no stdin")?;
        let mut line = String::new();
        let stdout = child.stdout.take().ok_or("the child has no stdout")?;
        BufReader::new(stdout).read_line(&mut line)?;
        Ok(Self {
            child,
            addr: line.trim().parse()?,
            _stdin: stdin,
        })
    }

    /// CPU time of all threads, in nanoseconds.
    pub(crate) fn cpu_ns(&self) -> Result<u64> {
        schedstat(self.child.id(), 0)
    }

    /// How long its threads could have run while something else had their core, in nanoseconds.
    pub(crate) fn run_delay_ns(&self) -> Result<u64> {
        schedstat(self.child.id(), 1)
    }

    /// CPU time once the server has nothing to do any more, in nanoseconds.
    pub(crate) fn settled_cpu_ns(&self) -> Result<u64> {
        let mut before = self.cpu_ns()?;
        loop {
            std::thread::sleep(Duration::from_millis(10));
            let now = self.cpu_ns()?;
            if now == before {
                return Ok(now);
            }
            before = now;
        }
    }

    /// Descriptors that the server has open.
    pub(crate) fn descriptors(&self) -> Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count())
    }

    /// Waits until the server has that many descriptors open. (That it used no CPU time for a while may also mean that it
    /// did not get any.)
    pub(crate) fn wait_for_descriptors(&self, count: usize) -> Result<()> {
        let patience = Instant::now() + Duration::from_secs(60);
        while self.descriptors()? != count {
            if Instant::now() > patience {
                return Err("the server keeps descriptors of closed connections".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Resident bytes, counted page by page (the running total in /proc/PID/status is off by up to a batch per core).
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        self.settled_cpu_ns()?;
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?;
        let line = rollup
            .lines()
            .find_map(|line| line.strip_prefix("Rss:"))
            .ok_or("smaps_rollup has no Rss")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024)
    }

    /// Ends the server and waits for the end of the command around it.
    pub(crate) fn end(self) -> Result<()> {
        let Self {
            mut child, _stdin, ..
        } = self;
        drop(_stdin);
        child.wait()?;
        Ok(())
    }
}

/// The same of this process.
pub(crate) fn own_run_delay_ns() -> Result<u64> {
    schedstat(std::process::id(), 1)
}

/// The sum over a process's threads of one field of `/proc/PID/task/TID/schedstat`.
fn schedstat(process: u32, field: usize) -> Result<u64> {
    let mut sum = 0;
    for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        let value = text.split_whitespace().nth(field).unwrap_or_default();
        sum += value.parse::<u64>()?;
    }
    Ok(sum)
}

/// This process, and what it starts, runs on that core.
pub(crate) fn stay_on(core: usize) {
    let mut one = CpuSet::new();
    one.set(core);
    // Unpinned the numbers only scatter more.
    let _ = sched_setaffinity(None, &one);
}

/// Leaves the core to the clients while they have something to do.
pub(crate) fn yield_to_clients() -> Result<()> {
    rustix::process::nice(19)?;
    Ok(())
}

/// Puts this process before whatever else runs, as far as it is allowed to (root is): a wait for a core would be taken
/// for a wait for the server. Real-time, because a flooded server is never idle, and the highest of the usual priorities
/// still leaves its core for milliseconds to whatever else wants it.
pub(crate) fn go_first() {
    let this = std::process::id().to_string();
    // Without, the tails are those of the machine's other work; the tables say how long it had the core.
    let _ = Command::new("chrt")
        .args(["--fifo", "--pid", "1", &this])
        .stderr(Stdio::null())
        .status();
}

/// Lets this process and its children open as many descriptors as they are allowed to.
pub(crate) fn raise_descriptor_limit() -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let both = Rlimit {
        current: maximum,
        maximum,
    };
    Ok(setrlimit(Resource::Nofile, both)?)
}
