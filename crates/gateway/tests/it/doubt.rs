//! Broken connections, lost memories, deadlines: what becomes of a command then.

use std::collections::HashSet;
use std::sync::mpsc;
use std::thread;

use gateway::proto::{BootId, ResultStatus};

use crate::peer::{Heard, Peer};
use crate::rig::{Rig, until};

const NEW_BOOT: BootId = BootId([0xb1; 16]);

#[test]
fn a_device_that_lost_its_memory_leaves_its_command_in_doubt() {
    let rig = Rig::start();
    let mut peer = rig.online("a");
    let call = rig.post_later("a", "k", "{}");
    let (id, _) = peer.command();
    drop(peer);
    until("the device is offline", || rig.state("a") == "offline");
    rig.post("a", "k", "{}").problem(409, "in-progress");

    let mut peer = Peer::connect(rig.device_addr);
    peer.greet("a", NEW_BOOT, None);
    peer.welcome();
    let first = call.join().unwrap();
    first.problem(409, "in-doubt");
    assert!(!first.replayed());
    let again = rig.post("a", "k", "{}");
    again.problem(409, "in-doubt");
    assert!(again.replayed());
    rig.post("a", "k", "[]").problem(422, "key-reused");
    assert_eq!(rig.outcomes("in-doubt"), 1.0);
    // The old id is acknowledged, should the device find its result after all; it is never sent.
    assert_eq!(peer.hear(), Some(Heard::ResultAck(id)));
    peer.hears_nothing();
    drop(peer);
    // For ever: it survives a restart.
    let rig = rig.restart();
    rig.post("a", "k", "{}").problem(409, "in-doubt");
}

#[test]
fn a_device_that_remembers_is_sent_the_same_command_again() {
    let rig = Rig::start();
    let mut peer = rig.online("a");
    let call = rig.post_later("a", "k", "{}");
    let first = peer.command();
    drop(peer);
    until("the device is offline", || rig.state("a") == "offline");
    let mut peer = rig.online("a");
    assert_eq!(peer.command(), first);
    peer.result(first.0, ResultStatus::Json, "1");
    call.join().unwrap().done("1");
    assert_eq!(peer.hear(), Some(Heard::ResultAck(first.0)));
}

#[test]
fn an_interrupted_command_is_in_doubt() {
    let rig = Rig::start();
    let mut peer = rig.online("a");
    let call = rig.post_later("a", "k", "{}");
    let (id, _) = peer.command();
    peer.result(id, ResultStatus::Interrupted, "");
    call.join().unwrap().problem(409, "in-doubt");
    assert_eq!(peer.hear(), Some(Heard::ResultAck(id)));
    rig.post("a", "k", "{}").problem(409, "in-doubt");
    peer.hears_nothing();
}

#[test]
fn a_refused_command_frees_its_key() {
    let rig = Rig::start();
    let mut peer = rig.online("a");
    let call = rig.post_later("a", "k", "{}");
    let (id, _) = peer.command();
    peer.result(id, ResultStatus::Refused, "");
    call.join().unwrap().problem(429, "queue-full");
    let call = rig.post_later("a", "k", "[1]");
    assert_ne!(peer.answer("1"), id);
    call.join().unwrap().done("1");
}

#[test]
fn a_deadline_before_the_device_came_frees_the_key() {
    let rig = Rig::start();
    rig.known("a");
    let late = rig
        .command("a", "k", "{}")
        .timeout_ms(20)
        .send(rig.http_addr);
    late.problem(504, "timed-out-unsent");
    assert_eq!(rig.outcomes("timed-out-unsent"), 1.0);
    let mut peer = rig.online("a");
    peer.hears_nothing();
    let call = rig.post_later("a", "k", "[1]");
    peer.answer("1");
    call.join().unwrap().done("1");
}

