//! CBOR heads, integers and floats: the bytes of RFC 8949 section 3, in their shortest form (section 4.2.1).

use crate::buf::{Buf, Piece};
use crate::error::{Code, Fail};

pub(crate) const UNSIGNED: u8 = 0;
pub(crate) const NEGATIVE: u8 = 1;
pub(crate) const BYTES: u8 = 2;
pub(crate) const TEXT: u8 = 3;
pub(crate) const ARRAY: u8 = 4;
pub(crate) const MAP: u8 = 5;
pub(crate) const TAG: u8 = 6;
pub(crate) const SIMPLE: u8 = 7;

pub(crate) const FALSE: u8 = 0xf4;
pub(crate) const TRUE: u8 = 0xf5;
pub(crate) const NULL: u8 = 0xf6;
pub(crate) const BREAK: u8 = 0xff;

/// The one NaN.
const NAN: [u8; 3] = [0xf9, 0x7e, 0x00];
const NAN_BITS: u16 = 0x7e00;

/// The tags of a bignum, positive and negative.
pub(crate) const BIGNUMS: [u64; 2] = [2, 3];

/// Bytes of the shortest head with this argument.
#[inline]
pub(crate) fn head_len(argument: u64) -> usize {
    match argument {
        0..=23 => 1,
        24..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// The shortest head; the first `head_len(argument)` bytes count.
#[inline]
pub(crate) fn head(major: u8, argument: u64) -> [u8; 9] {
    let mut bytes = [0; 9];
    let wide = argument.to_be_bytes();
    let len = head_len(argument);
    let info = match len {
        1 => argument as u8,
        2 => 24,
        3 => 25,
        5 => 26,
        _ => 27,
    };
    bytes[0] = major << 5 | info;
    bytes[1..len].copy_from_slice(&wide[9 - len..]);
    bytes
}

#[inline]
pub(crate) fn write_head<B: Buf>(out: &mut B, major: u8, argument: u64) -> Result<(), Fail> {
    if argument < 24 {
        return out.push(major << 5 | argument as u8);
    }
    let width = head_len(argument) - 1;
    let info = 24 + width.trailing_zeros() as u8;
    let bytes = (argument << (64 - 8 * width)).swap_bytes();
    out.put(
        Piece::from(major << 5 | info) | Piece::from(bytes) << 8,
        1 + width,
    )
}

/// Writes an integer of any sign as such, or as a bignum when it needs more than 64 bits.
pub(crate) fn write_integer<B: Buf>(
    out: &mut B,
    magnitude: u128,
    negative: bool,
) -> Result<(), Fail> {
    let (major, argument) = match (negative, magnitude.checked_sub(1)) {
        (true, Some(argument)) => (NEGATIVE, argument),
        _ => (UNSIGNED, magnitude),
    };
    match u64::try_from(argument) {
        Ok(argument) => write_head(out, major, argument),
        Err(_) => write_bignum(out, negative, &argument.to_be_bytes()),
    }
}

/// Writes a bignum of big-endian `bytes` (for a negative one, of -1 - value) in its preferred form: an integer if it fits.
pub(crate) fn write_bignum<B: Buf>(out: &mut B, negative: bool, bytes: &[u8]) -> Result<(), Fail> {
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    let bytes = &bytes[zeros..];
    if bytes.len() <= 8 {
        let argument = bytes
            .iter()
            .fold(0, |argument, &byte| argument << 8 | u64::from(byte));
        return write_head(out, if negative { NEGATIVE } else { UNSIGNED }, argument);
    }
    write_head(out, TAG, BIGNUMS[usize::from(negative)])?;
    write_head(out, BYTES, bytes.len() as u64)?;
    out.extend(bytes)
}

/// Writes a float in the shortest form that keeps its value; every NaN is the same.
#[inline]
pub(crate) fn write_float<B: Buf>(out: &mut B, value: f64) -> Result<(), Fail> {
    if value.is_nan() {
        return out.extend(&NAN);
    }
    let single = value as f32;
    if f64::from(single) != value {
        return put_float(out, 0xfb, value.to_bits().swap_bytes(), 9);
    }
    match half(single) {
        Some(bits) => put_float(out, 0xf9, bits.swap_bytes().into(), 3),
        None => put_float(out, 0xfa, single.to_bits().swap_bytes().into(), 5),
    }
}

#[inline]
fn put_float<B: Buf>(out: &mut B, head: u8, bits: u64, len: usize) -> Result<(), Fail> {
    out.put(Piece::from(head) | Piece::from(bits) << 8, len)
}

/// Writes a float as DAG-CBOR has it: in 64 bits, finite, and never -0.0.
pub(crate) fn write_wide_float<B: Buf>(out: &mut B, value: f64) -> Result<(), Fail> {
    if !value.is_finite() {
        return Err(Fail::new(Code::DagFloat));
    }
    // Adding +0.0 turns -0.0 into 0.0 and changes nothing else.
    put_float(out, 0xfb, (value + 0.0).to_bits().swap_bytes(), 9)
}

/// The bits of the half-precision float of exactly this value, which is not NaN.
fn half(value: f32) -> Option<u16> {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let fraction = bits & 0x007f_ffff;
    let exponent = (bits >> 23 & 0xff) as i32 - 127;
    if value == 0.0 {
        return Some(sign);
    }
    let (magnitude, dropped) = match exponent {
        128 => (0x7c00, 0),
        -14..=15 => (
            ((exponent + 15) as u32) << 10 | fraction >> 13,
            fraction & 0x1fff,
        ),
        -24..=-15 => {
            // Subnormal: the implicit one becomes explicit and shifts right.
            let whole = fraction | 0x0080_0000;
            let shift = 13 + (-14 - exponent) as u32;
            (whole >> shift, whole & ((1 << shift) - 1))
        }
        _ => return None,
    };
    (dropped == 0).then_some(sign | magnitude as u16)
}

/// The value of a half-precision float.
fn from_half(bits: u16) -> f64 {
    let fraction = f64::from(bits & 0x03ff);
    let magnitude = match i32::from(bits >> 10 & 0x1f) {
        0 => fraction * power_of_two(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        exponent => (1024.0 + fraction) * power_of_two(exponent - 25),
    };
    if bits & 0x8000 == 0 {
        magnitude
    } else {
        -magnitude
    }
}

/// 2^`exponent` for the exponents of normal doubles.
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

/// The least argument that needs info bits this high.
const LEAST: [u64; 32] = {
    let mut least = [0; 32];
    (least[24], least[25], least[26], least[27]) = (24, 1 << 8, 1 << 16, 1 << 32);
    least
};

/// A head as read: major type, the five low bits, the argument, and where what follows it starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) major: u8,
    pub(crate) info: u8,
    pub(crate) argument: u64,
    pub(crate) end: usize,
}

impl Head {
    /// Info bits of an indefinite length, or of a break.
    pub(crate) const INDEFINITE: u8 = 31;

    /// Reads the head at `at`.
    #[inline(always)]
    pub(crate) fn read(bytes: &[u8], at: usize) -> Result<Head, Fail> {
        let &first = bytes.get(at).ok_or(Fail::At(Code::End, bytes.len()))?;
        let (major, info) = (first >> 5, first & 31);
        // A branch that is mostly guessed right: what follows need not wait for the byte.
        if info < 24 {
            return Ok(Head {
                major,
                info,
                argument: u64::from(info),
                end: at + 1,
            });
        }
        // And none on the width, which no processor can guess.
        if let Some(word) = bytes[at + 1..].first_chunk::<8>()
            && info < 28
        {
            let width = 1 << (info & 3);
            return Ok(Head {
                major,
                info,
                argument: u64::from_be_bytes(*word) >> (64 - 8 * width),
                end: at + 1 + width,
            });
        }
        Head::read_rare(bytes, at)
    }

    /// The same for the last bytes of the input, and for heads without an argument.
    #[cold]
    fn read_rare(bytes: &[u8], at: usize) -> Result<Head, Fail> {
        let &first = bytes.get(at).ok_or(Fail::At(Code::End, bytes.len()))?;
        let (major, info) = (first >> 5, first & 31);
        let rest = &bytes[at + 1..];
        let (argument, width) = match info {
            0..=23 => (Some(u64::from(info)), 0),
            24 => (rest.first().map(|&byte| byte.into()), 1),
            25 => (rest.first_chunk().map(|&b| u16::from_be_bytes(b).into()), 2),
            26 => (rest.first_chunk().map(|&b| u32::from_be_bytes(b).into()), 4),
            27 => (rest.first_chunk().map(|&b| u64::from_be_bytes(b)), 8),
            31 if !matches!(major, UNSIGNED | NEGATIVE | TAG) => (Some(0), 0),
            _ => return Err(Fail::At(Code::CborHead, at)),
        };
        Ok(Head {
            major,
            info,
            argument: argument.ok_or(Fail::At(Code::End, bytes.len()))?,
            end: at + 1 + width,
        })
    }

    /// Is the argument of an integer, length or tag in its shortest form?
    #[inline(always)]
    pub(crate) fn is_shortest(&self) -> bool {
        self.argument >= LEAST[usize::from(self.info & 31)] && self.info < 28
    }

    /// Fails unless this is the shortest head of a float of that value.
    #[inline]
    pub(crate) fn check_float(&self, value: f64) -> Result<(), Fail> {
        let code = if value.is_nan() {
            Code::NanForm
        } else {
            Code::FloatForm
        };
        let shortest = match self.info {
            25 if value.is_nan() => self.argument == u64::from(NAN_BITS),
            _ if value.is_nan() => false,
            25 => true,
            26 => half(value as f32).is_none(),
            _ => f64::from(value as f32) != value,
        };
        shortest.then_some(()).ok_or(Fail::new(code))
    }

    /// The value, if this is the head of a float.
    pub(crate) fn float(&self) -> Option<f64> {
        match (self.major, self.info) {
            (SIMPLE, 25) => Some(from_half(self.argument as u16)),
            (SIMPLE, 26) => Some(f64::from(f32::from_bits(self.argument as u32))),
            (SIMPLE, 27) => Some(f64::from_bits(self.argument)),
            _ => None,
        }
    }
}

/// Where an item that we wrote (definite lengths only) ends.
pub(crate) fn item_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    let mut pending = 1_u64;
    while pending > 0 {
        let Ok(head) = Head::read(bytes, at) else {
            return bytes.len();
        };
        at = head.end;
        pending -= 1;
        match head.major {
            BYTES | TEXT => at += head.argument as usize,
            ARRAY => pending += head.argument,
            MAP => pending += 2 * head.argument,
            TAG => pending += 1,
            _ => {}
        }
    }
    at
}
