use std::mem::{offset_of, size_of};

use super::row::TaskId;
use crate::bytes::{half, name, word};
use crate::error::ScopeError;

/// Twin of `struct runq_waker_row` in `bpf/runq.h`.
#[repr(C)]
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct WakerKey {
    pub(super) start_ns: u64,
    pub(super) tid: u32,
    pub(super) waker_tid: u32,
    pub(super) waker_class: u32,
    pub(super) waker_comm: [u8; 16],
    zero: u32,
}

const _: () = assert!(size_of::<WakerKey>() == 40);
const _: () = assert!(offset_of!(WakerKey, start_ns) == 0);
const _: () = assert!(offset_of!(WakerKey, tid) == 8);
const _: () = assert!(offset_of!(WakerKey, waker_tid) == 12);
const _: () = assert!(offset_of!(WakerKey, waker_class) == 16);
const _: () = assert!(offset_of!(WakerKey, waker_comm) == 20);
const _: () = assert!(offset_of!(WakerKey, zero) == 36);

impl WakerKey {
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, ScopeError> {
        if bytes.len() != size_of::<Self>() {
            return Err(ScopeError::record(bytes.len()));
        }
        Ok(Self {
            start_ns: word(bytes, offset_of!(Self, start_ns)),
            tid: half(bytes, offset_of!(Self, tid)),
            waker_tid: half(bytes, offset_of!(Self, waker_tid)),
            waker_class: half(bytes, offset_of!(Self, waker_class)),
            waker_comm: name(bytes, offset_of!(Self, waker_comm)),
            zero: 0,
        })
    }

    /// The task that was woken.
    pub(super) fn task(&self) -> TaskId {
        TaskId {
            start_ns: self.start_ns,
            tid: self.tid,
        }
    }
}
