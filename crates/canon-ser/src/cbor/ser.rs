//! The serde serializer that writes deterministic CBOR.

use serde::ser::{self, Serialize};

use crate::buf::Buf;
use crate::cbor::emit::{Container, Emitter};
use crate::cbor::head::{self, ARRAY, BYTES, FALSE, MAP, NULL, TRUE, write_head};
use crate::cbor::json;
use crate::error::{Code, Fail};
use crate::json::private::{self, OnlyText, Token};
use crate::order::Members;

impl<'a, B: Buf> Emitter<'a, B> {
    fn open_variant(&mut self, variant: &'static str) -> Result<(), Fail> {
        self.open(MAP, Some(1))?;
        self.text(variant.as_bytes())
    }

    #[inline(always)]
    fn open_object<'c>(&'c mut self, len: Option<usize>) -> Result<Map<'c, 'a, B>, Fail> {
        let container = self.open(MAP, len.map(|len| len as u64))?;
        let members = Members::new(self.scratch, self.out.len()).announce(len);
        Ok(Map {
            emitter: self,
            container,
            members,
            key_waits: false,
            in_variant: false,
            token: None,
        })
    }
}

impl<'c, 'a, B: Buf> ser::Serializer for &'c mut Emitter<'a, B> {
    type Ok = ();
    type Error = Fail;
    type SerializeSeq = Array<'c, 'a, B>;
    type SerializeTuple = Array<'c, 'a, B>;
    type SerializeTupleStruct = Array<'c, 'a, B>;
    type SerializeTupleVariant = Array<'c, 'a, B>;
    type SerializeMap = Map<'c, 'a, B>;
    type SerializeStruct = Map<'c, 'a, B>;
    type SerializeStructVariant = Map<'c, 'a, B>;

    #[inline]
    fn serialize_bool(self, value: bool) -> Result<(), Fail> {
        self.out.push(if value { TRUE } else { FALSE })
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
        let (major, argument) = if value < 0 {
            (head::NEGATIVE, !value)
        } else {
            (head::UNSIGNED, value)
        };
        write_head(self.out, major, argument as u64)
    }

    fn serialize_i128(self, value: i128) -> Result<(), Fail> {
        head::write_integer(self.out, value.unsigned_abs(), value < 0)
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
        write_head(self.out, head::UNSIGNED, value)
    }

    fn serialize_u128(self, value: u128) -> Result<(), Fail> {
        head::write_integer(self.out, value, false)
    }

    #[inline]
    fn serialize_f32(self, value: f32) -> Result<(), Fail> {
        self.serialize_f64(f64::from(value))
    }

    #[inline]
    fn serialize_f64(self, value: f64) -> Result<(), Fail> {
        head::write_float(self.out, value)
    }

    fn serialize_char(self, value: char) -> Result<(), Fail> {
        self.text(value.encode_utf8(&mut [0; 4]).as_bytes())
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), Fail> {
        self.text(value.as_bytes())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Fail> {
        write_head(self.out, BYTES, value.len() as u64)?;
        self.out.extend(value)
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
        self.out.push(NULL)
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
        self.text(variant.as_bytes())
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
        self.depth -= 1;
        Ok(())
    }

    #[inline(always)]
    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, Fail> {
        let container = self.open(ARRAY, len.map(|len| len as u64))?;
        Ok(Array {
            emitter: self,
            container,
            count: 0,
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
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, Fail> {
        self.open_variant(variant)?;
        let array = self.serialize_seq(Some(len))?;
        Ok(Array {
            in_variant: true,
            ..array
        })
    }

    #[inline(always)]
    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, Fail> {
        self.open_object(len)
    }

    #[inline(always)]
    fn serialize_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStruct, Fail> {
        if let Some(token) = private::token(name) {
            let container = Container::none();
            let members = Members::new(self.scratch, self.out.len());
            let token = Some(token);
            return Ok(Map {
                emitter: self,
                container,
                members,
                key_waits: true,
                in_variant: false,
                token,
            });
        }
        self.open_object(Some(len))
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, Fail> {
        self.open_variant(variant)?;
        let map = self.open_object(Some(len))?;
        Ok(Map {
            in_variant: true,
            ..map
        })
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// An open array.
pub(crate) struct Array<'c, 'a, B> {
    emitter: &'c mut Emitter<'a, B>,
    container: Container,
    count: u64,
    in_variant: bool,
}

impl<B: Buf> Array<'_, '_, B> {
    #[inline]
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fail> {
        self.count += 1;
        value.serialize(&mut *self.emitter)
    }

    #[inline(always)]
    fn finish(self) -> Result<(), Fail> {
        self.emitter.close(&self.container, self.count)?;
        self.emitter.depth -= usize::from(self.in_variant);
        Ok(())
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

/// An open map.
pub(crate) struct Map<'c, 'a, B> {
    emitter: &'c mut Emitter<'a, B>,
    container: Container,
    members: Members,
    /// A key was written and its value was not (for a private struct: its one field was not).
    key_waits: bool,
    in_variant: bool,
    token: Option<Token>,
}

impl<B: Buf> Map<'_, '_, B> {
    #[inline]
    fn field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Fail> {
        if let Some(token) = self.token {
            if !core::mem::take(&mut self.key_waits) {
                return Err(Fail::new(Code::Misuse));
            }
            let emitter = &mut *self.emitter;
            return value.serialize(OnlyText(|text: &str| {
                json::write_private(emitter, token, text)
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
        if self.token.is_some() {
            return Ok(());
        }
        self.emitter.close_map(&self.container, &self.members)?;
        self.emitter.depth -= usize::from(self.in_variant);
        Ok(())
    }
}

impl<B: Buf> ser::SerializeMap for Map<'_, '_, B> {
    type Ok = ();
    type Error = Fail;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Fail> {
        if self.key_waits {
            return Err(Fail::new(Code::Misuse));
        }
        let start = self.emitter.out.len();
        key.serialize(&mut *self.emitter)?;
        self.key_waits = true;
        self.emitter.note_key(&mut self.members, start)
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

macro_rules! struct_serializers {
    ($($name:ident),*) => {$(
        impl<B: Buf> ser::$name for Map<'_, '_, B> {
            type Ok = ();
            type Error = Fail;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Fail> {
                self.field(key, value)
            }

            #[inline(always)]
            fn end(self) -> Result<(), Fail> {
                self.finish()
            }
        }
    )*};
}

struct_serializers!(SerializeStruct, SerializeStructVariant);
