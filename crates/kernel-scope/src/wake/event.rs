use std::mem::{offset_of, size_of};

use super::calls::name_of;
use crate::bytes::{half, name, text, word};
use crate::error::ScopeError;
use crate::waker::WakerClass;

/// One system call that slept, as `bpf/wake.bpf.c` wrote it.
///
/// Twin of `struct wake_event` in `bpf/wake.h`; both sides assert the size and every offset. Times
/// are `CLOCK_MONOTONIC`, in nanoseconds. A call may sleep several times: `blocked_ns`, `woken_ns`,
/// `running_ns` and the waker are of its longest sleep.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// The call began.
    pub entered_ns: u64,
    /// The thread went off the CPU.
    pub blocked_ns: u64,
    /// Somebody began to wake it.
    pub woken_ns: u64,
    /// It was on a CPU again.
    pub running_ns: u64,
    /// The call ended.
    pub left_ns: u64,
    /// All its sleeps together, each until it was woken.
    pub asleep_ns: u64,
    /// All its waits for a CPU after them.
    pub queued_ns: u64,
    /// Its first argument: of most calls, the descriptor.
    pub arg0: u64,
    /// What it returned; a negative errno where it failed.
    pub ret: i64,
    /// When the thread began: with `tid` it is never given twice.
    pub start_ns: u64,
    /// How often it slept.
    pub sleeps: u32,
    /// Its number; see [`call_name`](Self::call_name).
    pub call: u32,
    /// The process, as the initial pid namespace numbers it.
    pub pid: u32,
    /// The thread, likewise. After its end the kernel may give the number to another one.
    pub tid: u32,
    waker_class: u32,
    /// The process that woke it; 0 unless a task did.
    pub waker_pid: u32,
    /// The thread that woke it, likewise.
    pub waker_tid: u32,
    woken_by: [u32; WakerClass::COUNT],
    comm: [u8; 16],
    waker_comm: [u8; 16],
}

const _: () = assert!(size_of::<Event>() == Event::BYTES);
const _: () = assert!(offset_of!(Event, entered_ns) == 0);
const _: () = assert!(offset_of!(Event, blocked_ns) == 8);
const _: () = assert!(offset_of!(Event, woken_ns) == 16);
const _: () = assert!(offset_of!(Event, running_ns) == 24);
const _: () = assert!(offset_of!(Event, left_ns) == 32);
const _: () = assert!(offset_of!(Event, asleep_ns) == 40);
const _: () = assert!(offset_of!(Event, queued_ns) == 48);
const _: () = assert!(offset_of!(Event, arg0) == 56);
const _: () = assert!(offset_of!(Event, ret) == 64);
const _: () = assert!(offset_of!(Event, start_ns) == 72);
const _: () = assert!(offset_of!(Event, sleeps) == 80);
const _: () = assert!(offset_of!(Event, call) == 84);
const _: () = assert!(offset_of!(Event, pid) == 88);
const _: () = assert!(offset_of!(Event, tid) == 92);
const _: () = assert!(offset_of!(Event, waker_class) == 96);
const _: () = assert!(offset_of!(Event, waker_pid) == 100);
const _: () = assert!(offset_of!(Event, waker_tid) == 104);
const _: () = assert!(offset_of!(Event, woken_by) == 108);
const _: () = assert!(offset_of!(Event, comm) == 128);
const _: () = assert!(offset_of!(Event, waker_comm) == 144);

impl Event {
    /// Bytes of a record.
    pub const BYTES: usize = 160;

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
            entered_ns: word(bytes, offset_of!(Self, entered_ns)),
            blocked_ns: word(bytes, offset_of!(Self, blocked_ns)),
            woken_ns: word(bytes, offset_of!(Self, woken_ns)),
            running_ns: word(bytes, offset_of!(Self, running_ns)),
            left_ns: word(bytes, offset_of!(Self, left_ns)),
            asleep_ns: word(bytes, offset_of!(Self, asleep_ns)),
            queued_ns: word(bytes, offset_of!(Self, queued_ns)),
            arg0: word(bytes, offset_of!(Self, arg0)),
            ret: word(bytes, offset_of!(Self, ret)).cast_signed(),
            start_ns: word(bytes, offset_of!(Self, start_ns)),
            sleeps: half(bytes, offset_of!(Self, sleeps)),
            call: half(bytes, offset_of!(Self, call)),
            pid: half(bytes, offset_of!(Self, pid)),
            tid: half(bytes, offset_of!(Self, tid)),
            waker_class: half(bytes, offset_of!(Self, waker_class)),
            waker_pid: half(bytes, offset_of!(Self, waker_pid)),
            waker_tid: half(bytes, offset_of!(Self, waker_tid)),
            woken_by: std::array::from_fn(|class| {
                half(bytes, offset_of!(Self, woken_by) + 4 * class)
            }),
            comm: name(bytes, offset_of!(Self, comm)),
            waker_comm: name(bytes, offset_of!(Self, waker_comm)),
        })
    }

    /// The call's name, or its number where the machine is no x86-64.
    #[must_use]
    pub fn call_name(&self) -> String {
        name_of(self.call).map_or_else(|| format!("syscall {}", self.call), str::to_owned)
    }

    /// The thread's name.
    #[must_use]
    pub fn comm(&self) -> String {
        text(&self.comm)
    }

    /// In whose context it was woken from its longest sleep.
    #[must_use]
    pub fn waker_class(&self) -> WakerClass {
        WakerClass::from_number(self.waker_class)
    }

    /// How many of its sleeps ended in this context.
    #[must_use]
    pub fn woken_by(&self, class: WakerClass) -> u32 {
        self.woken_by[class as usize]
    }

    /// The name of the task that woke it; empty unless one did.
    #[must_use]
    pub fn waker_comm(&self) -> String {
        text(&self.waker_comm)
    }
}
