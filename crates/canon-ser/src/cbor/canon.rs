//! Any well-formed CBOR to deterministic CBOR.

use alloc::vec::Vec;

use crate::buf::Buf;
use crate::cbor::emit::{Container, Emitter};
use crate::cbor::head::{
    ARRAY, BYTES, MAP, NEGATIVE, SIMPLE, TAG, TEXT, UNSIGNED, write_bignum, write_float, write_head,
};
use crate::cbor::read::{Item, Kind, Place, Sink};
use crate::error::Fail;
use crate::order::Members;

/// The sink that writes deterministic CBOR.
pub(crate) struct Writer<'e, 'a, B> {
    pub(crate) emitter: &'e mut Emitter<'a, B>,
    pub(crate) open: Vec<Open>,
}

/// An open container; for a tag there is nothing to remember.
pub(crate) struct Open {
    container: Option<Container>,
    members: Members,
    /// Where the current entry of a map starts in the output.
    entry: usize,
    map: bool,
}

impl<B: Buf> Writer<'_, '_, B> {
    #[inline]
    fn begin(&mut self, place: Place) {
        if let (Place::Key { .. }, Some(open)) = (place, self.open.last_mut()) {
            open.entry = self.emitter.out.len();
        }
    }
}

impl<B: Buf> Sink for Writer<'_, '_, B> {
    fn item(&mut self, item: Item<'_>, place: Place) -> Result<(), Fail> {
        self.begin(place);
        let out = &mut *self.emitter.out;
        match item {
            Item::Integer { negative, argument } => {
                write_head(out, if negative { NEGATIVE } else { UNSIGNED }, argument)
            }
            Item::Bignum { negative, bytes } => write_bignum(out, negative, bytes),
            Item::Bytes(bytes) => {
                write_head(out, BYTES, bytes.len() as u64)?;
                out.extend(bytes)
            }
            Item::Text(text) => {
                write_head(out, TEXT, text.len() as u64)?;
                out.extend(text)
            }
            Item::Float(value) => write_float(out, value),
            Item::Simple(value) => write_head(out, SIMPLE, u64::from(value)),
        }
    }

    fn open(&mut self, kind: Kind, len: Option<u64>, place: Place) -> Result<(), Fail> {
        self.begin(place);
        let container = match kind {
            Kind::Array => Some(self.emitter.open(ARRAY, len)?),
            Kind::Map => Some(self.emitter.open(MAP, len)?),
            Kind::Tag(tag) => {
                self.emitter.deeper()?;
                write_head(self.emitter.out, TAG, tag)?;
                None
            }
        };
        let members = Members::new(self.emitter.scratch, self.emitter.out.len());
        self.open.push(Open {
            container,
            members,
            entry: 0,
            map: kind == Kind::Map,
        });
        Ok(())
    }

    fn key_done(&mut self, _start: usize, _end: usize) -> Result<(), Fail> {
        let open = self.open.last_mut().expect("keys stand in maps");
        self.emitter.note_key(&mut open.members, open.entry)
    }

    fn close(&mut self, items: u64) -> Result<(), Fail> {
        let open = self.open.pop().expect("only open containers close");
        match &open.container {
            Some(container) if open.map => self.emitter.close_map(container, &open.members),
            Some(container) => self.emitter.close(container, items),
            None => {
                self.emitter.depth -= 1;
                Ok(())
            }
        }
    }
}
