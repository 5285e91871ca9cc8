//! Breakers in front of commands, one for each group of devices.

use std::collections::HashSet;

use gateway::proto::ResultStatus;

use crate::http::Response;
use crate::peer::Heard;
use crate::rig::{Rig, until};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A breaker that opens when two commands in a row are not answered.
fn rig(open_ms: u64) -> Rig {
    Rig::with(|config| {
        config.breaker.separator = Some('-');
        config.breaker.calls = 2;
        (config.breaker.open_ms, config.breaker.open_ms_max) = (open_ms, open_ms);
        (config.breaker.probes, config.breaker.successes) = (1, 1);
    })
}

/// A command that its device does not answer in time.
fn fail(rig: &Rig, device: &str, key: &str) -> Response {
    rig.command(device, key, "{}")
        .timeout_ms(20)
        .header("traceparent", TRACE)
        .send(rig.http_addr)
}

/// Opens the breaker of `a`, whose device is `a-1`.
fn open(rig: &Rig) {
    for key in ["k1", "k2"] {
        assert_eq!(fail(rig, "a-1", key).status, 504);
    }
}

fn state(rig: &Rig, group: &str) -> String {
    let groups = rig.get("/v1/groups").json();
    let groups = groups["groups"].as_array().unwrap().clone();
    let found = groups.iter().find(|it| it["group"] == group);
    found.map_or_else(String::new, |it| it["state"].as_str().unwrap().to_owned())
}

#[test]
fn an_open_breaker_refuses_a_groups_commands_and_nobody_elses() {
    let rig = rig(3_600_000);
    let mut silent = rig.online("a-1");
    let mut sibling = rig.online("a-2");
    let mut other = rig.online("b-1");
    // What is stored is answered whatever the breaker says.
    let call = rig.post_later("a-2", "stored", "7");
    sibling.answer("7");
    call.join().unwrap().done("7");
    assert_eq!(state(&rig, "a"), "closed");
    // Of the last two commands one was answered: half of them failed.
    assert_eq!(fail(&rig, "a-1", "k1").status, 504);
    assert_eq!(state(&rig, "a"), "open");

    for device in ["a-1", "a-2"] {
        let refused = rig.post(device, "new", "{}");
        refused.problem(503, "breaker-open");
        let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((3_500..=3_600).contains(&seconds), "{seconds}");
    }
    rig.post("a-2", "stored", "7").replay_of("7");
    rig.post("a-2", "stored", "8").problem(422, "key-reused");
    sibling.hears_nothing();
    let call = rig.post_later("b-1", "k", "{}");
    other.answer("1");
    call.join().unwrap().done("1");

    assert_eq!(rig.outcomes("breaker-open"), 2.0);
    let metric = |name: &str| rig.metric(&format!("mainstay_breaker_{name}"));
    assert_eq!(metric("state{group=\"a\"}"), 2.0);
    assert_eq!(metric("state{group=\"b\"}"), 0.0);
    assert_eq!(metric("changes_total{group=\"a\",to=\"open\"}"), 1.0);
    assert_eq!(metric("refused_total{group=\"a\"}"), 2.0);
    let groups = rig.get("/v1/groups").json();
    let expected = serde_json::json!({
        "group": "a", "state": "open", "calls": 0, "failures": 0, "refused": 2, "opened": 1
    });
    assert_eq!(groups["groups"][0], expected);
    // The command that opened it may be answered late.
    let (id, _) = silent.command();
    silent.result(id, ResultStatus::Json, "1");
    until("it is stored", || rig.post("a-1", "k1", "{}").status == 200);
    rig.post("a-1", "k1", "{}").replay_of("1");
}

#[test]
fn a_refused_key_runs_once_when_the_group_answers_again() {
    let rig = rig(1_000);
    let mut device = rig.online("a-1");
    open(&rig);
    rig.post("a-1", "again", "{}").problem(503, "breaker-open");
    let answering = std::thread::spawn(move || {
        let (mut ids, mut stored) = (HashSet::new(), 0);
        while stored < 3 {
            match device.hear() {
                Some(Heard::Command { id, .. }) => {
                    assert!(ids.insert(id), "sent twice");
                    device.result(id, ResultStatus::Json, "1");
                }
                Some(Heard::ResultAck(_)) => stored += 1,
                other => panic!("{other:?}"),
            }
        }
        device.hears_nothing();
    });
    // The probe; before that it is refused, and nothing is stored for it.
    let mut answer = rig.post("a-1", "again", "{}");
    until("the breaker lets it through", || {
        if answer.status == 503 {
            answer.problem(503, "breaker-open");
            answer = rig.post("a-1", "again", "{}");
        }
        answer.status != 503
    });
    answer.done("1");
    assert_eq!(state(&rig, "a"), "closed");
    rig.post("a-1", "again", "{}").replay_of("1");
    answering.join().unwrap();
    let changes = |to| {
        rig.metric(&format!(
            "mainstay_breaker_changes_total{{group=\"a\",to=\"{to}\"}}"
        ))
    };
    assert_eq!(["open", "half-open", "closed"].map(changes), [1.0; 3]);
}

#[test]
fn the_state_of_a_breaker_is_the_one_that_was_counted_last() {
    let rig = rig(1);
    let mut device = rig.online("a-1");
    open(&rig);
    // Its time has passed, and nobody has asked since.
    std::thread::sleep(std::time::Duration::from_millis(5));
    let metric = |name: &str| rig.metric(&format!("mainstay_breaker_{name}"));
    let half_open = "changes_total{group=\"a\",to=\"half-open\"}";
    assert_eq!(
        (metric("state{group=\"a\"}"), metric(half_open)),
        (2.0, 0.0)
    );
    assert_eq!(state(&rig, "a"), "open");
    let call = rig.post_later("a-1", "probe", "7");
    let id = loop {
        // Those that opened it may come first.
        let (id, payload) = device.command();
        if payload == b"7" {
            break id;
        }
    };
    assert_eq!(
        (metric("state{group=\"a\"}"), metric(half_open)),
        (1.0, 1.0)
    );
    device.result(id, ResultStatus::Json, "1");
    call.join().unwrap().done("1");
    assert_eq!(metric("state{group=\"a\"}"), 0.0);
    assert_eq!(metric("changes_total{group=\"a\",to=\"closed\"}"), 1.0);
}

#[test]
fn without_groups_there_is_no_breaker() {
    let rig = Rig::start();
    let _silent = rig.online("a-1");
    for n in 0..20 {
        assert_eq!(fail(&rig, "a-1", &format!("k{n}")).status, 504);
    }
    assert_eq!(
        rig.get("/v1/groups").json()["groups"],
        serde_json::json!([])
    );
    assert!(!rig.get("/metrics").text().contains("mainstay_breaker"));
}
