//! Datagrams over a network that loses, doubles, overtakes, damages and forges.

use heartbeat_codec::beat::Beat;
use heartbeat_codec::datagram::{DATAGRAM_BYTES, DatagramKey, Receiver, Sender, peer_of};
use proptest::prelude::*;

use crate::vectors::{bytes, vectors};

const PEER: u32 = 7;

fn pair() -> (Sender, Receiver) {
    let key = DatagramKey::derive(b"secret");
    (Sender::new(PEER, key.clone()), Receiver::new(PEER, key))
}

fn beat(stamp_ms: u32) -> Beat {
    Beat {
        stamp_ms,
        load_percent: Some(40),
        rtt_ms: None,
    }
}

/// `count` datagrams with stamps 1 to `count`.
fn stream(sender: &mut Sender, count: u32) -> Vec<[u8; DATAGRAM_BYTES]> {
    let seal = |stamp_ms| sender.seal(&beat(stamp_ms)).expect("sequences are left");
    (1..=count).map(seal).collect()
}

#[test]
fn each_is_taken_once_in_any_order_within_the_window() {
    let (mut sender, mut receiver) = pair();
    let sent = stream(&mut sender, 200);
    let open = |receiver: &mut Receiver, at: usize| receiver.open(&sent[at]).map(|it| it.is_newest);
    assert_eq!(open(&mut receiver, 99), Ok(true));
    // 63 before it are remembered; those before them are too old.
    assert_eq!(open(&mut receiver, 99 - 63), Ok(false));
    assert!(open(&mut receiver, 99 - 64).expect_err("old").is_replayed());
    for at in 40..99 {
        assert_eq!(open(&mut receiver, at), Ok(false));
        assert!(open(&mut receiver, at).expect_err("again").is_replayed());
    }
    assert!(open(&mut receiver, 99).expect_err("again").is_replayed());
    // A gap of exactly the window forgets all but the newest.
    assert_eq!(open(&mut receiver, 99 + 64), Ok(true));
    assert_eq!(open(&mut receiver, 99 + 1), Ok(false));
    assert!(open(&mut receiver, 99).expect_err("old").is_replayed());
}

#[test]
fn one_wrong_bit_anywhere_is_refused_and_changes_nothing() {
    let (mut sender, mut receiver) = pair();
    let sent = sender.seal(&beat(5)).expect("sequences are left");
    for bit in 0..8 * DATAGRAM_BYTES {
        let mut damaged = sent;
        damaged[bit / 8] ^= 1 << (bit % 8);
        let error = receiver.open(&damaged).expect_err("damaged");
        assert_eq!(error.is_forged(), bit >= 8, "{bit}");
        assert_eq!(error.is_malformed(), bit < 8, "{bit}");
    }
    for length in 0..DATAGRAM_BYTES {
        assert!(
            receiver
                .open(&sent[..length])
                .expect_err("cut")
                .is_malformed()
        );
        assert_eq!(peer_of(&sent[..length]), None);
    }
    assert!(
        receiver
            .open(&sent)
            .is_ok_and(|heard| heard.is_newest && heard.beat == beat(5))
    );
}

#[test]
fn another_key_another_peer_and_another_direction_are_refused() {
    let (mut sender, mut receiver) = pair();
    let sent = sender.seal(&beat(5)).expect("sequences are left");
    let other = DatagramKey::derive(b"another");
    assert!(
        Receiver::new(PEER, other)
            .open(&sent)
            .expect_err("key")
            .is_forged()
    );
    let key = DatagramKey::derive(b"secret");
    assert!(
        Receiver::new(8, key)
            .open(&sent)
            .expect_err("peer")
            .is_forged()
    );
    let heard = receiver.open(&sent).expect("authentic");
    let ack = receiver.ack(&heard);
    assert!(receiver.open(&ack).expect_err("an ack").is_malformed());
    assert!(sender.open_ack(&sent).expect_err("a beat").is_malformed());
    assert_eq!(peer_of(&ack), None);
    assert_eq!(sender.open_ack(&ack).map(|ack| ack.stamp_ms), Ok(5));
    // What was never sent cannot be acknowledged: a second session with the same key, which is an error of its owner.
    let fresh = Sender::new(PEER, DatagramKey::derive(b"secret"));
    assert!(fresh.open_ack(&ack).is_err());
}

#[test]
fn a_key_shows_nothing_and_a_receiver_is_small() {
    let key = DatagramKey::new([7; 32]);
    assert_eq!(format!("{key:?}"), "DatagramKey(..)");
    assert_eq!(size_of::<Receiver>(), 56);
}

/// The sequences of the document's datagrams are far apart: brings a sender there.
fn sealed(peer: u32, sequence: u32, beat: &Beat) -> Vec<u8> {
    let key = DatagramKey::derive(b"secret");
    let mut sender = Sender::resumed(peer, key, sequence - 1);
    sender.seal(beat).expect("sequences are left").to_vec()
}

#[test]
fn they_are_as_documented() {
    for (left, right) in vectors("datagram") {
        let fields: Vec<&str> = left.split(' ').collect();
        let number = |at: usize| fields[at].parse::<u32>().ok();
        let beat = Beat {
            stamp_ms: number(2).expect("a stamp"),
            load_percent: number(3).map(|load| load as u8),
            rtt_ms: number(4).map(|ms| ms as u16),
        };
        let (peer, sequence) = (number(0).expect("a peer"), number(1).expect("a sequence"));
        assert_eq!(sealed(peer, sequence, &beat), bytes(right), "{left}");
        let mut receiver = Receiver::new(peer, DatagramKey::derive(b"secret"));
        let heard = receiver.open(&bytes(right)).expect(left);
        assert_eq!((heard.beat, peer_of(&bytes(right))), (beat, Some(peer)));
        let acked = vectors("datagram-ack")
            .into_iter()
            .find(|(ack, _)| *ack == format!("{peer} {sequence} {}", beat.stamp_ms));
        assert_eq!(
            receiver.ack(&heard)[..],
            bytes(acked.expect("its ack").1),
            "{left}"
        );
    }
    let mut last = Sender::resumed(1, DatagramKey::derive(b""), u32::MAX - 1);
    assert!(last.seal(&beat(1)).is_some() && last.seal(&beat(2)).is_none());
}

proptest! {
    /// Whatever the network does, each beat is taken at most once, and all that come within 63 of the newest.
    #[test]
    fn a_hostile_network_changes_nothing(arrivals in prop::collection::vec(0usize..150, 0..400)) {
        let (mut sender, mut receiver) = pair();
        let sent = stream(&mut sender, 150);
        let (mut taken, mut newest) = (std::collections::HashSet::new(), None);
        for at in arrivals {
            let fresh = !taken.contains(&at) && newest.is_none_or(|newest| at + 63 >= newest);
            match receiver.open(&sent[at]) {
                Ok(heard) => {
                    prop_assert!(fresh);
                    prop_assert_eq!(heard.is_newest, newest.is_none_or(|newest| at > newest));
                    prop_assert_eq!(heard.beat, beat(at as u32 + 1));
                    taken.insert(at);
                    newest = newest.max(Some(at));
                }
                Err(error) => prop_assert!(!fresh && error.is_replayed()),
            }
        }
    }

    #[test]
    fn nobody_forges(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let (sender, mut receiver) = pair();
        prop_assert!(receiver.open(&bytes).is_err());
        prop_assert!(sender.open_ack(&bytes).is_err());
    }
}
