//! Datagrams as a gateway hears them: garbage, damage, repetitions and other sessions' between good ones. Each good one is
//! heard once, and nothing else is.
#![no_main]

use gateway::proto::{
    Beat, DATAGRAM_BYTES, DatagramPeers, DatagramRefusal, SessionToken, datagram_key,
};
use heartbeat_codec::datagram::Sender;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut peers = DatagramPeers::new(0);
    let tokens = [SessionToken([1; 16]), SessionToken([2; 16])];
    let keys = tokens.each_ref().map(datagram_key);
    let mut senders = [0, 1].map(|peer| Sender::new(peer, keys[peer as usize].clone()));
    for (peer, key) in (0..).zip(keys) {
        peers.insert(peer, key, peer as usize);
    }
    let mut last: [Option<[u8; DATAGRAM_BYTES]>; 2] = [None; 2];
    for step in input.chunks(8) {
        let who = usize::from(step[0] & 1);
        let mut datagram = senders[who].seal(&Beat::default()).unwrap();
        match step {
            // Damage, wherever it falls.
            [_, 0, at, bit, ..] => {
                let at = usize::from(*at) % datagram.len();
                datagram[at] ^= 1 << (bit % 8);
                assert!(peers.open(0, &datagram).is_err());
            }
            [_, 1, ..] => {
                if let Some(last) = &last[who] {
                    let refusal = peers.open(0, last).map(|_| ()).unwrap_err();
                    assert_eq!(refusal, DatagramRefusal::Replayed);
                }
            }
            [_, 2, garbage @ ..] => assert!(peers.open(0, garbage).is_err()),
            _ => {
                let heard = peers.open(0, &datagram).unwrap();
                assert_eq!((*heard.session, heard.is_newest), (who, true));
                assert!(senders[who].open_ack(&heard.ack).is_ok());
                last[who] = Some(datagram);
            }
        }
    }
    assert!(peers.open(0, input).is_err());
});
