//! The public [`Error`] and the small internal failure that travels through hot paths.

#[cfg(feature = "alloc")]
use alloc::boxed::Box;
#[cfg(feature = "alloc")]
use alloc::string::{String, ToString};
use core::fmt;

/// Stands for "no offset known" in [`Fail::At`].
pub(crate) const NOWHERE: usize = usize::MAX;

/// What went wrong. The order of the groups is the order of the predicates of [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    // Syntax
    Empty,
    End,
    Value,
    Key,
    Colon,
    CommaOrEnd,
    Trailing,
    Escape,
    Control,
    NumberSyntax,
    Utf8,
    Surrogate,
    CborHead,
    CborChunk,
    CborBreak,
    CborBignum,
    #[cfg(feature = "std")]
    CborEndless,
    // Duplicates
    Duplicate,
    // Numbers
    NotFinite,
    Integer,
    WideInteger,
    Range,
    // Depth
    Depth,
    // Well-formed, but not canonical
    Whitespace,
    KeyOrder,
    NumberForm,
    NoNumberForm,
    EscapeForm,
    LongHead,
    Indefinite,
    FloatForm,
    NanForm,
    NarrowFloat,
    NegativeZero,
    BignumForm,
    // Space
    Full,
    Scratch,
    TooLarge,
    #[cfg(feature = "std")]
    Late,
    // Data that has no form in the format
    KeyType,
    Misuse,
    #[cfg(any(feature = "std", feature = "digest", feature = "blake3"))]
    Unstable,
    #[cfg(not(feature = "alloc"))]
    Refused,
    #[cfg(not(feature = "alloc"))]
    NoHeap,
    Display,
    NoJson,
    #[cfg(feature = "ciborium")]
    NoValue,
    DagKey,
    DagTag,
    DagFloat,
    DagSimple,
    Unread,
    // Outside
    #[cfg(feature = "std")]
    Io,
}

impl Code {
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Code::Empty => "the input is empty; one value was expected",
            Code::End => "the input ends in the middle of a value",
            Code::Value => "expected a value",
            Code::Key => "expected a string as the member's name",
            Code::Colon => "expected ':' after the member's name",
            Code::CommaOrEnd => "expected ',' or the end of the container",
            Code::Trailing => "bytes follow the value; one input holds one value",
            Code::Escape => "unknown escape in a string",
            Code::Control => "control character in a string; it must be escaped",
            Code::NumberSyntax => "malformed number",
            Code::Utf8 => "the text is not UTF-8",
            Code::Surrogate => "lone surrogate; no UTF-8 string can hold it",
            Code::CborHead => "reserved CBOR head; this byte starts no data item",
            Code::CborChunk => "a chunk of an indefinite-length string has another type",
            Code::CborBreak => "CBOR break where no indefinite-length container is open",
            Code::CborBignum => "a CBOR bignum must hold a byte string",
            #[cfg(feature = "std")]
            Code::CborEndless => "this CBOR head announces more than any input holds",
            Code::Duplicate => "duplicate key",
            Code::NotFinite => "NaN and infinity have no form in JSON",
            Code::Integer => {
                "integer beyond 2^53; send it as a string or choose another policy for integers"
            }
            Code::WideInteger => {
                "integer beyond 128 bits that is not what a double prints as; send it as a string"
            }
            Code::Range => "number out of the range of a double",
            Code::Depth => {
                "containers are nested deeper than the limit; raise the limit if this is intended"
            }
            Code::Whitespace => "not canonical: whitespace between tokens",
            Code::KeyOrder => "not canonical: keys are out of order",
            Code::NumberForm => "not canonical: the number has another canonical spelling",
            Code::NoNumberForm => {
                "not canonical: an integer beyond 2^53 that is not what a double prints as has no form under this policy for integers"
            }
            Code::EscapeForm => "not canonical: the character has another canonical spelling",
            Code::LongHead => "not canonical: the length or integer fits a shorter head",
            Code::Indefinite => "not canonical: indefinite length",
            Code::FloatForm => "not canonical: the float fits a shorter one",
            Code::NanForm => "not canonical: NaN must be f9 7e 00",
            Code::NarrowFloat => "not canonical: floats take 64 bits here",
            Code::NegativeZero => "not canonical: -0.0 is written as 0.0 here",
            Code::BignumForm => "not canonical: the bignum has leading zeros or fits an integer",
            Code::Full => "the buffer is too small for the value",
            Code::Scratch => {
                "too many entries out of order for the fixed scratch; give it more entries, a heap, or keys in order"
            }
            Code::TooLarge => {
                "a container whose keys are out of order takes more than 4 GiB; give it keys in order"
            }
            #[cfg(feature = "std")]
            Code::Late => {
                "keys of a container of more than 64 KiB are out of order, and its beginning has been written; it must be read twice"
            }
            Code::KeyType => {
                "this key has no text form; use strings, integers, floats, bools, chars or unit variants"
            }
            #[cfg(any(feature = "std", feature = "digest", feature = "blake3"))]
            Code::Unstable => {
                "the value did not serialize alike twice, as values of more than 64 KiB must"
            }
            Code::Misuse => "a Serialize implementation called the serializer out of order",
            #[cfg(not(feature = "alloc"))]
            Code::Refused => "a Serialize or Deserialize implementation refused",
            #[cfg(not(feature = "alloc"))]
            Code::NoHeap => "raw JSON text inside a value needs a heap (the feature alloc)",
            Code::Display => "a Display implementation failed",
            Code::NoJson => "this CBOR item has no JSON form",
            #[cfg(feature = "ciborium")]
            Code::NoValue => "ciborium's Value has no such item",
            Code::DagKey => "DAG-CBOR has text keys only",
            Code::DagTag => {
                "DAG-CBOR has no tag but 42, which holds a byte string: 0, then a content id"
            }
            Code::DagFloat => "NaN and infinity have no form in DAG-CBOR",
            Code::DagSimple => "DAG-CBOR has no simple values but false, true and null",
            Code::Unread => "the bytes do not fit the type",
            #[cfg(feature = "std")]
            Code::Io => "the writer failed",
        }
    }
}

