//! JSON strings: the canonical escapes, and key order across them.

use core::cmp::Ordering;

use crate::buf::{Buf, PIECE_MAX, Piece, piece_of};
use crate::error::Fail;
use crate::json::scan::{HIGH, special_bits};
use crate::order::{KeyRules, common_prefix};

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
    if let Some(last) = text.last_chunk::<PIECE_MAX>() {
        let pieces = text.as_chunks::<PIECE_MAX>().0;
        return !pieces.iter().any(has_special) && !has_special(last);
    }
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
    // Without a loop, so that what is known of constants is known when the program is compiled.
    match *text {
        [a, b, c] => !(is_special(a) | is_special(b) | is_special(c)),
        [a, b] => !(is_special(a) | is_special(b)),
        [a] => !is_special(a),
        _ => true,
    }
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

/// Strings up to here are written by stores of fixed size.
const SHORT_MAX: usize = 2 * PIECE_MAX;

/// Writes a whole string. True if any escape was needed.
pub(crate) fn write<B: Buf>(out: &mut B, text: &[u8]) -> Result<bool, Fail> {
    if text.len() <= SHORT_MAX
        && let Some(free) = out.window::<{ SHORT_MAX + 2 }>()
        && fill(free, text)
    {
        out.set_len(out.len() + text.len() + 2);
        return Ok(false);
    }
    write_long(out, text)
}

/// Writes a short string, unless it needs escapes.
#[inline(always)]
fn fill(free: &mut [u8; SHORT_MAX + 2], text: &[u8]) -> bool {
    let len = text.len();
    match (text.first_chunk(), text.last_chunk()) {
        (Some(first), Some(last)) => {
            if has_special(first) | has_special(last) {
                return false;
            }
            free[1..17].copy_from_slice(first);
            free[len - 15..len + 1].copy_from_slice(last);
        }
        _ => {
            if !is_clean(text) {
                return false;
            }
            free[1..17].copy_from_slice(&piece_of(text).to_le_bytes());
        }
    }
    free[0] = b'"';
    free[len + 1] = b'"';
    true
}

/// Is there a byte that cannot stand in a JSON string as itself? Spelled so that it becomes a handful of vector
/// instructions.
#[inline(always)]
fn has_special(bytes: &[u8; PIECE_MAX]) -> bool {
    bytes.iter().fold(false, |found, &byte| {
        found | (byte < 0x20) | (byte == b'"') | (byte == b'\\')
    })
}

fn write_long<B: Buf>(out: &mut B, text: &[u8]) -> Result<bool, Fail> {
    out.push(b'"')?;
    let escaped = write_contents(out, text)?;
    out.push(b'"')?;
    Ok(escaped)
}

/// The longest key that [`put_key`] can write.
pub(crate) const SHORT_KEY_MAX: usize = PIECE_MAX - b",\"\":".len();

/// Can [`put_key`] write it?
#[inline(always)]
pub(crate) fn is_short_key(key: &[u8]) -> bool {
    key.len() <= SHORT_KEY_MAX && is_clean(key)
}

/// Writes a string of up to 14 bytes that needs no escapes.
#[inline(always)]
pub(crate) fn put<B: Buf>(out: &mut B, text: Piece, len: usize) -> Result<(), Fail> {
    let closing = Piece::from(b'"') << (8 * len);
    out.put((closing | text) << 8 | Piece::from(b'"'), len + 2)
}

/// Appends what is canonical already, mostly without a call.
#[inline(always)]
pub(crate) fn copy<B: Buf>(out: &mut B, text: &[u8]) -> Result<(), Fail> {
    let len = text.len();
    if len <= SHORT_MAX
        && let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk())
        && let Some(free) = out.window::<SHORT_MAX>()
    {
        free[..PIECE_MAX].copy_from_slice(first as &[u8; PIECE_MAX]);
        free[len - PIECE_MAX..len].copy_from_slice(last as &[u8; PIECE_MAX]);
        out.set_len(out.len() + len);
        return Ok(());
    }
    out.extend(text)
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

    fn rank_unescaped(self, key: &[u8], shared: usize) -> u64 {
        let behind = Unescaped(&key[whole_characters(key, shared)..]);
        let mut leading = [0; 8];
        for (place, byte) in leading.iter_mut().zip(behind) {
            *place = byte;
        }
        self.rank(u64::from_be_bytes(leading))
    }

    fn key_end(self, bytes: &[u8], start: usize) -> usize {
        string_end(bytes, start + 1)
    }

    fn entry_end(self, bytes: &[u8], key_end: usize) -> usize {
        value_end(bytes, key_end + 2) + 1
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
        // One character has one spelling, so that equal bytes stand for equal ones.
        let equal = whole_characters(left, common_prefix(left, right));
        let (mut left, mut right) = (Unescaped(&left[equal..]), Unescaped(&right[equal..]));
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

/// How many of the first `len` bytes of a string are left without an escape that `len` cuts.
fn whole_characters(string: &[u8], len: usize) -> usize {
    let start = len.saturating_sub(ESCAPE_MAX - 1);
    let Some(last) = string[start..len].iter().rposition(|&byte| byte == b'\\') else {
        return len;
    };
    let last = start + last;
    let backslashes = string[..=last]
        .iter()
        .rev()
        .take_while(|&&byte| byte == b'\\');
    // In pairs they stand for themselves; the odd one starts an escape.
    if backslashes.count() % 2 == 1 {
        last
    } else {
        len
    }
}

/// Bytes of the longest escape, `\u001f`.
const ESCAPE_MAX: usize = 6;

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

#[cfg(all(test, feature = "alloc"))]
mod tests {
    use alloc::vec::Vec;
    use core::cmp::Ordering;

    use super::JsonKeys;
    use crate::buf::Growing;
    use crate::order::KeyRules as _;

    /// All strings of up to four of these characters.
    fn strings() -> Vec<Vec<char>> {
        let mut all = Vec::from([Vec::new()]);
        let mut longest = 0;
        for _ in 0..4 {
            let from = longest;
            longest = all.len();
            for at in from..longest {
                for char in [
                    '\\',
                    '"',
                    '\n',
                    '\u{1}',
                    '\u{11}',
                    'u',
                    '\u{ffff}',
                    '\u{10000}',
                ] {
                    let longer = all[at].iter().copied().chain([char]).collect();
                    all.push(longer);
                }
            }
        }
        all
    }

    #[test]
    fn escaped_keys_compare_as_what_they_stand_for() {
        let written = |string: &Vec<char>| {
            let text: alloc::string::String = string.iter().collect();
            let units: Vec<u16> = text.encode_utf16().collect();
            let mut out = Growing::new();
            super::write_contents(&mut out, text.as_bytes()).expect("it grows");
            (units, out.into_vec())
        };
        let all: Vec<_> = strings().iter().map(written).collect();
        for (units, text) in all.iter().step_by(7) {
            for (other_units, other_text) in &all {
                let order: Ordering = JsonKeys { utf16: true }.compare(text, other_text, true);
                assert_eq!(order, units.cmp(other_units), "{text:?} {other_text:?}");
            }
        }
    }
}
