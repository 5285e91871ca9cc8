//! Glue to libbpf-rs maps.

use std::io;

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};

use super::reader::RingReader;
use crate::counters::{CounterSource, Counters};
use crate::error::RingError;

/// The counters of one ring, read from the map that `MR_COUNTERS` defined.
#[derive(Debug)]
pub struct MapCounters {
    map: MapHandle,
    shard: u32,
}

impl MapCounters {
    /// The counters at `shard` of `map`; `MapHandle::try_from(&map)` makes a handle of any map.
    ///
    /// # Errors
    ///
    /// When `map` is not a per-CPU array of `struct mr_counters` with more than `shard` entries.
    pub fn new(map: MapHandle, shard: u32) -> Result<Self, RingError> {
        let fits = map.map_type() == MapType::PercpuArray
            && usize::try_from(map.value_size()) == Ok(Counters::BYTES)
            && map.max_entries() > shard;
        if !fits {
            let why = format!(
                "map {:?} is not a counter map with shard {shard}; define it with MR_COUNTERS",
                map.name()
            );
            return Err(RingError::io("opening the counters", io::Error::other(why)));
        }
        Ok(Self { map, shard })
    }
}

impl CounterSource for MapCounters {
    fn per_cpu(&self) -> io::Result<Vec<Counters>> {
        let values = self
            .map
            .lookup_percpu(&self.shard.to_ne_bytes(), MapFlags::ANY)
            .map_err(|e| to_io(&e))?
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let counters = |value: &Vec<u8>| {
            value
                .first_chunk()
                .map(Counters::from_bytes)
                .ok_or(io::ErrorKind::InvalidData.into())
        };
        values.iter().map(counters).collect()
    }
}

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

pub(crate) fn to_io(error: &libbpf_rs::Error) -> io::Error {
    let kind = match error.kind() {
        libbpf_rs::ErrorKind::PermissionDenied => io::ErrorKind::PermissionDenied,
        libbpf_rs::ErrorKind::NotFound => io::ErrorKind::NotFound,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error.to_string())
}
