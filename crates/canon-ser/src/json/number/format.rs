//! Writing numbers: digits, and ECMAScript's layout of them.

use crate::buf::{Buf, Piece};
use crate::error::{Code, Fail};
use crate::json::Integers;
use crate::json::number::SAFE_MAX;

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

pub(super) fn write_zeros<B: Buf>(out: &mut B, count: usize) -> Result<(), Fail> {
    (0..count).try_for_each(|_| out.push(b'0'))
}
