//! Keys of serde maps: everything that has one obvious text form, written as a JSON string.

use core::fmt;

use serde::ser::{self, Impossible, Serialize};

use crate::buf::Buf;
use crate::error::{Code, Fail};
use crate::json::{Emitter, Integers, number, string};
use crate::order::Members;

/// Writes one key, with the comma before it and the colon behind it, and takes note of it.
pub(crate) struct KeySerializer<'c, 'a, B> {
    pub(crate) emitter: &'c mut Emitter<'a, B>,
    pub(crate) members: &'c mut Members,
}

impl<B: Buf> KeySerializer<'_, '_, B> {
    /// Writes what `contents` writes as a string; it tells whether that took escapes.
    fn quoted(self, contents: impl FnOnce(&mut B) -> Result<bool, Fail>) -> Result<(), Fail> {
        let start = self.emitter.begin_entry(self.members)?;
        let out = &mut *self.emitter.out;
        out.push(b'"')?;
        let escaped = contents(out)?;
        out.push(b'"')?;
        self.emitter.note_key(self.members, start, escaped)
    }

    /// Keys are strings, so integers of any width keep all their digits.
    fn integer(self, value: u128, negative: bool) -> Result<(), Fail> {
        self.quoted(|out| number::write_u128(out, value, negative).map(|()| false))
    }

    fn signed(self, value: i128) -> Result<(), Fail> {
        self.integer(value.unsigned_abs(), value < 0)
    }
}

const NOT_A_KEY: Fail = Fail::new(Code::KeyType);

impl<B: Buf> ser::Serializer for KeySerializer<'_, '_, B> {
    type Ok = ();
    type Error = Fail;
    type SerializeSeq = Impossible<(), Fail>;
    type SerializeTuple = Impossible<(), Fail>;
    type SerializeTupleStruct = Impossible<(), Fail>;
    type SerializeTupleVariant = Impossible<(), Fail>;
    type SerializeMap = Impossible<(), Fail>;
    type SerializeStruct = Impossible<(), Fail>;
    type SerializeStructVariant = Impossible<(), Fail>;

    fn serialize_bool(self, value: bool) -> Result<(), Fail> {
        self.serialize_str(if value { "true" } else { "false" })
    }

    fn serialize_i8(self, value: i8) -> Result<(), Fail> {
        self.signed(i128::from(value))
    }

    fn serialize_i16(self, value: i16) -> Result<(), Fail> {
        self.signed(i128::from(value))
    }

    fn serialize_i32(self, value: i32) -> Result<(), Fail> {
        self.signed(i128::from(value))
    }

    fn serialize_i64(self, value: i64) -> Result<(), Fail> {
        self.signed(i128::from(value))
    }

    fn serialize_i128(self, value: i128) -> Result<(), Fail> {
        self.signed(value)
    }

    fn serialize_u8(self, value: u8) -> Result<(), Fail> {
        self.integer(u128::from(value), false)
    }

    fn serialize_u16(self, value: u16) -> Result<(), Fail> {
        self.integer(u128::from(value), false)
    }

    fn serialize_u32(self, value: u32) -> Result<(), Fail> {
        self.integer(u128::from(value), false)
    }

    fn serialize_u64(self, value: u64) -> Result<(), Fail> {
        self.integer(u128::from(value), false)
    }

    fn serialize_u128(self, value: u128) -> Result<(), Fail> {
        self.integer(value, false)
    }

    fn serialize_f32(self, value: f32) -> Result<(), Fail> {
        self.serialize_f64(f64::from(value))
    }

    fn serialize_f64(self, value: f64) -> Result<(), Fail> {
        self.quoted(|out| number::write_f64(out, value, Integers::Error).map(|()| false))
    }

    fn serialize_char(self, value: char) -> Result<(), Fail> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), Fail> {
        self.emitter.text_key(self.members, value)
    }

    fn serialize_bytes(self, _value: &[u8]) -> Result<(), Fail> {
        Err(NOT_A_KEY)
    }

    fn serialize_none(self) -> Result<(), Fail> {
        Err(NOT_A_KEY)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Fail> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Fail> {
        Err(NOT_A_KEY)
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), Fail> {
        Err(NOT_A_KEY)
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<(), Fail> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<(), Fail> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _value: &T,
    ) -> Result<(), Fail> {
        Err(NOT_A_KEY)
    }

    fn serialize_seq(self, _len: Option<usize>) -> Result<Self::SerializeSeq, Fail> {
        Err(NOT_A_KEY)
    }

    fn serialize_tuple(self, _len: usize) -> Result<Self::SerializeTuple, Fail> {
        Err(NOT_A_KEY)
    }

    fn serialize_tuple_struct(
        self,
        _name: &'static str,
        _len: usize,
    ) -> Result<Self::SerializeTupleStruct, Fail> {
        Err(NOT_A_KEY)
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _len: usize,
    ) -> Result<Self::SerializeTupleVariant, Fail> {
        Err(NOT_A_KEY)
    }

    fn serialize_map(self, _len: Option<usize>) -> Result<Self::SerializeMap, Fail> {
        Err(NOT_A_KEY)
    }

    fn serialize_struct(
        self,
        _name: &'static str,
        _len: usize,
    ) -> Result<Self::SerializeStruct, Fail> {
        Err(NOT_A_KEY)
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _len: usize,
    ) -> Result<Self::SerializeStructVariant, Fail> {
        Err(NOT_A_KEY)
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<(), Fail> {
        self.quoted(|out| WriteEscaped::new(out).display(value))
    }
}

/// Lets `Display` write straight into a JSON string.
pub(crate) struct WriteEscaped<'a, B> {
    out: &'a mut B,
    escaped: bool,
    failed: Option<Fail>,
}

impl<'a, B: Buf> WriteEscaped<'a, B> {
    pub(crate) fn new(out: &'a mut B) -> Self {
        WriteEscaped {
            out,
            escaped: false,
            failed: None,
        }
    }

    /// True if any escape was needed.
    pub(crate) fn display<T: fmt::Display + ?Sized>(mut self, value: &T) -> Result<bool, Fail> {
        let written = fmt::write(&mut self, format_args!("{value}"));
        match (written, self.failed) {
            (_, Some(fail)) => Err(fail),
            (Err(_), None) => Err(ser::Error::custom("a Display implementation failed")),
            (Ok(()), None) => Ok(self.escaped),
        }
    }
}

impl<B: Buf> fmt::Write for WriteEscaped<'_, B> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        match string::write_contents(self.out, text.as_bytes()) {
            Ok(escaped) => {
                self.escaped |= escaped;
                Ok(())
            }
            Err(fail) => {
                self.failed = Some(fail);
                Err(fmt::Error)
            }
        }
    }
}
