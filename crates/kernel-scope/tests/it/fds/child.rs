//! The process that is watched: this test binary, run again with a task in its environment.
//!
//! It reads a line from standard input for each step, does the step, and answers with a line.

mod ring;

use std::fs::File;
use std::io::{self, BufRead as _, IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg,
    sendmsg,
};

const TASK: &str = "MAINSTAY_FDS_TASK";
/// What an answer begins with: the harness writes to standard output, too.
const ANSWER: &str = "answer: ";

/// A watched process.
pub(crate) struct Watched {
    child: Child,
    stdin: ChildStdin,
    stdout: io::BufReader<ChildStdout>,
}

impl Watched {
    /// Starts it; it waits for its first step.
    pub(crate) fn start(task: &str) -> Self {
        let mut child = command(task)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this binary runs");
        let stdin = child.stdin.take().expect("it was piped");
        let stdout = child.stdout.take().expect("it was piped");
        let mut this = Self {
            child,
            stdin,
            stdout: io::BufReader::new(stdout),
        };
        assert_eq!(this.answer(), "ready");
        this
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it do the next step and returns its answer.
    pub(crate) fn step(&mut self) -> String {
        writeln!(self.stdin, "go").expect("it reads");
        self.answer()
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            let length = self.stdout.read_line(&mut line).expect("it writes");
            assert!(length > 0, "it ended before it answered");
            if let Some((_, answer)) = line.split_once(ANSWER) {
                return answer.trim_end().into();
            }
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn command(task: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("it runs"));
    command
        .args(["--exact", "fds::child::run", "--nocapture"])
        .args(["--test-threads=1"])
        .env(TASK, task);
    command
}

/// No test: the body of the watched process.
#[test]
fn run() {
    let Ok(task) = std::env::var(TASK) else {
        return;
    };
    answer("ready");
    match task.as_str() {
        "every call" => every_call(),
        "churn" => churn(Duration::from_micros(500)),
        "flood" => churn(Duration::ZERO),
        "exec" => exec(),
        "spawn" => spawn(),
        "unshare" => unshare(libc::SYS_unshare, [libc::CLONE_FILES as usize, 0, 0, 0]),
        "close_range" => {
            let flags = libc::CLOSE_RANGE_UNSHARE as usize;
            unshare(libc::SYS_close_range, [4000, 4000, flags, 0]);
        }
        "changes" => changes(),
        "ring" => ring::run(),
        _ => {}
    }
    // Whoever watches ends it.
    loop {
        await_step();
        answer("idle");
    }
}

#[expect(clippy::print_stdout, reason = "how it answers")]
fn answer(text: &str) {
    println!("{ANSWER}{text}");
}

fn await_step() {
    let mut line = String::new();
    let length = io::stdin().read_line(&mut line).expect("a pipe");
    if length == 0 {
        std::process::exit(0);
    }
}

/// A system call by its number: the libraries use the newer ones only.
fn call(number: i64, args: [usize; 4]) -> i64 {
    let [a, b, c, d] = args;
    // SAFETY: each caller passes descriptors, flags, and addresses of values that live for the call
    // and are as long as it wants.
    unsafe { libc::syscall(number, a, b, c, d, 0usize, 0usize) }
}

/// As [`call`], for those that return a descriptor.
fn made_by(number: i64, args: [usize; 4]) -> RawFd {
    let fd = call(number, args);
    assert!(fd >= 0, "{number}: {}", io::Error::last_os_error());
    fd.try_into().expect("a descriptor")
}

const PATH: &std::ffi::CStr = c"/dev/null";

fn path() -> usize {
    PATH.as_ptr().addr()
}

/// Makes descriptors with every call, and answers `name=fd` for each, and no name for pairs.
fn every_call() {
    await_step();
    let null = File::open("/dev/null").expect("every Linux has it");
    let null = null.into_raw_fd();
    let at = null.cast_unsigned() as usize;
    let cwd = libc::AT_FDCWD as usize;
    let how = [0u64; 3];
    let mut held = vec![("openat", null)];
    let mut hold = |name: &'static str, number: i64, args: [usize; 4]| {
        held.push((name, made_by(number, args)));
    };
    hold("openat", libc::SYS_openat, [cwd, path(), 0, 0]);
    hold(
        "openat2",
        libc::SYS_openat2,
        [cwd, path(), how.as_ptr().addr(), 24],
    );
    let (unix, stream) = (libc::AF_UNIX as usize, libc::SOCK_STREAM as usize);
    hold("socket", libc::SYS_socket, [unix, stream, 0, 0]);
    hold("dup", libc::SYS_dup, [at, 0, 0, 0]);
    hold("dup3", libc::SYS_dup3, [at, 200, 0, 0]);
    hold(
        "fcntl",
        libc::SYS_fcntl,
        [at, libc::F_DUPFD as usize, 60, 0],
    );
    let cloexec = libc::F_DUPFD_CLOEXEC as usize;
    hold("fcntl", libc::SYS_fcntl, [at, cloexec, 70, 0]);
    hold("eventfd2", libc::SYS_eventfd2, [0, 0, 0, 0]);
    hold("epoll_create1", libc::SYS_epoll_create1, [0, 0, 0, 0]);
    let name = c"held".as_ptr().addr();
    hold("memfd_create", libc::SYS_memfd_create, [name, 0, 0, 0]);
    let clock = libc::CLOCK_MONOTONIC as usize;
    hold("timerfd_create", libc::SYS_timerfd_create, [clock, 0, 0, 0]);
    let signals = 0u64;
    let mask = (&raw const signals).addr();
    hold("signalfd4", libc::SYS_signalfd4, [usize::MAX, mask, 8, 0]);
    hold("inotify_init1", libc::SYS_inotify_init1, [0, 0, 0, 0]);
    let pid = std::process::id() as usize;
    hold("pidfd_open", libc::SYS_pidfd_open, [pid, 0, 0, 0]);
    #[cfg(target_arch = "x86_64")]
    for (name, number, args) in [
        ("open", libc::SYS_open, [path(), 0, 0, 0]),
        ("creat", libc::SYS_creat, [path(), 0, 0, 0]),
        ("dup2", libc::SYS_dup2, [at, 201, 0, 0]),
        ("eventfd", libc::SYS_eventfd, [0, 0, 0, 0]),
        ("epoll_create", libc::SYS_epoll_create, [1, 0, 0, 0]),
        ("signalfd", libc::SYS_signalfd, [usize::MAX, mask, 8, 0]),
        ("inotify_init", libc::SYS_inotify_init, [0, 0, 0, 0]),
    ] {
        hold(name, number, args);
    }
    let mut parameters = [0u8; 120];
    let ring = call(
        libc::SYS_io_uring_setup,
        [4, parameters.as_mut_ptr().addr(), 0, 0],
    );
    if let Ok(ring @ 0..) = RawFd::try_from(ring) {
        held.push(("io_uring_setup", ring));
    }
    held.extend(pairs());
    held.extend(accepted());
    held.extend(passed(null));
    close_some(at);
    let held: Vec<String> = held
        .iter()
        .map(|(name, fd)| format!("{name}={fd}"))
        .collect();
    answer(&held.join(" "));
}

fn pairs() -> Vec<(&'static str, RawFd)> {
    let mut held = Vec::new();
    let mut hold = |name, number, args: &dyn Fn(usize) -> [usize; 4]| {
        let mut pair = [-1; 2];
        assert_eq!(call(number, args(pair.as_mut_ptr().addr())), 0, "{name}");
        held.extend(pair.map(|fd: RawFd| (name, fd)));
    };
    #[cfg(target_arch = "x86_64")]
    hold("pipe", libc::SYS_pipe, &|pair| [pair, 0, 0, 0]);
    hold("pipe2", libc::SYS_pipe2, &|pair| [pair, 0, 0, 0]);
    let (unix, stream) = (libc::AF_UNIX as usize, libc::SOCK_STREAM as usize);
    hold("socketpair", libc::SYS_socketpair, &|pair| {
        [unix, stream, 0, pair]
    });
    held
}

fn accepted() -> Vec<(&'static str, RawFd)> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback is up");
    let address = listener.local_addr().expect("it is bound");
    let listening = listener.as_raw_fd().cast_unsigned() as usize;
    let mut held = Vec::new();
    for (name, number) in [("accept", libc::SYS_accept), ("accept4", libc::SYS_accept4)] {
        let peer = std::net::TcpStream::connect(address).expect("somebody listens");
        held.push((name, made_by(number, [listening, 0, 0, 0])));
        held.push(("socket", peer.into_raw_fd()));
    }
    held.push(("socket", listener.into_raw_fd()));
    held
}

/// Two descriptors through recvmsg and two through recvmmsg.
fn passed(fd: RawFd) -> Vec<(&'static str, RawFd)> {
    let (near, far) = UnixStream::pair().expect("descriptors are left");
    let send = |count: usize| {
        let sent = vec![near.as_fd(); count];
        let mut space = [MaybeUninit::uninit(); 64];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&sent)));
        let flags = SendFlags::empty();
        sendmsg(&near, &[IoSlice::new(b"x")], &mut control, flags).expect("there is room");
    };
    send(2);
    let mut held = Vec::new();
    let mut space = [MaybeUninit::uninit(); 64];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::empty();
    recvmsg(&far, &mut [IoSliceMut::new(&mut byte)], &mut control, flags).expect("it was sent");
    for message in control.drain() {
        if let rustix::net::RecvAncillaryMessage::ScmRights(fds) = message {
            held.extend(fds.map(|fd: OwnedFd| ("SCM_RIGHTS", fd.into_raw_fd())));
        }
    }
    assert_eq!(held.len(), 2, "{fd}");

    // With credentials before the descriptor, in each of two messages.
    rustix::net::sockopt::set_socket_passcred(&far, true).expect("every Linux can");
    send(1);
    send(1);
    let mut space = [[0u64; 8]; 2];
    let mut vector = [byte.as_mut_ptr().addr(), 1];
    // struct mmsghdr: name, its length, vectors, how many, control, its length, flags, length.
    let mut messages = [[0; 8]; 2];
    for (message, space) in messages.iter_mut().zip(&mut space) {
        message[2] = vector.as_mut_ptr().addr();
        message[3] = 1;
        message[4] = space.as_mut_ptr().addr();
        message[5] = 64;
    }
    let from = far.as_raw_fd().cast_unsigned() as usize;
    let at = messages.as_mut_ptr().addr();
    assert_eq!(call(libc::SYS_recvmmsg, [from, at, 2, 0]), 2);
    // Behind four words of credentials, the length, the level and the type of the part.
    held.extend(space.map(|words| ("SCM_RIGHTS", words[6] as RawFd)));
    for end in [near, far] {
        held.push(("socketpair", end.into_raw_fd()));
    }
    held
}

