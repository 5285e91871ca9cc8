//! The device library: every command once, across broken connections, panics and restarts.

use std::path::Path;
use std::sync::mpsc;

use gateway::device::{Answer, Device, Fleet, FleetConfig};
use gateway::proto::{
    BootId, CommandId, ErrorCode, Forms, GoAway, GoAwayReason, ResultStatus, SessionToken, ToDevice,
};

use crate::gate::{Gate, Said};
use crate::rig::{PATIENCE, Rig, until};

const TOKEN: SessionToken = SessionToken([0xf0; 16]);
const LONG_MS: u32 = 3_600_000;

/// A device that answers with the number of commands that it has executed.
fn counting(gate: &Gate, journal: Option<&Path>) -> Device {
    let mut builder = Device::builder(gate.addr(), "counting").reconnect_cap_ms(20);
    if let Some(path) = journal {
        builder = builder.journal(path);
    }
    let mut executed = 0;
    let execute = move |_: &gateway::device::Command| {
        executed += 1;
        Answer::json(executed.to_string())
    };
    builder.start(execute).unwrap()
}

fn boot_of(hello: &Said) -> (BootId, Option<SessionToken>) {
    match hello {
        Said::Hello {
            device,
            boot,
            resume,
        } => {
            assert_eq!(device, "counting");
            (*boot, *resume)
        }
        other => panic!("{other:?} instead of HELLO"),
    }
}

#[test]
fn a_command_that_comes_again_is_answered_again_and_not_executed() {
    let mut gate = Gate::open();
    let device = counting(&gate, None);
    let (boot, resume) = boot_of(&gate.accept());
    assert_eq!(resume, None);
    gate.welcome(TOKEN, LONG_MS);
    let id = CommandId([1; 16]);
    let result = (id, ResultStatus::Json, b"1".to_vec());
    for _ in 0..3 {
        gate.command(id, "{}");
        assert_eq!(gate.result(), result);
    }
    // The next session is the same memory, with the token of the last one.
    assert_eq!(boot_of(&gate.accept()), (boot, Some(TOKEN)));
    gate.welcome(TOKEN, LONG_MS);
    assert_eq!(
        gate.result(),
        result,
        "repeated by itself, for it was not acknowledged"
    );
    gate.say(&ToDevice::ResultAck { id });
    // What was acknowledged is forgotten: nothing is repeated any more.
    boot_of(&gate.accept());
    gate.welcome(TOKEN, LONG_MS);
    gate.command(CommandId([2; 16]), "{}");
    assert_eq!(
        gate.result(),
        (CommandId([2; 16]), ResultStatus::Json, b"2".to_vec())
    );
    device.stop().unwrap();
    while gate.hear().is_some_and(|said| said != Said::GoAway) {}
}

/// Answers the next `beats` beats; the interval that the last of them said or left standing.
fn answer_beats(gate: &mut Gate, beats: usize) -> Option<u32> {
    for _ in 0..beats {
        match gate.hear() {
            Some(Said::Beat(beat)) => gate.say(&ToDevice::BeatAck(beat.ack())),
            other => panic!("{other:?} instead of a beat"),
        }
    }
    gate.interval_ms
}

#[test]
fn an_adaptive_interval_grows_while_beats_are_answered_and_shrinks_after_a_loss() {
    let mut gate = Gate::open();
    let device = Device::builder(gate.addr(), "adaptive")
        .adaptive_interval_ms(4, 4_000)
        .reconnect_cap_ms(20)
        .start(|_| Answer::json("1"))
        .unwrap();
    gate.accept();
    // The gateway wants a beat every 32 ms, less than the device would come to by itself.
    gate.welcome_with(Forms::DELTA, TOKEN, 32);
    assert_eq!(answer_beats(&mut gate, 1), Some(4), "the first is a resync");
    until("it has grown as far as it may", || {
        answer_beats(&mut gate, 1) == Some(32)
    });
    // A beat that is not answered before the connection ends was lost. A slow machine lets more than one be sent by then,
    // and each halves the interval.
    assert!(matches!(gate.hear(), Some(Said::Beat(_))));
    gate.accept();
    gate.welcome_with(Forms::DELTA, TOKEN, 32);
    let shrunk = answer_beats(&mut gate, 1);
    assert!(matches!(shrunk, Some(4 | 8 | 16)), "{shrunk:?}");
    // Nothing was lost on the way to a gateway that says goodbye.
    assert!(matches!(gate.hear(), Some(Said::Beat(_))));
    gate.say(&ToDevice::GoAway(GoAway {
        reason: GoAwayReason::Draining,
        retry_within_ms: 1,
    }));
    gate.accept();
    gate.welcome_with(Forms::DELTA, TOKEN, 32);
    assert_eq!(answer_beats(&mut gate, 1), shrunk);
    // One that wants more beats than that gets them.
    gate.accept();
    gate.welcome_with(Forms::DELTA, TOKEN, 8);
    assert_eq!(answer_beats(&mut gate, 1), Some(4));
    drop(gate);
    device.stop().unwrap();
}

#[test]
fn results_are_repeated_now_and_then() {
    let mut gate = Gate::open();
    let device = counting(&gate, None);
    gate.accept();
    gate.welcome(TOKEN, 20);
    gate.command(CommandId([1; 16]), "{}");
    let first = gate.result();
    assert_eq!((gate.result(), gate.result()), (first.clone(), first));
    device.stop().unwrap();
}

