//! map-iter sees every step of walks whose steps are known.

use std::collections::BTreeSet;
use std::os::fd::AsRawFd as _;

use kernel_scope::map_iter::{HEAT_BUCKETS, MapIter, Options, Row, Summary};
use kernel_scope::{Attach, Symbols};
use libbpf_rs::{MapCore as _, MapFlags, MapHandle, MapType, libbpf_sys};

const ATTACHMENTS: [Attach; 2] = [Attach::RawTracepoint, Attach::SyscallTracepoint];

/// Opens the tool, or prints why this machine cannot and gives nothing.
fn open(options: &Options) -> Option<MapIter> {
    if options.attach == Some(Attach::SyscallTracepoint) && !tracefs() {
        crate::skip::skip("tracefs is not mounted and cannot be");
        return None;
    }
    match MapIter::open(options) {
        Ok(tool) => Some(tool),
        Err(error) if error.is_permission_denied() => {
            crate::skip::skip(error);
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn tracefs() -> bool {
    let shown =
        || std::path::Path::new("/sys/kernel/tracing/events/syscalls/sys_enter_bpf").exists();
    let mount = || {
        std::process::Command::new("mount")
            .args(["-t", "tracefs", "tracefs", "/sys/kernel/tracing"])
            .output()
    };
    shown() || mount().is_ok_and(|done| done.status.success()) && shown()
}

/// A map of its own for a test, by which the test finds its row.
struct Walked {
    map: MapHandle,
    key_size: usize,
    id: u32,
}

impl Walked {
    fn create(map_type: MapType, name: &str, key_size: u32, entries: u32) -> Self {
        let opts = libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
            ..Default::default()
        };
        let map = MapHandle::create(map_type, Some(name), key_size, 8, entries, &opts);
        let map = map.expect("root may make maps");
        let id = map.info().expect("it is a map").info.id;
        Self {
            map,
            key_size: key_size as usize,
            id,
        }
    }

    /// A hash with keys of any size, each different in its first and its last bytes.
    fn filled(map_type: MapType, name: &str, key_size: u32, entries: u32) -> Self {
        let walked = Self::create(map_type, name, key_size, entries * 4);
        for n in 0..entries {
            let key = walked.key(n);
            if matches!(map_type, MapType::PercpuHash | MapType::LruPercpuHash) {
                let cpus = libbpf_rs::num_possible_cpus().expect("/sys says");
                let values = vec![vec![0; 8]; cpus];
                walked
                    .map
                    .update_percpu(&key, &values, MapFlags::ANY)
                    .expect("room");
            } else {
                walked
                    .map
                    .update(&key, &[0; 8], MapFlags::ANY)
                    .expect("room");
            }
        }
        walked
    }

    fn key(&self, n: u32) -> Vec<u8> {
        let mut key = vec![0x5a; self.key_size];
        key[..4].copy_from_slice(&n.to_ne_bytes());
        *key.last_mut().expect("no key is empty") ^= n.to_ne_bytes()[0];
        key
    }

    fn walk(&self) -> u64 {
        self.map.keys().count() as u64
    }

    /// Walks once and deletes the current key at each of the steps `at`.
    fn walk_and_delete(&self, at: &[u64]) -> u64 {
        let mut steps = 0;
        for key in self.map.keys() {
            steps += 1;
            if at.contains(&steps) {
                self.map.delete(&key).expect("it was just returned");
            }
        }
        steps
    }

    fn row<'s>(&self, summary: &'s Summary) -> &'s Row {
        summary
            .rows()
            .into_iter()
            .find(|row| row.map_id == self.id)
            .expect("the map was walked")
    }
}

