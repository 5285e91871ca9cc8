//! Glue to libbpf-rs maps.

use libbpf_rs::{MapCore, MapHandle};

use crate::error::RingError;
use crate::map::{MapCounters, duplicate};
use crate::perf::{PerfOptions, PerfReader};
use crate::ring::RingReader;

impl RingReader {
    /// Opens a libbpf-rs map. The map may be dropped afterwards.
    ///
    /// # Errors
    ///
    /// As [`from_fd`](Self::from_fd).
    pub fn from_map(map: &impl MapCore) -> Result<Self, RingError> {
        Self::from_borrowed(map.as_fd())
    }
}

impl PerfReader {
    /// As [`from_fd`](Self::from_fd) with a libbpf-rs map, which may be dropped afterwards.
    ///
    /// # Errors
    ///
    /// As `from_fd`.
    pub fn from_map(map: &impl MapCore, options: PerfOptions) -> Result<Self, RingError> {
        Self::from_fd(duplicate(map.as_fd())?, options)
    }
}

impl MapCounters {
    /// The counters at `shard` of `map`; `MapHandle::try_from(&map)` makes a handle of any map.
    ///
    /// # Errors
    ///
    /// As [`from_fd`](Self::from_fd).
    pub fn new(map: MapHandle, shard: u32) -> Result<Self, RingError> {
        Self::from_fd(duplicate(&map)?, shard)
    }
}