#[test]
fn a_device_that_comes_in_time_gets_what_waits_for_it() {
    let rig = Rig::start();
    rig.known("a");
    let call = rig.post_later("a", "k", "{}");
    until("the command waits", || rig.device("a")["commands"] == 1);
    let mut peer = rig.online("a");
    peer.answer("1");
    call.join().unwrap().done("1");
}

#[test]
fn a_deadline_after_the_device_got_it_stops_nothing() {
    let rig = Rig::start();
    let mut peer = rig.online("a");
    rig.post_too_impatiently("a", "k", "{}");
    let (id, _) = peer.command();
    rig.post("a", "k", "{}").problem(409, "in-progress");
    peer.result(id, ResultStatus::Json, "1");
    assert_eq!(peer.hear(), Some(Heard::ResultAck(id)));
    rig.post("a", "k", "{}").replay_of("1");
    peer.hears_nothing();
}

#[test]
fn a_claim_that_nobody_waits_for_is_settled_by_the_device() {
    let rig = Rig::with(|config| config.commands.result_wait_ms = 20);
    let mut peer = rig.online("a");
    rig.post_too_impatiently("a", "k", "{}");
    until("the gateway has given up", || {
        rig.metric("mainstay_commands_running") == 0.0
    });
    assert_eq!(rig.metric("mainstay_commands_open"), 1.0);
    let (id, _) = peer.command();
    peer.result(id, ResultStatus::Json, "1");
    assert_eq!(peer.hear(), Some(Heard::ResultAck(id)));
    rig.post("a", "k", "{}").replay_of("1");
    assert_eq!(rig.metric("mainstay_commands_open"), 0.0);
}

#[test]
fn a_retry_takes_up_a_claim_that_nobody_waits_for() {
    let rig = Rig::with(|config| config.commands.result_wait_ms = 20);
    let mut peer = rig.online("a");
    rig.post_too_impatiently("a", "k", "{}");
    until("the gateway has given up", || {
        rig.metric("mainstay_commands_running") == 0.0
    });
    let first = peer.command();
    let rig = rig.restart();
    let mut peer = rig.online("a");
    let call = rig.post_later("a", "k", "{}");
    assert_eq!(
        peer.command(),
        first,
        "the same id, so that the device recognises it"
    );
    peer.result(first.0, ResultStatus::Json, "1");
    call.join().unwrap().done("1");
}

/// A device repeats its result in the moment in which callers retry: one of them settles the claim,
/// and the others notice.
#[test]
fn a_retry_and_a_repeated_result_may_meet() {
    let rig = Rig::with(|config| config.commands.result_wait_ms = 1);
    let mut peer = rig.online("a");
    let mut twin = peer.twin();
    let (new_ids, ids) = mpsc::channel();
    let device = thread::spawn(move || {
        let mut known = HashSet::new();
        while let Some(heard) = peer.hear() {
            match heard {
                Heard::Command { id, .. } if known.insert(id) => new_ids.send(id).unwrap(),
                Heard::Command { id, .. } => peer.result(id, ResultStatus::Json, "1"),
                _ => {}
            }
        }
    });
    for round in 0..60 {
        let key = format!("k{round}");
        rig.post_too_impatiently("a", &key, "{}");
        until("the gateway has given up", || {
            rig.metric("mainstay_commands_running") == 0.0
        });
        let id = ids.recv().unwrap();
        let retries: Vec<_> = (0..3).map(|_| rig.post_later("a", &key, "{}")).collect();
        twin.result(id, ResultStatus::Json, "1");
        for retry in retries {
            let response = retry.join().unwrap();
            match response.status {
                200 => assert_eq!(response.text(), "1"),
                _ => drop(response.problem(409, "in-progress")),
            }
        }
        until("it is settled", || rig.post("a", &key, "{}").status == 200);
    }
    until("no task is at it any more", || {
        rig.metric("mainstay_commands_open") == 0.0
    });
    drop(rig);
    device.join().unwrap();
    assert!(ids.recv().is_err(), "every retry is the same command");
}