/// Opens and closes in every way, and over each other.
fn close_some(open: usize) {
    for _ in 0..20 {
        let one = made_by(libc::SYS_dup, [open, 0, 0, 0]).cast_unsigned() as usize;
        made_by(libc::SYS_dup3, [open, 300, 0, 0]);
        made_by(libc::SYS_dup3, [one, 300, 0, 0]);
        for fd in 310..320 {
            made_by(libc::SYS_dup3, [open, fd, 0, 0]);
        }
        assert_eq!(call(libc::SYS_close_range, [305, 317, 0, 0]), 0);
        assert_eq!(call(libc::SYS_close, [one, 0, 0, 0]), 0);
        assert_eq!(call(libc::SYS_close, [one, 0, 0, 0]), -1);
        for fd in [300, 318, 319] {
            assert_eq!(call(libc::SYS_close, [fd, 0, 0, 0]), 0);
        }
    }
}

/// Threads that open and close the same numbers, with pauses in which a reader can keep up. A step waits for hundreds of that, the next one ends it; what they
/// have then they keep.
fn churn(pause: Duration) {
    await_step();
    answer("churning");
    let stop = AtomicBool::new(false);
    let opened = AtomicU64::new(0);
    let kept: Vec<File> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3usize)
            .map(|seed| {
                let (stop, opened) = (&stop, &opened);
                scope.spawn(move || {
                    let mut files = Vec::new();
                    let mut at = seed;
                    while !stop.load(Ordering::Relaxed) {
                        files.push(File::open("/dev/null").expect("descriptors are left"));
                        opened.fetch_add(1, Ordering::Relaxed);
                        if !pause.is_zero() {
                            std::thread::sleep(pause);
                        }
                        at = at.wrapping_mul(25).wrapping_add(13);
                        if files.len() > 8 {
                            let out = at % files.len();
                            drop(files.swap_remove(out));
                        }
                    }
                    files
                })
            })
            .collect();
        await_step();
        let enough = opened.load(Ordering::Relaxed) + 500;
        while opened.load(Ordering::Relaxed) < enough {
            std::thread::yield_now();
        }
        answer("churned");
        await_step();
        stop.store(true, Ordering::Relaxed);
        let threads = threads.into_iter();
        threads
            .flat_map(|thread| thread.join().expect("no panic"))
            .collect()
    });
    answer(&kept.len().to_string());
    await_step();
    drop(kept);
}

