//! Canonical JSON: RFC 8785 from any serde value, and from JSON text.

mod check;
mod de;
mod emit;
mod key;
pub(crate) mod number;
pub(crate) mod pointer;
pub(crate) mod private;
mod ser;
pub(crate) mod string;
pub(crate) mod text;

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::buf::{Buf, Fixed};
use crate::error::{Code, Error, Fail};
pub(crate) use crate::json::emit::Emitter;
use crate::json::string::JsonKeys;
use crate::order::Scratch;

/// What happens to integers beyond 2^53, which not every JSON reader keeps.
///
/// Integers of Rust types are judged by their value. In text, where numbers have no type, an integer counts only if
/// it would lose digits as a double: `100000000000000000000` is how a double prints, `9007199254740993` is not.
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
    /// implementation, which recurses: the program's stack must hold `depth_max` levels of it.
    #[must_use]
    pub const fn depth_max(self, depth_max: usize) -> Options {
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
    written.map_err(|fail| Error::new(fail).with_pointer(pointer::pointer(out.bytes())))
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
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    to_vec_with(value, Options::new())
}

/// [`to_vec`] under other [`Options`] (or just an [`Integers`] or a [`KeyOrder`]).
///
/// # Errors
///
/// As [`to_vec`], as far as the options leave them.
pub fn to_vec_with<T: Serialize + ?Sized>(
    value: &T,
    options: impl Into<Options>,
) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(128);
    encode(value, &mut out, &mut Scratch::new(), options.into())?;
    Ok(out)
}

/// The canonical JSON of a value, as a string.
///
/// # Errors
///
/// As [`to_vec`].
pub fn to_string<T: Serialize + ?Sized>(value: &T) -> Result<String, Error> {
    to_vec(value)
        .map(|bytes| String::from_utf8(bytes).expect("JSON is made of whole strings and ASCII"))
}

/// Writes the canonical JSON of a value, once it is complete: a failing value writes nothing.
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

/// Writes the canonical JSON of a value into a buffer and returns the part that it fills.
///
/// Nothing is allocated for values whose keys arrive in order, nor for disordered objects of up to 32 entries.
///
/// # Errors
///
/// As [`to_vec`], and [`Error::is_buffer_full`] when it does not fit.
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
    let mut out = Fixed::new(&mut *buffer);
    encode(value, &mut out, &mut Scratch::new(), options.into())?;
    let len = out.len();
    Ok(&mut buffer[..len])
}

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
    /// With the options of RFC 8785. Allocates nothing yet.
    pub fn new() -> Encoder {
        Encoder::with_options(Options::new())
    }

    /// With other [`Options`].
    pub fn with_options(options: impl Into<Options>) -> Encoder {
        Encoder {
            out: Vec::new(),
            scratch: Scratch::new(),
            options: options.into(),
        }
    }

    /// The canonical JSON of a value, good until the next call.
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

    /// The canonical JSON of JSON text, good until the next call: [`canonicalize`] with reused buffers.
    ///
    /// # Errors
    ///
    /// As [`canonicalize`]. The encoder stays usable.
    pub fn encode_text(&mut self, text: &[u8]) -> Result<&[u8], Error> {
        self.out.clear();
        self.scratch.reset();
        rewrite(text, &mut self.out, &mut self.scratch, self.options)?;
        Ok(&self.out)
    }
}

fn rewrite(
    text: &[u8],
    out: &mut Vec<u8>,
    scratch: &mut Scratch,
    options: Options,
) -> Result<(), Error> {
    let mut emitter = Emitter::new(out, scratch, options);
    let mut writer = text::Writer {
        emitter: &mut emitter,
        open: Vec::new(),
    };
    text::drive::<_, false>(text, &mut writer).map_err(|fail| text_error(fail, text))
}

/// An error with line, column and path.
pub(crate) fn text_error(fail: Fail, text: &[u8]) -> Error {
    let upto = match fail {
        // The path names the member that is there twice, so it must be read to its end.
        Fail::At(Code::Duplicate | Code::KeyOrder, at) if at < text.len() => {
            string::string_end(text, at + 1) + 1
        }
        Fail::At(_, at) => at,
        Fail::Custom(_) => text.len(),
    };
    let pointer = pointer::pointer(&text[..upto.min(text.len())]);
    Error::new(fail).in_text(text).with_pointer(pointer)
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
pub fn canonicalize_with(text: &[u8], options: impl Into<Options>) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(text.len());
    rewrite(text, &mut out, &mut Scratch::new(), options.into())?;
    Ok(out)
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
pub fn from_slice<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Error> {
    from_slice_with(bytes, Options::new())
}

/// [`from_slice`] under other [`Options`] (or just an [`Integers`] or a [`KeyOrder`]).
///
/// # Errors
///
/// As [`from_slice`].
pub fn from_slice_with<'de, T: Deserialize<'de>>(
    bytes: &'de [u8],
    options: impl Into<Options>,
) -> Result<T, Error> {
    check_with(bytes, options)?;
    let mut deserializer = de::Deserializer::new(bytes);
    let value = T::deserialize(&mut deserializer);
    let at = deserializer.offset();
    value.map_err(|fail| {
        let pointer = pointer::pointer(&bytes[..at.min(bytes.len())]);
        let error = Error::new(fail.or_at(at)).or_offset(at);
        error.in_text(bytes).with_pointer(pointer)
    })
}
