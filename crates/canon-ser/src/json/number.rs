//! Numbers as ECMAScript prints them (RFC 8785 section 3.2.2.3), and the policies for integers that a double cannot hold.

use crate::buf::{Buf, Fixed, Piece};
use crate::error::{Code, Fail};
use crate::json::Integers;

/// Integers up to here, either sign, are the same in every JSON reader.
const SAFE_MAX: u128 = 1 << 53;

/// Decimal digits that every double keeps: a literal this short is its own shortest form.
const DIGITS_KEPT: usize = 15;

/// Among these, zmij and ECMAScript both write what is no integer without an exponent.
const PLAIN: core::ops::Range<f64> = 1e-4..1e15;

const PAIRS: &[u8; 200] = b"0001020304050607080910111213141516171819\
2021222324252627282930313233343536373839\
4041424344454647484950515253545556575859\
6061626364656667686970717273747576777879\
8081828384858687888990919293949596979899";

/// The decimal digits of a number below 10^8, the first in the lowest byte, as numbers: two halves, then four quarters,
/// then eight digits, side by side in one word.
#[inline]
fn eight_digits(value: u64) -> u64 {
    let fours = (value / 10_000) | ((value % 10_000) << 32);
    let hundreds = ((fours * 5243) >> 19) & 0x0000_007f_0000_007f;
    let twos = hundreds | (fours - 100 * hundreds) << 16;
    let tens = ((twos * 103) >> 10) & 0x000f_000f_000f_000f;
    tens | (twos - 10 * tens) << 8
}

/// Writes an integer in full.
#[inline]
pub(crate) fn write_u64<B: Buf>(out: &mut B, value: u64, negative: bool) -> Result<(), Fail> {
    const ZEROS: u64 = 0x3030_3030_3030_3030;
    const HALF: u64 = 100_000_000;
    if value >= HALF * HALF {
        return write_long(out, value, negative);
    }
    if negative {
        out.push(b'-')?;
    }
    let (high, low) = (value / HALF, value % HALF);
    let leading = eight_digits(if high > 0 { high } else { low });
    // The last digit stays even if it is a zero.
    let skipped = ((leading | 1 << 63).trailing_zeros() / 8) as usize;
    let shown = Piece::from((leading | ZEROS) >> (8 * skipped));
    if high == 0 {
        return out.put(shown, 8 - skipped);
    }
    let rest = Piece::from(eight_digits(low) | ZEROS) << (8 * (8 - skipped));
    out.put(shown | rest, 16 - skipped)
}

/// The same for more than 16 digits.
fn write_long<B: Buf>(out: &mut B, value: u64, negative: bool) -> Result<(), Fail> {
    let mut digits = [0_u8; 21];
    let mut at = digits.len();
    let mut rest = value;
    while rest >= 100 {
        let pair = (rest % 100) as usize * 2;
        rest /= 100;
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
    }
    if rest >= 10 {
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[rest as usize * 2..rest as usize * 2 + 2]);
    } else {
        at -= 1;
        digits[at] = b'0' + rest as u8;
    }
    if negative {
        at -= 1;
        digits[at] = b'-';
    }
    out.extend(&digits[at..])
}

