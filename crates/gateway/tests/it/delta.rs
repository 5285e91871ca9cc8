//! Delta beats and suspicion over real sockets: granted, refused, hostile, after a reconnect.

use gateway::device::{Answer, Device, Fleet, FleetConfig};
use gateway::proto::{Beat, ErrorCode, Forms, FromDevice, GoAway, GoAwayReason, SessionToken};
use heartbeat_codec::delta::{DeltaBeat, DeltaEncoder};

use crate::gate::{Gate, Said};
use crate::peer::{BOOT, Heard, Peer, encode, greeting_with};
use crate::rig::{Rig, until};

const INTERVAL_MS: u32 = 30_000;
const TOKEN: SessionToken = SessionToken([7; 16]);

/// A peer to which delta beats were granted.
fn delta_peer(rig: &Rig, id: &str) -> Peer {
    let mut peer = Peer::connect(rig.device_addr);
    peer.write(&greeting_with(Forms::DELTA, INTERVAL_MS, id, BOOT, None));
    assert_eq!(peer.welcome().forms, Forms::DELTA);
    peer
}

fn beat(encoder: &mut DeltaEncoder, stamp_ms: u32, rtt_ms: Option<u16>) -> Vec<u8> {
    let beat = DeltaBeat {
        stamp_ms,
        load_percent: Some(42),
    };
    encoder.encode(&beat, rtt_ms).as_bytes().to_vec()
}

#[test]
fn both_forms_are_heard_and_a_delta_beat_is_one_byte() {
    let rig = Rig::start();
    let mut plain = rig.online("plain");
    for stamp in 0..10 {
        plain.beat(stamp);
        assert_eq!(plain.hear(), Some(Heard::BeatAck(stamp)));
    }
    assert_eq!(rig.metric("mainstay_beat_bytes_total"), 90.0);

    let mut peer = delta_peer(&rig, "delta");
    let mut encoder = DeltaEncoder::new(INTERVAL_MS);
    for n in 0..100 {
        // Jitter of 5 ms either way.
        let stamp_ms = n * INTERVAL_MS + (n * 7) % 11;
        peer.write(&beat(&mut encoder, stamp_ms, Some(17)));
        assert_eq!(peer.hear(), Some(Heard::DeltaAck));
    }
    assert_eq!(rig.metric("mainstay_beats_total"), 110.0);
    assert_eq!(rig.metric("mainstay_beat_bytes_total"), 90.0 + 12.0 + 99.0);
    let device = rig.device("delta");
    assert_eq!(
        (&device["rtt_ms"], &device["load_percent"]),
        (&17.into(), &42.into())
    );

    // Frames and delta beats share the stream, in any pieces.
    let call = rig.post_later("delta", "k", "{}");
    let (id, _) = peer.command();
    let result = FromDevice::Result {
        id,
        status: gateway::proto::ResultStatus::Json,
        body: b"1",
    };
    let next = beat(&mut encoder, 100 * INTERVAL_MS, None);
    encoder.resync(INTERVAL_MS);
    let resync = beat(&mut encoder, 101 * INTERVAL_MS, None);
    for byte in [next, encode(&result), resync].concat() {
        peer.write(&[byte]);
    }
    let mut heard = [peer.hear(), peer.hear(), peer.hear()].map(Option::unwrap);
    heard.sort_by_key(|heard| *heard == Heard::ResultAck(id));
    assert_eq!(
        heard,
        [Heard::DeltaAck, Heard::DeltaAck, Heard::ResultAck(id)]
    );
    call.join().unwrap().done("1");
    // BEAT stays a beat on such a connection.
    peer.beat(1);
    assert_eq!(peer.hear(), Some(Heard::DeltaAck));
    peer.say(&FromDevice::GoAway(GoAway {
        reason: GoAwayReason::Leaving,
        retry_within_ms: 0,
    }));
    assert_eq!(peer.hear(), None);
}

