//! Queues that are full: 429 at once, and the key is free.

use gateway::proto::ResultStatus;

use crate::rig::{Rig, until};

#[test]
fn a_device_has_only_so_many_commands() {
    let rig = Rig::with(|config| config.commands.per_device_max = 2);
    let mut peer = rig.online("a");
    let call = rig.post_later("a", "old", "{}");
    peer.answer("0");
    call.join().unwrap().done("0");
    let calls = ["k0", "k1"].map(|key| rig.post_later("a", key, "{}"));
    let commands = [peer.command(), peer.command()];

    let full = rig.post("a", "k2", "{}");
    full.problem(429, "queue-full");
    assert!(full.header("retry-after").is_some());
    // What is known of a key is said in spite of it.
    rig.post("a", "k0", "{}").problem(409, "in-progress");
    rig.post("a", "old", "{}").replay_of("0");
    rig.post("a", "old", "[]").problem(422, "key-reused");
    // Another device is not concerned.
    rig.serves();

    commands
        .iter()
        .for_each(|(id, _)| peer.result(*id, ResultStatus::Json, "1"));
    calls
        .into_iter()
        .for_each(|call| call.join().unwrap().done("1"));
    for (id, _) in &commands {
        assert!(
            matches!(peer.hear(), Some(crate::peer::Heard::ResultAck(_))),
            "{id}"
        );
    }
    let call = rig.post_later("a", "k2", r#"{"another":"payload"}"#);
    peer.answer("2");
    call.join().unwrap().done("2");
}

#[test]
fn the_gateway_has_only_so_many_commands() {
    let rig = Rig::with(|config| config.commands.total_max = 1);
    let mut a = rig.online("a");
    let _b = rig.online("b");
    let call = rig.post_later("a", "k", "{}");
    let (id, _) = a.command();
    rig.post("b", "k", "{}").problem(429, "queue-full");
    a.result(id, ResultStatus::Json, "1");
    call.join().unwrap().done("1");
}

#[test]
fn a_full_mailbox_is_a_full_queue() {
    let rig = Rig::with(|config| {
        config.commands.mailbox_max = 1;
        config.commands.per_device_max = 1_000;
    });
    let peer = rig.online("a");
    let calls: Vec<_> = (0..64)
        .map(|n| rig.post_later("a", &format!("k{n}"), "{}"))
        .collect();
    // Each of them is sent or refused; refused ones are free to be sent again.
    drop(peer);
    until("it is offline", || rig.state("a") == "offline");
    let mut peer = crate::peer::Peer::connect(rig.device_addr);
    peer.greet("a", gateway::proto::BootId([1; 16]), None);
    peer.welcome();
    let answering = std::thread::spawn(move || {
        while let Some(heard) = peer.hear() {
            if let crate::peer::Heard::Command { id, .. } = heard {
                peer.result(id, ResultStatus::Json, "1");
            }
        }
    });
    for call in calls {
        let response = call.join().unwrap();
        match response.status {
            200 => assert_eq!(response.text(), "1"),
            429 => drop(response.problem(429, "queue-full")),
            _ => drop(response.problem(409, "in-doubt")),
        }
    }
    drop(rig);
    answering.join().unwrap();
}
