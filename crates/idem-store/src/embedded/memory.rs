//! A disk in memory for the tests of this module.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::embedded::vfs::{Vfs, VfsFile};

/// A disk in memory that knows what was synced. Under loom only the flusher uses it while a model
/// runs, and the checks come after it: the standard library's locks hide nothing from loom.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Disk>>);

#[derive(Default)]
struct Disk {
    files: BTreeMap<String, Arc<File>>,
    /// What a power cut would have left when a file last got its final name.
    #[cfg(not(loom))]
    at_rename: Option<(String, Memory)>,
}

#[derive(Default)]
struct File(Mutex<Bytes>);

#[derive(Default)]
struct Bytes {
    written: Vec<u8>,
    synced: Vec<u8>,
    /// The size of the file, should less have been written.
    allocated: u64,
    /// Syncs fail.
    fails: bool,
}

impl Memory {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().expect("sound")
    }

    /// What a power cut would have left when a file was last renamed to `name`, the renaming
    /// included; once.
    #[cfg(not(loom))]
    pub(crate) fn take_rename_to(&self, name: &str) -> Option<Self> {
        let renamed = self.disk().at_rename.take_if(|(to, _)| to == name);
        renamed.map(|(_, disk)| disk)
    }

    /// From now on no sync of a file that is there succeeds.
    #[cfg(not(loom))]
    pub(crate) fn fail(&self) {
        for file in self.disk().files.values() {
            file.0.lock().expect("sound").fails = true;
        }
    }

    #[cfg(not(loom))]
    fn after_power_cut(files: &BTreeMap<String, Arc<File>>) -> Self {
        let survivors = files.iter().map(|(name, file)| {
            let bytes = file.0.lock().expect("sound");
            let file = File(Mutex::new(Bytes {
                written: bytes.synced.clone(),
                synced: bytes.synced.clone(),
                allocated: bytes.allocated,
                fails: false,
            }));
            (name.clone(), Arc::new(file))
        });
        let files = survivors.collect();
        Self(Arc::new(Mutex::new(Disk {
            files,
            at_rename: None,
        })))
    }

    /// Whether bytes like these would survive a power cut.
    #[cfg(loom)]
    pub(crate) fn has_synced(&self, needle: &[u8]) -> bool {
        self.disk().files.values().any(|file| {
            let bytes = file.0.lock().expect("sound");
            let mut windows = bytes.synced.windows(needle.len());
            windows.any(|window| window == needle)
        })
    }
}

impl Vfs for Memory {
    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>> {
        Ok(Box::new(()))
    }

    fn is_locked(&self) -> bool {
        false
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.disk().files.keys().cloned().collect())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn VfsFile>> {
        let file = Arc::new(File(Mutex::new(Bytes {
            allocated: bytes,
            ..Bytes::default()
        })));
        let files = &mut self.disk().files;
        files.insert(name.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn VfsFile>> {
        let disk = self.disk();
        let file = disk.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::clone(file) as Arc<dyn VfsFile>)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk();
        let file = disk.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        disk.files.insert(to.to_owned(), file);
        #[cfg(not(loom))]
        {
            let left = Self::after_power_cut(&disk.files);
            disk.at_rename = Some((to.to_owned(), left));
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let removed = self.disk().files.remove(name);
        removed.map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn random(&self) -> u64 {
        7
    }
}

impl VfsFile for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.0.lock().expect("sound");
        let rest = bytes.written.get(offset as usize..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        // What was allocated and not written reads as zeros.
        let zeros = bytes.allocated.saturating_sub(offset + n as u64);
        let zeros = zeros.min((buf.len() - n) as u64) as usize;
        buf[n..n + zeros].fill(0);
        Ok(n + zeros)
    }

    fn write_all_at(&self, new: &[u8], offset: u64) -> io::Result<()> {
        // Zeros of a segment to come need no room here.
        if new.iter().all(|&byte| byte == 0) {
            return Ok(());
        }
        let mut bytes = self.0.lock().expect("sound");
        let end = offset as usize + new.len();
        if bytes.written.len() < end {
            bytes.written.resize(end, 0);
        }
        bytes.written[offset as usize..end].copy_from_slice(new);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut bytes = self.0.lock().expect("sound");
        if bytes.fails {
            return Err(io::Error::other("simulated I/O error"));
        }
        bytes.synced = bytes.written.clone();
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        let bytes = self.0.lock().expect("sound");
        Ok(bytes.allocated.max(bytes.written.len() as u64))
    }
}
