//! Canonical JSON: RFC 8785 from any serde value, and from JSON text.

mod check;
#[cfg(feature = "alloc")]
mod de;
mod emit;
mod key;
pub(crate) mod number;
#[cfg(feature = "alloc")]
pub(crate) mod pointer;
pub(crate) mod private;
#[cfg(feature = "alloc")]
mod rewrite;
pub(crate) mod scalar;
mod scan;
#[cfg(feature = "std")]
mod stream;
pub(crate) mod string;
pub(crate) mod text;

#[cfg(feature = "alloc")]
use alloc::string::String;
#[cfg(feature = "alloc")]
use alloc::vec::Vec;

#[cfg(feature = "alloc")]
use serde::Deserialize;
use serde::Serialize;

use crate::buf::Buf;
#[cfg(feature = "alloc")]
use crate::buf::Growing;
#[cfg(any(feature = "std", feature = "digest", feature = "blake3"))]
use crate::drain;
use crate::encoder::encoders;
use crate::error::{Code, Error, Fail};
pub(crate) use crate::json::emit::Emitter;
#[cfg(feature = "alloc")]
use crate::json::rewrite::Open;
use crate::json::string::JsonKeys;
use crate::levels::within_levels;
use crate::order::{Scratch, Usual};

/// What happens to integers beyond 2^53, which not every JSON reader keeps.
///
/// Integers of Rust types are judged by their value. In text, where numbers have no type, an integer is what is spelled
/// without fraction and exponent, and it counts only if it would lose digits as a double: `100000000000000000000` is how a
/// double prints, `9007199254740993` is not, and `9007199254740993.0` is a decimal, which becomes the nearest double.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Integers {
    /// They are an error.
    #[default]
    Error,
    /// They become the nearest double: what JavaScript would have made of them.
    Round,
    /// They become strings of their digits, in text also those that a double could hold.
    String,
    /// They keep all their digits, and every number whose value is an integer is written without fraction or exponent.
    ///
    /// **This is not RFC 8785**, and no other implementation promises the same bytes. It is for fingerprints, where
    /// neither refusing a number nor giving two integers one digest will do. In text, `1e2` is `100`, `-0` is `0`, an
    /// integer of any length stands for itself, and what is no integer is read as a double.
    Exact,
}

/// How object keys are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyOrder {
    /// By UTF-16 code units, as RFC 8785 has it (JavaScript, Java, C#).
    #[default]
    Utf16,
    /// By UTF-8 bytes, which is by code points (Go, Rust, Python).
    Utf8,
}

/// How to write, and what to refuse.
///
/// ```
/// use canon_ser::json::{self, Integers, Options};
///
/// let options = Options::new().integers(Integers::String).depth_max(16);
/// assert_eq!(json::to_vec_with(&[u64::MAX], options)?, br#"["18446744073709551615"]"#);
/// # Ok::<(), canon_ser::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Options {
    integers: Integers,
    depth_max: usize,
    order: KeyOrder,
}

impl Default for Options {
    fn default() -> Options {
        Options::new()
    }
}

impl Options {
    /// RFC 8785: integers beyond 2^53 are errors, 128 levels, keys by UTF-16 code units.
    pub const fn new() -> Options {
        Options {
            integers: Integers::Error,
            depth_max: 128,
            order: KeyOrder::Utf16,
        }
    }

    /// Sets what happens to integers beyond 2^53.
    #[must_use]
    pub const fn integers(self, integers: Integers) -> Options {
        Options { integers, ..self }
    }

    /// Sets how many containers may nest.
    ///
    /// Text is read without recursion, so any depth is safe there. A Rust value is walked by its own `Serialize`
    /// implementation, which recurses: the program's stack must hold `depth_max` levels of it. Without the feature
    /// `alloc` there are never more than 128. An object out of order is copied once, with all that is in it: where such
    /// objects nest, time grows with their depth times their size.
    #[must_use]
    pub const fn depth_max(self, depth_max: usize) -> Options {
        let depth_max = within_levels(depth_max);
        Options { depth_max, ..self }
    }

