//! The one serde serializer behind all formats.

use core::fmt;

use serde::ser::{self, Serialize};

use crate::buf::Buf;
#[cfg(feature = "alloc")]
use crate::buf::Growing;
use crate::emit::{Emitter, Format};
use crate::error::{Code, Fail};
use crate::json::private::{self, OnlyText, Token};
use crate::json::scalar::Scalar;
#[cfg(feature = "alloc")]
use crate::order::Usual;
use crate::order::{KeyRules as _, Members};

impl<'c, 'a, B: Buf, F: Format> Emitter<'a, B, F> {
    fn open_variant(&mut self, variant: &'static str) -> Result<(), Fail> {
        self.deeper()?;
        self.options.open_variant(self.out, variant)
    }

    fn close_variant(&mut self) -> Result<(), Fail> {
        self.depth -= 1;
        self.options.close_variant(self.out)
    }

    #[inline(always)]
    fn array(
        &'c mut self,
        len: Option<usize>,
        in_variant: bool,
    ) -> Result<Array<'c, 'a, B, F>, Fail> {
        self.deeper()?;
        self.out.opened(F::HOLDS_UNKNOWN && len.is_none());
        let head = self.options.open_array(self.out, len)?;
        Ok(Array {
            emitter: self,
            head,
            len: 0,
            in_variant,
        })
    }

    #[inline(always)]
    fn map(&'c mut self, len: Option<usize>, shape: Shape) -> Result<Map<'c, 'a, B, F>, Fail> {
        self.deeper()?;
        self.out.opened(F::HOLDS_UNKNOWN && len.is_none());
        let head = self.options.open_map(self.out, len)?;
        let first = self.out.drained() + self.out.len();
        let members = Members::new(self.scratch, first).announce(len);
        Ok(Map {
            emitter: self,
            members,
            head,
            shape,
            key_waits: false,
        })
    }
}

/// Methods that pass a value on, converted.
macro_rules! convert {
    ($($method:ident($from:ty) => $to:ident($($into:tt)*);)*) => {$(
        #[inline]
        fn $method(self, value: $from) -> Result<(), Fail> {
            self.$to($($into)*(value))
        }
    )*};
}

impl<'c, 'a, B: Buf, F: Format> ser::Serializer for &'c mut Emitter<'a, B, F> {
    type Ok = ();
    type Error = Fail;
    type SerializeSeq = Array<'c, 'a, B, F>;
    type SerializeTuple = Array<'c, 'a, B, F>;
    type SerializeTupleStruct = Array<'c, 'a, B, F>;
    type SerializeTupleVariant = Array<'c, 'a, B, F>;
    type SerializeMap = Map<'c, 'a, B, F>;
    type SerializeStruct = Map<'c, 'a, B, F>;
    type SerializeStructVariant = Map<'c, 'a, B, F>;

    convert! {
        serialize_i8(i8) => serialize_i64(i64::from);
        serialize_i16(i16) => serialize_i64(i64::from);
        serialize_i32(i32) => serialize_i64(i64::from);
        serialize_u8(u8) => serialize_u64(u64::from);
        serialize_u16(u16) => serialize_u64(u64::from);
        serialize_u32(u32) => serialize_u64(u64::from);
        serialize_f32(f32) => serialize_f64(f64::from);
    }

    #[inline]
    fn serialize_bool(self, value: bool) -> Result<(), Fail> {
        self.options.boolean(self.out, value)
    }

    #[inline]
    fn serialize_i64(self, value: i64) -> Result<(), Fail> {
        self.options
            .integer(self.out, value.unsigned_abs(), value < 0)
    }

    fn serialize_i128(self, value: i128) -> Result<(), Fail> {
        self.options.wide(self.out, value.unsigned_abs(), value < 0)
    }

    #[inline]
    fn serialize_u64(self, value: u64) -> Result<(), Fail> {
        self.options.integer(self.out, value, false)
    }

    fn serialize_u128(self, value: u128) -> Result<(), Fail> {
        self.options.wide(self.out, value, false)
    }

    #[inline]
    fn serialize_f64(self, value: f64) -> Result<(), Fail> {
        self.options.float(self.out, value)
    }

