//! Is a decimal the one that its double prints as? Decided in integers, without reading it and printing it again.

/// The powers of ten that fit 64 bits.
const POWERS: [u64; 20] = {
    let mut powers = [1; 20];
    let mut at = 1;
    while at < powers.len() {
        powers[at] = 10 * powers[at - 1];
        at += 1;
    }
    powers
};

/// Fraction digits that [`is_shortest`] can judge.
pub(super) const PLACES_MAX: usize = POWERS.len() - 1;

/// More than the 17 digits that the longest of the shortest forms has.
const DIGITS_END: u64 = POWERS[17];

const IMPLICIT: u64 = 1 << 52;

/// True if, for certain, `digits` / 10^`places` has the digits of the shortest decimal that reads as the double next to
/// it, and of all decimals as short is the closest to it: what ECMAScript prints (Number::toString, step 5).
///
/// False says nothing: the last digit is a zero, the double is a power of two, or there are too many digits.
pub(super) fn is_shortest(digits: u64, places: usize) -> bool {
    let last = digits % 10;
    if !(1..=PLACES_MAX).contains(&places) || digits >= DIGITS_END || last == 0 {
        return false;
    }
    let scale = POWERS[places];
    // Two roundings: the double at hand is the nearest or a neighbour of it.
    let near = digits as f64 / scale as f64;
    // The double is mantissa x 2^-shift.
    let shift = 1075 - (near.to_bits() >> 52) as i32;
    let mut mantissa = near.to_bits() & (IMPLICIT - 1) | IMPLICIT;
    if !(1..=72).contains(&shift) {
        return false;
    }
    // From here on everything counts in units of 2^-shift x 10^-places, in which the last digit weighs `unit`, and half
    // the distance between two doubles is half of `scale`. Below 2^118: the double is less than 2^53 / 2^shift.
    let unit = 1_i128 << shift;
    let (step, half) = (i128::from(scale), i128::from(scale / 2));
    let mut off = (i128::from(digits) << shift) - i128::from(mantissa) * step;
    if off > half {
        mantissa += 1;
        off -= step;
    } else if off < -half {
        mantissa -= 1;
        off += step;
    }
    // Around a power of two the distances differ.
    if mantissa <= IMPLICIT || mantissa >= 2 * IMPLICIT {
        return false;
    }
    let last = i128::from(last);
    let (below, above) = (off - last * unit, off + (10 - last) * unit);
    let reads_as_it = off.abs() < half;
    let is_closest = 2 * off.abs() < unit;
    let none_is_shorter = below < -half && above > half;
    reads_as_it && is_closest && none_is_shorter
}

#[cfg(all(test, feature = "alloc"))]
mod tests {
    use super::{DIGITS_END, PLACES_MAX, is_shortest};

    fn printed(digits: u64, places: usize) -> (u64, i32) {
        let text = alloc::format!("{digits}e-{places}");
        let value: f64 = text.parse().expect("digits");
        let mut buffer = ryu_js::Buffer::new();
        let text = buffer.format_finite(value);
        let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
        let (int, frac) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = alloc::format!("{int}{frac}").parse().expect("digits");
        (
            digits,
            exponent.parse::<i32>().expect("digits") - frac.len() as i32,
        )
    }

    #[test]
    fn agrees_with_printing() {
        let mut state = 1_u64;
        let mut random = || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d)
        };
        let (mut yes, mut sure) = (0, 0);
        for round in 0..200_000 {
            let places = 1 + (random() % PLACES_MAX as u64) as usize;
            let digits = match round % 4 {
                0 => random() % DIGITS_END,
                1 => random() % (1 << 54),
                // What some double prints as, and what stands beside it.
                _ => {
                    let of_double = printed(random() % DIGITS_END, places).0;
                    (of_double + random() % 3).saturating_sub(1)
                }
            };
            let shortest =
                digits % 10 != 0 && printed(digits, places) == (digits, -(places as i32));
            let found = is_shortest(digits, places);
            assert!(shortest || !found, "{digits}e-{places}");
            yes += usize::from(shortest);
            sure += usize::from(found);
        }
        // A quick no is allowed, but it must be the exception.
        assert!(yes > 50_000 && sure * 100 > yes * 80, "{sure} of {yes}");
    }

    #[test]
    fn powers_of_two_and_their_neighbours_are_never_told_wrongly() {
        for exponent in -20..53 {
            let power = 2_f64.powi(exponent);
            for value in [power.next_down(), power, power.next_up()] {
                for places in 1..=PLACES_MAX {
                    let digits = value * 10_f64.powi(places as i32);
                    if digits >= DIGITS_END as f64 {
                        break;
                    }
                    for digits in (digits as u64).saturating_sub(20)..digits as u64 + 20 {
                        if is_shortest(digits, places) {
                            assert_eq!(printed(digits, places), (digits, -(places as i32)));
                        }
                    }
                }
            }
        }
    }
}
