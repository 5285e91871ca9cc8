//! The next segment, made ready ahead: its file has its blocks, its header and its name, all of it
//! durable, so that the log goes on in it with nothing but the write of a batch.

use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use crate::embedded::format::{BLOCK, SegmentHeader, segment_name};
use crate::embedded::vfs::{Aligned, UNIT_MAX, Vfs, VfsFile};
use crate::error::{Error, Kind, is_disk_full};

/// Zeros are written in slices of this size. Overwriting written blocks costs one device write per
/// sync; the first write to blocks that are merely allocated costs a journal commit as well.
const ZERO_SLICE: usize = 256 << 10;

/// A file that a segment can be made of.
struct SpareFile {
    name: String,
    file: Arc<dyn VfsFile>,
}

/// Why the next segment is not ready.
pub(crate) enum Unready {
    /// It can be tried again.
    Lacks(Lack, io::Error),
    /// A write, a sync or a renaming failed: what the disk holds is not known.
    Failed(io::Error),
}

impl Unready {
    fn of(error: io::Error) -> Self {
        match Lack::of(&error) {
            Some(lack) => Self::Lacks(lack, error),
            None => Self::Failed(error),
        }
    }
}

/// What is missing for the next segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    Space,
    Descriptors,
}

impl Lack {
    fn of(error: &io::Error) -> Option<Self> {
        match Errno::from_io_error(error) {
            Some(Errno::MFILE | Errno::NFILE) => Some(Self::Descriptors),
            _ => is_disk_full(error).then_some(Self::Space),
        }
    }

    /// For those whose key or outcome has to wait for it.
    pub(crate) fn error(self) -> Error {
        Error::new(match self {
            Self::Space => Kind::DiskFull,
            Self::Descriptors => Kind::NoDescriptors,
        })
    }
}

pub(crate) struct Spares {
    /// What the header of the next segment will say, all but its `head`.
    next: SegmentHeader,
    /// The file of the next segment, under its name.
    ready: Option<Arc<dyn VfsFile>>,
    zeroing: Option<(SpareFile, u64)>,
    /// Written to their ends: with zeros, or as segments that were dropped. What is in them is
    /// overwritten, and never taken for valid because every checksum covers the number of the segment.
    written: Vec<SpareFile>,
    aligned: Aligned,
    /// How many files were made. Each has a name of its own: one that was taken keeps its name
    /// until the segment has its header, and the next one may be made meanwhile.
    made: u64,
}

impl Spares {
    /// For a log of the store `store_id` whose next segment is `segment`.
    pub(crate) fn new(store_id: u64, segment: u32, segment_bytes: u32) -> Self {
        Self {
            next: SegmentHeader {
                segment,
                segment_bytes,
                store_id,
                sequence: None,
                head: segment,
            },
            ready: None,
            zeroing: None,
            written: Vec::new(),
            aligned: Aligned::default(),
            made: 0,
        }
    }

    /// The next segment, of a log that begins with segment `head`; made on the spot when none is
    /// ready. What comes after it is the next one from now on.
    pub(crate) fn take(&mut self, vfs: &dyn Vfs, head: u32) -> Result<Arc<dyn VfsFile>, Unready> {
        let file = match self.ready.take() {
            Some(file) => file,
            None => {
                let zeroing = || self.zeroing.take().map(|(file, _)| file);
                let spare = match self.written.pop().or_else(zeroing) {
                    Some(spare) => spare,
                    None => self.create(vfs)?,
                };
                self.name_or_keep(vfs, spare, head)?
            }
        };
        self.next.segment += 1;
        Ok(file)
    }

    fn create(&mut self, vfs: &dyn Vfs) -> Result<SpareFile, Unready> {
        self.made += 1;
        let name = format!("spare-new-{}.tmp", self.made);
        match vfs.create(&name, u64::from(self.next.segment_bytes)) {
            Ok(file) => Ok(SpareFile { name, file }),
            Err(error) => {
                // It may exist and be too short.
                let _ = vfs.remove(&name);
                Err(Unready::of(error))
            }
        }
    }

    /// Makes a spare the next segment; one for which there is no room yet, on a file system that
    /// takes space to overwrite or to rename, is tried again.
    fn name_or_keep(
        &mut self,
        vfs: &dyn Vfs,
        spare: SpareFile,
        head: u32,
    ) -> Result<Arc<dyn VfsFile>, Unready> {
        let named = self.give_name(vfs, &spare, head);
        match named {
            Ok(()) => Ok(spare.file),
            Err(unready) => {
                if matches!(unready, Unready::Lacks(..)) {
                    self.written.push(spare);
                }
                Err(unready)
            }
        }
    }

