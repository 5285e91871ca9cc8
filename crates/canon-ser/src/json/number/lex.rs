//! Reading number literals of JSON text: where their parts are, what value they have.

use crate::buf::{Buf, Fixed};
use crate::error::{Code, Fail};
use crate::json::Integers;
use crate::json::number::format::{write_f64, write_u64, write_zeros};
use crate::json::number::shortest;

/// Decimal digits that every double keeps: a literal this short is its own shortest form.
const DIGITS_KEPT: usize = 15;

/// 2^53: integers up to here are written as they are.
const SAFE: &[u8] = b"9007199254740992";

/// Literals up to this length are read by Rust's parser as they are. It lets go of further digits of an exponent that is
/// beyond 65535, which longer runs of zeros may bring back to any value.
const PARSED_MAX: usize = 1024;

/// More significant digits than any double, or tie between two doubles, has (767).
const SIGNIFICANT_MAX: usize = 800;

/// Beyond ten to this power, either way, there are no doubles.
const POINT_MAX: i64 = 400;

/// The double nearest to a literal; infinity beyond their range.
fn parsed(literal: &[u8]) -> f64 {
    let text = core::str::from_utf8(literal).expect("a number literal is ASCII");
    text.parse().expect("Rust reads every JSON number")
}

/// A count of bytes in memory, of which there are never 2^63.
fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Where the digits that start at `from` end.
#[inline(always)]
fn digits_end(text: &[u8], from: usize) -> usize {
    let mut at = from;
    let mut rest = &text[from..];
    while let Some((word, tail)) = rest.split_first_chunk::<8>() {
        // Digits become 0 to 9. A carry from a byte that is none may flag bytes above it; the lowest flag is right.
        let values = u64::from_le_bytes(*word) ^ 0x3030_3030_3030_3030;
        let other = (values.wrapping_add(0x7676_7676_7676_7676) | values) & 0x8080_8080_8080_8080;
        if other != 0 {
            return at + other.trailing_zeros() as usize / 8;
        }
        at += 8;
        rest = tail;
    }
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit());
    at + digits.count()
}

/// The number that `before` followed by these digits is, if it fits.
fn number_of(digits: &[u8], before: u64) -> u64 {
    let (words, rest) = digits.as_chunks::<8>();
    let number = words.iter().fold(before, |number, word| {
        let values = u64::from_le_bytes(*word) ^ 0x3030_3030_3030_3030;
        let twos = (values * 10 + (values >> 8)) & 0x00ff_00ff_00ff_00ff;
        let fours = (twos * 100 + (twos >> 16)) & 0x0000_ffff_0000_ffff;
        let eight = (fours * 10_000 + (fours >> 32)) & 0xffff_ffff;
        number.wrapping_mul(100_000_000).wrapping_add(eight)
    });
    rest.iter().fold(number, |number, digit| {
        number
            .wrapping_mul(10)
            .wrapping_add(u64::from(digit - b'0'))
    })
}

/// A number in JSON text, split where its grammar splits it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Literal<'t> {
    /// All of it: `-12.5e3`.
    pub(crate) text: &'t [u8],
    /// Past the integer digits.
    int_end: usize,
    /// Past the fraction digits; `int_end` when there is no fraction.
    frac_end: usize,
}

impl<'t> Literal<'t> {
    /// Reads the literal that starts at `from`.
    #[inline(always)]
    pub(crate) fn lex(text: &'t [u8], from: usize) -> Result<Literal<'t>, Fail> {
        let bad = |at: usize| {
            let code = if at < text.len() {
                Code::NumberSyntax
            } else {
                Code::End
            };
            Fail::At(code, at)
        };
        let int = from + usize::from(text.get(from) == Some(&b'-'));
        let int_end = digits_end(text, int);
        if int_end == int || (text[int] == b'0' && int_end > int + 1) {
            return Err(bad(int_end.min(int + 1).max(int)));
        }
        let mut frac_end = int_end;
        if text.get(int_end) == Some(&b'.') {
            frac_end = digits_end(text, int_end + 1);
            if frac_end == int_end + 1 {
                return Err(bad(frac_end));
            }
        }
        let mut end = frac_end;
        if let Some(b'e' | b'E') = text.get(end) {
            let sign = usize::from(matches!(text.get(end + 1), Some(b'+' | b'-')));
            let power = end + 1 + sign;
            end = digits_end(text, power.min(text.len()));
            if end <= power.min(text.len()) {
                return Err(bad(end));
            }
        }
        Ok(Literal {
            text: &text[from..end],
            int_end: int_end - from,
            frac_end: frac_end - from,
        })
    }

    /// A literal from outside (a serde_json number): it must be one whole literal.
    pub(crate) fn whole(text: &'t str) -> Option<Literal<'t>> {
        Literal::lex(text.as_bytes(), 0)
            .ok()
            .filter(|literal| literal.text.len() == text.len())
    }

    fn is_negative(&self) -> bool {
        self.text[0] == b'-'
    }

    fn int(&self) -> &'t [u8] {
        &self.text[usize::from(self.is_negative())..self.int_end]
    }

    fn frac(&self) -> &'t [u8] {
        self.text
            .get(self.int_end + 1..self.frac_end)
            .unwrap_or(&[])
    }

