//! Glue to libbpf-rs maps.

use std::io;
use std::os::fd::AsRawFd as _;

use libbpf_rs::{MapCore, MapFlags, MapType};

use super::reader::{PerfOptions, PerfReader};
use crate::error::RingError;
use crate::ring::to_io;

impl PerfReader {
    /// As [`open`](Self::open), and puts each CPU's buffer into the libbpf-rs map. The map may be
    /// dropped afterwards. What another reader put there is replaced.
    ///
    /// # Errors
    ///
    /// As `open`; [`is_wrong_map`](RingError::is_wrong_map) when `map` is not a
    /// `PERF_EVENT_ARRAY`; also when its `max_entries` leave out a CPU that is online.
    pub fn from_map(map: &impl MapCore, options: PerfOptions) -> Result<Self, RingError> {
        if map.map_type() != MapType::PerfEventArray {
            let why = format!(
                "map {:?} is a {:?}, not a PERF_EVENT_ARRAY",
                map.name(),
                map.map_type()
            );
            return Err(RingError::wrong_map(why));
        }
        let reader = Self::open(options)?;
        for (cpu, fd) in reader.buffers() {
            let fd = fd.as_raw_fd().to_ne_bytes();
            map.update(&cpu.to_ne_bytes(), &fd, MapFlags::ANY)
                .map_err(|e| {
                    RingError::io("putting a CPU's perf buffer into the map", to_io(&e))
                })?;
        }
        // The kernel takes a buffer out when the file closes through which it was put in.
        let file = map.as_fd().try_clone_to_owned();
        let file = file.map_err(|e: io::Error| RingError::io("keeping the map open", e))?;
        Ok(reader.keeping(file))
    }
}
