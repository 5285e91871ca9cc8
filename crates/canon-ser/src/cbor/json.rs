//! Between JSON text and CBOR (RFC 8949 section 6), strictly: what the other side cannot say is an error.

use alloc::vec::Vec;

use crate::buf::Buf;
use crate::cbor::emit::{Container, Emitter};
use crate::cbor::head::{ARRAY, FALSE, MAP, NULL, TEXT, TRUE, write_head};
use crate::cbor::private::write_number;
use crate::cbor::read::{self, Item, Kind, Place};
use crate::error::{Code, Fail};
use crate::json::number::{self, Literal};
use crate::json::text::{self, Piece, Token};
use crate::json::{self, Integers};
use crate::order::Members;

/// Writes the CBOR of JSON text at the end of what the emitter has written.
pub(crate) fn write_text<B: Buf>(
    emitter: &mut Emitter<'_, B>,
    text: &[u8],
    integers: Integers,
) -> Result<(), Fail> {
    text::drive::<_, false>(
        text,
        &mut FromJson {
            emitter,
            integers,
            open: Vec::new(),
        },
    )
}

struct FromJson<'e, 'a, B> {
    emitter: &'e mut Emitter<'a, B>,
    integers: Integers,
    open: Vec<Open>,
}

struct Open {
    object: bool,
    offset: usize,
    container: Container,
    members: Members,
    elements: u64,
}

impl<B: Buf> FromJson<'_, '_, B> {
    #[inline]
    fn count(&mut self) {
        if let Some(open) = self.open.last_mut() {
            open.elements += 1;
        }
    }

    fn write_text(&mut self, token: Token<'_>) -> Result<(), Fail> {
        if !token.has_escapes {
            return self.emitter.text(token.contents());
        }
        let mut len = 0;
        token.decode(|piece| {
            len += match piece {
                Piece::Run(run) => run.len(),
                Piece::Escape(char, _) => char.len_utf8(),
            };
            Ok(())
        })?;
        let out = &mut *self.emitter.out;
        write_head(out, TEXT, len as u64)?;
        token.decode(|piece| match piece {
            Piece::Run(run) => out.extend(run),
            Piece::Escape(char, _) => out.extend(char.encode_utf8(&mut [0; 4]).as_bytes()),
        })
    }
}

impl<B: Buf> text::Sink for FromJson<'_, '_, B> {
    fn word(&mut self, word: &'static str) -> Result<(), Fail> {
        self.count();
        self.emitter.out.push(match word {
            "true" => TRUE,
            "false" => FALSE,
            _ => NULL,
        })
    }

    fn number(&mut self, literal: Literal<'_>) -> Result<(), Fail> {
        self.count();
        write_number(self.emitter.out, literal, self.integers)
    }

    fn string(&mut self, token: Token<'_>) -> Result<(), Fail> {
        self.count();
        self.write_text(token)
    }

    fn key(&mut self, token: Token<'_>, _leading: u64) -> Result<(), Fail> {
        let start = self.emitter.out.len();
        self.write_text(token)?;
        let open = self.open.last_mut().expect("keys stand in objects");
        self.emitter.note_key(&mut open.members, start)
    }

    fn open(&mut self, object: bool, offset: usize) -> Result<(), Fail> {
        self.count();
        let container = self.emitter.open(if object { MAP } else { ARRAY }, None)?;
        let members = Members::new(self.emitter.scratch, self.emitter.out.len());
        self.open.push(Open {
            object,
            offset,
            container,
            members,
            elements: 0,
        });
        Ok(())
    }

    fn next_element(&mut self) -> Result<(), Fail> {
        Ok(())
    }

    fn close(&mut self) -> Result<(), Fail> {
        let open = self.open.pop().expect("only open containers close");
        if open.object {
            self.emitter.close_map(&open.container, &open.members)
        } else {
            self.emitter.close(&open.container, open.elements)
        }
    }

    fn innermost(&self) -> Option<(bool, usize)> {
        self.open.last().map(|open| (open.object, open.offset))
    }
}