    /// Sets how keys are sorted.
    #[must_use]
    pub const fn order(self, order: KeyOrder) -> Options {
        Options { order, ..self }
    }

    pub(crate) fn integer_policy(&self) -> Integers {
        self.integers
    }

    pub(crate) fn depth_limit(&self) -> usize {
        self.depth_max
    }

    #[inline]
    pub(crate) fn keys(&self) -> JsonKeys {
        JsonKeys {
            utf16: self.order == KeyOrder::Utf16,
        }
    }
}

impl From<Integers> for Options {
    fn from(integers: Integers) -> Options {
        Options::new().integers(integers)
    }
}

impl From<KeyOrder> for Options {
    fn from(order: KeyOrder) -> Options {
        Options::new().order(order)
    }
}

fn encode<T: Serialize + ?Sized, B: Buf>(
    value: &T,
    out: &mut B,
    scratch: &mut Scratch,
    options: Options,
) -> Result<(), Error> {
    let written = value.serialize(&mut Emitter::new(out, scratch, options));
    written.map_err(|fail| refused(fail, out.bytes()))
}

/// An error with the path to what was being written.
#[cold]
pub(crate) fn refused(fail: Fail, written: &[u8]) -> Error {
    let error = Error::new(fail);
    #[cfg(feature = "alloc")]
    return error.with_pointer(pointer::pointer(written));
    #[cfg(not(feature = "alloc"))]
    {
        _ = written;
        error
    }
}

/// The canonical JSON of a value.
///
/// Linear in the size of the value while keys arrive in order; a container of `n` entries out of order adds `n log n`
/// comparisons and two copies of its bytes.
///
/// # Errors
///
/// NaN or infinity anywhere, two equal keys in one object (also of different Rust types that print alike), integers
/// beyond 2^53, keys without a text form, more than 128 levels, or an error of the value's own `Serialize`.
///
/// ```
/// use std::collections::HashMap;
///
/// let map = HashMap::from([("peach", 1.0), ("Apple", 1e21), ("\u{20ac}", 0.1)]);
/// assert_eq!(canon_ser::json::to_vec(&map)?, r#"{"Apple":1e+21,"peach":1,"€":0.1}"#.as_bytes());
/// # Ok::<(), canon_ser::Error>(())
/// ```
#[cfg(feature = "alloc")]
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    to_vec_with(value, Options::new())
}

/// [`to_vec`] under other [`Options`] (or just an [`Integers`] or a [`KeyOrder`]).
///
/// # Errors
///
/// As [`to_vec`], as far as the options leave them.
#[cfg(feature = "alloc")]
pub fn to_vec_with<T: Serialize + ?Sized>(
    value: &T,
    options: impl Into<Options>,
) -> Result<Vec<u8>, Error> {
    let mut out = Growing::with_room(128);
    encode(value, &mut out, &mut Usual::new(), options.into())?;
    Ok(out.into_vec())
}

/// The canonical JSON of a value, as a string.
///
/// # Errors
///
/// As [`to_vec`].
#[cfg(feature = "alloc")]
pub fn to_string<T: Serialize + ?Sized>(value: &T) -> Result<String, Error> {
    to_vec(value)
        .map(|bytes| String::from_utf8(bytes).expect("JSON is made of whole strings and ASCII"))
}

/// Writes the canonical JSON of a value, once it is certain that it has one: a failing value writes nothing.
///
/// Up to 64 KiB are written at once. A larger value is serialized twice, and must say the same both times: first only to
/// find what is wrong with it and which of its large containers are not in order, then to write. So it takes 64 KiB of
/// memory, the last key of each open map, and the largest of those containers that must be held as a whole: those whose keys are out of
/// order.
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

