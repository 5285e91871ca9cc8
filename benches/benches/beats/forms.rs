//! Every form, as bytes a beat and as two operations that go through the sample again and again.

use std::hint::black_box;
use std::io::Write as _;

use heartbeat_codec::batch::{BatchDecoder, BatchEncoder, BatchLimits};
use heartbeat_codec::beat::Beat;
use heartbeat_codec::datagram::{DATAGRAM_BYTES, DatagramKey, Receiver, Sender};
use heartbeat_codec::delta::{DELTA_BYTES_MAX, Decoded, DeltaBeat, DeltaDecoder, DeltaEncoder};
use heartbeat_codec::fixed::{FIXED_BYTES, FixedBeat};
use heartbeat_codec::node::NodeBeat;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::CParameter;

use crate::fleet::{Fleet, INTERVAL_MS};

const LEVEL: i32 = 3;
const BATCH: usize = 1_000;

pub(crate) struct Form {
    pub(crate) name: &'static str,
    pub(crate) bytes: f64,
    /// How many beats one call of an operation works on.
    pub(crate) beats_a_call: f64,
    pub(crate) encode: Box<dyn FnMut()>,
    pub(crate) decode: Box<dyn FnMut()>,
}

pub(crate) fn all(fleet: &Fleet) -> Vec<Form> {
    let beats = fleet.in_order();
    let messages: Vec<Vec<u8>> = beats.iter().map(protobuf).collect();
    vec![
        json(&beats),
        plain_protobuf(&beats),
        packed("protobuf, zstd, each alone", &beats, &[]),
        streamed(fleet),
        packed(
            "protobuf, zstd with a trained dictionary",
            &beats,
            &dictionary(&messages),
        ),
        many("1,000 protobufs, zstd -3", &beats, 3),
        many("1,000 protobufs, zstd -19", &beats, 19),
        framed(&beats),
        fixed(&beats),
        delta(fleet),
        datagram(&beats),
        batch("batch of 1,000", &beats, 3),
        batch("batch of 1,000, zstd -19", &beats, 19),
    ]
}

fn protobuf(beat: &NodeBeat) -> Vec<u8> {
    let mut out = Vec::new();
    beat.encode_protobuf(&mut out);
    out
}

/// A form whose beats stand alone: `encode` appends one, `decode` reads what it wrote.
fn alone(
    name: &'static str,
    beats: &[NodeBeat],
    mut encode: impl FnMut(&NodeBeat, &mut Vec<u8>) + 'static,
    mut decode: impl FnMut(&[u8]) -> NodeBeat + 'static,
) -> Form {
    let beats = beats[..10_000].to_vec();
    let mut wires = Vec::new();
    for beat in &beats {
        let mut wire = Vec::new();
        encode(beat, &mut wire);
        let read = decode(&wire);
        assert_eq!(read.load_percent, beat.load_percent, "{name}");
        wires.push(wire);
    }
    let bytes = wires.iter().map(Vec::len).sum::<usize>() as f64 / wires.len() as f64;
    let (mut at, mut out) = (0, Vec::with_capacity(1 << 10));
    let encode = move || {
        out.clear();
        encode(&beats[at], &mut out);
        black_box(&out);
        at = (at + 1) % beats.len();
    };
    let mut at = 0;
    let decode = move || {
        black_box(decode(black_box(&wires[at])));
        at = (at + 1) % wires.len();
    };
    Form {
        name,
        bytes,
        beats_a_call: 1.0,
        encode: Box::new(encode),
        decode: Box::new(decode),
    }
}

fn json(beats: &[NodeBeat]) -> Form {
    alone(
        "JSON",
        beats,
        |beat, out| serde_json::to_writer(out, beat).expect("JSON"),
        |wire| serde_json::from_slice(wire).expect("JSON"),
    )
}

fn plain_protobuf(beats: &[NodeBeat]) -> Form {
    alone(
        "protobuf",
        beats,
        |beat, out| beat.encode_protobuf(out),
        |wire| NodeBeat::decode_protobuf(wire).expect("protobuf"),
    )
}

fn dictionary(messages: &[Vec<u8>]) -> Vec<u8> {
    // From beats that come after those that are measured.
    zstd::dict::from_samples(&messages[40_000..50_000], 4_096).expect("enough samples")
}

fn packed(name: &'static str, beats: &[NodeBeat], dictionary: &[u8]) -> Form {
    let mut packer = Compressor::with_dictionary(LEVEL, dictionary).expect("memory");
    // As little around the message as zstd can do.
    let flags = [
        CParameter::ContentSizeFlag(false),
        CParameter::DictIdFlag(false),
    ];
    let set = flags.map(|flag| packer.set_parameter(flag));
    assert!(set.iter().all(Result::is_ok), "zstd knows its flags");
    let mut unpacker = Decompressor::with_dictionary(dictionary).expect("memory");
    let encode = move |beat: &NodeBeat, out: &mut Vec<u8>| {
        out.extend(packer.compress(&protobuf(beat)).expect("memory"));
    };
    let decode = move |wire: &[u8]| {
        let message = unpacker.decompress(wire, 64).expect("ours");
        NodeBeat::decode_protobuf(&message).expect("protobuf")
    };
    alone(name, beats, encode, decode)
}

