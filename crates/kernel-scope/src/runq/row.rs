use std::mem::{offset_of, size_of};

use crate::bytes::{half, name, word};
use crate::error::ScopeError;
use crate::log2::SLOTS;

/// A task: its number may be given again, to one that began later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TaskId {
    pub(super) start_ns: u64,
    pub(super) tid: u32,
}

/// What the program keeps of one task: twin of `struct runq_task_row` in `bpf/runq.h`.
#[repr(C)]
#[derive(Debug, Clone)]
pub(super) struct TaskRow {
    waking_ns: u64,
    pub(super) queued_ns: u64,
    off_ns: u64,
    pub(super) wait_ns: [u64; 4],
    pub(super) longest_ns: [u64; 4],
    pub(super) waker_ns: u64,
    pub(super) waker_longest_ns: u64,
    pub(super) waker_count: u64,
    pub(super) migrations: u64,
    pub(super) start_ns: u64,
    pub(super) tid: u32,
    pub(super) tgid: u32,
    kind: u32,
    pub(super) dead: u32,
    waking_tid: u32,
    waking_class: u32,
    pub(super) waker_tid: u32,
    pub(super) waker_class: u32,
    kernel_stack: i32,
    user_stack: i32,
    pub(super) comm: [u8; 16],
    waking_comm: [u8; 16],
    pub(super) waker_comm: [u8; 16],
    pub(super) slots: [[u32; SLOTS]; 4],
}

const _: () = assert!(size_of::<TaskRow>() == 664);
const _: () = assert!(offset_of!(TaskRow, waking_ns) == 0);
const _: () = assert!(offset_of!(TaskRow, queued_ns) == 8);
const _: () = assert!(offset_of!(TaskRow, off_ns) == 16);
const _: () = assert!(offset_of!(TaskRow, wait_ns) == 24);
const _: () = assert!(offset_of!(TaskRow, longest_ns) == 56);
const _: () = assert!(offset_of!(TaskRow, waker_ns) == 88);
const _: () = assert!(offset_of!(TaskRow, waker_longest_ns) == 96);
const _: () = assert!(offset_of!(TaskRow, waker_count) == 104);
const _: () = assert!(offset_of!(TaskRow, migrations) == 112);
const _: () = assert!(offset_of!(TaskRow, start_ns) == 120);
const _: () = assert!(offset_of!(TaskRow, tid) == 128);
const _: () = assert!(offset_of!(TaskRow, tgid) == 132);
const _: () = assert!(offset_of!(TaskRow, kind) == 136);
const _: () = assert!(offset_of!(TaskRow, dead) == 140);
const _: () = assert!(offset_of!(TaskRow, waking_tid) == 144);
const _: () = assert!(offset_of!(TaskRow, waking_class) == 148);
const _: () = assert!(offset_of!(TaskRow, waker_tid) == 152);
const _: () = assert!(offset_of!(TaskRow, waker_class) == 156);
const _: () = assert!(offset_of!(TaskRow, kernel_stack) == 160);
const _: () = assert!(offset_of!(TaskRow, user_stack) == 164);
const _: () = assert!(offset_of!(TaskRow, comm) == 168);
const _: () = assert!(offset_of!(TaskRow, waking_comm) == 184);
const _: () = assert!(offset_of!(TaskRow, waker_comm) == 200);
const _: () = assert!(offset_of!(TaskRow, slots) == 216);

impl TaskRow {
    /// Fails for any other length than a row's.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, ScopeError> {
        if bytes.len() != size_of::<Self>() {
            return Err(ScopeError::record(bytes.len()));
        }
        let four = |at: usize| std::array::from_fn(|n| word(bytes, at + 8 * n));
        let signed = |at: usize| half(bytes, at).cast_signed();
        let slots = offset_of!(Self, slots);
        Ok(Self {
            waking_ns: word(bytes, offset_of!(Self, waking_ns)),
            queued_ns: word(bytes, offset_of!(Self, queued_ns)),
            off_ns: word(bytes, offset_of!(Self, off_ns)),
            wait_ns: four(offset_of!(Self, wait_ns)),
            longest_ns: four(offset_of!(Self, longest_ns)),
            waker_ns: word(bytes, offset_of!(Self, waker_ns)),
            waker_longest_ns: word(bytes, offset_of!(Self, waker_longest_ns)),
            waker_count: word(bytes, offset_of!(Self, waker_count)),
            migrations: word(bytes, offset_of!(Self, migrations)),
            start_ns: word(bytes, offset_of!(Self, start_ns)),
            tid: half(bytes, offset_of!(Self, tid)),
            tgid: half(bytes, offset_of!(Self, tgid)),
            kind: half(bytes, offset_of!(Self, kind)),
            dead: half(bytes, offset_of!(Self, dead)),
            waking_tid: half(bytes, offset_of!(Self, waking_tid)),
            waking_class: half(bytes, offset_of!(Self, waking_class)),
            waker_tid: half(bytes, offset_of!(Self, waker_tid)),
            waker_class: half(bytes, offset_of!(Self, waker_class)),
            kernel_stack: signed(offset_of!(Self, kernel_stack)),
            user_stack: signed(offset_of!(Self, user_stack)),
            comm: name(bytes, offset_of!(Self, comm)),
            waking_comm: name(bytes, offset_of!(Self, waking_comm)),
            waker_comm: name(bytes, offset_of!(Self, waker_comm)),
            slots: std::array::from_fn(|kind| {
                std::array::from_fn(|slot| half(bytes, slots + 4 * (kind * SLOTS + slot)))
            }),
        })
    }

    /// What tells the task from all others.
    pub(super) fn id(&self) -> TaskId {
        TaskId {
            start_ns: self.start_ns,
            tid: self.tid,
        }
    }

    /// Waits that ended.
    pub(super) fn waits(&self) -> u64 {
        self.slots.iter().flatten().copied().map(u64::from).sum()
    }
}
