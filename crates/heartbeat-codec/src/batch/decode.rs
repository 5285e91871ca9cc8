//! The receiver's side.

use alloc::vec::Vec;
use core::fmt;

use zstd::bulk::Decompressor;

use super::encode::half;
use super::wire::{BitReader, Reader, unfold};
use super::{
    BITS_MAX, BatchError, BatchLimits, CHANGES, ESCAPE, MAGIC, Node, Problem, VERSION, malformed,
    over, remove,
};
use crate::node::NodeBeat;
use crate::track::{INTERVAL_MS_MAX, LOAD_UNKNOWN};

/// What stands at the start of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A whole batch, whose beats were appended.
    Batch {
        /// Bytes of the input that it took.
        consumed: usize,
    },
    /// The start of a batch. Nothing was learned: ask again with more.
    NeedMore {
        /// The length of the whole batch once that is known, before that one byte more.
        bytes_min: usize,
    },
}

/// Reads the batches of one relay.
pub struct BatchDecoder {
    limits: BatchLimits,
    nodes: Vec<Node>,
    horizon_ms: u64,
    /// The batch to come; 0 after an error, and at first.
    sequence: u32,
    zstd: Decompressor<'static>,
}

impl BatchDecoder {
    /// A receiver that waits for a first batch.
    ///
    /// # Panics
    ///
    /// When zstd has no memory for its state, about 100 kB.
    #[must_use]
    pub fn new(limits: BatchLimits) -> Self {
        BatchDecoder {
            limits,
            nodes: Vec::new(),
            horizon_ms: 0,
            sequence: 0,
            zstd: Decompressor::new().expect("zstd has memory for its state"),
        }
    }

    /// How many nodes the table has.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Decodes the batch at the start of `input` and appends its beats to `out`: first those of nodes that are new, then
    /// the others by node, those of each node in their order. O(beats + nodes); never more memory than the limits say.
    ///
    /// # Errors
    ///
    /// When the bytes are no batch, a batch is missing before this one, or it is over a limit; `out` is as before
    /// then. The table is lost: only a batch that begins anew is understood after that.
    pub fn decode(&mut self, input: &[u8], out: &mut Vec<NodeBeat>) -> Result<Decoded, BatchError> {
        let before = out.len();
        let result = self.decode_one(input, out);
        if result.is_err() {
            out.truncate(before);
            self.nodes.clear();
            self.sequence = 0;
        }
        result
    }

    fn decode_one(&mut self, input: &[u8], out: &mut Vec<NodeBeat>) -> Result<Decoded, BatchError> {
        match self.delimit(input)? {
            Ok((body, consumed)) => {
                let sequence = self.read(Reader(body), out)?;
                self.sequence = sequence.wrapping_add(1).max(1);
                Ok(Decoded::Batch { consumed })
            }
            Err(bytes_min) => Ok(Decoded::NeedMore { bytes_min }),
        }
    }

