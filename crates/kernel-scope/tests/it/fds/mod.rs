//! What fds lists is what /proc/PID/fd shows, whatever made it and whatever was lost.

mod child;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use child::Watched;
use ebpf_ring::KernelFacts;
use kernel_scope::Attach;
use kernel_scope::fds::{Fds, Group, Options};

const ATTACHMENTS: [Attach; 3] = [Attach::Fentry, Attach::Kprobe, Attach::RawTracepoint];
/// Which only a tool that takes none reaches.
const SNAPSHOT_MAX: Duration = Duration::from_secs(40);

/// Opens the tool, or prints why this machine cannot and gives nothing.
fn open(options: Options, attach: Attach) -> Option<Fds> {
    match Fds::open(&options.attach(attach)) {
        Ok(tool) => {
            assert_eq!(tool.attached().attach, attach);
            Some(tool)
        }
        // Lockdown forbids the first, and some kernels are built without the second. The last must be.
        Err(error) if error.missing().is_some() && may_be_missing(attach) => {
            crate::skip::skip(error);
            None
        }
        Err(error) => {
            let log = error.log_path().map(std::fs::read_to_string);
            panic!("{error}\n{}", log.and_then(Result::ok).unwrap_or_default());
        }
    }
}

fn may_be_missing(attach: Attach) -> bool {
    let facts = KernelFacts::read();
    match attach {
        _ if !facts.missing_capabilities().is_empty() => true,
        Attach::Fentry => !matches!(facts.lockdown.as_str(), "none" | "unknown"),
        Attach::Kprobe => !Path::new("/sys/bus/event_source/devices/kprobe").exists(),
        _ => false,
    }
}

/// What the kernel says that a process, or a thread, has open.
fn listed(pid: u32) -> BTreeSet<u32> {
    let names = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
    let names = names.map(|entry| entry.expect("it can be read").file_name());
    names
        .map(|name| name.to_str().and_then(|fd| fd.parse().ok()))
        .map(|fd| fd.expect("a number"))
        .collect()
}

/// What the tool says, and what made each. No descriptor is in two groups.
fn told(groups: &[Group], pid: u32) -> BTreeMap<u32, &'static str> {
    let mut told = BTreeMap::new();
    for group in groups.iter().filter(|group| group.pid == pid) {
        assert!(!group.fds.is_empty());
        for fd in &group.fds {
            assert_eq!(told.insert(*fd, group.call), None, "{fd} is in two groups");
        }
    }
    told
}

fn numbers(told: &BTreeMap<u32, &str>) -> BTreeSet<u32> {
    told.keys().copied().collect()
}

#[test]
fn every_call_that_makes_a_descriptor_is_named() {
    for attach in ATTACHMENTS {
        let mut child = Watched::start("every call");
        let pid = child.pid();
        let Some(mut tool) = open(Options::default().pid(pid), attach) else {
            continue;
        };
        let before = listed(pid);
        assert_eq!(numbers(&told(&tool.groups(), pid)), before);
        let held = child.step();
        let events = tool.finish().expect("a sound ring");
        let groups = tool.groups();
        let told = told(&groups, pid);
        assert_eq!(numbers(&told), listed(pid));
        assert_eq!(tool.open_total(), told.len() as u64);
        assert!(events.is_balanced() && events.dropped() == 0, "{events:?}");
        for held in held.split(' ') {
            let (call, fd) = held.split_once('=').expect("a name and a number");
            let fd = fd.parse().expect("a number");
            assert_eq!(told[&fd], call, "{fd} by {}", attach.as_str());
        }
        for (fd, call) in &told {
            assert_eq!(*call == "unknown", before.contains(fd), "{fd} by {call}");
        }
        // Further out only with frame pointers, which this binary has not.
        let by_number = |group: &&Group| group.stack.first().is_some_and(|name| name == "syscall");
        assert!(groups.iter().filter(by_number).count() > 20, "{groups:?}");
        println!("FACT fds by {}: every call named", attach.as_str());
    }
}

