use std::mem::{offset_of, size_of};

use crate::bytes::{half, name};
use crate::error::ScopeError;

/// Twin of `struct runq_stack_row` in `bpf/runq.h`.
#[repr(C)]
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct StackKey {
    pub(super) tgid: u32,
    pub(super) kernel_stack: i32,
    pub(super) user_stack: i32,
    pub(super) preempted: u32,
    pub(super) waker_class: u32,
    pub(super) comm: [u8; 16],
    pub(super) waker_comm: [u8; 16],
}

const _: () = assert!(size_of::<StackKey>() == 52);
const _: () = assert!(offset_of!(StackKey, tgid) == 0);
const _: () = assert!(offset_of!(StackKey, kernel_stack) == 4);
const _: () = assert!(offset_of!(StackKey, user_stack) == 8);
const _: () = assert!(offset_of!(StackKey, preempted) == 12);
const _: () = assert!(offset_of!(StackKey, waker_class) == 16);
const _: () = assert!(offset_of!(StackKey, comm) == 20);
const _: () = assert!(offset_of!(StackKey, waker_comm) == 36);

impl StackKey {
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, ScopeError> {
        if bytes.len() != size_of::<Self>() {
            return Err(ScopeError::record(bytes.len()));
        }
        Ok(Self {
            tgid: half(bytes, offset_of!(Self, tgid)),
            kernel_stack: half(bytes, offset_of!(Self, kernel_stack)).cast_signed(),
            user_stack: half(bytes, offset_of!(Self, user_stack)).cast_signed(),
            preempted: half(bytes, offset_of!(Self, preempted)),
            waker_class: half(bytes, offset_of!(Self, waker_class)),
            comm: name(bytes, offset_of!(Self, comm)),
            waker_comm: name(bytes, offset_of!(Self, waker_comm)),
        })
    }
}
