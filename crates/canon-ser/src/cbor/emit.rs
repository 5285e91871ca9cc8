//! What writing deterministic CBOR is made of, whatever the source: containers, keys, text.

use core::cmp::Ordering;
use core::fmt;

use serde::ser::Serialize;

use crate::buf::{Buf, PIECE_MAX, Piece, piece_of};
use crate::cbor::head::{self, ARRAY, BYTES, FALSE, MAP, NULL, TEXT, TRUE, write_head};
use crate::cbor::{Dialect, Options, private};
use crate::emit::{self, Format, write_display};
use crate::error::{Code, Fail};
use crate::json::private::Token;
use crate::order::{Entry, KeyRules, Members, common_prefix, leading_eight};

/// Map keys in bytewise lexicographic order of their encodings.
///
/// Keys that are text have the same order length first, since their heads tell how long they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CborKeys {
    /// Of keys that are not all text, the shorter encoding first (RFC 7049 section 3.9).
    length_first: bool,
}

impl CborKeys {
    pub(crate) const CORE: CborKeys = CborKeys {
        length_first: false,
    };
    pub(crate) const LENGTH_FIRST: CborKeys = CborKeys { length_first: true };
}

impl KeyRules for CborKeys {
    const SEPARATOR: Option<u8> = None;
    const KEY_SKIP: usize = 0;

    #[inline]
    fn compare(self, left: &[u8], right: &[u8], _escaped: bool) -> Ordering {
        if self.length_first {
            return left.len().cmp(&right.len()).then_with(|| left.cmp(right));
        }
        let at = common_prefix(left, right);
        left.get(at).cmp(&right.get(at))
    }

    #[inline]
    fn rank(self, leading_eight: u64) -> u64 {
        leading_eight
    }

    /// The length, if it fits 16 bits, and then the bytes.
    fn rank_unescaped(self, key: &[u8], shared: usize) -> u64 {
        let leading = leading_eight(key, shared..key.len());
        match u16::try_from(key.len()) {
            _ if !self.length_first => leading,
            Ok(len) if len < u16::MAX => u64::from(len) << 48 | leading >> 16,
            _ => u64::MAX,
        }
    }

    fn key_end(self, bytes: &[u8], start: usize) -> usize {
        head::item_end(bytes, start)
    }

    fn entry_end(self, bytes: &[u8], key_end: usize) -> usize {
        head::item_end(bytes, key_end)
    }
}

/// Everything that writing a document needs.
pub(crate) type Emitter<'a, B> = emit::Emitter<'a, B, Options>;

/// An open array or map: its head was written for `declared` entries and is put right at the end.
#[derive(Clone, Copy)]
pub(crate) struct Container {
    major: u8,
    at: usize,
    declared: u64,
}

impl Container {
    #[inline(always)]
    fn open<B: Buf>(out: &mut B, major: u8, len: Option<u64>) -> Result<Container, Fail> {
        let container = Container {
            major,
            at: out.drained() + out.len(),
            declared: len.unwrap_or(0),
        };
        write_head(out, major, container.declared)?;
        Ok(container)
    }

    #[inline(always)]
    fn close<B: Buf>(self, out: &mut B, count: u64) -> Result<(), Fail> {
        if self.declared == count || !out.hold()? {
            return Ok(());
        }
        amend(out, self, count)
    }
}

/// The length that was announced, if any, was not the true one.
#[cold]
fn amend<B: Buf>(out: &mut B, container: Container, count: u64) -> Result<(), Fail> {
    let Container {
        major,
        at,
        declared,
    } = container;
    let (old, new) = (head::head_len(declared), head::head_len(count));
    let at = at - out.drained();
    let (body, end) = (at + old, out.len());
    for _ in old..new {
        out.push(0)?;
    }
    out.bytes_mut().copy_within(body..end, at + new);
    out.truncate(end + new - old);
    let head = head::head(major, count);
    out.bytes_mut()[at..at + new].copy_from_slice(&head[..new]);
    Ok(())
}