/// Writes an integer of any width in full.
pub(crate) fn write_u128<B: Buf>(out: &mut B, value: u128, negative: bool) -> Result<(), Fail> {
    if let Ok(small) = u64::try_from(value) {
        return write_u64(out, small, negative);
    }
    let mut digits = [0_u8; 40];
    let mut at = digits.len();
    let mut rest = value;
    while rest > 0 {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    if negative {
        at -= 1;
        digits[at] = b'-';
    }
    out.extend(&digits[at..])
}

/// Writes an integer of a Rust type under the policy.
#[inline]
pub(crate) fn write_integer<B: Buf>(
    out: &mut B,
    value: u64,
    negative: bool,
    policy: Integers,
) -> Result<(), Fail> {
    if u128::from(value) <= SAFE_MAX {
        return write_u64(out, value, negative);
    }
    write_wide(out, u128::from(value), negative, policy)
}

/// The same for integers that may be wider than 64 bits.
pub(crate) fn write_wide<B: Buf>(
    out: &mut B,
    value: u128,
    negative: bool,
    policy: Integers,
) -> Result<(), Fail> {
    if value <= SAFE_MAX {
        return write_u64(out, value as u64, negative);
    }
    match policy {
        Integers::Error => Err(Fail::new(Code::Integer)),
        Integers::Round => {
            let nearest = value as f64;
            write_f64(out, if negative { -nearest } else { nearest }, policy)
        }
        Integers::String => {
            out.push(b'"')?;
            write_u128(out, value, negative)?;
            out.push(b'"')
        }
        Integers::Exact => write_u128(out, value, negative),
    }
}

/// Writes a double as ECMAScript does; under [`Integers::Exact`] integers are never written with an exponent.
#[inline]
pub(crate) fn write_f64<B: Buf>(out: &mut B, value: f64, policy: Integers) -> Result<(), Fail> {
    let whole = value as i64;
    if whole as f64 == value && u128::from(whole.unsigned_abs()) <= SAFE_MAX {
        // Minus zero lands here too: ECMAScript prints it as "0".
        return write_u64(out, whole.unsigned_abs(), whole < 0);
    }
    if !value.is_finite() {
        return Err(Fail::new(Code::NotFinite));
    }
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(value).as_bytes();
    if PLAIN.contains(&value.abs()) {
        return out.extend(text);
    }
    // zmij writes an exponent wherever ECMAScript does, and in some more places; where it writes none, they agree.
    let tail = text.len().saturating_sub(5);
    match text[tail..].iter().position(|&byte| byte == b'e') {
        None => out.extend(text.strip_suffix(b".0").unwrap_or(text)),
        Some(at) => write_layout(out, &text[..tail + at], &text[tail + at + 1..], policy),
    }
}

/// Lays out shortest digits, given as `-d.ddd` and a decimal exponent, by the rules of ECMAScript's Number::toString.
fn write_layout<B: Buf>(
    out: &mut B,
    mantissa: &[u8],
    exponent: &[u8],
    policy: Integers,
) -> Result<(), Fail> {
    let mut digits = [0_u8; 20];
    let mut count = 0;
    for &byte in mantissa.iter().filter(|byte| byte.is_ascii_digit()) {
        digits[count] = byte;
        count += 1;
    }
    let digits = &digits[..count];
    let (sign, power) = match exponent {
        [b'-', power @ ..] => (-1, power),
        [b'+', power @ ..] | power => (1, power),
    };
    let power = sign
        * power
            .iter()
            .fold(0_i32, |power, &byte| power * 10 + i32::from(byte - b'0'));
    // The value is 0.DIGITS x 10^point.
    let point = power + 1;
    if mantissa.first() == Some(&b'-') {
        out.push(b'-')?;
    }
    let before_point = usize::try_from(point).unwrap_or(0);
    if count <= before_point && (point <= 21 || policy == Integers::Exact) {
        out.extend(digits)?;
        return write_zeros(out, before_point - count);
    }
    match point {
        1..=21 => {
            out.extend(&digits[..before_point])?;
            out.push(b'.')?;
            out.extend(&digits[before_point..])
        }
        -5..=0 => {
            out.extend(b"0.")?;
            write_zeros(out, point.unsigned_abs() as usize)?;
            out.extend(digits)
        }
        _ => {
            out.push(digits[0])?;
            if count > 1 {
                out.push(b'.')?;
                out.extend(&digits[1..])?;
            }
            out.extend(if power < 0 { b"e-" } else { b"e+" })?;
            write_u64(out, u64::from(power.unsigned_abs()), false)
        }
    }
}

fn write_zeros<B: Buf>(out: &mut B, count: usize) -> Result<(), Fail> {
    (0..count).try_for_each(|_| out.push(b'0'))
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
    #[inline]
    pub(crate) fn lex(text: &'t [u8], from: usize) -> Result<Literal<'t>, Fail> {
        let digits_end = |from: usize| {
            let rest = &text[from..];
            from + rest
                .iter()
                .position(|byte| !byte.is_ascii_digit())
                .unwrap_or(rest.len())
        };
        let bad = |at: usize| {
            let code = if at < text.len() {
                Code::NumberSyntax
            } else {
                Code::End
            };
            Fail::At(code, at)
        };
        let int = from + usize::from(text.get(from) == Some(&b'-'));
        let int_end = digits_end(int);
        if int_end == int || (text[int] == b'0' && int_end > int + 1) {
            return Err(bad(int_end.min(int + 1).max(int)));
        }
        let mut frac_end = int_end;
        if text.get(int_end) == Some(&b'.') {
            frac_end = digits_end(int_end + 1);
            if frac_end == int_end + 1 {
                return Err(bad(frac_end));
            }
        }
        let mut end = frac_end;
        if let Some(b'e' | b'E') = text.get(end) {
            let sign = usize::from(matches!(text.get(end + 1), Some(b'+' | b'-')));
            let power = end + 1 + sign;
            end = digits_end(power.min(text.len()));
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

    /// The nearest double; an error beyond their range.
    pub(crate) fn to_f64(self) -> Result<f64, Fail> {
        let text = core::str::from_utf8(self.text).expect("a number literal is ASCII");
        let value: f64 = text.parse().expect("Rust reads every JSON number");
        if value.is_finite() {
            Ok(value)
        } else {
            Err(Fail::new(Code::Range))
        }
    }

    /// True if the literal is certainly its own canonical form under every policy.
    #[inline]
    pub(crate) fn is_plainly_canonical(&self) -> bool {
        let (int, frac) = (self.int(), self.frac());
        if self.is_integer_spelled() {
            return int.len() <= DIGITS_KEPT && !(self.is_negative() && int == b"0");
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

    /// The literal as an integer, if its value is one.
    pub(crate) fn to_integer(self) -> Option<Integer<'t>> {
        let (int, frac) = (self.int(), self.frac());
        let mut power = self
            .power()
            .saturating_sub(i64::try_from(frac.len()).unwrap_or(i64::MAX));
        let digit = |at: usize| {
            if at < int.len() {
                int[at]
            } else {
                frac[at - int.len()]
            }
        };
        let (mut start, mut end) = (0, int.len() + frac.len());
        while start < end && digit(start) == b'0' {
            start += 1;
        }
        while end > start && digit(end - 1) == b'0' {
            end -= 1;
            power += 1;
        }
        if start == end {
            return Some(Integer {
                negative: false,
                int: &[],
                frac: &[],
                zeros: 0,
            });
        }
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

    /// The decimal exponent as written, held within 2^60 of zero.
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
    fn write<B: Buf>(&self, out: &mut B) -> Result<(), Fail> {
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

/// Writes the canonical form of a literal of JSON text.
#[inline]
pub(crate) fn write_literal<B: Buf>(
    out: &mut B,
    literal: Literal<'_>,
    policy: Integers,
) -> Result<(), Fail> {
    if literal.is_plainly_canonical() {
        return out.extend(literal.text);
    }
    write_any_literal(out, literal, policy)
}

fn write_any_literal<B: Buf>(
    out: &mut B,
    literal: Literal<'_>,
    policy: Integers,
) -> Result<(), Fail> {
    if policy == Integers::Exact {
        let value = literal.to_f64()?;
        return match literal.to_integer() {
            Some(integer) => integer.write(out),
            None => write_f64(out, value, policy),
        };
    }
    if policy == Integers::String && literal.is_integer_spelled() && !is_safe(&literal) {
        out.push(b'"')?;
        out.extend(literal.text)?;
        return out.push(b'"');
    }
    let value = literal.to_f64()?;
    let start = out.len();
    write_f64(out, value, policy)?;
    let printed = &out.bytes()[start..];
    match policy {
        // Text has no types: an integer that is exactly what a double prints as may have been one. Others lose digits.
        Integers::Error
            if literal.is_integer_spelled() && !is_safe(&literal) && printed != literal.text =>
        {
            Err(Fail::new(Code::Integer))
        }
        // So that a second pass, which sees an integer beyond 2^53, changes nothing.
        Integers::String if value.abs() > SAFE_MAX as f64 && !printed.contains(&b'e') => {
            let len = printed.len();
            out.push(b'"')?;
            out.push(b'"')?;
            out.bytes_mut()[start..].rotate_right(1);
            out.bytes_mut()[start + 1 + len] = b'"';
            Ok(())
        }
        _ => Ok(()),
    }
}

fn is_safe(literal: &Literal<'_>) -> bool {
    literal
        .to_integer()
        .and_then(|integer| integer.magnitude())
        .is_some_and(|size| size <= SAFE_MAX)
}

/// Writes a number that serde_json holds as text (its feature arbitrary_precision) as it would
/// without that feature: an integer of up to 64 bits as one, everything else as a double. Wider
/// integers, of which serde_json alone would drop digits, fall under the policy.
pub(crate) fn write_foreign<B: Buf>(
    out: &mut B,
    literal: Literal<'_>,
    policy: Integers,
) -> Result<(), Fail> {
    match literal.to_word() {
        Some((magnitude, negative)) => write_wide(out, magnitude, negative, policy),
        None => write_literal(out, literal, policy),
    }
}
