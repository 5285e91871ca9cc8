//! A simulated disk: what was not synced may be lost, kept or torn when the power fails, and every
//! call can fail. Deterministic by seed.

use std::any::Any;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use idem_store::vfs::{Vfs, VfsFile};
use parking_lot::Mutex;
use rustix::io::Errno;

const SECTOR: usize = 512;

/// SplitMix64, enough for choosing faults and operations.
#[derive(Clone)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

#[derive(Default)]
struct Inode {
    durable: Vec<u8>,
    current: Vec<u8>,
    pending: Vec<(usize, usize)>,
    writes: Vec<Vec<u8>>,
}

#[derive(Clone)]
enum DirOp {
    Link(String, usize),
    Rename(String, String, usize),
    Remove(String),
}

struct State {
    rng: Rng,
    /// Handles of earlier lives of the machine are dead.
    life: u64,
    locked: bool,
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    dir_ops: Vec<DirOp>,
    /// Why no file can be made.
    full: Option<Errno>,
    /// What durable writes must be multiples of: 1 or a sector, by seed.
    unit: usize,
    /// The machine dies at this call from now.
    die_in: Option<u64>,
    /// The sync that fails: its data are gone from the cache, later syncs would succeed.
    fail_sync_in: Option<u64>,
}

/// The disk; clones are the same disk.
#[derive(Clone)]
pub(crate) struct Disk(Arc<Mutex<State>>);

/// The disk as seen from one life of the machine.
struct Mounted {
    disk: Disk,
    life: u64,
}

struct Handle {
    disk: Disk,
    life: u64,
    inode: usize,
}

impl Disk {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            rng: Rng(seed),
            life: 0,
            locked: false,
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            dir_ops: Vec::new(),
            full: None,
            unit: if seed.is_multiple_of(2) { 1 } else { SECTOR },
            die_in: None,
            fail_sync_in: None,
        })))
    }

    pub(crate) fn mount(&self) -> Arc<dyn Vfs> {
        let life = self.0.lock().life;
        let disk = self.clone();
        Arc::new(Mounted { disk, life })
    }

    pub(crate) fn set_full(&self, full: bool) {
        self.0.lock().full = full.then_some(Errno::NOSPC);
    }

    pub(crate) fn set_too_many_open(&self, many: bool) {
        self.0.lock().full = many.then_some(Errno::MFILE);
    }

    pub(crate) fn die_in(&self, calls: u64) {
        self.0.lock().die_in = Some(calls);
    }

    pub(crate) fn fail_sync_in(&self, syncs: u64) {
        self.0.lock().fail_sync_in = Some(syncs);
    }

    /// The current bytes of a file.
    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        let state = self.0.lock();
        state.inodes[state.names[name]].current.clone()
    }

    /// Changes the bytes of a file behind everybody's back.
    pub(crate) fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.0.lock();
        let inode = state.names[name];
        let inode = &mut state.inodes[inode];
        change(&mut inode.current);
        inode.durable = inode.current.clone();
    }

    pub(crate) fn remove(&self, name: &str) {
        let mut state = self.0.lock();
        state.names.remove(name);
        state.durable_names.remove(name);
    }

    /// A file comes back, as after a removal that was lost.
    pub(crate) fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.0.lock();
        let inode = state.inodes.len();
        state.inodes.push(Inode {
            durable: bytes.clone(),
            current: bytes,
            ..Inode::default()
        });
        state.names.insert(name.to_owned(), inode);
        state.durable_names.insert(name.to_owned(), inode);
    }

    /// The process dies and the machine goes on: nothing is lost, nothing more is synced.
    pub(crate) fn kill(&self) {
        let mut state = self.0.lock();
        state.life += 1;
        state.locked = false;
        state.full = None;
        state.die_in = None;
        state.fail_sync_in = None;
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.0.lock().names.keys().cloned().collect()
    }

    /// The power fails: unsynced writes are kept, lost or torn, unsynced directory changes kept or
    /// lost, each on its own.
    pub(crate) fn crash(&self) {
        let mut state = self.0.lock();
        let state = &mut *state;
        state.life += 1;
        state.locked = false;
        state.full = None;
        state.die_in = None;
        state.fail_sync_in = None;
        for inode in &mut state.inodes {
            let mood = state.rng.below(4);
            let writes = std::mem::take(&mut inode.writes);
            for ((at, _), bytes) in inode.pending.drain(..).zip(writes) {
                tear(&mut inode.durable, at, &bytes, &mut state.rng, mood);
            }
            inode.current = inode.durable.clone();
        }
        for op in std::mem::take(&mut state.dir_ops) {
            if state.rng.one_in(2) {
                op.apply(&mut state.durable_names);
            }
        }
        state.names = state.durable_names.clone();
    }

    fn call(&self, life: u64) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        let mut state = self.0.lock();
        if state.life != life {
            return Err(ErrorKind::BrokenPipe.into());
        }
        match &mut state.die_in {
            Some(0) => return Err(ErrorKind::BrokenPipe.into()),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(state)
    }
}

