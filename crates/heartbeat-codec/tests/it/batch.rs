//! Batches: what is sent is what arrives, in about a byte a beat; nonsense and too much are refused.

use std::collections::BTreeMap;

use heartbeat_codec::batch::{BatchDecoder, BatchEncoder, BatchLimits, Decoded};
use heartbeat_codec::node::NodeBeat;
use proptest::prelude::*;

use crate::random::Random;
use crate::vectors::{bytes, vectors};

const LIMITS: BatchLimits = BatchLimits {
    bytes_max: 1 << 16,
    beats_max: 5_000,
    nodes_max: 4_000,
};

/// Beats of one batch by node; those of a node in their order.
fn by_node(beats: &[NodeBeat]) -> BTreeMap<u64, Vec<NodeBeat>> {
    let mut nodes: BTreeMap<u64, Vec<NodeBeat>> = BTreeMap::new();
    for beat in beats {
        nodes.entry(beat.node_id).or_default().push(*beat);
    }
    nodes
}

fn decode(decoder: &mut BatchDecoder, wire: &[u8]) -> Vec<NodeBeat> {
    let mut beats = Vec::new();
    let consumed = wire.len();
    assert_eq!(
        decoder.decode(wire, &mut beats).expect("valid"),
        Decoded::Batch { consumed }
    );
    beats
}

/// 2,000 nodes on grids of 30 s, with loads that walk by at most 2, in the order in which their beats come.
fn fleet(sigma_ms: f64, rounds: u64) -> Vec<NodeBeat> {
    let mut random = Random(1);
    let mut beats = Vec::new();
    for node in 0..2_000 {
        let phase_ms = 1_700_000_000_000 + random.below(30_000);
        let mut load = 50;
        for round in 0..rounds {
            load = (load + random.below(5) as i64 - 2).clamp(0, 100);
            let at_ms = phase_ms + round * 30_000;
            beats.push(NodeBeat {
                timestamp_ms: at_ms
                    .saturating_add_signed((sigma_ms * random.normal()).round() as i64),
                node_id: 100_000 + node,
                load_percent: Some(load as u8),
            });
        }
    }
    beats.sort_by_key(|beat| beat.timestamp_ms);
    beats
}

#[test]
fn a_beat_costs_about_a_byte() {
    for (sigma_ms, bytes_max) in [(1.0, 0.64), (5.0, 1.0), (50.0, 1.6)] {
        let (mut relay, mut receiver) =
            (BatchEncoder::new(LIMITS, 30_000), BatchDecoder::new(LIMITS));
        let (mut bytes, mut count) = (0, 0);
        for (at, beats) in fleet(sigma_ms, 30).chunks(1_000).enumerate() {
            let horizon_ms = beats[beats.len() - 1].timestamp_ms;
            let mut wire = Vec::new();
            relay
                .encode(beats, horizon_ms, &mut wire)
                .expect("within the limits");
            assert_eq!(by_node(&decode(&mut receiver, &wire)), by_node(beats));
            // After ten rounds the rhythms are known.
            if at >= 20 {
                bytes += wire.len();
                count += beats.len();
            }
        }
        let cost = bytes as f64 / count as f64;
        println!("sigma {sigma_ms} ms: {cost:.3} bytes a beat");
        assert!(cost <= bytes_max, "{sigma_ms}: {cost}");
        assert_eq!((relay.nodes(), receiver.nodes()), (2_000, 2_000));
    }
}

#[test]
fn nodes_that_fall_silent_cost_little_and_leave() {
    let (mut relay, mut receiver) = (BatchEncoder::new(LIMITS, 1_000), BatchDecoder::new(LIMITS));
    let beat = |node_id, timestamp_ms| NodeBeat {
        timestamp_ms,
        node_id,
        load_percent: None,
    };
    let mut sizes = Vec::new();
    for round in 1..=10u64 {
        // Every node up to the fifth round, then only one.
        let nodes = if round <= 5 { 1_000 } else { 1 };
        let beats: Vec<_> = (0..nodes).map(|node| beat(node, round * 1_000)).collect();
        let mut wire = Vec::new();
        relay
            .encode(&beats, round * 1_000, &mut wire)
            .expect("within the limits");
        assert_eq!(decode(&mut receiver, &wire), beats);
        sizes.push(wire.len());
    }
    assert!(sizes[4] < 60, "all as expected: {sizes:?}");
    assert!(sizes[9] < 20, "silence is said once: {sizes:?}");
    assert!((1..1_000).all(|node| relay.remove(node)) && !relay.remove(1_000));
    let back = [beat(0, 11_000), beat(5, 11_001)];
    let mut wire = Vec::new();
    relay
        .encode(&back, 11_001, &mut wire)
        .expect("within the limits");
    assert_eq!(by_node(&decode(&mut receiver, &wire)), by_node(&back));
    assert_eq!((relay.nodes(), receiver.nodes()), (2, 2));
}

