//! Keys of three parts, so that stores can be read and divided by type, date and shard.

use std::fmt;

/// Builds keys `{type}:{date}:{shard}` and reads them back.
///
/// Different parts make different keys: `:` and `%` within a part, braces (Redis Cluster takes them
/// for hash tags) and everything that is not visible ASCII are written as `%XX`. So a key is 2 to 512
/// visible ASCII characters, good for every backend, for a log and for a header.
///
/// ```
/// use idem_store::KeySpec;
///
/// let spec = KeySpec::new("charge").on_day(1_763_683_200_000).shard("eu:order-17");
/// let key = spec.key()?;
/// assert_eq!(key, "charge:2025-11-21:eu%3Aorder-17");
/// assert_eq!(KeySpec::parse(key.as_bytes())?, spec);
/// # Ok::<(), idem_store::KeySpecError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeySpec {
    kind: String,
    date: String,
    shard: String,
}

impl KeySpec {
    /// The longest key that [`key`](Self::key) builds; what stores take by default.
    pub const KEY_BYTES_MAX: usize = 512;

    /// A key of this type, with an empty date and shard. An empty type is allowed too.
    #[must_use]
    pub fn new(kind: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            date: String::new(),
            shard: String::new(),
        }
    }

    /// The date: any text, such as `2026-11-21`, `2026-W47` or an hour.
    #[must_use]
    pub fn date(mut self, date: impl Into<String>) -> Self {
        self.date = date.into();
        self
    }

    /// The day of a Unix time in UTC, as `2026-11-21`.
    #[must_use]
    pub fn on_day(self, unix_ms: u64) -> Self {
        self.date(utc_day(unix_ms))
    }

    /// What tells keys of one type and date apart: an order, a device, a partition and a number.
    #[must_use]
    pub fn shard(mut self, shard: impl Into<String>) -> Self {
        self.shard = shard.into();
        self
    }

    /// The parts: type, date, shard.
    #[must_use]
    pub fn parts(&self) -> [&str; 3] {
        [&self.kind, &self.date, &self.shard]
    }

    /// The key.
    ///
    /// # Errors
    /// [`is_too_long`](KeySpecError::is_too_long) when it has more than 512 bytes.
    pub fn key(&self) -> Result<String, KeySpecError> {
        let mut key = String::with_capacity(64);
        for (at, part) in self.parts().into_iter().enumerate() {
            if at > 0 {
                key.push(':');
            }
            part.bytes().for_each(|byte| escape(byte, &mut key));
            if key.len() > Self::KEY_BYTES_MAX {
                return Err(KeySpecError(Kind::TooLong));
            }
        }
        Ok(key)
    }

    /// Reads a key that [`key`](Self::key) built.
    ///
    /// # Errors
    /// [`is_malformed`](KeySpecError::is_malformed) for every other one, also when its parts could
    /// be guessed: a key has one spelling.
    pub fn parse(key: &[u8]) -> Result<Self, KeySpecError> {
        let malformed = |why| KeySpecError(Kind::Malformed(why));
        let mut parts = key.split(|byte| *byte == b':');
        let mut next = || {
            let part = parts.next().ok_or(malformed("it has fewer than 3 parts"))?;
            unescape(part).ok_or(malformed("a part is not escaped as it should be"))
        };
        let (kind, date, shard) = (next()?, next()?, next()?);
        if parts.next().is_some() {
            return Err(malformed("it has more than 3 parts"));
        }
        if key.len() > Self::KEY_BYTES_MAX {
            return Err(KeySpecError(Kind::TooLong));
        }
        Ok(Self { kind, date, shard })
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b':' | b'%' | b'{' | b'}')
}

fn escape(byte: u8, key: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    if is_plain(byte) {
        key.push(char::from(byte));
    } else {
        key.push('%');
        key.push(char::from(DIGITS[usize::from(byte >> 4)]));
        key.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

fn unescape(part: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.iter();
    while let Some(byte) = rest.next() {
        if is_plain(*byte) {
            bytes.push(*byte);
            continue;
        }
        let mut digit = || match rest.next()? {
            digit @ b'0'..=b'9' => Some(digit - b'0'),
            digit @ b'A'..=b'F' => Some(digit - b'A' + 10),
            _ => None,
        };
        let escaped = (*byte == b'%').then(|| Some(digit()? << 4 | digit()?))??;
        if is_plain(escaped) {
            return None;
        }
        bytes.push(escaped);
    }
    String::from_utf8(bytes).ok()
}

/// The day of a Unix time in UTC, as `2026-11-21` (proleptic Gregorian calendar).
///
/// ```
/// assert_eq!(idem_store::utc_day(951_782_400_000), "2000-02-29");
/// ```
#[must_use]
pub fn utc_day(unix_ms: u64) -> String {
    // Days in years that start in March, within eras of 400 years: the leap day comes last.
    let days = unix_ms / 86_400_000 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Why there is no key, or no parts of one.
#[derive(Clone, Debug)]
pub struct KeySpecError(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    TooLong,
    Malformed(&'static str),
}

impl KeySpecError {
    /// The key has more than 512 bytes.
    #[must_use]
    pub fn is_too_long(&self) -> bool {
        self.0 == Kind::TooLong
    }

    /// It was not built by [`KeySpec::key`].
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        matches!(self.0, Kind::Malformed(_))
    }
}

impl fmt::Display for KeySpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::TooLong => f.write_str(
                "the key is longer than 512 bytes: shorten its parts, or take the digest of one",
            ),
            Kind::Malformed(why) => {
                write!(f, "this is not a key of type, date and shard: {why}")
            }
        }
    }
}

impl std::error::Error for KeySpecError {}
