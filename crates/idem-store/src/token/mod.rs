//! Tokens: ids for effects at services that recognise an idempotency key (feature `token`).
//!
//! A [`Token`] is a 64-bit Snowflake [`Id`] joined with the first 8 bytes of SHA-256(fingerprint):
//! 128 bits, 22 characters of base64url. The id half makes it unique and tells when and by whom it
//! was made; the other half binds it to what is asked for, so that a token that is sent with another
//! request is noticed ([`Token::matches`]). It is no secret: ids can be guessed.
//!
//! ```text
//!  0               8               16
//! +---------------+---------------+
//! | id, big-endian| SHA-256[0..8] |   base64url without padding: 22 characters
//! +---------------+---------------+
//! ```
//!
//! [`Compact`] is the same in 64 bits and 11 characters, at a price: it can collide.
//!
//! - [`Snowflake`] is the pure core: the time is an argument.
//! - [`Generator`] adds a clock, leased workers and the durable floor; one thread owns it.
//! - [`TokenService`] shares a generator between threads.
//! - [`Attempt`] stores a token before it is first sent, so that every retry sends the same one.
//!
//! ```
//! use idem_store::token::{FileWorkers, Generator, GeneratorOptions, Token};
//!
//! # let dir = tempfile::tempdir()?;
//! let workers = FileWorkers::new(dir.path());
//! let mut tokens = Generator::open(&workers, GeneratorOptions::new())?;
//! let token = tokens.next(b"charge order-17 with 49.90 EUR")?;
//!
//! let text = token.to_string();
//! assert_eq!(text.len(), 22);
//! let read: Token = text.parse()?;
//! assert_eq!(read, token);
//! assert!(read.matches(b"charge order-17 with 49.90 EUR"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod attempt;
mod error;
mod file_workers;
mod generator;
mod snowflake;
mod store_workers;
mod text;
mod workers;

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

pub use attempt::Attempt;
pub use error::TokenError;
pub use file_workers::FileWorkers;
pub use generator::{Clock, Generator, GeneratorOptions, OnClockBehind, SystemClock, TokenService};
pub use snowflake::{EPOCH_MS, Id, Snowflake, Turn, WORKER_MAX};
pub use store_workers::StoreWorkers;
pub use workers::{WorkerLease, Workers};

use error::Kind;

/// The first 8 bytes of SHA-256(fingerprint): what binds a token to a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FingerprintHalf(pub [u8; 8]);

impl FingerprintHalf {
    /// Of a fingerprint: the digest of a request, or any bytes that stand for it. One SHA-256.
    #[must_use]
    pub fn of(fingerprint: &[u8]) -> Self {
        let digest: [u8; 32] = Sha256::digest(fingerprint).into();
        Self(*digest.first_chunk().expect("32 bytes have 8"))
    }
}

impl fmt::Debug for FingerprintHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// An id joined with a fingerprint's half: 16 bytes, 22 characters. Ordered by id, so by time.
///
/// Two tokens are equal only if their ids are, and no id is given twice: fingerprints cannot make
/// them collide.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Token {
    id: Id,
    half: FingerprintHalf,
}

impl Token {
    /// Bytes of a token.
    pub const BYTES: usize = 16;
    /// Characters of its text.
    pub const CHARS: usize = 22;

    /// Joins an id with the half of a fingerprint.
    #[must_use]
    pub fn new(id: Id, half: FingerprintHalf) -> Self {
        Self { id, half }
    }

    /// When, by whom and as which it was made.
    #[must_use]
    pub fn id(&self) -> Id {
        self.id
    }

    /// What it is bound to.
    #[must_use]
    pub fn half(&self) -> FingerprintHalf {
        self.half
    }

    /// Whether it was made for this fingerprint. A wrong one matches with a chance of 1 in 2^64.
    #[must_use]
    pub fn matches(&self, fingerprint: &[u8]) -> bool {
        FingerprintHalf::of(fingerprint) == self.half
    }

