//! Digests of canonical bytes: equal for equal values, on every machine and in every language that has the profile.
//!
//! A digest here is the plain hash of the canonical bytes, nothing before or after them, so that anyone with a
//! canonicalizer and a hash can check it. The digests of one value under two profiles may be equal (a text is the same in
//! all profiles of CBOR).
//!
//! A *tagged* digest says under which profile it was made: it is the hash of the byte FF, the profile's id, the byte 00,
//! then the canonical bytes. No JSON text and no CBOR item starts with FF, so no tagged digest is ever a plain one.
//!
//! Digests of values stream. Up to 64 KiB of canonical bytes are kept until the value ends; of a larger value they go into
//! the hash as they are written, so that a value whose large containers are in order takes no more memory, however large
//! it is. A large container out of order, or in CBOR one whose length serde does not know beforehand, is held until it
//! ends. Where that shows only after bytes of it went into the hash, the value is serialized a second time with a new
//! hash; then it must say the same as the first time, or is refused ([`Error::is_data`]).

use serde::Serialize;

use crate::drain::Take;
use crate::error::{Error, Fail};
use crate::json::{self, Options};
use crate::profile::Profile;

/// The first byte of what is hashed for a tagged digest.
const TAGGED: u8 = 0xff;

/// A hash that bytes go into.
struct Hashing<H, U> {
    hash: H,
    start: H,
    update: U,
}

impl<H: Clone, U: FnMut(&mut H, &[u8])> Hashing<H, U> {
    /// The hash of the canonical bytes of a value, behind what is in `start` already.
    fn hash<T: Serialize + ?Sized>(
        profile: Profile,
        value: &T,
        start: H,
        update: U,
    ) -> Result<H, Error> {
        let mut into = Hashing {
            hash: start.clone(),
            start,
            update,
        };
        profile.drain(value, &mut into)?;
        Ok(into.hash)
    }
}

impl<H: Clone, U: FnMut(&mut H, &[u8])> Take for Hashing<H, U> {
    const FORGETS: bool = true;

    fn take(&mut self, bytes: &[u8]) -> Result<(), Fail> {
        (self.update)(&mut self.hash, bytes);
        Ok(())
    }

    fn start_again(&mut self) {
        self.hash.clone_from(&self.start);
    }
}

/// The hash of a value's canonical bytes.
///
/// # Errors
///
/// As [`Profile::to_vec`].
///
/// ```
/// use canon_ser::Profile;
/// use sha2::{Digest, Sha256};
///
/// let digest = canon_ser::digest::<Sha256>(Profile::JcsV1, &[1.0, 2.5])?;
/// assert_eq!(digest, Sha256::digest(b"[1,2.5]"));
/// # Ok::<(), canon_ser::Error>(())
/// ```
#[cfg(feature = "digest")]
pub fn digest<D: ::digest::Digest + Clone>(
    profile: Profile,
    value: &(impl Serialize + ?Sized),
) -> Result<::digest::Output<D>, Error> {
    Hashing::hash(profile, value, D::new(), |hash, bytes| hash.update(bytes)).map(D::finalize)
}

/// The tagged hash of a value: that of FF, the profile's id, 00 and the canonical bytes.
///
/// # Errors
///
/// As [`Profile::to_vec`].
///
/// ```
/// use canon_ser::Profile;
/// use sha2::{Digest, Sha256};
///
/// let digest = canon_ser::digest::tagged::<Sha256>(Profile::JcsV1, &[1.0, 2.5])?;
/// assert_eq!(digest, Sha256::digest(b"\xffjcs/1\0[1,2.5]"));
/// # Ok::<(), canon_ser::Error>(())
/// ```
#[cfg(feature = "digest")]
pub fn tagged<D: ::digest::Digest + Clone>(
    profile: Profile,
    value: &(impl Serialize + ?Sized),
) -> Result<::digest::Output<D>, Error> {
    let start = tags(profile).fold(D::new(), |hash, tag| hash.chain_update(tag));
    Hashing::hash(profile, value, start, |hash, bytes| hash.update(bytes)).map(D::finalize)
}

/// What stands in front of the canonical bytes in a tagged digest.
fn tags(profile: Profile) -> impl Iterator<Item = &'static [u8]> {
    [&[TAGGED][..], profile.id().as_bytes(), &[0]].into_iter()
}

