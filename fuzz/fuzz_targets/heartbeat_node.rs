//! Protobuf and JSON of a node's beat over arbitrary bytes: no panic, and what was understood can be said again.
#![no_main]

use heartbeat_codec::node::NodeBeat;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(beat) = NodeBeat::decode_protobuf(input) {
        let mut again = Vec::new();
        beat.encode_protobuf(&mut again);
        assert_eq!(NodeBeat::decode_protobuf(&again), Ok(beat));
    }
    if let Ok(beat) = serde_json::from_slice::<NodeBeat>(input) {
        let again = serde_json::to_vec(&beat).expect("JSON");
        let read = serde_json::from_slice::<NodeBeat>(&again);
        assert_eq!(read.expect("ours"), beat);
    }
});
