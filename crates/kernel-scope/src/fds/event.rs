use std::mem::{offset_of, size_of};

use crate::error::ScopeError;

/// One change of a table of descriptors, as `bpf/fds.bpf.c` wrote it.
///
/// Twin of `struct fds_event` in `bpf/fds.h`; both sides assert the size and every offset.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) time_ns: u64,
    /// Which table: the same for all who share it.
    pub(super) table: u64,
    /// Opened: which open file. Closed: when the call began, 0 where that is not known. Copied: which
    /// table, 0 for the one that the process had before.
    pub(super) other: u64,
    pub(super) pid: u32,
    pub(super) tid: u32,
    pub(super) fd: u32,
    pub(super) last: u32,
    pub(super) stack: i32,
    pub(super) call: i32,
    pub(super) kind: u32,
    pub(super) reserved: u32,
}

const _: () = assert!(size_of::<Event>() == Event::BYTES);
const _: () = assert!(offset_of!(Event, time_ns) == 0);
const _: () = assert!(offset_of!(Event, table) == 8);
const _: () = assert!(offset_of!(Event, other) == 16);
const _: () = assert!(offset_of!(Event, pid) == 24);
const _: () = assert!(offset_of!(Event, tid) == 28);
const _: () = assert!(offset_of!(Event, fd) == 32);
const _: () = assert!(offset_of!(Event, last) == 36);
const _: () = assert!(offset_of!(Event, stack) == 40);
const _: () = assert!(offset_of!(Event, call) == 44);
const _: () = assert!(offset_of!(Event, kind) == 48);
const _: () = assert!(offset_of!(Event, reserved) == 52);

/// `enum fds_event_kind`.
pub(super) const OPEN: u32 = 1;
pub(super) const CLOSE: u32 = 2;
pub(super) const COPY: u32 = 3;
pub(super) const EXEC: u32 = 4;

impl Event {
    /// Bytes of a record.
    const BYTES: usize = 56;

    /// Reads a record of the ring; an error for any other length.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, ScopeError> {
        let bytes: &[u8; Self::BYTES] = bytes
            .try_into()
            .map_err(|_| ScopeError::record(bytes.len()))?;
        let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let half = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        Ok(Self {
            time_ns: word(offset_of!(Self, time_ns)),
            table: word(offset_of!(Self, table)),
            other: word(offset_of!(Self, other)),
            pid: half(offset_of!(Self, pid)),
            tid: half(offset_of!(Self, tid)),
            fd: half(offset_of!(Self, fd)),
            last: half(offset_of!(Self, last)),
            stack: half(offset_of!(Self, stack)).cast_signed(),
            call: half(offset_of!(Self, call)).cast_signed(),
            kind: half(offset_of!(Self, kind)),
            reserved: 0,
        })
    }

    /// For tests of what is made of events.
    #[cfg(test)]
    pub(super) fn new(kind: u32, time_ns: u64, table: u64) -> Self {
        Self {
            time_ns,
            table,
            other: 0,
            pid: 1,
            tid: 1,
            fd: 0,
            last: 0,
            stack: -1,
            call: 0,
            kind,
            reserved: 0,
        }
    }
}