#[inline]
fn write_text<B: Buf>(out: &mut B, text: &[u8]) -> Result<(), Fail> {
    let len = text.len();
    if len < PIECE_MAX {
        let head = Piece::from(TEXT << 5 | len as u8);
        return out.put(head | piece_of(text) << 8, 1 + len);
    }
    write_head(out, TEXT, len as u64)?;
    // Two stores that overlap are cheaper than the call of a copy.
    if let (Some(first), Some(last), 0..=32) = (
        text.first_chunk::<PIECE_MAX>(),
        text.last_chunk::<PIECE_MAX>(),
        len,
    ) && let Some(free) = out.window::<{ 2 * PIECE_MAX }>()
    {
        free[..PIECE_MAX].copy_from_slice(first);
        free[len - PIECE_MAX..len].copy_from_slice(last);
        out.set_len(out.len() + len);
        return Ok(());
    }
    out.extend(text)
}

impl<B: Buf> Emitter<'_, B> {
    #[inline(always)]
    pub(crate) fn open(&mut self, major: u8, len: Option<u64>) -> Result<Container, Fail> {
        self.deeper()?;
        Container::open(self.out, major, len)
    }

    #[inline(always)]
    pub(crate) fn close(&mut self, container: &Container, count: u64) -> Result<(), Fail> {
        self.depth -= 1;
        container.close(self.out, count)
    }

    #[inline(always)]
    pub(crate) fn close_map(
        &mut self,
        container: &Container,
        members: &Members,
    ) -> Result<(), Fail> {
        members.finish(self.options.keys(), self.out, self.scratch)?;
        self.close(container, members.count() as u64)
    }

    /// Does the rank of the key at `start` not tell its place? Ranks tell the bytewise order only.
    #[inline]
    pub(crate) fn is_unranked(&self, start: usize) -> bool {
        self.options.keys().length_first && self.out.bytes()[start] >> 5 != TEXT
    }

    #[inline]
    pub(crate) fn note_key(&mut self, members: &mut Members, start: usize) -> Result<(), Fail> {
        let key_end = self.out.len();
        let keys = self.options.keys();
        let unranked = self.is_unranked(start);
        members.key(keys, self.out, self.scratch, start, key_end, unranked)
    }

    #[inline]
    pub(crate) fn text(&mut self, text: &[u8]) -> Result<(), Fail> {
        write_text(self.out, text)
    }

    /// A whole encoded key, which tells its rank.
    #[inline(always)]
    fn short_key(&mut self, members: &mut Members, key: Piece, len: usize) -> Result<(), Fail> {
        let start = self.out.len();
        self.out.put(key, len)?;
        let entry = Entry {
            start,
            key_end: start + len,
            rank: (key as u64).swap_bytes(),
        };
        members.ranked_key(self.options.keys(), self.out, self.scratch, entry, false)
    }
}

impl Format for Options {
    type Keys = CborKeys;
    type Head = Container;
    const NO_HEAD: Container = Container {
        major: 0,
        at: 0,
        declared: 0,
    };
    const HUMAN_READABLE: bool = false;
    const HOLDS_UNKNOWN: bool = true;

    #[inline(always)]
    fn keys(self) -> CborKeys {
        CborKeys {
            length_first: self.dialect == Dialect::LengthFirst,
        }
    }

    #[inline(always)]
    fn depth_max(self) -> usize {
        self.depth_max
    }

    #[inline]
    fn null<B: Buf>(self, out: &mut B) -> Result<(), Fail> {
        out.push(NULL)
    }

    #[inline]
    fn boolean<B: Buf>(self, out: &mut B, value: bool) -> Result<(), Fail> {
        out.push(if value { TRUE } else { FALSE })
    }

    #[inline]
    fn integer<B: Buf>(self, out: &mut B, magnitude: u64, negative: bool) -> Result<(), Fail> {
        let (major, argument) = if negative {
            (head::NEGATIVE, magnitude - 1)
        } else {
            (head::UNSIGNED, magnitude)
        };
        write_head(out, major, argument)
    }

    fn wide<B: Buf>(self, out: &mut B, magnitude: u128, negative: bool) -> Result<(), Fail> {
        let beyond_64_bits = magnitude > u128::from(u64::MAX) + u128::from(negative);
        if beyond_64_bits && self.dialect == Dialect::Dag {
            return Err(Fail::new(Code::DagTag));
        }
        head::write_integer(out, magnitude, negative)
    }