    /// Neither fraction nor exponent.
    pub(crate) fn is_integer_spelled(&self) -> bool {
        self.int_end == self.text.len()
    }

    /// Whether this is letter by letter what a double prints as.
    pub(crate) fn is_printed_double(self) -> Result<bool, Fail> {
        let mut bytes = [0_u8; 32];
        let mut printed = Fixed::new(&mut bytes);
        write_f64(&mut printed, self.to_f64()?, Integers::Error)?;
        Ok(printed.bytes() == self.text)
    }

    /// The nearest double; an error beyond their range.
    pub(crate) fn to_f64(self) -> Result<f64, Fail> {
        let value = match self.text.len() {
            ..=PARSED_MAX => parsed(self.text),
            _ => self.long_to_f64()?,
        };
        if value.is_finite() {
            Ok(value)
        } else {
            Err(Fail::new(Code::Range))
        }
    }

    /// The same for a literal of any length: its first digits, and the exponent that they have when they follow the point.
    #[cold]
    fn long_to_f64(self) -> Result<f64, Fail> {
        let (start, end) = self.significant();
        let int_len = self.int().len();
        let point = self.power().saturating_add(signed(int_len) - signed(start));
        let sign = if self.is_negative() { -1.0 } else { 1.0 };
        // Zero, or nearer to it than to the least double.
        if start == end || point < -POINT_MAX {
            return Ok(0.0_f64.copysign(sign));
        }
        if point > POINT_MAX {
            return Err(Fail::new(Code::Range));
        }
        let mut bytes = [0; SIGNIFICANT_MAX + 16];
        let mut short = Fixed::new(&mut bytes);
        short.extend(b"0.")?;
        for at in start..end.min(start + SIGNIFICANT_MAX) {
            short.push(self.digit(at))?;
        }
        if end - start > SIGNIFICANT_MAX {
            // The last of the digits left out is no zero: it may only tell which side of a tie this is.
            short.push(b'1')?;
        }
        short.push(b'e')?;
        write_u64(&mut short, point.unsigned_abs(), point < 0)?;
        Ok(parsed(short.bytes()).copysign(sign))
    }

    /// True if the literal is certainly its own canonical form under every policy.
    #[inline]
    pub(crate) fn is_plainly_canonical(&self) -> bool {
        let (int, frac) = (self.int(), self.frac());
        if self.is_integer_spelled() {
            let short = int.len() <= DIGITS_KEPT;
            return (short && self.text != b"-0") || (int.len() == SAFE.len() && int <= SAFE);
        }
        if self.frac_end != self.text.len() || frac.last() == Some(&b'0') {
            return false;
        }
        if int != b"0" {
            return int.len() + frac.len() <= DIGITS_KEPT;
        }
        // ECMAScript writes 0.000001 in full and 0.0000001 as 1e-7.
        let zeros = frac.iter().take_while(|&&digit| digit == b'0').count();
        zeros <= 5 && frac.len() - zeros <= DIGITS_KEPT
    }

    /// The same, decided at some more cost for nearly all fractions that doubles print as.
    pub(crate) fn is_provably_canonical(&self) -> bool {
        let (int, frac) = (self.int(), self.frac());
        if self.frac_end != self.text.len() || int.len() + frac.len() > shortest::PLACES_MAX {
            return false;
        }
        // Smaller ones are printed with an exponent.
        if int == b"0" && frac.starts_with(b"000000") {
            return false;
        }
        shortest::is_shortest(number_of(frac, number_of(int, 0)), frac.len())
    }