#[test]
fn a_known_walk_is_seen_step_by_step() {
    for attach in ATTACHMENTS {
        // With room for the walks of others beside it: nobody reads meanwhile.
        let options = Options::default().ring_bytes(8 << 20);
        let Some(mut tool) = open(&options.attach(attach)) else {
            continue;
        };
        assert_eq!(tool.attached().attach, attach);
        let map = Walked::filled(MapType::Hash, "known_walk", 8, 500);
        for _ in 0..7 {
            assert_eq!(map.walk(), 500);
        }
        let mut summary = Summary::default();
        let events = tool.finish(&mut summary).expect("a sound ring");
        assert_eq!(events.dropped(), 0, "{events:?}");
        let row = map.row(&summary);
        assert_eq!(
            (row.walks, row.completed, row.keys, row.restarts),
            (7, 7, 3500, 0)
        );
        assert_eq!((row.failures, row.step_ns.count()), (0, 7 * 501));
        assert_eq!(
            (row.map_name.as_str(), row.map_type.to_string().as_str()),
            ("known_walk", "hash")
        );
        assert_eq!(row.pid, std::process::id());
        assert!(row.step_ns.quantile(0.5) > Some(0));
        assert_eq!(
            (events.is_balanced(), events.dropped(), events.pending),
            (true, 0, 0)
        );
        assert_eq!(events.delivered, summary.events());
        println!("FACT map-iter by {}: every step seen", attach.as_str());
    }
}

#[test]
fn the_hashes_of_a_walk_chain_its_keys() {
    let Some(mut tool) = open(&Options::default()) else {
        return;
    };
    let map = Walked::filled(MapType::Hash, "chained", 16, 100);
    map.walk();
    let (mut previous, mut seen) = (0, BTreeSet::new());
    let drained = tool.drain(u64::MAX, |event| {
        if event.map_id == map.id {
            assert_eq!(
                event.key_hash, previous,
                "each step passes the key that the last returned"
            );
            assert_eq!(event.is_first(), previous == 0);
            assert_eq!(event.has_next(), event.next_hash != 0);
            previous = event.next_hash;
            seen.insert(event.next_hash);
        }
    });
    assert!(drained.expect("a sound ring") >= 101);
    assert_eq!(
        seen.len(),
        101,
        "a hundred different keys, and 0 at the end"
    );
}

/// The program looks the key up as the kernel does: every hash-like type, every shape of key.
#[test]
fn a_key_deleted_under_the_walk_is_a_restart() {
    let types = [
        MapType::Hash,
        MapType::PercpuHash,
        MapType::LruHash,
        MapType::LruPercpuHash,
    ];
    let key_sizes = [4, 5, 8, 11, 12, 13, 16, 24, 25, 32, 36, 37, 60, 63, 64];
    // Nobody reads before all walks are done.
    let Some(mut tool) = open(&Options::default().ring_bytes(4 << 20)) else {
        return;
    };
    let mut maps = Vec::new();
    for map_type in types {
        for key_size in key_sizes {
            let map = Walked::filled(map_type, "deleted_under", key_size, 60);
            assert_eq!(map.walk(), 60);
            let steps = map.walk_and_delete(&[7, 20, 41]);
            maps.push((map, steps, format!("{map_type:?} with keys of {key_size}")));
        }
    }
    let mut summary = Summary::default();
    let events = tool.finish(&mut summary).expect("a sound ring");
    assert_eq!(events.dropped(), 0);
    for (map, steps, what) in maps {
        let row = map.row(&summary);
        assert_eq!(
            (row.walks, row.completed, row.restarts),
            (2, 2, 3),
            "{what}"
        );
        assert_eq!(row.keys, 60 + steps, "{what}");
    }
}

#[test]
fn deleting_every_key_as_it_comes_restarts_at_each_step() {
    let Some(mut tool) = open(&Options::default()) else {
        return;
    };
    let map = Walked::filled(MapType::Hash, "emptied", 4, 50);
    let mut left = 50;
    for key in map.map.keys() {
        map.map.delete(&key).expect("it was just returned");
        left -= 1;
    }
    assert_eq!(left, 0);
    let mut summary = Summary::default();
    tool.finish(&mut summary).expect("a sound ring");
    let row = map.row(&summary);
    // The fiftieth call finds its key gone and the map empty: an end, not a restart.
    assert_eq!(
        (row.walks, row.keys, row.restarts, row.completed),
        (1, 50, 49, 1)
    );
}