fn three(relay: &mut BatchEncoder) -> Vec<Vec<u8>> {
    let mut wires = Vec::new();
    for (at, beats) in fleet(5.0, 3).chunks(2_000).enumerate() {
        let mut wire = Vec::new();
        relay
            .encode(beats, beats[1_999].timestamp_ms, &mut wire)
            .expect("within the limits");
        assert_eq!(at, wires.len());
        wires.push(wire);
    }
    wires
}

#[test]
fn a_missing_batch_is_noticed_and_a_new_start_helps() {
    let mut relay = BatchEncoder::new(LIMITS, 30_000);
    let wires = three(&mut relay);
    let mut receiver = BatchDecoder::new(LIMITS);
    let mut out = Vec::new();
    assert!(
        receiver
            .decode(&wires[1], &mut out)
            .expect_err("no first")
            .is_out_of_sync()
    );
    decode(&mut receiver, &wires[0]);
    assert!(
        receiver
            .decode(&wires[2], &mut out)
            .expect_err("a gap")
            .is_out_of_sync()
    );
    assert!(
        receiver
            .decode(&wires[1], &mut out)
            .expect_err("too late")
            .is_out_of_sync()
    );
    assert!(out.is_empty() && receiver.nodes() == 0);
    relay.reset();
    for wire in three(&mut relay) {
        decode(&mut receiver, &wire);
    }
}

#[test]
fn a_prefix_says_how_many_bytes_it_needs() {
    let wires = three(&mut BatchEncoder::new(LIMITS, 30_000));
    let mut receiver = BatchDecoder::new(LIMITS);
    let mut out = Vec::new();
    for wire in &wires {
        // The first byte, and the length up to its last byte.
        let head = 2 + wire[1..].iter().take_while(|byte| **byte >= 0x80).count();
        for cut in 0..wire.len() {
            let bytes_min = if cut < head { cut + 1 } else { wire.len() };
            let decoded = receiver.decode(&wire[..cut], &mut out).expect("a prefix");
            assert_eq!(decoded, Decoded::NeedMore { bytes_min }, "{cut}");
        }
        assert!(out.is_empty());
        decode(&mut receiver, wire);
    }
}

#[test]
fn damage_never_panics_and_leaves_no_beats_behind() {
    let wires = three(&mut BatchEncoder::new(LIMITS, 30_000));
    let mut refused = 0;
    for bit in (0..8 * wires[1].len()).step_by(13) {
        let mut receiver = BatchDecoder::new(LIMITS);
        decode(&mut receiver, &wires[0]);
        let mut damaged = wires[1].clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let mut out = Vec::new();
        if receiver.decode(&damaged, &mut out).is_err() {
            refused += 1;
            assert!(out.is_empty());
            assert!(
                receiver
                    .decode(&wires[1], &mut out)
                    .expect_err("lost")
                    .is_out_of_sync()
            );
        }
    }
    assert!(refused > 10, "{refused}");
}

#[test]
fn each_limit_holds_on_both_sides() {
    let beats = &fleet(5.0, 1)[..100];
    let horizon_ms = beats[99].timestamp_ms;
    let mut wire = Vec::new();
    BatchEncoder::new(LIMITS, 30_000)
        .encode(beats, horizon_ms, &mut wire)
        .expect("within");
    for limits in [
        BatchLimits {
            bytes_max: wire.len() - 1,
            ..LIMITS
        },
        BatchLimits {
            beats_max: 99,
            ..LIMITS
        },
        BatchLimits {
            nodes_max: 99,
            ..LIMITS
        },
    ] {
        let mut relay = BatchEncoder::new(limits, 30_000);
        let mut out = vec![1];
        let error = relay
            .encode(beats, horizon_ms, &mut out)
            .expect_err("too much");
        assert!(error.is_over_limit(), "{error}");
        assert_eq!(out, [1]);
        relay
            .encode(&beats[..10], beats[9].timestamp_ms, &mut out)
            .expect("less is fine");
        let mut heard = Vec::new();
        let error = BatchDecoder::new(limits)
            .decode(&wire, &mut heard)
            .expect_err("too much");
        assert!(error.is_over_limit(), "{error}");
        assert!(heard.is_empty());
    }
    let exact = BatchLimits {
        bytes_max: LIMITS.bytes_max,
        beats_max: 100,
        nodes_max: 100,
    };
    decode(&mut BatchDecoder::new(exact), &wire);
}

