//! Which devices are known and how they are: listed, alive, gone, forgotten, remembered.

use gateway::proto::{Beat, ErrorCode, FromDevice, GoAwayReason};

use crate::peer::{BOOT, Heard, Peer, encode};
use crate::rig::{Rig, until};

fn ids(page: &serde_json::Value) -> Vec<&str> {
    page["devices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["id"].as_str().unwrap())
        .collect()
}

#[test]
fn devices_are_listed_page_by_page() {
    let rig = Rig::with(|config| config.http_limits.page_max = 5);
    let names: Vec<_> = (0..12).map(|n| format!("dev-{n:02}")).collect();
    // In another order than the list's.
    let peers: Vec<_> = names.iter().rev().map(|name| rig.online(name)).collect();
    let mut seen = Vec::new();
    let mut after = String::new();
    for expected in [5, 5, 2] {
        let page = rig
            .get(&format!("/v1/devices?limit=5&after={after}"))
            .json();
        assert_eq!(
            (page["total"].as_u64(), page["known"].as_u64()),
            (Some(12), Some(12))
        );
        assert_eq!(ids(&page).len(), expected);
        seen.extend(ids(&page).into_iter().map(String::from));
        after = page["next"].as_str().unwrap_or_default().to_owned();
    }
    assert_eq!((seen, after), (names, String::new()));
    // A page that is just full has no next one; without a limit the page is as long as it may be.
    let page = rig.get("/v1/devices?after=dev-06").json();
    assert_eq!((ids(&page).len(), page["next"].is_null()), (5, true));
    assert_eq!(ids(&rig.get("/v1/devices").json()).len(), 5);
    // `after` need not be a device; the total counts those that are online.
    drop(peers);
    until("all are offline", || {
        rig.get("/v1/devices").json()["total"] == 0
    });
    assert_eq!(
        ids(&rig.get("/v1/devices?after=dev-105&limit=1").json()),
        ["dev-11"]
    );
    assert_eq!(ids(&rig.get("/v1/devices?after=z").json()), [""; 0]);
}

#[test]
fn a_device_is_what_its_beats_say() {
    let rig = Rig::start();
    let mut peer = rig.online("a");
    let device = rig.device("a");
    assert_eq!(device["state"], "online");
    assert!(
        device["rtt_ms"].is_null() && device["load_percent"].is_null(),
        "{device}"
    );

    let beat = Beat {
        stamp_ms: 7,
        load_percent: Some(42),
        rtt_ms: Some(17),
    };
    peer.say(&FromDevice::Beat(beat));
    assert_eq!(peer.hear(), Some(Heard::BeatAck(7)));
    let device = rig.device("a");
    assert_eq!(
        (&device["rtt_ms"], &device["load_percent"]),
        (&17.into(), &42.into())
    );
    assert!(
        device["last_beat_ms_ago"].is_u64() && device["phi"].is_number(),
        "{device}"
    );
    assert_eq!(device["commands"], 0);

    peer.say(&FromDevice::GoAway(gateway::proto::GoAway {
        reason: GoAwayReason::Leaving,
        retry_within_ms: 0,
    }));
    assert_eq!(peer.hear(), None);
    until("it is offline", || rig.state("a") == "offline");
    assert!(rig.device("a")["phi"].is_null());
}

#[test]
fn a_silent_device_is_gone() {
    let rig = Rig::with(|config| config.devices.grace_ms = 100);
    let mut silent = Peer::connect(rig.device_addr);
    silent.greet_every(100, "silent", BOOT, None);
    let welcome = silent.welcome();
    assert_eq!((welcome.interval_ms, welcome.grace_ms), (100, 100));
    // One whose frame never gets whole: bytes alone are no sign of life.
    let mut dribbling = Peer::connect(rig.device_addr);
    dribbling.greet_every(100, "dribbling", BOOT, None);
    dribbling.welcome();
    let dribble = encode(&FromDevice::Result {
        id: gateway::proto::CommandId([1; 16]),
        status: gateway::proto::ResultStatus::Json,
        body: &[b' '; 60_000],
    });
    let mut dribble = dribble.iter();
    until("it is gone", || {
        dribbling.write(&[*dribble.next().unwrap()]);
        rig.state("dribbling") == "gone"
    });
    let goodbye = Heard::GoAway(GoAwayReason::Gone, 2_000);
    assert_eq!(dribbling.hear(), Some(goodbye));
    assert_eq!(dribbling.hear(), None);
    silent.sent_away(GoAwayReason::Gone);
    assert_eq!(rig.state("silent"), "gone");
    assert_eq!(rig.metric("mainstay_devices_gone_total"), 2.0);
    assert_eq!(rig.metric("mainstay_devices{state=\"gone\"}"), 2.0);
    // It may come back.
    let _back = rig.online("silent");
    assert_eq!(rig.state("silent"), "online");
    assert_eq!(rig.metric("mainstay_devices{state=\"gone\"}"), 1.0);
}

#[test]
fn a_beating_device_is_not_gone() {
    let rig = Rig::with(|config| config.devices.grace_ms = 5_000);
    let mut beating = Peer::connect(rig.device_addr);
    beating.greet_every(50, "beating", BOOT, None);
    beating.welcome();
    let mut silent = Peer::connect(rig.device_addr);
    silent.greet_every(50, "silent", BOOT, None);
    silent.welcome();
    let mut stamp = 0;
    until("the silent one is gone", || {
        stamp += 1;
        beating.beat(stamp);
        assert_eq!(beating.hear(), Some(Heard::BeatAck(stamp)));
        rig.state("silent") == "gone"
    });
    // With beats as fast as they go, a pause of this machine is enough to become a suspect.
    assert!(["online", "suspect"].contains(&&*rig.state("beating")));
}

#[test]
fn intervals_stay_within_their_limits() {
    let rig = Rig::with(|config| {
        config.devices.interval_ms = 5_000;
        config.devices.interval_ms_min = 1_000;
        config.devices.interval_ms_max = 10_000;
    });
    for (wish, given) in [(0, 5_000), (1, 1_000), (7_000, 7_000), (u32::MAX, 10_000)] {
        let mut peer = Peer::connect(rig.device_addr);
        peer.greet_every(wish, &format!("dev-{wish}"), BOOT, None);
        assert_eq!(peer.welcome().interval_ms, given);
    }
}

#[test]
fn known_devices_are_remembered_across_restarts() {
    let rig = Rig::start();
    let a = rig.online("a");
    rig.known("b \"2\"");
    drop(a);
    let rig = rig.restart();
    let page = rig.get("/v1/devices").json();
    assert_eq!(
        (ids(&page), &page["total"]),
        (vec!["a", "b \"2\""], &0.into())
    );
    for device in page["devices"].as_array().unwrap() {
        assert_eq!(device["state"], "offline");
        assert!(
            device["last_beat_ms_ago"].is_null() && device["phi"].is_null(),
            "{device}"
        );
    }
    // Known means that a command may wait for it.
    let late = rig
        .command("a", "k", "{}")
        .timeout_ms(1)
        .send(rig.http_addr);
    late.problem(504, "timed-out-unsent");
}

#[test]
fn the_longest_offline_device_is_forgotten_first() {
    let rig = Rig::with(|config| config.devices.known_max = 3);
    for id in ["first", "second", "third"] {
        rig.known(id);
    }
    // Being seen again makes the first one the youngest.
    rig.known("first");
    let fourth = rig.online("fourth");
    let states = ["first", "second", "third", "fourth"].map(|id| rig.state(id));
    assert_eq!(states, ["offline", "unknown", "offline", "online"]);
    rig.post("second", "k", "{}").problem(404, "unknown-device");
    drop(fourth);
    let rig = rig.restart();
    assert_eq!(
        ids(&rig.get("/v1/devices").json()),
        ["first", "fourth", "third"]
    );

    // Nobody is forgotten who is online: the newcomer has to come back later.
    let online = ["a", "b", "c"].map(|id| rig.online(id));
    let mut late = Peer::connect(rig.device_addr);
    late.greet("late", BOOT, None);
    late.rejected(ErrorCode::Busy);
    assert_eq!(rig.rejections("busy"), 1.0);
    let [a, ..] = online;
    drop(a);
    until("there is room", || rig.state("a") == "offline");
    drop(rig.online("late"));
    assert_eq!(rig.state("a"), "unknown");
}

#[test]
fn a_device_with_commands_is_not_forgotten() {
    let rig = Rig::with(|config| config.devices.known_max = 1);
    rig.known("a");
    let call = rig.post_later("a", "k", "{}");
    until("the command waits", || rig.device("a")["commands"] == 1);
    let mut other = Peer::connect(rig.device_addr);
    other.greet("b", BOOT, None);
    other.rejected(ErrorCode::Busy);
    let mut a = rig.online("a");
    a.answer("1");
    call.join().unwrap().done("1");
}