#[test]
fn arrays_are_walked_by_number() {
    for map_type in [MapType::Array, MapType::PercpuArray] {
        an_array_is_walked_by_number(map_type);
    }
}

fn an_array_is_walked_by_number(map_type: MapType) {
    let Some(mut tool) = open(&Options::default()) else {
        return;
    };
    let map = Walked::create(map_type, "numbered", 4, 32);
    assert_eq!(map.walk(), 32);
    // Beyond the end the kernel starts again at zero; outside of a walk that begins one.
    let mut summary = Summary::default();
    tool.finish(&mut summary).expect("a sound ring");
    let row = map.row(&summary);
    assert_eq!((row.walks, row.keys, row.restarts), (1, 32, 0));
    assert!(row.map_type.is_linear());
}

/// One key that comes again and again, as in a walk that restarts, stands out.
#[test]
fn the_key_that_is_read_most_makes_its_bucket_hot() {
    let Some(mut tool) = open(&Options::default()) else {
        return;
    };
    let map = Walked::filled(MapType::Hash, "heated", 8, 640);
    map.walk();
    let mut summary = Summary::default();
    tool.collect(std::time::Duration::ZERO, &mut summary)
        .expect("a sound ring");
    let row = map.row(&summary);
    assert_eq!(row.heat.iter().sum::<u64>(), 640);
    let even = row.hottest(1)[0];
    assert!(even.1 < 40, "ten keys a bucket, about: {even:?}");
    for _ in 0..500 {
        map.map.keys().next().expect("it is not empty");
    }
    tool.finish(&mut summary).expect("a sound ring");
    let row = map.row(&summary);
    let hot = row.hottest(HEAT_BUCKETS);
    assert!(hot[0].1 >= 500 && hot[1].1 < 40, "{hot:?}");
    assert!(hot.is_sorted_by_key(|(_, keys)| std::cmp::Reverse(*keys)));
}

#[test]
fn a_walk_says_where_in_the_program_it_began() {
    for attach in ATTACHMENTS {
        let Some(mut tool) = open(&Options::default().attach(attach)) else {
            continue;
        };
        let map = Walked::filled(MapType::Hash, "called", 8, 10);
        (0..3).for_each(|_| assert_eq!(map.walk(), 10));
        let mut summary = Summary::default();
        tool.finish(&mut summary).expect("a sound ring");
        let row = map.row(&summary);
        let began: u64 = row.callers.iter().map(|(_, times)| times).sum();
        assert_eq!(began, 3, "{row:?}");
        let addresses = tool.caller(row.callers[0].0);
        let names = Symbols::new().user(row.pid, &addresses);
        // The C library's syscall(), or the function of libbpf that it is in.
        assert!(
            names[0].contains("syscall") || names[0].contains("bpf"),
            "{names:?}"
        );
    }
}

#[test]
fn long_keys_are_walked_without_a_guess_at_restarts() {
    let Some(mut tool) = open(&Options::default()) else {
        return;
    };
    let map = Walked::filled(MapType::Hash, "long_keys", 100, 20);
    map.walk();
    map.walk_and_delete(&[3]);
    let (mut steps, mut unchecked) = (0, 0);
    let drained = tool.drain(u64::MAX, |event| {
        if event.map_id == map.id {
            steps += 1;
            unchecked += u64::from(event.key_was_unchecked());
            assert!(!event.key_was_gone());
        }
    });
    drained.expect("a sound ring");
    assert_eq!(unchecked, steps - 2, "all but the two first steps");
}