/// [`to_writer`] under other [`Options`] (or just an [`Integers`] or a [`KeyOrder`]).
///
/// # Errors
///
/// As [`to_writer`], as far as the options leave them.
///
/// ```
/// use canon_ser::json::{self, Integers};
///
/// let mut out = Vec::new();
/// json::to_writer_with(&mut out, &[u64::MAX], Integers::Exact)?;
/// assert_eq!(out, b"[18446744073709551615]");
/// # Ok::<(), canon_ser::Error>(())
/// ```
#[cfg(feature = "std")]
pub fn to_writer_with<W: std::io::Write, T: Serialize + ?Sized>(
    writer: W,
    value: &T,
    options: impl Into<Options>,
) -> Result<(), Error> {
    let mut to = drain::Writing::new(writer);
    drain(value, options.into(), &mut to).map_err(|error| to.error(error))
}

/// Lets the canonical JSON of a value go where it goes while it is being written.
#[cfg(any(feature = "std", feature = "digest", feature = "blake3"))]
pub(crate) fn drain<T: Serialize + ?Sized, K: drain::Take>(
    value: &T,
    options: Options,
    to: &mut K,
) -> Result<(), Error> {
    drain::write(value, options, to).map_err(|(fail, written)| refused(fail, &written))
}

/// Writes the canonical JSON of a value into a buffer and returns the part that it fills.
///
/// Nothing is allocated for values whose keys arrive in order, however large they are, nor for disordered objects of up to 32 entries.
///
/// # Errors
///
/// As [`to_vec`], and [`Error::is_buffer_full`] when it does not fit. Without the feature `alloc`, more than 32 entries out
/// of order (in all containers open at a time) are [`Error::is_scratch_full`]: see [`FixedEncoder`].
///
/// ```
/// let mut buffer = [0; 16];
/// assert_eq!(canon_ser::json::to_slice(&(1, "two"), &mut buffer)?, br#"[1,"two"]"#);
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
/// As [`to_slice`], as far as the options leave them.
pub fn to_slice_with<'b, T: Serialize + ?Sized>(
    value: &T,
    buffer: &'b mut [u8],
    options: impl Into<Options>,
) -> Result<&'b mut [u8], Error> {
    encode_into(value, buffer, &mut Usual::new(), options.into())
}

encoders! {
    /// Writes many values with one set of buffers: once they have grown, nothing is allocated any more.
    ///
    /// ```
    /// use canon_ser::json::Encoder;
    ///
    /// let mut encoder = Encoder::new();
    /// assert_eq!(encoder.encode(&[3, 2, 1])?, b"[3,2,1]");
    /// assert_eq!(encoder.encode("next")?, b"\"next\"");
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
    /// use canon_ser::json::FixedEncoder;
    ///
    /// let mut encoder = FixedEncoder::<64>::new();
    /// let mut buffer = [0; 16];
    /// assert_eq!(encoder.encode(&[3, 2, 1], &mut buffer)?, b"[3,2,1]");
    /// # Ok::<(), canon_ser::Error>(())
    /// ```
    FixedEncoder;
}

#[cfg(feature = "alloc")]
impl Encoder {
    /// The canonical JSON of JSON text, good until the next call: [`canonicalize`] with reused buffers.
    ///
    /// # Errors
    ///
    /// As [`canonicalize`]. The encoder stays usable.
    pub fn encode_text(&mut self, text: &[u8]) -> Result<&[u8], Error> {
        self.reset();
        let Encoder {
            out,
            scratch,
            open,
            options,
        } = self;
        rewrite(text, out, scratch, open, *options)?;
        Ok(self.out.bytes())
    }
}

#[cfg(feature = "alloc")]
fn rewrite(
    text: &[u8],
    out: &mut Growing,
    scratch: &mut Scratch,
    open: &mut Vec<Open>,
    options: Options,
) -> Result<(), Error> {
    let mut emitter = Emitter::new(out, scratch, options);
    let mut writer = rewrite::Writer {
        emitter: &mut emitter,
        open: core::mem::take(open),
    };
    let done = text::drive::<_, false>(text, &mut writer);
    *open = writer.open;
    open.clear();
    done.map_err(|fail| text_error(fail, text))
}