#[test]
fn a_journal_is_a_memory_that_survives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("counting.journal");
    let mut gate = Gate::open();
    let device = counting(&gate, Some(&path));
    let (boot, _) = boot_of(&gate.accept());
    gate.welcome(TOKEN, LONG_MS);
    let id = CommandId([1; 16]);
    gate.command(id, "{}");
    let result = gate.result();
    // One process at a time.
    let second = Device::builder(gate.addr(), "counting")
        .journal(&path)
        .start(|_| Answer::json("0"));
    assert_eq!(second.err().unwrap().kind(), std::io::ErrorKind::WouldBlock);
    device.stop().unwrap();

    let device = counting(&gate, Some(&path));
    assert_eq!(boot_of(&gate.accept()), (boot, None));
    gate.welcome(TOKEN, LONG_MS);
    assert_eq!(gate.result(), result);
    gate.command(id, "{}");
    assert_eq!(gate.result(), result);
    device.stop().unwrap();

    // Without it the next life has another boot id.
    let device = counting(&gate, None);
    assert_ne!(boot_of(&gate.accept()).0, boot);
    device.stop().unwrap();
}

#[test]
fn a_device_that_is_replaced_ends() {
    let mut gate = Gate::open();
    let device = counting(&gate, None);
    gate.accept();
    gate.welcome(TOKEN, LONG_MS);
    let reason = GoAwayReason::Replaced;
    gate.say(&ToDevice::GoAway(GoAway {
        reason,
        retry_within_ms: 0,
    }));
    assert!(
        device
            .join()
            .unwrap_err()
            .to_string()
            .contains("took the device's id over")
    );

    let device = counting(&gate, None);
    gate.accept();
    gate.say(&ToDevice::Error {
        code: ErrorCode::BadVersion,
        text: "too old",
    });
    assert!(device.join().unwrap_err().to_string().contains("too old"));
}

#[test]
fn a_device_without_a_gateway_or_with_a_strange_one_tries_again() {
    let mut gate = Gate::open();
    let device = counting(&gate, None);
    gate.accept();
    let reason = GoAwayReason::Draining;
    gate.say(&ToDevice::GoAway(GoAway {
        reason,
        retry_within_ms: 1,
    }));
    gate.accept();
    gate.say(&ToDevice::Command {
        id: CommandId([1; 16]),
        timeout_ms: 1,
        payload: &[0; 65_537],
    });
    gate.accept();
    assert!(!device.is_online());
    gate.welcome(TOKEN, LONG_MS);
    until("it is online", || device.is_online());
    device.stop().unwrap();
}

#[test]
fn a_panic_or_an_answer_without_room_is_in_doubt() {
    let rig = Rig::start();
    let device = Device::builder(rig.device_addr, "a")
        .start(|command| match command.payload.as_slice() {
            b"1" => panic!("a test's command panics"),
            b"2" => Answer::json(format!("\"{}\"", "x".repeat(65_535))),
            b"3" => Answer::opaque(vec![0; 3 << 20]),
            b"4" => Answer::json(format!("\"{}\"", "x".repeat(65_534))),
            _ => Answer::json("5"),
        })
        .unwrap();
    until("it is online", || device.is_online());
    for doubtful in ["1", "2", "3"] {
        rig.post("a", doubtful, doubtful).problem(409, "in-doubt");
    }
    assert_eq!(rig.post("a", "4", "4").body.len(), 65_536);
    rig.post("a", "5", "5").done("5");
    device.stop().unwrap();
}

#[test]
fn a_stopped_device_finishes_what_it_does() {
    let rig = Rig::start();
    let (started, starts) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let device = Device::builder(rig.device_addr, "a")
        .start(move |_| {
            started.send(()).unwrap();
            wait.recv_timeout(PATIENCE).unwrap();
            Answer::json("1")
        })
        .unwrap();
    until("it is online", || device.is_online());
    let call = rig.post_later("a", "k", "{}");
    starts.recv().unwrap();
    let stopping = std::thread::spawn(move || device.stop());
    go.send(()).unwrap();
    stopping.join().unwrap().unwrap();
    call.join().unwrap().done("1");
    until("it has said goodbye", || rig.state("a") == "offline");
}

#[test]
fn ids_are_checked_before_anything_starts() {
    let addr = "127.0.0.1:1".parse().unwrap();
    for id in ["", "a\nb", &"x".repeat(65)] {
        let error = Device::builder(addr, id)
            .start(|_| Answer::json("1"))
            .err()
            .unwrap();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{id:?}");
    }
}

#[test]
fn a_fleet_connects_beats_and_answers() {
    let rig = Rig::start();
    let mut config = FleetConfig::new(rig.device_addr, 50);
    config.interval_ms = 50;
    config.shards = 2;
    let fleet = Fleet::start(config).unwrap();
    until("all are online", || fleet.report().connected == 50);
    until("they beat", || fleet.report().beats > 100);
    rig.post("dev-00049", "k", r#"{"a":[1]}"#)
        .done(r#"{"device":"dev-00049","payload":{"a":[1]}}"#);
    rig.post("dev-00049", "k", r#"{"a":[1]}"#)
        .replay_of(r#"{"device":"dev-00049","payload":{"a":[1]}}"#);
    let report = fleet.stop().unwrap();
    assert_eq!(
        (report.connected_max, report.lost, report.false_gone),
        (50, 0, 0)
    );
    assert_eq!((report.commands_received, report.commands_executed), (1, 1));
    assert!(report.beat_rtt_ms.unwrap().max > 0.0);
    until("all said goodbye", || {
        rig.get("/v1/devices").json()["total"] == 0
    });
}