/// One line for each place, however many descriptors it made.
#[test]
fn churning_threads_leave_what_they_leave() {
    for attach in ATTACHMENTS {
        let mut child = Watched::start("churn");
        let pid = child.pid();
        // Room for all, however slowly an emulated machine reads: what is lost has no group.
        let options = Options::default().pid(pid).ring_bytes(32 << 20);
        let Some(mut tool) = open(options, attach) else {
            continue;
        };
        let before = listed(pid);
        assert_eq!(child.step(), "churning");
        // With a snapshot or two in it.
        tool.collect(Duration::from_millis(1500)).expect("sound");
        assert_eq!(child.step(), "churned");
        let kept: u64 = child.step().parse().expect("a number");
        let events = tool.finish().expect("a sound ring");
        let groups = tool.groups();
        let told = told(&groups, pid);
        assert_eq!(numbers(&told), listed(pid));
        assert_eq!(told.len() as u64, before.len() as u64 + kept);
        assert!(events.is_balanced() && events.dropped() == 0, "{events:?}");
        assert!(
            events.delivered > 1000,
            "the test tests nothing: {events:?}"
        );
        let opened = groups.iter().filter(|group| group.call == "openat");
        let opened: Vec<usize> = opened.map(|group| group.fds.len()).collect();
        assert_eq!(opened, [usize::try_from(kept).expect("few")], "{groups:?}");
    }
}

#[test]
fn what_a_small_ring_loses_is_found_by_the_snapshot() {
    for attach in ATTACHMENTS {
        let mut child = Watched::start("flood");
        let pid = child.pid();
        let options = Options::default().pid(pid).ring_bytes(4096);
        let Some(mut tool) = open(options, attach) else {
            continue;
        };
        assert_eq!(child.step(), "churning");
        tool.collect(Duration::from_millis(300)).expect("sound");
        // Nobody reads meanwhile.
        assert_eq!(child.step(), "churned");
        child.step();
        let events = tool.finish().expect("a sound ring");
        assert!(events.is_balanced() && events.dropped() > 0, "{events:?}");
        assert_eq!(numbers(&told(&tool.groups(), pid)), listed(pid));
    }
}

#[test]
fn exec_closes_what_is_marked_and_keeps_the_rest() {
    for attach in ATTACHMENTS {
        let mut child = Watched::start("exec");
        let pid = child.pid();
        let Some(mut tool) = open(Options::default().pid(pid), attach) else {
            continue;
        };
        let before = listed(pid);
        assert_eq!(child.step(), "ready", "by the program that runs now");
        tool.finish().expect("a sound ring");
        let groups = tool.groups();
        let told = told(&groups, pid);
        assert_eq!(numbers(&told), listed(pid));
        let opened: Vec<&Group> = groups.iter().filter(|g| g.call == "openat").collect();
        // Of the program before: its addresses mean nothing any more.
        let inherited = opened.iter().filter(|g| g.stack.is_empty());
        let inherited: Vec<u32> = inherited.flat_map(|g| g.fds.clone()).collect();
        assert_eq!(inherited.len(), 2, "{groups:?}");
        assert!(before.iter().all(|fd| told[fd] == "unknown"));
    }
}

#[test]
fn a_child_inherits_descriptors_with_their_origin() {
    for attach in ATTACHMENTS {
        let mut parent = Watched::start("spawn");
        let Some(mut tool) = open(Options::default(), attach) else {
            continue;
        };
        let answer = parent.step();
        let answer: Vec<u32> = answer
            .split(' ')
            .map(|word| word.parse().expect("a number"))
            .collect();
        tool.finish().expect("a sound ring");
        let groups = tool.groups();
        for pid in [parent.pid(), answer[0]] {
            let told = told(&groups, pid);
            assert_eq!(numbers(&told), listed(pid));
            assert_eq!((told[&answer[1]], told[&answer[2]]), ("openat", "openat"));
        }
        // The tool leaves itself out.
        assert!(groups.iter().all(|group| group.pid != std::process::id()));
    }
}

