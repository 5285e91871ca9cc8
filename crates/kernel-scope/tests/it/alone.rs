//! What needs a machine that nobody else uses: `cargo xtask vm` runs these after all others, one by one.

use std::fs;
use std::thread;

use kernel_scope::runq::{Options, RunQ};
use kernel_scope::{Attach, WakerClass};

use crate::tasks::named;

const ATTACHMENTS: [Attach; 2] = [Attach::BtfTracepoint, Attach::RawTracepoint];
const PLUGGER: &str = "plugger";
const CPU: &str = "/sys/devices/system/cpu/cpu1/online";
const ROUNDS: usize = 10;

/// Whether this is such a machine; else it says so.
fn is_ours() -> bool {
    let ours = std::env::var_os("MAINSTAY_OWN_MACHINE").is_some();
    if !ours {
        crate::skip::skip(
            "switching a CPU off disturbs others; a machine of its own: cargo xtask vm",
        );
    }
    ours
}

/// Switches a CPU off and on again. Who switches it on sleeps until its idle task, before anything
/// else runs there, says that it is up; and then until a thread of the kernel has made it ready.
fn replug() {
    let plug = || {
        for _ in 0..ROUNDS {
            fs::write(CPU, "0").expect("it can be switched off");
            fs::write(CPU, "1").expect("it can be switched on");
        }
    };
    thread::scope(|scope| {
        named(PLUGGER).spawn_scoped(scope, plug).expect("room");
    });
}

#[test]
fn the_idle_task_is_told_as_a_waker() {
    if !is_ours() {
        return;
    }
    // The class is found by code that wake shares: bpf/include/mainstay_sched.h.
    for attach in ATTACHMENTS {
        let options = Options::default().pid(std::process::id());
        let mut tool = RunQ::open(&options.attach(attach)).expect("root may");
        replug();
        let events = tool.finish().expect("maps can be read");
        assert!(events.is_balanced() && events.dropped() == 0, "{events:?}");
        let tasks = tool.tasks().expect("maps can be read");
        let plugger = tasks.iter().find(|task| task.comm == PLUGGER);
        let plugger = plugger.expect("it slept");
        let by_idle = plugger
            .wakers
            .iter()
            .filter(|w| w.class == WakerClass::Idle);
        let by_idle: Vec<_> = by_idle.collect();
        let count: u64 = by_idle.iter().map(|waker| waker.count).sum();
        assert_eq!(count, ROUNDS as u64, "{:?}", plugger.wakers);
        assert!(by_idle.iter().all(|w| w.tid == 0 && w.comm.is_empty()));
        println!("FACT runq by {}: the idle task told", attach.as_str());
    }
}
