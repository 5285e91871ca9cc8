//! Deterministic CBOR: the core requirements of RFC 8949 section 4.2.1, from any serde value and from other CBOR.

mod canon;
mod check;
mod de;
mod emit;
mod head;
mod json;
pub(crate) mod profiles;
mod read;
mod ser;
#[cfg(feature = "ciborium")]
mod value;

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::buf::{Buf, Fixed};
use crate::cbor::emit::Emitter;
use crate::error::{Error, Fail};
use crate::json as json_api;
use crate::order::Scratch;

#[cfg(feature = "ciborium")]
pub use crate::cbor::value::{from_value, to_value};

/// How deep values may nest unless [`Options`] say otherwise.
pub(crate) const DEPTH_MAX: usize = 128;

/// What to refuse.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    depth_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options::new()
    }
}

impl Options {
    /// 128 levels.
    pub const fn new() -> Options {
        Options {
            depth_max: DEPTH_MAX,
        }
    }

    /// Sets how many containers and tags may nest.
    ///
    /// CBOR is read without recursion, but a Rust value is walked, and built by `from_slice`, with recursion: the
    /// program's stack must hold `depth_max` levels of it.
    #[must_use]
    pub const fn depth_max(self, depth_max: usize) -> Options {
        Options { depth_max }
    }
}

fn encode<T: Serialize + ?Sized, B: Buf>(
    value: &T,
    out: &mut B,
    scratch: &mut Scratch,
    options: Options,
) -> Result<(), Error> {
    value
        .serialize(&mut Emitter::new(out, scratch, options.depth_max))
        .map_err(Error::new)
}

/// The deterministic CBOR of a value.
///
/// Integers and floats in their shortest form, one NaN (`f97e00`), integers beyond 64 bits as bignums, definite
/// lengths, map keys of any type in bytewise order of their encodings. Floats stay floats: `1.0` is `f93c00`. Structs
/// are maps with text keys, enums are written as serde's externally tagged form.
///
/// # Errors
///
/// Two equal keys in one map, more than 128 levels, or an error of the value's own `Serialize`.
///
/// ```
/// use std::collections::HashMap;
///
/// let map = HashMap::from([(10, "a"), (-1, "b"), (100, "c")]);
/// let bytes = canon_ser::cbor::to_vec(&map)?;
/// assert_eq!(bytes, b"\xa3\x0a\x61a\x18\x64\x61c\x20\x61b");
/// # Ok::<(), canon_ser::Error>(())
/// ```
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    to_vec_with(value, Options::new())
}

/// [`to_vec`] under other [`Options`].
///
/// # Errors
///
/// As [`to_vec`].
pub fn to_vec_with<T: Serialize + ?Sized>(value: &T, options: Options) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(128);
    encode(value, &mut out, &mut Scratch::new(), options)?;
    Ok(out)
}

/// Writes the deterministic CBOR of a value, once it is complete: a failing value writes nothing.
///
/// # Errors
///
/// As [`to_vec`], and those of the writer ([`Error::is_io`]).
#[cfg(feature = "std")]
pub fn to_writer<W: std::io::Write, T: Serialize + ?Sized>(
    mut writer: W,
    value: &T,
) -> Result<(), Error> {
    let bytes = to_vec(value)?;
    writer.write_all(&bytes).map_err(|error| Error::io(&error))
}

/// Writes the deterministic CBOR of a value into a buffer and returns the part that it fills.
///
/// Nothing is allocated for values whose keys arrive in order, nor for disordered maps of up to 32 entries.
///
/// # Errors
///
/// As [`to_vec`], and [`Error::is_buffer_full`] when it does not fit.
///
/// ```
/// let mut buffer = [0; 16];
/// assert_eq!(canon_ser::cbor::to_slice(&(1, "two", 3.5), &mut buffer)?, b"\x83\x01\x63two\xf9\x43\x00");
/// # Ok::<(), canon_ser::Error>(())
/// ```
pub fn to_slice<'b, T: Serialize + ?Sized>(
    value: &T,
    buffer: &'b mut [u8],
) -> Result<&'b mut [u8], Error> {
    let mut out = Fixed::new(&mut *buffer);
    encode(value, &mut out, &mut Scratch::new(), Options::new())?;
    let len = out.len();
    Ok(&mut buffer[..len])
}

/// Writes many values with one set of buffers: once they have grown, nothing is allocated any more.
///
/// ```
/// use canon_ser::cbor::Encoder;
///
/// let mut encoder = Encoder::new();
/// assert_eq!(encoder.encode(&[3, 2, 1])?, [0x83, 3, 2, 1]);
/// assert_eq!(encoder.encode(&1.5)?, [0xf9, 0x3e, 0x00]);
/// # Ok::<(), canon_ser::Error>(())
/// ```
pub struct Encoder {
    out: Vec<u8>,
    scratch: Scratch,
    options: Options,
}

impl Default for Encoder {
    fn default() -> Encoder {
        Encoder::new()
    }
}

impl core::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Encoder")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Encoder {
    /// Allocates nothing yet.
    pub fn new() -> Encoder {
        Encoder::with_options(Options::new())
    }

    /// With other [`Options`].
    pub fn with_options(options: Options) -> Encoder {
        Encoder {
            out: Vec::new(),
            scratch: Scratch::new(),
            options,
        }
    }

    /// The deterministic CBOR of a value, good until the next call.
    ///
    /// # Errors
    ///
    /// As [`to_vec`]. The encoder stays usable.
    pub fn encode<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<&[u8], Error> {
        self.out.clear();
        self.scratch.reset();
        encode(value, &mut self.out, &mut self.scratch, self.options)?;
        Ok(&self.out)
    }
}

