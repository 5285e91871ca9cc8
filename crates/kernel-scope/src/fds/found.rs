use std::mem::{offset_of, size_of};

/// An open descriptor, as the iterator of `bpf/fds.bpf.c` found it.
///
/// Twin of `struct fds_found_event` in `bpf/fds.h`; both sides assert the size and every offset.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) table: u64,
    pub(super) file: u64,
    /// The process, or a thread that has a table of its own.
    pub(super) tid: u32,
    pub(super) fd: u32,
    pub(super) comm: [u8; 16],
}

const _: () = assert!(size_of::<Found>() == Found::BYTES);
const _: () = assert!(offset_of!(Found, table) == 0);
const _: () = assert!(offset_of!(Found, file) == 8);
const _: () = assert!(offset_of!(Found, tid) == 16);
const _: () = assert!(offset_of!(Found, fd) == 20);
const _: () = assert!(offset_of!(Found, comm) == 24);

impl Found {
    pub(super) const BYTES: usize = 40;

    pub(super) fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let half = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        Self {
            table: word(offset_of!(Self, table)),
            file: word(offset_of!(Self, file)),
            tid: half(offset_of!(Self, tid)),
            fd: half(offset_of!(Self, fd)),
            comm: bytes[offset_of!(Self, comm)..]
                .try_into()
                .expect("16 bytes"),
        }
    }

    /// The name of the task.
    pub(super) fn comm(&self) -> String {
        let end = self.comm.iter().position(|byte| *byte == 0);
        String::from_utf8_lossy(&self.comm[..end.unwrap_or(16)]).into_owned()
    }
}
