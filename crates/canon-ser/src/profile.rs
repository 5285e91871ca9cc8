//! Profiles: frozen names for one exact set of rules each.

use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::cbor::{DEPTH_MAX, profiles};
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
    pub fn to_vec<T: Serialize + ?Sized>(self, value: &T) -> Result<Vec<u8>, Error> {
        match self.key_order() {
            Some(order) => json::to_vec_with(value, order),
            None => self.of_core(cbor::to_vec(value)?),
        }
    }

    /// Input of the profile's own format (JSON text or CBOR) to canonical bytes.
    ///
    /// # Errors
    ///
    /// As [`json::canonicalize`] or [`cbor::canonicalize`].
    pub fn canonicalize(self, input: &[u8]) -> Result<Vec<u8>, Error> {
        match self.key_order() {
            Some(order) => json::canonicalize_with(input, order),
            None => {
                if self == Profile::DagCborV1 {
                    // First, so that the offset is one in the input.
                    profiles::allow_dag(input, DEPTH_MAX).map_err(Error::new)?;
                }
                self.of_core(cbor::canonicalize(input)?)
            }
        }
    }

    /// Is this input canonical under the profile?
    ///
    /// # Errors
    ///
    /// As [`json::check`] or [`cbor::check`].
    pub fn check(self, input: &[u8]) -> Result<(), Error> {
        match self.key_order() {
            Some(order) => json::check_with(input, order),
            None => match self {
                Profile::CborLengthFirstV1 => profiles::check_length_first(input, DEPTH_MAX),
                Profile::DagCborV1 => profiles::check_dag(input, DEPTH_MAX),
                _ => return cbor::check(input),
            }
            .map_err(Error::new),
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
    pub fn from_slice<'de, T: Deserialize<'de>>(self, bytes: &'de [u8]) -> Result<T, Error> {
        match self.key_order() {
            Some(order) => json::from_slice_with(bytes, order),
            None => {
                self.check(bytes)?;
                cbor::read_checked(bytes)
            }
        }
    }

    /// Core deterministic CBOR to that of the profile.
    fn of_core(self, core: Vec<u8>) -> Result<Vec<u8>, Error> {
        match self {
            Profile::CborLengthFirstV1 => Ok(profiles::to_length_first(&core)),
            Profile::DagCborV1 => {
                // The offset would be one in bytes that nobody sees.
                profiles::allow_dag(&core, DEPTH_MAX)
                    .map_err(|fail| Error::new(fail.without_offset()))?;
                Ok(profiles::to_dag(&core))
            }
            _ => Ok(core),
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
