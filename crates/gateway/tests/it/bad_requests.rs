//! Requests that are refused: each with its problem, none with a claim.

use crate::http::{Request, Response};
use crate::rig::Rig;

const PATH: &str = "/v1/devices/a/commands";

/// The key `k` of device `a` is free: a payload that nobody sent before runs under it.
#[track_caller]
fn claimed_nothing(rig: &Rig) {
    let mut peer = rig.online("a");
    let call = rig.post_later("a", "k", r#"{"another":"payload"}"#);
    peer.answer("1");
    call.join().unwrap().done("1");
}

fn post(rig: &Rig, change: impl FnOnce(Request) -> Request) -> Response {
    change(Request::post(PATH)).send(rig.http_addr)
}

#[test]
fn a_command_has_one_usable_key() {
    let rig = Rig::start();
    rig.known("a");
    post(&rig, |r| r.body("{}")).problem(400, "idempotency-key-missing");
    let long = "x".repeat(256);
    for bad in [
        "",
        "\"\"",
        "two words",
        "\"open",
        "\"a\"b",
        r#""\x""#,
        "k\u{e4}",
        &long,
    ] {
        let response = post(&rig, |r| r.header("Idempotency-Key", bad).body("{}"));
        response.problem(400, "idempotency-key-invalid");
    }
    let twice = |r: Request| {
        r.header("Idempotency-Key", "k")
            .header("Idempotency-Key", "k")
    };
    post(&rig, |r| twice(r).body("{}")).problem(400, "idempotency-key-invalid");
    claimed_nothing(&rig);
}

#[test]
fn keys_are_as_long_as_255_characters() {
    let rig = Rig::start();
    let mut peer = rig.online("a");
    let key = "~".repeat(255);
    let call = rig.post_later("a", &key, "{}");
    peer.answer("1");
    call.join().unwrap().done("1");
    rig.post("a", &format!("\"{key}\""), "{}").replay_of("1");
}

#[test]
fn a_payload_is_json() {
    let rig = Rig::start();
    rig.known("a");
    let not_json = |payload: &str| {
        let problem = rig.post("a", "k", payload).problem(400, "not-json");
        (
            problem["line"].as_u64().unwrap(),
            problem["column"].as_u64().unwrap(),
        )
    };
    assert_eq!(not_json("{\"a\":1,\n  \"b\":x}"), (2, 7));
    assert_eq!(not_json(""), (1, 1));
    assert_eq!(not_json("{} {}"), (1, 4));
    assert_eq!(not_json("NaN"), (1, 1));
    not_json(r#"{"a":1,"a":2}"#);
    not_json(&"[".repeat(10_000));
    let response = post(&rig, |r| r.header("Idempotency-Key", "k").body(b"\"\xff\""));
    response.problem(400, "not-json");
    claimed_nothing(&rig);
}

#[test]
fn a_deadline_is_a_number_within_its_limits() {
    let rig = Rig::start();
    rig.known("a");
    for bad in [
        "0",
        "-1",
        "1.5",
        "soon",
        "",
        "3600001",
        "99999999999999999999",
    ] {
        let request = rig
            .command("a", "k", "{}")
            .header("Mainstay-Timeout-Ms", bad);
        request.send(rig.http_addr).problem(400, "timeout-invalid");
    }
    // Of two nobody can tell which one is meant, even when both say the same.
    for second in ["1000", "2000"] {
        let request = rig
            .command("a", "k", "{}")
            .header("Mainstay-Timeout-Ms", "1000")
            .header("Mainstay-Timeout-Ms", second);
        request.send(rig.http_addr).problem(400, "timeout-invalid");
    }
    claimed_nothing(&rig);
}

#[test]
fn a_device_that_never_came_is_not_found() {
    let rig = Rig::start();
    for (path, id) in [
        ("a", "a"),
        ("%00", "\u{0}"),
        (&*"x".repeat(65), &"x".repeat(65)),
    ] {
        let problem = rig.post(path, "k", "{}").problem(404, "unknown-device");
        assert!(
            problem["detail"]
                .as_str()
                .unwrap()
                .contains(&format!("{id:?}")),
            "{problem}"
        );
        rig.get(&format!("/v1/devices/{path}"))
            .problem(404, "unknown-device");
    }
    rig.post("%ff", "k", "{}").problem(400, "path-invalid");
    rig.get("/v1/devices/%ff").problem(400, "path-invalid");
    claimed_nothing(&rig);
}

#[test]
fn a_payload_has_at_most_64_kib() {
    let rig = Rig::start();
    rig.known("a");
    let payload = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    let command = |key: &str, bytes| rig.command("a", key, &payload(bytes));
    command("k", 65_537)
        .send(rig.http_addr)
        .problem(413, "payload-too-large");
    command("k", 65_537)
        .chunked()
        .send(rig.http_addr)
        .problem(413, "payload-too-large");
    command("k", 1 << 20)
        .chunked()
        .send(rig.http_addr)
        .problem(413, "payload-too-large");
    claimed_nothing(&rig);

    let mut peer = rig.online("a");
    for (key, request) in [
        ("l", command("l", 65_536)),
        ("c", command("c", 65_536).chunked()),
    ] {
        let addr = rig.http_addr;
        let call = std::thread::spawn(move || request.send(addr));
        let (id, there) = peer.command();
        assert_eq!(there.len(), 65_536);
        // An answer may be as large.
        let answer = payload(65_536);
        peer.result(id, gateway::proto::ResultStatus::Json, &answer);
        call.join().unwrap().done(&answer);
        assert_eq!(
            peer.hear(),
            Some(crate::peer::Heard::ResultAck(id)),
            "{key}"
        );
    }
}

#[test]
fn an_announced_length_is_refused_before_it_is_sent() {
    let rig = Rig::start();
    rig.known("a");
    let mut stream = crate::http::connect(rig.http_addr);
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: k\r\nContent-Length: 4294967296\r\n\r\n"
    );
    std::io::Write::write_all(&mut stream, head.as_bytes()).unwrap();
    Response::read(&mut stream).problem(413, "payload-too-large");
}

#[test]
fn other_pages_and_methods_are_problems_too() {
    let rig = Rig::start();
    rig.get("/v1/nothing").problem(404, "no-such-page");
    rig.get(PATH).problem(405, "method-not-allowed");
    Request::post("/v1/devices")
        .send(rig.http_addr)
        .problem(405, "method-not-allowed");
    for bad in ["limit=0", "limit=1001", "limit=x", "limit=-1"] {
        rig.get(&format!("/v1/devices?{bad}"))
            .problem(400, "query-invalid");
    }
}
