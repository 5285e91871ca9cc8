//! Canonical JSON to serde values. The bytes have been checked as a whole before the first value is read, so what
//! is read here has no whitespace, no duplicate keys and a bounded depth.

use alloc::borrow::Cow;
use alloc::string::String;

use serde::de::{self, DeserializeSeed, IntoDeserializer as _, Visitor};
use serde::forward_to_deserialize_any;

use crate::buf::{Buf as _, Fixed};
use crate::error::{Code, Fail};
use crate::json::Integers;
use crate::json::number::{Literal, write_f64};
use crate::json::string::{string_end, value_end};
use crate::json::text::{Piece, Token};

/// Integers up to here, either sign, are what they are in every JSON reader.
const SAFE_MAX: i64 = 1 << 53;

pub(crate) struct Deserializer<'de> {
    bytes: &'de [u8],
    at: usize,
}

impl<'de> Deserializer<'de> {
    pub(crate) fn new(bytes: &'de [u8]) -> Deserializer<'de> {
        Deserializer { bytes, at: 0 }
    }

    /// The value that was read, unless its type left bytes unread.
    pub(crate) fn end<T>(&self, value: T) -> Result<T, Fail> {
        if self.at == self.bytes.len() {
            Ok(value)
        } else {
            Err(self.unread())
        }
    }

    pub(crate) fn offset(&self) -> usize {
        self.at
    }

    fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    fn unread(&self) -> Fail {
        Fail::At(Code::Unread, self.at)
    }

    /// The string at the cursor, borrowed if it holds no escapes.
    fn string(&mut self) -> Result<Cow<'de, str>, Fail> {
        if self.peek() != b'"' {
            return Err(self.unread());
        }
        let end = string_end(self.bytes, self.at + 1) + 1;
        let quoted = &self.bytes[self.at..end];
        let token = Token {
            quoted,
            offset: self.at,
            has_escapes: quoted.contains(&b'\\'),
        };
        self.at = end;
        let utf8 = |bytes| core::str::from_utf8(bytes).map_err(|_| Fail::new(Code::Utf8));
        if !token.has_escapes {
            return utf8(token.contents()).map(Cow::Borrowed);
        }
        let mut text = String::new();
        token.decode(|piece| {
            match piece {
                Piece::Run(run) => text.push_str(utf8(run)?),
                Piece::Escape(char, _) => text.push(char),
            }
            Ok(())
        })?;
        Ok(Cow::Owned(text))
    }

    fn visit_string<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Fail> {
        match self.string()? {
            Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
            Cow::Owned(text) => visitor.visit_string(text),
        }
    }

    /// The number at the cursor, and where it ends.
    fn literal(&self) -> Result<(&'de str, usize), Fail> {
        let end = value_end(self.bytes, self.at);
        let text = core::str::from_utf8(&self.bytes[self.at..end])
            .map_err(|_| Fail::At(Code::Utf8, self.at))?;
        Ok((text, end))
    }

    /// A number for a type that takes any: integers up to 2^53 and doubles, which is what the numbers of JSON are. Longer
    /// integers that are no double are here only if the options allow them, and keep their digits.
    fn number<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Fail> {
        let (text, end) = self.literal()?;
        let safe = -SAFE_MAX..=SAFE_MAX;
        let value = match text.parse::<i64>() {
            Ok(value) if safe.contains(&value) && value >= 0 => visitor.visit_u64(value as u64),
            Ok(value) if safe.contains(&value) => visitor.visit_i64(value),
            _ => {
                let value: f64 = text.parse().map_err(|_| self.unread())?;
                match Literal::whole(text).and_then(Literal::to_integer) {
                    Some(integer) if !integer.is_shortest_of(value) => self.integer(text, visitor),
                    _ => visitor.visit_f64(value),
                }
            }
        }?;
        self.at = end;
        Ok(value)
    }

    fn integer<V: Visitor<'de>>(&self, text: &str, visitor: V) -> Result<V::Value, Fail> {
        if let Ok(value) = text.parse() {
            visitor.visit_u64(value)
        } else if let Ok(value) = text.parse() {
            visitor.visit_i64(value)
        } else if let Ok(value) = text.parse() {
            visitor.visit_u128(value)
        } else {
            visitor.visit_i128(text.parse().map_err(|_| self.unread())?)
        }
    }

    /// A number for a type that wants integers of 64 bits or more: all digits, if it is spelled as one.
    fn wide_number<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Fail> {
        let (text, end) = self.literal()?;
        let digits = text.strip_prefix('-').unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return de::Deserializer::deserialize_any(self, visitor);
        }
        let value = self.integer(text, visitor)?;
        self.at = end;
        Ok(value)
    }

    fn word<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Fail> {
        let rest = &self.bytes[self.at..];
        let (len, value) = if rest.starts_with(b"null") {
            (4, visitor.visit_unit()?)
        } else if rest.starts_with(b"true") {
            (4, visitor.visit_bool(true)?)
        } else if rest.starts_with(b"false") {
            (5, visitor.visit_bool(false)?)
        } else {
            return Err(self.unread());
        };
        self.at += len;
        Ok(value)
    }

    /// Reads what `items` reads between the brackets.
    fn container<T>(
        &mut self,
        items: impl FnOnce(&mut Items<'_, 'de>) -> Result<T, Fail>,
    ) -> Result<T, Fail> {
        self.at += 1;
        let mut open = Items {
            de: self,
            first: true,
        };
        let value = items(&mut open)?;
        // A visitor that stops early (a tuple that is shorter than the array) leaves bytes that belong to nobody.
        if !matches!(self.peek(), b']' | b'}') {
            return Err(self.unread());
        }
        self.at += 1;
        Ok(value)
    }
}