/// Opens three that are closed by exec and two that are not, and runs this binary again.
fn exec() {
    await_step();
    for _ in 0..3 {
        let _ = File::open("/dev/null").expect("it exists").into_raw_fd();
    }
    let cwd = libc::AT_FDCWD as usize;
    for _ in 0..2 {
        made_by(libc::SYS_openat, [cwd, path(), 0, 0]);
    }
    let error = command("idle").exec();
    panic!("{error}");
}

/// Opens two that a child inherits, and starts a child.
fn spawn() {
    await_step();
    let cwd = libc::AT_FDCWD as usize;
    let fds: [RawFd; 2] = std::array::from_fn(|_| made_by(libc::SYS_openat, [cwd, path(), 0, 0]));
    let mut child = Watched::start("idle");
    // It knows its parent by the pipe, so it ends when this process does.
    answer(&format!("{} {} {}", child.pid(), fds[0], fds[1]));
    await_step();
    assert_eq!(child.step(), "idle");
}

/// Closes some descriptors and changes others, and answers which stay, and which call made them.
fn changes() {
    await_step();
    let cwd = libc::AT_FDCWD as usize;
    let open = || made_by(libc::SYS_openat, [cwd, path(), 0, 0]);
    let [first, last, marked, kept] = std::array::from_fn(|_| open());
    let number = |fd: RawFd| fd.cast_unsigned() as usize;
    let range = [number(first), number(last), 0, 0];
    assert_eq!(call(libc::SYS_close_range, range), 0);
    let cloexec = libc::CLOSE_RANGE_CLOEXEC as usize;
    let range = [number(marked), number(marked), cloexec, 0];
    assert_eq!(call(libc::SYS_close_range, range), 0);
    let mut held = vec![("openat", marked), ("openat", kept)];
    // None of these makes a descriptor, though what they return is the number of one.
    let flags = libc::F_GETFD as usize;
    assert_eq!(call(libc::SYS_fcntl, [number(kept), flags, 0, 0]), 0);
    let mut first_map = [0u32; 4];
    let map_get_next_id = 12;
    let attributes = first_map.as_mut_ptr().addr();
    assert_eq!(call(libc::SYS_bpf, [map_get_next_id, attributes, 16, 0]), 0);
    #[cfg(target_arch = "x86_64")]
    {
        let same = [number(kept), number(kept), 0, 0];
        assert_eq!(call(libc::SYS_dup2, same), i64::from(kept));
        let signals = 0u64;
        let mask = (&raw const signals).addr();
        let fd = made_by(libc::SYS_signalfd, [usize::MAX, mask, 8, 0]);
        let again = call(libc::SYS_signalfd4, [number(fd), mask, 8, 0]);
        assert_eq!(again, i64::from(fd));
        held.push(("signalfd", fd));
    }
    let held: Vec<String> = held
        .iter()
        .map(|(name, fd)| format!("{name}={fd}"))
        .collect();
    answer(&held.join(" "));
}

/// A thread gets a table of its own by this call and opens one there, beside the one that it takes
/// along. Answers its number and the two.
fn unshare(number: i64, args: [usize; 4]) {
    await_step();
    let cwd = libc::AT_FDCWD as usize;
    let open = || made_by(libc::SYS_openat, [cwd, path(), 0, 0]);
    let taken_along = open();
    std::thread::scope(|scope| {
        let alone = scope.spawn(|| {
            assert_eq!(call(number, args), 0);
            let fd = open();
            let tid = rustix::thread::gettid().as_raw_nonzero();
            answer(&format!("{tid} {taken_along} {fd}"));
            await_step();
            // SAFETY: this thread has just made it and nobody else has it.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        });
        alone.join().expect("no panic");
    });
}
