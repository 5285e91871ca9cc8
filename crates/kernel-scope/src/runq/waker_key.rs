use std::mem::{offset_of, size_of};

use crate::bytes::{half, name};
use crate::error::ScopeError;

/// Twin of `struct runq_waker_row` in `bpf/runq.h`.
#[repr(C)]
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct WakerKey {
    pub(super) tid: u32,
    pub(super) waker_tid: u32,
    pub(super) waker_class: u32,
    pub(super) waker_comm: [u8; 16],
}

const _: () = assert!(size_of::<WakerKey>() == 28);
const _: () = assert!(offset_of!(WakerKey, tid) == 0);
const _: () = assert!(offset_of!(WakerKey, waker_tid) == 4);
const _: () = assert!(offset_of!(WakerKey, waker_class) == 8);
const _: () = assert!(offset_of!(WakerKey, waker_comm) == 12);

impl WakerKey {
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, ScopeError> {
        if bytes.len() != size_of::<Self>() {
            return Err(ScopeError::record(bytes.len()));
        }
        Ok(Self {
            tid: half(bytes, offset_of!(Self, tid)),
            waker_tid: half(bytes, offset_of!(Self, waker_tid)),
            waker_class: half(bytes, offset_of!(Self, waker_class)),
            waker_comm: name(bytes, offset_of!(Self, waker_comm)),
        })
    }
}
