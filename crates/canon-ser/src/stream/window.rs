//! An input read piece by piece, so that no more of it is in memory than one token needs.

use alloc::vec::Vec;
use std::io::{self, Read, Seek, SeekFrom};

/// Bytes read at a time.
pub(crate) const WINDOW: usize = if SMALL { 48 } else { 256 << 10 };

/// What there is of a token shorter than this is looked at whenever more of it has come.
const SHORT: usize = if SMALL { 16 } else { 64 << 10 };

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
    /// A stretch is what the source has at hand, and need not be full.
    prompt: bool,
}

/// A source that is read once: it never goes back.
pub(crate) struct Once<R> {
    source: R,
    offset: u64,
}

impl<R> Once<R> {
    pub(crate) fn new(source: R) -> Once<R> {
        Once { source, offset: 0 }
    }
}

impl<R: Read> Read for Once<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.offset += read as u64;
        Ok(read)
    }
}

impl<R> Seek for Once<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match to {
            SeekFrom::Current(0) => Ok(self.offset),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

impl<R: Read + Seek> Window<R> {
    /// The first stretch of what follows where the source stands: the whole input, if that is not larger.
    pub(crate) fn open(source: R) -> io::Result<Window<R>> {
        Window::over(source, false)
    }

    /// The same, but as soon as there are bytes: what is wrong with them must not wait for those that follow.
    pub(crate) fn prompt(source: R) -> io::Result<Window<R>> {
        Window::over(source, true)
    }

    fn over(mut source: R, prompt: bool) -> io::Result<Window<R>> {
        let mut window = Window {
            start: source.stream_position()?,
            source,
            bytes: Vec::new(),
            offset: 0,
            is_last: false,
            prompt,
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
        if self.prompt {
            return self.fill_promptly(more);
        }
        let read = (&mut self.source)
            .take(more as u64)
            .read_to_end(&mut self.bytes)?;
        self.is_last = read < more;
        Ok(())
    }

    /// Reads one byte at least and, where a long token did not fit, as many as there are of it: so the effort for it stays in
    /// proportion, however small the portions in which it comes. To read a short one anew costs no more than the portion.
    fn fill_promptly(&mut self, more: usize) -> io::Result<()> {
        let mut len = self.bytes.len();
        let wanted = match len {
            ..SHORT => len + 1,
            _ => 2 * len,
        };
        self.bytes.resize(len + more, 0);
        while len < wanted {
            match self.source.read(&mut self.bytes[len..]) {
                Ok(0) => break,
                Ok(read) => len += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.bytes.truncate(len);
        self.is_last = len < wanted;
        Ok(())
    }

    /// Bytes of the whole input; none if the source cannot tell.
    pub(crate) fn total(&mut self) -> io::Result<Option<u64>> {
        let here = self.source.stream_position()?;
        let end = match self.source.seek(SeekFrom::End(0)) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(None),
            end => end?,
        };
        self.source.seek(SeekFrom::Start(here))?;
        Ok(Some(end.saturating_sub(self.start)))
    }

    /// The input as far as it has been read, if that are no more than so many bytes.
    pub(crate) fn read_so_far(&mut self, bytes_max: usize) -> io::Result<Option<&[u8]>> {
        let read = self.offset + self.bytes.len();
        if read > bytes_max {
            return Ok(None);
        }
        self.source.seek(SeekFrom::Start(self.start))?;
        self.bytes.clear();
        self.offset = 0;
        (&mut self.source)
            .take(read as u64)
            .read_to_end(&mut self.bytes)?;
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
