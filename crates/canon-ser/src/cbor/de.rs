//! CBOR to serde values. The bytes have been checked as a whole before the first value is read, so that what a type
//! ignores is as canonical as what it takes.

use serde::de::{self, DeserializeSeed, Visitor};
use serde::forward_to_deserialize_any;

use crate::cbor::head::{
    ARRAY, BIGNUMS, BYTES, Head, MAP, NEGATIVE, NULL, TAG, TEXT, UNSIGNED, item_end,
};
use crate::error::{Code, Fail};

/// Reads deterministic CBOR that [`crate::cbor::check`] has passed; its depth limit bounds the recursion here.
pub(crate) struct Deserializer<'de> {
    bytes: &'de [u8],
    at: usize,
}

impl<'de> Deserializer<'de> {
    pub(crate) fn new(bytes: &'de [u8]) -> Deserializer<'de> {
        Deserializer { bytes, at: 0 }
    }

    pub(crate) fn offset(&self) -> usize {
        self.at
    }

    fn head(&mut self) -> Result<Head, Fail> {
        let head = Head::read(self.bytes, self.at)?;
        self.at = head.end;
        Ok(head)
    }

    fn string(&mut self, head: Head) -> Result<&'de [u8], Fail> {
        let rest = &self.bytes[self.at..];
        let len = usize::try_from(head.argument)
            .ok()
            .filter(|&len| len <= rest.len());
        let string = &rest[..len.ok_or(Fail::At(Code::End, self.bytes.len()))?];
        self.at += string.len();
        Ok(string)
    }

    fn text(&mut self, head: Head) -> Result<&'de str, Fail> {
        let at = self.at;
        core::str::from_utf8(self.string(head)?).map_err(|_| Fail::At(Code::Utf8, at))
    }

    fn bignum<V: Visitor<'de>>(&mut self, negative: bool, visitor: V) -> Result<V::Value, Fail> {
        let start = self.at;
        let head = self.head()?;
        let bytes = self.string(head)?;
        let too_large = Fail::At(Code::Unread, start);
        if head.major != BYTES || bytes.len() > 16 {
            return Err(too_large);
        }
        let argument = bytes
            .iter()
            .fold(0, |argument, &byte| argument << 8 | u128::from(byte));
        if !negative {
            return visitor.visit_u128(argument);
        }
        let argument = i128::try_from(argument).map_err(|_| too_large)?;
        visitor.visit_i128(-1 - argument)
    }

    /// An item of one major type. Types that take more than their own (text from byte strings, fields by number) would
    /// make one key of two.
    fn only<V: Visitor<'de>>(&mut self, major: u8, visitor: V) -> Result<V::Value, Fail> {
        match Head::read(self.bytes, self.at)?.major == major {
            true => de::Deserializer::deserialize_any(self, visitor),
            false => Err(Fail::At(Code::Unread, self.at)),
        }
    }

    fn simple<V: Visitor<'de>>(
        &mut self,
        head: Head,
        start: usize,
        visitor: V,
    ) -> Result<V::Value, Fail> {
        if let Some(value) = head.float() {
            return visitor.visit_f64(value);
        }
        match head.argument {
            20 => visitor.visit_bool(false),
            21 => visitor.visit_bool(true),
            22 => visitor.visit_unit(),
            _ => Err(Fail::At(Code::Unread, start)),
        }
    }
}

impl<'de> de::Deserializer<'de> for &mut Deserializer<'de> {
    type Error = Fail;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        let start = self.at;
        let head = self.head()?;
        match head.major {
            UNSIGNED => visitor.visit_u64(head.argument),
            NEGATIVE => match i64::try_from(head.argument) {
                Ok(argument) => visitor.visit_i64(-1 - argument),
                Err(_) => visitor.visit_i128(-1 - i128::from(head.argument)),
            },
            BYTES => visitor.visit_borrowed_bytes(self.string(head)?),
            TEXT => visitor.visit_borrowed_str(self.text(head)?),
            ARRAY => {
                let mut items = Items {
                    de: self,
                    left: head.argument,
                };
                let value = visitor.visit_seq(&mut items)?;
                items.end().map(|()| value)
            }
            MAP => {
                let mut items = Items {
                    de: self,
                    left: head.argument,
                };
                let value = visitor.visit_map(&mut items)?;
                items.end().map(|()| value)
            }
            TAG if BIGNUMS.contains(&head.argument) => {
                self.bignum(head.argument == BIGNUMS[1], visitor)
            }
            TAG => Err(Fail::At(Code::Unread, start)),
            _ => self.simple(head, start, visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        if self.bytes.get(self.at) == Some(&NULL) {
            self.at += 1;
            return visitor.visit_none();
        }
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
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fail> {
        let start = self.at;
        let head = Head::read(self.bytes, start)?;
        match (head.major, head.argument) {
            (TEXT, _) => visitor.visit_enum(Variant {
                de: self,
                bare: true,
            }),
            (MAP, 1) => {
                self.at = head.end;
                visitor.visit_enum(Variant {
                    de: self,
                    bare: false,
                })
            }
            _ => Err(Fail::At(Code::Unread, start)),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        self.only(TEXT, visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        self.only(TEXT, visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        self.only(BYTES, visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        self.only(BYTES, visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        self.only(TEXT, visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        self.at = item_end(self.bytes, self.at);
        visitor.visit_unit()
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char unit unit_struct seq tuple tuple_struct
        map struct
    }
}

/// The items of an array or the entries of a map.
struct Items<'a, 'de> {
    de: &'a mut Deserializer<'de>,
    left: u64,
}

impl<'de> Items<'_, 'de> {
    fn hint(&self) -> Option<usize> {
        usize::try_from(self.left).ok()
    }

    /// A visitor that stops early (a tuple that is shorter than the array) leaves bytes that belong to nobody.
    fn end(&self) -> Result<(), Fail> {
        if self.left == 0 {
            Ok(())
        } else {
            Err(Fail::At(Code::Unread, self.de.at))
        }
    }
}

impl<'de> de::SeqAccess<'de> for Items<'_, 'de> {
    type Error = Fail;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fail> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.de).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        self.hint()
    }
}

impl<'de> de::MapAccess<'de> for Items<'_, 'de> {
    type Error = Fail;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fail> {
        de::SeqAccess::next_element_seed(self, seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fail> {
        seed.deserialize(&mut *self.de)
    }

    fn size_hint(&self) -> Option<usize> {
        self.hint()
    }
}

/// An enum: its variant's name, then (in a map) what it holds.
struct Variant<'a, 'de> {
    de: &'a mut Deserializer<'de>,
    bare: bool,
}

impl<'de> de::EnumAccess<'de> for Variant<'_, 'de> {
    type Error = Fail;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Fail> {
        let name = seed.deserialize(&mut *self.de)?;
        Ok((name, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_, 'de> {
    type Error = Fail;

    fn unit_variant(self) -> Result<(), Fail> {
        if self.bare {
            Ok(())
        } else {
            de::Deserialize::deserialize(self.de)
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fail> {
        if self.bare {
            return Err(Fail::At(Code::Unread, self.de.at));
        }
        seed.deserialize(self.de)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Fail> {
        if self.bare {
            return Err(Fail::At(Code::Unread, self.de.at));
        }
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