    fn serialize_char(self, value: char) -> Result<(), Fail> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), Fail> {
        self.options.text(self.out, value)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Fail> {
        F::bytes(self, value)
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
        self.options.null(self.out)
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
        self.close_variant()
    }

    #[inline(always)]
    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, Fail> {
        self.array(len, false)
    }

    #[inline(always)]
    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, Fail> {
        self.array(Some(len), false)
    }

    #[inline(always)]
    fn serialize_tuple_struct(
        self,
        _name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleStruct, Fail> {
        self.array(Some(len), false)
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, Fail> {
        self.open_variant(variant)?;
        self.array(Some(len), true)
    }

    #[inline(always)]
    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, Fail> {
        self.map(len, Shape::Plain)
    }

    #[inline(always)]
    fn serialize_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStruct, Fail> {
        if let Some(token) = private::token(name) {
            return Ok(Map {
                members: Members::new(self.scratch, self.out.len()),
                emitter: self,
                head: F::NO_HEAD,
                shape: Shape::Private(token),
                key_waits: true,
            });
        }
        self.map(Some(len), Shape::Plain)
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, Fail> {
        self.open_variant(variant)?;
        self.map(Some(len), Shape::Variant)
    }

    /// Formats straight into the output.
    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<(), Fail> {
        self.options.display(self.out, value)
    }

    fn is_human_readable(&self) -> bool {
        F::HUMAN_READABLE
    }
}

/// An open array.
pub(crate) struct Array<'c, 'a, B, F: Format> {
    emitter: &'c mut Emitter<'a, B, F>,
    head: F::Head,
    len: usize,
    in_variant: bool,
}

impl<B: Buf, F: Format> Array<'_, '_, B, F> {
    #[inline]
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fail> {
        self.emitter.out.drain()?;
        if let (Some(separator), true) = (F::Keys::SEPARATOR, self.len > 0) {
            self.emitter.out.push(separator)?;
        }
        self.len += 1;
        value.serialize(&mut *self.emitter)
    }

    #[inline(always)]
    fn finish(self) -> Result<(), Fail> {
        let emitter = self.emitter;
        emitter.depth -= 1;
        emitter
            .options
            .close_array(emitter.out, self.head, self.len)?;
        emitter.out.closed();
        if self.in_variant {
            emitter.close_variant()?;
        }
        Ok(())
    }
}

/// What a [`Map`] really is.
#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Plain,
    /// `{"Variant":{...}}`
    Variant,
    /// One of serde_json's private structs, which stands for a number or for raw text.
    Private(Token),
}

/// An open object or map.
pub(crate) struct Map<'c, 'a, B, F: Format> {
    emitter: &'c mut Emitter<'a, B, F>,
    members: Members,
    head: F::Head,
    shape: Shape,
    /// A key was written and its value was not (for a private struct: its one field was not).
    key_waits: bool,
}

impl<B: Buf, F: Format> Map<'_, '_, B, F> {
    #[inline(always)]
    fn field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Fail> {
        if let Shape::Private(token) = self.shape {
            if !core::mem::take(&mut self.key_waits) {
                return Err(Fail::new(Code::Misuse));
            }
            return private_field(self.emitter, token, value);
        }
        self.emitter.out.drain()?;
        F::text_key(self.emitter, &mut self.members, key)?;
        value.serialize(&mut *self.emitter)
    }

    #[inline(always)]
    fn finish(self) -> Result<(), Fail> {
        if self.key_waits {
            return Err(Fail::new(Code::Misuse));
        }
        if let Shape::Private(_) = self.shape {
            return Ok(());
        }
        let emitter = self.emitter;
        self.members
            .finish(emitter.options.keys(), emitter.out, emitter.scratch)?;
        emitter.depth -= 1;
        emitter
            .options
            .close_map(emitter.out, self.head, self.members.count())?;
        emitter.out.closed();
        if self.shape == Shape::Variant {
            emitter.close_variant()?;
        }
        Ok(())
    }
}

/// Writes what the one field of a private struct stands for.
#[cold]
fn private_field<B: Buf, F: Format, T: Serialize + ?Sized>(
    emitter: &mut Emitter<'_, B, F>,
    token: Token,
    value: &T,
) -> Result<(), Fail> {
    #[cfg(feature = "alloc")]
    if B::DRAINS {
        // The readers of text know places in the buffer, which must not move.
        let (mut out, mut scratch) = (Growing::new(), Usual::new());
        let mut aside = Emitter::new(&mut out, &mut scratch, emitter.options);
        aside.depth = emitter.depth;
        value.serialize(Scalar(OnlyText(|text: &str| {
            F::private(&mut aside, token, text)
        })))?;
        return emitter.out.extend(out.bytes());
    }
    value.serialize(Scalar(OnlyText(|text: &str| {
        F::private(emitter, token, text)
    })))
}

impl<B: Buf, F: Format> ser::SerializeMap for Map<'_, '_, B, F> {
    type Ok = ();
    type Error = Fail;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Fail> {
        if self.key_waits {
            return Err(Fail::new(Code::Misuse));
        }
        self.key_waits = true;
        self.emitter.out.drain()?;
        F::any_key(self.emitter, &mut self.members, key)
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fail> {
        if !core::mem::take(&mut self.key_waits) {
            return Err(Fail::new(Code::Misuse));
        }
        value.serialize(&mut *self.emitter)
    }

    #[inline]
    fn serialize_entry<K: Serialize + ?Sized, V: Serialize + ?Sized>(
        &mut self,
        key: &K,
        value: &V,
    ) -> Result<(), Fail> {
        if self.key_waits {
            return Err(Fail::new(Code::Misuse));
        }
        self.emitter.out.drain()?;
        F::any_key(self.emitter, &mut self.members, key)?;
        value.serialize(&mut *self.emitter)
    }

    #[inline(always)]
    fn end(self) -> Result<(), Fail> {
        self.finish()
    }
}

/// The other compound serializers are all alike.
macro_rules! compounds {
    ($($type:ident as $name:ident: $method:ident($($key:ident)?) => $own:ident;)*) => {$(
        impl<B: Buf, F: Format> ser::$name for $type<'_, '_, B, F> {
            type Ok = ();
            type Error = Fail;

            #[inline(always)]
            fn $method<T: Serialize + ?Sized>(&mut self, $($key: &'static str,)? value: &T) -> Result<(), Fail> {
                self.$own($($key,)? value)
            }

            #[inline(always)]
            fn end(self) -> Result<(), Fail> {
                self.finish()
            }
        }
    )*};
}

compounds! {
    Array as SerializeSeq: serialize_element() => element;
    Array as SerializeTuple: serialize_element() => element;
    Array as SerializeTupleStruct: serialize_field() => element;
    Array as SerializeTupleVariant: serialize_field() => element;
    Map as SerializeStruct: serialize_field(key) => field;
    Map as SerializeStructVariant: serialize_field(key) => field;
}
