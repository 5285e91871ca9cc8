//! The relay's side.

use alloc::vec::Vec;
use core::fmt;
use std::collections::HashMap;

use zstd::bulk::Compressor;

use super::wire::{BitWriter, fold, put, put_signed};
use super::{
    BITS_MAX, BatchError, BatchLimits, CHANGE, CHANGES, ESCAPE, MAGIC, Node, STEPS, VERSION, over,
    remove,
};
use crate::node::NodeBeat;

/// zstd's level unless [`BatchEncoder::level`] sets another: higher ones win nothing on noise.
const LEVEL: i32 = 3;

/// Writes batches for one receiver.
pub struct BatchEncoder {
    limits: BatchLimits,
    interval_ms: u32,
    nodes: Vec<Node>,
    places: HashMap<u64, usize>,
    leaving: Vec<usize>,
    horizon_ms: u64,
    sequence: u32,
    zstd: Compressor<'static>,
}

impl BatchEncoder {
    /// A relay whose nodes beat about every `interval_ms`; the first batch begins the receiver's table anew.
    ///
    /// # Panics
    ///
    /// When zstd has no memory for its state, about 1 MB.
    #[must_use]
    pub fn new(limits: BatchLimits, interval_ms: u32) -> Self {
        BatchEncoder {
            limits,
            interval_ms,
            nodes: Vec::new(),
            places: HashMap::new(),
            leaving: Vec::new(),
            horizon_ms: 0,
            sequence: 0,
            zstd: Compressor::new(LEVEL).expect("zstd has memory for its state"),
        }
    }

    /// Sets zstd's level, 1 to 22; others are brought to the nearest.
    ///
    /// # Panics
    ///
    /// When zstd has no memory for its state.
    #[must_use]
    pub fn level(mut self, level: i32) -> Self {
        self.zstd
            .set_compression_level(level.clamp(1, 22))
            .expect("zstd has memory for its state");
        self
    }

    /// Begins anew with the next batch: after a reconnect, or when the receiver is out of sync.
    pub fn reset(&mut self) {
        self.nodes.clear();
        self.places.clear();
        self.leaving.clear();
        (self.horizon_ms, self.sequence) = (0, 0);
    }

    /// How many nodes the table has.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Takes a node out of the table with the next batch; false when it is not there. A node that beats again is
    /// new then.
    pub fn remove(&mut self, node_id: u64) -> bool {
        let place = self.places.remove(&node_id);
        self.leaving.extend(place);
        place.is_some()
    }

    /// Appends a batch with these beats to `out`, those of each node in their order. `horizon_ms` is the time up to which
    /// all beats are in this batch or an earlier one, on the clock of the timestamps: the receiver expects as much, and
    /// what is otherwise costs 2 bytes a node. A load above 100 is written as 100. O(beats + nodes).
    ///
    /// # Errors
    ///
    /// When there would be more beats, bytes or nodes than the limits allow. Nothing is written then; after too many
    /// bytes the next batch begins anew.
    pub fn encode(
        &mut self,
        beats: &[NodeBeat],
        horizon_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), BatchError> {
        self.check_counts(beats)?;
        let mut body = Vec::new();
        put(&mut body, u64::from(self.sequence));
        put_signed(&mut body, horizon_ms.wrapping_sub(self.horizon_ms) as i64);
        put(&mut body, beats.len() as u64);

        let mut changes = Vec::new();
        self.write_leaving(&mut changes);
        let order = self.write_new(beats, &mut changes);
        self.write_counts(&order, horizon_ms, &mut changes);
        self.part(&changes, Unpacked::Unknown, &mut body);
        let escapes = self.write_beats(beats, &order, &mut body);
        (self.horizon_ms, self.sequence) = (horizon_ms, self.sequence.wrapping_add(1).max(1));

        let start = out.len();
        out.push(VERSION);
        put(out, body.len() as u64);
        let whole = out.len() - start + body.len();
        if whole.max(changes.len()).max(escapes) > self.limits.bytes_max {
            out.truncate(start);
            self.reset();
            return Err(over("bytes"));
        }
        out.extend_from_slice(&body);
        Ok(())
    }

