//! A gateway that stops: refuses, finishes, records, says goodbye.

use std::io::Write;

use gateway::proto::{GoAwayReason, ResultStatus};

use crate::http::{Request, Response};
use crate::peer::Heard;
use crate::rig::{Rig, until};

#[test]
fn running_commands_are_finished_and_new_ones_refused() {
    let mut rig = Rig::with(|config| config.drain_timeout_ms = 120_000);
    let mut peer = rig.online("a");
    rig.known("away");
    assert_eq!(
        (rig.get("/readyz").status, rig.get("/healthz").status),
        (200, 200)
    );
    let running = rig.post_later("a", "running", "{}");
    let (id, _) = peer.command();
    let waiting = rig.post_later("away", "waiting", "{}");
    until("it waits", || rig.device("away")["commands"] == 1);

    let drained = rig.drain_later();
    until("it drains", || rig.get("/readyz").status == 503);
    let refused = rig.post("a", "new", "{}");
    refused.problem(503, "draining");
    assert!(refused.header("retry-after").is_some());
    // Nothing of it was sent, so its key is free.
    waiting.join().unwrap().problem(503, "draining");
    assert!(rig.outcomes("draining") >= 2.0);
    assert_eq!(rig.get("/healthz").status, 200);
    until("no device can connect", || {
        std::net::TcpStream::connect(rig.device_addr).is_err()
    });

    peer.result(id, ResultStatus::Json, "1");
    running.join().unwrap().done("1");
    assert_eq!(peer.hear(), Some(Heard::ResultAck(id)));
    assert!(matches!(peer.hear(), Some(Heard::GoAway(GoAwayReason::Draining, ms)) if ms > 0));
    assert_eq!(peer.hear(), None);
    drained.join().unwrap();
}

#[test]
fn a_drain_counts_what_runs_and_says_why_it_refuses() {
    let mut rig = Rig::with(|config| config.drain_timeout_ms = 120_000);
    let mut peer = rig.online("a");
    let running = rig.post_later("a", "running", "{}");
    let (id, _) = peer.command();
    let mut late = rig
        .command("a", "late", "{}")
        .start_before_body(rig.http_addr);

    let drained = rig.drain_later();
    until("it drains", || rig.get("/readyz").status == 503);
    assert_eq!(rig.metric("mainstay_commands_running"), 1.0);
    late.write_all(b"{}").unwrap();
    Response::read(&mut late).problem(503, "draining");

    peer.result(id, ResultStatus::Json, "1");
    running.join().unwrap().done("1");
    drained.join().unwrap();
}

#[test]
fn keys_that_a_drain_refused_are_free() {
    let mut rig = Rig::with(|config| config.drain_timeout_ms = 120_000);
    let mut peer = rig.online("a");
    let running = rig.post_later("a", "running", "{}");
    let (id, _) = peer.command();
    let drained = rig.drain_later();
    until("it drains", || rig.get("/readyz").status == 503);
    rig.post("a", "k", "{}").problem(503, "draining");
    peer.result(id, ResultStatus::Json, "1");
    running.join().unwrap().done("1");
    drained.join().unwrap();

    let rig = rig.restart_drained();
    rig.post("a", "running", "{}").replay_of("1");
    let mut peer = rig.online("a");
    let call = rig.post_later("a", "k", "[1]");
    peer.answer("2");
    call.join().unwrap().done("2");
}

#[test]
fn a_command_that_does_not_end_in_time_is_recorded() {
    let mut rig = Rig::start();
    let mut peer = rig.online("a");
    let call = rig.post_later("a", "k", "{}");
    let first = peer.command();
    rig.drain_later().join().unwrap();
    call.join().unwrap().problem(503, "draining");
    peer.sent_away(GoAwayReason::Draining);

    let rig = rig.restart_drained();
    assert_eq!(rig.metric("mainstay_commands_open"), 1.0);
    // The device executed it meanwhile, and says so: the key replays.
    let mut peer = rig.online("a");
    peer.result(first.0, ResultStatus::Json, "1");
    assert_eq!(peer.hear(), Some(Heard::ResultAck(first.0)));
    rig.post("a", "k", "{}").replay_of("1");
    peer.hears_nothing();
}

#[test]
fn clients_that_hold_every_place_do_not_hold_up_the_end() {
    let mut rig = Rig::with(|config| config.http_limits.connections_max = 2);
    let streams = [(); 2].map(|()| {
        let request = Request::get("/v1/events").start(rig.http_addr);
        until("the server has it", || {
            request.peek(&mut [0]).is_ok_and(|n| n > 0)
        });
        request
    });
    rig.drain_later().join().unwrap();
    drop(streams);
}
