//! Datagrams and capabilities over arbitrary bytes: no panic, and nobody forges.
#![no_main]

use heartbeat_codec::capability::Forms;
use heartbeat_codec::datagram::{DatagramKey, Receiver, Sender, peer_of};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let key = DatagramKey::new([7; 32]);
    let peer = peer_of(input).unwrap_or_default();
    assert!(Receiver::new(peer, key.clone()).open(input).is_err());
    assert!(
        Sender::resumed(peer, key, u32::MAX)
            .open_ack(input)
            .is_err()
    );
    if let [offer, answer, ..] = input {
        let (offer, answer) = (Forms::from_byte(*offer), Forms::from_byte(*answer));
        assert_eq!(offer.accept(offer & answer), Ok(offer & answer));
        assert_eq!(offer.accept(answer).is_ok(), offer.contains(answer));
    }
});
