//! The serde serializer that writes canonical JSON.

use core::fmt;

use serde::ser::{self, Serialize};

use crate::buf::Buf;
use crate::error::{Code, Fail};
use crate::json::emit::Emitter;
use crate::json::key::{KeySerializer, WriteEscaped};
use crate::json::{number, private, string};
use crate::order::Members;

impl<'c, 'a, B: Buf> ser::Serializer for &'c mut Emitter<'a, B> {
    type Ok = ();
    type Error = Fail;
    type SerializeSeq = Array<'c, 'a, B>;
    type SerializeTuple = Array<'c, 'a, B>;
    type SerializeTupleStruct = Array<'c, 'a, B>;
    type SerializeTupleVariant = Array<'c, 'a, B>;
    type SerializeMap = Object<'c, 'a, B>;
    type SerializeStruct = Object<'c, 'a, B>;
    type SerializeStructVariant = Object<'c, 'a, B>;

    #[inline]
    fn serialize_bool(self, value: bool) -> Result<(), Fail> {
        self.out.extend(if value { b"true" } else { b"false" })
    }

    #[inline]
    fn serialize_i8(self, value: i8) -> Result<(), Fail> {
        self.serialize_i64(i64::from(value))
    }

    #[inline]
    fn serialize_i16(self, value: i16) -> Result<(), Fail> {
        self.serialize_i64(i64::from(value))
    }

    #[inline]
    fn serialize_i32(self, value: i32) -> Result<(), Fail> {
        self.serialize_i64(i64::from(value))
    }

    #[inline]
    fn serialize_i64(self, value: i64) -> Result<(), Fail> {
        self.integer(value.unsigned_abs(), value < 0)
    }

    fn serialize_i128(self, value: i128) -> Result<(), Fail> {
        number::write_wide(
            self.out,
            value.unsigned_abs(),
            value < 0,
            self.options.integers,
        )
    }

    #[inline]
    fn serialize_u8(self, value: u8) -> Result<(), Fail> {
        self.serialize_u64(u64::from(value))
    }

    #[inline]
    fn serialize_u16(self, value: u16) -> Result<(), Fail> {
        self.serialize_u64(u64::from(value))
    }

    #[inline]
    fn serialize_u32(self, value: u32) -> Result<(), Fail> {
        self.serialize_u64(u64::from(value))
    }

    #[inline]
    fn serialize_u64(self, value: u64) -> Result<(), Fail> {
        self.integer(value, false)
    }

    fn serialize_u128(self, value: u128) -> Result<(), Fail> {
        number::write_wide(self.out, value, false, self.options.integers)
    }

    #[inline]
    fn serialize_f32(self, value: f32) -> Result<(), Fail> {
        self.serialize_f64(f64::from(value))
    }

    #[inline]
    fn serialize_f64(self, value: f64) -> Result<(), Fail> {
        number::write_f64(self.out, value, self.options.integers)
    }