    /// The literal as an integer, if its value is one.
    pub(crate) fn to_integer(self) -> Option<Integer<'t>> {
        let (int, frac) = (self.int(), self.frac());
        let (start, end) = self.significant();
        if start == end {
            return Some(Integer {
                negative: false,
                int: &[],
                frac: &[],
                zeros: 0,
            });
        }
        let power = self.power().saturating_add(signed(int.len()) - signed(end));
        let zeros = u64::try_from(power).ok()?;
        let split = int.len();
        Some(Integer {
            negative: self.is_negative(),
            int: &int[start.min(split)..end.min(split)],
            frac: &frac[start.max(split) - split..end.max(split) - split],
            zeros,
        })
    }

    /// The literal as an integer that is spelled as one and fits 64 bits, signed or not.
    pub(crate) fn to_word(self) -> Option<(u128, bool)> {
        if !self.is_integer_spelled() {
            return None;
        }
        let integer = self.to_integer()?;
        let magnitude = integer.magnitude()?;
        let max = if integer.negative {
            1 << 63
        } else {
            u128::from(u64::MAX)
        };
        (magnitude <= max).then_some((magnitude, integer.negative))
    }

    /// The digit at this place among those before and behind the point.
    fn digit(&self, at: usize) -> u8 {
        let (int, frac) = (self.int(), self.frac());
        match at.checked_sub(int.len()) {
            None => int[at],
            Some(at) => frac[at],
        }
    }

    /// Where among all its digits those are that stand between zeros; empty for zero.
    fn significant(&self) -> (usize, usize) {
        let (int, frac) = (self.int(), self.frac());
        let is_zero = |digit: &&u8| **digit == b'0';
        let mut start = int.iter().take_while(is_zero).count();
        if start == int.len() {
            start += frac.iter().take_while(is_zero).count();
        }
        let mut zeros = frac.iter().rev().take_while(is_zero).count();
        if zeros == frac.len() {
            zeros += int.iter().rev().take_while(is_zero).count();
        }
        (start, start.max(int.len() + frac.len() - zeros))
    }

    /// The decimal exponent as written, held within 2^60 of zero: no text has so many digits that they outweigh that.
    fn power(&self) -> i64 {
        let Some(written) = self.text.get(self.frac_end + 1..) else {
            return 0;
        };
        let (sign, digits) = match written {
            [b'-', digits @ ..] => (-1, digits),
            [b'+', digits @ ..] | digits => (1, digits),
        };
        let add = |power: i64, digit: &u8| (power * 10 + i64::from(digit - b'0')).min(1 << 56);
        sign * digits.iter().fold(0, add)
    }
}

/// An integer of any length: significant digits in two pieces, then zeros.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Integer<'t> {
    pub(crate) negative: bool,
    int: &'t [u8],
    frac: &'t [u8],
    zeros: u64,
}

impl Integer<'_> {
    /// Writes all digits. The caller has made sure that the value is within the range of a double.
    pub(super) fn write<B: Buf>(&self, out: &mut B) -> Result<(), Fail> {
        if self.int.is_empty() && self.frac.is_empty() {
            return out.push(b'0');
        }
        if self.negative {
            out.push(b'-')?;
        }
        out.extend(self.int)?;
        out.extend(self.frac)?;
        write_zeros(out, self.zeros as usize)
    }

    /// Are these the digits that the double prints as? Then reading them as that double loses nothing.
    pub(crate) fn is_shortest_of(&self, value: f64) -> bool {
        let mut forms = [[0_u8; 320]; 2];
        let [ours, printed] = &mut forms;
        let (mut ours, mut printed) = (Fixed::new(ours), Fixed::new(printed));
        let written = self.write(&mut ours);
        let written = written.and_then(|()| write_f64(&mut printed, value, Integers::Exact));
        written.is_ok() && ours.bytes() == printed.bytes()
    }

    /// The absolute value, if it fits.
    pub(crate) fn magnitude(&self) -> Option<u128> {
        if self.zeros > 40 {
            return None;
        }
        let digits = self
            .int
            .iter()
            .chain(self.frac)
            .map(|digit| u128::from(digit - b'0'));
        let zeros = core::iter::repeat_n(0, self.zeros as usize);
        digits
            .chain(zeros)
            .try_fold(0_u128, |sum, digit| sum.checked_mul(10)?.checked_add(digit))
    }
}