    /// The id big-endian, then the half.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.id.as_u64().to_be_bytes());
        bytes[8..].copy_from_slice(&self.half.0);
        bytes
    }

    /// The token of these bytes.
    ///
    /// # Errors
    /// [`is_malformed`](TokenError::is_malformed) when the highest bit is set.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Result<Self, TokenError> {
        let (id, half) = bytes.split_at(8);
        let number = u64::from_be_bytes(id.try_into().expect("half of 16"));
        let half = FingerprintHalf(half.try_into().expect("half of 16"));
        let malformed = || TokenError::new(Kind::Text("its highest bit is set"));
        let id = Id::from_u64(number).ok_or_else(malformed)?;
        Ok(Self { id, half })
    }

    /// Its text, without allocating.
    #[must_use]
    pub fn text(&self) -> Text<{ Self::CHARS }> {
        Text(text::encode(self.to_bytes()))
    }

    /// The short form; see there what it costs.
    #[must_use]
    pub fn compact(&self) -> Compact {
        Compact::new(self.id, self.half)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text())
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let bytes = text::decode::<{ Self::BYTES }, { Self::CHARS }>(text);
        Self::from_bytes(bytes.map_err(|why| TokenError::new(Kind::Text(why)))?)
    }
}

/// The short form: id XOR fingerprint half, 8 bytes, 11 characters.
///
/// # It can collide
///
/// Two requests with one fingerprint never get the same one: their ids differ, and XOR with one half
/// keeps them different. With different fingerprints the XOR is as good as 64 random bits, and then
/// the birthday bound holds: among n tokens two are equal with probability
///
/// ```text
/// p = 1 - (1 - 1/N)(1 - 2/N)...(1 - (n-1)/N)  ~  1 - exp(-n(n-1) / 2N),   N = 2^64
///
/// n = 10^6    n^2/2N = 10^12 / 3.69 * 10^19 = 2.7 * 10^-8
/// n = 10^9    n^2/2N = 10^18 / 3.69 * 10^19 = 0.0271    p = 2.7 %
/// n = 5.06 * 10^9                                       p = 50 %
/// ```
///
/// So a billion of them collide in one of 37 systems. Take it only where the other side has no room
/// for 22 characters and compares the request too. It tells its time and worker only to those who
/// have the fingerprint.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Compact(u64);

impl Compact {
    /// Bytes of a compact token.
    pub const BYTES: usize = 8;
    /// Characters of its text.
    pub const CHARS: usize = 11;

    /// Joins an id with the half of a fingerprint.
    #[must_use]
    pub fn new(id: Id, half: FingerprintHalf) -> Self {
        Self(id.as_u64() ^ u64::from_be_bytes(half.0))
    }

    /// The id, for those who know the fingerprint. `None` when it cannot have been made for this
    /// one; a wrong fingerprint goes unnoticed half the time.
    #[must_use]
    pub fn id(&self, half: FingerprintHalf) -> Option<Id> {
        Id::from_u64(self.0 ^ u64::from_be_bytes(half.0))
    }

    /// Big-endian.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        self.0.to_be_bytes()
    }

    /// The token of these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(u64::from_be_bytes(bytes))
    }

    /// Its text, without allocating.
    #[must_use]
    pub fn text(&self) -> Text<{ Self::CHARS }> {
        Text(text::encode(self.to_bytes()))
    }
}

impl fmt::Display for Compact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text())
    }
}

impl fmt::Debug for Compact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Compact({self})")
    }
}

impl FromStr for Compact {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let bytes = text::decode::<{ Self::BYTES }, { Self::CHARS }>(text);
        let bytes = bytes.map_err(|why| TokenError::new(Kind::Text(why)))?;
        Ok(Self::from_bytes(bytes))
    }
}

/// The text of a token; derefs to `str`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text<const CHARS: usize>([u8; CHARS]);

impl<const CHARS: usize> std::ops::Deref for Text<CHARS> {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(&self.0).expect("base64url is ASCII")
    }
}

impl<const CHARS: usize> fmt::Debug for Text<CHARS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
