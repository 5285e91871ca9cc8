//! The seam between the store and the disk: the real one here, simulated ones in the tests.
//!
//! Hidden from the documentation: it may change with any release.

use std::any::Any;
use std::collections::hash_map::RandomState;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FallocateFlags, OFlags, StatxFlags};

/// A directory of segment files.
pub trait Vfs: Send + Sync {
    /// Takes the directory for this process until the guard is dropped; `WouldBlock` when another
    /// has it.
    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>>;
    /// Whether somebody has taken the directory.
    fn is_locked(&self) -> bool;
    /// The names in the directory.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes a new file (or empties an old one) with `bytes` bytes of space allocated.
    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn VfsFile>>;
    /// Opens an existing file.
    fn open(&self, name: &str) -> io::Result<Arc<dyn VfsFile>>;
    /// Renames within the directory, replacing what has the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes earlier creations, renames and removals durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// A number that differs from store to store.
    fn random(&self) -> u64;
}

/// One file of a [`Vfs`].
pub trait VfsFile: Send + Sync {
    /// Reads up to `buf.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes`.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes the data durable (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;
    /// Writes all of `bytes` and makes them durable, like [`write_all_at`](Self::write_all_at) and
    /// [`sync_data`](Self::sync_data) in one. Offset and length are multiples of
    /// [`durable_unit`](Self::durable_unit), and `bytes` starts at a multiple of it in memory.
    /// Says nothing of what was written by other means before.
    fn write_durably_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)?;
        self.sync_data()
    }
    /// What [`write_durably_at`](Self::write_durably_at) asks for: a power of two, at most
    /// [`UNIT_MAX`].
    fn durable_unit(&self) -> usize {
        1
    }
    /// Bytes in the file.
    fn bytes(&self) -> io::Result<u64>;
}

/// The largest unit of durable writes; a log that a file with a larger one would hold is written
/// and synced in two steps.
pub const UNIT_MAX: usize = 4096;

/// Bytes that start at a multiple of [`UNIT_MAX`] in memory, as direct writes need.
#[derive(Default)]
pub struct Aligned {
    room: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    /// Makes it empty, with room for `capacity` bytes.
    pub fn clear(&mut self, capacity: usize) {
        let needed = capacity + UNIT_MAX;
        if self.room.len() < needed {
            self.room = vec![0; needed.next_power_of_two()];
            self.start = self.room.as_ptr().align_offset(UNIT_MAX);
        }
        self.len = 0;
    }

    /// Adds bytes, which must fit the room.
    pub fn push(&mut self, bytes: &[u8]) {
        let at = self.start + self.len;
        self.room[at..at + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Adds zeros up to a multiple of `unit`.
    pub fn pad(&mut self, unit: usize) {
        let end = self.len.next_multiple_of(unit);
        self.room[self.start + self.len..self.start + end].fill(0);
        self.len = end;
    }

    /// What was added.
    pub fn bytes(&self) -> &[u8] {
        &self.room[self.start..self.start + self.len]
    }
}

const LOCK: &str = "lock";

/// Makes a directory and those above it that are missing: their entries survive a power cut like
/// what will be in them.
pub(crate) fn create_dir(dir: &Path) -> io::Result<()> {
    let is_missing = |dir: &&Path| !dir.as_os_str().is_empty() && !dir.is_dir();
    let missing: Vec<_> = dir.ancestors().take_while(is_missing).collect();
    fs::create_dir_all(dir)?;
    for new in missing {
        let parent = new.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

/// The real file system.
pub struct OsVfs {
    dir: PathBuf,
    writable: bool,
}

impl OsVfs {
    /// A directory that is created when it is missing.
    pub fn create(dir: &Path) -> io::Result<Self> {
        create_dir(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            writable: true,
        })
    }

    /// An existing directory, only read.
    pub fn read_only(dir: &Path) -> io::Result<Self> {
        fs::read_dir(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            writable: false,
        })
    }
}

impl Vfs for OsVfs {
    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.dir.join(LOCK))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Somebody may remove the file, and the next one who opens would make and lock another.
        let dir = File::open(&self.dir)?;
        match dir.try_lock() {
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            // Some network file systems lock no directories: the file alone has to do there.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(Box::new((file, dir))),
        }
    }

