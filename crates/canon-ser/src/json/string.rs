//! JSON strings: the canonical escapes, and key order across them.

use core::cmp::Ordering;

use crate::buf::{Buf, PIECE_MAX, Piece, piece_of};
use crate::error::Fail;
use crate::order::{KeyRules, common_prefix};

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// A bit set in the lowest flagged byte of each word that holds a control character, a quote or a backslash.
///
/// Bytes above a flagged one may be flagged wrongly (a borrow crosses them); the lowest flag is always right.
#[inline]
fn special_bits(word: u64) -> u64 {
    let control = word.wrapping_sub(LOW * 0x20) & !word;
    let quote = word ^ (LOW * b'"' as u64);
    let backslash = word ^ (LOW * b'\\' as u64);
    let equal = (quote.wrapping_sub(LOW) & !quote) | (backslash.wrapping_sub(LOW) & !backslash);
    (control | equal) & HIGH
}

#[inline]
pub(crate) fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Position of the first byte at or after `from` that cannot stand in a JSON string as itself; `len` if there is none.
#[inline]
pub(crate) fn next_special(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    let mut rest = &bytes[from..];
    while let Some((word, tail)) = rest.split_first_chunk::<8>() {
        let bits = special_bits(u64::from_le_bytes(*word));
        if bits != 0 {
            return at + bits.trailing_zeros() as usize / 8;
        }
        at += 8;
        rest = tail;
    }
    at + rest
        .iter()
        .position(|&byte| is_special(byte))
        .unwrap_or(rest.len())
}

/// Can all of it stand in a JSON string as itself? Reads by words only, the last of them overlapping the one before.
#[inline]
fn is_clean(text: &[u8]) -> bool {
    if let Some(last) = text.last_chunk::<8>() {
        let words = text.as_chunks::<8>().0.iter();
        let bits = words.fold(0, |bits, word| {
            bits | special_bits(u64::from_le_bytes(*word))
        });
        return bits | special_bits(u64::from_le_bytes(*last)) == 0;
    }
    if let (Some(first), Some(last)) = (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        let word =
            u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last));
        return special_bits(word) == 0;
    }
    !text.iter().any(|&byte| is_special(byte))
}

/// Writes the contents of a string, without the quotes. True if any escape was needed.
#[inline]
pub(crate) fn write_contents<B: Buf>(out: &mut B, text: &[u8]) -> Result<bool, Fail> {
    if is_clean(text) {
        out.extend(text)?;
        return Ok(false);
    }
    write_escaping(out, text)?;
    Ok(true)
}

#[cold]
fn write_escaping<B: Buf>(out: &mut B, text: &[u8]) -> Result<(), Fail> {
    let mut from = 0;
    let mut at = next_special(text, 0);
    while at < text.len() {
        out.extend(&text[from..at])?;
        write_escape(out, text[at])?;
        from = at + 1;
        at = next_special(text, from);
    }
    out.extend(&text[from..])
}

/// The canonical escape of a byte for which [`is_special`] holds (RFC 8785 section 3.2.2.2).
pub(crate) fn write_escape<B: Buf>(out: &mut B, byte: u8) -> Result<(), Fail> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' => b'"',
        b'\\' => b'\\',
        0x08 => b'b',
        0x09 => b't',
        0x0a => b'n',
        0x0c => b'f',
        0x0d => b'r',
        _ => {
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            return out.extend(&[b'\\', b'u', b'0', b'0', high, low]);
        }
    };
    out.extend(&[b'\\', short])
}

/// Writes a whole string. True if any escape was needed.
#[inline]
pub(crate) fn write<B: Buf>(out: &mut B, text: &[u8]) -> Result<bool, Fail> {
    if text.len() <= PIECE_MAX - 2 && is_clean(text) {
        let closing = Piece::from(b'"') << (8 * text.len());
        let piece = (closing | piece_of(text)) << 8 | Piece::from(b'"');
        out.put(piece, text.len() + 2)?;
        return Ok(false);
    }
    out.push(b'"')?;
    if is_clean(text) {
        return out.extend_then(text, b'"').map(|()| false);
    }
    write_escaping(out, text)?;
    out.push(b'"').map(|()| true)
}

/// Can [`put_key`] write it?
#[inline(always)]
pub(crate) fn is_short_key(key: &[u8]) -> bool {
    key.len() <= PIECE_MAX - b",\"\":".len() && is_clean(key)
}

