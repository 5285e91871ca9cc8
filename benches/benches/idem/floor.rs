//! What the disk can do: one block after another, each awaited.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use idem_store::vfs::Aligned;
use rustix::fs::OFlags;

use crate::turns::{Contender, Load, Times, record, times};

pub(crate) const DIRECT: &str = "floor: O_DIRECT, O_DSYNC, 512 B";
pub(crate) const SYNCED: &str = "floor: 144 B and fdatasync";

const FILE_BYTES: u64 = 16 << 20;

pub(crate) struct Floor {
    name: &'static str,
    file: File,
    block: Aligned,
    synced: bool,
    at: u64,
}

impl Floor {
    pub(crate) fn direct(path: &Path) -> io::Result<Self> {
        preallocate(path)?;
        let flags = OFlags::DIRECT | OFlags::DSYNC;
        let mut open = OpenOptions::new();
        let file = open
            .write(true)
            .custom_flags(flags.bits() as i32)
            .open(path)?;
        Ok(Self::on(DIRECT, file, 512, false))
    }

    pub(crate) fn synced(path: &Path) -> io::Result<Self> {
        preallocate(path)?;
        let file = OpenOptions::new().write(true).open(path)?;
        Ok(Self::on(SYNCED, file, 144, true))
    }

    fn on(name: &'static str, file: File, bytes: usize, synced: bool) -> Self {
        let mut block = Aligned::default();
        block.clear(bytes);
        block.push(&vec![1; bytes]);
        Self {
            name,
            file,
            block,
            synced,
            at: 0,
        }
    }
}

impl Floor {
    fn write(&mut self) {
        let bytes = self.block.bytes();
        self.file.write_all_at(bytes, self.at).expect("writes");
        if self.synced {
            self.file.sync_data().expect("syncs");
        }
        self.at = (self.at + bytes.len() as u64) % (FILE_BYTES - 4096);
    }

    /// A write each millisecond: what others do to the disk shows, and little is done to it.
    pub(crate) fn now_and_then(&mut self, slice: Duration) -> Times {
        let mut times = times();
        let start = Instant::now();
        while start.elapsed() < slice {
            let before = Instant::now();
            self.write();
            record(&mut times, before.elapsed());
            std::thread::sleep(Duration::from_millis(1));
        }
        times
    }
}

fn preallocate(path: &Path) -> io::Result<()> {
    let file = File::create(path)?;
    file.write_all_at(&vec![0; FILE_BYTES as usize], 0)?;
    file.sync_all()
}

impl Contender for Floor {
    fn name(&self) -> &'static str {
        self.name
    }

    fn turn(&mut self, _: Load, slice: Duration) -> Times {
        let mut times = times();
        let start = Instant::now();
        let mut before = start;
        while before - start < slice {
            self.write();
            let now = Instant::now();
            record(&mut times, now - before);
            before = now;
        }
        times
    }
}
