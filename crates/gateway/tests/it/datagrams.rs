//! Beats in datagrams over real sockets: heard, forged, lost, doubled, overtaken, from elsewhere, and after a restart.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use gateway::device::{Answer, Device, Fleet, FleetConfig};
use gateway::proto::{
    Beat, DATAGRAM_ACK_BYTES, DATAGRAM_BYTES, ErrorCode, Forms, GoAwayReason, SessionToken,
    datagram_key,
};
use heartbeat_codec::datagram::Sender;

use crate::http::Request;
use crate::peer::{BOOT, Peer, greeting_with};
use crate::rig::{PATIENCE, Rig, until};

const OFFER: Forms = Forms::DATAGRAM;
const PORT_0: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

fn rig(change: impl FnOnce(&mut gateway::server::Config)) -> Rig {
    Rig::with(|config| {
        config.udp = Some(PORT_0.into());
        // Nobody beats too often who waits so long between two beats, unless a test is about it.
        config.devices.interval_ms_min = 1;
        change(config);
    })
}

/// A device with a session over TCP and a socket for datagrams.
struct Beater {
    peer: Peer,
    token: SessionToken,
    sender: Sender,
    socket: UdpSocket,
    gateway: SocketAddr,
}

impl Beater {
    fn connect(rig: &Rig, id: &str, interval_ms: u32, resume: Option<SessionToken>) -> Self {
        let mut peer = Peer::connect(rig.device_addr);
        peer.write(&greeting_with(OFFER, interval_ms, id, BOOT, resume));
        let welcome = peer.welcome();
        assert!(welcome.forms.contains(Forms::DATAGRAM));
        let door = welcome.datagrams.unwrap();
        let gateway = rig.udp_addr.unwrap();
        assert_eq!(door.port, gateway.port());
        Self {
            peer,
            token: welcome.session,
            sender: Sender::new(door.peer, datagram_key(&welcome.session)),
            socket: socket(),
            gateway,
        }
    }

    fn seal(&mut self, load_percent: u8) -> [u8; DATAGRAM_BYTES] {
        let beat = Beat {
            stamp_ms: 4_711,
            load_percent: Some(load_percent),
            rtt_ms: Some(9),
        };
        self.sender.seal(&beat).unwrap()
    }