/// An error with line, column and path.
pub(crate) fn text_error(fail: Fail, text: &[u8]) -> Error {
    let upto = match fail {
        // The path names the member that is there twice, so it must be read to its end.
        Fail::At(Code::Duplicate | Code::KeyOrder, at) if at < text.len() => {
            string::string_end(text, at + 1) + 1
        }
        Fail::At(_, at) => at,
        #[cfg(feature = "alloc")]
        Fail::Custom(_) => text.len(),
    };
    refused(fail, &text[..upto.min(text.len())]).in_text(text)
}

/// JSON text to canonical JSON, without building a tree.
///
/// Read iteratively: the depth of the text costs memory, never the program's stack. Time as for [`to_vec`].
///
/// # Errors
///
/// Malformed text, bad UTF-8, lone surrogates, duplicate keys, integers that lose digits (see [`Integers`]), numbers out
/// of range, more than 128 levels: each with offset, line, column and path.
///
/// ```
/// let text = br#"{ "b": 1E2, "a": ["\u00e9", 0.50] }"#;
/// assert_eq!(canon_ser::json::canonicalize(text)?, r#"{"a":["é",0.5],"b":100}"#.as_bytes());
/// # Ok::<(), canon_ser::Error>(())
/// ```
#[cfg(feature = "alloc")]
pub fn canonicalize(text: &[u8]) -> Result<Vec<u8>, Error> {
    canonicalize_with(text, Options::new())
}

/// [`canonicalize`] under other [`Options`] (or just an [`Integers`] or a [`KeyOrder`]).
///
/// # Errors
///
/// As [`canonicalize`], as far as the options leave them.
///
/// ```
/// use canon_ser::json::{Integers, canonicalize_with};
///
/// let big = canonicalize_with(b"[9007199254740993, 1e2, -0]", Integers::Exact)?;
/// assert_eq!(big, b"[9007199254740993,100,0]");
/// # Ok::<(), canon_ser::Error>(())
/// ```
#[cfg(feature = "alloc")]
pub fn canonicalize_with(text: &[u8], options: impl Into<Options>) -> Result<Vec<u8>, Error> {
    let mut out = Growing::with_room(text.len());
    let options = options.into();
    rewrite(text, &mut out, &mut Usual::new(), &mut Vec::new(), options)?;
    Ok(out.into_vec())
}

/// [`canonicalize_with`] for text that need not fit in memory: from where the source stands to its end.
///
/// The text is read at least twice, by pieces: nothing is written of a text that has no canonical form. Held in memory
/// are some 0.5 MB, the longest string or number, and each object as a whole that is larger than 64 KiB and whose keys are
/// not in order; so a text that is in order streams through, however large it is. Sorting one takes one to two times its
/// size besides, more for members of few bytes. Texts of up to 256 KiB are read once.
/// The source must not change in the meantime.
///
/// # Errors
///
/// As [`canonicalize_with`], and those of source and writer ([`Error::is_io`]). More than 16 MiB into the text, errors have no
/// path, and that of a duplicate key may have the place where its object ends.
///
/// ```
/// use canon_ser::json::{self, Options};
///
/// let source = std::io::Cursor::new(br#"{"b": [1e2], "a": 0.50}"#);
/// let mut out = Vec::new();
/// json::canonicalize_to(source, &mut out, Options::new())?;
/// assert_eq!(out, br#"{"a":0.5,"b":[100]}"#);
/// # Ok::<(), canon_ser::Error>(())
/// ```
#[cfg(feature = "std")]
pub fn canonicalize_to<R: std::io::Read + std::io::Seek, W: std::io::Write>(
    source: R,
    writer: W,
    options: impl Into<Options>,
) -> Result<(), Error> {
    stream::canonicalize(source, writer, options.into())
}

