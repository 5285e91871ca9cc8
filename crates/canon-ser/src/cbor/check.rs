//! Is CBOR already deterministic? Answered in one pass, with nothing written and (up to 128 levels) nothing allocated.

use core::cmp::Ordering;
use core::ops::Range;

use crate::cbor::emit::CborKeys;
use crate::cbor::read::{Item, Kind, Place, Sink, drive};
use crate::cbor::{Dialect, Options, dag};
use crate::error::{Code, Fail};
use crate::levels::Levels;
use crate::order::{KeyRules as _, leading_eight};

pub(crate) fn check(bytes: &[u8], options: Options) -> Result<(), Fail> {
    match options.dialect {
        Dialect::Core => check_as::<CORE>(bytes, options.depth_max),
        Dialect::LengthFirst => check_as::<LENGTH_FIRST>(bytes, options.depth_max),
        Dialect::Dag => check_as::<DAG>(bytes, options.depth_max),
    }
}

fn check_as<const DIALECT: u8>(bytes: &[u8], depth_max: usize) -> Result<(), Fail> {
    drive::<_, true>(bytes, &mut Checker::<DIALECT>::new(bytes, 0), depth_max)
}

/// [`Dialect`] where it is known when the program is compiled.
pub(crate) const CORE: u8 = 0;
pub(crate) const LENGTH_FIRST: u8 = 1;
pub(crate) const DAG: u8 = 2;

/// Refuses keys that are out of order, and in DAG-CBOR what it has not.
pub(crate) struct Checker<'b, const DIALECT: u8> {
    bytes: &'b [u8],
    /// Where the bytes at hand start in the whole.
    base: usize,
    /// The previous key of each open container, empty as long as there is none.
    previous: Levels<Previous>,
    /// Previous keys of bytes that are no longer at hand.
    held: Held,
}

/// Only what is read by pieces is ever not at hand.
#[cfg(feature = "std")]
type Held = alloc::vec::Vec<u8>;
#[cfg(not(feature = "std"))]
type Held = [u8; 0];

impl<'b, const DIALECT: u8> Checker<'b, DIALECT> {
    pub(crate) fn new(bytes: &'b [u8], base: usize) -> Self {
        Checker {
            bytes,
            base,
            previous: Levels::new(Previous::NONE),
            held: Held::default(),
        }
    }

    /// Goes on with another stretch of the input, and keeps of the one before what may still be needed.
    #[cfg(feature = "std")]
    pub(crate) fn over(mut self, bytes: &[u8], base: usize) -> Checker<'_, DIALECT> {
        let mut held = Held::new();
        for key in self.previous.iter_mut() {
            let from = held.len();
            held.extend_from_slice(key.bytes(self.bytes, self.base, &self.held));
            (key.start, key.end) = (HELD | from, HELD | held.len());
        }
        Checker {
            bytes,
            base,
            previous: self.previous,
            held,
        }
    }
}

/// Where a key stands, and its rank.
#[derive(Clone, Copy)]
struct Previous {
    start: usize,
    end: usize,
    rank: u64,
}

/// Set in places among the keys that are held.
const HELD: usize = 1 << (usize::BITS - 1);

impl Previous {
    /// No key is empty, and none compares below an empty one.
    const NONE: Previous = Previous {
        start: HELD,
        end: HELD,
        rank: 0,
    };

    fn bytes<'b>(&self, bytes: &'b [u8], base: usize, held: &'b [u8]) -> &'b [u8] {
        if self.start & HELD == 0 {
            &bytes[self.start - base..self.end - base]
        } else {
            &held[self.start - HELD..self.end - HELD]
        }
    }
}

/// [`leading_eight`], without a branch on the length where eight bytes can be read.
#[inline(always)]
fn leading(bytes: &[u8], start: usize, end: usize) -> u64 {
    match bytes[start..].first_chunk::<8>() {
        // No key is empty.
        Some(eight) => {
            let unused = 8_usize.saturating_sub(end - start);
            u64::from_be_bytes(*eight) >> (8 * unused) << (8 * unused)
        }
        None => leading_eight(bytes, start..end),
    }
}

impl<const DIALECT: u8> Checker<'_, DIALECT> {
    /// The same as comparing ranks, where those do not tell that a key is behind the one before.
    #[inline(never)]
    fn check_order(&self, key: Range<usize>, rank: u64) -> Result<(), Fail> {
        let before = self.previous.last().expect("keys stand in maps");
        let order = before.rank.cmp(&rank).then_with(|| {
            let before = before.bytes(self.bytes, self.base, &self.held);
            let keys = match DIALECT {
                LENGTH_FIRST => CborKeys::LENGTH_FIRST,
                _ => CborKeys::CORE,
            };
            keys.compare(before, &self.bytes[key], false)
        });
        match order {
            Ordering::Less => Ok(()),
            Ordering::Equal => Err(Fail::new(Code::Duplicate)),
            Ordering::Greater => Err(Fail::new(Code::KeyOrder)),
        }
    }
}

impl<const DIALECT: u8> Sink for Checker<'_, DIALECT> {
    const WIDE_FLOATS: bool = DIALECT == DAG;

    #[inline]
    fn item(&mut self, item: Item<'_>, place: Place) -> Result<(), Fail> {
        if DIALECT == DAG {
            dag::allow(item, place)?;
            if matches!(item, Item::Float(value) if value == 0.0 && value.is_sign_negative()) {
                return Err(Fail::new(Code::NegativeZero));
            }
        }
        Ok(())
    }

    #[inline]
    fn open(
        &mut self,
        kind: Kind,
        _len: Option<u64>,
        place: Place,
        _offset: usize,
    ) -> Result<(), Fail> {
        if DIALECT == DAG {
            dag::allow_open(kind, place)?;
        }
        self.previous.push(Previous::NONE);
        Ok(())
    }

    #[inline(always)]
    fn key_done(&mut self, start: usize, end: usize) -> Result<(), Fail> {
        let level = self.previous.last().expect("keys stand in maps");
        let key = start - self.base..end - self.base;
        let rank = match DIALECT {
            // It has no rank: whole keys are compared.
            LENGTH_FIRST => 0,
            // In DAG-CBOR all keys are text, whose two orders are the same.
            _ => leading(self.bytes, key.start, key.end),
        };
        if level.rank >= rank {
            self.check_order(key, rank)?;
        }
        let level = self.previous.last_mut().expect("keys stand in maps");
        *level = Previous { start, end, rank };
        Ok(())
    }

    #[inline]
    fn close(&mut self, _items: u64) -> Result<(), Fail> {
        self.previous.pop();
        Ok(())
    }
}
