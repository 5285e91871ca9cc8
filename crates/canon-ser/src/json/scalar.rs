//! A serializer for places where only a few scalars may stand.

use core::fmt;

use serde::ser::{Impossible, Serialize, Serializer};

use crate::error::{Code, Fail};

/// What may stand there.
pub(crate) trait Take: Sized {
    /// What everything else is.
    const REFUSAL: Code;

    fn text(self, text: &str) -> Result<(), Fail>;

    fn integer(self, _magnitude: u128, _negative: bool) -> Result<(), Fail> {
        Err(Fail::new(Self::REFUSAL))
    }

    fn float(self, _value: f64) -> Result<(), Fail> {
        Err(Fail::new(Self::REFUSAL))
    }

    fn boolean(self, _value: bool) -> Result<(), Fail> {
        Err(Fail::new(Self::REFUSAL))
    }

    fn display<T: fmt::Display + ?Sized>(self, _value: &T) -> Result<(), Fail> {
        Err(Fail::new(Self::REFUSAL))
    }
}

/// The serializer.
pub(crate) struct Scalar<T>(pub(crate) T);

macro_rules! unsigned {
    ($($method:ident($type:ty);)*) => {$(
        fn $method(self, value: $type) -> Result<(), Fail> {
            self.0.integer(value.into(), false)
        }
    )*};
}

macro_rules! signed {
    ($($method:ident($type:ty);)*) => {$(
        fn $method(self, value: $type) -> Result<(), Fail> {
            self.0.integer(value.unsigned_abs().into(), value < 0)
        }
    )*};
}

macro_rules! refuse {
    ($($method:ident$(<$generic:ident>)?($($argument:ty),*) -> $made:ty;)*) => {$(
        fn $method$(<$generic: Serialize + ?Sized>)?(self, $(_: $argument),*) -> Result<$made, Fail> {
            Err(Fail::new(T::REFUSAL))
        }
    )*};
}

impl<T: Take> Serializer for Scalar<T> {
    type Ok = ();
    type Error = Fail;
    type SerializeSeq = Impossible<(), Fail>;
    type SerializeTuple = Impossible<(), Fail>;
    type SerializeTupleStruct = Impossible<(), Fail>;
    type SerializeTupleVariant = Impossible<(), Fail>;
    type SerializeMap = Impossible<(), Fail>;
    type SerializeStruct = Impossible<(), Fail>;
    type SerializeStructVariant = Impossible<(), Fail>;

    #[inline(always)]
    fn serialize_str(self, value: &str) -> Result<(), Fail> {
        self.0.text(value)
    }

    fn serialize_char(self, value: char) -> Result<(), Fail> {
        self.0.text(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<(), Fail> {
        self.0.text(variant)
    }

    unsigned! {
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_u128(u128);
    }

    signed! {
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_i128(i128);
    }

    fn serialize_f32(self, value: f32) -> Result<(), Fail> {
        self.0.float(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<(), Fail> {
        self.0.float(value)
    }

    fn serialize_bool(self, value: bool) -> Result<(), Fail> {
        self.0.boolean(value)
    }

    fn collect_str<V: fmt::Display + ?Sized>(self, value: &V) -> Result<(), Fail> {
        self.0.display(value)
    }

    #[inline]
    fn serialize_some<V: Serialize + ?Sized>(self, value: &V) -> Result<(), Fail> {
        value.serialize(self)
    }

    #[inline]
    fn serialize_newtype_struct<V: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &V,
    ) -> Result<(), Fail> {
        value.serialize(self)
    }

    refuse! {
        serialize_bytes(&[u8]) -> ();
        serialize_none() -> ();
        serialize_unit() -> ();
        serialize_unit_struct(&'static str) -> ();
        serialize_newtype_variant<V>(&'static str, u32, &'static str, &V) -> ();
        serialize_seq(Option<usize>) -> Self::SerializeSeq;
        serialize_tuple(usize) -> Self::SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant;
        serialize_map(Option<usize>) -> Self::SerializeMap;
        serialize_struct(&'static str, usize) -> Self::SerializeStruct;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant;
    }
}
