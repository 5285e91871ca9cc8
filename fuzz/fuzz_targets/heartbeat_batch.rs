//! Batches over arbitrary bytes: no panic, nothing beyond the limits, and what was understood can be said again.
#![no_main]

use std::collections::BTreeMap;

use heartbeat_codec::batch::{BatchDecoder, BatchEncoder, BatchLimits, Decoded};
use heartbeat_codec::node::NodeBeat;
use libfuzzer_sys::fuzz_target;

const LIMITS: BatchLimits = BatchLimits {
    bytes_max: 4_096,
    beats_max: 100,
    nodes_max: 50,
};

fuzz_target!(|input: &[u8]| {
    let mut decoder = BatchDecoder::new(LIMITS);
    let mut rest = input;
    let mut beats = Vec::new();
    loop {
        beats.clear();
        match decoder.decode(rest, &mut beats) {
            Ok(Decoded::Batch { consumed }) => {
                assert!(beats.len() <= LIMITS.beats_max && decoder.nodes() <= LIMITS.nodes_max);
                again(&beats);
                rest = &rest[consumed..];
            }
            Ok(Decoded::NeedMore { bytes_min }) => {
                assert!(
                    bytes_min > rest.len() && bytes_min <= LIMITS.bytes_max.max(rest.len() + 1)
                );
                return;
            }
            Err(_) => {
                assert!(beats.is_empty());
                return;
            }
        }
    }
});

fn again(beats: &[NodeBeat]) {
    let limits = BatchLimits::default();
    let mut wire = Vec::new();
    let mut encoder = BatchEncoder::new(limits, 1_000);
    encoder
        .encode(beats, 7, &mut wire)
        .expect("within the limits");
    let mut read = Vec::new();
    BatchDecoder::new(limits)
        .decode(&wire, &mut read)
        .expect("ours");
    assert_eq!(by_node(&read), by_node(beats));
}

fn by_node(beats: &[NodeBeat]) -> BTreeMap<u64, Vec<NodeBeat>> {
    let mut nodes: BTreeMap<u64, Vec<NodeBeat>> = BTreeMap::new();
    for beat in beats {
        nodes.entry(beat.node_id).or_default().push(*beat);
    }
    nodes
}
