//! Where canonical bytes go: memory that grows or a fixed slice, behind one small trait.
//!
//! Either is initialised memory with a count of the bytes in use, so that what is short is written by stores of fixed
//! size that may run past its end, into bytes that are free anyway: a copy of variable size costs a call.

#[cfg(feature = "alloc")]
use alloc::vec::Vec;

use core::ops::Range;

use crate::error::{Code, Fail};

/// Up to this many bytes, as a little-endian number: the first byte is the lowest.
pub(crate) type Piece = u128;
pub(crate) const PIECE_MAX: usize = size_of::<Piece>();

/// A short string as a [`Piece`], from loads that overlap.
#[inline]
pub(crate) fn piece_of(bytes: &[u8]) -> Piece {
    debug_assert!(bytes.len() <= PIECE_MAX, "longer strings are no pieces");
    if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        let (first, last) = (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
        // The bytes of the last word that the first one has not.
        let rest = last.checked_shr(128 - 8 * bytes.len() as u32).unwrap_or(0);
        return Piece::from(first) | Piece::from(rest) << 64;
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

/// An output that can also be read back and rearranged.
pub(crate) trait Buf {
    /// Grows by allocating: memory behind its end is no cheaper than other memory.
    const GROWS: bool;

    /// Its first bytes may leave it before all is written: see [`crate::drain`].
    const DRAINS: bool = false;

    /// All memory, in use or free.
    fn memory(&self) -> &[u8];
    fn memory_mut(&mut self) -> &mut [u8];
    /// How many bytes are in use.
    fn len(&self) -> usize;
    /// At most as many as there is memory.
    fn set_len(&mut self, len: usize);
    /// Makes sure that this many more bytes fit.
    fn grow(&mut self, more: usize) -> Result<(), Fail>;

    /// How many bytes have left.
    #[inline(always)]
    fn drained(&self) -> usize {
        0
    }

    /// Bytes may leave now: nobody holds a place in the buffer.
    #[inline(always)]
    fn drain(&mut self) -> Result<(), Fail> {
        Ok(())
    }

    /// A container starts here, which must `hold`, or may leave before it ends.
    #[inline(always)]
    fn opened(&mut self, _hold: bool) {}

    /// The innermost container has ended.
    #[inline(always)]
    fn closed(&mut self) {}

    /// Holds the innermost container until it ends. False if that comes too late, so that it must not be changed.
    #[inline(always)]
    fn hold(&mut self) -> Result<bool, Fail> {
        Ok(true)
    }

    /// Keeps a copy of the last key of the innermost container.
    #[inline(always)]
    fn keep_key(&mut self, _key: Range<usize>) {}

    #[inline(always)]
    fn kept_key(&self) -> &[u8] {
        &[]
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.memory()[..self.len()]
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.len();
        &mut self.memory_mut()[..len]
    }

    #[inline]
    fn truncate(&mut self, len: usize) {
        self.set_len(len.min(self.len()));
    }

    /// The next `N` free bytes, if there are as many: to be filled in part, and counted with [`Buf::set_len`].
    #[inline(always)]
    fn window<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        let at = self.len();
        self.memory_mut().get_mut(at..)?.first_chunk_mut::<N>()
    }

    #[inline(always)]
    fn push(&mut self, byte: u8) -> Result<(), Fail> {
        let at = self.len();
        match self.memory_mut().get_mut(at) {
            Some(free) => *free = byte,
            None => return self.extend_growing(&[byte]),
        }
        self.set_len(at + 1);
        Ok(())
    }

    #[inline]
    fn extend(&mut self, bytes: &[u8]) -> Result<(), Fail> {
        let at = self.len();
        let end = at + bytes.len();
        match self.memory_mut().get_mut(at..end) {
            Some(free) => free.copy_from_slice(bytes),
            None => return self.extend_growing(bytes),
        }
        self.set_len(end);
        Ok(())
    }

    /// Appends the first `len` bytes of `piece`.
    #[inline(always)]
    fn put(&mut self, piece: Piece, len: usize) -> Result<(), Fail> {
        match self.window::<PIECE_MAX>() {
            Some(free) => *free = piece.to_le_bytes(),
            None => return self.put_growing(piece, len),
        }
        self.set_len(self.len() + len);
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn put_growing(&mut self, piece: Piece, len: usize) -> Result<(), Fail> {
        self.extend_growing(&piece.to_le_bytes()[..len])
    }

    #[cold]
    #[inline(never)]
    fn extend_growing(&mut self, bytes: &[u8]) -> Result<(), Fail> {
        self.grow(bytes.len())?;
        let (at, end) = (self.len(), self.len() + bytes.len());
        self.memory_mut()[at..end].copy_from_slice(bytes);
        self.set_len(end);
        Ok(())
    }
}

/// Memory that grows.
#[cfg(feature = "alloc")]
pub(crate) struct Growing {
    /// Initialised as far as it is long.
    memory: Vec<u8>,
    len: usize,
}

/// How far memory is initialised beyond what is needed at once.
#[cfg(feature = "alloc")]
const AHEAD: usize = 32 << 10;

#[cfg(feature = "alloc")]
impl Growing {
    pub(crate) const fn new() -> Growing {
        Growing {
            memory: Vec::new(),
            len: 0,
        }
    }

    /// With room for that many bytes.
    pub(crate) fn with_room(bytes: usize) -> Growing {
        Growing {
            memory: alloc::vec![0; bytes],
            len: 0,
        }
    }

    pub(crate) fn into_vec(self) -> Vec<u8> {
        let mut memory = self.memory;
        memory.truncate(self.len);
        memory
    }
}

#[cfg(feature = "alloc")]
impl Buf for Growing {
    const GROWS: bool = true;

    #[inline(always)]
    fn memory(&self) -> &[u8] {
        &self.memory
    }

    #[inline(always)]
    fn memory_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    fn set_len(&mut self, len: usize) {
        self.len = len;
    }

    /// Leaves a window free as well, or each short write at the end of the memory would come here.
    #[cold]
    fn grow(&mut self, more: usize) -> Result<(), Fail> {
        let needed = self.len + more + PIECE_MAX;
        if needed > self.memory.len() {
            self.memory.reserve(needed - self.memory.len());
            let ahead = self.memory.capacity().min(needed + AHEAD);
            self.memory.resize(ahead, 0);
        }
        Ok(())
    }
}

/// A fixed buffer: everything fails once it is full, nothing is allocated.
pub(crate) struct Fixed<'b> {
    memory: &'b mut [u8],
    len: usize,
}

impl<'b> Fixed<'b> {
    #[inline]
    pub(crate) fn new(memory: &'b mut [u8]) -> Fixed<'b> {
        Fixed { memory, len: 0 }
    }
}

impl Buf for Fixed<'_> {
    const GROWS: bool = false;

    #[inline(always)]
    fn memory(&self) -> &[u8] {
        self.memory
    }

    #[inline(always)]
    fn memory_mut(&mut self) -> &mut [u8] {
        self.memory
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    fn set_len(&mut self, len: usize) {
        self.len = len;
    }

    #[cold]
    fn grow(&mut self, more: usize) -> Result<(), Fail> {
        if more > self.memory.len() - self.len {
            return Err(Fail::new(Code::Full));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Buf as _, Fixed, piece_of};

    #[test]
    fn pieces_of_every_length() {
        let text: [u8; 16] = core::array::from_fn(|at| 0xf0 - at as u8);
        for len in 0..=16 {
            let mut expected = [0; 16];
            expected[..len].copy_from_slice(&text[..len]);
            assert_eq!(piece_of(&text[..len]).to_le_bytes(), expected, "{len}");
        }
    }

    #[test]
    fn a_fixed_buffer_takes_what_fits_to_the_last_byte() {
        let mut memory = [0; 20];
        let mut out = Fixed::new(&mut memory);
        out.put(piece_of(b"0123456789"), 10).expect("there is room");
        out.put(piece_of(b"abcdefghi"), 9).expect("it just fits");
        out.put(piece_of(b"xy"), 2).expect_err("one byte is left");
        out.push(b'!').expect("it takes that byte");
        out.push(b'!').expect_err("none is left");
        assert_eq!(out.bytes(), b"0123456789abcdefghi!");
    }
}