/// The sink that writes canonical JSON from CBOR.
pub(crate) struct ToJson<'e, 'a, B> {
    pub(crate) emitter: &'e mut json::Emitter<'a, B>,
    /// The open containers; those that are maps keep what they remember of their entries.
    pub(crate) open: Vec<Option<Members>>,
}

impl<B: Buf> ToJson<'_, '_, B> {
    fn begin(&mut self, place: Place) -> Result<(), Fail> {
        match place {
            Place::Element { first: false } => self.emitter.out.push(b','),
            // Keys are written whole by `key`; anything else in a key's place has no JSON form.
            Place::Key { .. } | Place::Tagged => Err(Fail::new(Code::NoJson)),
            Place::Root | Place::Element { .. } | Place::Value => Ok(()),
        }
    }

    fn key(&mut self, text: &[u8]) -> Result<(), Fail> {
        let members = self
            .open
            .last_mut()
            .and_then(Option::as_mut)
            .expect("keys stand in maps");
        let start = self.emitter.begin_entry(members)?;
        let escaped = json::string::write(self.emitter.out, text)?;
        self.emitter.note_key(members, start, escaped)
    }
}

impl<B: Buf> read::Sink for ToJson<'_, '_, B> {
    fn item(&mut self, item: Item<'_>, place: Place) -> Result<(), Fail> {
        if let (Item::Text(text), Place::Key { .. }) = (item, place) {
            return self.key(text);
        }
        self.begin(place)?;
        let policy = self.emitter.options.integer_policy();
        let out = &mut *self.emitter.out;
        match item {
            Item::Integer { negative, argument } => {
                let magnitude = u128::from(argument) + u128::from(negative);
                write_integer(out, magnitude, negative, policy)
            }
            Item::Bignum { negative, bytes } => {
                let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
                let bytes = &bytes[zeros..];
                let argument = bytes
                    .iter()
                    .fold(0, |argument, &byte| argument << 8 | u128::from(byte));
                match argument.checked_add(u128::from(negative)) {
                    Some(magnitude) if bytes.len() <= 16 => {
                        write_integer(out, magnitude, negative, policy)
                    }
                    _ => Err(Fail::new(Code::NoJson)),
                }
            }
            Item::Text(text) => json::string::write(out, text).map(drop),
            Item::Float(value) => number::write_f64(out, value, policy),
            Item::Simple(20) => out.extend(b"false"),
            Item::Simple(21) => out.extend(b"true"),
            Item::Simple(22) => out.extend(b"null"),
            Item::Bytes(_) | Item::Simple(_) => Err(Fail::new(Code::NoJson)),
        }
    }

    fn open(
        &mut self,
        kind: Kind,
        _len: Option<u64>,
        place: Place,
        _offset: usize,
    ) -> Result<(), Fail> {
        self.begin(place)?;
        let members = match kind {
            Kind::Array => self.emitter.open(b'[').map(|()| None),
            Kind::Map => self.emitter.open_object().map(Some),
            Kind::Tag(_) => Err(Fail::new(Code::NoJson)),
        };
        self.open.push(members?);
        Ok(())
    }

    fn key_done(&mut self, _start: usize, _end: usize) -> Result<(), Fail> {
        Ok(())
    }

    fn close(&mut self, _items: u64) -> Result<(), Fail> {
        match self.open.pop().expect("only open containers close") {
            Some(members) => self.emitter.close_object(&members),
            None => self.emitter.close(b']'),
        }
    }
}

/// CBOR has no type of its own for doubles that are integers, so one that is exactly a double is no loss beyond 2^53.
fn write_integer<B: Buf>(
    out: &mut B,
    magnitude: u128,
    negative: bool,
    policy: Integers,
) -> Result<(), Fail> {
    let double = magnitude as f64;
    if policy == Integers::Error && double as u128 == magnitude {
        return number::write_f64(out, if negative { -double } else { double }, policy);
    }
    number::write_wide(out, magnitude, negative, policy)
}
