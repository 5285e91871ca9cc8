//! Profiles: frozen names for one exact set of rules each.

#[cfg(feature = "alloc")]
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

#[cfg(feature = "alloc")]
use serde::Deserialize;
use serde::Serialize;

use crate::cbor::Dialect;
#[cfg(any(feature = "digest", feature = "blake3"))]
use crate::drain::Take;
use crate::error::Error;
use crate::json::KeyOrder;
use crate::{cbor, json};

/// A canonical form with a name that never changes its meaning: docs/PROFILES.md says what each is, byte for byte.
///
/// ```
/// use canon_ser::Profile;
///
/// let profile: Profile = "jcs/1".parse()?;
/// assert_eq!(profile, Profile::JcsV1);
/// assert_eq!(profile.to_vec(&[1.0, 0.5])?, b"[1,0.5]");
/// assert_eq!(Profile::CborCoreDetV1.id(), "cbor-core-det/1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Profile {
    /// `jcs/1`: RFC 8785, the JSON Canonicalization Scheme; integers beyond 2^53 are refused.
    JcsV1,
    /// `json-utf8/1`: as `jcs/1`, but keys are sorted by their UTF-8 bytes.
    JsonUtf8V1,
    /// `cbor-core-det/1`: the core deterministic encoding requirements of RFC 8949 section 4.2.1.
    CborCoreDetV1,
    /// `cbor-length-first/1`: as `cbor-core-det/1`, but of two keys the shorter encoding comes first (RFC 7049 section 3.9).
    CborLengthFirstV1,
    /// `dag-cbor/1`: DAG-CBOR of IPLD. Text keys, 64-bit floats, no NaN or infinity, no tag but 42.
    DagCborV1,
}

