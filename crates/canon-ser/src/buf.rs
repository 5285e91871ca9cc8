//! Where canonical bytes go: a growing vector or a fixed slice, behind one small trait.

use alloc::vec::Vec;
use core::ops::Range;

use crate::error::{Code, Fail};

/// Up to this many bytes, as a little-endian number: the first byte is the lowest.
pub(crate) type Piece = u128;
pub(crate) const PIECE_MAX: usize = size_of::<Piece>();

/// Texts up to here are written piece by piece.
const SHORT_MAX: usize = 2 * PIECE_MAX;

/// A short string as a [`Piece`], from loads that overlap.
#[inline]
pub(crate) fn piece_of(bytes: &[u8]) -> Piece {
    debug_assert!(bytes.len() <= PIECE_MAX, "longer strings are no pieces");
    if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        let (first, last) = (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
        return Piece::from(first) | Piece::from(last) << (8 * (bytes.len() - 8));
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        return Piece::from(u64::from(first) | u64::from(last) << (8 * (bytes.len() - 4)));
    }
    let word = bytes
        .iter()
        .rev()
        .fold(0, |word, &byte| word << 8 | u32::from(byte));
    Piece::from(word)
}

/// An output that can also be read back and rearranged: entries are permuted in place.
pub(crate) trait Buf {
    /// Grows by allocating, so that its free end is no cheaper than other memory.
    const GROWS: bool;

    fn push(&mut self, byte: u8) -> Result<(), Fail>;
    fn extend(&mut self, bytes: &[u8]) -> Result<(), Fail>;
    /// Appends the first `len` bytes of `piece`: one store of fixed size, where a copy of variable size costs a call.
    fn put(&mut self, piece: Piece, len: usize) -> Result<(), Fail>;
    /// Appends a text and a byte after it, without a call for what is short.
    #[inline]
    fn extend_then(&mut self, text: &[u8], last: u8) -> Result<(), Fail> {
        if text.len() > SHORT_MAX {
            self.extend(text)?;
            return self.push(last);
        }
        let (pieces, rest) = text.as_chunks::<PIECE_MAX>();
        for piece in pieces {
            self.put(Piece::from_le_bytes(*piece), PIECE_MAX)?;
        }
        let last = Piece::from(last) << (8 * rest.len());
        self.put(piece_of(rest) | last, rest.len() + 1)
    }

    /// Appends a copy of bytes that are already in the buffer.
    fn repeat(&mut self, range: Range<usize>) -> Result<(), Fail>;
    fn bytes(&self) -> &[u8];
    fn bytes_mut(&mut self) -> &mut [u8];
    fn truncate(&mut self, len: usize);
    /// How many more bytes fit.
    fn room(&self) -> usize;

    #[inline]
    fn len(&self) -> usize {
        self.bytes().len()
    }
}

impl Buf for Vec<u8> {
    const GROWS: bool = true;

    #[inline]
    fn push(&mut self, byte: u8) -> Result<(), Fail> {
        Vec::push(self, byte);
        Ok(())
    }

    #[inline]
    fn extend(&mut self, bytes: &[u8]) -> Result<(), Fail> {
        self.extend_from_slice(bytes);
        Ok(())
    }

    #[inline]
    fn put(&mut self, piece: Piece, len: usize) -> Result<(), Fail> {
        let end = Vec::len(self) + len;
        self.extend_from_slice(&piece.to_le_bytes());
        Vec::truncate(self, end);
        Ok(())
    }

    #[inline]
    fn repeat(&mut self, range: Range<usize>) -> Result<(), Fail> {
        self.extend_from_within(range);
        Ok(())
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        self
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }

    #[inline]
    fn truncate(&mut self, len: usize) {
        Vec::truncate(self, len);
    }

    #[inline]
    fn room(&self) -> usize {
        usize::MAX - Vec::len(self)
    }
}

/// A fixed buffer: everything fails once it is full, nothing is allocated.
pub(crate) struct Fixed<'b> {
    bytes: &'b mut [u8],
    len: usize,
}

impl<'b> Fixed<'b> {
    pub(crate) fn new(bytes: &'b mut [u8]) -> Fixed<'b> {
        Fixed { bytes, len: 0 }
    }
}

impl Buf for Fixed<'_> {
    const GROWS: bool = false;

    #[inline]
    fn push(&mut self, byte: u8) -> Result<(), Fail> {
        let slot = self.bytes.get_mut(self.len).ok_or(Fail::new(Code::Full))?;
        *slot = byte;
        self.len += 1;
        Ok(())
    }

    #[inline]
    fn extend(&mut self, bytes: &[u8]) -> Result<(), Fail> {
        let free = self
            .bytes
            .get_mut(self.len..)
            .and_then(|free| free.get_mut(..bytes.len()));
        free.ok_or(Fail::new(Code::Full))?.copy_from_slice(bytes);
        self.len += bytes.len();
        Ok(())
    }

    #[inline]
    fn put(&mut self, piece: Piece, len: usize) -> Result<(), Fail> {
        let free = self.bytes.get_mut(self.len..);
        match free.and_then(|free| free.first_chunk_mut::<PIECE_MAX>()) {
            Some(free) => *free = piece.to_le_bytes(),
            None => return self.extend(&piece.to_le_bytes()[..len]),
        }
        self.len += len;
        Ok(())
    }

    fn repeat(&mut self, range: Range<usize>) -> Result<(), Fail> {
        if range.len() > self.room() {
            return Err(Fail::new(Code::Full));
        }
        let (at, len) = (self.len, range.len());
        self.bytes.copy_within(range, at);
        self.len += len;
        Ok(())
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }

    #[inline]
    fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    #[inline]
    fn room(&self) -> usize {
        self.bytes.len() - self.len
    }

    #[inline]
    fn len(&self) -> usize {
        self.len
    }
}
