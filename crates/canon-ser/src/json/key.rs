//! Keys of serde maps: everything that has one obvious text form, written as a JSON string.

use core::fmt;

use crate::buf::Buf;
use crate::emit::{Format as _, write_display};
use crate::error::{Code, Fail};
use crate::json::emit::Emitter;
use crate::json::scalar::Take;
use crate::json::{Integers, Options, number, string};
use crate::order::Members;

/// Writes one key, with the comma before it and the colon behind it, and takes note of it.
pub(crate) struct Key<'c, 'a, B> {
    pub(crate) emitter: &'c mut Emitter<'a, B>,
    pub(crate) members: &'c mut Members,
}

impl<B: Buf> Key<'_, '_, B> {
    /// Writes what `contents` writes as a string; it tells whether that took escapes.
    fn quoted(self, contents: impl FnOnce(&mut B) -> Result<bool, Fail>) -> Result<(), Fail> {
        let start = self.emitter.begin_entry(self.members)?;
        let out = &mut *self.emitter.out;
        out.push(b'"')?;
        let escaped = contents(out)?;
        out.push(b'"')?;
        self.emitter.note_key(self.members, start, escaped)
    }
}

impl<B: Buf> Take for Key<'_, '_, B> {
    const REFUSAL: Code = Code::KeyType;

    #[inline(always)]
    fn text(self, text: &str) -> Result<(), Fail> {
        Options::text_key(self.emitter, self.members, text)
    }

    /// Keys are strings, so integers of any width keep all their digits.
    fn integer(self, magnitude: u128, negative: bool) -> Result<(), Fail> {
        self.quoted(|out| number::write_u128(out, magnitude, negative).map(|()| false))
    }

    fn float(self, value: f64) -> Result<(), Fail> {
        self.quoted(|out| number::write_f64(out, value, Integers::Error).map(|()| false))
    }

    fn boolean(self, value: bool) -> Result<(), Fail> {
        self.text(if value { "true" } else { "false" })
    }

    fn display<T: fmt::Display + ?Sized>(self, value: &T) -> Result<(), Fail> {
        self.quoted(|out| write_contents(out, value))
    }
}

/// Writes what a value displays inside a JSON string. True if any escape was needed.
pub(crate) fn write_contents<B: Buf, T: fmt::Display + ?Sized>(
    out: &mut B,
    value: &T,
) -> Result<bool, Fail> {
    let mut escaped = false;
    write_display(value, |text| {
        escaped |= string::write_contents(out, text)?;
        Ok(())
    })?;
    Ok(escaped)
}
