//! serde_json's private structs: numbers kept as text (feature arbitrary_precision) and raw JSON text (`RawValue`).
//!
//! Both reach a foreign serializer as a struct with a reserved name and one string field. Written as such they would
//! corrupt the output; here the number is read as a number and the raw text is canonicalized in place.

use serde::ser::{self, Impossible, Serialize};

use crate::buf::Buf;
use crate::error::{Code, Fail};
use crate::json::emit::Emitter;
use crate::json::number::{self, Literal};
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

/// Writes the JSON that the text of a private struct stands for.
pub(crate) fn write<B: Buf>(
    emitter: &mut Emitter<'_, B>,
    token: Token,
    text: &str,
) -> Result<(), Fail> {
    match token {
        Token::Number => {
            let literal = Literal::whole(text).ok_or(Fail::new(Code::NumberSyntax))?;
            number::write_foreign(emitter.out, literal, emitter.options.integers)
        }
        Token::Raw => text::write_into(emitter, text).map_err(in_fragment),
    }
}

/// An offset in raw text would count from the start of the fragment, so none is reported.
pub(crate) fn in_fragment(fail: Fail) -> Fail {
    match fail {
        Fail::At(code, _) => Fail::new(code),
        custom => custom,
    }
}

/// Takes a string, and nothing else, from the one field of a private struct.
pub(crate) struct OnlyText<F>(pub(crate) F);

macro_rules! refuse {
    (scalars $($method:ident $type:ty),* $(,)?) => {$(
        fn $method(self, _value: $type) -> Result<(), Fail> {
            Err(Fail::new(Code::Misuse))
        }
    )*};
    (compounds $($kind:ident $method:ident($($type:ty),*)),* $(,)?) => {$(
        type $kind = Impossible<(), Fail>;
        refuse!(compound $kind $method($($type),*));
    )*};
    (compound $kind:ident $method:ident($a:ty)) => {
        fn $method(self, _: $a) -> Result<Self::$kind, Fail> {
            Err(Fail::new(Code::Misuse))
        }
    };
    (compound $kind:ident $method:ident($a:ty, $b:ty)) => {
        fn $method(self, _: $a, _: $b) -> Result<Self::$kind, Fail> {
            Err(Fail::new(Code::Misuse))
        }
    };
    (compound $kind:ident $method:ident($a:ty, $b:ty, $c:ty, $d:ty)) => {
        fn $method(self, _: $a, _: $b, _: $c, _: $d) -> Result<Self::$kind, Fail> {
            Err(Fail::new(Code::Misuse))
        }
    };
}

impl<F: FnOnce(&str) -> Result<(), Fail>> ser::Serializer for OnlyText<F> {
    type Ok = ();
    type Error = Fail;

    fn serialize_str(self, value: &str) -> Result<(), Fail> {
        (self.0)(value)
    }

    refuse!(scalars
        serialize_bool bool, serialize_i8 i8, serialize_i16 i16, serialize_i32 i32,
        serialize_i64 i64, serialize_i128 i128, serialize_u8 u8, serialize_u16 u16,
        serialize_u32 u32, serialize_u64 u64, serialize_u128 u128, serialize_f32 f32,
        serialize_f64 f64, serialize_char char, serialize_bytes &[u8],
        serialize_unit_struct &'static str,
    );

    refuse!(compounds
        SerializeSeq serialize_seq(Option<usize>),
        SerializeTuple serialize_tuple(usize),
        SerializeTupleStruct serialize_tuple_struct(&'static str, usize),
        SerializeTupleVariant serialize_tuple_variant(&'static str, u32, &'static str, usize),
        SerializeMap serialize_map(Option<usize>),
        SerializeStruct serialize_struct(&'static str, usize),
        SerializeStructVariant serialize_struct_variant(&'static str, u32, &'static str, usize),
    );

    fn serialize_none(self) -> Result<(), Fail> {
        Err(Fail::new(Code::Misuse))
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Fail> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Fail> {
        Err(Fail::new(Code::Misuse))
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
    ) -> Result<(), Fail> {
        Err(Fail::new(Code::Misuse))
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
        Err(Fail::new(Code::Misuse))
    }
}