    /// The body and the length of the whole, or how many bytes are needed.
    fn delimit<'a>(&self, input: &'a [u8]) -> Result<Result<(&'a [u8], usize), usize>, BatchError> {
        match input.first() {
            None => return Ok(Err(1)),
            Some(&VERSION) => {}
            Some(_) => return Err(malformed("the first byte is not 1")),
        }
        let mut reader = Reader(&input[1..]);
        let unfinished = reader.0.len() < 10 && reader.0.iter().all(|byte| *byte >= 0x80);
        if unfinished {
            return Ok(Err(input.len() + 1));
        }
        let length = reader.count(self.limits.bytes_max, "bytes")?;
        let consumed = input.len() - reader.0.len() + length;
        if consumed > self.limits.bytes_max {
            return Err(over("bytes"));
        }
        match reader.bytes(length) {
            Ok(body) => Ok(Ok((body, consumed))),
            Err(_) => Ok(Err(consumed)),
        }
    }

    /// Returns the batch's number.
    fn read(&mut self, mut body: Reader<'_>, out: &mut Vec<NodeBeat>) -> Result<u32, BatchError> {
        let sequence =
            u32::try_from(body.number()?).map_err(|_| malformed("its number is too large"))?;
        if sequence == 0 {
            self.nodes.clear();
            self.horizon_ms = 0;
        } else if sequence != self.sequence {
            return Err(BatchError(Problem::OutOfSync {
                sequence,
                expected: self.sequence,
            }));
        }
        let from_ms = self.horizon_ms;
        self.horizon_ms = from_ms.wrapping_add_signed(body.signed()?);
        let beats = body.count(self.limits.beats_max, "beats")?;

        let changes = self.part(&mut body, self.limits.bytes_max, false)?;
        let mut changes = Reader(&changes);
        self.read_leaving(&mut changes)?;
        let new = self.read_new(&mut changes, beats, out)?;
        let counts = self.read_counts(&mut changes, from_ms, beats - new)?;
        changes.end()?;

        let bits = body.byte()?;
        if bits > BITS_MAX {
            return Err(malformed("too many low bits"));
        }
        let escapes = self.part(&mut body, self.limits.bytes_max, false)?;
        let symbols = self.part(&mut body, beats - new, true)?;
        if symbols.len() != beats - new {
            return Err(malformed("not one symbol for each beat"));
        }
        let mut columns = Columns {
            symbols: symbols.iter(),
            bits,
            low: BitReader::new(body.0),
            escapes: Reader(&escapes),
        };
        for (place, count) in counts {
            for _ in 0..count {
                out.push(columns.next(&mut self.nodes[place])?);
            }
        }
        columns.escapes.end()?;
        columns.low.end()?;
        Ok(sequence)
    }

    /// A part of at most, or if that is known exactly, so many bytes when unpacked.
    fn part(
        &mut self,
        body: &mut Reader<'_>,
        bytes_max: usize,
        is_exact: bool,
    ) -> Result<Vec<u8>, BatchError> {
        let head = body.number()?;
        let length = usize::try_from(head >> 1).unwrap_or(usize::MAX);
        if head & 1 == 0 {
            let bytes = body.bytes(length)?;
            return match bytes.len() > bytes_max {
                true => Err(over("bytes")),
                false => Ok(bytes.to_vec()),
            };
        }
        let unpacked = match is_exact {
            true => bytes_max,
            false => body.count(bytes_max, "bytes")?,
        };
        let packed = [&MAGIC, body.bytes(length)?].concat();
        let mut bytes = alloc::vec![0; unpacked];
        // It fails when the result is longer than the buffer.
        match self.zstd.decompress_to_buffer(&packed, &mut bytes[..]) {
            Ok(length) if length == unpacked => Ok(bytes),
            _ => Err(malformed("zstd does not unpack a part")),
        }
    }

    fn read_leaving(&mut self, changes: &mut Reader<'_>) -> Result<(), BatchError> {
        let count = changes.count(self.nodes.len(), "nodes")?;
        let places = read_gaps(changes, count, self.nodes.len())?;
        if !places.is_empty() {
            remove(&mut self.nodes, &places);
        }
        Ok(())
    }

    /// Returns how many nodes are new.
    fn read_new(
        &mut self,
        changes: &mut Reader<'_>,
        beats: usize,
        out: &mut Vec<NodeBeat>,
    ) -> Result<usize, BatchError> {
        let room = self.limits.nodes_max.saturating_sub(self.nodes.len());
        let count = changes.count(room, "nodes")?;
        if count > beats {
            return Err(malformed("more new nodes than beats"));
        }
        let mut before = NodeBeat::default();
        for _ in 0..count {
            let node_id = before.node_id.wrapping_add_signed(changes.signed()?);
            let timestamp_ms = before.timestamp_ms.wrapping_add_signed(changes.signed()?);
            let interval_ms = changes.number()?;
            if !(1..=u64::from(INTERVAL_MS_MAX)).contains(&interval_ms) {
                return Err(malformed("an interval is not 1 ms to an hour"));
            }
            before = NodeBeat {
                timestamp_ms,
                node_id,
                load_percent: load(changes.byte()?)?,
            };
            self.nodes.push(Node::new(before, interval_ms as u32));
            out.push(before);
        }
        Ok(count)
    }

    /// How many beats come from which places; `beats` in all.
    fn read_counts(
        &self,
        changes: &mut Reader<'_>,
        from_ms: u64,
        beats: usize,
    ) -> Result<Vec<(usize, u64)>, BatchError> {
        let surprises = changes.count(self.nodes.len(), "nodes")?;
        let places = read_gaps(changes, surprises, self.nodes.len())?;
        let mut places = places.into_iter().peekable();
        let (mut counts, mut left) = (Vec::new(), beats as u64);
        for (place, node) in self.nodes.iter().enumerate() {
            let mut count = node.expected(from_ms, self.horizon_ms);
            if places.next_if_eq(&place).is_some() {
                count = count.wrapping_add_signed(changes.signed()?);
            }
            left = left
                .checked_sub(count)
                .ok_or(malformed("more beats than it says"))?;
            if count > 0 {
                counts.push((place, count));
            }
        }
        match left {
            0 => Ok(counts),
            _ => Err(malformed("fewer beats than it says")),
        }
    }
}

/// What says how wrong each prediction was.
struct Columns<'a> {
    symbols: core::slice::Iter<'a, u8>,
    bits: u8,
    low: BitReader<'a>,
    escapes: Reader<'a>,
}

impl Columns<'_> {
    /// The next beat of this node, which learns it.
    fn next(&mut self, node: &mut Node) -> Result<NodeBeat, BatchError> {
        let symbol = *self.symbols.next().ok_or(malformed("it is cut short"))?;
        let (off_ms, load_percent) = if symbol == ESCAPE {
            let off_ms = self.escapes.signed()?;
            (off_ms, load(self.escapes.byte()?)?)
        } else {
            let steps = unfold(u64::from(symbol) / CHANGES);
            let change = unfold(u64::from(symbol) % CHANGES);
            let low = self.low.take(self.bits)? as i64;
            let off_ms = (steps << self.bits) + low - half(self.bits);
            (off_ms, changed(node.last.load_percent, change)?)
        };
        node.learn(off_ms, load_percent);
        Ok(node.last)
    }
}

fn changed(before: Option<u8>, change: i64) -> Result<Option<u8>, BatchError> {
    match before {
        None if change == 0 => Ok(None),
        Some(before) if (0..=100).contains(&(i64::from(before) + change)) => {
            Ok(Some((i64::from(before) + change) as u8))
        }
        _ => Err(malformed("a load is not 0 to 100")),
    }
}

fn load(byte: u8) -> Result<Option<u8>, BatchError> {
    match byte {
        0..=100 => Ok(Some(byte)),
        LOAD_UNKNOWN => Ok(None),
        _ => Err(malformed("a load is not 0 to 100")),
    }
}

/// `count` ascending places below `end`.
fn read_gaps(changes: &mut Reader<'_>, count: usize, end: usize) -> Result<Vec<usize>, BatchError> {
    let (mut places, mut next) = (Vec::with_capacity(count), 0usize);
    for _ in 0..count {
        let gap = usize::try_from(changes.number()?).unwrap_or(usize::MAX);
        let place = next.saturating_add(gap);
        if place >= end {
            return Err(malformed("a place is not in the table"));
        }
        places.push(place);
        next = place + 1;
    }
    Ok(places)
}

impl fmt::Debug for BatchDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchDecoder")
            .field("nodes", &self.nodes.len())
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}
