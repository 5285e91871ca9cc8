//! Descriptors: every one that a stranger makes the gateway open comes back.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use gateway::proto::PREFACE;

use crate::hostile::first_words;
use crate::peer::{BOOT, Peer, greeting};
use crate::rig::{Rig, until};

/// Descriptors of this process that are connections accepted on `addr`. Other tests of this process
/// do not change it.
pub(crate) fn sockets_on(addr: SocketAddr) -> usize {
    let own: HashSet<String> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| {
            Some(
                link.to_str()?
                    .strip_prefix("socket:[")?
                    .strip_suffix(']')?
                    .to_owned(),
            )
        })
        .collect();
    let port = format!(":{:04X}", addr.port());
    let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
    let accepted = table.lines().filter(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        // Local address, state (0A listens), inode.
        fields.len() > 9
            && fields[1].ends_with(&port)
            && fields[3] != "0A"
            && own.contains(fields[9])
    });
    accepted.count()
}

const CHILD: &str = "MAINSTAY_TEST_LEAK_CHILD";

/// Counts every descriptor of a process that runs nothing else.
#[test]
fn a_storm_of_bad_peers_leaks_nothing() {
    if std::env::var_os(CHILD).is_some() {
        return storm();
    }
    let this = std::env::current_exe().unwrap();
    let name = concat!(module_path!(), "::a_storm_of_bad_peers_leaks_nothing");
    let name = name.split_once("::").unwrap().1;
    let output = output_of(
        Command::new(this)
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, "1"),
    );
    assert!(output.contains("1 passed"), "{output}");
}

fn output_of(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    text.into_owned()
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn storm() {
    let rig = Rig::with(|config| {
        config.devices.hello_timeout_ms = 2_000;
        config.devices.grace_ms = 100;
        config.devices.probe_timeout_ms = 100;
    });
    let round = || {
        let mut peers = Vec::new();
        for (_, bytes, _) in first_words() {
            let mut peer = Peer::connect(rig.device_addr);
            peer.write(&bytes);
            peers.push(peer);
        }
        for n in 0..20 {
            let mut silent = Peer::connect(rig.device_addr);
            silent.write(&PREFACE[..n % 5]);
            peers.push(silent);
            let mut gone = Peer::connect(rig.device_addr);
            gone.write(&greeting(100, &format!("gone-{n}"), BOOT, None));
            let mut twin = Peer::connect(rig.device_addr);
            twin.write(&greeting(100, &format!("gone-{n}"), BOOT, None));
            peers.extend([gone, twin]);
            let mut cut = Peer::connect(rig.device_addr);
            cut.write(&greeting(0, &format!("cut-{n}"), BOOT, None));
            if n % 2 == 0 { cut.reset() } else { drop(cut) }
        }
        // All of them are closed by the gateway, none by this side.
        until("the gateway has closed them all", || {
            sockets_on(rig.device_addr) == 0
        });
    };
    // The first round pays for what is kept on purpose.
    round();
    rig.serves();
    until("the good device is offline", || {
        sockets_on(rig.device_addr) == 0
    });
    let before = descriptors();
    round();
    rig.serves();
    until("every descriptor is back", || descriptors() <= before);
}
