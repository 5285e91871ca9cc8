use std::fmt;
use std::mem::{offset_of, size_of};

use crate::bytes::{half, name, text, word};
use crate::error::ScopeError;
use crate::symbols::Stacks;

/// One `BPF_MAP_GET_NEXT_KEY`, as `bpf/map_iter.bpf.c` wrote it.
///
/// Twin of `struct map_iter_event` in `bpf/map_iter.h`; both sides assert the size and every
/// offset.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// `CLOCK_MONOTONIC` at the end of the call.
    pub time_ns: u64,
    /// Time inside the call.
    pub step_ns: u64,
    /// A hash of the key passed, the same for equal keys of any map; 0 for the first step.
    pub key_hash: u64,
    /// The same of the key returned; 0 when none was.
    pub next_hash: u64,
    /// The process, as the initial pid namespace numbers it.
    pub pid: u32,
    /// The thread, likewise.
    pub tid: u32,
    /// The map's id; 0 when the call failed in a way that does not prove that it was one.
    pub map_id: u32,
    /// The map's type; see [`MapKind`].
    pub map_type: u32,
    /// 0, or a negative errno; `-ENOENT` ends a walk.
    pub ret: i32,
    flags: u32,
    comm: [u8; 16],
    map_name: [u8; 16],
    user_stack: i32,
    zero: u32,
    /// When the process began: with `pid` it is never given twice.
    pub start_ns: u64,
}

const _: () = assert!(size_of::<Event>() == Event::BYTES);
const _: () = assert!(offset_of!(Event, time_ns) == 0);
const _: () = assert!(offset_of!(Event, step_ns) == 8);
const _: () = assert!(offset_of!(Event, key_hash) == 16);
const _: () = assert!(offset_of!(Event, next_hash) == 24);
const _: () = assert!(offset_of!(Event, pid) == 32);
const _: () = assert!(offset_of!(Event, tid) == 36);
const _: () = assert!(offset_of!(Event, map_id) == 40);
const _: () = assert!(offset_of!(Event, map_type) == 44);
const _: () = assert!(offset_of!(Event, ret) == 48);
const _: () = assert!(offset_of!(Event, flags) == 52);
const _: () = assert!(offset_of!(Event, comm) == 56);
const _: () = assert!(offset_of!(Event, map_name) == 72);
const _: () = assert!(offset_of!(Event, user_stack) == 88);
const _: () = assert!(offset_of!(Event, zero) == 92);
const _: () = assert!(offset_of!(Event, start_ns) == 96);

/// `enum map_iter_flags`.
const FIRST: u32 = 1;
const KEY_GONE: u32 = 2;
const UNCHECKED: u32 = 4;

const ENOENT: i32 = 2;

impl Event {
    /// Bytes of a record.
    pub const BYTES: usize = 104;

    /// Reads a record of the ring.
    ///
    /// # Errors
    ///
    /// [`is_corrupt`](ScopeError::is_corrupt) for any other length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ScopeError> {
        if bytes.len() != Self::BYTES {
            return Err(ScopeError::record(bytes.len()));
        }
        Ok(Self {
            time_ns: word(bytes, offset_of!(Self, time_ns)),
            step_ns: word(bytes, offset_of!(Self, step_ns)),
            key_hash: word(bytes, offset_of!(Self, key_hash)),
            next_hash: word(bytes, offset_of!(Self, next_hash)),
            pid: half(bytes, offset_of!(Self, pid)),
            tid: half(bytes, offset_of!(Self, tid)),
            map_id: half(bytes, offset_of!(Self, map_id)),
            map_type: half(bytes, offset_of!(Self, map_type)),
            ret: half(bytes, offset_of!(Self, ret)).cast_signed(),
            flags: half(bytes, offset_of!(Self, flags)),
            comm: name(bytes, offset_of!(Self, comm)),
            map_name: name(bytes, offset_of!(Self, map_name)),
            user_stack: half(bytes, offset_of!(Self, user_stack)).cast_signed(),
            zero: half(bytes, offset_of!(Self, zero)),
            start_ns: word(bytes, offset_of!(Self, start_ns)),
        })
    }

    /// The thread's name.
    #[must_use]
    pub fn comm(&self) -> String {
        text(&self.comm)
    }

    /// The map's name; may be empty.
    #[must_use]
    pub fn map_name(&self) -> String {
        text(&self.map_name)
    }

    /// Where the caller stood when the walk began or restarted: a number for
    /// [`MapIter::caller`](super::MapIter::caller). `None` at other steps.
    #[must_use]
    pub fn caller(&self) -> Option<u32> {
        u32::try_from(self.user_stack).ok()
    }

    /// A walk began or restarted, and the program lost where.
    #[must_use]
    pub fn caller_lost(&self) -> bool {
        Stacks::is_lost(self.user_stack)
    }

    /// The caller passed no key: a walk begins.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.flags & FIRST != 0
    }

    /// The key passed was not in the map when the call began, so the kernel starts again at the
    /// first key.
    #[must_use]
    pub fn key_was_gone(&self) -> bool {
        self.flags & KEY_GONE != 0
    }

    /// Whether the key was there could not be told: a map that is neither hash nor array, or a
    /// key of more than 64 bytes.
    #[must_use]
    pub fn key_was_unchecked(&self) -> bool {
        self.flags & UNCHECKED != 0
    }

    /// The kernel returned a key.
    #[must_use]
    pub fn has_next(&self) -> bool {
        self.ret == 0
    }

    /// The kernel said that there are no more keys.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.ret == -ENOENT
    }
}

/// A map's type by its number, shown as the kernel spells it, in lower case.
///
/// ```
/// use kernel_scope::map_iter::MapKind;
/// assert_eq!(MapKind(9).to_string(), "lru_hash");
/// assert_eq!(MapKind(2).to_string(), "array");
/// assert!(MapKind(2).is_linear());
/// assert_eq!(MapKind(999).to_string(), "type 999");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MapKind(pub u32);

impl MapKind {
    /// Keys are the numbers 0, 1, 2...: a walk over it says nothing that counting would not.
    #[must_use]
    pub fn is_linear(self) -> bool {
        matches!(self.0, 2 | 3 | 4 | 6 | 12 | 14)
    }
}

/// `enum bpf_map_type` of include/uapi/linux/bpf.h, in its order.
const NAMES: [&str; 34] = [
    "unknown",
    "hash",
    "array",
    "prog_array",
    "perf_event_array",
    "percpu_hash",
    "percpu_array",
    "stack_trace",
    "cgroup_array",
    "lru_hash",
    "lru_percpu_hash",
    "lpm_trie",
    "array_of_maps",
    "hash_of_maps",
    "devmap",
    "sockmap",
    "cpumap",
    "xskmap",
    "sockhash",
    "cgroup_storage",
    "reuseport_sockarray",
    "percpu_cgroup_storage",
    "queue",
    "stack",
    "sk_storage",
    "devmap_hash",
    "struct_ops",
    "ringbuf",
    "inode_storage",
    "task_storage",
    "bloom_filter",
    "user_ringbuf",
    "cgrp_storage",
    "arena",
];

impl fmt::Display for MapKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match usize::try_from(self.0)
            .ok()
            .and_then(|index| NAMES.get(index))
        {
            Some(name) => f.pad(name),
            None => write!(f, "type {}", self.0),
        }
    }
}
