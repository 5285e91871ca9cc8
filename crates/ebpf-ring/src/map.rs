//! Maps by descriptor, id or pin, and what readers need of them without libbpf.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::counters::{CounterSource, Counters};
use crate::cpus;
use crate::error::RingError;
use crate::spec::{MapInfo, MapKind, MapSpec};
use crate::sys::{self, MapFd};

/// A BPF map, wherever it comes from.
///
/// The readers take it as they take any descriptor:
///
/// ```no_run
/// use ebpf_ring::{BpfMap, MapFlags, MapKind, MapSpec, RingReader};
///
/// # fn open() -> Result<RingReader, ebpf_ring::RingError> {
/// let wanted = MapSpec { kind: MapKind::RingBuf, key_size: 0, value_size: 0, max_entries: 1 << 18, flags: MapFlags::NONE };
/// let map = BpfMap::pinned("/sys/fs/bpf/events", &wanted)?; // or says how it differs
/// RingReader::from_fd(map)
/// # }
/// ```
#[derive(Debug)]
pub struct BpfMap {
    map: MapFd,
}

impl BpfMap {
    /// Opens a pin, and verifies type, sizes and flags.
    ///
    /// # Errors
    ///
    /// [`is_wrong_map`](RingError::is_wrong_map) with each difference from `wanted`, or when the pin
    /// is of something else; [`is_permission_denied`](RingError::is_permission_denied) for want of
    /// access to the file.
    pub fn pinned(path: impl AsRef<Path>, wanted: &MapSpec) -> Result<Self, RingError> {
        let path = path.as_ref();
        let doing = || format!("opening the pin {}", path.display());
        let name = CString::new(path.as_os_str().as_bytes());
        let fd = name
            .map_err(io::Error::from)
            .and_then(|name| sys::obj_get(&name))
            .map_err(|e| RingError::io(doing(), e))?;
        wanted.verify(&fd)?;
        Self::from_fd(fd)
    }

    /// Opens the map with this id, as `bpftool map` lists it.
    ///
    /// # Errors
    ///
    /// [`is_permission_denied`](RingError::is_permission_denied) without CAP_SYS_ADMIN; also when
    /// there is no such map.
    pub fn by_id(id: u32) -> Result<Self, RingError> {
        let doing = || format!("opening map {id} by its id (CAP_SYS_ADMIN)");
        let fd = sys::map_by_id(id).map_err(|e| RingError::io(doing(), e))?;
        Self::from_fd(fd)
    }

    /// Takes a map's descriptor.
    ///
    /// # Errors
    ///
    /// [`is_wrong_map`](RingError::is_wrong_map) for any other descriptor, or without `/proc`.
    pub fn from_fd(fd: impl Into<OwnedFd>) -> Result<Self, RingError> {
        let fd = fd.into();
        MapInfo::read(&fd)?;
        let cpus = cpus::possible().map_err(|e| RingError::io("counting the CPUs", e))?;
        let map = MapFd::new(fd, cpus.len());
        let map = map.map_err(|e| RingError::io("asking about a map", e))?;
        Ok(Self { map })
    }

    /// As [`from_fd`](Self::from_fd) with a descriptor that the caller keeps: it is duplicated.
    ///
    /// # Errors
    ///
    /// As `from_fd`; also when the process has no descriptor left.
    pub fn from_borrowed(fd: impl AsFd) -> Result<Self, RingError> {
        Self::from_fd(duplicate(fd)?)
    }

    pub(crate) fn info(&self) -> Result<MapInfo, RingError> {
        MapInfo::read(self)
    }

    /// Fails unless it is of this type.
    pub(crate) fn expect_kind(&self, kind: MapKind) -> Result<(), RingError> {
        self.info()?.expect_kind(kind)
    }

    /// The value at a key that is a number.
    pub(crate) fn lookup(&self, key: u32) -> io::Result<Option<Vec<u8>>> {
        self.map.lookup(&key.to_ne_bytes())
    }

    /// Puts a descriptor at a key, in a map whose values are such.
    pub(crate) fn put(&self, key: u32, value: BorrowedFd<'_>) -> io::Result<()> {
        use std::os::fd::AsRawFd as _;
        let value = value.as_raw_fd().to_ne_bytes();
        self.map.update(&key.to_ne_bytes(), &value)
    }

    /// Takes away what is at a key.
    pub(crate) fn take_away(&self, key: u32) -> io::Result<()> {
        self.map.delete(&key.to_ne_bytes())
    }
}

impl AsFd for BpfMap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

impl From<BpfMap> for OwnedFd {
    fn from(map: BpfMap) -> Self {
        map.map.into_fd()
    }
}

pub(crate) fn duplicate(fd: impl AsFd) -> Result<OwnedFd, RingError> {
    let owned = fd.as_fd().try_clone_to_owned();
    owned.map_err(|e| RingError::io("duplicating the map's descriptor", e))
}

/// The counters of one ring, read from the map that `MR_COUNTERS` defined.
#[derive(Debug)]
pub struct MapCounters {
    map: BpfMap,
    shard: u32,
}

impl MapCounters {
    /// The counters at `shard` of a map.
    ///
    /// # Errors
    ///
    /// [`is_wrong_map`](RingError::is_wrong_map) when it is not a per-CPU array of
    /// `struct mr_counters` with more than `shard` entries.
    pub fn from_fd(map: impl Into<OwnedFd>, shard: u32) -> Result<Self, RingError> {
        let map = BpfMap::from_fd(map)?;
        let info = map.info()?;
        let fits = info.map_type == MapKind::PercpuArray.number()
            && usize::try_from(info.value_size) == Ok(Counters::BYTES)
            && info.max_entries > shard;
        if !fits {
            let why =
                format!("it is no counter map with shard {shard}; define it with MR_COUNTERS");
            return Err(RingError::wrong_map(why));
        }
        Ok(Self { map, shard })
    }
}

impl CounterSource for MapCounters {
    fn per_cpu(&self) -> io::Result<Vec<Counters>> {
        let values = self.map.lookup(self.shard)?;
        let values = values.ok_or(io::ErrorKind::NotFound)?;
        let (values, rest) = values.as_chunks();
        debug_assert!(rest.is_empty(), "values of 64 bytes");
        Ok(values.iter().map(Counters::from_bytes).collect())
    }
}
