//! An input read piece by piece, so that no more of it is in memory than one token needs.

use alloc::vec::Vec;
use std::io::{self, Read, Seek, SeekFrom};

/// Bytes read at a time.
pub(crate) const WINDOW: usize = if SMALL { 48 } else { 256 << 10 };

/// Tests want to see every boundary, and small inputs reach none of the real ones.
pub(crate) const SMALL: bool = cfg!(any(test, fuzzing));

/// The stretch of a source that is in memory.
pub(crate) struct Window<R> {
    source: R,
    /// Where the input starts in the source.
    start: u64,
    bytes: Vec<u8>,
    /// Bytes of the input before those.
    offset: usize,
    is_last: bool,
}

impl<R: Read + Seek> Window<R> {
    /// The first stretch of what follows where the source stands.
    pub(crate) fn open(mut source: R) -> io::Result<Window<R>> {
        let mut window = Window {
            start: source.stream_position()?,
            source,
            bytes: Vec::new(),
            offset: 0,
            is_last: false,
        };
        window.fill(WINDOW)?;
        Ok(window)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    /// Nothing follows the stretch.
    pub(crate) fn is_last(&self) -> bool {
        self.is_last
    }

    /// Goes back to the first stretch.
    pub(crate) fn rewind(&mut self) -> io::Result<()> {
        self.source.seek(SeekFrom::Start(self.start))?;
        self.bytes.clear();
        self.offset = 0;
        self.is_last = false;
        self.fill(WINDOW)
    }

    /// Lets go of what stands before `offset`, and reads on: a token that did not fit has room for twice as much.
    pub(crate) fn advance(&mut self, offset: usize) -> io::Result<()> {
        self.bytes.drain(..offset - self.offset);
        self.offset = offset;
        let kept = self.bytes.len();
        if kept < WINDOW {
            self.bytes.shrink_to(2 * WINDOW);
        }
        self.fill(kept.max(WINDOW))
    }

    fn fill(&mut self, more: usize) -> io::Result<()> {
        self.bytes.reserve_exact(more);
        let read = (&mut self.source)
            .take(more as u64)
            .read_to_end(&mut self.bytes)?;
        self.is_last = read < more;
        Ok(())
    }

    /// Bytes of the whole input.
    pub(crate) fn total(&mut self) -> io::Result<u64> {
        let here = self.source.stream_position()?;
        let end = self.source.seek(SeekFrom::End(0))?;
        self.source.seek(SeekFrom::Start(here))?;
        Ok(end.saturating_sub(self.start))
    }

    /// The whole input, if it has no more than so many bytes.
    pub(crate) fn whole(&mut self, bytes_max: u64) -> io::Result<Option<&[u8]>> {
        if self.total()? > bytes_max {
            return Ok(None);
        }
        self.rewind()?;
        self.source.read_to_end(&mut self.bytes)?;
        self.is_last = true;
        Ok(Some(&self.bytes))
    }

    /// Line and column of an offset.
    pub(crate) fn place(&mut self, offset: usize) -> io::Result<(usize, usize)> {
        self.rewind()?;
        let (mut line, mut line_start) = (1, 0);
        loop {
            let upto = self.bytes.len().min(offset.saturating_sub(self.offset));
            for (at, _) in self.bytes[..upto]
                .iter()
                .enumerate()
                .filter(|&(_, &byte)| byte == b'\n')
            {
                line += 1;
                line_start = self.offset + at + 1;
            }
            let end = self.offset + self.bytes.len();
            if end >= offset || self.is_last {
                return Ok((line, offset.saturating_sub(line_start) + 1));
            }
            self.advance(end)?;
        }
    }
}