impl<'de> de::Deserializer<'de> for &mut Deserializer<'de> {
    type Error = Fail;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        match self.peek() {
            b'"' => self.visit_string(visitor),
            b'[' => self.container(|items| visitor.visit_seq(items)),
            b'{' => self.container(|items| visitor.visit_map(items)),
            b'-' | b'0'..=b'9' => self.number(visitor),
            _ => self.word(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        if self.peek() == b'n' {
            self.at += 4;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        self.wide_number(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        self.wide_number(visitor)
    }

    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        self.wide_number(visitor)
    }

    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        self.wide_number(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fail> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fail> {
        match self.peek() {
            b'"' => {
                let name = self.string()?;
                visitor.visit_enum(name.into_owned().into_deserializer())
            }
            b'{' => {
                self.at += 1;
                let value = visitor.visit_enum(Variant { de: self })?;
                if self.peek() != b'}' {
                    return Err(self.unread());
                }
                self.at += 1;
                Ok(value)
            }
            _ => Err(self.unread()),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        self.at = value_end(self.bytes, self.at);
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 u8 u16 u32 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier
    }
}

/// The elements of an array or the members of an object.
struct Items<'a, 'de> {
    de: &'a mut Deserializer<'de>,
    first: bool,
}

impl Items<'_, '_> {
    /// Steps over the comma; false at the end.
    fn next(&mut self) -> Result<bool, Fail> {
        let first = core::mem::take(&mut self.first);
        match self.de.peek() {
            b']' | b'}' => return Ok(false),
            _ if first => {}
            b',' => self.de.at += 1,
            // The type did not read the item before.
            _ => return Err(self.de.unread()),
        }
        Ok(true)
    }
}

impl<'de> de::SeqAccess<'de> for &mut Items<'_, 'de> {
    type Error = Fail;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fail> {
        if !self.next()? {
            return Ok(None);
        }
        seed.deserialize(&mut *self.de).map(Some)
    }
}

impl<'de> de::MapAccess<'de> for &mut Items<'_, 'de> {
    type Error = Fail;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fail> {
        if !self.next()? {
            return Ok(None);
        }
        seed.deserialize(Key { de: &mut *self.de }).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fail> {
        if self.de.peek() != b':' {
            return Err(self.de.unread());
        }
        self.de.at += 1;
        seed.deserialize(&mut *self.de)
    }
}

/// A key: a string in the text, whatever the type wants.
struct Key<'a, 'de> {
    de: &'a mut Deserializer<'de>,
}

/// Reads a key as the value that it spells, if it does so as such keys are written: `1` and `+1` are two keys, and must
/// not become one.
macro_rules! key_of_scalar {
    ($($method:ident $visit:ident $is_canonical:expr,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
            let unread = self.de.unread();
            let text = self.de.string()?;
            match text.parse() {
                Ok(value) if $is_canonical(value, &text) => visitor.$visit(value),
                _ => Err(unread),
            }
        }
    )*};
}

fn is_integer_form<T>(_value: T, text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.starts_with(['+', '0']) || text == "0"
}

fn is_float_form(value: impl Into<f64>, text: &str) -> bool {
    let mut form = [0; 32];
    let mut out = Fixed::new(&mut form);
    let written = write_f64(&mut out, value.into(), Integers::Error);
    written.is_ok() && out.bytes() == text.as_bytes()
}

impl<'de> de::Deserializer<'de> for Key<'_, 'de> {
    type Error = Fail;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        self.de.visit_string(visitor)
    }

    key_of_scalar! {
        deserialize_bool visit_bool (|_, _: &str| true),
        deserialize_i8 visit_i8 is_integer_form,
        deserialize_i16 visit_i16 is_integer_form,
        deserialize_i32 visit_i32 is_integer_form,
        deserialize_i64 visit_i64 is_integer_form,
        deserialize_i128 visit_i128 is_integer_form,
        deserialize_u8 visit_u8 is_integer_form,
        deserialize_u16 visit_u16 is_integer_form,
        deserialize_u32 visit_u32 is_integer_form,
        deserialize_u64 visit_u64 is_integer_form,
        deserialize_u128 visit_u128 is_integer_form,
        deserialize_f32 visit_f32 is_float_form,
        deserialize_f64 visit_f64 is_float_form,
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fail> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fail> {
        self.de.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// An enum that holds something: the one member of an object.
struct Variant<'a, 'de> {
    de: &'a mut Deserializer<'de>,
}

impl<'de> de::EnumAccess<'de> for Variant<'_, 'de> {
    type Error = Fail;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Fail> {
        let name = seed.deserialize(&mut *self.de)?;
        if self.de.peek() != b':' {
            return Err(self.de.unread());
        }
        self.de.at += 1;
        Ok((name, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_, 'de> {
    type Error = Fail;

    fn unit_variant(self) -> Result<(), Fail> {
        de::Deserialize::deserialize(self.de)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fail> {
        seed.deserialize(self.de)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Fail> {
        de::Deserializer::deserialize_any(self.de, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fail> {
        self.tuple_variant(0, visitor)
    }
}