    /// Makes a spare the next segment. Its header first: a file that has the name of a segment has
    /// one. The name must last before a batch is in the file, or a power cut would take both.
    fn give_name(&mut self, vfs: &dyn Vfs, spare: &SpareFile, head: u32) -> Result<(), Unready> {
        let header = SegmentHeader { head, ..self.next };
        self.aligned.clear(BLOCK as usize);
        self.aligned.push(&header.encode());
        self.aligned.pad(BLOCK as usize);
        let written = spare.file.write_durably_at(self.aligned.bytes(), 0);
        written
            .and_then(|()| vfs.rename(&spare.name, &segment_name(header.segment)))
            .map_err(Unready::of)?;
        // Once it has its name it cannot be tried again.
        vfs.sync_dir().map_err(Unready::Failed)
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready.is_some()
    }

    /// Does a slice of the work until the next segment of a log that begins with segment `head` is
    /// ready; whether more is left to do.
    pub(crate) fn prepare(&mut self, vfs: &dyn Vfs, head: u32) -> Result<bool, Unready> {
        if self.ready.is_some() {
            return Ok(false);
        }
        if let Some(spare) = self.written.pop() {
            self.ready = Some(self.name_or_keep(vfs, spare, head)?);
            return Ok(false);
        }
        let (spare, done) = match self.zeroing.take() {
            Some(begun) => begun,
            None => (self.create(vfs)?, 0),
        };
        let total = u64::from(self.next.segment_bytes);
        let slice = (total - done).min(ZERO_SLICE as u64);
        if let Err(error) = self.zero(&*spare.file, done, slice as usize) {
            // Half a spare is of no use, and its space may be what is missing.
            let _ = vfs.remove(&spare.name);
            return Err(Unready::of(error));
        }
        if done + slice == total {
            self.written.push(spare);
        } else {
            self.zeroing = Some((spare, done + slice));
        }
        Ok(true)
    }

    fn zero(&mut self, file: &dyn VfsFile, at: u64, len: usize) -> io::Result<()> {
        self.aligned.clear(ZERO_SLICE);
        self.aligned.push(&[0]);
        self.aligned.pad(len.max(UNIT_MAX));
        file.write_durably_at(&self.aligned.bytes()[..len], at)
    }

    /// How many files wait to become segments.
    pub(crate) fn waiting(&self) -> usize {
        self.written.len()
    }

    /// A former segment, to be used again.
    pub(crate) fn recycle(&mut self, name: String, file: Arc<dyn VfsFile>) {
        self.written.push(SpareFile { name, file });
    }
}

/// What a dropped segment is called while it waits to be used again.
pub(crate) fn recycled_name(segment: u32) -> String {
    format!("spare-{segment:010}.tmp")
}

/// Whether a file of this name is a spare, of this process or of one before.
pub(crate) fn is_spare_name(name: &str) -> bool {
    name.starts_with("spare") && name.ends_with(".tmp")
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::embedded::memory::Memory;
    use crate::embedded::upkeep::Due;
    use crate::{Options, Store};

    const BYTES: u32 = 4 * ZERO_SLICE as u32;

    #[test]
    fn upkeep_rests_when_a_former_segment_comes_before_the_new_file_is_ready() {
        let disk = Arc::new(Memory::default());
        let options = Options::new()
            .segment_bytes_max(BYTES)
            .outcome_bytes_max(4 << 10)
            .batch_bytes_max(BYTES / 2);
        let store = Store::open_on(Arc::clone(&disk) as Arc<dyn Vfs>, options).expect("opens");
        let shared = &store.of_this_machine().shared;
        assert_eq!(shared.upkeep_slice(Instant::now()), Due::Now, "it zeroes");

        let former = recycled_name(1);
        let file = disk.create(&former, u64::from(BYTES)).expect("creates");
        shared.spares.lock().recycle(former, file);
        let mut slices = 1;
        while shared.upkeep_slice(Instant::now()) == Due::Now {
            slices += 1;
            assert!(slices < 10, "it has nothing to do and goes on");
        }
        assert!(shared.spares.lock().is_ready());
        let header = disk.open(&segment_name(2)).expect("has its name");
        let mut bytes = [0; 64];
        header.read_at(&mut bytes, 0).expect("reads");
        let header = SegmentHeader::decode(&bytes, 2).expect("has its header");
        assert_eq!((header.sequence, header.head), (None, 1));
    }

    #[test]
    fn a_file_that_was_begun_is_finished_when_the_ready_one_is_taken() {
        let disk = Memory::default();
        let mut spares = Spares::new(7, 2, BYTES);
        assert!(spares.prepare(&disk, 1).is_ok_and(|more| more), "begins");
        let former = disk.create("former", u64::from(BYTES)).expect("creates");
        spares.recycle("former".to_owned(), former);
        let more = spares.prepare(&disk, 1);
        assert!(more.is_ok_and(|more| !more), "takes the former one");
        assert!(disk.open("former").is_err(), "it has another name");
        assert!(spares.take(&disk, 1).is_ok());

        let mut slices = 0;
        while spares.prepare(&disk, 1).ok().expect("goes on") {
            slices += 1;
        }
        assert_eq!(slices, 3, "the first quarter was not written again");
        assert!(disk.open(&segment_name(3)).is_ok());
    }
}