#[test]
fn the_interval_of_a_resync_is_the_one_that_holds() {
    let rig = Rig::with(|config| config.devices.grace_ms = 100);
    let mut peer = Peer::connect(rig.device_addr);
    peer.write(&greeting_with(Forms::DELTA, 0, "paced", BOOT, None));
    assert_eq!(peer.welcome().interval_ms, 3_600_000);
    assert_eq!(rig.device("paced")["interval_ms"], 3_600_000);
    // A shorter one than the gateway allows becomes the shortest.
    for (says, holds) in [
        (20_000, 20_000),
        (40_000, 40_000),
        (3_600_000, 3_600_000),
        (1, 50),
    ] {
        let mut encoder = DeltaEncoder::new(says);
        peer.write(&beat(&mut encoder, 1_000, None));
        assert_eq!(peer.hear(), Some(Heard::DeltaAck));
        if holds != 50 {
            assert_eq!(rig.device("paced")["interval_ms"], holds);
        }
    }
    // Its deadline is near now, although it had an hour before.
    peer.sent_away(GoAwayReason::Gone);
    assert_eq!(rig.device("paced")["interval_ms"], 50);
}

#[test]
fn an_adaptive_device_tells_its_gateway() {
    let rig = Rig::start();
    let device = Device::builder(rig.device_addr, "adaptive")
        .adaptive_interval_ms(50, 1_000_000)
        .start(|_| Answer::json("1"))
        .unwrap();
    until("it is welcome", || {
        rig.metric("mainstay_devices{state=\"online\"}") == 1.0
    });
    until("it beats less often than at first", || {
        let interval_ms = rig.device("adaptive")["interval_ms"].as_u64().unwrap();
        (51..1_000_000).contains(&interval_ms)
    });
    assert_eq!(rig.state("adaptive"), "online");
    device.stop().unwrap();
}

#[test]
fn what_is_no_delta_beat_is_malformed() {
    let rig = Rig::start();
    let mut encoder = DeltaEncoder::new(INTERVAL_MS);
    let resync = beat(&mut encoder, 1_000, None);
    let with = |at: usize, bytes: &[u8]| {
        let mut wrong = resync.clone();
        wrong[at..at + bytes.len()].copy_from_slice(bytes);
        wrong
    };
    let behind = |bytes: &[u8]| [&resync, bytes].concat();
    for (what, bytes) in [
        ("a delta beat before the resync", vec![0x80]),
        ("the start of one before the resync", vec![0xf3]),
        ("a load of 101", with(9, &[101])),
        ("an interval of 0", with(5, &[0; 4])),
        ("an interval beyond an hour", with(5, &[0xff; 4])),
        ("a longer form than needed", behind(&[0xfd, 0x97, 0x7f])),
        (
            "a symbol that nothing has",
            behind(&[0xfe, 0xff, 0xff, 0xff]),
        ),
        (
            "a frame whose length cannot be",
            behind(b"\x07\xff\xff\xff\xff"),
        ),
    ] {
        let counted = rig.rejections("malformed");
        let mut peer = delta_peer(&rig, "bad");
        peer.write(&bytes);
        while let Some(heard) = peer.hear() {
            match heard {
                Heard::DeltaAck => {}
                Heard::Error(code, _) => assert_eq!(code, ErrorCode::Malformed, "{what}"),
                other => panic!("{other:?} for {what}"),
            }
        }
        assert_eq!(rig.rejections("malformed"), counted + 1.0, "{what}");
        assert_eq!(rig.state("bad"), "offline", "{what}");
    }
    // A device that was not granted them, because it did not offer to speak them.
    let mut peer = rig.online("bad");
    peer.write(&resync);
    peer.rejected(ErrorCode::Malformed);
    rig.serves();
}

#[test]
fn each_connection_of_a_device_begins_with_a_resync() {
    let mut gate = Gate::open();
    let device = Device::builder(gate.addr(), "delta")
        .reconnect_cap_ms(20)
        .start(|_| Answer::json("1"))
        .unwrap();
    for _ in 0..2 {
        gate.accept();
        gate.welcome_with(Forms::DELTA, TOKEN, 20);
        // The gate reads each connection with a new decoder, which refuses what no resync precedes.
        let round_trips: Vec<_> = (0..4).map(|_| round_trip(&mut gate)).collect();
        // The second is a resync too, for the first round trip.
        assert!(
            matches!(round_trips[..], [None, Some(_), None, None]),
            "{round_trips:?}"
        );
    }
    // A gateway that grants nothing hears frames, and so the round trip each time.
    gate.accept();
    gate.welcome(TOKEN, 20);
    let round_trips: Vec<_> = (0..4).map(|_| round_trip(&mut gate)).collect();
    assert!(
        matches!(round_trips[..], [None, Some(_), Some(_), Some(_)]),
        "{round_trips:?}"
    );
    drop(gate);
    device.stop().unwrap();
}