    #[inline]
    fn float<B: Buf>(self, out: &mut B, value: f64) -> Result<(), Fail> {
        if self.dialect == Dialect::Dag {
            return head::write_wide_float(out, value);
        }
        head::write_float(out, value)
    }

    #[inline]
    fn text<B: Buf>(self, out: &mut B, text: &str) -> Result<(), Fail> {
        write_text(out, text.as_bytes())
    }

    /// As text whose length is known when all of it is written.
    fn display<B: Buf, T: fmt::Display + ?Sized>(self, out: &mut B, value: &T) -> Result<(), Fail> {
        let text = Container::open(out, TEXT, None)?;
        let from = out.len();
        write_display(value, |text| out.extend(text))?;
        match out.len() - from {
            0 => Ok(()),
            len => amend(out, text, len as u64),
        }
    }

    fn bytes<B: Buf>(emitter: &mut Emitter<'_, B>, value: &[u8]) -> Result<(), Fail> {
        write_head(emitter.out, BYTES, value.len() as u64)?;
        emitter.out.extend(value)
    }

    #[inline(always)]
    fn open_array<B: Buf>(self, out: &mut B, len: Option<usize>) -> Result<Container, Fail> {
        Container::open(out, ARRAY, len.map(|len| len as u64))
    }

    #[inline(always)]
    fn close_array<B: Buf>(self, out: &mut B, head: Container, len: usize) -> Result<(), Fail> {
        head.close(out, len as u64)
    }

    #[inline(always)]
    fn open_map<B: Buf>(self, out: &mut B, len: Option<usize>) -> Result<Container, Fail> {
        Container::open(out, MAP, len.map(|len| len as u64))
    }

    #[inline(always)]
    fn close_map<B: Buf>(self, out: &mut B, head: Container, len: usize) -> Result<(), Fail> {
        head.close(out, len as u64)
    }

    fn open_variant<B: Buf>(self, out: &mut B, variant: &str) -> Result<(), Fail> {
        write_head(out, MAP, 1)?;
        write_text(out, variant.as_bytes())
    }

    #[inline]
    fn close_variant<B: Buf>(self, _out: &mut B) -> Result<(), Fail> {
        Ok(())
    }

    /// Inlined so that everything about the name of a field is a constant.
    #[inline(always)]
    fn text_key<B: Buf>(
        emitter: &mut Emitter<'_, B>,
        members: &mut Members,
        key: &str,
    ) -> Result<(), Fail> {
        let bytes = key.as_bytes();
        if bytes.len() < PIECE_MAX {
            let head = Piece::from(TEXT << 5 | bytes.len() as u8);
            return emitter.short_key(members, head | piece_of(bytes) << 8, 1 + bytes.len());
        }
        let start = emitter.out.len();
        write_text(emitter.out, bytes)?;
        emitter.note_key(members, start)
    }

    #[inline]
    fn any_key<B: Buf, T: Serialize + ?Sized>(
        emitter: &mut Emitter<'_, B>,
        members: &mut Members,
        key: &T,
    ) -> Result<(), Fail> {
        // A key stays where it is until it is complete.
        let start = emitter.out.drained() + emitter.out.len();
        emitter.out.opened(true);
        key.serialize(&mut *emitter)?;
        emitter.out.closed();
        let start = start - emitter.out.drained();
        let is_text = emitter.out.bytes()[start] >> 5 == TEXT;
        if !is_text && emitter.options.dialect == Dialect::Dag {
            return Err(Fail::new(Code::DagKey));
        }
        emitter.note_key(members, start)
    }

    fn private<B: Buf>(emitter: &mut Emitter<'_, B>, token: Token, text: &str) -> Result<(), Fail> {
        if emitter.options.dialect == Dialect::Core {
            return private::write_private(emitter, token, text);
        }
        #[cfg(feature = "alloc")]
        return private::write_in_dialect(emitter, token, text);
        #[cfg(not(feature = "alloc"))]
        Err(Fail::new(Code::NoHeap))
    }
}
