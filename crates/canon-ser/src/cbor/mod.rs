//! Deterministic CBOR: the core requirements of RFC 8949 section 4.2.1, from any serde value and from other CBOR.

#[cfg(feature = "alloc")]
mod canon;
mod check;
mod dag;
#[cfg(feature = "alloc")]
mod de;
mod emit;
mod head;
#[cfg(feature = "alloc")]
mod json;
mod private;
mod read;
#[cfg(feature = "std")]
mod stream;
#[cfg(feature = "ciborium")]
mod value;

#[cfg(feature = "alloc")]
use alloc::vec::Vec;

#[cfg(feature = "alloc")]
use serde::Deserialize;
use serde::Serialize;

use crate::buf::Buf;
#[cfg(feature = "alloc")]
use crate::buf::Growing;
#[cfg(feature = "alloc")]
use crate::cbor::canon::Open;
use crate::cbor::emit::Emitter;
#[cfg(any(feature = "std", feature = "digest", feature = "blake3"))]
use crate::drain;
use crate::encoder::encoders;
use crate::error::Error;
#[cfg(feature = "alloc")]
use crate::error::Fail;
#[cfg(feature = "alloc")]
use crate::json as json_api;
use crate::levels::within_levels;
use crate::order::{Scratch, Usual};

#[cfg(feature = "ciborium")]
pub use crate::cbor::value::{from_value, to_value};

/// How deep values may nest unless [`Options`] say otherwise.
pub(crate) const DEPTH_MAX: usize = 128;

/// What to refuse. Those of another profile than `cbor-core-det/1` come from
/// [`Profile::cbor_options`](crate::Profile::cbor_options).
#[derive(Clone, Copy, Debug)]
pub struct Options {
    depth_max: usize,
    dialect: Dialect,
}

/// What is not the same in all profiles of CBOR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Core,
    LengthFirst,
    Dag,
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
            dialect: Dialect::Core,
        }
    }

    /// Sets how many containers and tags may nest.
    ///
    /// CBOR is read without recursion, but a Rust value is walked, and built by `from_slice`, with recursion: the
    /// program's stack must hold `depth_max` levels of it. Without the feature `alloc` there are never more than 128.
    #[must_use]
    pub const fn depth_max(self, depth_max: usize) -> Options {
        let depth_max = within_levels(depth_max);
        Options { depth_max, ..self }
    }

    pub(crate) const fn dialect(self, dialect: Dialect) -> Options {
        Options { dialect, ..self }
    }
}

fn encode<T: Serialize + ?Sized, B: Buf>(
    value: &T,
    out: &mut B,
    scratch: &mut Scratch,
    options: Options,
) -> Result<(), Error> {
    value
        .serialize(&mut Emitter::new(out, scratch, options))
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
#[cfg(feature = "alloc")]
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    to_vec_with(value, Options::new())
}

/// [`to_vec`] under other [`Options`].
///
/// # Errors
///
/// As [`to_vec`].
#[cfg(feature = "alloc")]
pub fn to_vec_with<T: Serialize + ?Sized>(value: &T, options: Options) -> Result<Vec<u8>, Error> {
    let mut out = Growing::with_room(128);
    encode(value, &mut out, &mut Usual::new(), options)?;
    Ok(out.into_vec())
}

/// Writes the deterministic CBOR of a value, once it is certain that it has one: a failing value writes nothing.
///
/// Up to 64 KiB are written at once. A larger value is serialized twice, and must say the same both times: first only to
/// find what is wrong with it and which of its large containers are not in order, then to write. So it takes 64 KiB of
/// memory, the last key of each open map, and the largest of those containers that must be held as a whole: those whose keys are out of
/// order, and those whose length serde does not know beforehand.
///
/// # Errors
///
/// As [`to_vec`], those of the writer ([`Error::is_io`]), and a value that comes out different the second time.
#[cfg(feature = "std")]
pub fn to_writer<W: std::io::Write, T: Serialize + ?Sized>(
    writer: W,
    value: &T,
) -> Result<(), Error> {
    to_writer_with(writer, value, Options::new())
}