/// Answers the next beat, and returns the round trip that it said.
fn round_trip(gate: &mut Gate) -> Option<u16> {
    let Some(Said::Beat(beat)) = gate.hear() else {
        panic!("no beat");
    };
    gate.say(&gateway::proto::ToDevice::BeatAck(beat.ack()));
    beat.rtt_ms
}

#[test]
fn a_device_refuses_a_form_that_it_did_not_offer() {
    let mut gate = Gate::open();
    let device = Device::builder(gate.addr(), "plain")
        .reconnect_cap_ms(20)
        .delta_beats(false)
        .start(|_| Answer::json("1"))
        .unwrap();
    gate.accept();
    gate.welcome_with(Forms::DELTA, TOKEN, 20);
    assert_eq!(gate.hear(), None);
    gate.accept();
    gate.welcome(TOKEN, 20);
    assert!(matches!(gate.hear(), Some(Said::Beat(Beat { .. }))));
    drop(gate);
    device.stop().unwrap();
}

#[test]
fn fleets_of_both_forms_beat() {
    let rig = Rig::start();
    let fleet = |delta_beats| {
        let config = FleetConfig {
            prefix: format!("delta-{delta_beats}"),
            interval_ms: 50,
            delta_beats,
            ..FleetConfig::new(rig.device_addr, 5)
        };
        let fleet = Fleet::start(config).unwrap();
        until("its beats are answered", || {
            let report = fleet.report();
            report.beats > 200 && report.beat_rtt_ms.is_some()
        });
        let report = fleet.stop().unwrap();
        assert_eq!((report.lost, report.refused), (0, 0));
    };
    let sums = || ["beats", "beat_bytes"].map(|n| rig.metric(&format!("mainstay_{n}_total")));
    fleet(false);
    until("all are offline", || {
        rig.get("/v1/devices").json()["total"] == 0
    });
    let [beats, bytes] = sums();
    assert_eq!(bytes, 9.0 * beats);
    fleet(true);
    let after = sums();
    let per_beat = (after[1] - bytes) / (after[0] - beats);
    assert!(per_beat < 6.0, "{per_beat} bytes a beat");
}

#[test]
fn a_late_device_is_a_suspect_and_still_online() {
    let rig = Rig::with(|config| config.devices.grace_ms = 3_600_000);
    let mut late = Peer::connect(rig.device_addr);
    late.greet_every(50, "late", BOOT, None);
    late.welcome();
    let counts = || {
        let gauge = |series| rig.metric(series);
        (
            gauge("mainstay_devices_suspect"),
            gauge("mainstay_devices{state=\"online\"}"),
            gauge("mainstay_devices_gone_total"),
        )
    };
    until("it is a suspect", || rig.state("late") == "suspect");
    until("it is counted", || counts() == (1.0, 1.0, 0.0));
    assert!(rig.device("late")["phi"].as_f64().unwrap() > 7.9);
    // It gets its commands.
    let call = rig.post_later("late", "k", "{}");
    late.answer("1");
    call.join().unwrap().done("1");
    let mut stamp = 0;
    until("beats clear it", || {
        stamp += 1;
        late.beat(stamp);
        assert_eq!(late.hear(), Some(Heard::BeatAck(stamp)));
        rig.state("late") == "online" && counts() == (0.0, 1.0, 0.0)
    });
    until("silence makes it one again", || counts() == (1.0, 1.0, 0.0));
    // Its next session begins without suspicion, and nothing is left of the old one.
    drop(late);
    until("it is offline", || rig.state("late") == "offline");
    assert_eq!(counts(), (0.0, 0.0, 0.0));
}