/// The failure inside the crate: two words, so that a `Result` of it travels in registers.
#[derive(Debug)]
pub(crate) enum Fail {
    At(Code, usize),
    #[cfg(feature = "alloc")]
    #[expect(clippy::box_collection, reason = "one word, so that the whole is two")]
    Custom(Box<String>),
}

impl Fail {
    pub(crate) const fn new(code: Code) -> Fail {
        Fail::At(code, NOWHERE)
    }

    /// What a Serialize or Deserialize implementation says. Without a heap there is no place for its words.
    #[cold]
    fn refused<T: fmt::Display>(message: T) -> Fail {
        #[cfg(feature = "alloc")]
        return Fail::Custom(Box::new(message.to_string()));
        #[cfg(not(feature = "alloc"))]
        {
            _ = message;
            Fail::new(Code::Refused)
        }
    }

    /// Forgets where: the offset is one in bytes that the caller never had.
    pub(crate) fn without_offset(self) -> Fail {
        match self {
            Fail::At(code, _) => Fail::new(code),
            #[cfg(feature = "alloc")]
            custom => custom,
        }
    }

    /// The same in an input that has so many bytes more in front.
    #[cold]
    pub(crate) fn moved(self, by: usize) -> Fail {
        match self {
            Fail::At(code, offset) if offset != NOWHERE => Fail::At(code, offset + by),
            other => other,
        }
    }

    /// Fills in where the input stood, unless the failure knows better.
    #[cold]
    pub(crate) fn or_at(self, offset: usize) -> Fail {
        match self {
            Fail::At(code, NOWHERE) => Fail::At(code, offset),
            known => known,
        }
    }
}

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fail::At(code, _) => f.write_str(code.reason()),
            #[cfg(feature = "alloc")]
            Fail::Custom(message) => f.write_str(message),
        }
    }
}

impl core::error::Error for Fail {}

impl serde::ser::Error for Fail {
    #[cold]
    fn custom<T: fmt::Display>(message: T) -> Self {
        Fail::refused(message)
    }
}

impl serde::de::Error for Fail {
    #[cold]
    fn custom<T: fmt::Display>(message: T) -> Self {
        Fail::refused(message)
    }
}