#[test]
fn a_descriptor_that_is_no_map_gets_no_identity() {
    let Some(mut tool) = open(&Options::default()) else {
        return;
    };
    // What the program takes for a map is a socket, a pipe, a sequence file and nothing at all.
    let (socket, _peer) = std::os::unix::net::UnixStream::pair().expect("descriptors are left");
    let (pipe, _writer) = std::io::pipe().expect("descriptors are left");
    let file = std::fs::File::open("/proc/self/status").expect("every Linux has it");
    for fd in [
        socket.as_raw_fd(),
        pipe.as_raw_fd(),
        file.as_raw_fd(),
        9999,
        -1,
    ] {
        let mut next = [0u8; 8];
        let attempt = next_key(fd, &mut next);
        assert!(attempt < 0, "{attempt}");
    }
    let mut summary = Summary::default();
    tool.finish(&mut summary).expect("a sound ring");
    assert!(
        summary
            .rows()
            .iter()
            .all(|row| row.failures == 0 || row.map_id == 0)
    );
    let own = |row: &&Row| row.pid == std::process::id() && row.map_id == 0;
    let rows = summary.rows();
    let row = rows
        .iter()
        .copied()
        .find(own)
        .expect("the failures are shown");
    assert!(
        row.failures >= 5 && row.keys == 0 && row.walks == 0,
        "{row:?}"
    );
    assert_eq!((row.map_name.as_str(), row.map_type.0), ("", 0));
}

fn next_key(fd: i32, next: &mut [u8]) -> i32 {
    // SAFETY: a null key asks for the first one; `next` is as large as any key of this test, and
    // none of the descriptors is a map's.
    unsafe { libbpf_sys::bpf_map_get_next_key(fd, std::ptr::null(), next.as_mut_ptr().cast()) }
}

#[test]
fn the_pid_filter_lets_only_that_process_through() {
    let Some(mut tool) = open(&Options::default().pid(1)) else {
        return;
    };
    let map = Walked::filled(MapType::Hash, "filtered", 4, 10);
    map.walk();
    let mut summary = Summary::default();
    let events = tool.finish(&mut summary).expect("a sound ring");
    assert!(summary.rows().iter().all(|row| row.pid == 1));
    assert_eq!(
        events.seen(),
        summary.events(),
        "what is filtered is not an event"
    );
}

#[test]
fn what_a_small_ring_loses_is_counted_exactly() {
    for attach in ATTACHMENTS {
        let options = Options::default().ring_bytes(4096).attach(attach);
        let Some(mut tool) = open(&options) else {
            continue;
        };
        let map = Walked::filled(MapType::Hash, "overflowing", 4, 1000);
        for _ in 0..3 {
            map.walk();
        }
        let mut summary = Summary::default();
        let events = tool.finish(&mut summary).expect("a sound ring");
        assert!(events.is_balanced(), "{events:?}");
        assert!(events.seen() >= 3 * 1001, "{events:?}");
        assert_eq!(events.delivered, summary.events());
        assert_eq!(events.seen(), events.dropped() + events.delivered);
        assert!(events.dropped() > 2900, "{events:?}");
    }
}

/// Walkers on every CPU, and a tool that reads while they run.
#[test]
fn walks_on_many_threads_are_told_apart() {
    // Room for all of it: on a busy machine the tool may not run before the walkers have ended.
    let Some(mut tool) = open(&Options::default().ring_bytes(4 << 20)) else {
        return;
    };
    let map = Walked::filled(MapType::Hash, "many_threads", 8, 300);
    let mut summary = Summary::default();
    std::thread::scope(|scope| {
        let walkers: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..10).map(|_| map.walk()).sum::<u64>()))
            .collect();
        while !walkers.iter().all(|walker| walker.is_finished()) {
            tool.collect(std::time::Duration::from_millis(2), &mut summary)
                .expect("a sound ring");
        }
        for walker in walkers {
            assert_eq!(walker.join().expect("no panic"), 3000);
        }
    });
    let events = tool.finish(&mut summary).expect("a sound ring");
    let row = map.row(&summary);
    assert_eq!(
        (row.walks, row.completed, row.keys, row.restarts),
        (40, 40, 12_000, 0)
    );
    assert_eq!((events.is_balanced(), events.dropped()), (true, 0));
}
