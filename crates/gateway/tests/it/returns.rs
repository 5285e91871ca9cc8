//! The slots in which devices come back after they have lost their gateway.

use std::collections::BTreeSet;

use gateway::device::{Fleet, FleetConfig};
use gateway::proto::{ErrorCode, GoAway, GoAwayReason, SessionToken, ToDevice};

use crate::gate::Gate;
use crate::peer::{BOOT, Heard, Peer};
use crate::rig::{Rig, until};

fn slot_of(rig: &Rig, id: &str) -> (Peer, Option<u32>) {
    let mut peer = Peer::connect(rig.device_addr);
    peer.greet(id, BOOT, None);
    let slot_ms = peer.welcome().slot_ms;
    (peer, slot_ms)
}

fn rig(return_per_s: u32) -> Rig {
    Rig::with(|config| {
        config.shards = 1;
        config.devices.return_per_s = return_per_s;
    })
}

#[test]
fn no_two_connected_devices_have_one_slot_and_a_free_one_is_given_again() {
    let rig = rig(10);
    let come = |range: std::ops::Range<u32>| {
        range
            .map(|number| slot_of(&rig, &format!("d-{number}")))
            .unzip()
    };
    let (mut peers, slots): (Vec<_>, Vec<_>) = come(0..60);
    let slots: BTreeSet<u32> = slots.into_iter().flatten().collect();
    assert_eq!(slots.len(), 60);
    // 60 at 10 a second.
    for second in 0..6 {
        let here = slots.range(second * 1_000..(second + 1) * 1_000).count();
        assert!((9..=11).contains(&here), "{slots:?}");
    }
    drop(peers.split_off(40));
    until("20 have left", || {
        rig.get("/v1/devices").json()["total"] == 40
    });
    // Their places are free once the shard's turn is over; a beat that is sent now is answered in a later one.
    peers[0].beat(1);
    assert_eq!(peers[0].hear(), Some(Heard::BeatAck(1)));
    let (_others, again): (Vec<_>, Vec<_>) = come(100..120);
    let again: BTreeSet<u32> = again.into_iter().flatten().collect();
    assert_eq!(again.len(), 20);
    assert!(again.is_subset(&slots), "{again:?} are not in {slots:?}");
}

#[test]
fn without_a_rate_there_are_no_slots() {
    assert_eq!(slot_of(&rig(0), "a").1, None);
}

#[test]
fn a_goodbye_leaves_as_much_time_as_the_rate_needs() {
    for (return_per_s, window_ms) in [(1, 8_000), (2, 5_000), (0, 5_000)] {
        let mut rig = rig(return_per_s);
        let peers: Vec<_> = (0..8)
            .map(|number| slot_of(&rig, &format!("d-{number}")))
            .collect();
        let drained = rig.drain_later();
        for (mut peer, _) in peers {
            let goodbye = Heard::GoAway(GoAwayReason::Draining, window_ms);
            assert_eq!(peer.hear(), Some(goodbye), "at {return_per_s}");
        }
        drained.join().unwrap();
    }
}

/// In the test of `presence` the gateway says it; here the device hears it.
#[test]
fn a_slot_is_for_the_loss_of_a_gateway_not_for_what_a_live_one_says() {
    const AN_HOUR_MS: u32 = 3_600_000;
    let mut gate = Gate::open();
    let fleet = Fleet::start(FleetConfig::new(gate.addr(), 1)).unwrap();
    gate.accept();
    let goodbye = |retry_within_ms| {
        ToDevice::GoAway(GoAway {
            reason: GoAwayReason::Gone,
            retry_within_ms,
        })
    };
    let refusal = ToDevice::Error {
        code: ErrorCode::Malformed,
        text: "a test says so",
    };
    for said in [goodbye(0), goodbye(1), refusal] {
        gate.welcome_in_slot(SessionToken([1; 16]), AN_HOUR_MS);
        gate.say(&said);
        gate.accept();
    }
    let report = fleet.stop().unwrap();
    let longest = report.reconnect_delay_ms.unwrap().max;
    assert!(longest < AN_HOUR_MS.into(), "{longest}");
}

#[test]
fn a_device_comes_back_in_its_slot() {
    let mut gate = Gate::open();
    let fleet = Fleet::start(FleetConfig::new(gate.addr(), 1)).unwrap();
    gate.accept();
    gate.welcome_in_slot(SessionToken([1; 16]), 73);
    // The gate hangs up and waits for the next connection.
    gate.accept();
    let report = fleet.report();
    assert_eq!(
        (report.returns, report.tries_per_return),
        (0, None),
        "not welcome yet"
    );
    gate.welcome(SessionToken([2; 16]), 3_600_000);
    until("it is back", || fleet.report().returns == 1);
    let report = fleet.stop().unwrap();
    assert_eq!(report.tries_per_return, Some(1.0));
    assert_eq!(report.reconnect_delay_ms.map(|delay| delay.max), Some(73.0));
    assert!(report.return_ms.unwrap().max >= 73.0, "{report:?}");
}
