//! The files that become the next segments: made ready before they are needed, and used again when
//! a segment was dropped.

use std::io;
use std::sync::Arc;

use crate::embedded::vfs::{Aligned, UNIT_MAX, Vfs, VfsFile};

/// Zeros are written in slices of this size. Overwriting written blocks costs one device write per
/// sync; the first write to blocks that are merely allocated costs a journal commit as well.
const ZERO_SLICE: usize = 256 << 10;

/// A file that a segment can be made of.
pub(crate) struct SpareFile {
    pub(crate) name: String,
    pub(crate) file: Arc<dyn VfsFile>,
}

#[derive(Default)]
pub(crate) struct Spares {
    ready: Option<SpareFile>,
    zeroing: Option<(SpareFile, u64)>,
    /// Former segments: what is in them is overwritten, and never taken for valid because every
    /// checksum covers the number of the segment.
    recycled: Vec<SpareFile>,
    zeros: Aligned,
    /// How many files were made. Each has a name of its own: one that was taken keeps its name
    /// until the segment has its header, and the next one may be made meanwhile.
    made: u64,
}

impl Spares {
    /// The file for the next segment; made on the spot when none is ready.
    pub(crate) fn take(&mut self, vfs: &dyn Vfs, bytes: u32) -> io::Result<SpareFile> {
        let zeroing = || self.zeroing.take().map(|(file, _)| file);
        let any = self.ready.take().or_else(|| self.recycled.pop());
        match any.or_else(zeroing) {
            Some(spare) => Ok(spare),
            None => self.create(vfs, bytes),
        }
    }

    fn create(&mut self, vfs: &dyn Vfs, bytes: u32) -> io::Result<SpareFile> {
        self.made += 1;
        let name = format!("spare-new-{}.tmp", self.made);
        match vfs.create(&name, u64::from(bytes)) {
            Ok(file) => Ok(SpareFile { name, file }),
            Err(error) => {
                // It may exist and be too short.
                let _ = vfs.remove(&name);
                Err(error)
            }
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready.is_some()
    }

    /// Whether another call of [`prepare`](Self::prepare) would go on with what was begun: not while
    /// a spare is ready, which can be a former segment that came meanwhile.
    pub(crate) fn is_zeroing(&self) -> bool {
        self.ready.is_none() && self.zeroing.is_some()
    }

    /// Does a slice of the work until a spare is ready; how many bytes it wrote. After an error
    /// nothing is left of the file.
    pub(crate) fn prepare(&mut self, vfs: &dyn Vfs, bytes: u32) -> io::Result<u64> {
        if self.ready.is_some() {
            return Ok(0);
        }
        if let Some(spare) = self.recycled.pop() {
            self.ready = Some(spare);
            return Ok(0);
        }
        let (spare, done) = match self.zeroing.take() {
            Some(begun) => begun,
            None => (self.create(vfs, bytes)?, 0),
        };
        let total = u64::from(bytes);
        let slice = (total - done).min(ZERO_SLICE as u64);
        if let Err(error) = self.zero(&*spare.file, done, slice as usize) {
            // Half a spare is of no use, and its space may be what is missing.
            let _ = vfs.remove(&spare.name);
            return Err(error);
        }
        if done + slice == total {
            self.ready = Some(spare);
        } else {
            self.zeroing = Some((spare, done + slice));
        }
        Ok(slice)
    }

    fn zero(&mut self, file: &dyn VfsFile, at: u64, len: usize) -> io::Result<()> {
        self.zeros.clear(ZERO_SLICE);
        self.zeros.push(&[0]);
        self.zeros.pad(len.max(UNIT_MAX));
        file.write_durably_at(&self.zeros.bytes()[..len], at)
    }

    /// How many former segments wait to be used again.
    pub(crate) fn recycled(&self) -> usize {
        self.recycled.len()
    }

    pub(crate) fn recycle(&mut self, name: String, file: Arc<dyn VfsFile>) {
        self.recycled.push(SpareFile { name, file });
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
    }

    #[test]
    fn a_file_that_was_begun_is_finished_when_the_ready_one_is_taken() {
        let disk = Memory::default();
        let mut spares = Spares::default();
        spares.prepare(&disk, BYTES).expect("begins");
        let former = disk.create("former", u64::from(BYTES)).expect("creates");
        spares.recycle("former".to_owned(), former);
        spares.prepare(&disk, BYTES).expect("takes the former one");
        assert_eq!(spares.take(&disk, BYTES).expect("is there").name, "former");

        let mut slices = 0;
        while !spares.is_ready() {
            assert!(slices == 0 || spares.is_zeroing());
            spares.prepare(&disk, BYTES).expect("goes on");
            slices += 1;
        }
        assert_eq!(slices, 3, "the first quarter was not written again");
    }
}