/// A stream for each connection, flushed after each beat.
fn streamed(fleet: &Fleet) -> Form {
    let streams: Vec<Vec<Vec<u8>>> = fleet.nodes[..100]
        .iter()
        .map(|beats| stream(beats))
        .collect();
    let sizes = streams.iter().flatten().map(Vec::len);
    let bytes = sizes.sum::<usize>() as f64 / (100 * fleet.nodes[0].len()) as f64;
    let beats = fleet.nodes[0].clone();
    let pieces = streams[0].clone();
    let calls = beats.len() as f64;
    let encode = move || drop(black_box(stream(&beats)));
    let decode = move || {
        let mut unpacker = zstd::stream::write::Decoder::new(Vec::new()).expect("memory");
        for piece in &pieces {
            unpacker.get_mut().clear();
            unpacker.write_all(piece).expect("ours");
            unpacker.flush().expect("ours");
            black_box(NodeBeat::decode_protobuf(unpacker.get_ref()).expect("protobuf"));
        }
    };
    Form {
        name: "protobuf, zstd stream, flushed",
        bytes,
        beats_a_call: calls,
        encode: Box::new(encode),
        decode: Box::new(decode),
    }
}

fn stream(beats: &[NodeBeat]) -> Vec<Vec<u8>> {
    let mut packer = zstd::stream::write::Encoder::new(Vec::new(), LEVEL).expect("memory");
    let piece = |beat: &NodeBeat| {
        packer.write_all(&protobuf(beat)).expect("memory");
        packer.flush().expect("memory");
        std::mem::take(packer.get_mut())
    };
    beats.iter().map(piece).collect()
}

/// What a relay could do without this crate: messages with their lengths, one after the other, compressed together.
fn many(name: &'static str, beats: &[NodeBeat], level: i32) -> Form {
    let lists: Vec<Vec<NodeBeat>> = beats
        .chunks_exact(BATCH)
        .take(20)
        .map(<[_]>::to_vec)
        .collect();
    let mut packer = Compressor::new(level).expect("memory");
    let mut pack = move |beats: &Vec<NodeBeat>| {
        let mut plain = Vec::new();
        for beat in beats {
            let message = protobuf(beat);
            plain.push(message.len() as u8);
            plain.extend(message);
        }
        packer.compress(&plain).expect("memory")
    };
    let wires: Vec<Vec<u8>> = lists.iter().map(&mut pack).collect();
    let mut unpacker = Decompressor::new().expect("memory");
    let unpack = move |wire: &Vec<u8>| {
        let plain = unpacker.decompress(wire, 1 << 20).expect("ours");
        let mut rest = &plain[..];
        while let Some((length, more)) = rest.split_first() {
            let (message, more) = more.split_at(usize::from(*length));
            black_box(NodeBeat::decode_protobuf(message).expect("protobuf"));
            rest = more;
        }
    };
    in_turn(
        name,
        lists,
        wires,
        move |beats| drop(black_box(pack(beats))),
        unpack,
    )
}

/// A form of whole batches, which are written and read in their order, again and again.
fn in_turn(
    name: &'static str,
    lists: Vec<Vec<NodeBeat>>,
    wires: Vec<Vec<u8>>,
    mut encode: impl FnMut(&Vec<NodeBeat>) + 'static,
    mut decode: impl FnMut(&Vec<u8>) + 'static,
) -> Form {
    // The later half: rhythms are known by then.
    let later = &wires[wires.len() / 2..];
    let bytes = later.iter().map(Vec::len).sum::<usize>() as f64 / (later.len() * BATCH) as f64;
    let mut at = 0;
    let encode = move || {
        encode(&lists[at]);
        at = (at + 1) % lists.len();
    };
    let mut at = 0;
    let decode = move || {
        decode(&wires[at]);
        at = (at + 1) % wires.len();
    };
    Form {
        name,
        bytes,
        beats_a_call: BATCH as f64,
        encode: Box::new(encode),
        decode: Box::new(decode),
    }
}

fn framed(beats: &[NodeBeat]) -> Form {
    use heartbeat_codec::frame;

    let encode = |beat: &NodeBeat, out: &mut Vec<u8>| {
        frame::encode_into(out, 3, &as_beat(beat).encode()).expect("a valid frame");
    };
    let decode = |wire: &[u8]| match frame::decode(wire, 64) {
        Ok(frame::Decoded::Frame { body, .. }) => node_beat(Beat::decode(body).expect("ours")),
        _ => unreachable!("a whole frame"),
    };
    alone("framed beat", beats, encode, decode)
}

fn as_beat(beat: &NodeBeat) -> Beat {
    Beat {
        stamp_ms: beat.timestamp_ms as u32,
        load_percent: beat.load_percent,
        rtt_ms: None,
    }
}

fn node_beat(beat: Beat) -> NodeBeat {
    NodeBeat {
        timestamp_ms: beat.stamp_ms.into(),
        node_id: 0,
        load_percent: beat.load_percent,
    }
}

