//! Numbers as ECMAScript prints them (RFC 8785 section 3.2.2.3), and the policies for integers that a double cannot hold.

mod format;
mod lex;
mod shortest;

use crate::buf::{Buf, PIECE_MAX, piece_of};
use crate::error::{Code, Fail};
use crate::json::Integers;

pub(crate) use crate::json::number::format::{write_f64, write_integer, write_u128, write_wide};
pub(crate) use crate::json::number::lex::{Integer, Literal};

/// Integers up to here, either sign, are the same in every JSON reader.
pub(crate) const SAFE_MAX: u128 = 1 << 53;

/// Digits of the largest double, its sign and some room.
pub(crate) const NUMBER_MAX: usize = 320;

/// Writes the canonical form of a literal of JSON text.
#[inline]
pub(crate) fn write_literal<B: Buf>(
    out: &mut B,
    literal: Literal<'_>,
    policy: Integers,
) -> Result<(), Fail> {
    if literal.is_plainly_canonical() || literal.is_provably_canonical() {
        return match literal.text.len() {
            ..=PIECE_MAX => out.put(piece_of(literal.text), literal.text.len()),
            _ => out.extend(literal.text),
        };
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