/// Any well-formed CBOR item to deterministic CBOR.
///
/// Indefinite lengths become definite, strings in chunks are put together, integers, floats and bignums take their
/// shortest form, every NaN becomes the one, maps are sorted. Tags and simple values are kept. Read iteratively.
///
/// # Errors
///
/// Malformed CBOR (also bytes after the item), duplicate keys, more than 128 levels: each with its offset.
///
/// ```
/// // {_ "b": 1 as a 64-bit integer, "a": 1.0 as a double}
/// let loose = b"\xbf\x61b\x1b\0\0\0\0\0\0\0\x01\x61a\xfb\x3f\xf0\0\0\0\0\0\0\xff";
/// assert_eq!(canon_ser::cbor::canonicalize(loose)?, b"\xa2\x61a\xf9\x3c\x00\x61b\x01");
/// # Ok::<(), canon_ser::Error>(())
/// ```
pub fn canonicalize(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    canonicalize_with(bytes, Options::new())
}

/// [`canonicalize`] under other [`Options`].
///
/// # Errors
///
/// As [`canonicalize`].
pub fn canonicalize_with(bytes: &[u8], options: Options) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut scratch = Scratch::new();
    let mut emitter = Emitter::new(&mut out, &mut scratch, options.depth_max);
    let mut writer = canon::Writer {
        emitter: &mut emitter,
        open: Vec::new(),
    };
    read::drive::<_, false>(bytes, &mut writer, options.depth_max).map_err(Error::new)?;
    Ok(out)
}

/// Is this CBOR already deterministic? One pass; nothing is allocated up to 128 levels.
///
/// # Errors
///
/// [`Error::is_not_canonical`] with offset and reason, or what [`canonicalize`] would say of bad CBOR.
///
/// ```
/// assert!(canon_ser::cbor::check(b"\x82\x01\x02").is_ok());
///
/// let error = canon_ser::cbor::check(b"\x82\x01\x18\x02").unwrap_err();
/// assert!(error.is_not_canonical());
/// assert_eq!(error.offset(), Some(2));
/// ```
pub fn check(bytes: &[u8]) -> Result<(), Error> {
    check_with(bytes, Options::new())
}

/// [`check`] under other [`Options`].
///
/// # Errors
///
/// As [`check`].
pub fn check_with(bytes: &[u8], options: Options) -> Result<(), Error> {
    check::check(bytes, options.depth_max).map_err(Error::new)
}

/// Reads a value from deterministic CBOR, and refuses every other CBOR, also in parts that the type ignores.
///
/// # Errors
///
/// As [`check`]; [`Error::is_data`] when the bytes do not fit the type.
///
/// ```
/// use canon_ser::cbor;
///
/// let value: (u64, String) = cbor::from_slice(b"\x82\x01\x63two")?;
/// assert_eq!(value, (1, "two".into()));
/// assert!(cbor::from_slice::<u64>(b"\x18\x01").unwrap_err().is_not_canonical());
/// # Ok::<(), canon_ser::Error>(())
/// ```
pub fn from_slice<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Error> {
    check(bytes)?;
    read_checked(bytes)
}

/// Reads a value from bytes that have been checked under any profile.
pub(crate) fn read_checked<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Error> {
    let mut deserializer = de::Deserializer::new(bytes);
    let value = T::deserialize(&mut deserializer);
    let at = deserializer.offset();
    match value {
        Ok(value) if at == bytes.len() => Ok(value),
        Ok(_) => Err(Error::new(Fail::At(crate::error::Code::Unread, at))),
        Err(fail) => Err(Error::new(fail.or_at(at)).or_offset(at)),
    }
}

/// JSON text to deterministic CBOR.
///
/// A number whose value is an integer becomes one, however it is spelled (`1.0`, `1e2`), up to 64 bits and a sign;
/// every other number becomes the float nearest to it.
///
/// # Errors
///
/// As [`json::canonicalize`](crate::json::canonicalize); an integer beyond 64 bits is refused only if a float loses
/// digits of it.
///
/// ```
/// assert_eq!(canon_ser::cbor::from_json(br#"{"b": 1e2, "a": [0.5]}"#)?, b"\xa2\x61a\x81\xf9\x38\x00\x61b\x18\x64");
/// # Ok::<(), canon_ser::Error>(())
/// ```
pub fn from_json(text: &[u8]) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(text.len());
    let mut scratch = Scratch::new();
    let mut emitter = Emitter::new(&mut out, &mut scratch, DEPTH_MAX);
    json::write_text(&mut emitter, text).map_err(|fail| json_api::text_error(fail, text))?;
    Ok(out)
}

/// Any well-formed CBOR to canonical JSON.
///
/// # Errors
///
/// Malformed CBOR; what JSON cannot say (byte strings, tags other than those of bignums, undefined and other simple
/// values, keys that are not text, NaN and infinity, bignums beyond 128 bits); duplicate keys; integers that the
/// policy refuses; depth.
///
/// ```
/// use canon_ser::json::Integers;
///
/// let json = canon_ser::cbor::to_json(b"\xa2\x61b\xf9\x3e\x00\x61a\x01", Integers::Error)?;
/// assert_eq!(json, br#"{"a":1,"b":1.5}"#);
/// # Ok::<(), canon_ser::Error>(())
/// ```
pub fn to_json(bytes: &[u8], options: impl Into<json_api::Options>) -> Result<Vec<u8>, Error> {
    let options = options.into();
    let mut out = Vec::with_capacity(bytes.len());
    let mut scratch = Scratch::new();
    let mut emitter = json_api::Emitter::new(&mut out, &mut scratch, options);
    let mut writer = json::ToJson {
        emitter: &mut emitter,
        open: Vec::new(),
    };
    read::drive::<_, false>(bytes, &mut writer, options.depth_limit()).map_err(Error::new)?;
    Ok(out)
}