/// Without the vector of the other forms, which costs more than the beat itself.
fn fixed(beats: &[NodeBeat]) -> Form {
    let beats: Vec<FixedBeat> = beats[..10_000]
        .iter()
        .map(|beat| FixedBeat {
            stamp_ms: beat.timestamp_ms as u32,
            load_percent: beat.load_percent,
        })
        .collect();
    let wire: Vec<u8> = beats.iter().flat_map(FixedBeat::encode).collect();
    let mut at = 0;
    let encode = move || {
        black_box(beats[at].encode());
        at = if at + 1 < beats.len() { at + 1 } else { 0 };
    };
    let mut at = 0;
    let decode = move || {
        black_box(FixedBeat::decode(&wire[at..]).expect("ours"));
        at = if at + FIXED_BYTES < wire.len() {
            at + FIXED_BYTES
        } else {
            0
        };
    };
    Form {
        name: "fixed beat",
        bytes: FIXED_BYTES as f64,
        beats_a_call: 1.0,
        encode: Box::new(encode),
        decode: Box::new(decode),
    }
}

/// One connection a node. Bytes are without its resync; times are of 10 nodes with 1,000 beats each.
fn delta(fleet: &Fleet) -> Form {
    let (all, wire) = delta_beats(&fleet.nodes);
    let rest = wire.len() - DELTA_BYTES_MAX * fleet.nodes.len();
    let bytes = rest as f64 / (all.len() - fleet.nodes.len()) as f64;
    let (beats, wire) = delta_beats(&Fleet::new(5.0, 10, 1_000).nodes);
    let (mut at, mut encoder) = (0, DeltaEncoder::new(INTERVAL_MS));
    let encode = move || {
        black_box(encoder.encode(&beats[at], None));
        at = if at + 1 < beats.len() { at + 1 } else { 0 };
    };
    let (mut at, mut decoder) = (0, DeltaDecoder::new());
    let decode = move || {
        let Ok(Decoded::Beat { beat, consumed, .. }) = decoder.decode(&wire[at..]) else {
            unreachable!("ours");
        };
        black_box(beat);
        at += consumed;
        if at == wire.len() {
            at = 0;
        }
    };
    Form {
        name: "delta beat",
        bytes,
        beats_a_call: 1.0,
        encode: Box::new(encode),
        decode: Box::new(decode),
    }
}

/// The nodes' beats, one node after the other, and their bytes.
fn delta_beats(nodes: &[Vec<NodeBeat>]) -> (Vec<DeltaBeat>, Vec<u8>) {
    let (mut beats, mut wire) = (Vec::new(), Vec::new());
    for node in nodes {
        let mut encoder = DeltaEncoder::new(INTERVAL_MS);
        for beat in node {
            let beat = DeltaBeat {
                stamp_ms: beat.timestamp_ms as u32,
                load_percent: beat.load_percent,
            };
            beats.push(beat);
            wire.extend_from_slice(encoder.encode(&beat, None).as_bytes());
        }
    }
    (beats, wire)
}

fn datagram(beats: &[NodeBeat]) -> Form {
    let beat = as_beat(&beats[0]);
    let key = DatagramKey::derive(b"a session's secret");
    let mut sender = Sender::new(7, key.clone());
    let receiver = Receiver::new(7, key);
    let sent = sender.seal(&beat).expect("the first");
    let encode = move || _ = black_box(sender.seal(&beat));
    let decode = move || {
        let mut receiver = receiver.clone();
        black_box(receiver.open(&sent).expect("authentic"));
    };
    Form {
        name: "datagram, authenticated",
        bytes: DATAGRAM_BYTES as f64,
        beats_a_call: 1.0,
        encode: Box::new(encode),
        decode: Box::new(decode),
    }
}

fn batch(name: &'static str, beats: &[NodeBeat], level: i32) -> Form {
    let limits = BatchLimits::default();
    let lists: Vec<Vec<NodeBeat>> = beats.chunks_exact(BATCH).map(<[_]>::to_vec).collect();
    let first = lists[0][0];
    let mut encoder = BatchEncoder::new(limits, INTERVAL_MS).level(level);
    let mut pack = move |beats: &Vec<NodeBeat>| {
        if beats[0] == first {
            encoder.reset();
        }
        let mut wire = Vec::new();
        let horizon_ms = beats[BATCH - 1].timestamp_ms;
        encoder
            .encode(beats, horizon_ms, &mut wire)
            .expect("within the limits");
        wire
    };
    let wires: Vec<Vec<u8>> = lists.iter().map(&mut pack).collect();
    let mut decoder = BatchDecoder::new(limits);
    let mut heard = Vec::new();
    let unpack = move |wire: &Vec<u8>| {
        heard.clear();
        decoder.decode(wire, &mut heard).expect("ours");
        assert_eq!(heard.len(), BATCH);
    };
    in_turn(
        name,
        lists,
        wires,
        move |beats| drop(black_box(pack(beats))),
        unpack,
    )
}
