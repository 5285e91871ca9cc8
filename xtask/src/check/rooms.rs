//! Unsafe is a room with a door: the only files that may hold `unsafe`, and why they need it.

use super::source::{File, code_only, line_of, words};

/// A file and the reason. A row whose file holds no `unsafe` any more is an error too.
const ROOMS: &[(&str, &str)] = &[
    (
        "benches/benches/idem/rocksdb.rs",
        "the C interface of a library that is there or not, found at run time",
    ),
    (
        "benches/benches/reactor/interest.rs",
        "a submission to io_uring, whose crate has no safe one",
    ),
    (
        "benches/src/counting.rs",
        "a global allocator that counts, for every bench",
    ),
    (
        "crates/canon-ser/tests/it/allocations.rs",
        "a global allocator that counts",
    ),
    (
        "crates/conn-reactor/src/descriptors.rs",
        "asks whether a number is an open descriptor, which rustix takes for granted",
    ),
    (
        "crates/conn-reactor/src/platform/portable.rs",
        "polling's registration by number, on systems without epoll",
    ),
    (
        "crates/conn-reactor/src/tokio/task.rs",
        "registers a descriptor with tokio, whose safe way to do so is deprecated",
    ),
    (
        "crates/ebpf-ring/src/async_reader.rs",
        "registers a descriptor with tokio, whose safe way to do so is deprecated",
    ),
    (
        "crates/ebpf-ring/src/perf/mapping.rs",
        "the kernel's memory, mapped and read while the kernel writes",
    ),
    (
        "crates/ebpf-ring/src/ring/mapping.rs",
        "the kernel's memory, mapped and read while the kernel writes",
    ),
    (
        "crates/ebpf-ring/src/sys.rs",
        "bpf(2), perf_event_open(2) and what the probe tries, which rustix has not",
    ),
    (
        "crates/kernel-scope/src/entries.rs",
        "reads maps in batches, which libbpf-rs ends too early",
    ),
    (
        "crates/kernel-scope/src/overhead.rs",
        "asks the kernel to measure programs, which libbpf-rs cannot",
    ),
    (
        "crates/kernel-scope/tests/it/fds/child.rs",
        "system calls by number, which the libraries have not or replace by newer ones",
    ),
    (
        "crates/kernel-scope/tests/it/fds/child/ring.rs",
        "hands entries to io_uring",
    ),
    (
        "crates/kernel-scope/tests/it/map_iter.rs",
        "calls get_next_key on descriptors that are no maps, which libbpf-rs cannot",
    ),
    (
        "crates/timerwheel/src/rt.rs",
        "real-time scheduling of the timer thread, which rustix has not",
    ),
    (
        "crates/timerwheel/tests/it/allocations.rs",
        "a global allocator that counts",
    ),
];

/// Crates that forbid it altogether.
const FORBID: &[&str] = &[
    "canon-ser",
    "circuit",
    "heartbeat-codec",
    "gateway",
    "scheduler",
    "mainstay",
    "mainstay-cli",
];

/// `files`: every Rust file of ours.
pub(crate) fn check(files: &[File]) -> Vec<String> {
    let mut wrong = Vec::new();
    let listed = |path: &str| ROOMS.iter().any(|(room, _)| *room == path);
    let mut used = Vec::new();
    for file in files.iter().filter(|file| !file.is_generated()) {
        let code = code_only(&file.text);
        let Some(first) = words(&code, "unsafe").next() else {
            continue;
        };
        used.push(file.path.as_str());
        if !listed(&file.path) {
            let line = line_of(&code, first);
            wrong.push(format!(
                "{}:{line}: `unsafe` outside the rooms of xtask/src/check/rooms.rs",
                file.path
            ));
        }
    }
    for (room, _) in ROOMS.iter().filter(|(room, _)| !used.contains(room)) {
        wrong.push(format!(
            "{room} is listed as a room but holds no `unsafe`: remove the row"
        ));
    }
    for name in FORBID {
        let roots = [
            format!("crates/{name}/src/lib.rs"),
            format!("crates/{name}/src/main.rs"),
        ];
        for file in files.iter().filter(|file| roots.contains(&file.path)) {
            if !file.text.contains("#![forbid(unsafe_code)]") {
                wrong.push(format!(
                    "{}: `#![forbid(unsafe_code)]` is missing",
                    file.path
                ));
            }
        }
    }
    wrong
}
