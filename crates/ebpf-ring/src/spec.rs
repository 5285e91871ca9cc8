//! What a map has to be, checked before the kernel says EINVAL.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd as _};

use crate::error::RingError;

/// A type of map: the kernel's `enum bpf_map_type`, as far as this crate knows its rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MapKind {
    /// `BPF_MAP_TYPE_HASH`.
    Hash = 1,
    /// `BPF_MAP_TYPE_ARRAY`.
    Array = 2,
    /// `BPF_MAP_TYPE_PERF_EVENT_ARRAY`: see [`PerfReader`](crate::PerfReader).
    PerfEventArray = 4,
    /// `BPF_MAP_TYPE_PERCPU_HASH`.
    PercpuHash = 5,
    /// `BPF_MAP_TYPE_PERCPU_ARRAY`: the type of [`Counters`](crate::Counters).
    PercpuArray = 6,
    /// `BPF_MAP_TYPE_LRU_HASH`.
    LruHash = 9,
    /// `BPF_MAP_TYPE_LRU_PERCPU_HASH`.
    LruPercpuHash = 10,
    /// `BPF_MAP_TYPE_RINGBUF`: see [`RingReader`](crate::RingReader).
    RingBuf = 27,
}

impl MapKind {
    /// All that there are here.
    pub const ALL: [Self; 8] = [
        Self::Hash,
        Self::Array,
        Self::PerfEventArray,
        Self::PercpuHash,
        Self::PercpuArray,
        Self::LruHash,
        Self::LruPercpuHash,
        Self::RingBuf,
    ];

    /// The kernel's number.
    #[must_use]
    pub fn number(self) -> u32 {
        self as u32
    }

    fn is_percpu(self) -> bool {
        matches!(
            self,
            Self::PercpuHash | Self::PercpuArray | Self::LruPercpuHash
        )
    }

    fn is_lru(self) -> bool {
        matches!(self, Self::LruHash | Self::LruPercpuHash)
    }

    fn is_array(self) -> bool {
        matches!(self, Self::Array | Self::PercpuArray | Self::PerfEventArray)
    }

    /// The flags that it may have at all.
    fn flags(self) -> MapFlags {
        use MapFlags as F;
        let access = F::RDONLY | F::WRONLY | F::RDONLY_PROG | F::WRONLY_PROG;
        match self {
            Self::RingBuf => F::NUMA_NODE | F::RB_OVERWRITE,
            Self::Array => F::NUMA_NODE | F::MMAPABLE | F::INNER_MAP | access,
            Self::PercpuArray => access,
            Self::PerfEventArray => F::NUMA_NODE | F::PRESERVE_ELEMS | F::RDONLY | F::WRONLY,
            Self::Hash => F::NO_PREALLOC | F::NUMA_NODE | F::ZERO_SEED | access,
            Self::PercpuHash => F::NO_PREALLOC | F::ZERO_SEED | access,
            Self::LruHash => F::NO_COMMON_LRU | F::NUMA_NODE | F::ZERO_SEED | access,
            Self::LruPercpuHash => F::NO_COMMON_LRU | F::ZERO_SEED | access,
        }
    }
}

impl fmt::Display for MapKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hash => "a hash map",
            Self::Array => "an array",
            Self::PerfEventArray => "a perf event array",
            Self::PercpuHash => "a per-CPU hash map",
            Self::PercpuArray => "a per-CPU array",
            Self::LruHash => "an LRU hash map",
            Self::LruPercpuHash => "a per-CPU LRU hash map",
            Self::RingBuf => "a ring buffer",
        })
    }
}

/// Flags of `BPF_MAP_CREATE`, by the kernel's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct MapFlags(pub u32);

