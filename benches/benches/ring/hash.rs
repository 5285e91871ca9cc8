//! Hash maps, where programs keep what they have not yet written to a ring: preallocated, and with
//! `BPF_F_NO_PREALLOC`.

use std::os::fd::{AsFd as _, AsRawFd as _};

use libbpf_rs::{MapCore as _, MapFlags, MapHandle, Object, ObjectBuilder, ProgramInput};

use crate::median;

const OBJECT: &[u8] = include_bytes!("../../bpf/hash_load.bpf.o");
/// Of 262,144 that fit.
const KEYS: u64 = 100_000;

const MAPS: [&str; 2] = ["preallocated", "on_demand"];
const OPERATIONS: [&str; 2] = ["insert", "delete"];

struct Maps {
    object: Object,
}

impl Maps {
    fn new() -> Self {
        let object = ObjectBuilder::default().open_memory(OBJECT);
        let object = object.expect("an object").load().expect("it is allowed to");
        Self { object }
    }

    fn map(&self, ends_with: &str) -> MapHandle {
        let mut maps = self.object.maps();
        let map = maps.find(|map| map.name().to_string_lossy().ends_with(ends_with));
        MapHandle::try_from(&map.expect("the object has it")).expect("a descriptor is left")
    }

    /// What the operation on [`KEYS`] keys took: p50, p99, p99.9 in nanoseconds.
    fn run(&self, program: &str) -> [f64; 3] {
        let took = self.map(".bss");
        let zeros = vec![0; took.value_size() as usize];
        let key = 0u32.to_ne_bytes();
        took.update(&key, &zeros, MapFlags::ANY).expect("its own");
        let mut progs = self.object.progs_mut();
        let found = progs.find(|prog| prog.name() == program);
        let mut context: Vec<u8> = [KEYS, 0]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        let input = ProgramInput {
            context_in: Some(&mut context),
            ..ProgramInput::default()
        };
        let ran = found.expect("the object has it").test_run(input);
        ran.expect("it runs");
        let took = took.lookup(&key, MapFlags::ANY).expect("its own");
        let took = took.expect("an array has all its keys");
        let (counts, _) = took.as_chunks();
        quantiles(counts.iter().map(|count| u32::from_ne_bytes(*count).into()))
    }

    /// What the kernel says that the map holds of memory.
    fn kib(&self, map: &str) -> u64 {
        let map = self.map(map);
        let file = format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd());
        let info = std::fs::read_to_string(file).expect("/proc");
        let bytes = info.lines().find_map(|line| line.strip_prefix("memlock:"));
        let bytes: u64 = bytes.expect("it tells").trim().parse().expect("a number");
        bytes / 1024
    }
}

/// `counts`: how often each number of nanoseconds was met.
fn quantiles(counts: impl Iterator<Item = u64> + Clone) -> [f64; 3] {
    let all: u64 = counts.clone().sum();
    assert_eq!(all, KEYS, "every operation is counted");
    [0.5, 0.99, 0.999].map(|quantile| {
        let (mut below, rank) = (0, (all as f64 * quantile) as u64);
        let reached = |count| {
            below += count;
            below > rank
        };
        counts.clone().position(reached).expect("some take longest") as f64
    })
}

pub(crate) fn table(rounds: usize) {
    println!("### hash maps: 100,000 insertions and deletions, 8-byte keys, 64-byte values\n");
    println!(
        "| | p50 ns | p99 ns | p99.9 ns | KiB, empty | KiB, 100,000 keys |\n|---|---:|---:|---:|---:|---:|"
    );
    let maps = Maps::new();
    let mut rows: Vec<[[f64; 3]; 4]> = Vec::new();
    let mut sizes = [[0; 2]; 2];
    for round in 0..=rounds {
        let mut row = [[0.0; 3]; 4];
        for turn in 0..MAPS.len() {
            let at = (turn + round) % MAPS.len();
            sizes[at][0] = maps.kib(MAPS[at]);
            row[at * 2] = maps.run(&format!("insert_{}", MAPS[at]));
            sizes[at][1] = maps.kib(MAPS[at]);
            row[at * 2 + 1] = maps.run(&format!("delete_{}", MAPS[at]));
        }
        // The first round faults the maps' pages in.
        if round > 0 {
            rows.push(row);
        }
    }
    for (at, map) in MAPS.iter().enumerate() {
        for (which, operation) in OPERATIONS.iter().enumerate() {
            let middle = |quantile: usize| {
                median(
                    rows.iter()
                        .map(|row| row[at * 2 + which][quantile])
                        .collect(),
                )
            };
            let name = if at == 0 { map } else { &"NO_PREALLOC" };
            println!(
                "| {name}, {operation} | {:.0} | {:.0} | {:.0} | {} | {} |",
                middle(0),
                middle(1),
                middle(2),
                sizes[at][0],
                sizes[at][1],
            );
        }
    }
    println!();
}
