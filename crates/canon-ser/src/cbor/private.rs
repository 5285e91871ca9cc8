//! serde_json's private structs in CBOR, and the numbers of JSON text.

#[cfg(feature = "alloc")]
use crate::buf::Growing;
use crate::buf::{Buf, Fixed};
use crate::cbor::emit::Emitter;
use crate::cbor::head::{TEXT, write_float, write_head, write_integer};
use crate::error::{Code, Fail};
use crate::json::Integers;
use crate::json::number::{Integer, Literal, NUMBER_MAX, SAFE_MAX, write_f64};
use crate::json::private;
#[cfg(feature = "alloc")]
use crate::{
    cbor::{Dialect, canon::Writer, read},
    order::Usual,
};
#[cfg(feature = "alloc")]
use alloc::vec::Vec;

/// Writes what the text of one of serde_json's private structs stands for.
pub(crate) fn write_private<B: Buf>(
    emitter: &mut Emitter<'_, B>,
    token: private::Token,
    text: &str,
) -> Result<(), Fail> {
    if token == private::Token::Raw {
        #[cfg(not(feature = "alloc"))]
        return Err(Fail::new(Code::NoHeap));
        #[cfg(feature = "alloc")]
        return crate::cbor::json::write_text(emitter, text.as_bytes(), Integers::Exact)
            .map_err(private::in_fragment);
    }
    let literal = Literal::whole(text).ok_or(Fail::new(Code::NumberSyntax))?;
    if let Some((magnitude, negative)) = literal.to_word() {
        return write_integer(emitter.out, magnitude, negative);
    }
    // As without arbitrary_precision, that is a double; integers that would lose digits stay integers.
    let value = literal.to_f64()?;
    match literal.to_integer() {
        Some(integer) if literal.is_integer_spelled() && !integer.is_shortest_of(value) => {
            write_wide(emitter.out, integer)
        }
        _ => write_float(emitter.out, value),
    }
}

/// The same where floats or the order of keys are not those of core deterministic CBOR.
#[cfg(feature = "alloc")]
pub(crate) fn write_in_dialect<B: Buf>(
    emitter: &mut Emitter<'_, B>,
    token: private::Token,
    text: &str,
) -> Result<(), Fail> {
    let options = emitter.options;
    let (mut out, mut scratch) = (Growing::new(), Usual::new());
    let mut core = Emitter::new(&mut out, &mut scratch, options.dialect(Dialect::Core));
    core.depth = emitter.depth;
    write_private(&mut core, token, text)?;
    let (mut written, mut scratch) = (Growing::new(), Usual::new());
    let mut dialect = Emitter::new(&mut written, &mut scratch, options);
    dialect.depth = emitter.depth;
    let mut writer = Writer {
        emitter: &mut dialect,
        open: Vec::new(),
    };
    // The offset would be one in bytes that nobody sees.
    read::drive::<_, false>(out.bytes(), &mut writer, options.depth_max)
        .map_err(Fail::without_offset)?;
    emitter.out.extend(written.bytes())
}

/// The number that a literal of JSON text means under the policy for integers.
///
/// But for [`Integers::Exact`] that is a double, as for canonical JSON: so two texts with the same canonical JSON have the
/// same CBOR. A double whose value is an integer of up to 64 bits and a sign is written as that integer.
pub(crate) fn write_number<B: Buf>(
    out: &mut B,
    literal: Literal<'_>,
    policy: Integers,
) -> Result<(), Fail> {
    if policy == Integers::Exact {
        return write_exact(out, literal);
    }
    if literal.is_integer_spelled()
        && let Some(integer) = literal.to_integer()
    {
        match integer.magnitude() {
            Some(size) if size <= SAFE_MAX => return write_integer(out, size, integer.negative),
            _ if policy == Integers::String => {
                write_head(out, TEXT, literal.text.len() as u64)?;
                return out.extend(literal.text);
            }
            _ if policy == Integers::Error && !literal.is_printed_double()? => {
                return Err(Fail::new(Code::Integer));
            }
            _ => {}
        }
    }
    let value = literal.to_f64()?;
    if policy == Integers::String && value.abs() > SAFE_MAX as f64 {
        return write_quoted(out, value);
    }
    let whole = value as i128;
    let integral = whole as f64 == value && is_word(whole.unsigned_abs(), whole < 0);
    match integral {
        true => write_integer(out, whole.unsigned_abs(), whole < 0),
        false => write_float(out, value),
    }
}

/// A double beyond 2^53: text if it prints as an integer, as it is a string in canonical JSON.
fn write_quoted<B: Buf>(out: &mut B, value: f64) -> Result<(), Fail> {
    let mut bytes = [0; 32];
    let mut printed = Fixed::new(&mut bytes);
    write_f64(&mut printed, value, Integers::String)?;
    let printed = printed.bytes();
    if printed.contains(&b'e') {
        return write_float(out, value);
    }
    write_head(out, TEXT, printed.len() as u64)?;
    out.extend(printed)
}

/// Whatever value the literal has: an integer if it is one of up to 128 bits, otherwise a float. A longer integer that is
/// not what a double prints as would lose digits, and is an error.
fn write_exact<B: Buf>(out: &mut B, literal: Literal<'_>) -> Result<(), Fail> {
    let value = literal.to_f64()?;
    if let Some(integer) = literal.to_integer() {
        return write_exact_integer(out, integer, value);
    }
    // What is no integer is the double next to it, which canonical JSON may print as one.
    if value.abs() < SAFE_MAX as f64 && value as i64 as f64 != value {
        return write_float(out, value);
    }
    let mut digits = [0; NUMBER_MAX];
    let mut printed = Fixed::new(&mut digits);
    write_f64(&mut printed, value, Integers::Exact)?;
    match Literal::lex(printed.bytes(), 0)?.to_integer() {
        Some(integer) => write_exact_integer(out, integer, value),
        None => write_float(out, value),
    }
}

fn write_exact_integer<B: Buf>(out: &mut B, integer: Integer<'_>, value: f64) -> Result<(), Fail> {
    match integer.magnitude() {
        None if integer.is_shortest_of(value) => write_float(out, value),
        _ => write_wide(out, integer),
    }
}

/// An integer with all its digits, as a bignum where it needs one.
fn write_wide<B: Buf>(out: &mut B, integer: Integer<'_>) -> Result<(), Fail> {
    let magnitude = integer.magnitude().ok_or(Fail::new(Code::WideInteger))?;
    write_integer(out, magnitude, integer.negative)
}

/// From -2^64 to 2^64 - 1: what CBOR has heads for.
fn is_word(magnitude: u128, negative: bool) -> bool {
    magnitude <= u128::from(u64::MAX) + u128::from(negative)
}