impl Profile {
    /// All profiles there are.
    pub const ALL: &'static [Profile] = &[
        Profile::JcsV1,
        Profile::JsonUtf8V1,
        Profile::CborCoreDetV1,
        Profile::CborLengthFirstV1,
        Profile::DagCborV1,
    ];

    /// The frozen name.
    pub const fn id(self) -> &'static str {
        match self {
            Profile::JcsV1 => "jcs/1",
            Profile::JsonUtf8V1 => "json-utf8/1",
            Profile::CborCoreDetV1 => "cbor-core-det/1",
            Profile::CborLengthFirstV1 => "cbor-length-first/1",
            Profile::DagCborV1 => "dag-cbor/1",
        }
    }

    /// The profile of that name.
    pub fn from_id(id: &str) -> Option<Profile> {
        Profile::ALL
            .iter()
            .copied()
            .find(|profile| profile.id() == id)
    }

    /// True for the profiles whose bytes are JSON text.
    pub const fn is_json(self) -> bool {
        self.key_order().is_some()
    }

    const fn key_order(self) -> Option<KeyOrder> {
        match self {
            Profile::JcsV1 => Some(KeyOrder::Utf16),
            Profile::JsonUtf8V1 => Some(KeyOrder::Utf8),
            Profile::CborCoreDetV1 | Profile::CborLengthFirstV1 | Profile::DagCborV1 => None,
        }
    }

    /// The canonical bytes of a value.
    ///
    /// # Errors
    ///
    /// As [`json::to_vec`] or [`cbor::to_vec`].
    #[cfg(feature = "alloc")]
    pub fn to_vec<T: Serialize + ?Sized>(self, value: &T) -> Result<Vec<u8>, Error> {
        match self.key_order() {
            Some(order) => json::to_vec_with(value, order),
            None => cbor::to_vec_with(value, self.dialect()),
        }
    }

    /// Writes the canonical bytes of a value into a buffer and returns the part that it fills.
    ///
    /// # Errors
    ///
    /// As [`json::to_slice`] or [`cbor::to_slice`].
    ///
    /// ```
    /// use canon_ser::Profile;
    ///
    /// let bytes = Profile::DagCborV1.to_slice(&[1.0], &mut [0; 16])?.to_vec();
    /// assert_eq!(bytes, b"\x81\xfb\x3f\xf0\0\0\0\0\0\0");
    /// # Ok::<(), canon_ser::Error>(())
    /// ```
    pub fn to_slice<'b, T: Serialize + ?Sized>(
        self,
        value: &T,
        buffer: &'b mut [u8],
    ) -> Result<&'b mut [u8], Error> {
        match self.key_order() {
            Some(order) => json::to_slice_with(value, buffer, order),
            None => cbor::to_slice_with(value, buffer, self.dialect()),
        }
    }

    /// Writes the canonical bytes of a value.
    ///
    /// # Errors
    ///
    /// As [`json::to_writer`].
    #[cfg(feature = "std")]
    pub fn to_writer<W: std::io::Write, T: Serialize + ?Sized>(
        self,
        writer: W,
        value: &T,
    ) -> Result<(), Error> {
        match self.key_order() {
            Some(order) => json::to_writer_with(writer, value, order),
            None => cbor::to_writer_with(writer, value, self.dialect()),
        }
    }

    /// Lets the canonical bytes go where they go while they are being written.
    #[cfg(any(feature = "digest", feature = "blake3"))]
    pub(crate) fn drain<T: Serialize + ?Sized, K: Take>(
        self,
        value: &T,
        to: &mut K,
    ) -> Result<(), Error> {
        match self.key_order() {
            Some(order) => json::drain(value, order.into(), to),
            None => cbor::drain(value, self.dialect(), to),
        }
    }

    /// What the functions of [`json`] take to write and read this profile, so that limits can be set; none if it is CBOR.
    pub fn json_options(self) -> Option<json::Options> {
        self.key_order().map(json::Options::from)
    }

    /// What the functions of [`cbor`] take to write and read this profile, so that limits can be set; none if it is JSON.
    ///
    /// ```
    /// use canon_ser::{Profile, cbor};
    ///
    /// let options = Profile::CborLengthFirstV1.cbor_options().expect("it is CBOR").depth_max(1000);
    /// let nested = [[0x81; 500].as_slice(), &[0]].concat();
    /// assert_eq!(cbor::canonicalize_with(&nested, options)?, nested);
    /// assert!(Profile::CborLengthFirstV1.check(&nested).unwrap_err().is_depth());
    /// # Ok::<(), canon_ser::Error>(())
    /// ```
    pub const fn cbor_options(self) -> Option<cbor::Options> {
        match self.is_json() {
            true => None,
            false => Some(self.dialect()),
        }
    }

    const fn dialect(self) -> cbor::Options {
        cbor::Options::new().dialect(match self {
            Profile::CborLengthFirstV1 => Dialect::LengthFirst,
            Profile::DagCborV1 => Dialect::Dag,
            _ => Dialect::Core,
        })
    }

    /// Input of the profile's own format (JSON text or CBOR) to canonical bytes.
    ///
    /// # Errors
    ///
    /// As [`json::canonicalize`] or [`cbor::canonicalize`].
    #[cfg(feature = "alloc")]
    pub fn canonicalize(self, input: &[u8]) -> Result<Vec<u8>, Error> {
        match self.key_order() {
            Some(order) => json::canonicalize_with(input, order),
            None => cbor::canonicalize_with(input, self.dialect()),
        }
    }

    /// [`Profile::canonicalize`] for input that need not fit in memory: from where the source stands to its end.
    ///
    /// What is held is what [`json::canonicalize_to`] or [`cbor::canonicalize_to`] say.
    ///
    /// # Errors
    ///
    /// As [`Profile::canonicalize`], and those of source and writer ([`Error::is_io`]).
    #[cfg(feature = "std")]
    pub fn canonicalize_to<R: std::io::Read + std::io::Seek, W: std::io::Write>(
        self,
        source: R,
        writer: W,
    ) -> Result<(), Error> {
        if let Some(order) = self.key_order() {
            return json::canonicalize_to(source, writer, order);
        }
        cbor::canonicalize_to(source, writer, self.dialect())
    }

    /// [`Profile::check`] for input that need not fit in memory: from where the source stands to its end.
    ///
    /// What is held is what [`json::check_from`] or [`cbor::check_from`] say.
    ///
    /// # Errors
    ///
    /// As [`Profile::check`], and those of the source ([`Error::is_io`]).
    #[cfg(feature = "std")]
    pub fn check_from<R: std::io::Read + std::io::Seek>(self, source: R) -> Result<(), Error> {
        if let Some(order) = self.key_order() {
            return json::check_from(source, order);
        }
        cbor::check_from(source, self.dialect())
    }

    /// Is this input canonical under the profile?
    ///
    /// # Errors
    ///
    /// As [`json::check`] or [`cbor::check`].
    pub fn check(self, input: &[u8]) -> Result<(), Error> {
        match self.key_order() {
            Some(order) => json::check_with(input, order),
            None => cbor::check_with(input, self.dialect()),
        }
    }

    /// Reads a value from bytes of the profile, and refuses every other input, also in parts that the type ignores.
    ///
    /// A link of DAG-CBOR (tag 42) fits no type; it may stand in what the type ignores.
    ///
    /// # Errors
    ///
    /// As [`Profile::check`]; [`Error::is_data`] when the bytes do not fit the type.
    ///
    /// ```
    /// use canon_ser::Profile;
    ///
    /// let one: f64 = Profile::DagCborV1.from_slice(b"\xfb\x3f\xf0\0\0\0\0\0\0")?;
    /// assert_eq!(one, 1.0);
    /// assert!(Profile::DagCborV1.from_slice::<f64>(b"\xf9\x3c\x00").unwrap_err().is_not_canonical());
    /// # Ok::<(), canon_ser::Error>(())
    /// ```
    #[cfg(feature = "alloc")]
    pub fn from_slice<'de, T: Deserialize<'de>>(self, bytes: &'de [u8]) -> Result<T, Error> {
        match self.key_order() {
            Some(order) => json::from_slice_with(bytes, order),
            None => cbor::from_slice_with(bytes, self.dialect()),
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

/// The name is that of no profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownProfile(());

impl fmt::Display for UnknownProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown profile; known are")?;
        Profile::ALL
            .iter()
            .try_for_each(|profile| write!(f, " {profile}"))
    }
}

impl core::error::Error for UnknownProfile {}

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(id: &str) -> Result<Profile, UnknownProfile> {
        Profile::from_id(id).ok_or(UnknownProfile(()))
    }
}
