//! What writing canonical JSON is made of, whatever the source: containers, entries, keys.

use core::fmt;

use serde::ser::{Serialize, SerializeSeq as _, Serializer as _};

use crate::buf::{Buf, Piece, piece_of};
use crate::emit::{self, Format};
use crate::error::Fail;
use crate::json::key::{Key, write_contents};
use crate::json::private::{self, Token};
use crate::json::scalar::Scalar;
use crate::json::string::JsonKeys;
use crate::json::{Options, number, string};
use crate::order::{Entry, KeyRules as _, Members, leading_eight};

/// Everything that writing a document needs.
pub(crate) type Emitter<'a, B> = emit::Emitter<'a, B, Options>;

impl<B: Buf> Emitter<'_, B> {
    #[inline(always)]
    pub(crate) fn open(&mut self, bracket: u8) -> Result<(), Fail> {
        self.deeper()?;
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

    /// The same for a key without escapes whose leading eight bytes are known.
    #[inline]
    pub(crate) fn note_plain_key(
        &mut self,
        members: &mut Members,
        start: usize,
        leading: u64,
    ) -> Result<(), Fail> {
        let keys = self.options.keys();
        let entry = Entry {
            start,
            key_end: self.out.len() - 1,
            rank: keys.rank(leading),
        };
        members.ranked_key(keys, self.out, self.scratch, entry, false)?;
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
    #[inline(always)]
    pub(crate) fn short_key(
        &mut self,
        members: &mut Members,
        key: Piece,
        len: usize,
    ) -> Result<(), Fail> {
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
}

impl Format for Options {
    type Keys = JsonKeys;
    type Head = ();
    const NO_HEAD: () = ();
    const HUMAN_READABLE: bool = true;
    const HOLDS_UNKNOWN: bool = false;

    #[inline(always)]
    fn keys(self) -> JsonKeys {
        JsonKeys {
            utf16: self.order == crate::json::KeyOrder::Utf16,
        }
    }

    #[inline(always)]
    fn depth_max(self) -> usize {
        self.depth_max
    }

    #[inline]
    fn null<B: Buf>(self, out: &mut B) -> Result<(), Fail> {
        out.put(piece_of(b"null"), 4)
    }

    #[inline]
    fn boolean<B: Buf>(self, out: &mut B, value: bool) -> Result<(), Fail> {
        if value {
            out.put(piece_of(b"true"), 4)
        } else {
            out.put(piece_of(b"false"), 5)
        }
    }

    #[inline]
    fn integer<B: Buf>(self, out: &mut B, magnitude: u64, negative: bool) -> Result<(), Fail> {
        number::write_integer(out, magnitude, negative, self.integers)
    }

    fn wide<B: Buf>(self, out: &mut B, magnitude: u128, negative: bool) -> Result<(), Fail> {
        number::write_wide(out, magnitude, negative, self.integers)
    }

    #[inline]
    fn float<B: Buf>(self, out: &mut B, value: f64) -> Result<(), Fail> {
        number::write_f64(out, value, self.integers)
    }

    #[inline]
    fn text<B: Buf>(self, out: &mut B, text: &str) -> Result<(), Fail> {
        string::write(out, text.as_bytes()).map(drop)
    }

    fn display<B: Buf, T: fmt::Display + ?Sized>(self, out: &mut B, value: &T) -> Result<(), Fail> {
        out.push(b'"')?;
        write_contents(out, value)?;
        out.push(b'"')
    }

    /// As serde_json does: an array of numbers.
    fn bytes<B: Buf>(emitter: &mut Emitter<'_, B>, value: &[u8]) -> Result<(), Fail> {
        let mut array = emitter.serialize_seq(Some(value.len()))?;
        value
            .iter()
            .try_for_each(|byte| array.serialize_element(byte))?;
        array.end()
    }

    #[inline(always)]
    fn open_array<B: Buf>(self, out: &mut B, _len: Option<usize>) -> Result<(), Fail> {
        out.push(b'[')
    }

    #[inline(always)]
    fn close_array<B: Buf>(self, out: &mut B, _head: (), _len: usize) -> Result<(), Fail> {
        out.push(b']')
    }

    #[inline(always)]
    fn open_map<B: Buf>(self, out: &mut B, _len: Option<usize>) -> Result<(), Fail> {
        out.push(b'{')
    }

    #[inline(always)]
    fn close_map<B: Buf>(self, out: &mut B, _head: (), _len: usize) -> Result<(), Fail> {
        out.push(b'}')
    }

    fn open_variant<B: Buf>(self, out: &mut B, variant: &str) -> Result<(), Fail> {
        out.push(b'{')?;
        string::write(out, variant.as_bytes())?;
        out.push(b':')
    }

    #[inline]
    fn close_variant<B: Buf>(self, out: &mut B) -> Result<(), Fail> {
        out.push(b'}')
    }

    /// Inlined so that everything about the name of a field is a constant.
    #[inline(always)]
    fn text_key<B: Buf>(
        emitter: &mut Emitter<'_, B>,
        members: &mut Members,
        key: &str,
    ) -> Result<(), Fail> {
        let bytes = key.as_bytes();
        if string::is_short_key(bytes) {
            return emitter.short_key(members, piece_of(bytes), bytes.len());
        }
        emitter.long_key(members, bytes)
    }

    #[inline(always)]
    fn any_key<B: Buf, T: Serialize + ?Sized>(
        emitter: &mut Emitter<'_, B>,
        members: &mut Members,
        key: &T,
    ) -> Result<(), Fail> {
        key.serialize(Scalar(Key { emitter, members }))
    }

    fn private<B: Buf>(emitter: &mut Emitter<'_, B>, token: Token, text: &str) -> Result<(), Fail> {
        private::write(emitter, token, text)
    }
}
