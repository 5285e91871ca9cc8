//! Digests of canonical bytes: equal for equal values, on every machine and in every language that has the profile.
//!
//! A digest here is the plain hash of the canonical bytes, nothing before or after them, so that anyone with a
//! canonicalizer and a hash can check it. The digests of one value under two profiles differ.

use serde::Serialize;

use crate::error::Error;
use crate::json::{self, Options};
use crate::profile::Profile;

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
pub fn digest<D: ::digest::Digest>(
    profile: Profile,
    value: &(impl Serialize + ?Sized),
) -> Result<::digest::Output<D>, Error> {
    Ok(D::digest(profile.to_vec(value)?))
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
    digest::<sha2::Sha256>(profile, value).map(Into::into)
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
    digest_text::<sha2::Sha256>(text, options).map(Into::into)
}

/// BLAKE3 (256 bits) of a value's canonical bytes.
///
/// # Errors
///
/// As [`Profile::to_vec`].
#[cfg(feature = "blake3")]
pub fn blake3<T: Serialize + ?Sized>(profile: Profile, value: &T) -> Result<[u8; 32], Error> {
    Ok(::blake3::hash(&profile.to_vec(value)?).into())
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
