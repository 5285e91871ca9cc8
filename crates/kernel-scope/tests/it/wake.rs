//! wake names the right waker: of sleeps whose waker is known.

use std::io::{Read as _, Write as _};
use std::net::UdpSocket;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use kernel_scope::wake::{Event, Options, Wake};
use kernel_scope::{Attach, WakerClass};

use crate::tasks::{named, wait_until_asleep};

const ATTACHMENTS: [Attach; 2] = [Attach::BtfTracepoint, Attach::RawTracepoint];
const ROUNDS: usize = 20;
const A_WHILE: Duration = Duration::from_millis(2);

/// Opens the tool, or prints why this machine cannot and gives nothing.
fn open(options: &Options) -> Option<Wake> {
    match Wake::open(options) {
        Ok(tool) => Some(tool),
        Err(error) if error.is_permission_denied() => {
            crate::skip::skip(error);
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Runs `sleeper` on a thread of that name while the tool watches, for each attachment, and hands
/// its calls named `call` to `check`.
#[expect(clippy::print_stdout, reason = "cargo xtask vm collects facts")]
fn watch(name: &str, call: &str, sleeper: impl Fn() + Sync, check: impl Fn(&[Event])) {
    for attach in ATTACHMENTS {
        let options = Options::default().pid(std::process::id()).attach(attach);
        let Some(mut tool) = open(&options) else {
            continue;
        };
        assert_eq!(tool.attached().attach, attach);
        thread::scope(|scope| {
            named(name).spawn_scoped(scope, &sleeper).expect("room");
        });
        let mut events = Vec::new();
        let drained = tool.drain(u64::MAX, |event| events.push(*event));
        drained.expect("a sound ring");
        events.retain(|event| event.comm() == name && event.call_name() == call);
        check(&events);
        let account = tool.finish(&mut Default::default()).expect("a sound ring");
        assert!(account.is_balanced(), "{account:?}");
        assert_eq!(account.dropped(), 0);
        println!("FACT wake by {}: wakers told", attach.as_str());
    }
}

/// A socket on the loopback device, or the reason why there is none.
fn loopback() -> Option<UdpSocket> {
    let bound = UdpSocket::bind("127.0.0.1:0");
    if let Err(error) = &bound {
        crate::skip::skip(format_args!("the loopback device is down: {error}"));
    }
    bound.ok()
}

fn all_by(class: WakerClass) -> impl Fn(&[Event]) {
    move |events| {
        // On a busy machine the waker may come before the task sleeps.
        assert!(events.len() >= ROUNDS / 4, "{} of {ROUNDS}", events.len());
        for event in events {
            assert_eq!(event.waker_class(), class, "{event:?}");
            assert_eq!(event.woken_by(class), event.sleeps, "{event:?}");
            let is_task = class == WakerClass::Task;
            assert_eq!(event.waker_tid != 0, is_task, "{event:?}");
            assert_eq!(event.waker_comm().is_empty(), !is_task, "{event:?}");
        }
    }
}

#[test]
fn a_timer_of_high_resolution_wakes_from_its_interrupt() {
    watch(
        "sleeper",
        "clock_nanosleep",
        || (0..ROUNDS).for_each(|_| thread::sleep(A_WHILE)),
        all_by(WakerClass::HardIrq),
    );
}

/// A receive timeout is a timer of the wheel, which a soft interrupt turns.
#[test]
fn a_timer_of_the_wheel_wakes_from_a_soft_interrupt() {
    let Some(socket) = loopback() else { return };
    socket.set_read_timeout(Some(A_WHILE)).expect("not zero");
    let receive = || {
        for _ in 0..ROUNDS {
            assert!(socket.recv(&mut [0]).is_err(), "nobody sends");
        }
    };
    watch("waits_in_vain", "recvfrom", receive, |events| {
        all_by(WakerClass::SoftIrq)(events);
        assert!(events.iter().all(|event| event.ret == -11), "EAGAIN");
    });
}

#[test]
fn the_network_wakes_from_a_soft_interrupt() {
    let (Some(socket), Some(sender)) = (loopback(), loopback()) else {
        return;
    };
    let address = socket.local_addr().expect("it is bound");
    let receive = || {
        let tid = rustix::thread::gettid();
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    wait_until_asleep(tid);
                    sender.send_to(b"x", address).expect("loopback");
                }
            });
            for _ in 0..ROUNDS {
                socket.recv(&mut [0; 8]).expect("the sender sends");
            }
        });
    };
    watch("receiver", "recvfrom", receive, all_by(WakerClass::SoftIrq));
}

