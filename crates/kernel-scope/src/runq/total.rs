use std::mem::{offset_of, size_of};

use crate::bytes::word;
use crate::error::ScopeError;

/// Twin of `struct runq_total_row` in `bpf/runq.h`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TotalRow {
    pub(super) count: u64,
    pub(super) time_ns: u64,
    pub(super) longest_ns: u64,
}

const _: () = assert!(size_of::<TotalRow>() == 24);
const _: () = assert!(offset_of!(TotalRow, count) == 0);
const _: () = assert!(offset_of!(TotalRow, time_ns) == 8);
const _: () = assert!(offset_of!(TotalRow, longest_ns) == 16);

impl TotalRow {
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, ScopeError> {
        if bytes.len() != size_of::<Self>() {
            return Err(ScopeError::record(bytes.len()));
        }
        Ok(Self {
            count: word(bytes, offset_of!(Self, count)),
            time_ns: word(bytes, offset_of!(Self, time_ns)),
            longest_ns: word(bytes, offset_of!(Self, longest_ns)),
        })
    }
}