    fn is_locked(&self) -> bool {
        // Held for a moment: an opener that meets it tries again.
        let is_locked = |path: &Path| {
            let file = File::open(path);
            file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
        };
        is_locked(&self.dir.join(LOCK)) || is_locked(&self.dir)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn VfsFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(self.dir.join(name))?;
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => {}
            // Not every file system can; there, only writing takes the space.
            Err(rustix::io::Errno::OPNOTSUPP) => fill(&file, bytes)?,
            Err(error) => return Err(error.into()),
        }
        Ok(Arc::new(self.file(file, name)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn VfsFile>> {
        let path = self.dir.join(name);
        check_regular(&path)?;
        let file = OpenOptions::new()
            .read(true)
            .write(self.writable)
            .open(path)?;
        Ok(Arc::new(self.file(file, name)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn random(&self) -> u64 {
        RandomState::new().build_hasher().finish()
    }
}

/// Refuses what only looks like a file. A link to nothing is not a file that was dropped, which is what
/// `NotFound` says; opening a pipe would wait for its other end.
fn check_regular(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => Err(io::Error::other("it is not a regular file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_symlink() => {
            Err(io::Error::other("it is a link to what is not there"))
        }
        Err(error) => Err(error),
    }
}

/// Zeros to the end.
fn fill(file: &File, bytes: u64) -> io::Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut at = 0;
    while at < bytes {
        let slice = (bytes - at).min(ZEROS.len() as u64) as usize;
        file.write_all_at(&ZEROS[..slice], at)?;
        at += slice as u64;
    }
    Ok(())
}

struct OsFile {
    file: File,
    /// The same file, past the page cache and synced with every write (`O_DIRECT | O_DSYNC`),
    /// where the file system can, and its unit.
    direct: Option<(File, usize)>,
}

impl OsVfs {
    fn file(&self, file: File, name: &str) -> OsFile {
        let direct = || {
            let flags = OFlags::DIRECT | OFlags::DSYNC;
            let direct = OpenOptions::new()
                .write(true)
                .custom_flags(flags.bits() as i32)
                .open(self.dir.join(name))
                .ok()?;
            let unit = direct_unit(&direct)?;
            Some((direct, unit))
        };
        let direct = self.writable.then(direct).flatten();
        OsFile { file, direct }
    }
}

/// What offset, length and memory of direct writes must be multiples of, if the kernel tells.
fn direct_unit(file: &File) -> Option<usize> {
    let told = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok()?;
    let has = StatxFlags::from_bits_retain(told.stx_mask).contains(StatxFlags::DIOALIGN);
    let unit = told.stx_dio_offset_align.max(told.stx_dio_mem_align);
    // A kernel before 6.1 does not tell: a page is enough for every device it knows.
    let unit = if has { unit as usize } else { UNIT_MAX };
    (unit.is_power_of_two() && unit <= UNIT_MAX).then_some(unit)
}

impl VfsFile for OsFile {
    fn read_at(&self, mut buf: &mut [u8], mut offset: u64) -> io::Result<usize> {
        let mut total = 0;
        while !buf.is_empty() {
            match self.file.read_at(buf, offset) {
                Ok(0) => break,
                Ok(n) => {
                    total += n;
                    offset += n as u64;
                    buf = &mut buf[n..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(total)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write_durably_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match &self.direct {
            Some((direct, _)) => direct.write_all_at(bytes, offset),
            None => {
                self.write_all_at(bytes, offset)?;
                self.sync_data()
            }
        }
    }

    fn durable_unit(&self) -> usize {
        self.direct.as_ref().map_or(1, |(_, unit)| *unit)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}
