//! Commands that go well: answered, replayed, told apart by key, payload and device.

use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use gateway::device::{Answer, Device};
use gateway::proto::ResultStatus;

use crate::peer::Heard;
use crate::rig::{Rig, until};

#[test]
fn a_command_is_answered_and_its_answer_replayed() {
    let rig = Rig::start();
    let executed = Arc::new(AtomicUsize::new(0));
    let device = {
        let executed = Arc::clone(&executed);
        let builder = Device::builder(rig.device_addr, "pump-7");
        builder
            .start(move |command| {
                let n = executed.fetch_add(1, Relaxed) + 1;
                let payload = String::from_utf8_lossy(&command.payload);
                Answer::json(format!(r#"{{"n":{n},"payload":{payload}}}"#))
            })
            .unwrap()
    };
    until("the device is online", || device.is_online());

    let first = rig.post("pump-7", "k", r#"{"a":1,"b":[100]}"#);
    first.done(r#"{"n":1,"payload":{"a":1,"b":[100]}}"#);
    // The same key and the same meaning in other words.
    for again in [r#"{"a":1,"b":[100]}"#, " { \"b\" : [1e2],\n\"a\":1.0}"] {
        rig.post("pump-7", "k", again)
            .replay_of(r#"{"n":1,"payload":{"a":1,"b":[100]}}"#);
    }
    // RFC 8941 strings name the key inside the quotes.
    rig.post("pump-7", r#""k""#, r#"{"a":1,"b":[100]}"#)
        .replay_of(&first.text());
    assert_eq!(executed.load(Relaxed), 1);

    rig.post("pump-7", "k2", "7").done(r#"{"n":2,"payload":7}"#);
    rig.post("pump-7", r#""say\"hi\\""#, "8")
        .done(r#"{"n":3,"payload":8}"#);
    rig.post("pump-7", r#"say"hi\"#, "8")
        .replay_of(r#"{"n":3,"payload":8}"#);
    device.stop().unwrap();
    // What is stored is answered without the device, and after a restart.
    let rig = rig.restart();
    rig.post("pump-7", "k2", "7.0")
        .replay_of(r#"{"n":2,"payload":7}"#);
    assert_eq!((rig.outcomes("replayed"), rig.outcomes("done")), (1.0, 0.0));
}

#[test]
fn a_replay_never_reaches_the_device() {
    let rig = Rig::start();
    let mut peer = rig.online("a");
    let call = rig.post_later("a", "k", "[]");
    peer.answer("1");
    call.join().unwrap().done("1");
    rig.post("a", "k", "[]").replay_of("1");
    rig.post("a", "k", "{}").problem(422, "key-reused");
    peer.hears_nothing();
}

#[test]
fn keys_belong_to_their_device() {
    let rig = Rig::start();
    for (id, answer) in [("a", "\"a\""), ("b", "\"b\""), ("käse 1", "\"c\"")] {
        let mut peer = rig.online(id);
        let path = if id.is_ascii() { id } else { "k%C3%A4se%201" };
        let call = rig.post_later(path, "k", "{}");
        peer.answer(answer);
        call.join().unwrap().done(answer);
        rig.post(path, "k", "{}").replay_of(answer);
    }
}

#[test]
fn the_device_sees_the_payload_as_it_was_sent_and_the_time_that_is_left() {
    let rig = Rig::start();
    let mut peer = rig.online("a");
    let payload = " {\"b\" : 1e2,\"a\":\"\\u00e4\"}\n";
    let call = {
        let request = rig.command("a", "k", payload).timeout_ms(12_345);
        let addr = rig.http_addr;
        std::thread::spawn(move || request.send(addr))
    };
    match peer.hear() {
        Some(Heard::Command {
            id,
            timeout_ms,
            payload: there,
        }) => {
            assert_eq!((timeout_ms, there.as_slice()), (12_345, payload.as_bytes()));
            peer.result(id, ResultStatus::Opaque, [0, 255]);
        }
        other => panic!("{other:?}"),
    }
    let response = call.join().unwrap();
    assert_eq!(
        (response.status, response.body.as_slice()),
        (200, [0, 255].as_slice())
    );
    assert_eq!(
        response.header("content-type"),
        Some("application/octet-stream")
    );
    let replay = rig.post("a", "k", payload);
    assert_eq!(
        (replay.body.as_slice(), replay.replayed()),
        ([0, 255].as_slice(), true)
    );
}

#[test]
fn a_running_command_is_in_progress_for_everybody_else() {
    let rig = Rig::start();
    let mut peer = rig.online("a");
    let call = rig.post_later("a", "k", "{}");
    let (id, _) = peer.command();
    let retry = rig.post("a", "k", "{}");
    retry.problem(409, "in-progress");
    assert!(retry.header("retry-after").is_some());
    rig.post("a", "k", "[]").problem(422, "key-reused");
    peer.hears_nothing();
    peer.result(id, ResultStatus::Json, "1");
    call.join().unwrap().done("1");
    rig.post("a", "k", "{}").replay_of("1");
    assert_eq!(rig.device("a")["commands"], 0);
}

#[test]
fn a_client_that_hangs_up_cancels_nothing() {
    let rig = Rig::start();
    let mut peer = rig.online("a");
    let client = rig.command("a", "k", "{}").start(rig.http_addr);
    let (id, _) = peer.command();
    client.shutdown(Shutdown::Both).unwrap();
    drop(client);
    peer.result(id, ResultStatus::Json, "1");
    assert_eq!(peer.hear(), Some(Heard::ResultAck(id)));
    rig.post("a", "k", "{}").replay_of("1");
    peer.hears_nothing();
}

#[test]
fn commands_of_one_device_run_side_by_side() {
    let rig = Rig::start();
    let mut peer = rig.online("a");
    let calls: Vec<_> = (0..20)
        .map(|n| rig.post_later("a", &format!("k{n}"), &n.to_string()))
        .collect();
    let commands: Vec<_> = calls.iter().map(|_| peer.command()).collect();
    // Answered in another order than they came.
    for (id, payload) in commands.iter().rev() {
        peer.result(*id, ResultStatus::Json, payload);
    }
    for (n, call) in calls.into_iter().enumerate() {
        call.join().unwrap().done(&n.to_string());
    }
}

#[test]
fn a_result_that_nobody_knows_may_be_forgotten() {
    let rig = Rig::start();
    let mut peer = rig.online("a");
    let unknown = gateway::proto::CommandId([9; 16]);
    peer.result(unknown, ResultStatus::Json, "1");
    assert_eq!(peer.hear(), Some(Heard::ResultAck(unknown)));
    // One that is stored is acknowledged again.
    let call = rig.post_later("a", "k", "{}");
    let id = peer.answer("1");
    call.join().unwrap().done("1");
    peer.result(id, ResultStatus::Json, "2");
    assert_eq!(peer.hear(), Some(Heard::ResultAck(id)));
    rig.post("a", "k", "{}").replay_of("1");
}
