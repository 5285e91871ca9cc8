//! Exact decimal numbers: a unit factor must not add the errors of binary floats.

use alloc::format;
use alloc::string::String;

/// `digits * 10^exponent`, with a sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decimal {
    negative: bool,
    digits: u128,
    exponent: i32,
}

impl Decimal {
    /// Reads a number as JSON spells it; none if it is no such number or its significant digits are 2^128 or more.
    pub(crate) fn parse(text: &str) -> Option<Decimal> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, power) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (int, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let written = power.strip_prefix('+').unwrap_or(power);
        let mut decimal = Decimal {
            negative,
            digits: 0,
            exponent: written.parse().ok()?,
        };
        decimal.exponent = decimal
            .exponent
            .checked_sub(i32::try_from(fraction.len()).ok()?)?;
        if int.is_empty()
            || !int
                .bytes()
                .chain(fraction.bytes())
                .all(|b| b.is_ascii_digit())
        {
            return None;
        }
        // Zeros at the end are not significant.
        let all = format!("{int}{fraction}");
        let significant = all.trim_end_matches('0');
        decimal.exponent = decimal
            .exponent
            .checked_add(i32::try_from(all.len() - significant.len()).ok()?)?;
        for digit in significant.bytes() {
            decimal.digits = decimal
                .digits
                .checked_mul(10)?
                .checked_add(u128::from(digit - b'0'))?;
        }
        Some(decimal)
    }

    /// The exact product, if its digits are below 2^128.
    pub(crate) fn times(self, factor: Decimal) -> Option<Decimal> {
        Some(Decimal {
            negative: self.negative != factor.negative,
            digits: self.digits.checked_mul(factor.digits)?,
            exponent: self.exponent.checked_add(factor.exponent)?,
        })
    }

    pub(crate) fn is_zero(self) -> bool {
        self.digits == 0
    }

    /// As JSON spells it.
    pub(crate) fn literal(self) -> String {
        let sign = if self.negative { "-" } else { "" };
        format!("{sign}{}e{}", self.digits, self.exponent)
    }

    /// The integer at or below the value of `self * 10^shift`, and the digits of what is above it, without zeros at the end.
    pub(crate) fn floor(self, shift: i32) -> Option<(i64, String)> {
        let exponent = if self.digits == 0 {
            0
        } else {
            self.exponent.checked_add(shift)?
        };
        let Ok(places) = usize::try_from(exponent.checked_neg()?) else {
            let scale = 10_u128.checked_pow(exponent.unsigned_abs())?;
            let whole = i64::try_from(self.digits.checked_mul(scale)?).ok()?;
            return Some((if self.negative { -whole } else { whole }, String::new()));
        };
        let scale = 10_u128.checked_pow(exponent.unsigned_abs())?;
        let mut whole = i64::try_from(self.digits / scale).ok()?;
        let mut above = self.digits % scale;
        if self.negative {
            whole = -whole;
            if above > 0 {
                whole = whole.checked_sub(1)?;
                above = scale - above;
            }
        }
        let fraction = format!("{above:0places$}");
        Some((whole, fraction.trim_end_matches('0').into()))
    }
}

#[cfg(test)]
mod tests {
    use super::Decimal;

    fn product(left: &str, right: &str) -> Option<alloc::string::String> {
        Some(
            Decimal::parse(left)?
                .times(Decimal::parse(right)?)?
                .literal(),
        )
    }

    #[test]
    fn products_are_exact() {
        assert_eq!(product("250", "0.01").as_deref(), Some("25e-1"));
        assert_eq!(product("-1.10e2", "-3").as_deref(), Some("33e1"));
        assert_eq!(product("0.1", "0.1").as_deref(), Some("1e-2"));
        assert_eq!(product("0", "5").as_deref(), Some("0e1"));
        assert_eq!(product("1e40", "1").as_deref(), Some("1e40"));
        let long = "123456789012345678901234567890123456789";
        assert_eq!(product(long, "99"), None);
        for text in ["", "-", "x", "1.x", ".5", "1e", "1e99999999999"] {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
    }

    #[test]
    fn floors_go_down_on_both_sides_of_zero() {
        let floor = |text: &str, shift| Decimal::parse(text).and_then(|value| value.floor(shift));
        assert_eq!(
            floor("1700000000250", -3),
            Some((1_700_000_000, "25".into()))
        );
        assert_eq!(floor("-1", -3), Some((-1, "999".into())));
        assert_eq!(floor("-1000", -3), Some((-1, "".into())));
        assert_eq!(floor("1.5e3", 0), Some((1500, "".into())));
        assert_eq!(floor("0", 0), Some((0, "".into())));
        assert_eq!(floor("1e30", 0), None);
        assert_eq!(floor("1e-60", 0), None);
    }
}