    fn send(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.gateway).unwrap();
    }

    /// Beats and hears the ack.
    fn beat(&mut self, load_percent: u8) {
        let datagram = self.seal(load_percent);
        self.send(&datagram);
        self.acknowledged();
    }

    fn acknowledged(&self) {
        let mut buffer = [0; 64];
        let bytes = self.socket.recv(&mut buffer).unwrap();
        let ack = self.sender.open_ack(&buffer[..bytes]).unwrap();
        assert_eq!(ack.stamp_ms, 4_711);
    }
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind(SocketAddr::from(PORT_0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn refused(rig: &Rig, reason: &str) -> f64 {
    rig.metric(&format!(
        "mainstay_datagrams_refused_total{{reason=\"{reason}\"}}"
    ))
}

#[test]
fn a_device_that_beats_in_datagrams_only_stays_online_and_is_gone_without() {
    let rig = rig(|config| config.devices.grace_ms = 2_500);
    let mut device = Beater::connect(&rig, "a", 500, None);
    assert_eq!(rig.metric("mainstay_datagram_sessions"), 1.0);
    let enough = Instant::now() + Duration::from_millis(3_500);
    let mut beats = 0;
    while Instant::now() < enough {
        device.beat(42);
        beats += 1;
        std::thread::sleep(Duration::from_millis(50));
    }
    let view = rig.device("a");
    assert_eq!(
        (&view["state"], &view["load_percent"], &view["rtt_ms"]),
        (&"online".into(), &42.into(), &9.into())
    );
    assert_eq!(
        rig.metric("mainstay_datagram_beats_total"),
        f64::from(beats)
    );
    assert_eq!(rig.metric("mainstay_beats_total"), f64::from(beats));
    device.peer.sent_away(GoAwayReason::Gone);
    assert_eq!(rig.state("a"), "gone");
    let late = device.seal(99);
    device.send(&late);
    until("its number is nobody's", || refused(&rig, "unknown") == 1.0);
    assert_eq!(rig.metric("mainstay_datagram_sessions"), 0.0);
}

#[test]
fn what_is_not_authentic_and_new_changes_nothing() {
    let rig = rig(|_| {});
    let mut device = Beater::connect(&rig, "a", 0, None);
    let mut other = Beater::connect(&rig, "b", 0, None);
    device.beat(10);
    let again = device.seal(20);
    device.send(&again);
    device.acknowledged();
    device.send(&again);
    let mut forged = device.seal(30);
    forged[DATAGRAM_BYTES - 1] ^= 1;
    device.send(&forged);
    // Under the key of another, with this one's number.
    let mut foreign = other.seal(40);
    foreign[1..5].copy_from_slice(&again[1..5]);
    device.send(&foreign);
    for garbage in [
        &b""[..],
        b"hello",
        &[0xb1; 1_400],
        &again[..DATAGRAM_BYTES - 1],
    ] {
        device.send(garbage);
    }
    let mut nobody = again;
    nobody[1..5].copy_from_slice(&[0xff; 4]);
    device.send(&nobody);
    until("all are counted", || {
        ["replayed", "forged", "malformed", "unknown"].map(|reason| refused(&rig, reason))
            == [1.0, 2.0, 4.0, 1.0]
    });
    assert_eq!(rig.device("a")["load_percent"], 20);
    assert_eq!(rig.metric("mainstay_datagram_beats_total"), 2.0);
    assert_eq!(rig.device("b")["load_percent"], serde_json::Value::Null);
    other.beat(50);
    rig.serves();
}

/// A way that loses, doubles and reorders, and on which the device's address changes with every datagram.
#[test]
fn a_bad_way_loses_beats_and_nothing_else() {
    let rig = rig(|_| {});
    let mut device = Beater::connect(&rig, "a", 0, None);
    let (mut held, mut arrivals) = (None, Vec::new());
    for n in 0..200_u32 {
        let datagram = device.seal((n % 100) as u8);
        match n % 8 {
            1 | 6 => {}
            3 => arrivals.extend([datagram, datagram]),
            4 => held = Some(datagram),
            5 => arrivals.extend([datagram].into_iter().chain(held.take())),
            _ => arrivals.push(datagram),
        }
    }
    let mut seen = HashSet::new();
    for datagram in arrivals {
        std::thread::sleep(Duration::from_millis(1));
        let elsewhere = socket();
        elsewhere.send_to(&datagram, device.gateway).unwrap();
        if seen.insert(datagram) {
            let mut buffer = [0; 64];
            let bytes = elsewhere.recv(&mut buffer).unwrap();
            assert_eq!(bytes, DATAGRAM_ACK_BYTES);
            device.sender.open_ack(&buffer[..bytes]).unwrap();
        }
    }
    until("the doubles are counted", || {
        refused(&rig, "replayed") == 25.0
    });
    // Of 8: two lost, one doubled, one overtaken.
    assert_eq!(rig.metric("mainstay_datagram_beats_total"), 125.0);
    assert_eq!(rig.metric("mainstay_datagrams_late_total"), 25.0);
    assert_eq!(rig.device("a")["load_percent"], 99);
}

#[test]
fn a_restarted_gateway_knows_no_old_keys() {
    let rig = rig(|_| {});
    let mut device = Beater::connect(&rig, "a", 0, None);
    device.beat(1);
    let addr = rig.udp_addr;
    let rig = rig.restart_with(|config| config.udp = addr);
    let late = device.seal(99);
    device.send(&late);
    until("the number is nobody's", || refused(&rig, "unknown") == 1.0);
    let mut again = Beater::connect(&rig, "a", 0, Some(device.token));
    assert_ne!(again.token, device.token);
    again.beat(2);
    // The old key with the new session's number.
    let mut old = device.seal(3);
    old[1..5].copy_from_slice(&again.seal(4)[1..5]);
    device.send(&old);
    until("the key is another", || refused(&rig, "forged") == 1.0);
    assert_eq!(rig.device("a")["load_percent"], 2);
}

#[test]
fn a_session_that_was_taken_over_beats_no_more() {
    let rig = rig(|_| {});
    let mut first = Beater::connect(&rig, "a", 0, None);
    first.beat(1);
    let mut second = Beater::connect(&rig, "a", 0, Some(first.token));
    first.peer.sent_away(GoAwayReason::Replaced);
    let late = first.seal(99);
    first.send(&late);
    until("it is refused", || {
        refused(&rig, "unknown") + refused(&rig, "session-over") + refused(&rig, "forged") == 1.0
    });
    second.beat(2);
    assert_eq!(rig.device("a")["load_percent"], 2);
}

#[test]
fn a_device_that_beats_without_end_is_heard_as_often_as_it_may() {
    let rig = rig(|config| config.devices.interval_ms_min = 3_600_000);
    let mut device = Beater::connect(&rig, "a", 0, None);
    for n in 0..20 {
        let datagram = device.seal(n);
        device.send(&datagram);
    }
    until("the others are refused", || {
        refused(&rig, "too-often") == 12.0
    });
    assert_eq!(rig.metric("mainstay_datagram_beats_total"), 8.0);
}

#[test]
fn datagrams_are_for_those_who_ask_and_gateways_that_have_them() {
    let rig = rig(|_| {});
    let mut plain = rig.online("plain");
    plain.hears_nothing();
    assert_eq!(rig.metric("mainstay_datagram_sessions"), 0.0);

    let without = Rig::start();
    let mut peer = Peer::connect(without.device_addr);
    peer.write(&greeting_with(OFFER, 0, "a", BOOT, None));
    let welcome = peer.welcome();
    assert_eq!((welcome.forms, welcome.datagrams), (Forms::FRAMED, None));
    peer.hears_nothing();
    // A datagram's bytes on the connection are no frame.
    peer.write(&[0xb1; DATAGRAM_BYTES]);
    peer.rejected(ErrorCode::Malformed);
}

#[test]
fn a_fleet_beats_in_datagrams_and_goes_on_after_a_restart() {
    let rig = rig(|_| {});
    let fleet = Fleet::start(FleetConfig {
        interval_ms: 100,
        reconnect_cap_ms: 100,
        datagrams: true,
        ..FleetConfig::new(rig.device_addr, 20)
    })
    .unwrap();
    let heard = |rig: &Rig| rig.metric("mainstay_datagram_beats_total");
    until("datagrams are heard", || heard(&rig) >= 200.0);
    let (device_addr, udp_addr) = (rig.device_addr, rig.udp_addr);
    let rig = rig.restart_with(|config| {
        config.listen = device_addr;
        config.udp = udp_addr;
    });
    until("they are heard again", || heard(&rig) >= 200.0);
    let report = fleet.stop().unwrap();
    assert!(report.datagrams >= 400, "{report:?}");
    assert_eq!(report.false_gone, 0, "{report:?}");
}

/// The first of its gateways has an IPv4 address and is not there.
#[test]
fn a_device_beats_to_the_address_family_of_the_gateway_that_it_found() {
    let loopback = std::net::Ipv6Addr::LOCALHOST;
    if UdpSocket::bind((loopback, 0)).is_err() {
        return eprintln!("skipped: this machine has no IPv6");
    }
    let rig = rig(|config| {
        config.listen = (loopback, 0).into();
        config.udp = Some((loopback, 0).into());
    });
    // Bound and not listening: connections are refused.
    let nobody = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    nobody.bind(&SocketAddr::from(PORT_0).into()).unwrap();
    let dead = nobody.local_addr().unwrap().as_socket().unwrap();
    let device = Device::builder(dead, "either")
        .fallback(rig.device_addr)
        .interval_ms(50)
        .reconnect_cap_ms(20)
        .datagrams(true)
        .start(|_| Answer::json("0"))
        .unwrap();
    until("datagrams are heard", || {
        rig.metric("mainstay_datagram_beats_total") >= 10.0
    });
    device.stop().unwrap();
}

/// Datagrams go to the address of the connection, and the gateway takes them at another.
#[test]
fn a_device_whose_datagrams_are_swallowed_beats_on_its_connection() {
    let rig = rig(|config| config.udp = Some(([127, 0, 0, 2], 0).into()));
    let fleet = Fleet::start(FleetConfig {
        interval_ms: 200,
        datagrams: true,
        ..FleetConfig::new(rig.device_addr, 1)
    })
    .unwrap();
    until("it has given datagrams up", || {
        fleet.report().datagrams_unanswered >= 3
    });
    until("its beats are heard", || {
        rig.metric("mainstay_beats_total") >= 10.0
    });
    let report = fleet.stop().unwrap();
    assert_eq!((report.lost, report.false_gone), (0, 0), "{report:?}");
    assert_eq!(rig.metric("mainstay_datagram_beats_total"), 0.0);
}

#[test]
fn the_dashboard_is_told_how_many_beats_come_in_datagrams() {
    let rig = rig(|_| {});
    let fleet = Fleet::start(FleetConfig {
        interval_ms: 100,
        datagrams: true,
        ..FleetConfig::new(rig.device_addr, 1)
    })
    .unwrap();
    let events = BufReader::new(Request::get("/v1/events").start(rig.http_addr)).lines();
    let tick = events
        .map_while(Result::ok)
        .filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
        .take(10)
        .find(|tick: &serde_json::Value| {
            tick["rates"]["datagram_beats_per_s"].as_f64() > Some(0.0)
        });
    assert!(tick.unwrap()["totals"]["datagram_beats"].as_u64() > Some(0));
    fleet.stop().unwrap();
}