/// [`to_writer`] under other [`Options`].
///
/// # Errors
///
/// As [`to_writer`].
///
/// ```
/// use canon_ser::{Profile, cbor};
///
/// let options = Profile::DagCborV1.cbor_options().expect("it is CBOR").depth_max(1);
/// let mut out = Vec::new();
/// cbor::to_writer_with(&mut out, &[1.0], options)?;
/// assert_eq!(out, b"\x81\xfb\x3f\xf0\0\0\0\0\0\0");
/// assert!(cbor::to_writer_with(&mut out, &[[1.0]], options).unwrap_err().is_depth());
/// # Ok::<(), canon_ser::Error>(())
/// ```
#[cfg(feature = "std")]
pub fn to_writer_with<W: std::io::Write, T: Serialize + ?Sized>(
    writer: W,
    value: &T,
    options: Options,
) -> Result<(), Error> {
    let mut to = drain::Writing::new(writer);
    drain(value, options, &mut to).map_err(|error| to.error(error))
}

/// Lets the deterministic CBOR of a value go where it goes while it is being written.
#[cfg(any(feature = "std", feature = "digest", feature = "blake3"))]
pub(crate) fn drain<T: Serialize + ?Sized, K: drain::Take>(
    value: &T,
    options: Options,
    to: &mut K,
) -> Result<(), Error> {
    drain::write(value, options, to).map_err(|(fail, _)| Error::new(fail))
}

/// Writes the deterministic CBOR of a value into a buffer and returns the part that it fills.
///
/// Nothing is allocated for values whose keys arrive in order, however large they are, nor for disordered maps of up to 32 entries.
///
/// # Errors
///
/// As [`to_vec`], and [`Error::is_buffer_full`] when it does not fit. Without the feature `alloc`, more than 32 entries out
/// of order (in all containers open at a time) are [`Error::is_scratch_full`]: see [`FixedEncoder`].
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
    to_slice_with(value, buffer, Options::new())
}

/// [`to_slice`] under other [`Options`].
///
/// # Errors
///
/// As [`to_slice`].
pub fn to_slice_with<'b, T: Serialize + ?Sized>(
    value: &T,
    buffer: &'b mut [u8],
    options: Options,
) -> Result<&'b mut [u8], Error> {
    encode_into(value, buffer, &mut Usual::new(), options)
}

encoders! {
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
    Encoder;

    /// Writes values into buffers of the caller's, and never touches a heap: what a program without one has.
    ///
    /// Values whose keys arrive in order always fit. Of a container that turns out to be disordered, all entries must be
    /// remembered until it ends: 16 bytes for each. The scratch holds `ENTRIES` of them, for all containers that are open at
    /// a time (those in order take places too as long as some are free, from the outermost on). When it is full, the value is
    /// refused with [`Error::is_scratch_full`]: give the encoder more entries, sort the keys before (a `BTreeMap` whose keys
    /// are text, fields declared in order), or use [`Encoder`], which has the heap.
    ///
    /// Entries are sorted through a copy behind the output, if the buffer has room for one, else (beyond 256 bytes) by
    /// rotations in place, whose time grows with the number of entries times the size of the container.
    ///
    /// ```
    /// use canon_ser::cbor::FixedEncoder;
    ///
    /// let mut encoder = FixedEncoder::<64>::new();
    /// let mut buffer = [0; 16];
    /// assert_eq!(encoder.encode(&[3, 2, 1], &mut buffer)?, &[0x83, 3, 2, 1]);
    /// # Ok::<(), canon_ser::Error>(())
    /// ```
    FixedEncoder;
}

#[cfg(feature = "alloc")]
impl Encoder {
    /// The deterministic CBOR of any CBOR item, good until the next call: [`canonicalize`] with reused buffers.
    ///
    /// # Errors
    ///
    /// As [`canonicalize`]. The encoder stays usable.
    ///
    /// ```
    /// let mut encoder = canon_ser::cbor::Encoder::new();
    /// assert_eq!(encoder.encode_item(b"\xa2\x02\x00\x01\x00")?, b"\xa2\x01\x00\x02\x00");
    /// # Ok::<(), canon_ser::Error>(())
    /// ```
    pub fn encode_item(&mut self, bytes: &[u8]) -> Result<&[u8], Error> {
        self.reset();
        let Encoder {
            out,
            scratch,
            open,
            options,
        } = self;
        rewrite(bytes, out, scratch, open, *options)?;
        Ok(self.out.bytes())
    }
}

