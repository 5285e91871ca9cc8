//! Reading CBOR: one iterative driver, which either takes all well-formed CBOR or only the deterministic kind.

use alloc::vec::Vec;

use crate::buf::{Buf, Fixed, PIECE_MAX, Piece, piece_of};
use crate::cbor::head::{
    ARRAY, BIGNUMS, BREAK, BYTES, Head, MAP, NEGATIVE, SIMPLE, TAG, TEXT, UNSIGNED, write_float,
};
use crate::error::{Code, Fail};
use crate::levels::Levels;

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
    /// A container or tag; `len` is its length where that is known.
    fn open(&mut self, kind: Kind, len: Option<u64>, place: Place) -> Result<(), Fail>;
    /// The key of the innermost map is complete; it stands between `start` and `end` of the input.
    fn key_done(&mut self, start: usize, end: usize) -> Result<(), Fail>;
    /// The innermost container or tag is complete, with this many items (keys and values count one each).
    fn close(&mut self, items: u64) -> Result<(), Fail>;
}

#[derive(Clone, Copy)]
struct Level {
    kind: Kind,
    /// Items to come, unless the length is indefinite.
    left: Option<u64>,
    done: u64,
    /// Where the current key of a map starts.
    key: usize,
    start: usize,
}

/// Reads one item and nothing after it. `STRICT` refuses every encoding that is not deterministic; key order and
/// duplicates are the sink's business.
pub(crate) fn drive<S: Sink, const STRICT: bool>(
    bytes: &[u8],
    sink: &mut S,
    depth_max: usize,
) -> Result<(), Fail> {
    let empty = Level {
        kind: Kind::Array,
        left: None,
        done: 0,
        key: 0,
        start: 0,
    };
    let mut reader = Reader::<STRICT> {
        bytes,
        at: 0,
        levels: Levels::new(empty),
        depth_max,
    };
    loop {
        let start = reader.at;
        let opened = reader.item(sink).map_err(|fail| fail.or_at(start))?;
        if opened {
            if reader.closes_now()? {
                reader.close(sink)?;
            } else {
                continue;
            }
        }
        if reader.item_done(sink)? {
            return match reader.at == bytes.len() {
                true => Ok(()),
                false => Err(Fail::At(Code::Trailing, reader.at)),
            };
        }
    }
}

struct Reader<'b, const STRICT: bool> {
    bytes: &'b [u8],
    at: usize,
    levels: Levels<Level>,
    depth_max: usize,
}

impl<'b, const STRICT: bool> Reader<'b, STRICT> {
    #[inline]
    fn place(&self) -> Place {
        match self.levels.last() {
            None => Place::Root,
            Some(Level {
                kind: Kind::Array,
                done,
                ..
            }) => Place::Element { first: *done == 0 },
            Some(Level {
                kind: Kind::Map,
                done,
                ..
            }) if done % 2 == 0 => Place::Key { first: *done == 0 },
            Some(Level {
                kind: Kind::Map, ..
            }) => Place::Value,
            Some(Level {
                kind: Kind::Tag(_), ..
            }) => Place::Tagged,
        }
    }