/// Writes a short key with what stands around it: `,"key":`, or `"key":` for the first of an object.
#[inline]
pub(crate) fn put_key<B: Buf>(
    out: &mut B,
    key: Piece,
    len: usize,
    first: bool,
) -> Result<(), Fail> {
    let tail = Piece::from(u16::from_le_bytes(*b"\":"));
    let member = (tail << (8 * len) | key) << 8 | Piece::from(b'"');
    if first {
        out.put(member, len + 3)
    } else {
        out.put(member << 8 | Piece::from(b','), len + 4)
    }
}

/// How the keys of canonical JSON objects compare.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JsonKeys {
    /// By UTF-16 code units (RFC 8785) instead of UTF-8 bytes.
    pub(crate) utf16: bool,
}

impl KeyRules for JsonKeys {
    const SEPARATOR: Option<u8> = Some(b',');
    const KEY_SKIP: usize = 1;

    #[inline]
    fn compare(self, left: &[u8], right: &[u8], escaped: bool) -> Ordering {
        if escaped {
            return self.compare_escaped(left, right);
        }
        let at = common_prefix(left, right);
        match (left.get(at), right.get(at)) {
            (Some(&a), Some(&b)) => self.weight(a).cmp(&self.weight(b)),
            (a, b) => a.cmp(&b),
        }
    }

    #[inline]
    fn rank(self, leading_eight: u64) -> u64 {
        if leading_eight & HIGH == 0 || !self.utf16 {
            return leading_eight;
        }
        u64::from_be_bytes(leading_eight.to_be_bytes().map(|byte| self.weight(byte)))
    }

    fn entries(self, bytes: &[u8], from: usize, found: &mut dyn FnMut(usize, usize)) {
        let mut start = from;
        while start < bytes.len() {
            let key_end = string_end(bytes, start + 1);
            found(start, key_end);
            start = value_end(bytes, key_end + 2) + 1;
        }
    }
}

impl JsonKeys {
    /// UTF-8 bytes sort by code point. UTF-16 code units sort the same, but for one thing: surrogates (supplementary
    /// planes, UTF-8 lead bytes F0..F4) come before U+E000..U+FFFF (lead bytes EE and EF). Lifting those two above F4
    /// makes byte order code-unit order, since the first difference of two strings is lead against lead or
    /// continuation against continuation.
    #[inline]
    fn weight(self, byte: u8) -> u8 {
        if self.utf16 && byte & 0xfe == 0xee {
            byte | 0x10
        } else {
            byte
        }
    }

    #[cold]
    fn compare_escaped(self, left: &[u8], right: &[u8]) -> Ordering {
        let (mut left, mut right) = (Unescaped(left), Unescaped(right));
        loop {
            match (left.next(), right.next()) {
                (None, None) => return Ordering::Equal,
                (a, b) if a == b => {}
                (Some(a), Some(b)) => return self.weight(a).cmp(&self.weight(b)),
                (a, b) => return a.cmp(&b),
            }
        }
    }
}

/// The bytes that the contents of a canonical JSON string stand for.
struct Unescaped<'b>(&'b [u8]);

impl Iterator for Unescaped<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let (byte, used) = match *self.0 {
            [] => return None,
            [b'\\', b'u', _, _, high, low, ..] => (hex(high) << 4 | hex(low), 6),
            [b'\\', b'b', ..] => (0x08, 2),
            [b'\\', b't', ..] => (0x09, 2),
            [b'\\', b'n', ..] => (0x0a, 2),
            [b'\\', b'f', ..] => (0x0c, 2),
            [b'\\', b'r', ..] => (0x0d, 2),
            [b'\\', other, ..] => (other, 2),
            [byte, ..] => (byte, 1),
        };
        self.0 = &self.0[used..];
        Some(byte)
    }
}

fn hex(digit: u8) -> u8 {
    if digit.is_ascii_digit() {
        digit - b'0'
    } else {
        (digit | 0x20) - b'a' + 10
    }
}

/// Where the contents of a string that we wrote end: at its closing quote.
pub(crate) fn string_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    loop {
        at = next_special(bytes, at);
        match bytes.get(at) {
            Some(b'\\') => at = (at + 2).min(bytes.len()),
            _ => return at,
        }
    }
}

/// Where a value that we wrote ends.
pub(crate) fn value_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    let mut depth = 0_usize;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = string_end(bytes, at + 1),
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth > 0 => depth -= 1,
            b'}' | b']' => return at,
            b',' if depth == 0 => return at,
            _ => {}
        }
        at += 1;
    }
    at
}
