//! Is CBOR already deterministic? Answered in one pass, with nothing written and (up to 128 levels) nothing allocated.

use core::cmp::Ordering;

use crate::cbor::emit::CborKeys;
use crate::cbor::read::{Item, Kind, Place, Sink, drive};
use crate::error::{Code, Fail};
use crate::levels::Levels;
use crate::order::{KeyRules as _, leading_eight};

pub(crate) fn check(bytes: &[u8], depth_max: usize) -> Result<(), Fail> {
    let mut checker = Checker {
        bytes,
        previous: Levels::new(Previous::NONE),
    };
    drive::<_, true>(bytes, &mut checker, depth_max)
}

struct Checker<'b> {
    bytes: &'b [u8],
    /// The previous key of each open container, empty as long as there is none.
    previous: Levels<Previous>,
}

/// Where a key stands, and its rank.
#[derive(Clone, Copy)]
struct Previous {
    start: usize,
    end: usize,
    rank: u64,
}

impl Previous {
    /// No key is empty, and none compares below an empty one.
    const NONE: Previous = Previous {
        start: 0,
        end: 0,
        rank: 0,
    };
}

impl Sink for Checker<'_> {
    #[inline]
    fn item(&mut self, _item: Item<'_>, _place: Place) -> Result<(), Fail> {
        Ok(())
    }

    #[inline]
    fn open(&mut self, _kind: Kind, _len: Option<u64>, _place: Place) -> Result<(), Fail> {
        self.previous.push(Previous::NONE);
        Ok(())
    }

    #[inline]
    fn key_done(&mut self, start: usize, end: usize) -> Result<(), Fail> {
        let level = self.previous.last_mut().expect("keys stand in maps");
        let rank = leading_eight(self.bytes, start..end);
        let before = core::mem::replace(level, Previous { start, end, rank });
        let order = before.rank.cmp(&rank).then_with(|| {
            let before = &self.bytes[before.start..before.end];
            CborKeys.compare(before, &self.bytes[start..end], false)
        });
        match order {
            Ordering::Less => Ok(()),
            Ordering::Equal => Err(Fail::new(Code::Duplicate)),
            Ordering::Greater => Err(Fail::new(Code::KeyOrder)),
        }
    }

    #[inline]
    fn close(&mut self, _items: u64) -> Result<(), Fail> {
        self.previous.pop();
        Ok(())
    }
}