/// Applies one write as a power cut leaves it, sector by sector.
fn tear(durable: &mut Vec<u8>, at: usize, bytes: &[u8], rng: &mut Rng, mood: u64) {
    if durable.len() < at + bytes.len() {
        durable.resize(at + bytes.len(), 0);
    }
    let mut from = 0;
    while from < bytes.len() {
        let to = ((at + from) / SECTOR + 1) * SECTOR - at;
        let to = to.min(bytes.len());
        let keep = match mood {
            0 => 0,
            1 => to - from,
            2 if rng.one_in(2) => to - from,
            2 => 0,
            _ => rng.below((to - from) as u64 + 1) as usize,
        };
        durable[at + from..at + from + keep].copy_from_slice(&bytes[from..from + keep]);
        from = to;
    }
}

impl DirOp {
    fn apply(self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Link(name, inode) => {
                names.insert(name, inode);
            }
            Self::Rename(from, to, inode) => {
                names.remove(&from);
                names.insert(to, inode);
            }
            Self::Remove(name) => {
                names.remove(&name);
            }
        }
    }
}

impl Vfs for Mounted {
    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>> {
        let mut state = self.disk.call(self.life)?;
        if std::mem::replace(&mut state.locked, true) {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Guard {
            disk: self.disk.clone(),
            life: self.life,
        }))
    }

    fn is_locked(&self) -> bool {
        self.disk.0.lock().locked
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.disk.call(self.life)?.names.keys().cloned().collect())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn VfsFile>> {
        let mut state = self.disk.call(self.life)?;
        if let Some(errno) = state.full {
            return Err(errno.into());
        }
        let inode = state.inodes.len();
        state.inodes.push(Inode {
            durable: vec![0; bytes as usize],
            current: vec![0; bytes as usize],
            ..Inode::default()
        });
        state.names.insert(name.to_owned(), inode);
        state.dir_ops.push(DirOp::Link(name.to_owned(), inode));
        Ok(self.handle(inode))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn VfsFile>> {
        let state = self.disk.call(self.life)?;
        let inode = *state.names.get(name).ok_or(ErrorKind::NotFound)?;
        Ok(self.handle(inode))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.disk.call(self.life)?;
        let inode = state.names.remove(from).ok_or(ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), inode);
        let op = DirOp::Rename(from.to_owned(), to.to_owned(), inode);
        state.dir_ops.push(op);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.disk.call(self.life)?;
        state.names.remove(name).ok_or(ErrorKind::NotFound)?;
        state.dir_ops.push(DirOp::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.disk.call(self.life)?;
        state.durable_names = state.names.clone();
        state.dir_ops.clear();
        Ok(())
    }

    fn random(&self) -> u64 {
        0x1122_3344_5566_7788
    }
}

impl Mounted {
    fn handle(&self, inode: usize) -> Arc<dyn VfsFile> {
        Arc::new(Handle {
            disk: self.disk.clone(),
            life: self.life,
            inode,
        })
    }
}

struct Guard {
    disk: Disk,
    life: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut state = self.disk.0.lock();
        if state.life == self.life {
            state.locked = false;
        }
    }
}

impl VfsFile for Handle {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.call(self.life)?;
        let bytes = &state.inodes[self.inode].current;
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let at = offset as usize;
        {
            // A write that the machine dies in has happened as far as the tearing decides.
            let mut state = self.disk.0.lock();
            if state.life == self.life && state.die_in != Some(0) {
                let inode = &mut state.inodes[self.inode];
                let end = at + bytes.len();
                if inode.current.len() < end {
                    inode.current.resize(end, 0);
                }
                inode.current[at..end].copy_from_slice(bytes);
                inode.pending.push((at, bytes.len()));
                inode.writes.push(bytes.to_vec());
            }
        }
        self.disk.call(self.life).map(drop)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.call(self.life)?;
        let state = &mut *state;
        let inode = &mut state.inodes[self.inode];
        let fails = match &mut state.fail_sync_in {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        let writes = std::mem::take(&mut inode.writes);
        for ((at, _), bytes) in inode.pending.drain(..).zip(writes) {
            let mood = if fails { state.rng.below(4) } else { 1 };
            tear(&mut inode.durable, at, &bytes, &mut state.rng, mood);
        }
        if fails {
            state.fail_sync_in = None;
            return Err(io::Error::other("simulated I/O error"));
        }
        Ok(())
    }

    fn write_durably_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let unit = self.durable_unit();
        let aligned = offset.is_multiple_of(unit as u64) && bytes.len().is_multiple_of(unit);
        assert!(aligned, "{} bytes at {offset}", bytes.len());
        self.write_all_at(bytes, offset)?;
        self.sync_data()
    }

    fn durable_unit(&self) -> usize {
        self.disk.0.lock().unit
    }

    fn bytes(&self) -> io::Result<u64> {
        let state = self.disk.call(self.life)?;
        Ok(state.inodes[self.inode].current.len() as u64)
    }
}