/// Why a value or an input has no canonical form, or is not in it.
///
/// Opaque: ask the predicates. `Display` is one sentence with the place in it, as far as one is known.
///
/// ```
/// let error = canon_ser::json::canonicalize(b"{\"a\": 1,\n \"a\": 2}").unwrap_err();
/// assert!(error.is_duplicate_key());
/// assert_eq!((error.offset(), error.line(), error.column()), (Some(10), Some(2), Some(2)));
/// assert_eq!(error.to_string(), "duplicate key at line 2, column 2 (offset 10, in /a)");
/// ```
#[derive(Debug)]
pub struct Error {
    code: Option<Code>,
    offset: Option<usize>,
    place: Option<(usize, usize)>,
    pointer: Option<Words>,
    message: Option<Words>,
}

/// Without a heap nothing is said that is not known when the program is compiled.
#[cfg(feature = "alloc")]
type Words = Box<str>;
#[cfg(not(feature = "alloc"))]
type Words = &'static str;

fn words(words: &Option<Words>) -> Option<&str> {
    #[cfg(feature = "alloc")]
    return words.as_deref();
    #[cfg(not(feature = "alloc"))]
    *words
}

impl Error {
    pub(crate) fn new(fail: Fail) -> Error {
        let (code, offset, message) = match fail {
            Fail::At(code, NOWHERE) => (Some(code), None, None),
            Fail::At(code, offset) => (Some(code), Some(offset), None),
            #[cfg(feature = "alloc")]
            Fail::Custom(message) => (None, None, Some(message.into_boxed_str())),
        };
        Error {
            code,
            offset,
            place: None,
            pointer: None,
            message,
        }
    }

    /// Adds line and column, counted from the text that the offset points into.
    pub(crate) fn in_text(mut self, text: &[u8]) -> Error {
        if let Some(offset) = self.offset {
            let before = &text[..offset.min(text.len())];
            let line = 1 + before.iter().filter(|&&b| b == b'\n').count();
            let start = before
                .iter()
                .rposition(|&b| b == b'\n')
                .map_or(0, |at| at + 1);
            self.place = Some((line, before.len() - start + 1));
        }
        self
    }

    /// The same when the text is not at hand: line and column are known.
    #[cfg(feature = "std")]
    pub(crate) fn at_place(mut self, line: usize, column: usize) -> Error {
        self.place = Some((line, column));
        self
    }

    #[cfg(feature = "alloc")]
    pub(crate) fn with_pointer(mut self, pointer: String) -> Error {
        self.pointer = Some(pointer.into_boxed_str());
        self
    }

    /// Forgets the place: it is one in a text that the caller never had. The pointer stays.
    #[cfg(feature = "rules")]
    pub(crate) fn without_place(mut self) -> Error {
        self.offset = None;
        self.place = None;
        self
    }

    #[cfg(feature = "alloc")]
    pub(crate) fn or_offset(mut self, offset: usize) -> Error {
        self.offset.get_or_insert(offset);
        self
    }

    #[cfg(feature = "std")]
    pub(crate) fn io(error: &std::io::Error) -> Error {
        let mut made = Error::new(Fail::new(Code::Io));
        made.message = Some(error.to_string().into_boxed_str());
        made
    }

    /// Bytes before the place in the input, when there was an input.
    pub fn offset(&self) -> Option<usize> {
        self.offset
    }

    /// Line in the text, from 1.
    pub fn line(&self) -> Option<usize> {
        self.place.map(|(line, _)| line)
    }

    /// Byte in the line, from 1.
    pub fn column(&self) -> Option<usize> {
        self.place.map(|(_, column)| column)
    }

    /// JSON Pointer (RFC 6901) to the value being written when it failed, where one is known.
    pub fn pointer(&self) -> Option<&str> {
        words(&self.pointer)
    }

    /// The reason alone, without the place.
    pub fn reason(&self) -> &str {
        match (&self.message, self.code) {
            (Some(message), _) => message,
            (None, Some(code)) => code.reason(),
            (None, None) => "unknown failure",
        }
    }

    fn code_is(&self, wanted: impl Fn(Code) -> bool) -> bool {
        self.code.is_some_and(wanted)
    }

