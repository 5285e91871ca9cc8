//! A device's ledger in a file, byte by byte in `docs/FORMAT.md` of this crate.
//!
//! A header, then entries of `length, CRC-32C, kind, command id, ...`, each durable before the
//! device acts on it. A torn last entry is cut at the next start. When most of the file is history,
//! a new one with the living entries takes its place.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::ledger::Answer;
use crate::proto::{BootId, CommandId, PAYLOAD_BYTES_MAX, ResultStatus};

/// `MSTJ`, version 1, three bytes of zero; the boot id and its checksum follow.
const MAGIC: [u8; 8] = *b"MSTJ\x01\0\0\0";
const HEADER_BYTES: usize = 8 + 16 + 4;
const ENTRY_HEADER_BYTES: usize = 8;
const ENTRY_BYTES_MAX: usize = 1 + 16 + 1 + PAYLOAD_BYTES_MAX;

/// Below this size a file is never compacted.
const COMPACT_BYTES_MIN: u64 = 64 * 1024;

const STARTED: u8 = 1;
const DONE: u8 = 2;
const FORGOTTEN: u8 = 3;

/// What is known of each command; `None` while it runs.
type Commands = HashMap<CommandId, Option<Answer>>;

/// One line of history.
pub(crate) enum Entry<'a> {
    Started { id: CommandId },
    Done { id: CommandId, answer: &'a Answer },
    Forgotten { id: CommandId },
}

pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// The size at which it is worth a look whether the file can shrink.
    compact_at: u64,
    /// A write failed: what the file ends with is not known, so nothing more is appended.
    broken: bool,
}

impl Journal {
    /// Reads the file at `path`, or makes one for `fresh_boot`. A file that ends inside its header
    /// is made anew: no entry can have been acted on.
    pub(crate) fn open(path: &Path, fresh_boot: BootId) -> io::Result<(Self, BootId, Commands)> {
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        file.try_lock().map_err(|_| {
            let text = format!("{} is in use by another device process", path.display());
            io::Error::new(io::ErrorKind::WouldBlock, text)
        })?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let mut commands = Commands::new();
        let (boot, keep) = if bytes.len() < HEADER_BYTES {
            (fresh_boot, 0)
        } else {
            let boot = read_header(&bytes).ok_or_else(|| damaged(path, 0))?;
            (
                boot,
                HEADER_BYTES + read_entries(path, &bytes, &mut commands)?,
            )
        };
        if keep < bytes.len() {
            file.set_len(keep as u64)?;
        }
        if keep == 0 {
            file.write_all(&header(boot))?;
        }
        file.sync_all()?;
        sync_dir(path)?;
        let bytes = keep.max(HEADER_BYTES) as u64;
        let path = path.to_owned();
        let compact_at = COMPACT_BYTES_MIN.max(bytes * 2);
        Ok((
            Self {
                path,
                file,
                bytes,
                compact_at,
                broken: false,
            },
            boot,
            commands,
        ))
    }

    /// Makes `entry` durable.
    pub(crate) fn append(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other(
                "an earlier write failed; start the device again",
            ));
        }
        let mut bytes = Vec::new();
        put_entry(&mut bytes, entry);
        let written = self
            .file
            .write_all(&bytes)
            .and_then(|()| self.file.sync_data());
        self.broken = written.is_err();
        self.bytes += bytes.len() as u64;
        written
    }

    /// Writes the living entries to a new file, if the old one has grown enough.
    pub(crate) fn compact_if_worthwhile(&mut self, boot: BootId, commands: &Commands) {
        if self.broken || self.bytes < self.compact_at {
            return;
        }
        match self.compact(boot, commands) {
            Ok(()) => self.compact_at = COMPACT_BYTES_MIN.max(self.bytes * 2),
            Err(error) => {
                // The old file is still whole; try again when it has doubled.
                tracing::warn!(%error, "the device's journal could not be compacted");
                self.compact_at = self.bytes * 2;
            }
        }
    }

    fn compact(&mut self, boot: BootId, commands: &Commands) -> io::Result<()> {
        // The whole name, not another extension: `pump.1` and `pump.2` are two devices.
        let mut fresh = self.path.clone().into_os_string();
        fresh.push(".new");
        let mut bytes = header(boot).to_vec();
        for (&id, answer) in commands {
            match answer {
                None => put_entry(&mut bytes, &Entry::Started { id }),
                Some(answer) => put_entry(&mut bytes, &Entry::Done { id, answer }),
            }
        }
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .truncate(false)
            .open(&fresh)?;
        file.try_lock().map_err(io::Error::from)?;
        file.set_len(0)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, &self.path)?;
        sync_dir(&self.path)?;
        (self.file, self.bytes) = (file, bytes.len() as u64);
        Ok(())
    }
}

fn header(boot: BootId) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..24].copy_from_slice(&boot.0);
    let checksum = crc32c::crc32c(&header[..24]);
    header[24..].copy_from_slice(&checksum.to_le_bytes());
    header
}

fn read_header(bytes: &[u8]) -> Option<BootId> {
    let boot = BootId(bytes.get(8..24)?.try_into().ok()?);
    (bytes[..HEADER_BYTES] == header(boot)).then_some(boot)
}

