//! Batches for relays: the beats of thousands of nodes in about a byte each.
//!
//! A relay and its receiver keep the same table of nodes, each with the prediction of the next beat that
//! [delta beats](crate::delta) make. A batch says, in columns: which nodes came and went; for which nodes the number of
//! beats is not the predicted one; how wrong each prediction was, together with the change of load, one byte a beat,
//! compressed with zstd; and the lowest bits of those errors as they are, because noise does not compress.
//!
//! With 2,000 nodes, a period of 30 s, loads that walk by at most 2 and batches of 1,000 beats:
//!
//! | jitter | bytes a beat | entropy |
//! |---:|---:|---:|
//! | 1 ms | 0.63 | 0.55 |
//! | 5 ms | 0.92 | 0.84 |
//! | 50 ms | 1.35 | 1.25 |
//!
//! ```
//! use heartbeat_codec::batch::{BatchDecoder, BatchEncoder, BatchLimits, Decoded};
//! use heartbeat_codec::node::NodeBeat;
//!
//! let limits = BatchLimits::default();
//! let (mut relay, mut gateway) = (BatchEncoder::new(limits, 30_000), BatchDecoder::new(limits));
//! let (mut wire, mut heard) = (Vec::new(), Vec::new());
//! for round in 0..2 {
//!     let beat = |node_id| NodeBeat { timestamp_ms: 5_000 + round * 30_000 + node_id, node_id, load_percent: Some(40) };
//!     let beats: Vec<NodeBeat> = (0..1_000).map(beat).collect();
//!     wire.clear();
//!     // Everything up to here is in: what is missing is late.
//!     relay.encode(&beats, 6_000 + round * 30_000, &mut wire)?;
//!     heard.clear();
//!     assert_eq!(gateway.decode(&wire, &mut heard)?, Decoded::Batch { consumed: wire.len() });
//!     assert_eq!(heard, beats);
//! }
//! assert!(wire.len() < 50, "all came when expected");
//! # Ok::<(), heartbeat_codec::batch::BatchError>(())
//! ```

mod decode;
mod encode;
mod wire;

use alloc::vec::Vec;
use core::fmt;

pub use decode::{BatchDecoder, Decoded};
pub use encode::BatchEncoder;

use crate::node::NodeBeat;
use crate::track::{INTERVAL_MS_MAX, LOAD_UNKNOWN, Track};

/// The first byte of a batch.
const VERSION: u8 = 0x01;

/// Symbols: an error of the prediction in steps of `2^bits`, -25 to 25, and a change of load, -2 to 2; both folded, so that
/// frequent symbols are small, which shortens zstd's tables.
const STEPS: u64 = 25;
const CHANGE: u64 = 2;
const CHANGES: u64 = 2 * CHANGE + 1;
/// The symbol of a beat that stands in the escapes.
const ESCAPE: u8 = 255;
/// What each frame of zstd begins with: not sent.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// At most so many bits of an error stand as they are.
const BITS_MAX: u8 = 24;

/// What one batch and the table of nodes may grow to; both sides use the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Bytes of a whole batch, and of each of its parts when unpacked.
    pub bytes_max: usize,
    /// Beats in a batch.
    pub beats_max: usize,
    /// Nodes in the table, at about 80 bytes each (the encoder: 100).
    pub nodes_max: usize,
}

impl Default for BatchLimits {
    /// 1 MiB, 65,536 beats, 65,536 nodes.
    fn default() -> Self {
        BatchLimits {
            bytes_max: 1 << 20,
            beats_max: 1 << 16,
            nodes_max: 1 << 16,
        }
    }
}

/// What both sides know of a node.
#[derive(Clone, Debug)]
struct Node {
    last: NodeBeat,
    interval_ms: u32,
    track: Track,
}

impl Node {
    fn new(first: NodeBeat, interval_ms: u32) -> Self {
        let interval_ms = interval_ms.clamp(1, INTERVAL_MS_MAX);
        let load = first.load_percent.unwrap_or(LOAD_UNKNOWN);
        Node {
            last: first,
            interval_ms,
            track: Track::new(first.timestamp_ms as u32, interval_ms, load),
        }
    }

    /// When the next beat is expected.
    fn predicted_ms(&self) -> u64 {
        let ahead_ms = self
            .track
            .predicted_ms()
            .wrapping_sub(self.last.timestamp_ms as u32);
        self.last
            .timestamp_ms
            .wrapping_add_signed(i64::from(ahead_ms as i32))
    }

    /// How many beats are expected after `from_ms` and not after `to_ms`; none of a node that is late already.
    fn expected(&self, from_ms: u64, to_ms: u64) -> u64 {
        let predicted_ms = self.predicted_ms();
        match from_ms < predicted_ms && predicted_ms <= to_ms {
            true => 1 + (to_ms - predicted_ms) / u64::from(self.interval_ms),
            false => 0,
        }
    }

    /// Learns a beat that came `off_ms` after the predicted time.
    fn learn(&mut self, off_ms: i64, load_percent: Option<u8>) {
        let timestamp_ms = self.predicted_ms().wrapping_add_signed(off_ms);
        let load = load_percent.unwrap_or(LOAD_UNKNOWN);
        let off_ms = off_ms.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
        self.track.learn(timestamp_ms as u32, off_ms, load);
        self.last.timestamp_ms = timestamp_ms;
        self.last.load_percent = load_percent;
    }
}

/// Takes the nodes at these places out of the table; the others keep their order.
fn remove<T>(table: &mut Vec<T>, places: &[usize]) {
    let mut places = places.iter().copied().peekable();
    let mut at = 0;
    table.retain(|_| {
        let gone = places.next_if_eq(&at).is_some();
        at += 1;
        !gone
    });
}

/// Why a batch was not written or not understood.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BatchError(Problem);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Problem {
    Malformed(&'static str),
    OutOfSync { sequence: u32, expected: u32 },
    OverLimit(&'static str),
}

impl BatchError {
    /// The bytes are no batch. The decoder waits for one that begins anew.
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        matches!(self.0, Problem::Malformed(_))
    }

    /// A batch is missing before this one. The decoder waits for one that begins anew.
    #[must_use]
    pub fn is_out_of_sync(&self) -> bool {
        matches!(self.0, Problem::OutOfSync { .. })
    }

    /// More bytes, beats or nodes than the limits allow.
    #[must_use]
    pub fn is_over_limit(&self) -> bool {
        matches!(self.0, Problem::OverLimit(_))
    }
}

impl fmt::Debug for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BatchError({:?})", self.0)
    }
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Problem::Malformed(what) => {
                write!(f, "not a batch: {what}; check the sender's version")
            }
            Problem::OutOfSync { sequence, expected } => write!(
                f,
                "batch {sequence} came where {expected} was expected; let the sender begin anew"
            ),
            Problem::OverLimit(what) => {
                write!(
                    f,
                    "more {what} than the limits allow; send smaller batches, remove nodes, or raise them"
                )
            }
        }
    }
}

impl core::error::Error for BatchError {}

fn malformed(what: &'static str) -> BatchError {
    BatchError(Problem::Malformed(what))
}

fn over(what: &'static str) -> BatchError {
    BatchError(Problem::OverLimit(what))
}