/// The hash of the canonical form of JSON text.
///
/// # Errors
///
/// As [`json::canonicalize_with`].
#[cfg(feature = "digest")]
pub fn digest_text<D: ::digest::Digest>(
    text: &[u8],
    options: impl Into<Options>,
) -> Result<::digest::Output<D>, Error> {
    Ok(D::digest(json::canonicalize_with(text, options)?))
}

/// SHA-256 of a value's canonical bytes.
///
/// # Errors
///
/// As [`Profile::to_vec`].
#[cfg(feature = "sha2")]
pub fn sha256<T: Serialize + ?Sized>(profile: Profile, value: &T) -> Result<[u8; 32], Error> {
    digest::<sha2::Sha256>(profile, value).map(<[u8; 32]>::from)
}

/// The tagged SHA-256 of a value, as [`tagged`] makes it.
///
/// # Errors
///
/// As [`Profile::to_vec`].
#[cfg(feature = "sha2")]
pub fn sha256_tagged<T: Serialize + ?Sized>(
    profile: Profile,
    value: &T,
) -> Result<[u8; 32], Error> {
    tagged::<sha2::Sha256>(profile, value).map(<[u8; 32]>::from)
}

/// SHA-256 of the canonical form of JSON text.
///
/// # Errors
///
/// As [`json::canonicalize_with`].
///
/// ```
/// use canon_ser::digest::sha256_text;
/// use canon_ser::json::Integers;
///
/// // A fingerprint: neither key order nor the spelling of numbers matters.
/// let one = sha256_text(br#"{"n": 100, "id": 9007199254740993}"#, Integers::Exact)?;
/// let two = sha256_text(br#"{"id":9007199254740993,"n":1e2}"#, Integers::Exact)?;
/// let other = sha256_text(br#"{"id":9007199254740992,"n":1e2}"#, Integers::Exact)?;
/// assert_eq!(one, two);
/// assert_ne!(one, other);
/// # Ok::<(), canon_ser::Error>(())
/// ```
#[cfg(feature = "sha2")]
pub fn sha256_text(text: &[u8], options: impl Into<Options>) -> Result<[u8; 32], Error> {
    digest_text::<sha2::Sha256>(text, options).map(<[u8; 32]>::from)
}

/// BLAKE3 (256 bits) of a value's canonical bytes.
///
/// # Errors
///
/// As [`Profile::to_vec`].
#[cfg(feature = "blake3")]
pub fn blake3<T: Serialize + ?Sized>(profile: Profile, value: &T) -> Result<[u8; 32], Error> {
    blake3_behind(profile, value, ::blake3::Hasher::new())
}

/// The tagged BLAKE3 (256 bits) of a value: that of FF, the profile's id, 00 and the canonical bytes.
///
/// # Errors
///
/// As [`Profile::to_vec`].
#[cfg(feature = "blake3")]
pub fn blake3_tagged<T: Serialize + ?Sized>(
    profile: Profile,
    value: &T,
) -> Result<[u8; 32], Error> {
    let mut start = ::blake3::Hasher::new();
    tags(profile).for_each(|tag| _ = start.update(tag));
    blake3_behind(profile, value, start)
}

#[cfg(feature = "blake3")]
fn blake3_behind<T: Serialize + ?Sized>(
    profile: Profile,
    value: &T,
    start: ::blake3::Hasher,
) -> Result<[u8; 32], Error> {
    let update = |hash: &mut ::blake3::Hasher, bytes: &[u8]| _ = hash.update(bytes);
    Hashing::hash(profile, value, start, update).map(|hash| hash.finalize().into())
}

/// BLAKE3 (256 bits) of the canonical form of JSON text.
///
/// # Errors
///
/// As [`json::canonicalize_with`].
#[cfg(feature = "blake3")]
pub fn blake3_text(text: &[u8], options: impl Into<Options>) -> Result<[u8; 32], Error> {
    Ok(::blake3::hash(&json::canonicalize_with(text, options)?).into())
}

/// SHA-256 of bytes that are canonical already.
#[cfg(feature = "sha2")]
pub fn sha256_bytes(canonical: &[u8]) -> [u8; 32] {
    <sha2::Sha256 as ::digest::Digest>::digest(canonical).into()
}

/// BLAKE3 (256 bits) of bytes that are canonical already.
#[cfg(feature = "blake3")]
pub fn blake3_bytes(canonical: &[u8]) -> [u8; 32] {
    ::blake3::hash(canonical).into()
}