/// LEB128 in two bytes at most.
fn number(value: usize) -> Vec<u8> {
    match value {
        0..0x80 => vec![value as u8],
        _ => vec![value as u8 | 0x80, (value >> 7) as u8],
    }
}

/// A part that unpacks to far more than it says or may.
#[test]
fn a_bomb_does_not_go_off() {
    let packed = zstd::bulk::compress(&[0; 1 << 20], 19).expect("zstd packs");
    for claimed in [vec![0x80, 0x80, 0x40], vec![0x10]] {
        // Sequence 0, horizon 0, no beats, and the changes.
        let mut body = vec![0, 0, 0];
        let packed = &packed[4..];
        body.extend(number(packed.len() << 1 | 1));
        body.extend(&claimed);
        body.extend(packed);
        let mut wire = vec![0x01];
        wire.extend(number(body.len()));
        wire.extend(body);
        let error = BatchDecoder::new(LIMITS)
            .decode(&wire, &mut Vec::new())
            .expect_err("a bomb");
        assert_eq!(error.is_over_limit(), claimed.len() == 3, "{error}");
    }
}

fn parse(text: &str) -> NodeBeat {
    let fields: Vec<&str> = text.split(':').collect();
    NodeBeat {
        node_id: fields[0].parse().expect("a node"),
        timestamp_ms: fields[1].parse().expect("a timestamp"),
        load_percent: fields[2].parse().ok(),
    }
}

#[test]
fn they_are_as_documented() {
    let (mut relay, mut receiver) = (BatchEncoder::new(LIMITS, 1_000), BatchDecoder::new(LIMITS));
    let mut wrong = Vec::new();
    for (at, (left, right)) in vectors("batch").into_iter().enumerate() {
        if at == 3 {
            relay.remove(2);
        }
        let (horizon_ms, beats) = left.split_once(' ').expect("horizon beats");
        let beats: Vec<NodeBeat> = beats.split(' ').map(parse).collect();
        let mut wire = Vec::new();
        relay
            .encode(&beats, horizon_ms.parse().expect("a time"), &mut wire)
            .expect("within");
        assert_eq!(by_node(&decode(&mut receiver, &wire)), by_node(&beats));
        if wire != bytes(right.trim_end_matches('@')) {
            let hex: Vec<String> = wire.iter().map(|byte| format!("{byte:02x}")).collect();
            wrong.push(format!("{left} = {}", hex.join(" ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn any_batch() -> impl Strategy<Value = (Vec<NodeBeat>, u64, Vec<u64>)> {
    let step_ms = prop_oneof![8 => 900u64..1_100, 2 => 0u64..5_000, 1 => any::<u64>()];
    let load = prop_oneof![4 => (48u8..52).prop_map(Some), 1 => (0u8..=100).prop_map(Some), 1 => Just(None)];
    let beat =
        (0u64..20, step_ms, load).prop_map(|(node_id, timestamp_ms, load_percent)| NodeBeat {
            timestamp_ms,
            node_id,
            load_percent,
        });
    let horizon = prop_oneof![4 => 800u64..1_200, 1 => any::<u64>()];
    (
        prop::collection::vec(beat, 0..60),
        horizon,
        prop::collection::vec(0u64..20, 0..3),
    )
}

proptest! {
    #[test]
    fn what_is_sent_arrives(batches in prop::collection::vec(any_batch(), 1..12), interval_ms in 0u32..3_000) {
        let mut relay = BatchEncoder::new(LIMITS, interval_ms);
        let mut receiver = BatchDecoder::new(LIMITS);
        let (mut now_ms, mut horizon_ms) = ([0u64; 20], 0u64);
        for (mut beats, ahead_ms, leaving) in batches {
            for node_id in leaving {
                relay.remove(node_id);
            }
            for beat in &mut beats {
                // Times are steps until here.
                let now_ms = &mut now_ms[beat.node_id as usize];
                *now_ms = now_ms.wrapping_add(beat.timestamp_ms);
                beat.timestamp_ms = *now_ms;
            }
            horizon_ms = horizon_ms.wrapping_add(ahead_ms);
            let mut wire = Vec::new();
            relay.encode(&beats, horizon_ms, &mut wire).expect("within the limits");
            prop_assert_eq!(by_node(&decode(&mut receiver, &wire)), by_node(&beats));
            prop_assert_eq!(relay.nodes(), receiver.nodes());
        }
    }

    #[test]
    fn any_bytes_are_judged(body in prop::collection::vec(0u8..6, 0..60)) {
        let mut wire = vec![0x01, body.len() as u8];
        wire.extend(&body);
        let mut out = Vec::new();
        if BatchDecoder::new(LIMITS).decode(&wire, &mut out).is_err() {
            prop_assert!(out.is_empty());
        }
    }
}
