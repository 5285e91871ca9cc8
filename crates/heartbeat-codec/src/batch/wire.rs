//! The spelling of numbers and bits.

use alloc::vec::Vec;

use super::{BatchError, malformed, over};

/// Appends unsigned LEB128.
pub(super) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed number, folded.
pub(super) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, fold(value));
}

/// Signed numbers so that small ones stay small: 0, -1, 1, -2, ...
pub(super) fn fold(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

/// What was folded.
pub(super) fn unfold(folded: u64) -> i64 {
    (folded >> 1) as i64 ^ -((folded & 1) as i64)
}

/// Reads what [`put`] and [`put_signed`] wrote.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn byte(&mut self) -> Result<u8, BatchError> {
        let (first, rest) = self.0.split_first().ok_or(malformed("it is cut short"))?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn number(&mut self) -> Result<u64, BatchError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && byte > 1 || shift > 0 && byte == 0 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(malformed("a number is not in its shortest spelling"))
    }

    pub(super) fn signed(&mut self) -> Result<i64, BatchError> {
        self.number().map(unfold)
    }

    /// A number up to `max` of what is named.
    pub(super) fn count(&mut self, max: usize, what: &'static str) -> Result<usize, BatchError> {
        let count = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        if count > max {
            return Err(over(what));
        }
        Ok(count)
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], BatchError> {
        let (bytes, rest) = self
            .0
            .split_at_checked(count)
            .ok_or(malformed("it is cut short"))?;
        self.0 = rest;
        Ok(bytes)
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<(), BatchError> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(malformed("something is left over")),
        }
    }
}

/// Packs numbers of some bits each, the lowest first.
#[derive(Debug, Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    pending: u64,
    pending_bits: u32,
}

impl BitWriter {
    /// `bits` is at most 24, and `value` has no more.
    pub(super) fn put(&mut self, value: u64, bits: u8) {
        self.pending |= value << self.pending_bits;
        self.pending_bits += u32::from(bits);
        while self.pending_bits >= 8 {
            self.bytes.push(self.pending as u8);
            self.pending >>= 8;
            self.pending_bits -= 8;
        }
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.pending_bits > 0 {
            self.bytes.push(self.pending as u8);
        }
        self.bytes
    }
}

/// Reads what [`BitWriter`] packed.
#[derive(Debug)]
pub(super) struct BitReader<'a> {
    bytes: Reader<'a>,
    pending: u64,
    pending_bits: u32,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        BitReader {
            bytes: Reader(bytes),
            pending: 0,
            pending_bits: 0,
        }
    }

    pub(super) fn take(&mut self, bits: u8) -> Result<u64, BatchError> {
        while self.pending_bits < u32::from(bits) {
            self.pending |= u64::from(self.bytes.byte()?) << self.pending_bits;
            self.pending_bits += 8;
        }
        let value = self.pending & ((1 << bits) - 1);
        self.pending >>= bits;
        self.pending_bits -= u32::from(bits);
        Ok(value)
    }

    /// Nothing but zeros up to the end of the last byte may be left.
    pub(super) fn end(self) -> Result<(), BatchError> {
        if self.pending != 0 {
            return Err(malformed("something is left over"));
        }
        self.bytes.end()
    }
}