    /// Reads an item, or the head of a container or tag (then true).
    #[inline(always)]
    fn item<S: Sink>(&mut self, sink: &mut S) -> Result<bool, Fail> {
        let place = self.place();
        let start = self.at;
        if let (Place::Key { .. }, Some(level)) = (place, self.levels.last_mut()) {
            level.key = start;
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
                    place,
                )?;
            }
            BYTES | TEXT => {
                let mut joined = Vec::new();
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
                sink.item(item, place)?;
            }
            ARRAY | MAP => {
                let kind = if head.major == MAP {
                    Kind::Map
                } else {
                    Kind::Array
                };
                return self.open(kind, head, start, place, sink).map(|()| true);
            }
            TAG if BIGNUMS.contains(&head.argument) => self.bignum(head, place, sink)?,
            TAG => {
                return self
                    .open(Kind::Tag(head.argument), head, start, place, sink)
                    .map(|()| true);
            }
            _ => self.simple(head, start, place, sink)?,
        }
        Ok(false)
    }

    #[inline]
    fn head(&mut self) -> Result<Head, Fail> {
        let head = Head::read(self.bytes, self.at)?;
        if STRICT && head.major != SIMPLE && !head.is_shortest() {
            let indefinite = head.info == Head::INDEFINITE;
            let code = if indefinite {
                Code::Indefinite
            } else {
                Code::LongHead
            };
            return Err(Fail::At(code, self.at));
        }
        self.at = head.end;
        Ok(head)
    }

    /// The contents of a string; those of an indefinite length are put together in `joined`.
    fn string<'s>(&mut self, head: Head, joined: &'s mut Vec<u8>) -> Result<&'s [u8], Fail>
    where
        'b: 's,
    {
        if head.info != Head::INDEFINITE {
            return self.chunk(head);
        }
        loop {
            if self.bytes.get(self.at) == Some(&BREAK) {
                self.at += 1;
                return Ok(joined);
            }
            let start = self.at;
            let chunk = self.head()?;
            if chunk.major != head.major || chunk.info == Head::INDEFINITE {
                return Err(Fail::At(Code::CborChunk, start));
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
        let string = &rest[..len.ok_or(Fail::At(Code::End, self.bytes.len()))?];
        if head.major == TEXT
            && !is_short_ascii(string)
            && let Err(error) = core::str::from_utf8(string)
        {
            return Err(Fail::At(Code::Utf8, self.at + error.valid_up_to()));
        }
        self.at += string.len();
        Ok(string)
    }

    fn open<S: Sink>(
        &mut self,
        kind: Kind,
        head: Head,
        start: usize,
        place: Place,
        sink: &mut S,
    ) -> Result<(), Fail> {
        if self.levels.len() >= self.depth_max {
            return Err(Fail::At(Code::Depth, start));
        }
        let len = (head.info != Head::INDEFINITE).then_some(head.argument);
        let left = match kind {
            Kind::Tag(_) => Some(1),
            Kind::Array => len,
            Kind::Map => len.map(|len| len.saturating_mul(2)),
        };
        // Each item takes a byte at least, so a length that the input cannot hold is found out here.
        if left.is_some_and(|left| left > (self.bytes.len() - self.at) as u64) {
            return Err(Fail::At(Code::End, self.bytes.len()));
        }
        sink.open(kind, len, place)?;
        self.levels.push(Level {
            kind,
            left,
            done: 0,
            key: start,
            start,
        });
        Ok(())
    }

    fn bignum<S: Sink>(&mut self, tag: Head, place: Place, sink: &mut S) -> Result<(), Fail> {
        let start = self.at;
        let head = self.head()?;
        if head.major != BYTES {
            return Err(Fail::At(Code::CborBignum, start));
        }
        let mut joined = Vec::new();
        let bytes = self.string(head, &mut joined)?;
        if STRICT && (bytes.len() <= 8 || bytes[0] == 0) {
            return Err(Fail::At(Code::BignumForm, start - 1));
        }
        sink.item(
            Item::Bignum {
                negative: tag.argument == BIGNUMS[1],
                bytes,
            },
            place,
        )
    }

    fn simple<S: Sink>(
        &mut self,
        head: Head,
        start: usize,
        place: Place,
        sink: &mut S,
    ) -> Result<(), Fail> {
        if head.info == Head::INDEFINITE {
            return Err(Fail::At(Code::CborBreak, start));
        }
        if let Some(value) = head.float() {
            if STRICT && S::WIDE_FLOATS {
                if head.info != 27 && value.is_finite() {
                    return Err(Fail::new(Code::NarrowFloat));
                }
            } else if STRICT {
                check_float(value, &self.bytes[start..head.end])?;
            }
            return sink.item(Item::Float(value), place);
        }
        // Two-byte simple values below 32 are not well-formed (RFC 8949 section 3.3).
        if head.info == 24 && head.argument < 32 {
            return Err(Fail::At(Code::CborHead, start));
        }
        sink.item(Item::Simple(head.argument as u8), place)
    }

    /// Is the innermost container complete? Takes the break of one of indefinite length.
    #[inline]
    fn closes_now(&mut self) -> Result<bool, Fail> {
        let Some(level) = self.levels.last() else {
            return Ok(false);
        };
        match level.left {
            Some(left) => Ok(left == 0),
            None if self.bytes.get(self.at) == Some(&BREAK) => {
                if level.kind == Kind::Map && level.done % 2 == 1 {
                    return Err(Fail::At(Code::CborBreak, self.at));
                }
                self.at += 1;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    #[inline]
    fn close<S: Sink>(&mut self, sink: &mut S) -> Result<(), Fail> {
        let (done, start) = self
            .levels
            .last()
            .map_or((0, 0), |level| (level.done, level.start));
        sink.close(done).map_err(|fail| fail.or_at(start))?;
        self.levels.pop();
        Ok(())
    }

    /// Counts a complete item in its container, and closes what is complete with it. True after the root item.
    #[inline(always)]
    fn item_done<S: Sink>(&mut self, sink: &mut S) -> Result<bool, Fail> {
        loop {
            let end = self.at;
            let Some(level) = self.levels.last_mut() else {
                return Ok(true);
            };
            level.done += 1;
            level.left = level.left.map(|left| left - 1);
            if level.kind == Kind::Map && level.done % 2 == 1 {
                let key = level.key;
                sink.key_done(key, end).map_err(|fail| fail.or_at(key))?;
            }
            if !self.closes_now()? {
                return Ok(false);
            }
            self.close(sink)?;
        }
    }
}

/// A quick yes for what most texts are: keys and short values of ASCII.
#[inline]
fn is_short_ascii(text: &[u8]) -> bool {
    const HIGH: Piece = Piece::from_le_bytes([0x80; PIECE_MAX]);
    text.len() <= PIECE_MAX && piece_of(text) & HIGH == 0
}

fn check_float(value: f64, stands: &[u8]) -> Result<(), Fail> {
    let mut form = [0; 9];
    let mut out = Fixed::new(&mut form);
    write_float(&mut out, value)?;
    match out.bytes() == stands {
        true => Ok(()),
        false => Err(Fail::new(if value.is_nan() {
            Code::NanForm
        } else {
            Code::FloatForm
        })),
    }
}