/// [`canonicalize_to`] in one reading, of a source that cannot go back: what is canonical is written as it comes.
///
/// So what was written of a text that turns out to be bad stays written. An object is held as a whole if its keys are out of
/// order within its first 64 KiB of output. Beyond that it must stay in order: bytes of it have been written.
///
/// # Errors
///
/// As [`canonicalize_to`], without lines, columns and paths, and [`Error::is_late_disorder`].
///
/// ```
/// use canon_ser::json::{self, Options};
///
/// let mut out = Vec::new();
/// json::canonicalize_once(&br#"{"b": [1e2], "a": 0.50}"#[..], &mut out, Options::new())?;
/// assert_eq!(out, br#"{"a":0.5,"b":[100]}"#);
/// # Ok::<(), canon_ser::Error>(())
/// ```
#[cfg(feature = "std")]
pub fn canonicalize_once<R: std::io::Read, W: std::io::Write>(
    source: R,
    writer: W,
    options: impl Into<Options>,
) -> Result<(), Error> {
    stream::canonicalize_once(source, writer, options.into())
}

/// Is this text already canonical? If so, `canonicalize` would return the same bytes.
///
/// One pass; nothing is allocated up to 128 levels while the answer is yes.
///
/// # Errors
///
/// [`Error::is_not_canonical`] with the place and the reason, or what [`canonicalize`] would say of a bad text.
///
/// ```
/// assert!(canon_ser::json::check(b"{\"a\":1}").is_ok());
///
/// let error = canon_ser::json::check(b"{\"b\":1,\"a\":2}").unwrap_err();
/// assert!(error.is_not_canonical());
/// assert_eq!((error.offset(), error.reason()), (Some(7), "not canonical: keys are out of order"));
/// ```
pub fn check(bytes: &[u8]) -> Result<(), Error> {
    check_with(bytes, Options::new())
}

/// [`check`] under other [`Options`].
///
/// # Errors
///
/// As [`check`].
pub fn check_with(bytes: &[u8], options: impl Into<Options>) -> Result<(), Error> {
    check::check(bytes, options.into()).map_err(|fail| text_error(fail, bytes))
}

/// [`check_with`] for text that need not fit in memory: from where the source stands to its end.
///
/// One pass. Held in memory are 0.5 MB, the longest string or number, and the last key of each open object.
///
/// # Errors
///
/// As [`check`], and those of the source ([`Error::is_io`]). An error is told as soon as the source has given the
/// token that is wrong, or of one longer than 64 KiB as much again. More than 16 MiB into the text, or if the source cannot go back (seeking fails), it has no path.
#[cfg(feature = "std")]
pub fn check_from<R: std::io::Read + std::io::Seek>(
    source: R,
    options: impl Into<Options>,
) -> Result<(), Error> {
    stream::check(source, options.into())
}

/// Reads a value from canonical JSON, and refuses every other JSON, also in parts that the type ignores.
///
/// # Errors
///
/// As [`check`]; [`Error::is_data`] when the text does not fit the type.
///
/// ```
/// use canon_ser::json;
///
/// let value: (u64, String) = json::from_slice(br#"[1,"two"]"#)?;
/// assert_eq!(value, (1, "two".into()));
/// assert!(json::from_slice::<(u64, String)>(br#"[1, "two"]"#).unwrap_err().is_not_canonical());
/// # Ok::<(), canon_ser::Error>(())
/// ```
#[cfg(feature = "alloc")]
pub fn from_slice<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Error> {
    from_slice_with(bytes, Options::new())
}

/// [`from_slice`] under other [`Options`] (or just an [`Integers`] or a [`KeyOrder`]).
///
/// # Errors
///
/// As [`from_slice`].
#[cfg(feature = "alloc")]
pub fn from_slice_with<'de, T: Deserialize<'de>>(
    bytes: &'de [u8],
    options: impl Into<Options>,
) -> Result<T, Error> {
    check_with(bytes, options)?;
    let mut deserializer = de::Deserializer::new(bytes);
    let value = T::deserialize(&mut deserializer).and_then(|value| deserializer.end(value));
    let at = deserializer.offset();
    value.map_err(|fail| {
        let pointer = pointer::pointer(&bytes[..at.min(bytes.len())]);
        let error = Error::new(fail.or_at(at)).or_offset(at);
        error.in_text(bytes).with_pointer(pointer)
    })
}