#[cfg(feature = "alloc")]
fn rewrite(
    bytes: &[u8],
    out: &mut Growing,
    scratch: &mut Scratch,
    open: &mut Vec<Open>,
    options: Options,
) -> Result<(), Error> {
    let mut emitter = Emitter::new(out, scratch, options);
    let mut writer = canon::Writer {
        emitter: &mut emitter,
        open: core::mem::take(open),
    };
    let done = read::drive::<_, false>(bytes, &mut writer, options.depth_max);
    *open = writer.open;
    open.clear();
    done.map_err(Error::new)
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
#[cfg(feature = "alloc")]
pub fn canonicalize(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    canonicalize_with(bytes, Options::new())
}

/// [`canonicalize`] under other [`Options`].
///
/// # Errors
///
/// As [`canonicalize`].
#[cfg(feature = "alloc")]
pub fn canonicalize_with(bytes: &[u8], options: Options) -> Result<Vec<u8>, Error> {
    let mut out = Growing::with_room(bytes.len());
    rewrite(bytes, &mut out, &mut Usual::new(), &mut Vec::new(), options)?;
    Ok(out.into_vec())
}

/// [`canonicalize_with`] for CBOR that need not fit in memory: from where the source stands to its end.
///
/// The input is read at least twice, by pieces: nothing is written of an input that has no deterministic form. Held in
/// memory are some 0.5 MB, the longest string, and as a whole each container larger than 64 KiB that has an indefinite
/// length, is a key, or is a map whose keys are not in order; so an input that is in order streams through, however large
/// it is. Sorting one takes one to two times its size besides, more for entries of few bytes. Inputs of up to 256 KiB are read once. The source must not change in the meantime.
///
/// # Errors
///
/// As [`canonicalize_with`], and those of source and writer ([`Error::is_io`]).
///
/// ```
/// use canon_ser::cbor::{self, Options};
///
/// let mut out = Vec::new();
/// cbor::canonicalize_to(std::io::Cursor::new(b"\xa2\x02\x00\x01\x00"), &mut out, Options::new())?;
/// assert_eq!(out, b"\xa2\x01\x00\x02\x00");
/// # Ok::<(), canon_ser::Error>(())
/// ```
#[cfg(feature = "std")]
pub fn canonicalize_to<R: std::io::Read + std::io::Seek, W: std::io::Write>(
    source: R,
    writer: W,
    options: Options,
) -> Result<(), Error> {
    stream::canonicalize(source, writer, options)
}

/// [`canonicalize_to`] in one reading, of a source that cannot go back: what is deterministic is written as it comes.
///
/// So what was written of an input that turns out to be bad stays written. A map is held as a whole if its keys are out of order
/// within its first 64 KiB of output. Beyond that it must stay in order: bytes of it have been written.
///
/// # Errors
///
/// As [`canonicalize_to`], and [`Error::is_late_disorder`].
///
/// ```
/// use canon_ser::cbor::{self, Options};
///
/// let mut out = Vec::new();
/// cbor::canonicalize_once(&b"\xa2\x02\x00\x01\x00"[..], &mut out, Options::new())?;
/// assert_eq!(out, b"\xa2\x01\x00\x02\x00");
/// # Ok::<(), canon_ser::Error>(())
/// ```
#[cfg(feature = "std")]
pub fn canonicalize_once<R: std::io::Read, W: std::io::Write>(
    source: R,
    writer: W,
    options: Options,
) -> Result<(), Error> {
    stream::canonicalize_once(source, writer, options)
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
    check::check(bytes, options).map_err(Error::new)
}

/// [`check_with`] for CBOR that need not fit in memory: from where the source stands to its end.
///
/// One pass. Held in memory are 0.5 MB, the longest string or key, and the last key of each open map. The source need not be
/// able to go back. If it can tell where it ends, a length that it cannot hold is an error at once.
///
/// # Errors
///
/// As [`check`], and those of the source ([`Error::is_io`]), as soon as the source has given the head or the string that is
/// wrong, or of a string longer than 64 KiB as much again.
#[cfg(feature = "std")]
pub fn check_from<R: std::io::Read + std::io::Seek>(
    source: R,
    options: Options,
) -> Result<(), Error> {
    stream::check(source, options)
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
#[cfg(feature = "alloc")]
pub fn from_slice<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Error> {
    from_slice_with(bytes, Options::new())
}

/// [`from_slice`] under other [`Options`].
///
/// # Errors
///
/// As [`from_slice`].
#[cfg(feature = "alloc")]
pub fn from_slice_with<'de, T: Deserialize<'de>>(
    bytes: &'de [u8],
    options: Options,
) -> Result<T, Error> {
    check_with(bytes, options)?;
    read_checked(bytes)
}

/// Reads a value from bytes that have been checked.
#[cfg(feature = "alloc")]
fn read_checked<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Error> {
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
/// A number is a double, as it is for canonical JSON, and one whose value is an integer of up to 64 bits and a sign becomes
/// that integer, however it is spelled (`1.0`, `1e2`): texts with the same canonical JSON have the same CBOR.
///
/// # Errors
///
/// As [`json::canonicalize`](crate::json::canonicalize).
///
/// ```
/// assert_eq!(canon_ser::cbor::from_json(br#"{"b": 1e2, "a": [0.5]}"#)?, b"\xa2\x61a\x81\xf9\x38\x00\x61b\x18\x64");
/// # Ok::<(), canon_ser::Error>(())
/// ```
#[cfg(feature = "alloc")]
pub fn from_json(text: &[u8]) -> Result<Vec<u8>, Error> {
    from_json_with(text, json_api::Options::new())
}

/// [`from_json`] under other options (or just a policy for integers). With `Integers::Exact` every number whose value
/// is an integer of up to 128 bits is that integer, however it is spelled, and beyond 64 bits a bignum; with `String`
/// what is a string in canonical JSON becomes text: integers beyond 2^53, and doubles that print as such.
///
/// # Errors
///
/// As [`from_json`]. With `Exact`, an integer beyond 128 bits that is not, digit for digit, what a double prints as.
///
/// ```
/// use canon_ser::{cbor, json::Integers};
///
/// let id = b"9007199254740993";
/// assert!(cbor::from_json(id).unwrap_err().is_number());
/// assert_eq!(cbor::from_json_with(id, Integers::Exact)?, b"\x1b\0\x20\0\0\0\0\0\x01");
/// # Ok::<(), canon_ser::Error>(())
/// ```
#[cfg(feature = "alloc")]
pub fn from_json_with(
    text: &[u8],
    options: impl Into<json_api::Options>,
) -> Result<Vec<u8>, Error> {
    let options = options.into();
    let mut out = Growing::with_room(text.len());
    let mut scratch = Usual::new();
    let limits = Options::new().depth_max(options.depth_limit());
    let mut emitter = Emitter::new(&mut out, &mut scratch, limits);
    json::write_text(&mut emitter, text, options.integer_policy())
        .map_err(|fail| json_api::text_error(fail, text))?;
    Ok(out.into_vec())
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
#[cfg(feature = "alloc")]
pub fn to_json(bytes: &[u8], options: impl Into<json_api::Options>) -> Result<Vec<u8>, Error> {
    let options = options.into();
    let mut out = Growing::with_room(bytes.len());
    let mut scratch = Usual::new();
    let mut emitter = json_api::Emitter::new(&mut out, &mut scratch, options);
    let mut writer = json::ToJson {
        emitter: &mut emitter,
        open: Vec::new(),
    };
    read::drive::<_, false>(bytes, &mut writer, options.depth_limit()).map_err(Error::new)?;
    Ok(out.into_vec())
}