#[test]
fn a_thread_with_a_table_of_its_own_is_listed_by_itself() {
    for (attach, task) in ATTACHMENTS
        .into_iter()
        .flat_map(|attach| ["unshare", "close_range"].map(|task| (attach, task)))
    {
        let mut child = Watched::start(task);
        let pid = child.pid();
        let Some(mut tool) = open(Options::default().pid(pid), attach) else {
            continue;
        };
        let answer = child.step();
        let answer: Vec<u32> = answer
            .split(' ')
            .map(|word| word.parse().expect("a number"))
            .collect();
        let [tid, taken_along, fd] = answer[..] else {
            panic!("{answer:?}");
        };
        tool.finish().expect("a sound ring");
        let groups = tool.groups();
        assert_eq!(numbers(&told(&groups, tid)), listed(tid));
        assert_eq!(numbers(&told(&groups, pid)), listed(pid));
        let told = told(&groups, tid);
        assert_eq!((told[&taken_along], told[&fd]), ("openat", "openat"));
        assert!(!listed(pid).contains(&fd));
    }
}

/// By the events alone: no snapshot comes between, or it finds the same.
#[test]
fn changes_are_followed_between_snapshots() {
    for attach in ATTACHMENTS {
        let mut child = Watched::start("changes");
        let pid = child.pid();
        let Some(mut tool) = open(Options::default().pid(pid), attach) else {
            continue;
        };
        let before = listed(pid);
        let held = child.step();
        tool.collect(Duration::ZERO).expect("a sound ring");
        let told = told(&tool.groups(), pid);
        assert_eq!(numbers(&told), listed(pid));
        for held in held.split(' ') {
            let (call, fd) = held.split_once('=').expect("a name and a number");
            let fd = fd.parse().expect("a number");
            assert_eq!(told[&fd], call, "{fd} by {}", attach.as_str());
        }
        assert!(before.iter().all(|fd| told[fd] == "unknown"), "{told:?}");
    }
}

/// Under `fd_install` by name; else the snapshot finds them.
#[test]
fn what_a_ring_opens_is_listed_and_what_it_closes_is_not() {
    for attach in ATTACHMENTS {
        let mut child = Watched::start("ring");
        let pid = child.pid();
        let Some(mut tool) = open(Options::default().pid(pid), attach) else {
            continue;
        };
        let made = child.step();
        if made.starts_with("none") {
            crate::skip::skip(format_args!("io_uring is not to be had: {made}"));
            return;
        }
        // A snapshot finds them while the tool runs.
        let made: Vec<u32> = made
            .split(' ')
            .map(|fd| fd.parse().expect("a number"))
            .collect();
        let all_told = |tool: &Fds| {
            let told = told(&tool.groups(), pid);
            made.iter().all(|fd| told.contains_key(fd))
        };
        let began = Instant::now();
        while !all_told(&tool) {
            tool.collect(Duration::from_millis(100)).expect("sound");
            assert!(began.elapsed() < SNAPSHOT_MAX, "no snapshot was taken");
        }
        let closed: u32 = child.step().parse().expect("a number");
        tool.finish().expect("a sound ring");
        let told = told(&tool.groups(), pid);
        assert_eq!(numbers(&told), listed(pid));
        assert!(!told.contains_key(&closed), "{told:?}");
        let by_ring = match attach {
            Attach::RawTracepoint => "unknown",
            _ => "io_uring",
        };
        for fd in made.iter().filter(|fd| **fd != closed) {
            assert_eq!(told[fd], by_ring, "{fd} by {}", attach.as_str());
        }
        println!("FACT fds of io_uring by {}: {by_ring}", attach.as_str());
    }
}
