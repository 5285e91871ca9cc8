//! ciborium's dynamic value, both ways.

use alloc::boxed::Box;
use alloc::vec::Vec;

use ciborium::Value;
use ciborium::value::Integer;

use crate::buf::{Buf as _, Growing};
use crate::cbor::head::{
    ARRAY, BIGNUMS, BYTES, FALSE, MAP, NULL, TAG, TEXT, TRUE, write_float, write_head,
    write_integer,
};
use crate::cbor::read::{Item, Kind, Place, Sink, drive};
use crate::cbor::{DEPTH_MAX, canonicalize};
use crate::error::{Code, Error, Fail};

/// The deterministic CBOR of a ciborium [`Value`], tags included.
///
/// # Errors
///
/// Duplicate keys, more than 128 levels, a bignum tag around something else than bytes.
///
/// ```
/// use ciborium::Value;
///
/// let value = Value::Map(vec![(Value::Text("b".into()), Value::Float(1.5)), (Value::Text("a".into()), Value::Null)]);
/// let bytes = canon_ser::cbor::from_value(&value)?;
/// assert_eq!(bytes, b"\xa2\x61a\xf6\x61b\xf9\x3e\x00");
/// assert_eq!(canon_ser::cbor::to_value(&bytes)?.as_map().map(Vec::len), Some(2));
/// # Ok::<(), canon_ser::Error>(())
/// ```
pub fn from_value(value: &Value) -> Result<Vec<u8>, Error> {
    let mut loose = Growing::new();
    write(&mut loose, value, 0).map_err(Error::new)?;
    canonicalize(loose.bytes())
}

fn write(out: &mut Growing, value: &Value, depth: usize) -> Result<(), Fail> {
    let deeper = matches!(value, Value::Tag(..) | Value::Array(_) | Value::Map(_));
    if deeper && depth >= DEPTH_MAX {
        return Err(Fail::new(Code::Depth));
    }
    match value {
        Value::Integer(integer) => {
            let integer = i128::from(*integer);
            write_integer(out, integer.unsigned_abs(), integer < 0)
        }
        Value::Bytes(bytes) => {
            write_head(out, BYTES, bytes.len() as u64)?;
            out.extend(bytes)
        }
        Value::Float(value) => write_float(out, *value),
        Value::Text(text) => {
            write_head(out, TEXT, text.len() as u64)?;
            out.extend(text.as_bytes())
        }
        Value::Bool(value) => out.push(if *value { TRUE } else { FALSE }),
        Value::Null => out.push(NULL),
        Value::Tag(tag, value) => {
            write_head(out, TAG, *tag)?;
            write(out, value, depth + 1)
        }
        Value::Array(elements) => {
            write_head(out, ARRAY, elements.len() as u64)?;
            elements
                .iter()
                .try_for_each(|element| write(out, element, depth + 1))
        }
        Value::Map(entries) => {
            write_head(out, MAP, entries.len() as u64)?;
            entries.iter().try_for_each(|(key, value)| {
                write(out, key, depth + 1)?;
                write(out, value, depth + 1)
            })
        }
        _ => Err(Fail::new(Code::NoValue)),
    }
}

/// Any well-formed CBOR item as a ciborium [`Value`]. Entries of maps stand in the order of the input.
///
/// Bignums become tags 2 and 3 around bytes, as ciborium has them.
///
/// # Errors
///
/// Malformed CBOR, more than 128 levels, simple values other than false, true and null: ciborium has none of these.
pub fn to_value(bytes: &[u8]) -> Result<Value, Error> {
    let mut builder = Builder {
        open: Vec::new(),
        root: None,
    };
    drive::<_, false>(bytes, &mut builder, DEPTH_MAX).map_err(Error::new)?;
    builder.root.ok_or(Error::new(Fail::new(Code::End)))
}

struct Builder {
    open: Vec<(Kind, Vec<Value>)>,
    root: Option<Value>,
}

impl Builder {
    fn add(&mut self, value: Value) {
        match self.open.last_mut() {
            Some((_, items)) => items.push(value),
            None => self.root = Some(value),
        }
    }
}

impl Sink for Builder {
    fn item(&mut self, item: Item<'_>, _place: Place) -> Result<(), Fail> {
        let value = match item {
            Item::Integer {
                negative: false,
                argument,
            } => Value::Integer(argument.into()),
            Item::Integer { argument, .. } => {
                let integer = Integer::try_from(-1 - i128::from(argument));
                Value::Integer(integer.expect("a head holds 64 bits and a sign, as Integer does"))
            }
            Item::Bignum { negative, bytes } => Value::Tag(
                BIGNUMS[usize::from(negative)],
                Box::new(Value::Bytes(bytes.to_vec())),
            ),
            Item::Bytes(bytes) => Value::Bytes(bytes.to_vec()),
            Item::Text(text) => Value::Text(
                core::str::from_utf8(text)
                    .expect("the driver has checked it")
                    .into(),
            ),
            Item::Float(value) => Value::Float(value),
            Item::Simple(20) => Value::Bool(false),
            Item::Simple(21) => Value::Bool(true),
            Item::Simple(22) => Value::Null,
            Item::Simple(_) => return Err(Fail::new(Code::NoValue)),
        };
        self.add(value);
        Ok(())
    }

    fn open(
        &mut self,
        kind: Kind,
        _len: Option<u64>,
        _place: Place,
        _offset: usize,
    ) -> Result<(), Fail> {
        self.open.push((kind, Vec::new()));
        Ok(())
    }

    fn key_done(&mut self, _start: usize, _end: usize) -> Result<(), Fail> {
        Ok(())
    }

    fn close(&mut self, _items: u64) -> Result<(), Fail> {
        let (kind, items) = self.open.pop().expect("only open containers close");
        let mut items = items.into_iter();
        let value = match kind {
            Kind::Array => Value::Array(items.collect()),
            Kind::Map => {
                let mut entries = Vec::with_capacity(items.len() / 2);
                while let (Some(key), Some(value)) = (items.next(), items.next()) {
                    entries.push((key, value));
                }
                Value::Map(entries)
            }
            Kind::Tag(tag) => {
                let inner = items.next().expect("a tag holds one item");
                Value::Tag(tag, Box::new(inner))
            }
        };
        self.add(value);
        Ok(())
    }
}
