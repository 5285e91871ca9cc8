//! What needs a machine that nobody else uses: `cargo xtask vm` runs these after all others, one by one.

use std::fs;
use std::thread;

use ebpf_ring::KernelFacts;
use kernel_scope::runq::{Options, RunQ, Waker};
use kernel_scope::wake::{Options as WakeOptions, Wake};
use kernel_scope::{Attach, WakerClass};

use crate::tasks::named;

const ATTACHMENTS: [Attach; 2] = [Attach::BtfTracepoint, Attach::RawTracepoint];
const PLUGGER: &str = "plugger";
const CPU: &str = "/sys/devices/system/cpu/cpu1/online";
const ROUNDS: usize = 10;
/// Which only a tool reaches that does not tell.
const TRIES_MAX: usize = 5;
/// From here on a CPU begins to come up before its idle task is waited for; before, the two mostly coincide.
const SLEEPS_SINCE: (u32, u32) = (6, 5);

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

/// The wakers of those that plug, as far as they are the idle task.
fn by_idle(tool: &RunQ) -> Vec<Waker> {
    let tasks = tool.tasks().expect("maps can be read");
    let pluggers = tasks.into_iter().filter(|task| task.comm == PLUGGER);
    let wakers = pluggers.flat_map(|task| task.wakers);
    wakers.filter(|w| w.class == WakerClass::Idle).collect()
}

#[test]
fn the_idle_task_is_told_as_a_waker() {
    if !is_ours() {
        return;
    }
    for attach in ATTACHMENTS {
        let options = Options::default().pid(std::process::id());
        let mut tool = RunQ::open(&options.attach(attach)).expect("root may");
        // A CPU that is there before anybody sleeps for it wakes nobody.
        let mut tries = 0;
        while tries < TRIES_MAX && by_idle(&tool).is_empty() {
            replug();
            tries += 1;
        }
        let events = tool.finish().expect("maps can be read");
        assert!(events.is_balanced() && events.dropped() == 0, "{events:?}");
        let wakers = by_idle(&tool);
        if wakers.is_empty() && KernelFacts::read().version < SLEEPS_SINCE {
            crate::skip::skip("on this kernel a CPU is up before anybody sleeps for it");
            continue;
        }
        assert!(!wakers.is_empty(), "{:?}", tool.tasks());
        assert!(wakers.iter().all(|w| w.tid == 0 && w.comm.is_empty()));
        println!("FACT runq by {}: the idle task told", attach.as_str());
    }
}

/// The sleep that the idle task ends is not the longest of its call.
#[test]
fn the_idle_task_is_told_by_wake_too() {
    if !is_ours() {
        return;
    }
    for attach in ATTACHMENTS {
        let options = WakeOptions::default().pid(std::process::id());
        let mut tool = Wake::open(&options.attach(attach)).expect("root may");
        let mut by_idle = 0;
        let mut tries = 0;
        while tries < TRIES_MAX && by_idle == 0 {
            replug();
            tries += 1;
            let drained = tool.drain(u64::MAX, |event| {
                if event.comm() == PLUGGER {
                    by_idle += event.woken_by(WakerClass::Idle);
                }
            });
            drained.expect("a sound ring");
        }
        let events = tool.finish(&mut Default::default()).expect("a sound ring");
        assert!(events.is_balanced() && events.dropped() == 0, "{events:?}");
        if by_idle == 0 && KernelFacts::read().version < SLEEPS_SINCE {
            crate::skip::skip("on this kernel a CPU is up before anybody sleeps for it");
            continue;
        }
        assert!(by_idle > 0);
        println!("FACT wake by {}: the idle task told", attach.as_str());
    }
}