impl MapFlags {
    /// None.
    pub const NONE: Self = Self(0);
    /// `BPF_F_NO_PREALLOC`: elements are allocated when they come.
    pub const NO_PREALLOC: Self = Self(1);
    /// `BPF_F_NO_COMMON_LRU`: an LRU list for each CPU.
    pub const NO_COMMON_LRU: Self = Self(1 << 1);
    /// `BPF_F_NUMA_NODE`: memory of one node.
    pub const NUMA_NODE: Self = Self(1 << 2);
    /// `BPF_F_RDONLY`: user space may only read.
    pub const RDONLY: Self = Self(1 << 3);
    /// `BPF_F_WRONLY`: user space may only write.
    pub const WRONLY: Self = Self(1 << 4);
    /// `BPF_F_ZERO_SEED`: keys hash alike in every map; needs `CAP_SYS_ADMIN`.
    pub const ZERO_SEED: Self = Self(1 << 6);
    /// `BPF_F_RDONLY_PROG`: programs may only read.
    pub const RDONLY_PROG: Self = Self(1 << 7);
    /// `BPF_F_WRONLY_PROG`: programs may only write.
    pub const WRONLY_PROG: Self = Self(1 << 8);
    /// `BPF_F_MMAPABLE`: user space maps the values.
    pub const MMAPABLE: Self = Self(1 << 10);
    /// `BPF_F_PRESERVE_ELEMS`: elements stay when the map's descriptor is closed.
    pub const PRESERVE_ELEMS: Self = Self(1 << 11);
    /// `BPF_F_INNER_MAP`: inner maps may differ in size.
    pub const INNER_MAP: Self = Self(1 << 12);
    /// `BPF_F_RB_OVERWRITE`: new records replace the oldest; kernels after 6.18.
    pub const RB_OVERWRITE: Self = Self(1 << 19);

    const NAMES: [(Self, &'static str); 12] = [
        (Self::NO_PREALLOC, "NO_PREALLOC"),
        (Self::NO_COMMON_LRU, "NO_COMMON_LRU"),
        (Self::NUMA_NODE, "NUMA_NODE"),
        (Self::RDONLY, "RDONLY"),
        (Self::WRONLY, "WRONLY"),
        (Self::ZERO_SEED, "ZERO_SEED"),
        (Self::RDONLY_PROG, "RDONLY_PROG"),
        (Self::WRONLY_PROG, "WRONLY_PROG"),
        (Self::MMAPABLE, "MMAPABLE"),
        (Self::PRESERVE_ELEMS, "PRESERVE_ELEMS"),
        (Self::INNER_MAP, "INNER_MAP"),
        (Self::RB_OVERWRITE, "RB_OVERWRITE"),
    ];

    fn has(self, all: Self) -> bool {
        self.0 & all.0 == all.0
    }
}

impl std::ops::BitOr for MapFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// `NO_PREALLOC|RDONLY`; unknown bits in hexadecimal; `none`.
impl fmt::Display for MapFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = Self::NAMES.iter().filter(|(flag, _)| self.has(*flag));
        let mut words: Vec<String> = known.clone().map(|(_, name)| (*name).to_owned()).collect();
        let rest = known.fold(self.0, |rest, (flag, _)| rest & !flag.0);
        if rest != 0 {
            words.push(format!("{rest:#x}"));
        }
        match words.is_empty() {
            true => f.write_str("none"),
            false => f.write_str(&words.join("|")),
        }
    }
}

/// What a map is, or has to be.
///
/// The kernel refuses a map that breaks its rules with EINVAL and no word. [`check`](Self::check)
/// knows the rules and says which one. [`differences`](Self::differences) compares a map that
/// somebody else made, a pinned one for instance.
///
/// ```
/// use ebpf_ring::{MapFlags, MapKind, MapSpec};
///
/// let ring = MapSpec { kind: MapKind::RingBuf, key_size: 0, value_size: 0, max_entries: 1 << 18, flags: MapFlags::NONE };
/// assert!(ring.check().is_ok());
/// let error = MapSpec { flags: MapFlags::NO_PREALLOC, ..ring }.check().unwrap_err();
/// assert_eq!(error.to_string(), "a ring buffer cannot have the flags NO_PREALLOC: it may have NUMA_NODE|RB_OVERWRITE");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MapSpec {
    /// Its type.
    pub kind: MapKind,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value, on each CPU.
    pub value_size: u32,
    /// Elements; bytes of a ring buffer.
    pub max_entries: u32,
    /// As given when it is made.
    pub flags: MapFlags,
}

/// The rules that a [`MapSpec`] breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecError {
    reasons: Vec<String>,
}

impl SpecError {
    /// A sentence for each broken rule.
    #[must_use]
    pub fn reasons(&self) -> &[String] {
        &self.reasons
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reasons.join("; "))
    }
}

impl std::error::Error for SpecError {}

/// The largest value that memory of each CPU can hold: `PCPU_MIN_UNIT_SIZE`.
const PERCPU_VALUE_MAX: u32 = 32 * 1024;
/// `INT_MAX`.
const ARRAY_VALUE_MAX: u32 = i32::MAX.unsigned_abs();
/// A hash map has a bucket of 16 bytes or more for each, rounded up to a power of two: in all less
/// than 4 GiB.
const HASH_ENTRIES_MAX: u32 = 1 << 27;