    fn check_counts(&self, beats: &[NodeBeat]) -> Result<(), BatchError> {
        if beats.len() > self.limits.beats_max {
            return Err(over("beats"));
        }
        if self.places.len() + beats.len() <= self.limits.nodes_max {
            return Ok(());
        }
        let mut new: Vec<u64> = beats.iter().map(|beat| beat.node_id).collect();
        new.retain(|node_id| !self.places.contains_key(node_id));
        new.sort_unstable();
        new.dedup();
        match self.places.len() + new.len() > self.limits.nodes_max {
            true => Err(over("nodes")),
            false => Ok(()),
        }
    }

    fn write_leaving(&mut self, changes: &mut Vec<u8>) {
        self.leaving.sort_unstable();
        put(changes, self.leaving.len() as u64);
        put_gaps(changes, self.leaving.iter().copied());
        if !self.leaving.is_empty() {
            remove(&mut self.nodes, &self.leaving);
            self.leaving.clear();
            self.places.clear();
            let places = self.nodes.iter().enumerate();
            self.places
                .extend(places.map(|(place, node)| (node.last.node_id, place)));
        }
    }

    /// Writes nodes that are new, each with its first beat. Returns (place, beat) for the others, by place.
    fn write_new(&mut self, beats: &[NodeBeat], changes: &mut Vec<u8>) -> Vec<(usize, usize)> {
        let (mut new, mut new_nodes) = (Vec::new(), 0);
        let mut before = NodeBeat::default();
        let mut order = Vec::with_capacity(beats.len());
        for (at, beat) in beats.iter().enumerate() {
            let first = NodeBeat {
                load_percent: beat.load_percent.map(|percent| percent.min(100)),
                ..*beat
            };
            let place = *self.places.entry(beat.node_id).or_insert(self.nodes.len());
            if place < self.nodes.len() {
                order.push((place, at));
                continue;
            }
            let node = Node::new(first, self.interval_ms);
            let id_step = first.node_id.wrapping_sub(before.node_id);
            put_signed(&mut new, id_step as i64);
            let time_step = first.timestamp_ms.wrapping_sub(before.timestamp_ms);
            put_signed(&mut new, time_step as i64);
            put(&mut new, u64::from(node.interval_ms));
            new.push(node.track.load);
            new_nodes += 1;
            before = first;
            self.nodes.push(node);
        }
        put(changes, new_nodes);
        changes.append(&mut new);
        order.sort_by_key(|(place, _)| *place);
        order
    }

    /// Writes for which nodes the number of beats is not the expected one.
    fn write_counts(&self, order: &[(usize, usize)], horizon_ms: u64, changes: &mut Vec<u8>) {
        let mut surprises = Vec::new();
        let mut rest = order;
        for (place, node) in self.nodes.iter().enumerate() {
            let count = rest.iter().take_while(|(at, _)| *at == place).count();
            rest = &rest[count..];
            let expected = node.expected(self.horizon_ms, horizon_ms);
            let surprise = (count as u64).wrapping_sub(expected) as i64;
            if surprise != 0 {
                surprises.push((place, surprise));
            }
        }
        put(changes, surprises.len() as u64);
        put_gaps(changes, surprises.iter().map(|(place, _)| *place));
        for (_, surprise) in surprises {
            put_signed(changes, surprise);
        }
    }

