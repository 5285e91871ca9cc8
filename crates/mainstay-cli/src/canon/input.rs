//! Where a document comes from: a file that is read by pieces, or a pipe, of which is kept what may have to be read again.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;

use tempfile::SpooledTempFile;

/// Up to this much of a pipe is kept in memory; more goes to a file without a name.
const IN_MEMORY_MAX: usize = 1 << 20;

/// What can be read more than once, as far as it is kept.
pub(super) trait Source: Read + Seek {}

impl<S: Read + Seek> Source for S {}

/// How much of a pipe is kept.
#[derive(Clone, Copy)]
pub(super) enum Keep {
    /// What fits in memory, while it does: only errors are told better for it.
    Start,
    /// All of it, which may be so many bytes.
    All(u64),
}

/// Opens a document; `-` is stdin.
pub(super) fn open(file: &Path, keep: Keep) -> Result<Box<dyn Source>, String> {
    let repeatable = |opened: File| -> io::Result<Box<dyn Source>> {
        if opened.metadata()?.is_file() {
            return Ok(Box::new(opened));
        }
        Ok(Box::new(Pipe::new(opened, keep)))
    };
    let source = open_once(file).and_then(repeatable);
    source.map_err(|error| in_file(file, &error))
}

/// Opens a document to read it once.
pub(super) fn open_once(file: &Path) -> io::Result<File> {
    if is_stdin(file) {
        io::stdin().as_fd().try_clone_to_owned().map(File::from)
    } else {
        File::open(file)
    }
}

/// A pipe, and what was read of it.
struct Pipe {
    pipe: File,
    /// None when not all of that is kept.
    copy: Option<SpooledTempFile>,
    /// Bytes of the copy.
    copied: u64,
    /// Where the next byte comes from: the copy, or behind it the pipe.
    at: u64,
    ended: bool,
    keep: Keep,
}

impl Pipe {
    fn new(pipe: File, keep: Keep) -> Pipe {
        Pipe {
            pipe,
            copy: Some(SpooledTempFile::new(IN_MEMORY_MAX)),
            copied: 0,
            at: 0,
            ended: false,
            keep,
        }
    }

    fn copy(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(copy) = &mut self.copy else {
            return Ok(());
        };
        let copied = self.copied + bytes.len() as u64;
        match self.keep {
            Keep::Start if copied > IN_MEMORY_MAX as u64 => {
                self.copy = None;
                return Ok(());
            }
            Keep::All(max) if copied > max => return Err(too_large(max)),
            _ => {}
        }
        let written = copy.seek(SeekFrom::Start(self.copied));
        let written = written.and_then(|_| copy.write_all(bytes));
        self.copied = copied;
        written.map_err(|error| {
            let place = std::env::temp_dir();
            io::Error::other(format!("cannot copy it to {}: {error}", place.display()))
        })
    }
}

fn too_large(max: u64) -> io::Error {
    io::Error::other(format!(
        "the pipe holds more than {max} bytes, the most that is kept of one for a further reading: raise that \
         (--spool-max), give a file, or write while reading (--stream)"
    ))
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.copy {
            Some(copy) if self.at < self.copied => {
                copy.seek(SeekFrom::Start(self.at))?;
                copy.read(buffer)?
            }
            _ => {
                let read = self.pipe.read(buffer)?;
                self.ended = read == 0;
                self.copy(&buffer[..read])?;
                read
            }
        };
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Pipe {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let kept = self.copy.is_some();
        self.at = match to {
            SeekFrom::Current(0) => self.at,
            SeekFrom::Start(at) if kept && at <= self.copied => at,
            SeekFrom::End(0) if kept && self.ended => self.copied,
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        Ok(self.at)
    }
}

/// All of a document; of a pipe at most so many bytes.
pub(super) fn read(file: &Path, pipe_max: u64) -> Result<Vec<u8>, String> {
    let all = |opened: File| {
        let max = match opened.metadata()?.is_file() {
            true => u64::MAX,
            false => pipe_max,
        };
        let mut bytes = Vec::new();
        opened.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
        match bytes.len() as u64 > max {
            true => Err(too_large(max)),
            false => Ok(bytes),
        }
    };
    open_once(file)
        .and_then(all)
        .map_err(|error| in_file(file, &error))
}

pub(super) fn is_stdin(file: &Path) -> bool {
    file == Path::new("-")
}

pub(super) fn name(file: &Path) -> String {
    if is_stdin(file) {
        "stdin".into()
    } else {
        file.display().to_string()
    }
}

pub(super) fn in_file(file: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{}: {error}", name(file))
}