impl MapSpec {
    /// Whether the kernel would make such a map, memory and permissions aside. (What one element of a
    /// hash map may take, some 4 MiB on x86-64, is a question of memory.)
    ///
    /// Source: `ringbuf_map_alloc`, `array_map_alloc_check`, `fd_array_map_alloc_check` and
    /// `htab_map_alloc_check` of `kernel/bpf`.
    ///
    /// # Errors
    ///
    /// All rules that it breaks, in words.
    pub fn check(&self) -> Result<(), SpecError> {
        let mut reasons = Vec::new();
        self.check_flags(&mut reasons);
        match self.kind {
            MapKind::RingBuf => self.check_ring(&mut reasons),
            kind if kind.is_array() => self.check_array(&mut reasons),
            _ => self.check_hash(&mut reasons),
        }
        if self.kind.is_percpu() && self.value_size > PERCPU_VALUE_MAX {
            reasons.push(format!(
                "values of {} have at most {PERCPU_VALUE_MAX} bytes, not {}",
                self.kind, self.value_size
            ));
        }
        match reasons.is_empty() {
            true => Ok(()),
            false => Err(SpecError { reasons }),
        }
    }

    fn check_flags(&self, reasons: &mut Vec<String>) {
        let (kind, may) = (self.kind, self.kind.flags());
        let wrong = MapFlags(self.flags.0 & !may.0);
        if kind.is_lru() && self.flags.has(MapFlags::NO_PREALLOC) {
            reasons.push(format!(
                "{kind} is always preallocated: NO_PREALLOC is refused (ENOTSUPP)"
            ));
        } else if wrong != MapFlags::NONE {
            reasons.push(format!(
                "{kind} cannot have the flags {wrong}: it may have {may}"
            ));
        }
        for (one, other) in [
            (MapFlags::RDONLY, MapFlags::WRONLY),
            (MapFlags::RDONLY_PROG, MapFlags::WRONLY_PROG),
        ] {
            if self.flags.has(one | other) {
                reasons.push(format!("{one} and {other} exclude each other"));
            }
        }
        if kind == MapKind::LruHash
            && self
                .flags
                .has(MapFlags::NO_COMMON_LRU | MapFlags::NUMA_NODE)
        {
            reasons.push(
                "NO_COMMON_LRU and NUMA_NODE exclude each other: its lists are per CPU".into(),
            );
        }
    }

    fn check_ring(&self, reasons: &mut Vec<String>) {
        let page = rustix::param::page_size() as u64;
        let size = u64::from(self.max_entries);
        if self.key_size != 0 || self.value_size != 0 {
            reasons.push("a ring buffer has neither keys nor values: both sizes are 0".into());
        }
        if !size.is_power_of_two() || !size.is_multiple_of(page) {
            reasons.push(format!(
                "a ring buffer's max_entries are its bytes, a power of two of at least a page ({page}), not {size}"
            ));
        }
    }

    fn check_array(&self, reasons: &mut Vec<String>) {
        if self.key_size != 4 {
            reasons.push(format!(
                "an array's keys have 4 bytes, not {}",
                self.key_size
            ));
        }
        if self.kind == MapKind::PerfEventArray {
            if self.value_size != 4 {
                reasons.push(format!(
                    "a perf event array's values are descriptors of 4 bytes, not {}",
                    self.value_size
                ));
            }
        } else if self.value_size == 0 {
            reasons.push("an array's values have at least a byte".into());
        } else if self.value_size > ARRAY_VALUE_MAX {
            reasons.push(format!(
                "an array's values have at most {ARRAY_VALUE_MAX} bytes, not {}",
                self.value_size
            ));
        }
        self.check_entries(reasons);
    }

    fn check_hash(&self, reasons: &mut Vec<String>) {
        if self.key_size == 0 || self.value_size == 0 {
            reasons.push(format!(
                "{}'s keys and values have at least a byte each",
                self.kind
            ));
        }
        if self.max_entries > HASH_ENTRIES_MAX {
            reasons.push(format!(
                "{} has at most {HASH_ENTRIES_MAX} entries, not {}",
                self.kind, self.max_entries
            ));
        }
        self.check_entries(reasons);
    }

    fn check_entries(&self, reasons: &mut Vec<String>) {
        if self.max_entries == 0 {
            reasons.push(format!("{} has at least one entry", self.kind));
        }
    }