    /// The input is not well-formed JSON or CBOR (this includes bad UTF-8 and lone surrogates).
    pub fn is_syntax(&self) -> bool {
        use Code::*;
        #[cfg(feature = "std")]
        if self.code_is(|code| code == CborEndless) {
            return true;
        }
        self.code_is(|code| {
            matches!(
                code,
                Empty | End | Value | Key | Colon | CommaOrEnd | Trailing | Escape | Control
            ) || matches!(
                code,
                NumberSyntax | Utf8 | Surrogate | CborHead | CborChunk | CborBreak | CborBignum
            )
        })
    }

    /// Two members of one object have the same key.
    pub fn is_duplicate_key(&self) -> bool {
        self.code_is(|code| code == Code::Duplicate)
    }

    /// NaN, infinity, an integer that the policy refuses, or a number that no double can hold.
    pub fn is_number(&self) -> bool {
        self.code_is(|code| {
            matches!(
                code,
                Code::NotFinite | Code::DagFloat | Code::Integer | Code::WideInteger | Code::Range
            )
        })
    }

    /// Containers nest deeper than the limit.
    pub fn is_depth(&self) -> bool {
        self.code_is(|code| code == Code::Depth)
    }

    /// The input is well-formed up to the offset, but not in canonical form.
    pub fn is_not_canonical(&self) -> bool {
        use Code::*;
        self.code_is(|code| {
            matches!(
                code,
                Whitespace | KeyOrder | NumberForm | NoNumberForm | EscapeForm | LongHead
            ) || matches!(
                code,
                Indefinite | FloatForm | NanForm | NarrowFloat | NegativeZero | BignumForm
            )
        })
    }

    /// The fixed buffer is too small.
    pub fn is_buffer_full(&self) -> bool {
        self.code_is(|code| code == Code::Full)
    }

    /// The fixed scratch cannot hold the entries that are out of order: see [`json::FixedEncoder`](crate::json::FixedEncoder).
    pub fn is_scratch_full(&self) -> bool {
        self.code_is(|code| code == Code::Scratch)
    }

    /// Keys of a large container came out of order when its beginning had been written already: see
    /// [`json::canonicalize_once`](crate::json::canonicalize_once).
    #[cfg(feature = "std")]
    pub fn is_late_disorder(&self) -> bool {
        self.code_is(|code| code == Code::Late)
    }

    /// The input ends too early.
    #[cfg(feature = "std")]
    pub(crate) fn is_end(&self) -> bool {
        self.code_is(|code| code == Code::End)
    }

    /// The value has no form here, does not fit the wanted type, or its own serde implementation refused.
    pub fn is_data(&self) -> bool {
        use Code::*;
        self.code.is_none()
            || self.code_is(|code| {
                #[cfg(feature = "ciborium")]
                if code == NoValue {
                    return true;
                }
                #[cfg(not(feature = "alloc"))]
                if matches!(code, Refused | NoHeap) {
                    return true;
                }
                #[cfg(any(feature = "std", feature = "digest", feature = "blake3"))]
                if code == Unstable {
                    return true;
                }
                matches!(
                    code,
                    KeyType | Misuse | Display | NoJson | Unread | TooLarge
                ) || matches!(code, DagKey | DagTag | DagSimple)
            })
    }

    /// The writer, or what is read from, failed.
    pub fn is_io(&self) -> bool {
        #[cfg(feature = "std")]
        return self.code_is(|code| code == Code::Io);
        #[cfg(not(feature = "std"))]
        false
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())?;
        let pointer = self.pointer().filter(|pointer| !pointer.is_empty());
        match (self.place, self.offset, pointer) {
            (Some((line, column)), Some(at), Some(pointer)) => {
                write!(
                    f,
                    " at line {line}, column {column} (offset {at}, in {pointer})"
                )
            }
            (Some((line, column)), Some(at), None) => {
                write!(f, " at line {line}, column {column} (offset {at})")
            }
            (_, Some(at), _) => write!(f, " at offset {at}"),
            (_, None, Some(pointer)) => write!(f, " at {pointer}"),
            (_, None, None) => Ok(()),
        }
    }
}

impl core::error::Error for Error {}

#[cfg(feature = "std")]
impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Error {
        Error::io(&error)
    }
}
