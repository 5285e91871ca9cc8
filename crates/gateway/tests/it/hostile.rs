//! What strangers and broken devices send to the device port. Nothing of it concerns a good device.

use std::net::SocketAddr;

use gateway::proto::{CommandId, ErrorCode, FromDevice, PREFACE, ResultStatus};
use socket2::{Domain, Socket, Type};

use crate::leak::sockets_on;
use crate::peer::{BOOT, Heard, Peer, encode, greeting};
use crate::rig::{Rig, until};

/// The beginning of a TLS 1.3 handshake.
const CLIENT_HELLO: &[u8] = b"\x16\x03\x01\x00\xc4\x01\x00\x00\xc0\x03\x03";

fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    assert!(body.len() < 128);
    bytes.extend_from_slice(&[kind, u8::try_from(body.len()).unwrap()]);
    bytes.extend_from_slice(body);
    bytes
}

/// A HELLO with any bytes for an id.
fn hello_of(id: &[u8]) -> Vec<u8> {
    let mut body = vec![0; 5];
    body.extend_from_slice(&BOOT.0);
    body.push(u8::try_from(id.len()).unwrap());
    body.extend_from_slice(id);
    framed(1, &body)
}

/// First words that are refused, with the reason.
pub(crate) fn first_words() -> Vec<(&'static str, Vec<u8>, ErrorCode)> {
    use ErrorCode::{BadDeviceId, BadPreface, BadVersion, Malformed, TooLarge, Unexpected};
    let behind = |bytes: &[u8]| [&PREFACE, bytes].concat();
    let hello = |id: &[u8]| hello_of(id);
    let cut = hello(b"a");
    vec![
        (
            "an HTTP request",
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            BadPreface,
        ),
        ("a TLS handshake", CLIENT_HELLO.to_vec(), BadPreface),
        (
            "noise",
            (0..200_u8).map(|n| n.wrapping_mul(73) ^ 0xa5).collect(),
            BadPreface,
        ),
        ("much noise", vec![0xee; 300_000], BadPreface),
        ("one wrong byte", b"X".to_vec(), BadPreface),
        ("a late wrong byte", b"MSX".to_vec(), BadPreface),
        ("another version", b"MST\x02".to_vec(), BadVersion),
        (
            "4 GiB announced",
            behind(b"\x01\xff\xff\xff\xff\x0f"),
            TooLarge,
        ),
        (
            "16 EiB announced",
            behind(b"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
            TooLarge,
        ),
        ("2 MiB announced", behind(b"\x01\xff\xff\x7f"), TooLarge),
        ("257 bytes announced", behind(b"\x01\x81\x02"), TooLarge),
        ("64 KiB before HELLO", behind(b"\x07\x80\x80\x04"), TooLarge),
        (
            "a length that is too long",
            behind(b"\x01\x96\x00"),
            Malformed,
        ),
        ("a reserved kind", behind(b"\x80\x00"), Malformed),
        ("the last reserved kind", behind(b"\xff\x00"), Malformed),
        ("kind 0", behind(b"\x00\x00"), Unexpected),
        ("an unknown kind", behind(b"\x7f\x00"), Unexpected),
        ("the gateway's own WELCOME", framed(2, &[0; 24]), Unexpected),
        (
            "a beat before HELLO",
            framed(3, &[0, 0, 0, 0, 0, 0, 0]),
            Unexpected,
        ),
        ("a result before HELLO", framed(7, &[0; 17]), Unexpected),
        ("an empty HELLO", framed(1, b""), Malformed),
        (
            "a HELLO that is cut",
            framed(1, &cut[6..cut.len() - 1]),
            Malformed,
        ),
        (
            "a HELLO that lacks its token",
            framed(1, &[&[1][..], &cut[7..]].concat()),
            Malformed,
        ),
        ("an empty id", hello(b""), BadDeviceId),
        ("65 bytes of id", hello(&[b'x'; 65]), BadDeviceId),
        ("an id that is not UTF-8", hello(b"pump-\xff"), BadDeviceId),
        ("an overlong encoding", hello(b"\xc0\xaf"), BadDeviceId),
        ("a control character", hello(b"a\nb"), BadDeviceId),
        ("a zero byte", hello(b"a\0b"), BadDeviceId),
        (
            "a C1 control character",
            hello("a\u{85}".as_bytes()),
            BadDeviceId,
        ),
    ]
}

#[test]
fn first_words_that_are_none_are_refused_and_counted() {
    let rig = Rig::start();
    let before = sockets_on(rig.device_addr);
    for (what, bytes, code) in first_words() {
        let counted = rig.rejections(code.name());
        let mut peer = Peer::connect(rig.device_addr);
        peer.write(&bytes);
        match peer.hear() {
            Some(Heard::Error(there, _)) => assert_eq!(there, code, "{what}"),
            // Input that was never read turns the goodbye into a reset.
            None => assert!(bytes.len() > 100_000, "{what}"),
            other => panic!("{other:?} for {what}"),
        }
        assert_eq!(rig.rejections(code.name()), counted + 1.0, "{what}");
        assert_eq!(peer.hear(), None, "{what}");
    }
    assert_eq!(rig.get("/v1/devices").json()["known"], 0);
    rig.serves();
    until("every descriptor is back", || {
        sockets_on(rig.device_addr) == before
    });
}

#[test]
fn ids_of_1_and_64_bytes_are_welcome() {
    let rig = Rig::start();
    for id in ["x", &*"x".repeat(64), "\u{1f980} #1"] {
        let mut peer = Peer::connect(rig.device_addr);
        peer.write(&hello_of(id.as_bytes()));
        peer.welcome();
    }
}

#[test]
fn a_welcome_device_that_breaks_a_rule_is_refused_too() {
    use ErrorCode::{Malformed, TooLarge, Unexpected};
    let rig = Rig::start();
    let hello = greeting(0, "bad", BOOT, None)[4..].to_vec();
    let mut long_result = vec![7, 0x92, 0x80, 0x04];
    long_result.resize(4 + 65_554, 0);
    for (what, bytes, code) in [
        ("a second HELLO", hello, Unexpected),
        (
            "4 GiB announced",
            b"\x07\xff\xff\xff\xff\x0f".to_vec(),
            Malformed,
        ),
        (
            "65,569 bytes announced",
            b"\x07\xa1\x80\x04".to_vec(),
            TooLarge,
        ),
        ("65,537 bytes of result", long_result, TooLarge),
        (
            "a length that is too long",
            b"\x03\x87\x00".to_vec(),
            Malformed,
        ),
        ("a reserved kind", b"\x80".to_vec(), Malformed),
        (
            "the gateway's own COMMAND",
            b"\x06\x00".to_vec(),
            Unexpected,
        ),
        ("a short beat", b"\x03\x06123456".to_vec(), Malformed),
        ("a long beat", b"\x03\x0812345678".to_vec(), Malformed),
        (
            "a load of 101",
            b"\x03\x07\0\0\0\0\x65\0\0".to_vec(),
            Malformed,
        ),
        (
            "a short result",
            b"\x07\x101234567890123456".to_vec(),
            Malformed,
        ),
        (
            "an unknown status",
            [&b"\x07\x11"[..], &[0; 16], &[4]].concat(),
            Malformed,
        ),
        (
            "an unknown reason",
            b"\x09\x05\x63\0\0\0\0".to_vec(),
            Malformed,
        ),
    ] {
        let counted = rig.rejections(code.name());
        let mut peer = rig.online("bad");
        peer.write(&bytes);
        match peer.hear() {
            Some(Heard::Error(there, text)) => assert_eq!(there, code, "{what}: {text}"),
            other => panic!("{other:?} for {what}"),
        }
        // It is offline at once, not when its connection has come to its end.
        assert_eq!(rig.state("bad"), "offline", "{what}");
        assert_eq!(rig.rejections(code.name()), counted + 1.0, "{what}");
        assert_eq!(peer.hear(), None, "{what}");
    }
    rig.serves();
    until("every descriptor is back", || {
        sockets_on(rig.device_addr) == 0
    });
}

#[test]
fn what_was_said_before_the_mistake_holds() {
    let rig = Rig::start();
    let mut peer = rig.online("a");
    let call = rig.post_later("a", "k", "{}");
    let (id, _) = peer.command();
    let result = FromDevice::Result {
        id,
        status: ResultStatus::Json,
        body: b"1",
    };
    peer.write(&[encode(&result), vec![0xff]].concat());
    call.join().unwrap().done("1");
    peer.rejected(ErrorCode::Malformed);
}

#[test]
fn a_connection_that_never_says_hello_is_closed() {
    let rig = Rig::with(|config| config.devices.hello_timeout_ms = 2_000);
    let mut silent = Peer::connect(rig.device_addr);
    let mut preface_only = Peer::connect(rig.device_addr);
    preface_only.write(&PREFACE);
    // One that comes byte by byte, each one early enough.
    let mut loris = Peer::connect(rig.device_addr);
    let hello = greeting(0, &"x".repeat(64), BOOT, None);
    let mut drip = hello[..hello.len() - 1].iter();
    until("the gateway has enough", || {
        loris.write(drip.next().map_or(&[], std::slice::from_ref));
        rig.rejections("hello-timeout") == 3.0
    });
    for peer in [&mut silent, &mut preface_only, &mut loris] {
        peer.rejected(ErrorCode::HelloTimeout);
    }
    rig.serves();
    until("every descriptor is back", || {
        sockets_on(rig.device_addr) == 0
    });
}

#[test]
fn a_hello_in_pieces_is_welcome_when_it_is_whole() {
    let rig = Rig::start();
    let mut peer = Peer::connect(rig.device_addr);
    for byte in greeting(0, "a", BOOT, None) {
        peer.write(&[byte]);
    }
    peer.welcome();
    // As is one with everything behind it in one piece.
    let mut peer = Peer::connect(rig.device_addr);
    let mut bytes = greeting(0, "b", BOOT, None);
    for stamp_ms in 0..1_000 {
        let beat = gateway::proto::Beat {
            stamp_ms,
            ..Default::default()
        };
        bytes.extend_from_slice(&encode(&FromDevice::Beat(beat)));
    }
    peer.write(&bytes);
    peer.welcome();
    (0..1_000).for_each(|stamp| assert_eq!(peer.hear(), Some(Heard::BeatAck(stamp))));
}

#[test]
fn half_a_connection_leaves_nothing_behind() {
    let rig = Rig::start();
    let hello = greeting(0, "a", BOOT, None);
    for said in [&[][..], &PREFACE[..2], &PREFACE, &hello[..20], &hello] {
        let mut peer = Peer::connect(rig.device_addr);
        peer.write(said);
        peer.finish();
        while peer.hear().is_some() {}
        // A connection that is cut without a FIN.
        let mut peer = Peer::connect(rig.device_addr);
        peer.write(said);
        peer.reset();
    }
    until("every descriptor is back", || {
        sockets_on(rig.device_addr) == 0
    });
    until("the device is offline", || rig.state("a") == "offline");
    until("the shards say so", || {
        rig.metric("mainstay_connections") == 0.0
    });
    rig.serves();
}

#[test]
fn nobody_answers_for_another_device() {
    let rig = Rig::start();
    let mut peer = rig.online("a");
    let mut thief = rig.online("thief");
    let call = rig.post_later("a", "k", "{}");
    let (id, _) = peer.command();
    thief.result(id, ResultStatus::Json, "\"mine\"");
    thief.rejected(ErrorCode::Unexpected);
    assert_eq!(rig.rejections("unexpected"), 1.0);
    peer.result(id, ResultStatus::Json, "1");
    call.join().unwrap().done("1");
    // A made-up id means nothing to the gateway.
    let mut thief = rig.online("thief");
    thief.result(CommandId([7; 16]), ResultStatus::Json, "1");
    assert_eq!(thief.hear(), Some(Heard::ResultAck(CommandId([7; 16]))));
}

/// A connection that takes few bytes before its sender has to wait.
fn narrow(addr: SocketAddr) -> Peer {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(&addr.into()).unwrap();
    let stream: std::net::TcpStream = socket.into();
    stream.set_read_timeout(Some(crate::rig::PATIENCE)).unwrap();
    stream
        .set_write_timeout(Some(crate::rig::PATIENCE))
        .unwrap();
    Peer::over(stream)
}

/// A gateway with a device `slow` that reads nothing, sent as many of these commands as fit.
fn stuffed(payload: &str) -> (Rig, Peer) {
    let rig = Rig::with(|config| {
        config.devices.write_bytes_max = 160_000;
        config.devices.probe_timeout_ms = 100;
        config.commands.per_device_max = 1_000;
    });
    let mut slow = narrow(rig.device_addr);
    slow.greet("slow", BOOT, None);
    slow.welcome();
    let mut key = 0;
    until("its queue is full", || {
        key += 1;
        let request = rig
            .command("slow", &format!("k{key}"), payload)
            .timeout_ms(5);
        let response = request.send(rig.http_addr);
        assert!([429, 504].contains(&response.status), "{}", response.text());
        response.status == 429
    });
    (rig, slow)
}

#[test]
fn a_device_that_does_not_read_does_not_keep_its_id() {
    let payload = format!("\"{}\"", "x".repeat(60_000));
    let (rig, _slow) = stuffed(&payload);
    // The probe does not get through, so the newcomer is welcome, and is sent what is open.
    let mut newcomer = rig.online("slow");
    let (id, there) = newcomer.command();
    assert_eq!(there.len(), payload.len());
    newcomer.result(id, ResultStatus::Json, "1");
    while newcomer.hear() != Some(Heard::ResultAck(id)) {}
    assert_eq!(rig.rejections("in-use"), 0.0);
}

#[test]
fn a_device_that_does_not_read_is_cut_off() {
    // Commands are sent until they do not fit any more; the next ones are refused.
    let payload = format!("\"{}\"", "x".repeat(60_000));
    let (rig, mut slow) = stuffed(&payload);
    rig.serves();
    assert_eq!(
        (rig.state("slow"), rig.rejections("slow-reader")),
        ("online".into(), 0.0)
    );
    // It still beats, and every answer waits for it too, until there is no room.
    let beats = encode(&FromDevice::Beat(gateway::proto::Beat::default())).repeat(1_000);
    until("it is cut off", || {
        slow.write(&beats);
        rig.state("slow") == "offline"
    });
    assert_eq!(rig.rejections("slow-reader"), 1.0);
    drop(slow);
    until("every descriptor is back", || {
        sockets_on(rig.device_addr) == 0
    });
    rig.serves();
    // What it was sent it may have done, so it is sent that again, and it answers now.
    let mut healed = rig.online("slow");
    let (id, there) = healed.command();
    assert_eq!(there.len(), payload.len());
    healed.result(id, ResultStatus::Json, "1");
}