    fn serialize_char(self, value: char) -> Result<(), Fail> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), Fail> {
        string::write(self.out, value.as_bytes()).map(drop)
    }

    /// As serde_json does: an array of numbers.
    fn serialize_bytes(self, value: &[u8]) -> Result<(), Fail> {
        use ser::SerializeSeq as _;
        let mut array = self.serialize_seq(Some(value.len()))?;
        value
            .iter()
            .try_for_each(|byte| array.serialize_element(byte))?;
        ser::SerializeSeq::end(array)
    }

    #[inline]
    fn serialize_none(self) -> Result<(), Fail> {
        self.serialize_unit()
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Fail> {
        value.serialize(self)
    }

    #[inline]
    fn serialize_unit(self) -> Result<(), Fail> {
        self.out.extend(b"null")
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), Fail> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<(), Fail> {
        self.serialize_str(variant)
    }

    #[inline]
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
        variant: &'static str,
        value: &T,
    ) -> Result<(), Fail> {
        self.open_variant(variant)?;
        value.serialize(&mut *self)?;
        self.close(b'}')
    }

    #[inline(always)]
    fn serialize_seq(self, _len: Option<usize>) -> Result<Self::SerializeSeq, Fail> {
        self.open(b'[')?;
        Ok(Array {
            emitter: self,
            is_empty: true,
            in_variant: false,
        })
    }

    #[inline]
    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, Fail> {
        self.serialize_seq(Some(len))
    }

    #[inline]
    fn serialize_tuple_struct(
        self,
        _name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleStruct, Fail> {
        self.serialize_seq(Some(len))
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Self::SerializeTupleVariant, Fail> {
        self.open_variant(variant)?;
        self.open(b'[')?;
        Ok(Array {
            emitter: self,
            is_empty: true,
            in_variant: true,
        })
    }

    #[inline(always)]
    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, Fail> {
        let members = self.open_object()?.announce(len);
        Ok(Object {
            emitter: self,
            members,
            shape: Shape::Plain,
            key_waits: false,
        })
    }

    #[inline(always)]
    fn serialize_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStruct, Fail> {
        if let Some(token) = private::token(name) {
            let members = Members::new(self.scratch, self.out.len());
            return Ok(Object {
                emitter: self,
                members,
                shape: Shape::Private(token),
                key_waits: true,
            });
        }
        self.serialize_map(Some(len))
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Self::SerializeStructVariant, Fail> {
        self.open_variant(variant)?;
        let members = self.open_object()?;
        Ok(Object {
            emitter: self,
            members,
            shape: Shape::Variant,
            key_waits: false,
        })
    }

    /// Formats straight into the output.
    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<(), Fail> {
        self.out.push(b'"')?;
        WriteEscaped::new(self.out).display(value)?;
        self.out.push(b'"')
    }

    fn is_human_readable(&self) -> bool {
        true
    }
}

/// An open array.
pub(crate) struct Array<'c, 'a, B> {
    emitter: &'c mut Emitter<'a, B>,
    is_empty: bool,
    in_variant: bool,
}

impl<B: Buf> Array<'_, '_, B> {
    #[inline]
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fail> {
        if self.is_empty {
            self.is_empty = false;
        } else {
            self.emitter.out.push(b',')?;
        }
        value.serialize(&mut *self.emitter)
    }

    #[inline(always)]
    fn finish(self) -> Result<(), Fail> {
        self.emitter.close(b']')?;
        if self.in_variant {
            self.emitter.close(b'}')
        } else {
            Ok(())
        }
    }
}

macro_rules! array_serializers {
    ($($name:ident $method:ident),*) => {$(
        impl<B: Buf> ser::$name for Array<'_, '_, B> {
            type Ok = ();
            type Error = Fail;

            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fail> {
                self.element(value)
            }

            #[inline(always)]
            fn end(self) -> Result<(), Fail> {
                self.finish()
            }
        }
    )*};
}

array_serializers!(
    SerializeSeq serialize_element,
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field
);

/// What an [`Object`] really is.
#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Plain,
    /// `{"Variant":{...}}`
    Variant,
    /// One of serde_json's private structs, which stands for a number or for raw text.
    Private(private::Token),
}

/// An open object.
pub(crate) struct Object<'c, 'a, B> {
    emitter: &'c mut Emitter<'a, B>,
    members: Members,
    shape: Shape,
    /// A key was written and its value was not (for a private struct: its one field was not).
    key_waits: bool,
}

impl<B: Buf> Object<'_, '_, B> {
    #[inline]
    fn field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Fail> {
        if let Shape::Private(token) = self.shape {
            if !core::mem::take(&mut self.key_waits) {
                return Err(Fail::new(Code::Misuse));
            }
            let emitter = &mut *self.emitter;
            return value.serialize(private::OnlyText(|text: &str| {
                private::write(emitter, token, text)
            }));
        }
        self.emitter.text_key(&mut self.members, key)?;
        value.serialize(&mut *self.emitter)
    }

    #[inline(always)]
    fn finish(self) -> Result<(), Fail> {
        if self.key_waits {
            return Err(Fail::new(Code::Misuse));
        }
        match self.shape {
            Shape::Plain => self.emitter.close_object(&self.members),
            Shape::Private(_) => Ok(()),
            Shape::Variant => {
                self.emitter.close_object(&self.members)?;
                self.emitter.close(b'}')
            }
        }
    }
}

impl<B: Buf> ser::SerializeMap for Object<'_, '_, B> {
    type Ok = ();
    type Error = Fail;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Fail> {
        if self.key_waits {
            return Err(Fail::new(Code::Misuse));
        }
        self.key_waits = true;
        key.serialize(KeySerializer {
            emitter: self.emitter,
            members: &mut self.members,
        })
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fail> {
        if !core::mem::take(&mut self.key_waits) {
            return Err(Fail::new(Code::Misuse));
        }
        value.serialize(&mut *self.emitter)
    }

    #[inline(always)]
    fn end(self) -> Result<(), Fail> {
        self.finish()
    }
}

impl<B: Buf> ser::SerializeStruct for Object<'_, '_, B> {
    type Ok = ();
    type Error = Fail;

    #[inline]
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Fail> {
        self.field(key, value)
    }

    #[inline(always)]
    fn end(self) -> Result<(), Fail> {
        self.finish()
    }
}

impl<B: Buf> ser::SerializeStructVariant for Object<'_, '_, B> {
    type Ok = ();
    type Error = Fail;

    #[inline]
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Fail> {
        self.field(key, value)
    }

    #[inline(always)]
    fn end(self) -> Result<(), Fail> {
        self.finish()
    }
}
