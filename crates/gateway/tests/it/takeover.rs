//! A device id that is connected already.

use gateway::proto::{
    BootId, ErrorCode, FromDevice, GoAway, GoAwayReason, ResultStatus, SessionToken,
};

use crate::leak::sockets_on;
use crate::peer::{BOOT, Heard, Peer};
use crate::rig::{Rig, until};

/// As many devices as make it all but certain (1 - 4^-16) that some of the pairs of connections
/// meet on one shard and some on two.
const PAIRS: usize = 16;

#[test]
fn a_second_hello_is_refused_while_the_first_connection_answers() {
    let rig = Rig::with(|config| config.shards = 4);
    for pair in 0..PAIRS {
        let id = format!("dev-{pair}");
        let mut first = rig.online(&id);
        // A wrong token is no token.
        let tokens = [None, Some(SessionToken([1; 16]))];
        for resume in tokens {
            let mut second = Peer::connect(rig.device_addr);
            second.greet(&id, BootId([2; 16]), resume);
            assert_eq!(first.hear(), Some(Heard::Probe));
            first.beat(1);
            assert_eq!(first.hear(), Some(Heard::BeatAck(1)));
            second.rejected(ErrorCode::InUse);
        }
        assert_eq!(rig.state(&id), "online");
        first.hears_nothing();
    }
    assert_eq!(rig.rejections("in-use"), 2.0 * PAIRS as f64);
    until("every descriptor is back", || {
        sockets_on(rig.device_addr) == 0
    });
    rig.serves();
}

#[test]
fn the_session_token_takes_over() {
    let rig = Rig::with(|config| config.shards = 4);
    for pair in 0..PAIRS {
        let id = format!("dev-{pair}");
        let mut first = Peer::connect(rig.device_addr);
        first.greet(&id, BOOT, None);
        let token = first.welcome().session;
        let call = rig.post_later(&id, "k", "{}");
        let (command, _) = first.command();
        let mut second = Peer::connect(rig.device_addr);
        second.greet(&id, BOOT, Some(token));
        assert_ne!(second.welcome().session, token);
        first.sent_away(GoAwayReason::Replaced);
        // The command moves with the session, and the late word of the old one changes nothing.
        assert_eq!(second.command().0, command);
        second.result(command, ResultStatus::Json, "1");
        call.join().unwrap().done("1");
        assert_eq!(rig.state(&id), "online");
        // A token holds for one session.
        let mut third = Peer::connect(rig.device_addr);
        third.greet(&id, BOOT, Some(token));
        assert_eq!(second.hear(), Some(Heard::ResultAck(command)));
        assert_eq!(second.hear(), Some(Heard::Probe));
        second.beat(1);
        third.rejected(ErrorCode::InUse);
    }
    until("no connection is left over", || {
        rig.metric("mainstay_devices{state=\"online\"}") == rig.metric("mainstay_connections")
    });
}

#[test]
fn a_connection_that_fails_its_probe_makes_room() {
    let rig = Rig::with(|config| {
        config.shards = 4;
        config.devices.probe_timeout_ms = 150;
    });
    let mut pairs: Vec<_> = (0..PAIRS)
        .map(|pair| {
            let id = format!("dev-{pair}");
            let first = rig.online(&id);
            let mut second = Peer::connect(rig.device_addr);
            second.greet(&id, BOOT, None);
            (id, first, second)
        })
        .collect();
    for (id, first, second) in &mut pairs {
        // The first one hears the probe and says nothing.
        assert_eq!(first.hear(), Some(Heard::Probe));
        second.welcome();
        first.sent_away(GoAwayReason::Replaced);
        assert_eq!(rig.state(id), "online");
        second.hears_nothing();
    }
    assert_eq!(rig.rejections("in-use"), 0.0);
    drop(pairs);
    until("every descriptor is back", || {
        sockets_on(rig.device_addr) == 0
    });
}

#[test]
fn a_holder_that_leaves_during_its_probe_makes_room_at_once() {
    // Nobody waits for the probe to time out.
    let rig = Rig::with(|config| config.shards = 4);
    for pair in 0..PAIRS {
        let mut first = rig.online(&format!("dev-{pair}"));
        let mut second = Peer::connect(rig.device_addr);
        second.greet(&format!("dev-{pair}"), BOOT, None);
        assert_eq!(first.hear(), Some(Heard::Probe));
        if pair % 2 == 0 {
            first.reset()
        } else {
            drop(first)
        }
        second.welcome();
    }
}

#[test]
fn of_many_newcomers_one_is_welcome() {
    let rig = Rig::with(|config| config.shards = 4);
    let mut first = rig.online("a");
    let newcomers: Vec<_> = (0..8_u8)
        .map(|n| {
            let mut peer = Peer::connect(rig.device_addr);
            peer.greet("a", BootId([n; 16]), None);
            peer
        })
        .collect();
    assert_eq!(first.hear(), Some(Heard::Probe));
    until("all but one are refused", || {
        rig.rejections("in-use") == 7.0
    });
    drop(first);
    let mut welcome = 0;
    let mut held = Vec::new();
    for mut peer in newcomers {
        match peer.hear() {
            Some(Heard::Welcome(_)) => {
                welcome += 1;
                held.push(peer);
            }
            Some(Heard::Error(ErrorCode::InUse, _)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(welcome, 1);
    assert_eq!(rig.state("a"), "online");
}

#[test]
fn a_newcomer_may_not_talk_while_it_waits() {
    let rig = Rig::with(|config| config.shards = 4);
    let mut first = rig.online("a");
    let mut second = Peer::connect(rig.device_addr);
    second.greet("a", BOOT, None);
    second.beat(1);
    second.rejected(ErrorCode::Unexpected);
    assert_eq!(first.hear(), Some(Heard::Probe));
    first.hears_nothing();
}

/// What a device that leaves at once would have been told must not be told to its neighbour.
#[test]
fn hello_and_goaway_in_one_read_say_nothing_to_others() {
    let rig = Rig::with(|config| config.shards = 1);
    let mut victim = rig.online("victim");
    for round in 0..20 {
        let mut stranger = Peer::connect(rig.device_addr);
        let mut bytes = crate::peer::greeting(3_600_000, "stranger", BootId([3; 16]), None);
        bytes.extend(crate::peer::encode(&FromDevice::GoAway(GoAway {
            reason: GoAwayReason::Leaving,
            retry_within_ms: 0,
        })));
        stranger.write(&bytes);
        until("the stranger has left", || {
            rig.state("stranger") == "offline"
        });
        victim.beat(round);
        assert_eq!(victim.hear(), Some(Heard::BeatAck(round)));
    }
}
