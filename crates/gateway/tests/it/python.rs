//! `examples/device.py`, which was written from docs/PROTOCOL.md alone.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use gateway::proto::{
    CommandId, ErrorCode, GoAway, GoAwayReason, ResultStatus, SessionToken, ToDevice,
};

use crate::gate::{Gate, Said};
use crate::http::Request;
use crate::rig::{Rig, until};

struct Python(Child);

impl Python {
    fn device(gateway: SocketAddr, id: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/device.py");
        let mut command = Command::new("python3");
        command
            .arg(script)
            .args([&gateway.ip().to_string(), &gateway.port().to_string(), id]);
        Self(command.stderr(Stdio::null()).spawn().unwrap())
    }
}

/// Whether there is a Python; says so, also where the test runner collects reasons, when there is none.
fn has_python(test: &str) -> bool {
    if Command::new("python3").arg("--version").output().is_ok() {
        return true;
    }
    println!("SKIP: {test}: python3 is missing");
    if let Some(log) = std::env::var_os("MAINSTAY_SKIP_LOG") {
        let log = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(log);
        writeln!(log.unwrap(), "{test}: python3 is missing").unwrap();
    }
    false
}

impl Drop for Python {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn it_connects_beats_and_answers_commands() {
    if !has_python("it_connects_beats_and_answers_commands") {
        return;
    }
    let rig = Rig::with(|config| config.devices.interval_ms = 50);
    let _python = Python::device(rig.device_addr, "python");
    until("it is online", || rig.state("python") == "online");
    until("it measures its round trip", || {
        rig.device("python")["rtt_ms"].is_u64()
    });

    let payload = format!("\"{}\"", "x".repeat(60_000));
    let first = rig.post("python", "large", &payload);
    assert_eq!(first.status, 200);
    assert!(first.json()["done_at"].is_u64());
    assert_eq!(first.json()["payload"].as_str().unwrap().len(), 60_000);
    rig.post("python", "large", &payload)
        .replay_of(&first.text());
    for n in 0..100 {
        let response = rig.post("python", &format!("k{n}"), &n.to_string());
        assert_eq!(
            (response.status, &response.json()["payload"]),
            (200, &n.into())
        );
    }
    // It answers a probe: the id stays its own.
    let mut twin = crate::peer::Peer::connect(rig.device_addr);
    twin.greet("python", crate::peer::BOOT, None);
    twin.rejected(ErrorCode::InUse);
    assert_eq!(
        Request::get("/v1/devices/python")
            .send(rig.http_addr)
            .json()["state"],
        "online"
    );
}

#[test]
fn it_does_a_command_once() {
    if !has_python("it_does_a_command_once") {
        return;
    }
    let mut gate = Gate::open();
    let mut python = Python::device(gate.addr(), "once");
    let Said::Hello {
        device,
        boot,
        resume,
    } = gate.accept()
    else {
        panic!("no HELLO")
    };
    assert_eq!((device.as_str(), resume), ("once", None));
    let token = SessionToken([7; 16]);
    gate.welcome(token, 20);
    let id = CommandId([1; 16]);
    gate.command(id, "{}");
    let result = gate.result();
    assert_eq!((result.0, result.1), (id, ResultStatus::Json));
    gate.command(id, "{}");
    for _ in 0..4 {
        assert_eq!(
            gate.result(),
            result,
            "the same answer: it was not executed again"
        );
    }
    assert_eq!(
        gate.accept(),
        Said::Hello {
            device,
            boot,
            resume: Some(token)
        }
    );
    gate.welcome(token, 3_600_000);
    assert_eq!(gate.result(), result);
    gate.say(&ToDevice::ResultAck { id });
    gate.accept();
    gate.welcome(token, 3_600_000);
    gate.command(CommandId([2; 16]), "{}");
    assert_eq!(
        gate.result().0,
        CommandId([2; 16]),
        "the first one is forgotten"
    );
    let reason = GoAwayReason::Replaced;
    gate.say(&ToDevice::GoAway(GoAway {
        reason,
        retry_within_ms: 0,
    }));
    assert_eq!(python.0.wait().unwrap().code(), Some(1));
}

#[test]
fn it_comes_back_in_its_slot_and_after_a_word_when_it_is_told() {
    if !has_python("it_comes_back_in_its_slot_and_after_a_word_when_it_is_told") {
        return;
    }
    const AN_HOUR_MS: u32 = 3_600_000;
    let mut gate = Gate::open();
    let _python = Python::device(gate.addr(), "slotted");
    gate.accept();
    let token = SessionToken([7; 16]);
    let goodbye = |retry_within_ms| {
        ToDevice::GoAway(GoAway {
            reason: GoAwayReason::Gone,
            retry_within_ms,
        })
    };
    let refusal = ToDevice::Error {
        code: gateway::proto::ErrorCode::Busy,
        text: "",
    };
    for said in [goodbye(0), goodbye(1), refusal] {
        gate.welcome_in_slot(token, AN_HOUR_MS);
        gate.say(&said);
        gate.accept();
    }
    // Later than it would come by itself.
    gate.welcome_in_slot(token, 1_200);
    let lost = std::time::Instant::now();
    gate.accept();
    assert!(lost.elapsed().as_millis() >= 1_200);
}

#[test]
fn it_is_as_short_as_promised() {
    if !has_python("it_is_as_short_as_promised") {
        return;
    }
    let script = include_str!("../../examples/device.py");
    assert!(script.lines().count() <= 70);
}
