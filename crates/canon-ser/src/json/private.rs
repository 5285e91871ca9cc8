//! serde_json's private structs: numbers kept as text (feature arbitrary_precision) and raw JSON text (`RawValue`).
//!
//! Both reach a foreign serializer as a struct with a reserved name and one string field. Written as such they would
//! corrupt the output; here the number is read as a number and the raw text is canonicalized in place.

use serde::ser::{self, Impossible, Serialize};

use crate::buf::Buf;
use crate::error::{Code, Fail};
use crate::json::number::{self, Literal};
use crate::json::ser::Emitter;
use crate::json::text;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Number,
    Raw,
}

/// The struct names are serde_json's wire contract with itself; they have not changed since they were introduced.
#[inline]
pub(crate) fn token(name: &str) -> Option<Token> {
    if !name.starts_with("$serde_json::private::") {
        return None;
    }
    match name {
        "$serde_json::private::Number" => Some(Token::Number),
        "$serde_json::private::RawValue" => Some(Token::Raw),
        _ => None,
    }
}

/// Takes the one field of a private struct: only a string will do.
pub(crate) struct TextSerializer<'c, 'a, B> {
    pub(crate) emitter: &'c mut Emitter<'a, B>,
    pub(crate) token: Token,
}

impl<B: Buf> TextSerializer<'_, '_, B> {
    fn write(self, value: &str) -> Result<(), Fail> {
        let Emitter { out, options, .. } = self.emitter;
        match self.token {
            Token::Number => {
                let literal = Literal::whole(value).ok_or(Fail::new(Code::NumberSyntax))?;
                number::write_foreign(*out, literal, options.integers)
            }
            // Offsets would count from the start of the fragment, so none is reported.
            Token::Raw => text::write_into(self.emitter, value).map_err(|fail| match fail {
                Fail::At(code, _) => Fail::new(code),
                custom => custom,
            }),
        }
    }
}

/// Implements [`ser::Serializer`] so that only strings are taken; the type has a method `write(self, &str)`.
macro_rules! only_strings {
    (@scalars $($method:ident $type:ty),*) => {$(
        fn $method(self, _value: $type) -> Result<(), Fail> {
            Err(Fail::new(Code::Misuse))
        }
    )*};
    (@compounds $($kind:ident $method:ident($($arg:ident: $type:ty),*)),*) => {$(
        fn $method(self, $($arg: $type),*) -> Result<Self::$kind, Fail> {
            Err(Fail::new(Code::Misuse))
        }
    )*};
    (impl<$($life:lifetime),*; B: Buf> for $name:ty) => {
        impl<$($life,)* B: Buf> ser::Serializer for $name {
            type Ok = ();
            type Error = Fail;
            type SerializeSeq = Impossible<(), Fail>;
            type SerializeTuple = Impossible<(), Fail>;
            type SerializeTupleStruct = Impossible<(), Fail>;
            type SerializeTupleVariant = Impossible<(), Fail>;
            type SerializeMap = Impossible<(), Fail>;
            type SerializeStruct = Impossible<(), Fail>;
            type SerializeStructVariant = Impossible<(), Fail>;

            fn serialize_str(self, value: &str) -> Result<(), Fail> {
                self.write(value)
            }

            fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Fail> {
                value.serialize(self)
            }

            fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Fail> {
                value.serialize(self)
            }

            fn serialize_newtype_variant<T: Serialize + ?Sized>(
                self,
                _name: &'static str,
                _index: u32,
                _variant: &'static str,
                _value: &T,
            ) -> Result<(), Fail> {
                Err(Fail::new(Code::Misuse))
            }

            fn serialize_none(self) -> Result<(), Fail> {
                Err(Fail::new(Code::Misuse))
            }

            fn serialize_unit(self) -> Result<(), Fail> {
                Err(Fail::new(Code::Misuse))
            }

            fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), Fail> {
                Err(Fail::new(Code::Misuse))
            }

            $crate::json::private::only_strings!(@scalars
                serialize_bool bool, serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64,
                serialize_i128 i128, serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64,
                serialize_u128 u128, serialize_f32 f32, serialize_f64 f64, serialize_char char,
                serialize_bytes &[u8], serialize_unit_struct &'static str);
            $crate::json::private::only_strings!(@compounds
                SerializeSeq serialize_seq(_len: Option<usize>),
                SerializeTuple serialize_tuple(_len: usize),
                SerializeTupleStruct serialize_tuple_struct(_name: &'static str, _len: usize),
                SerializeTupleVariant serialize_tuple_variant(
                    _name: &'static str, _index: u32, _variant: &'static str, _len: usize),
                SerializeMap serialize_map(_len: Option<usize>),
                SerializeStruct serialize_struct(_name: &'static str, _len: usize),
                SerializeStructVariant serialize_struct_variant(
                    _name: &'static str, _index: u32, _variant: &'static str, _len: usize));
        }
    };
}
pub(crate) use only_strings;

only_strings!(impl<'c, 'a; B: Buf> for TextSerializer<'c, 'a, B>);
