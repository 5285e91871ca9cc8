//! The writer: `bpf/ring_load.bpf.c`, run in the kernel.

use std::mem::{offset_of, size_of};

use libbpf_rs::{MapCore as _, MapHandle, Object, ObjectBuilder, ProgramInput};

const OBJECT: &[u8] = include_bytes!("../../bpf/ring_load.bpf.o");

/// Twin of `struct ring_load_args`.
#[repr(C)]
struct Args {
    count: u32,
    flags: u32,
}

const _: () = assert!(size_of::<Args>() == 8);
const _: () = assert!(offset_of!(Args, count) == 0);
const _: () = assert!(offset_of!(Args, flags) == 4);

/// A size of records.
pub(crate) struct Size {
    pub(crate) bytes: &'static str,
    program: &'static str,
    /// Records that fill most of the ring.
    pub(crate) fill: u32,
}

pub(crate) const SIZES: [Size; 4] = [
    Size {
        bytes: "8",
        program: "write_8",
        fill: 500_000,
    },
    Size {
        bytes: "128",
        program: "write_128",
        fill: 100_000,
    },
    Size {
        bytes: "2048",
        program: "write_2048",
        fill: 8_000,
    },
    Size {
        bytes: "8 or 128",
        program: "write_mixed",
        fill: 100_000,
    },
];

/// When a submitted record wakes the reader.
#[derive(Clone, Copy)]
pub(crate) enum WakeUps {
    /// When it has read all that came before.
    AsNeeded = 0,
    None = 1,
}

/// A ring and the programs that write to it.
pub(crate) struct Load {
    object: Object,
}

impl Load {
    pub(crate) fn new() -> libbpf_rs::Result<Self> {
        let object = ObjectBuilder::default().open_memory(OBJECT)?.load()?;
        Ok(Self { object })
    }

    pub(crate) fn ring(&self) -> MapHandle {
        self.map("load")
    }

    /// The map of perf buffers.
    pub(crate) fn perf(&self) -> MapHandle {
        self.map("perf_load")
    }

    fn map(&self, name: &str) -> MapHandle {
        let map = self.object.maps().find(|map| map.name() == name);
        MapHandle::try_from(&map.expect("the object has it")).expect("a descriptor is left")
    }

    /// Writes `count` records in one run of the program.
    pub(crate) fn write(&self, size: &Size, count: u32, wake_ups: WakeUps) {
        let words = [count, wake_ups as u32];
        let context = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.run(size.program, context);
    }

    /// Writes `count` records to the perf buffer of this thread's CPU in one run of the program.
    pub(crate) fn write_perf(&self, program: &str, count: u64) {
        self.run(program, count.to_ne_bytes().to_vec());
    }

    fn run(&self, program: &str, mut context: Vec<u8>) {
        let program = self.object.progs_mut().find(|prog| prog.name() == program);
        let input = ProgramInput {
            context_in: Some(&mut context),
            ..ProgramInput::default()
        };
        program
            .expect("the object has it")
            .test_run(input)
            .expect("it runs");
    }
}
