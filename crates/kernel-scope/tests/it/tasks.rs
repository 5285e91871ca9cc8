//! Threads that the tests know.

use std::thread;

use rustix::thread::{CpuSet, Pid, sched_setaffinity};

pub(crate) fn named(name: &str) -> thread::Builder {
    thread::Builder::new().name(name.into())
}

/// Waits until the thread is off the CPU and not runnable. Each further wait is for another sleep
/// only if the thread has been woken in between.
pub(crate) fn wait_until_asleep(tid: Pid) {
    while field(tid, "State:") != "S" {
        thread::yield_now();
    }
}

/// How often the CPU was taken from the thread.
pub(crate) fn preemptions(tid: Pid) -> u64 {
    field(tid, "nonvoluntary_ctxt_switches:")
        .parse()
        .expect("a number")
}

/// The first word of a line of /proc/TID/status.
fn field(tid: Pid, name: &str) -> String {
    let path = format!("/proc/self/task/{}/status", tid.as_raw_nonzero());
    let status = std::fs::read_to_string(path).expect("the thread lives");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.expect("every Linux has it").to_owned()
}

pub(crate) fn pin(tid: Pid, cpu: usize) {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    sched_setaffinity(Some(tid), &cpus).expect("the CPU is there");
}
