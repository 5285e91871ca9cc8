//! Where a document comes from: a file that is read by pieces, or a pipe that is copied first, since canonical bytes are
//! written only of what has been read to its end once.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::os::fd::AsFd as _;
use std::path::Path;

/// Up to this much of a pipe is kept in memory; more goes to a file without a name.
const IN_MEMORY_MAX: u64 = 1 << 20;

/// What can be read more than once.
pub(super) trait Source: Read + Seek {}

impl<S: Read + Seek> Source for S {}

/// Opens a document; `-` is stdin.
pub(super) fn open(file: &Path) -> Result<Box<dyn Source>, String> {
    let opened = if is_stdin(file) {
        io::stdin().as_fd().try_clone_to_owned().map(File::from)
    } else {
        File::open(file)
    };
    opened
        .and_then(repeatable)
        .map_err(|error| in_file(file, &error))
}

fn repeatable(mut file: File) -> io::Result<Box<dyn Source>> {
    if file.metadata()?.is_file() {
        return Ok(Box::new(file));
    }
    let mut start = Vec::new();
    (&mut file).take(IN_MEMORY_MAX).read_to_end(&mut start)?;
    if (start.len() as u64) < IN_MEMORY_MAX {
        return Ok(Box::new(Cursor::new(start)));
    }
    let copy = copied(Cursor::new(start).chain(file));
    let copy = copy.map_err(|error| {
        let place = std::env::temp_dir();
        io::Error::other(format!("cannot copy it to {}: {error}", place.display()))
    })?;
    Ok(Box::new(copy))
}

/// Copies a pipe to a file without a name.
fn copied(mut pipe: impl Read) -> io::Result<File> {
    let mut copy = tempfile::tempfile()?;
    io::copy(&mut pipe, &mut copy)?;
    copy.seek(SeekFrom::Start(0))?;
    Ok(copy)
}

/// All of a document.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = open(file)?.read_to_end(&mut bytes);
    read.map(|_| bytes).map_err(|error| in_file(file, &error))
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
