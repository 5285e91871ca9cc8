//! Reading CBOR: one iterative driver, which either takes all well-formed CBOR or only the deterministic kind.

use crate::buf::{PIECE_MAX, Piece};
use crate::cbor::head::{
    ARRAY, BIGNUMS, BREAK, BYTES, Head, MAP, NEGATIVE, SIMPLE, TAG, TEXT, UNSIGNED,
};
use crate::error::{Code, Fail};
use crate::levels::Levels;

/// The chunks of a string of indefinite length, put together.
#[cfg(feature = "alloc")]
type Joined = alloc::vec::Vec<u8>;
#[cfg(not(feature = "alloc"))]
type Joined = [u8; 0];

/// Where an item stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Root,
    /// In an array; the first of it or a later one.
    Element {
        first: bool,
    },
    Key {
        first: bool,
    },
    Value,
    Tagged,
}

/// What an item is. Containers and tags are told with [`Sink::open`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Item<'b> {
    /// The argument of a head: the value, or for a negative one -1 - value.
    Integer {
        negative: bool,
        argument: u64,
    },
    /// Big-endian bytes as they stand, possibly with leading zeros.
    Bignum {
        negative: bool,
        bytes: &'b [u8],
    },
    Bytes(&'b [u8]),
    Text(&'b [u8]),
    Float(f64),
    /// A simple value: 20 false, 21 true, 22 null, 23 undefined.
    Simple(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Array,
    Map,
    Tag(u64),
}

/// What the driver tells while it reads. Failures without an offset get that of the item.
pub(crate) trait Sink {
    /// Strict reading wants 64 bits for every float instead of the shortest form.
    const WIDE_FLOATS: bool = false;

    fn item(&mut self, item: Item<'_>, place: Place) -> Result<(), Fail>;
    /// A container or tag that starts at `offset`; `len` is its length where that is known.
    fn open(
        &mut self,
        kind: Kind,
        len: Option<u64>,
        place: Place,
        offset: usize,
    ) -> Result<(), Fail>;
    /// The key of the innermost map is complete; it stands between `start` and `end` of the input.
    fn key_done(&mut self, start: usize, end: usize) -> Result<(), Fail>;
    /// The innermost container or tag is complete, with this many items (keys and values count one each).
    fn close(&mut self, items: u64) -> Result<(), Fail>;
}

/// Where the count of an open container of indefinite length starts: an even number that no input counts down from.
const ENDLESS: u64 = 1 << 63;

/// Counts above this one are those of indefinite lengths.
const COUNTED_MAX: u64 = ENDLESS / 2;

#[derive(Clone, Copy)]
struct Level {
    /// Items to come; of an even number for maps, so that a key is next when it is even.
    left: u64,
    /// `left` before the first item.
    total: u64,
    /// Where the current item starts.
    item: usize,
    holds: Holds,
}

impl Level {
    /// Was the item that has just been counted a key? One bit, not a comparison of kinds: this is asked for each item.
    #[inline(always)]
    fn is_behind_key(&self) -> bool {
        self.left & self.holds as u64 == Holds::Entries as u64
    }
}

/// What the items of a [`Level`] are.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
enum Holds {
    Elements = 0,
    /// Keys and values in turn.
    Entries = 1,
    /// The one item that a tag is about.
    Tagged = 2,
}

/// Reads one item and nothing after it. `STRICT` refuses every encoding that is not deterministic; key order and
/// duplicates are the sink's business.
pub(crate) fn drive<S: Sink, const STRICT: bool>(
    bytes: &[u8],
    sink: &mut S,
    depth_max: usize,
) -> Result<(), Fail> {
    Reader::<STRICT>::new(bytes, depth_max).run(sink)
}

/// A stretch of CBOR.
#[cfg(feature = "std")]
#[derive(Clone, Copy)]
pub(crate) struct Stretch<'b> {
    pub(crate) bytes: &'b [u8],
    /// Where it starts in the whole.
    pub(crate) offset: usize,
    /// Bytes that follow it.
    pub(crate) more: u64,
}

pub(crate) struct Reader<'b, const STRICT: bool> {
    bytes: &'b [u8],
    at: usize,
    base: usize,
    more: u64,
    levels: Levels<Level>,
    /// An earlier stretch ended before the next item or break.
    goes_on: bool,
    depth_max: usize,
}

impl<'b, const STRICT: bool> Reader<'b, STRICT> {
    pub(crate) fn new(bytes: &'b [u8], depth_max: usize) -> Self {
        let empty = Level {
            left: 0,
            total: 0,
            item: 0,
            holds: Holds::Elements,
        };
        Reader {
            bytes,
            at: 0,
            base: 0,
            more: 0,
            levels: Levels::new(empty),
            goes_on: false,
            depth_max,
        }
    }

    /// Where the item or break starts in the whole that it has not read to its end.
    pub(crate) fn offset(&self) -> usize {
        self.levels.last().map_or(0, |level| level.item)
    }

    /// Where the outermost key starts that is being read, if any: a container, whose items are compared when it ends.
    #[cfg(feature = "std")]
    pub(crate) fn open_key(&mut self) -> Option<usize> {
        let around = self.levels.len().saturating_sub(1);
        let mut around = self.levels.iter_mut().take(around);
        let key = around.find(|level| level.holds == Holds::Entries && level.left % 2 == 0)?;
        Some(key.item)
    }

    /// Goes on in a stretch that holds what follows [`Reader::offset`].
    #[cfg(feature = "std")]
    pub(crate) fn over(self, stretch: Stretch<'_>) -> Reader<'_, STRICT> {
        Reader {
            bytes: stretch.bytes,
            at: self.offset() - stretch.offset,
            base: stretch.offset,
            more: stretch.more,
            levels: self.levels,
            goes_on: self.goes_on,
            depth_max: self.depth_max,
        }
    }

    fn fail(&self, code: Code, at: usize) -> Fail {
        Fail::At(code, self.base + at)
    }

    fn end(&self) -> Fail {
        self.fail(Code::End, self.bytes.len())
    }

    /// Reads to the end of the item. When a stretch that is not the last fails with [`Code::End`], a longer one goes on at
    /// [`Reader::offset`].
    pub(crate) fn run<S: Sink>(&mut self, sink: &mut S) -> Result<(), Fail> {
        if self.bytes.is_empty() && self.base == 0 && self.more == 0 {
            return Err(self.fail(Code::Empty, 0));
        }
        // What a stretch ends with may be the last item of a container of indefinite length.
        if core::mem::take(&mut self.goes_on) && self.closes_now()? {
            self.close(sink)?;
            if self.item_done(sink)? {
                return self.finish();
            }
        }
        loop {
            let start = self.at;
            let opened = self
                .item(sink)
                .map_err(|fail| fail.or_at(self.base + start))?;
            if opened {
                if self.closes_now()? {
                    self.close(sink)?;
                } else {
                    continue;
                }
            }
            if self.item_done(sink)? {
                return self.finish();
            }
        }
    }

    /// After the root item.
    fn finish(&self) -> Result<(), Fail> {
        match self.at == self.bytes.len() && self.more == 0 {
            true => Ok(()),
            false => Err(self.fail(Code::Trailing, self.at)),
        }
    }

    /// Where the next item stands.
    #[inline(always)]
    fn place(&self) -> Place {
        let Some(level) = self.levels.last() else {
            return Place::Root;
        };
        let first = level.left == level.total;
        match level.holds {
            Holds::Elements => Place::Element { first },
            Holds::Entries if level.left % 2 == 0 => Place::Key { first },
            Holds::Entries => Place::Value,
            Holds::Tagged => Place::Tagged,
        }
    }

    /// Reads an item, or the head of a container or tag (then true).
    #[inline(always)]
    fn item<S: Sink>(&mut self, sink: &mut S) -> Result<bool, Fail> {
        let start = self.at;
        if let Some(text) = self.short_text() {
            self.at += 1 + text.len();
            sink.item(Item::Text(text), self.place())?;
            return Ok(false);
        }
        let head = self.head()?;
        match head.major {
            UNSIGNED | NEGATIVE => {
                let negative = head.major == NEGATIVE;
                sink.item(
                    Item::Integer {
                        negative,
                        argument: head.argument,
                    },
                    self.place(),
                )?;
            }
            BYTES | TEXT => {
                let mut joined = Joined::default();
                let string = if STRICT {
                    self.chunk(head)?
                } else {
                    self.string(head, &mut joined)?
                };
                let item = if head.major == TEXT {
                    Item::Text(string)
                } else {
                    Item::Bytes(string)
                };
                sink.item(item, self.place())?;
            }
            ARRAY | MAP => {
                let kind = if head.major == MAP {
                    Kind::Map
                } else {
                    Kind::Array
                };
                return self.open(kind, head, start, sink).map(|()| true);
            }
            TAG if BIGNUMS.contains(&head.argument) => self.bignum(head, sink)?,
            TAG => {
                return self
                    .open(Kind::Tag(head.argument), head, start, sink)
                    .map(|()| true);
            }
            _ => self.simple(head, start, sink)?,
        }
        Ok(false)
    }

    /// The text that comes next, if it is of the most common kind: ASCII, and so short that its head is one byte. A no may
    /// be wrong.
    #[inline(always)]
    fn short_text(&self) -> Option<&'b [u8]> {
        let (&first, rest) = self.bytes.get(self.at..)?.split_first()?;
        let len = usize::from(first.wrapping_sub(TEXT << 5));
        let text = rest.get(..len).filter(|_| len < 24)?;
        is_ascii(rest, len).then_some(text)
    }

    #[inline]
    fn head(&mut self) -> Result<Head, Fail> {
        let head = Head::read(self.bytes, self.at).map_err(|fail| fail.moved(self.base))?;
        // What fits the first byte has no other form.
        if STRICT && head.info > 23 && head.major != SIMPLE && !head.is_shortest() {
            return Err(self.not_shortest(head));
        }
        self.at = head.end;
        Ok(head)
    }

    #[cold]
    fn not_shortest(&self, head: Head) -> Fail {
        let code = if head.info == Head::INDEFINITE {
            Code::Indefinite
        } else {
            Code::LongHead
        };
        self.fail(code, self.at)
    }

    /// The contents of a string; those of an indefinite length are put together in `joined`.
    fn string<'s>(&mut self, head: Head, joined: &'s mut Joined) -> Result<&'s [u8], Fail>
    where
        'b: 's,
    {
        if head.info != Head::INDEFINITE {
            return self.chunk(head);
        }
        #[cfg(not(feature = "alloc"))]
        {
            // Only checks run without a heap, and those have refused it already.
            _ = joined;
            Err(self.not_shortest(head))
        }
        #[cfg(feature = "alloc")]
        loop {
            if self.bytes.get(self.at) == Some(&BREAK) {
                self.at += 1;
                return Ok(joined);
            }
            let start = self.at;
            let chunk = self.head()?;
            if chunk.major != head.major || chunk.info == Head::INDEFINITE {
                return Err(self.fail(Code::CborChunk, start));
            }
            joined.extend_from_slice(self.chunk(chunk)?);
        }
    }

    #[inline(always)]
    fn chunk(&mut self, head: Head) -> Result<&'b [u8], Fail> {
        let rest = &self.bytes[self.at..];
        let len = usize::try_from(head.argument)
            .ok()
            .filter(|&len| len <= rest.len());
        let Some(len) = len else {
            // An input that ends too early is not worth reading to its end.
            let missing = head.argument - rest.len() as u64 > self.more;
            let behind = if missing { self.more as usize } else { 0 };
            return Err(self.end().moved(behind));
        };
        let string = &rest[..len];
        if head.major == TEXT
            && !is_ascii(rest, string.len())
            && let Err(error) = core::str::from_utf8(string)
        {
            return Err(self.fail(Code::Utf8, self.at + error.valid_up_to()));
        }
        self.at += string.len();
        Ok(string)
    }

    fn open<S: Sink>(
        &mut self,
        kind: Kind,
        head: Head,
        start: usize,
        sink: &mut S,
    ) -> Result<(), Fail> {
        if self.levels.len() >= self.depth_max {
            return Err(self.fail(Code::Depth, start));
        }
        let len = (head.info != Head::INDEFINITE).then_some(head.argument);
        let (holds, left) = match kind {
            Kind::Tag(_) => (Holds::Tagged, Some(1)),
            Kind::Array => (Holds::Elements, len),
            Kind::Map => (Holds::Entries, len.map(|len| len.saturating_mul(2))),
        };
        // Each item takes a byte at least, so a length that the input cannot hold is found out here.
        let rest = (self.bytes.len() - self.at) as u64 + self.more;
        if left.is_some_and(|left| left > rest) {
            return Err(self.end().moved(self.more as usize));
        }
        sink.open(kind, len, self.place(), self.base + start)?;
        self.levels.push(Level {
            left: left.unwrap_or(ENDLESS),
            total: left.unwrap_or(ENDLESS),
            item: self.base + self.at,
            holds,
        });
        Ok(())
    }

    fn bignum<S: Sink>(&mut self, tag: Head, sink: &mut S) -> Result<(), Fail> {
        let start = self.at;
        let head = self.head()?;
        if head.major != BYTES {
            return Err(self.fail(Code::CborBignum, start));
        }
        let mut joined = Joined::default();
        let bytes = self.string(head, &mut joined)?;
        if STRICT && (bytes.len() <= 8 || bytes[0] == 0) {
            return Err(self.fail(Code::BignumForm, start - 1));
        }
        sink.item(
            Item::Bignum {
                negative: tag.argument == BIGNUMS[1],
                bytes,
            },
            self.place(),
        )
    }

    fn simple<S: Sink>(&mut self, head: Head, start: usize, sink: &mut S) -> Result<(), Fail> {
        if head.info == Head::INDEFINITE {
            return Err(self.fail(Code::CborBreak, start));
        }
        if let Some(value) = head.float() {
            if STRICT && S::WIDE_FLOATS {
                if head.info != 27 && value.is_finite() {
                    return Err(Fail::new(Code::NarrowFloat));
                }
            } else if STRICT {
                head.check_float(value)?;
            }
            return sink.item(Item::Float(value), self.place());
        }
        // Two-byte simple values below 32 are not well-formed (RFC 8949 section 3.3).
        if head.info == 24 && head.argument < 32 {
            return Err(self.fail(Code::CborHead, start));
        }
        sink.item(Item::Simple(head.argument as u8), self.place())
    }

    /// Is the innermost container complete? Takes the break of one of indefinite length.
    #[inline]
    fn closes_now(&mut self) -> Result<bool, Fail> {
        let Some(level) = self.levels.last() else {
            return Ok(false);
        };
        match level.left {
            0 => Ok(true),
            1..=COUNTED_MAX => Ok(false),
            _ => self.takes_break(),
        }
    }

    fn takes_break(&mut self) -> Result<bool, Fail> {
        match self.bytes.get(self.at) {
            Some(&BREAK) => {}
            None if self.more > 0 => {
                self.goes_on = true;
                return Err(self.end());
            }
            _ => return Ok(false),
        }
        if self
            .levels
            .last()
            .is_some_and(|level| level.holds == Holds::Entries && level.left % 2 == 1)
        {
            return Err(self.fail(Code::CborBreak, self.at));
        }
        self.at += 1;
        Ok(true)
    }

    #[inline]
    fn close<S: Sink>(&mut self, sink: &mut S) -> Result<(), Fail> {
        let level = self.levels.last();
        let done = level.map_or(0, |level| level.total - level.left);
        self.levels.pop();
        // It was the current item of what is around it.
        sink.close(done).map_err(|fail| fail.or_at(self.offset()))
    }

    /// Counts a complete item in its container, and closes what is complete with it. True after the root item.
    #[inline(always)]
    fn item_done<S: Sink>(&mut self, sink: &mut S) -> Result<bool, Fail> {
        if self.count_item(sink)? {
            return Ok(false);
        }
        self.close_complete(sink)
    }

    /// Counts a complete item. True if more are certain to follow in its container.
    #[inline(always)]
    fn count_item<S: Sink>(&mut self, sink: &mut S) -> Result<bool, Fail> {
        let end = self.base + self.at;
        let Some(level) = self.levels.last_mut() else {
            return Ok(false);
        };
        level.left -= 1;
        let left = level.left;
        let key = core::mem::replace(&mut level.item, end);
        if level.is_behind_key() {
            sink.key_done(key, end).map_err(|fail| fail.or_at(key))?;
        }
        Ok((1..=COUNTED_MAX).contains(&left))
    }

    /// Closes the containers that are complete, from the innermost on. True if that is all of them.
    ///
    /// Apart from what happens to each item: a loop in there costs more than a call out here.
    #[inline(never)]
    fn close_complete<S: Sink>(&mut self, sink: &mut S) -> Result<bool, Fail> {
        while self.levels.len() > 0 {
            if !self.closes_now()? {
                return Ok(false);
            }
            self.close(sink)?;
            if self.count_item(sink)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The high bits of the first so many bytes of a piece.
const HIGH_BITS: [Piece; PIECE_MAX + 1] = {
    let mut bits = [0; PIECE_MAX + 1];
    let mut len = 0;
    while len < PIECE_MAX {
        bits[len + 1] = bits[len] | 0x80 << (8 * len);
        len += 1;
    }
    bits
};

/// Are the first `len` bytes ASCII? A no may be wrong, for a short text at the very end of the input.
#[inline(always)]
fn is_ascii(bytes: &[u8], len: usize) -> bool {
    // The text and what follows it, which does not count.
    if let Some(high) = HIGH_BITS.get(len) {
        let piece = bytes
            .first_chunk()
            .copied()
            .map_or(!0, Piece::from_le_bytes);
        return piece & high == 0;
    }
    let high = |piece: &[u8; PIECE_MAX]| Piece::from_le_bytes(*piece) & HIGH_BITS[PIECE_MAX];
    let text = &bytes[..len];
    let last = text.last_chunk().map_or(!0, high);
    let pieces = text.as_chunks().0.iter();
    pieces.fold(last, |found, piece| found | high(piece)) == 0
}
