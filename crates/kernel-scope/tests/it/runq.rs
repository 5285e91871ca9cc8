//! runq counts the waits of tasks whose switches are known.

use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use kernel_scope::runq::{OffCpu, Options, RunQ, Task, WaitKind, flame_graph};
use kernel_scope::{Attach, Symbols, WakerClass};

use rustix::thread::{Pid, gettid};

use crate::tasks::{named, pin, preemptions, wait_until_asleep};

const ATTACHMENTS: [Attach; 2] = [Attach::BtfTracepoint, Attach::RawTracepoint];

/// Opens the tool, or prints why this machine cannot and gives nothing.
fn open(options: &Options) -> Option<RunQ> {
    match RunQ::open(options) {
        Ok(tool) => Some(tool),
        Err(error) if error.is_permission_denied() => {
            crate::skip::skip(error);
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Options for this process alone.
fn own() -> Options {
    Options::default().pid(std::process::id())
}

const ROUNDS: u64 = 2000;

/// Two threads, `ping` and `pong`, hand a byte to and fro. Each waits for the other every time.
/// Returns who they were.
fn ping_pong(rounds: u64) -> [Pid; 2] {
    let (mut ping_in, mut pong_out) = std::io::pipe().expect("descriptors are left");
    let (mut pong_in, mut ping_out) = std::io::pipe().expect("descriptors are left");
    let ping = named("ping").spawn(move || {
        for _ in 0..rounds {
            ping_out.write_all(b"x").expect("a pipe");
            ping_in.read_exact(&mut [0]).expect("a pipe");
        }
        gettid()
    });
    let pong = named("pong").spawn(move || {
        for _ in 0..rounds {
            pong_in.read_exact(&mut [0]).expect("a pipe");
            pong_out.write_all(b"x").expect("a pipe");
        }
        gettid()
    });
    [ping, pong].map(|thread| {
        let joined = thread.expect("threads can be made").join();
        joined.expect("no panic")
    })
}

/// By its number: a thread of the same name, joined before the tool was opened, may still be on its
/// way out and wait for a CPU there.
fn task_of<'t>(tasks: &'t [Task], tid: Pid, comm: &str) -> &'t Task {
    let number = tid.as_raw_nonzero().get().cast_unsigned();
    let found = tasks.iter().find(|task| task.tid == number);
    let task = found.unwrap_or_else(|| panic!("no {comm} in {tasks:?}"));
    assert_eq!((task.pid, &*task.comm), (std::process::id(), comm));
    task
}

#[test]
fn a_ping_pong_is_waited_for_and_woken_by_its_partner() {
    for attach in ATTACHMENTS {
        let Some(mut tool) = open(&own().attach(attach)) else {
            continue;
        };
        assert_eq!(tool.attached().attach, attach);
        let [ping, pong] = ping_pong(ROUNDS);
        let events = tool.finish().expect("maps can be read");
        let tasks = tool.tasks().expect("maps can be read");
        assert!(events.is_balanced(), "{events:?}");
        assert_eq!(events.dropped(), 0);
        for (tid, comm, partner) in [(ping, "ping", "pong"), (pong, "pong", "ping")] {
            let task = task_of(&tasks, tid, comm);
            let woken = task.waits(WaitKind::Woken).lengths.count()
                + task.waits(WaitKind::WokenMigrated).lengths.count();
            // On two CPUs, a byte may be there before its reader sleeps.
            assert!(woken > 0 && woken <= ROUNDS + 50, "{comm}: {woken}");
            let by_partner: u64 = task
                .wakers
                .iter()
                .filter(|waker| waker.class == WakerClass::Task && waker.comm == partner)
                .map(|waker| waker.count)
                .sum();
            assert!(
                by_partner * 10 >= woken * 9,
                "{comm}: {by_partner} of {woken}"
            );
            let all: u64 = task.wakers.iter().map(|waker| waker.count).sum();
            assert_eq!(all, woken, "every wake-up has a waker: {task:?}");
            assert!(task.all_waits().quantile_ns(0.5) > Some(0));
        }
        let waits: u64 = tasks.iter().map(|task| task.all_waits().count()).sum();
        assert_eq!(waits, events.delivered);
        println!("FACT runq by {}: every wait counted", attach.as_str());
    }
}

/// Two threads that compute share a CPU: each is preempted, and neither is ever woken meanwhile.
#[test]
fn who_computes_is_preempted_and_not_woken() {
    for attach in ATTACHMENTS {
        let Some(mut tool) = open(&own().attach(attach)) else {
            continue;
        };
        let enough = AtomicUsize::new(0);
        let names = ["computes_1", "computes_2"];
        let tids = thread::scope(|scope| {
            let started = names.map(|name| {
                let compute = || {
                    let tid = gettid();
                    pin(tid, 0);
                    let before = preemptions(tid);
                    while preemptions(tid) < before + 3 {}
                    enough.fetch_add(1, Ordering::Relaxed);
                    while enough.load(Ordering::Relaxed) < 2 {
                        std::hint::spin_loop();
                    }
                    tid
                };
                named(name).spawn_scoped(scope, compute).expect("room")
            });
            started.map(|thread| thread.join().expect("no panic"))
        });
        tool.finish().expect("maps can be read");
        let tasks = tool.tasks().expect("maps can be read");
        for (tid, name) in tids.into_iter().zip(names) {
            let task = task_of(&tasks, tid, name);
            let preempted = [WaitKind::Preempted, WaitKind::PreemptedMigrated];
            let preempted = preempted.map(|kind| task.waits(kind).lengths.count());
            assert!(preempted.iter().sum::<u64>() >= 3, "{task:?}");
        }
    }
}

/// A thread sleeps on one CPU and is woken when it may only run on another.
#[test]
fn who_is_woken_on_another_cpu_has_migrated() {
    if thread::available_parallelism().map_or(1, usize::from) < 2 {
        crate::skip::skip("there is one CPU");
        return;
    }
    const MOVES: u64 = 6;
    for attach in ATTACHMENTS {
        let Some(mut tool) = open(&own().attach(attach)) else {
            continue;
        };
        let (mut reader, mut writer) = std::io::pipe().expect("descriptors are left");
        let (tids, tid) = std::sync::mpsc::channel();
        let moved = move || {
            let own = gettid();
            pin(own, 0);
            tids.send(own).expect("the test waits");
            for _ in 0..MOVES {
                reader.read_exact(&mut [0]).expect("a pipe");
            }
        };
        let thread = named("moved").spawn(moved).expect("room");
        let tid = tid.recv().expect("the thread tells");
        for n in 1..=MOVES {
            wait_until_asleep(tid);
            pin(tid, usize::from(n % 2 == 1));
            writer.write_all(b"x").expect("a pipe");
            wait_until_read(&writer);
        }
        thread.join().expect("no panic");
        tool.finish().expect("maps can be read");
        let tasks = tool.tasks().expect("maps can be read");
        let task = task_of(&tasks, tid, "moved");
        let migrated = task.waits(WaitKind::WokenMigrated).lengths.count();
        // A task that is still on its way to sleep is moved, and woken, elsewhere.
        assert!(migrated >= 1, "{task:?}");
        assert!(task.migrations >= migrated, "{task:?}");
    }
}

/// Until the reader, and so its next sleep, is past the byte.
fn wait_until_read(writer: &std::io::PipeWriter) {
    while rustix::io::ioctl_fionread(writer).expect("a pipe tells") > 0 {
        thread::yield_now();
    }
}

#[test]
fn waits_without_room_for_their_task_are_counted() {
    let Some(mut tool) = open(&own().tasks_max(1)) else {
        return;
    };
    ping_pong(200);
    let events = tool.finish().expect("maps can be read");
    assert!(events.is_balanced(), "{events:?}");
    assert!(events.dropped() > 0, "{events:?}");
    assert!(tool.tasks().expect("maps can be read").len() <= 1);
}

#[test]
fn tasks_that_end_make_room_and_keep_their_waits() {
    let Some(mut tool) = open(&Options::default()) else {
        return;
    };
    // This program again, listing its tests: a machine may have no other.
    let program = std::env::current_exe().expect("Linux tells");
    let mut child = Command::new(&program)
        .arg("--list")
        .stdout(Stdio::null())
        .spawn()
        .expect("it runs already");
    let pid = child.id();
    child.wait().expect("it is ours");
    let ended = |tool: &RunQ| {
        let tasks = tool.tasks().expect("maps can be read");
        let mut tasks = tasks.into_iter();
        tasks.find(|task| task.pid == pid && task.has_ended)
    };
    // The kernel forgets a task some time after it has ended.
    let task = loop {
        tool.collect(Duration::from_millis(10))
            .expect("maps can be read");
        if let Some(task) = ended(&tool) {
            break task;
        }
    };
    let file = program.file_name().expect("it is a file");
    let comm: String = file.to_string_lossy().chars().take(15).collect();
    assert_eq!(task.comm, comm, "not the name before exec");
    tool.collect(Duration::from_millis(600))
        .expect("maps can be read");
    assert_eq!(
        ended(&tool).as_ref(),
        Some(&task),
        "taken out of the kernel"
    );
    let events = tool.finish().expect("maps can be read");
    assert!(events.is_balanced(), "{events:?}");
}

const LEADER_LEAVES: &str = "MAINSTAY_RUNQ_LEADER_LEAVES";

/// No test: the process of the next one. A thread of it that is not its leader runs another program.
#[test]
fn leave_the_leader() {
    if std::env::var_os(LEADER_LEAVES).is_none() {
        return;
    }
    let exec = || {
        thread::sleep(Duration::from_millis(5));
        let program = std::env::current_exe().expect("Linux tells");
        panic!("{}", Command::new(program).arg("--list").exec());
    };
    drop(named("heir").spawn(exec).expect("room").join());
}

/// Exec gives such a thread the number of its leader: by its own one it is never heard of again.
#[test]
fn a_thread_that_takes_its_leaders_place_has_ended() {
    for attach in ATTACHMENTS {
        let Some(mut tool) = open(&Options::default().attach(attach)) else {
            continue;
        };
        let program = std::env::current_exe().expect("Linux tells");
        let mut child = Command::new(program)
            .args(["--exact", "runq::leave_the_leader"])
            .env(LEADER_LEAVES, "1")
            .stdout(Stdio::null())
            .spawn()
            .expect("it runs already");
        let pid = child.id();
        assert!(child.wait().expect("it is ours").success());
        // The kernel forgets the process some time after it has ended.
        let mut threads = Vec::new();
        let has_ended = |task: &Task| task.tid == pid && task.has_ended;
        while !threads.iter().any(has_ended) {
            tool.collect(Duration::from_millis(10))
                .expect("maps can be read");
            threads = tool.tasks().expect("maps can be read");
            threads.retain(|task| task.pid == pid);
        }
        let events = tool.finish().expect("maps can be read");
        assert!(events.is_balanced(), "{events:?}");
        let tasks = tool.tasks().expect("maps can be read");
        let heir = tasks
            .iter()
            .find(|task| task.pid == pid && task.comm == "heir");
        let heir = heir.expect("it slept");
        assert!(heir.tid != pid && heir.has_ended, "{heir:?}");
    }
}

/// The kernel gives the number of a process that has ended to another one.
#[test]
fn a_number_that_is_given_again_is_another_task() {
    const NEXT: &str = "/proc/sys/kernel/ns_last_pid";
    const TRIES_MAX: usize = 1000;
    let run = || {
        let program = std::env::current_exe().expect("Linux tells");
        let child = Command::new(program)
            .arg("--list")
            .stdout(Stdio::null())
            .spawn();
        let mut child = child.expect("it runs already");
        let pid = child.id();
        child.wait().expect("it is ours");
        pid
    };
    for attach in ATTACHMENTS {
        let Some(mut tool) = open(&Options::default().attach(attach)) else {
            continue;
        };
        let pid = run();
        // Others may come between.
        let given_again = (0..TRIES_MAX).any(|_| {
            let written = std::fs::write(NEXT, (pid - 1).to_string());
            written.is_ok() && run() == pid
        });
        if !given_again {
            crate::skip::skip(format_args!("no number is given again by {NEXT}"));
            return;
        }
        let events = tool.finish().expect("maps can be read");
        assert!(events.is_balanced(), "{events:?}");
        let tasks = tool.tasks().expect("maps can be read");
        let ours = tasks.iter().filter(|task| task.tid == pid);
        let starts: Vec<u64> = ours.map(|task| task.start_ns).collect();
        assert_eq!(starts.len(), 2, "{tasks:?}");
        assert_ne!(starts[0], starts[1]);
    }
}

#[test]
fn stacks_show_where_a_task_slept_and_what_woke_it() {
    for attach in ATTACHMENTS {
        let Some(mut tool) = open(&own().stacks().attach(attach)) else {
            continue;
        };
        let (done, stop) = (AtomicBool::new(false), AtomicBool::new(false));
        let symbols = Symbols::new();
        let (all, svg) = thread::scope(|scope| {
            let sleep = || {
                (0..20).for_each(|_| thread::sleep(Duration::from_millis(1)));
                done.store(true, Ordering::Release);
                // Alive, so that its addresses have names.
                while !stop.load(Ordering::Acquire) {
                    thread::park();
                }
            };
            let sleeper = named("stacked").spawn_scoped(scope, sleep).expect("room");
            while !done.load(Ordering::Acquire) {
                thread::yield_now();
            }
            let all = tool.off_cpu().expect("maps can be read");
            let svg = flame_graph(&all, &symbols).to_string();
            stop.store(true, Ordering::Release);
            sleeper.thread().unpark();
            (all, svg)
        });
        let slept = |off: &&OffCpu| off.comm == "stacked" && off.waker == Some(WakerClass::HardIrq);
        // On a busy machine a timer may be over before the task sleeps.
        let times: u64 = all.iter().filter(slept).map(|off| off.count).sum();
        assert!(times >= 5, "{times} of 20");
        let off = all.iter().find(slept).expect("there are some");
        assert!(off.total_ns > 0 && !off.user_stack.is_empty(), "{off:?}");
        let names = symbols.kernel(&off.kernel_stack).join(" ");
        assert!(names.contains("nanosleep"), "{names}");
        for part in ["woken by hardirq", "stacked", "nanosleep"] {
            assert!(svg.contains(part), "no {part}");
        }
        let events = tool.finish().expect("maps can be read");
        assert!(events.is_balanced(), "{events:?}");
        assert_eq!(tool.without_room().expect("maps can be read"), (0, 0));
    }
}
