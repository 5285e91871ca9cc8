//! Times and sizes on the command line: `250ms`, `30s`, `5m`, `1h`, `1d`; `4096`, `64KiB`, `512MiB`, `1GiB`.

use std::time::Duration;

pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("a time is a number and a unit: 250ms, 30s, 5m, 1h or 1d".into()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "a time starts with a whole number".to_owned())?;
    let millis = number
        .checked_mul(scale_ms)
        .ok_or("this time is too long")?;
    Ok(Duration::from_millis(millis))
}

/// A time that has to fit into a 32-bit count of milliseconds (49 days), and is not zero.
pub(crate) fn parse_interval(text: &str) -> Result<u32, String> {
    let millis = parse_duration(text)?.as_millis();
    u32::try_from(millis)
        .ok()
        .filter(|ms| *ms > 0)
        .ok_or("1ms to 49d are possible".into())
}

/// A number of bytes.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale: u64 = match unit {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err("a size is a number of bytes, or of KiB, MiB, GiB or TiB".into()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "a size starts with a whole number".to_owned())?;
    number.checked_mul(scale).ok_or("this is too much".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1h"), Ok(Duration::from_secs(3600)));
        for bad in [
            "",
            "10",
            "s",
            "-1s",
            "1.5s",
            "1 s",
            "99999999999999999999s",
            "999999999999d",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert!(parse_interval("0s").is_err());
        assert_eq!(parse_interval("30s"), Ok(30_000));
    }

    #[test]
    fn sizes_are_bytes_or_have_binary_units() {
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("3MiB"), Ok(3 << 20));
        for bad in ["", "KiB", "1 KiB", "1kB", "-1", "99999999TiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }
}
