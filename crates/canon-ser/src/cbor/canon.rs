//! Any well-formed CBOR to deterministic CBOR.

use alloc::vec::Vec;

use crate::buf::Buf;
use crate::cbor::emit::{Container, Emitter};
use crate::cbor::head::{
    ARRAY, BYTES, MAP, NEGATIVE, SIMPLE, TAG, TEXT, UNSIGNED, write_bignum, write_head,
};
use crate::cbor::read::{Item, Kind, Place, Sink};
use crate::cbor::{Dialect, dag};
use crate::emit::Format as _;
use crate::error::Fail;
use crate::order::Members;

/// The sink that writes deterministic CBOR, in the dialect of the emitter's options.
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

#[cfg(feature = "std")]
impl Open {
    /// What the map remembers of its keys, if it is one.
    pub(super) fn last_key(&self) -> Option<crate::stream::LastKey> {
        self.map.then(|| self.members.last_key())
    }
}

#[cfg(feature = "std")]
impl<B: Buf> Writer<'_, '_, B> {
    /// Where the key that was just written stands.
    pub(super) fn current_key(&self) -> core::ops::Range<usize> {
        let start = self.open.last().map_or(0, |open| open.entry);
        start..self.emitter.out.len()
    }

    /// Closes the innermost container, of whose entries no note was taken.
    pub(super) fn close_as_it_is(&mut self, items: u64) -> Result<(), Fail> {
        let open = self.open.pop().expect("only open containers close");
        match &open.container {
            Some(container) => {
                let entries = if open.map { items / 2 } else { items };
                self.emitter.close(container, entries)
            }
            None => {
                self.emitter.depth -= 1;
                Ok(())
            }
        }
    }
}

impl<B: Buf> Writer<'_, '_, B> {
    #[inline]
    fn begin(&mut self, place: Place) {
        if let (Place::Key { .. }, Some(open)) = (place, self.open.last_mut()) {
            open.entry = self.emitter.out.len();
        }
    }

    #[inline]
    fn is_dag(&self) -> bool {
        self.emitter.options.dialect == Dialect::Dag
    }
}

impl<B: Buf> Sink for Writer<'_, '_, B> {
    fn item(&mut self, item: Item<'_>, place: Place) -> Result<(), Fail> {
        if self.is_dag() {
            dag::allow(item, place)?;
        }
        self.begin(place);
        let options = self.emitter.options;
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
            Item::Float(value) => options.float(out, value),
            Item::Simple(value) => write_head(out, SIMPLE, u64::from(value)),
        }
    }

    fn open(
        &mut self,
        kind: Kind,
        len: Option<u64>,
        place: Place,
        _offset: usize,
    ) -> Result<(), Fail> {
        if self.is_dag() {
            dag::allow_open(kind, place)?;
        }
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
