//! Is CBOR already deterministic? Answered in one pass, with nothing written and (up to 128 levels) nothing allocated.

use core::cmp::Ordering;

use crate::cbor::emit::CborKeys;
use crate::cbor::read::{Item, Kind, Place, Sink, drive};
use crate::error::{Code, Fail};
use crate::levels::Levels;
use crate::order::KeyRules as _;

pub(crate) fn check(bytes: &[u8], depth_max: usize) -> Result<(), Fail> {
    let mut checker = Checker {
        bytes,
        previous: Levels::new((0, 0)),
    };
    drive::<_, true>(bytes, &mut checker, depth_max)
}

struct Checker<'b> {
    bytes: &'b [u8],
    /// The previous key of each open container, empty as long as there is none.
    previous: Levels<(usize, usize)>,
}

impl Sink for Checker<'_> {
    #[inline]
    fn item(&mut self, _item: Item<'_>, _place: Place) -> Result<(), Fail> {
        Ok(())
    }

    #[inline]
    fn open(&mut self, _kind: Kind, _len: Option<u64>, _place: Place) -> Result<(), Fail> {
        self.previous.push((0, 0));
        Ok(())
    }

    #[inline]
    fn key_done(&mut self, start: usize, end: usize) -> Result<(), Fail> {
        let level = self.previous.last_mut().expect("keys stand in maps");
        let (from, to) = core::mem::replace(level, (start, end));
        // No key is empty and none compares below an empty one.
        match CborKeys.compare(&self.bytes[from..to], &self.bytes[start..end], false) {
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
