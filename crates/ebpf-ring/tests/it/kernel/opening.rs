//! Maps by id and by pin.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;

use ebpf_ring::{
    BpfMap, MapCounters, MapFlags, MapKind, MapSpec, PerfOptions, PerfReader, RingReader,
};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::Flood;

const RING: MapSpec = MapSpec {
    kind: MapKind::RingBuf,
    key_size: 0,
    value_size: 0,
    max_entries: 64 * 1024,
    flags: MapFlags::NONE,
};

/// A file system for pins, mounted for one test.
struct Bpffs(tempfile::TempDir);

impl Bpffs {
    fn mount() -> rustix::io::Result<Self> {
        let dir = tempfile::tempdir().expect("a folder");
        mount("bpf", dir.path(), "bpf", MountFlags::empty(), None)?;
        Ok(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

#[test]
fn a_ring_and_its_counters_open_by_id() {
    let flood = flood_or_skip!();
    let id = |name| {
        let map = flood.map(name);
        let file = format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd());
        let info = std::fs::read_to_string(file).expect("/proc");
        let id = info.lines().find_map(|line| line.strip_prefix("map_id:"));
        let id = id.expect("the kernel tells").trim().parse();
        id.expect("a number")
    };
    let counters = BpfMap::by_id(id("flood_counts")).expect("root may");
    let ring = BpfMap::by_id(id("flood")).expect("root may");
    let mut ring = RingReader::from_fd(ring)
        .expect("a ring")
        .with_counters(MapCounters::from_fd(counters, 0).expect("counters"));
    flood.write(5);
    assert_eq!(ring.drain(9, |_| ()).expect("a sound ring").records, 5);
    assert_eq!(ring.stats().expect("sound").is_balanced(), Some(true));
    let error = BpfMap::by_id(u32::MAX).expect_err("there is none");
    assert!(!error.is_wrong_map(), "{error}");
}

#[test]
fn a_pin_opens_when_it_is_what_is_wanted() {
    let flood = flood_or_skip!();
    let bpffs = match Bpffs::mount() {
        Ok(bpffs) => bpffs,
        Err(error) => {
            crate::skip::skip(format_args!(
                "a bpf file system cannot be mounted here: {error}"
            ));
            return;
        }
    };
    let pin = bpffs.path().join("events");
    flood.map("flood").pin(&pin).expect("a pin");
    let map = BpfMap::pinned(&pin, &RING).expect("it is the same");
    let mut ring = RingReader::from_fd(map).expect("a ring");
    flood.write(3);
    assert_eq!(ring.drain(9, |_| ()).expect("a sound ring").records, 3);

    // Each part that differs is named.
    let wanted = MapSpec {
        max_entries: 4096,
        flags: MapFlags::NUMA_NODE,
        ..RING
    };
    let error = BpfMap::pinned(&pin, &wanted).expect_err("it differs");
    assert!(error.is_wrong_map(), "{error}");
    let text = error.to_string();
    for part in [
        "max_entries is 65536, not 4096",
        "its flags are none, not NUMA_NODE",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!text.contains("its type"), "{text}");
    let wanted = MapSpec {
        kind: MapKind::Array,
        key_size: 4,
        value_size: 8,
        ..wanted
    };
    let text = BpfMap::pinned(&pin, &wanted)
        .expect_err("all differs")
        .to_string();
    assert_eq!(text.matches("; ").count(), 4, "five differences: {text}");
}

#[test]
fn what_is_no_pin_of_a_map_is_refused() {
    let flood = flood_or_skip!();
    let bpffs = match Bpffs::mount() {
        Ok(bpffs) => bpffs,
        Err(error) => {
            crate::skip::skip(format_args!(
                "a bpf file system cannot be mounted here: {error}"
            ));
            return;
        }
    };
    let error = BpfMap::pinned(bpffs.path().join("none"), &RING).expect_err("nothing is there");
    assert!(error.to_string().contains("none failed"), "{error}");
    let program = bpffs.path().join("program");
    let mut programs = flood.loaded.object.progs_mut();
    let mut found = programs.next().expect("the object has one");
    found.pin(&program).expect("a pin");
    let error = BpfMap::pinned(&program, &RING).expect_err("a program");
    assert!(error.is_wrong_map(), "{error}");
    // A map that is no perf event array takes no buffers.
    let counts = flood.map("flood_counts");
    let options = PerfOptions::default();
    let error = PerfReader::from_map(&counts, options).expect_err("a per-CPU array");
    assert!(error.is_wrong_map(), "{error}");
}