/// Reads whole entries into `commands`; returns how many bytes they take. What follows the last
/// whole entry is a torn write, unless more entries follow it: then the file is damaged.
fn read_entries(path: &Path, file: &[u8], commands: &mut Commands) -> io::Result<usize> {
    let entries = &file[HEADER_BYTES..];
    let mut at = 0;
    while let Some((entry_bytes, entry)) = read_entry(&entries[at..]) {
        match entry {
            Read::Started(id) => {
                commands.entry(id).or_insert(None);
            }
            Read::Done(id, answer) => {
                commands.insert(id, Some(answer));
            }
            Read::Forgotten(id) => {
                commands.remove(&id);
            }
        }
        at += entry_bytes;
    }
    let rest = &entries[at..];
    let later_entry = (1..rest.len()).any(|skip| read_entry(&rest[skip..]).is_some());
    if later_entry {
        Err(damaged(path, HEADER_BYTES + at))
    } else {
        Ok(at)
    }
}

fn damaged(path: &Path, offset: usize) -> io::Error {
    let text = format!(
        "{} is damaged at byte {offset}; if the device may lose its memory of commands, move the file away",
        path.display()
    );
    io::Error::new(io::ErrorKind::InvalidData, text)
}

enum Read {
    Started(CommandId),
    Done(CommandId, Answer),
    Forgotten(CommandId),
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry<'_>) {
    let mut body = Vec::new();
    match entry {
        Entry::Started { id } => {
            body.push(STARTED);
            body.extend_from_slice(&id.0);
        }
        Entry::Done { id, answer } => {
            body.push(DONE);
            body.extend_from_slice(&id.0);
            body.push(answer.status.byte());
            body.extend_from_slice(&answer.body);
        }
        Entry::Forgotten { id } => {
            body.push(FORGOTTEN);
            body.extend_from_slice(&id.0);
        }
    }
    let length = u32::try_from(body.len()).expect("an answer has at most PAYLOAD_BYTES_MAX bytes");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    out.extend_from_slice(&body);
}

/// The entry at the front of `bytes` and its length; `None` when there is no whole, intact one.
fn read_entry(bytes: &[u8]) -> Option<(usize, Read)> {
    let (header, rest) = bytes.split_first_chunk::<ENTRY_HEADER_BYTES>()?;
    let (length, checksum) = header.split_at(4);
    let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
    let body = rest.get(..length).filter(|_| length <= ENTRY_BYTES_MAX)?;
    if crc32c::crc32c(body).to_le_bytes() != checksum {
        return None;
    }
    let (&kind, rest) = body.split_first()?;
    let (id, rest) = rest.split_first_chunk::<16>()?;
    let id = CommandId(*id);
    let entry = match (kind, rest) {
        (STARTED, []) => Read::Started(id),
        (FORGOTTEN, []) => Read::Forgotten(id),
        (DONE, [status, body @ ..]) => {
            let status = ResultStatus::from_byte(*status)?;
            Read::Done(
                id,
                Answer {
                    status,
                    body: body.to_vec(),
                },
            )
        }
        _ => return None,
    };
    Some((ENTRY_HEADER_BYTES + length, entry))
}

/// Makes a new or renamed file's name durable.
fn sync_dir(path: &Path) -> io::Result<()> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: BootId =
        BootId(*b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f");
    const ID: CommandId =
        CommandId(*b"\xa0\xa1\xa2\xa3\xa4\xa5\xa6\xa7\xa8\xa9\xaa\xab\xac\xad\xae\xaf");

    /// The file that docs/FORMAT.md prints.
    fn golden() -> Vec<u8> {
        let page = include_str!("../../docs/FORMAT.md");
        let hex = page.rsplit("```").nth(1).unwrap();
        hex.split_whitespace()
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect()
    }

    fn open(path: &Path) -> io::Result<(BootId, Commands)> {
        Journal::open(path, BootId([0xee; 16])).map(|(_, boot, commands)| (boot, commands))
    }

    #[test]
    fn a_file_has_exactly_these_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device.journal");
        let (mut journal, ..) = Journal::open(&path, BOOT).unwrap();
        let answer = Answer::json("42");
        let done = Entry::Done {
            id: ID,
            answer: &answer,
        };
        for entry in [Entry::Started { id: ID }, done, Entry::Forgotten { id: ID }] {
            journal.append(&entry).unwrap();
        }
        drop(journal);
        assert_eq!(fs::read(&path).unwrap(), golden());
    }

    #[test]
    fn a_file_of_version_1_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device.journal");
        let golden = golden();
        // The header, and what is known behind each of the three entries.
        for (end, known) in [
            (28, None),
            (53, Some(None)),
            (81, Some(Some(Answer::json("42")))),
            (golden.len(), None),
        ] {
            fs::write(&path, &golden[..end]).unwrap();
            let (boot, commands) = open(&path).unwrap();
            assert_eq!((boot, commands.get(&ID)), (BOOT, known.as_ref()), "{end}");
        }
    }

    #[test]
    fn a_file_that_was_changed_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device.journal");
        let golden = golden();
        // Damage in the last entry is a torn write; anywhere before it is damage.
        for at in 0..81 {
            let mut changed = golden.clone();
            changed[at] ^= 0x40;
            fs::write(&path, &changed).unwrap();
            let error = open(&path).err().unwrap_or_else(|| panic!("byte {at}"));
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "byte {at}");
            assert_eq!(fs::read(&path).unwrap(), changed, "byte {at}");
        }
        for at in 81..golden.len() {
            let mut torn = golden.clone();
            torn[at] ^= 0x40;
            fs::write(&path, &torn).unwrap();
            assert!(open(&path).unwrap().1[&ID].is_some(), "byte {at}");
            assert_eq!(fs::read(&path).unwrap(), golden[..81], "byte {at}");
        }
    }
}
