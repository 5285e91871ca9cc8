//! The profiles beside the core one: the order of RFC 7049, and DAG-CBOR. Both are made from core deterministic CBOR, so
//! that there is one encoder; what differs is put right in a second pass.

use alloc::vec::Vec;
use core::cmp::Ordering;

use crate::cbor::head::{ARRAY, BYTES, Head, MAP, TAG, TEXT, item_end};
use crate::cbor::read::{Item, Kind, Place, Sink, drive};
use crate::error::{Code, Fail};
use crate::levels::Levels;

/// The tag of a link to other content, the only one that DAG-CBOR has.
const LINK: u64 = 42;

/// The first byte of a link: the multibase prefix of plain bytes.
const LINK_PREFIX: u8 = 0;

/// RFC 7049 section 3.9: the shorter encoding first, equal lengths bytewise.
fn length_first(left: &[u8], right: &[u8]) -> Ordering {
    left.len().cmp(&right.len()).then_with(|| left.cmp(right))
}

/// Core deterministic CBOR to the same items with map keys in the order of RFC 7049.
///
/// Recursion is bounded by the depth limit under which `core` was written.
pub(crate) fn to_length_first(core: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(core.len());
    reorder(core, 0, &mut out);
    out
}

/// Writes the item at `at` and returns where it ends.
fn reorder(core: &[u8], at: usize, out: &mut Vec<u8>) -> usize {
    let head = Head::read(core, at).expect("we wrote these bytes");
    if head.major == MAP {
        out.extend_from_slice(&core[at..head.end]);
        return reorder_map(core, head, out);
    }
    let mut end = head.end;
    if matches!(head.major, BYTES | TEXT) {
        end += head.argument as usize;
    }
    out.extend_from_slice(&core[at..end]);
    let items = match head.major {
        ARRAY => head.argument,
        TAG => 1,
        _ => 0,
    };
    (0..items).fold(end, |at, _| reorder(core, at, out))
}

fn reorder_map(core: &[u8], head: Head, out: &mut Vec<u8>) -> usize {
    let from = out.len();
    let mut at = head.end;
    // Start, end of the key, end: of each entry as written, from `from` on.
    let mut entries = Vec::new();
    for _ in 0..head.argument {
        let start = out.len() - from;
        at = reorder(core, at, out);
        let key_end = out.len() - from;
        at = reorder(core, at, out);
        entries.push((start, key_end, out.len() - from));
    }
    let body = &out[from..];
    let order = |a: &(usize, usize, usize), b: &(usize, usize, usize)| {
        length_first(&body[a.0..a.1], &body[b.0..b.1])
    };
    if !entries.is_sorted_by(|a, b| order(a, b) == Ordering::Less) {
        entries.sort_unstable_by(order);
        let sorted: Vec<u8> = entries
            .iter()
            .flat_map(|entry| &body[entry.0..entry.2])
            .copied()
            .collect();
        out[from..].copy_from_slice(&sorted);
    }
    at
}

/// Is this CBOR in the order of RFC 7049, and deterministic otherwise?
pub(crate) fn check_length_first(bytes: &[u8], depth_max: usize) -> Result<(), Fail> {
    let mut checker = Checker::<false, true>::new(bytes);
    drive::<_, true>(bytes, &mut checker, depth_max)
}

/// Is this DAG-CBOR, in its one form?
pub(crate) fn check_dag(bytes: &[u8], depth_max: usize) -> Result<(), Fail> {
    let mut checker = Checker::<true, true>::new(bytes);
    drive::<_, true>(bytes, &mut checker, depth_max)
}

/// Does DAG-CBOR have all items of this well-formed CBOR?
pub(crate) fn allow_dag(bytes: &[u8], depth_max: usize) -> Result<(), Fail> {
    let mut checker = Checker::<true, false>::new(bytes);
    drive::<_, false>(bytes, &mut checker, depth_max)
}

