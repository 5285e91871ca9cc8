//! What writing canonical JSON is made of, whatever the source: containers, entries, keys.

use crate::buf::{Buf, Piece, piece_of};
use crate::error::{Code, Fail};
use crate::json::{Options, number, string};
use crate::order::{Entry, KeyRules as _, Members, Scratch, leading_eight};

/// Everything that writing a document needs.
pub(crate) struct Emitter<'a, B> {
    pub(crate) out: &'a mut B,
    pub(crate) scratch: &'a mut Scratch,
    pub(crate) options: Options,
    pub(crate) depth: usize,
}

impl<'a, B: Buf> Emitter<'a, B> {
    pub(crate) fn new(out: &'a mut B, scratch: &'a mut Scratch, options: Options) -> Self {
        Emitter {
            out,
            scratch,
            options,
            depth: 0,
        }
    }

    #[inline(always)]
    pub(crate) fn open(&mut self, bracket: u8) -> Result<(), Fail> {
        if self.depth >= self.options.depth_max {
            return Err(Fail::new(Code::Depth));
        }
        self.depth += 1;
        self.out.push(bracket)
    }

    #[inline(always)]
    pub(crate) fn close(&mut self, bracket: u8) -> Result<(), Fail> {
        self.depth -= 1;
        self.out.push(bracket)
    }

    #[inline(always)]
    pub(crate) fn open_object(&mut self) -> Result<Members, Fail> {
        self.open(b'{')?;
        Ok(Members::new(self.scratch, self.out.len()))
    }

    #[inline(always)]
    pub(crate) fn close_object(&mut self, members: &Members) -> Result<(), Fail> {
        members.finish(self.options.keys(), self.out, self.scratch)?;
        self.close(b'}')
    }

    /// Takes note of the key that was just written as a whole string from `start` on, and writes the colon.
    #[inline]
    pub(crate) fn note_key(
        &mut self,
        members: &mut Members,
        start: usize,
        escaped: bool,
    ) -> Result<(), Fail> {
        let key_end = self.out.len() - 1;
        members.key(
            self.options.keys(),
            self.out,
            self.scratch,
            start,
            key_end,
            escaped,
        )?;
        self.out.push(b':')
    }

    /// Writes the comma between entries and returns where the new one starts.
    #[inline]
    pub(crate) fn begin_entry(&mut self, members: &Members) -> Result<usize, Fail> {
        if members.count() > 0 {
            self.out.push(b',')?;
        }
        Ok(self.out.len())
    }

    /// Inlined so that everything about the name of a field is a constant.
    #[inline(always)]
    pub(super) fn text_key(&mut self, members: &mut Members, key: &str) -> Result<(), Fail> {
        let bytes = key.as_bytes();
        if string::is_short_key(bytes) {
            return self.short_key(members, piece_of(bytes), bytes.len());
        }
        self.long_key(members, bytes)
    }

    fn long_key(&mut self, members: &mut Members, key: &[u8]) -> Result<(), Fail> {
        let start = self.begin_entry(members)?;
        let escaped = string::write(self.out, key)?;
        let keys = self.options.keys();
        let entry = Entry {
            start,
            key_end: self.out.len() - 1,
            rank: keys.rank(leading_eight(key, 0..key.len())),
        };
        self.out.push(b':')?;
        members.ranked_key(keys, self.out, self.scratch, entry, escaped)
    }

    /// A key without escapes, which tells its rank.
    fn short_key(&mut self, members: &mut Members, key: Piece, len: usize) -> Result<(), Fail> {
        let first = members.count() == 0;
        let start = self.out.len() + usize::from(!first);
        string::put_key(self.out, key, len, first)?;
        let keys = self.options.keys();
        let entry = Entry {
            start,
            key_end: start + 1 + len,
            rank: keys.rank((key as u64).swap_bytes()),
        };
        members.ranked_key(keys, self.out, self.scratch, entry, false)
    }

    /// `{"Variant":`, which [`Emitter::close`] ends.
    pub(super) fn open_variant(&mut self, variant: &'static str) -> Result<(), Fail> {
        self.open(b'{')?;
        string::write(self.out, variant.as_bytes())?;
        self.out.push(b':')
    }

    #[inline]
    pub(super) fn integer(&mut self, value: u64, negative: bool) -> Result<(), Fail> {
        number::write_integer(self.out, value, negative, self.options.integers)
    }
}
