//! Who may ask, how slowly, and how many at once.

use std::io::Write;

use crate::http::{Request, Response, connect};
use crate::rig::{Rig, until};

#[test]
fn only_known_names_are_served() {
    let rig = Rig::with(|config| config.hosts = vec!["Gateway.Example".into()]);
    let port = rig.http_addr.port();
    let ask = |host: &str, path: &str| {
        Request::get(path)
            .without("Host")
            .header("Host", host)
            .send(rig.http_addr)
    };
    for host in [
        "localhost",
        "LocalHost:80",
        &format!("127.0.0.1:{port}"),
        "127.1.2.3",
        "[::1]",
        "[::1]:7480",
        "gateway.example",
        "GATEWAY.EXAMPLE:1",
    ] {
        assert_eq!(ask(host, "/healthz").status, 200, "{host}");
    }
    for host in [
        "",
        "evil.example",
        &format!("evil.example:{port}"),
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "10.0.0.1",
        "[::2]",
        "0.0.0.0",
    ] {
        for path in [
            "/healthz",
            "/",
            "/metrics",
            "/v1/devices",
            "/v1/events",
            "/nothing",
        ] {
            ask(host, path).problem(403, "host-not-allowed");
        }
    }
    Request::get("/healthz")
        .without("Host")
        .send(rig.http_addr)
        .problem(403, "host-not-allowed");
    // A command of a foreign page claims nothing and reaches nobody.
    let mut peer = rig.online("a");
    let evil = rig
        .command("a", "k", "{}")
        .without("Host")
        .header("Host", "evil.example");
    evil.send(rig.http_addr).problem(403, "host-not-allowed");
    peer.hears_nothing();
}

#[test]
fn a_head_that_does_not_arrive_is_not_awaited() {
    let rig = Rig::with(|config| config.http_limits.read_timeout_ms = 1_500);
    // One that says nothing, one that stops in the middle, one that keeps a connection open.
    for start in [
        "",
        "GET /healthz HTTP/1.1\r\nHost: local",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        let mut stream = connect(rig.http_addr);
        stream.write_all(start.as_bytes()).unwrap();
        let mut answer = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut answer).unwrap();
        assert!(!answer.starts_with(b"HTTP/1.1 200") || start.ends_with("\r\n\r\n"));
    }
    // Byte by byte, each one well within the limit.
    let mut stream = connect(rig.http_addr);
    let mut drip = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: "
        .iter()
        .chain(std::iter::repeat(&b'x'));
    until("the server hangs up", || {
        stream.write_all(&[*drip.next().unwrap()]).is_err()
    });
    assert_eq!(rig.get("/healthz").status, 200);
}

#[test]
fn a_body_that_does_not_arrive_is_not_awaited() {
    let rig = Rig::with(|config| config.http_limits.read_timeout_ms = 1_500);
    let mut peer = rig.online("a");
    for body in [
        "Content-Length: 100\r\n\r\n{",
        "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    ] {
        let mut stream = connect(rig.http_addr);
        let head =
            "POST /v1/devices/a/commands HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: k\r\n";
        stream
            .write_all(format!("{head}{body}").as_bytes())
            .unwrap();
        Response::read(&mut stream).problem(408, "request-timeout");
    }
    peer.hears_nothing();
    let call = rig.post_later("a", "k", "[1]");
    peer.answer("1");
    call.join().unwrap().done("1");
}

#[test]
fn clients_beyond_the_limit_wait_for_a_place() {
    let rig = Rig::with(|config| config.http_limits.connections_max = 1);
    let mut first = connect(rig.http_addr);
    first
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    until("it has the place", || {
        first.peek(&mut [0]).is_ok_and(|n| n > 0)
    });
    let mut second = Request::get("/healthz").start(rig.http_addr);
    second.set_nonblocking(true).unwrap();
    assert!(second.peek(&mut [0]).is_err(), "nobody has answered");
    drop(first);
    second.set_nonblocking(false).unwrap();
    assert_eq!(Response::read(&mut second).status, 200);
}