/// Core deterministic CBOR of items that DAG-CBOR has to DAG-CBOR: floats take 64 bits, and -0.0 is
/// 0.0. Its keys are texts, whose order
/// is the same.
pub(crate) fn to_dag(core: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(core.len());
    let mut at = 0;
    while at < core.len() {
        let head = Head::read(core, at).expect("we wrote these bytes");
        if let Some(value) = head.float() {
            // Adding +0.0 turns -0.0 into 0.0 and changes nothing else.
            let value = value + 0.0;
            out.push(0xfb);
            out.extend_from_slice(&value.to_be_bytes());
            at = head.end;
            continue;
        }
        // Containers and tags end with their heads here: what they hold follows by itself.
        let end = match head.major {
            BYTES | TEXT => item_end(core, at),
            _ => head.end,
        };
        out.extend_from_slice(&core[at..end]);
        at = end;
    }
    out
}

/// Refuses keys that are out of order (if `ORDER`, with other forms that are not canonical) and items that DAG-CBOR has not (if `DAG`).
struct Checker<'b, const DAG: bool, const ORDER: bool> {
    bytes: &'b [u8],
    /// The previous key of each open container, empty as long as there is none.
    previous: Levels<(usize, usize)>,
}

impl<'b, const DAG: bool, const ORDER: bool> Checker<'b, DAG, ORDER> {
    fn new(bytes: &'b [u8]) -> Self {
        Checker {
            bytes,
            previous: Levels::new((0, 0)),
        }
    }
}

impl<const DAG: bool, const ORDER: bool> Sink for Checker<'_, DAG, ORDER> {
    const WIDE_FLOATS: bool = DAG;

    fn item(&mut self, item: Item<'_>, place: Place) -> Result<(), Fail> {
        if !DAG {
            return Ok(());
        }
        let refused = match (place, item) {
            (Place::Key { .. }, Item::Text(_)) => None,
            (Place::Key { .. }, _) => Some(Code::DagKey),
            (Place::Tagged, Item::Bytes([LINK_PREFIX, _, ..])) => None,
            (Place::Tagged, _) => Some(Code::DagTag),
            (_, Item::Float(value)) if !value.is_finite() => Some(Code::DagFloat),
            (_, item) if ORDER && is_negative_zero(item) => Some(Code::NegativeZero),
            (_, Item::Simple(value)) if !(20..=22).contains(&value) => Some(Code::DagSimple),
            (_, Item::Bignum { bytes, .. }) if !fits_integer(bytes) => Some(Code::DagTag),
            _ => None,
        };
        refused.map_or(Ok(()), |code| Err(Fail::new(code)))
    }

    fn open(&mut self, kind: Kind, _len: Option<u64>, place: Place) -> Result<(), Fail> {
        if DAG {
            match (place, kind) {
                (Place::Key { .. }, _) => return Err(Fail::new(Code::DagKey)),
                (Place::Tagged, _) => return Err(Fail::new(Code::DagTag)),
                (_, Kind::Tag(tag)) if tag != LINK => return Err(Fail::new(Code::DagTag)),
                _ => {}
            }
        }
        self.previous.push((0, 0));
        Ok(())
    }

    fn key_done(&mut self, start: usize, end: usize) -> Result<(), Fail> {
        if !ORDER {
            return Ok(());
        }
        let level = self.previous.last_mut().expect("keys stand in maps");
        let (from, to) = core::mem::replace(level, (start, end));
        // No key is empty and none compares below an empty one.
        match length_first(&self.bytes[from..to], &self.bytes[start..end]) {
            Ordering::Less => Ok(()),
            Ordering::Equal => Err(Fail::new(Code::Duplicate)),
            Ordering::Greater => Err(Fail::new(Code::KeyOrder)),
        }
    }

    fn close(&mut self, _items: u64) -> Result<(), Fail> {
        self.previous.pop();
        Ok(())
    }
}

fn is_negative_zero(item: Item<'_>) -> bool {
    matches!(item, Item::Float(value) if value == 0.0 && value.is_sign_negative())
}

/// Is the bignum only a long spelling of an integer?
fn fits_integer(bytes: &[u8]) -> bool {
    bytes.iter().skip_while(|&&byte| byte == 0).count() <= 8
}