    /// How the map behind `fd` differs from this: a sentence for each part, none when it is the
    /// same. Reads `/proc/self/fdinfo`, so no capability is needed.
    ///
    /// # Errors
    ///
    /// [`is_wrong_map`](RingError::is_wrong_map) for a descriptor that is no map, or without
    /// `/proc`.
    pub fn differences(&self, fd: impl AsFd) -> Result<Vec<String>, RingError> {
        let found = MapInfo::read(fd)?;
        let parts = [
            ("its type", self.kind.number(), found.map_type),
            ("its key size", self.key_size, found.key_size),
            ("its value size", self.value_size, found.value_size),
            ("max_entries", self.max_entries, found.max_entries),
        ];
        let parts = parts
            .into_iter()
            .filter(|(_, wanted, found)| wanted != found);
        let mut differences: Vec<String> = parts
            .map(|(part, wanted, found)| format!("{part} is {found}, not {wanted}"))
            .collect();
        if found.map_flags != self.flags {
            let (found, wanted) = (found.map_flags, self.flags);
            differences.push(format!("its flags are {found}, not {wanted}"));
        }
        Ok(differences)
    }

    /// Fails unless the map behind `fd` is this.
    ///
    /// # Errors
    ///
    /// [`is_wrong_map`](RingError::is_wrong_map) with all [`differences`](Self::differences).
    pub fn verify(&self, fd: impl AsFd) -> Result<(), RingError> {
        let differences = self.differences(fd)?;
        match differences.is_empty() {
            true => Ok(()),
            false => Err(RingError::wrong_map(differences.join("; "))),
        }
    }
}

/// What /proc says of a map.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MapInfo {
    pub(crate) map_type: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    map_flags: MapFlags,
}

impl MapInfo {
    pub(crate) fn read(fd: impl AsFd) -> Result<Self, RingError> {
        let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
        let info = std::fs::read_to_string(&path)
            .map_err(|e| RingError::wrong_map(format!("{path} cannot be read: {e}")))?;
        Self::parse(&info).ok_or_else(|| RingError::wrong_map("its descriptor is not a BPF map's"))
    }

    /// Fails unless the map is of this type.
    pub(crate) fn expect_kind(&self, wanted: MapKind) -> Result<(), RingError> {
        if self.map_type == wanted.number() {
            return Ok(());
        }
        let (found, number) = (self.map_type, wanted.number());
        let why = format!("it is a map of type {found}, not {wanted} ({number})");
        Err(RingError::wrong_map(why))
    }

    /// A ring whose new records replace the oldest.
    pub(crate) fn overwrites(&self) -> bool {
        self.map_flags.has(MapFlags::RB_OVERWRITE)
    }

    fn parse(fdinfo: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = fdinfo
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            match line.trim() {
                hex if hex.starts_with("0x") => u32::from_str_radix(&hex[2..], 16).ok(),
                decimal => decimal.parse().ok(),
            }
        };
        Some(Self {
            map_type: field("map_type")?,
            key_size: field("key_size")?,
            value_size: field("value_size")?,
            max_entries: field("max_entries")?,
            map_flags: MapFlags(field("map_flags")?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RING: MapSpec = MapSpec {
        kind: MapKind::RingBuf,
        key_size: 0,
        value_size: 0,
        max_entries: 1 << 16,
        flags: MapFlags::NONE,
    };

    #[test]
    fn every_broken_rule_is_named() {
        let error = MapSpec {
            key_size: 4,
            max_entries: 5000,
            flags: MapFlags::NO_PREALLOC | MapFlags(1 << 30),
            ..RING
        };
        let error = error.check().expect_err("three rules");
        assert_eq!(error.reasons().len(), 3, "{error}");
        assert!(
            error.to_string().contains("NO_PREALLOC|0x40000000"),
            "{error}"
        );
    }

    #[test]
    fn fdinfo_of_a_map_is_read() {
        let info = "pos:\t0\nflags:\t02000002\nmap_type:\t27\nkey_size:\t0\nvalue_size:\t0\n\
                    max_entries:\t65536\nmap_flags:\t0x4\nmap_extra:\t0x0\n";
        let found = MapInfo::parse(info).expect("a map's");
        assert_eq!(
            (found.map_type, found.max_entries, found.map_flags),
            (27, 65536, MapFlags::NUMA_NODE)
        );
    }

    #[test]
    fn fdinfo_of_anything_else_is_refused() {
        for info in [
            "",
            "pos:\t0\n",
            "map_type:\t27\nkey_size:\t0\nmax_entries:\t-1\n",
        ] {
            assert_eq!(MapInfo::parse(info), None, "{info:?}");
        }
    }
}
