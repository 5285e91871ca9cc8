//! Which tests there are, and what becomes of them.

use std::fs::{self, File};
use std::io;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::Report;

/// A test that takes longer hangs: emulated machines need a tenth of it.
const TEST_MAX: Duration = Duration::from_secs(60);

/// One test function.
pub(crate) struct Test {
    label: String,
    program: String,
    name: String,
}

impl Test {
    fn id(&self) -> String {
        format!("{}::{}", self.label, self.name)
    }
}

/// The tests of a plan, asked from its binaries.
pub(crate) fn list(plan: &str) -> io::Result<Vec<Test>> {
    let mut filter = String::new();
    let mut tests = Vec::new();
    for line in plan.lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["filter", text] => filter = text.into(),
            ["binary", label, program] => {
                let output = Command::new(program)
                    .args(["--list", "--format", "terse"])
                    .output()?;
                if !output.status.success() {
                    let stderr = String::from_utf8_lossy(&output.stderr);
                    return Err(io::Error::other(format!("{program} --list: {stderr}")));
                }
                let names = String::from_utf8_lossy(&output.stdout).into_owned();
                let names = names.lines().filter_map(|line| line.strip_suffix(": test"));
                tests.extend(names.map(|name| Test {
                    label: label.into(),
                    program: program.into(),
                    name: name.into(),
                }));
            }
            _ => return Err(io::Error::other(format!("no line of a plan: `{line}`"))),
        }
    }
    tests.retain(|test| test.id().contains(&filter));
    Ok(tests)
}

/// What is in a module of this name wants the machine for itself.
const ALONE: &str = "alone::";

/// Runs them, as many at once as there are CPUs; then, one by one, those that want to be alone.
pub(crate) fn run(tests: &[Test], report: &Report) -> io::Result<()> {
    let (alone, others): (Vec<_>, Vec<_>) =
        tests.iter().partition(|test| test.name.contains(ALONE));
    run_together(&others, report)?;
    alone.iter().try_for_each(|test| run_one(test, 0, report))
}

fn run_together(tests: &[&Test], report: &Report) -> io::Result<()> {
    let next = AtomicUsize::new(0);
    let work = |worker: usize| -> io::Result<()> {
        while let Some(test) = tests.get(next.fetch_add(1, Ordering::Relaxed)) {
            run_one(test, worker, report)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers = std::thread::available_parallelism()?.get();
        let work = &work;
        let started: Vec<_> = (0..workers)
            .map(|worker| scope.spawn(move || work(worker)))
            .collect();
        started
            .into_iter()
            .try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })
}

fn run_one(test: &Test, worker: usize, report: &Report) -> io::Result<()> {
    let id = test.id();
    report.line(&["start", &id])?;
    // A file, not a pipe: a grandchild that lives on would keep a pipe open.
    let output = std::env::temp_dir().join(format!("guest-{}-{worker}", std::process::id()));
    let file = File::create(&output)?;
    let began = Instant::now();
    let mut child = Command::new(&test.program)
        // With one thread the harness would print the name before the output, on one line with it.
        .args(["--exact", &test.name, "--nocapture", "--test-threads=2"])
        .env("RUST_BACKTRACE", "1")
        // Of a virtual machine, which ends with the tests: they may do with it what they like.
        .envs((std::process::id() == 1).then_some(("MAINSTAY_OWN_MACHINE", "1")))
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()?;
    let in_time = ends_in_time(&child)?;
    let hung_at = if in_time {
        String::new()
    } else {
        let stacks = stacks_of(child.id());
        child.kill()?;
        stacks
    };
    let status = child.wait()?;
    let took = began.elapsed().as_millis().to_string();
    let text = fs::read(&output)?;
    fs::remove_file(&output)?;
    let text = String::from_utf8_lossy(&text);
    let result = match (in_time, status.success()) {
        (false, _) => "hung",
        (true, false) => "failed",
        (true, true) if is_ignored(&text) => "ignored",
        (true, true) => "passed",
    };
    let harness = |line: &&str| line.is_empty() || line.starts_with("running 1 test");
    for line in text.lines().filter(|line| !harness(line)) {
        report.line(&["line", &id, line])?;
    }
    for line in hung_at.lines() {
        report.line(&["line", &id, line])?;
    }
    report.line(&["end", &id, result, &took])
}

/// By the harness's own last line, not by what the test printed.
fn is_ignored(text: &str) -> bool {
    let mut results = text.lines().filter(|line| line.starts_with("test result:"));
    results
        .next_back()
        .is_some_and(|line| line.contains(" 1 ignored"))
}

fn ends_in_time(child: &Child) -> io::Result<bool> {
    let pid = Pid::from_child(child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let timeout = Timespec {
        tv_sec: TEST_MAX.as_secs().cast_signed(),
        tv_nsec: 0,
    };
    loop {
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}

/// Where in the kernel each thread of a process is.
fn stacks_of(pid: u32) -> String {
    let mut text = String::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let (name, stack) = (read("comm"), read("stack"));
        text += &format!(
            "hung thread {} {}\n{}\n",
            task.file_name().display(),
            name.trim(),
            stack.trim_end()
        );
    }
    text
}