#[test]
fn a_task_that_writes_wakes_as_a_task() {
    let read = || {
        let (mut reader, mut writer) = std::io::pipe().expect("descriptors are left");
        let tid = rustix::thread::gettid();
        thread::scope(|scope| {
            let write = named("the_writer").spawn_scoped(scope, move || {
                for _ in 0..ROUNDS {
                    wait_until_asleep(tid);
                    writer.write_all(b"x").expect("a pipe");
                }
            });
            write.expect("threads can be made");
            for _ in 0..ROUNDS {
                reader.read_exact(&mut [0]).expect("a pipe");
            }
        });
    };
    watch("reader", "read", read, |events| {
        all_by(WakerClass::Task)(events);
        for event in events {
            assert_eq!(event.waker_comm(), "the_writer");
            assert_eq!(event.waker_pid, std::process::id());
            assert_eq!((event.pid, event.ret), (std::process::id(), 1));
            let times = [
                event.entered_ns,
                event.blocked_ns,
                event.woken_ns,
                event.running_ns,
                event.left_ns,
            ];
            assert!(times.is_sorted(), "{event:?}");
            assert_eq!(event.sleeps, 1);
            assert_eq!(event.asleep_ns, event.woken_ns - event.blocked_ns);
            assert_eq!(event.queued_ns, event.running_ns - event.woken_ns);
        }
    });
}

/// The timer's interrupt comes upon a task that computes, on every CPU.
#[test]
fn a_task_is_not_blamed_for_the_interrupt_that_came_upon_it() {
    let stop = AtomicBool::new(false);
    let compute = || {
        while !stop.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    };
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..cpus {
            named("computes")
                .spawn_scoped(scope, compute)
                .expect("room");
        }
        watch(
            "is_woken",
            "clock_nanosleep",
            || (0..ROUNDS).for_each(|_| thread::sleep(A_WHILE)),
            all_by(WakerClass::HardIrq),
        );
    });
}

/// Says stop also when a check fails: else the threads would compute for ever.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn the_summary_adds_the_calls_of_a_thread_up() {
    let options = Options::default().pid(std::process::id());
    let Some(mut tool) = open(&options) else {
        return;
    };
    let sleep = || (0..ROUNDS).for_each(|_| thread::sleep(A_WHILE));
    let sleeper = named("summed_up").spawn(sleep).expect("room");
    sleeper.join().expect("no panic");
    let mut summary = kernel_scope::wake::Summary::default();
    let events = tool.finish(&mut summary).expect("a sound ring");
    assert_eq!(events.delivered, summary.events());
    let rows = summary.rows();
    let row = rows
        .iter()
        .find(|row| row.comm == "summed_up" && row.call == "clock_nanosleep")
        .expect("it slept");
    // On a busy machine the timer may be over before the task sleeps.
    assert!(row.calls >= 5 && row.calls <= ROUNDS as u64, "{row:?}");
    assert_eq!(row.asleep_ns.count(), row.calls);
    assert!(row.asleep_total_ns > 0);
    let by_timer = row.wakers.iter().map(|waker| waker.count).sum::<u64>();
    assert_eq!(
        (row.wakers[0].class, by_timer),
        (WakerClass::HardIrq, row.calls)
    );
    assert!(row.slowest.left_ns - row.slowest.entered_ns >= A_WHILE.as_nanos() as u64);
}

/// Rust cannot end a thread that is `main`'s. What the exec throws away takes the kernel so long that
/// another process takes the CPU from it.
const LEADER_ENDS: &str = "
import ctypes, os, threading, time
parent = os.getpid()
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
if os.fork() == 0:
    while os.getppid() == parent: pass
    os._exit(0)
memory = bytearray(b'x') * (200 << 20)
libc = ctypes.CDLL(None)
def replace():
    while open('/proc/self/stat').read().split()[2] != 'Z':
        time.sleep(0.001)
    os.execv('/bin/true', ['true'])
threading.Thread(target=replace).start()
libc.pthread_exit(None)
";

/// Exec gives the thread the number of its leader, which has never left the call that ended it.
#[test]
fn a_thread_that_takes_its_leaders_place_is_not_in_its_call() {
    for attach in ATTACHMENTS {
        let options = Options::default().attach(attach).ring_bytes(16 << 20);
        let Some(mut tool) = open(&options) else {
            continue;
        };
        let mut child = match Command::new("python3").args(["-c", LEADER_ENDS]).spawn() {
            Ok(child) => child,
            Err(error) => return crate::skip::skip(format_args!("no python3: {error}")),
        };
        assert!(child.wait().expect("it is ours").success());
        let mut events = Vec::new();
        let account = tool.finish_each(|event| events.push(*event));
        assert!(account.expect("a sound ring").is_balanced());
        events.retain(|event| event.pid == child.id());
        assert!(!events.is_empty(), "it waited for its leader");
        let ended = events.iter().find(|event| event.call_name() == "exit");
        assert_eq!(ended, None, "it returned");
        let exec = events.iter().find(|event| event.call_name() == "execve");
        if let Some(exec) = exec {
            assert_eq!((exec.tid, exec.ret), (child.id(), 0), "{exec:?}");
        }
    }
}
