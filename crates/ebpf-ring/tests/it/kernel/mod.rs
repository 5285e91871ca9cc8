//! The reader on the kernel's own rings, written by `bpf/ring_flood.bpf.c`. Needs root.

/// Loads the flood program, or says why this machine cannot and ends the test.
macro_rules! flood_or_skip {
    () => {
        match Flood::load() {
            Ok(flood) => flood,
            // EACCES, the verifier's no, is of the same kind and must fail the test.
            Err(error) if format!("{error:#}").ends_with("(os error 1)") => {
                crate::skip::skip(format_args!(
                    "loading BPF programs needs root (CAP_BPF, CAP_PERFMON): {error}"
                ));
                return;
            }
            Err(error) => panic!("{error:#}"),
        }
    };
}

mod accounts;
#[cfg(feature = "tokio")]
mod awaiting;
mod opening;
mod overwriting;
mod perf;
mod probe;
mod shards;
mod sharing;
mod soak;
mod truths;
mod waiting;

use std::mem::{offset_of, size_of};

use ebpf_ring::{MapCounters, RingReader};
use libbpf_rs::{MapCore as _, MapHandle, Object, ObjectBuilder, ProgramInput};

const OBJECT: &[u8] = include_bytes!("../../bpf/ring_flood.bpf.o");
const CHECK: u64 = 0x9e37_79b9_7f4a_7c15;
const RECORD_BYTES: u64 = 16;
/// A record with its header.
const SLOT_BYTES: u64 = 24;

/// Twin of `struct ring_flood_args`.
#[repr(C)]
struct Args {
    count: u32,
    producer: u32,
    discard_every: u32,
    wake_bytes: u32,
}

const _: () = assert!(size_of::<Args>() == 16);
const _: () = assert!(offset_of!(Args, count) == 0);
const _: () = assert!(offset_of!(Args, producer) == 4);
const _: () = assert!(offset_of!(Args, discard_every) == 8);
const _: () = assert!(offset_of!(Args, wake_bytes) == 12);

/// Twin of `struct ring_flood_record`.
#[repr(C)]
#[derive(Debug, PartialEq)]
struct FloodRecord {
    producer: u32,
    index: u32,
    check: u64,
}

const _: () = assert!(size_of::<FloodRecord>() == 16);
const _: () = assert!(offset_of!(FloodRecord, producer) == 0);
const _: () = assert!(offset_of!(FloodRecord, index) == 4);
const _: () = assert!(offset_of!(FloodRecord, check) == 8);

impl FloodRecord {
    /// Panics on any record that the program did not write.
    fn parse(bytes: &[u8]) -> Self {
        assert_eq!(bytes.len(), 16);
        let half = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let check = u64::from_ne_bytes(bytes[8..].try_into().expect("8 bytes"));
        let record = Self {
            producer: half(0),
            index: half(4),
            check,
        };
        let id = u64::from(record.producer) << 32 | u64::from(record.index);
        assert_eq!(record.check, id.wrapping_mul(CHECK), "torn: {record:?}");
        record
    }
}

/// A loaded object.
struct Loaded {
    object: Object,
}

impl Loaded {
    fn new(object: &[u8]) -> libbpf_rs::Result<Self> {
        let object = ObjectBuilder::default().open_memory(object)?.load()?;
        Ok(Self { object })
    }

    fn map(&self, name: &str) -> MapHandle {
        let map = self.object.maps().find(|map| map.name() == name);
        MapHandle::try_from(&map.expect("the object has it")).expect("a descriptor is left")
    }

    fn counters(&self) -> MapCounters {
        MapCounters::new(self.map("flood_counts"), 0).expect("a counter map")
    }

    /// Runs a program on this context, on `cpu` or on any, and returns what it returned.
    fn run(&self, program: &str, mut context: Vec<u8>, cpu: Option<u32>) -> u32 {
        const ON_CPU: u32 = 1;
        let found = self.object.progs_mut().find(|prog| prog.name() == program);
        let input = ProgramInput {
            context_in: Some(&mut context),
            cpu: cpu.unwrap_or(0),
            flags: cpu.map_or(0, |_| ON_CPU),
            ..ProgramInput::default()
        };
        let ran = found.expect("the object has it").test_run(input);
        ran.expect("it runs").return_value
    }
}

struct Flood {
    loaded: Loaded,
}

impl Flood {
    fn load() -> libbpf_rs::Result<Self> {
        let loaded = Loaded::new(OBJECT)?;
        Ok(Self { loaded })
    }

    fn map(&self, name: &str) -> MapHandle {
        self.loaded.map(name)
    }

    fn reader(&self) -> RingReader {
        RingReader::from_map(&self.map("flood"))
            .expect("a ring")
            .with_counters(self.loaded.counters())
    }

    fn run(&self, program: &str, count: u32, producer: u32, discard_every: u32) {
        self.run_with(program, [count, producer, discard_every, 0]);
    }

    /// `words`: as `Args`.
    fn run_with(&self, program: &str, words: [u32; 4]) {
        let context = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let returned = self.loaded.run(program, context, None);
        let fails = ["write_too_large", "write_as_large"].contains(&program);
        assert_eq!(returned, u32::from(fails));
    }

    fn write(&self, count: u32) {
        self.run("write_records", count, 1, 0);
    }
}
