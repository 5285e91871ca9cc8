//! What writing deterministic CBOR is made of, whatever the source: containers, keys, text.

use core::cmp::Ordering;

use crate::buf::{Buf, PIECE_MAX, Piece, piece_of};
use crate::cbor::head::{self, TEXT, write_head};
use crate::error::{Code, Fail};
use crate::order::{Entry, KeyRules, Members, Scratch, common_prefix};

/// Map keys in bytewise lexicographic order of their encodings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CborKeys;

impl KeyRules for CborKeys {
    const SEPARATOR: Option<u8> = None;
    const KEY_SKIP: usize = 0;

    #[inline]
    fn compare(self, left: &[u8], right: &[u8], _escaped: bool) -> Ordering {
        let at = common_prefix(left, right);
        left.get(at).cmp(&right.get(at))
    }

    #[inline]
    fn rank(self, leading_eight: u64) -> u64 {
        leading_eight
    }

    fn entries(self, bytes: &[u8], from: usize, found: &mut dyn FnMut(usize, usize)) {
        let mut start = from;
        while start < bytes.len() {
            let key_end = head::item_end(bytes, start);
            found(start, key_end);
            start = head::item_end(bytes, key_end);
        }
    }
}

/// Everything that writing a document needs.
pub(crate) struct Emitter<'a, B> {
    pub(crate) out: &'a mut B,
    pub(crate) scratch: &'a mut Scratch,
    pub(crate) depth: usize,
    pub(crate) depth_max: usize,
}

/// An open array or map: its head was written for `declared` entries and is put right at the end.
pub(crate) struct Container {
    major: u8,
    at: usize,
    declared: u64,
}

impl Container {
    /// Stands for no container: it is never closed.
    pub(crate) const fn none() -> Container {
        Container {
            major: 0,
            at: 0,
            declared: 0,
        }
    }
}

impl<'a, B: Buf> Emitter<'a, B> {
    pub(crate) fn new(out: &'a mut B, scratch: &'a mut Scratch, depth_max: usize) -> Self {
        Emitter {
            out,
            scratch,
            depth: 0,
            depth_max,
        }
    }

    #[inline]
    pub(crate) fn deeper(&mut self) -> Result<(), Fail> {
        if self.depth >= self.depth_max {
            return Err(Fail::new(Code::Depth));
        }
        self.depth += 1;
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn open(&mut self, major: u8, len: Option<u64>) -> Result<Container, Fail> {
        self.deeper()?;
        let container = Container {
            major,
            at: self.out.len(),
            declared: len.unwrap_or(0),
        };
        write_head(self.out, major, container.declared)?;
        Ok(container)
    }

    #[inline(always)]
    pub(crate) fn close(&mut self, container: &Container, count: u64) -> Result<(), Fail> {
        self.depth -= 1;
        if container.declared == count {
            Ok(())
        } else {
            self.amend(container.major, container.at, container.declared, count)
        }
    }

    /// The length that serde announced, if any, was not the true one.
    #[cold]
    fn amend(&mut self, major: u8, at: usize, declared: u64, count: u64) -> Result<(), Fail> {
        let (old, new) = (head::head_len(declared), head::head_len(count));
        let (body, end) = (at + old, self.out.len());
        for _ in old..new {
            self.out.push(0)?;
        }
        self.out.bytes_mut().copy_within(body..end, at + new);
        self.out.truncate(end + new - old);
        let head = head::head(major, count);
        self.out.bytes_mut()[at..at + new].copy_from_slice(&head[..new]);
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn close_map(
        &mut self,
        container: &Container,
        members: &Members,
    ) -> Result<(), Fail> {
        members.finish(CborKeys, self.out, self.scratch)?;
        self.close(container, members.count() as u64)
    }

    #[inline]
    pub(crate) fn note_key(&mut self, members: &mut Members, start: usize) -> Result<(), Fail> {
        let key_end = self.out.len();
        members.key(CborKeys, self.out, self.scratch, start, key_end, false)
    }

    /// Inlined so that everything about the name of a field is a constant.
    #[inline(always)]
    pub(crate) fn text_key(&mut self, members: &mut Members, key: &str) -> Result<(), Fail> {
        let bytes = key.as_bytes();
        if bytes.len() < PIECE_MAX {
            let head = Piece::from(TEXT << 5 | bytes.len() as u8);
            return self.short_key(members, head | piece_of(bytes) << 8, 1 + bytes.len());
        }
        let start = self.out.len();
        self.text(bytes)?;
        self.note_key(members, start)
    }

    /// A whole encoded key, which tells its rank.
    fn short_key(&mut self, members: &mut Members, key: Piece, len: usize) -> Result<(), Fail> {
        let start = self.out.len();
        self.out.put(key, len)?;
        let entry = Entry {
            start,
            key_end: start + len,
            rank: (key as u64).swap_bytes(),
        };
        members.ranked_key(CborKeys, self.out, self.scratch, entry, false)
    }

    #[inline]
    pub(crate) fn text(&mut self, text: &[u8]) -> Result<(), Fail> {
        if text.len() < PIECE_MAX {
            let head = Piece::from(TEXT << 5 | text.len() as u8);
            return self.out.put(head | piece_of(text) << 8, 1 + text.len());
        }
        write_head(self.out, TEXT, text.len() as u64)?;
        match text.split_last() {
            Some((&last, text)) => self.out.extend_then(text, last),
            None => Ok(()),
        }
    }
}