    /// Returns the length of the escapes.
    fn write_beats(
        &mut self,
        beats: &[NodeBeat],
        order: &[(usize, usize)],
        body: &mut Vec<u8>,
    ) -> usize {
        let mut errors = Vec::with_capacity(order.len());
        for (place, at) in order {
            let node = &mut self.nodes[*place];
            let beat = &beats[*at];
            let load = beat.load_percent.map(|percent| percent.min(100));
            let off_ms = beat.timestamp_ms.wrapping_sub(node.predicted_ms()) as i64;
            let change = match (node.last.load_percent, load) {
                (Some(before), Some(now)) => Some(i64::from(now) - i64::from(before)),
                (None, None) => Some(0),
                _ => None,
            };
            node.learn(off_ms, load);
            let change = change.filter(|change| change.unsigned_abs() <= CHANGE);
            errors.push((off_ms, change, node.track.load));
        }
        let bits = best_bits(&errors);
        let (mut symbols, mut escapes) = (Vec::with_capacity(errors.len()), Vec::new());
        let mut low = BitWriter::default();
        for (off_ms, change, load) in errors {
            let symbol = symbol(off_ms, change, bits);
            symbols.push(symbol);
            if symbol == ESCAPE {
                put_signed(&mut escapes, off_ms);
                escapes.push(load);
            } else {
                low.put((off_ms + half(bits)) as u64 & ((1 << bits) - 1), bits);
            }
        }
        body.push(bits);
        self.part(&escapes, Unpacked::Unknown, body);
        self.part(&symbols, Unpacked::Known, body);
        body.extend_from_slice(&low.finish());
        escapes.len()
    }

    /// A part with its length, compressed when that is shorter.
    fn part(&mut self, bytes: &[u8], unpacked: Unpacked, out: &mut Vec<u8>) {
        let mut packed = alloc::vec![0; bytes.len()];
        // It fails when the result is longer than the buffer.
        match self.zstd.compress_to_buffer(bytes, &mut packed[..]) {
            Ok(length) if packed.starts_with(&MAGIC) => {
                let packed = &packed[MAGIC.len()..length];
                put(out, (packed.len() as u64) << 1 | 1);
                if unpacked == Unpacked::Unknown {
                    put(out, bytes.len() as u64);
                }
                out.extend_from_slice(packed);
            }
            _ => {
                put(out, (bytes.len() as u64) << 1);
                out.extend_from_slice(bytes);
            }
        }
    }
}

/// Whether the reader knows how long a part is when it is unpacked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unpacked {
    Known,
    Unknown,
}

/// Ascending places, each as the number of places between it and the one before.
fn put_gaps(out: &mut Vec<u8>, places: impl Iterator<Item = usize>) {
    let mut next = 0;
    for place in places {
        put(out, (place - next) as u64);
        next = place + 1;
    }
}

/// What rounds an error to the nearest step.
pub(super) fn half(bits: u8) -> i64 {
    (1 << bits) >> 1
}

fn symbol(off_ms: i64, change: Option<i64>, bits: u8) -> u8 {
    // So that adding half a step cannot overflow.
    let near = off_ms.unsigned_abs() < 1 << 40;
    let steps = off_ms.saturating_add(half(bits)) >> bits;
    match change {
        Some(change) if near && steps.unsigned_abs() <= STEPS => {
            (fold(steps) * CHANGES + fold(change)) as u8
        }
        _ => ESCAPE,
    }
}

/// How many low bits of the errors stand as they are, for the shortest batch: estimated from the entropy of the symbols.
fn best_bits(errors: &[(i64, Option<i64>, u8)]) -> u8 {
    let cost = |bits: u8| {
        let mut histogram = [0u32; 256];
        for (off_ms, change, _) in errors {
            histogram[usize::from(symbol(*off_ms, *change, bits))] += 1;
        }
        let all = errors.len() as f32;
        let mut cost = 0.0;
        for count in histogram.into_iter().filter(|count| *count > 0) {
            // Its share of the entropy, and about 5 bits to say how long its code is.
            cost += count as f32 * (all / count as f32).log2() + 5.0;
        }
        let escapes = histogram[usize::from(ESCAPE)] as f32;
        cost + (all - escapes) * f32::from(bits) + escapes * 32.0
    };
    let costs = (0..=BITS_MAX).map(|bits| (bits, cost(bits)));
    let mut best = (0, f32::INFINITY);
    for (bits, cost) in costs {
        if cost < best.1 {
            best = (bits, cost);
        } else if bits > best.0 + 2 {
            break;
        }
    }
    best.0
}

impl fmt::Debug for BatchEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchEncoder")
            .field("nodes", &self.nodes.len())
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}
