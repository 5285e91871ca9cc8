//! The room with unsafe code of perf buffers: the kernel's memory, mapped.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::AtomicU64;

use rustix::mm::ProtFlags;

use super::walk::Memory;
use crate::error::RingError;
use crate::ring::Range;

/// Of `struct perf_event_mmap_page`.
const DATA_HEAD: usize = 1024;
const DATA_TAIL: usize = 1032;

/// One CPU's buffer: a page of positions, then the data, writable so that the kernel minds the
/// tail instead of overwriting what is unread.
#[derive(Debug)]
pub(super) struct Mapping {
    range: Range,
    page: usize,
    size: usize,
}

// SAFETY: a Mapping owns its range; nothing about it belongs to the thread that mapped it.
unsafe impl Send for Mapping {}
// SAFETY: what `&Mapping` gives out is atomics, and bytes that nobody writes until the tail moves
// past them, which takes `&mut PerfReader`.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the event `fd` with `pages` pages of data, a power of two.
    pub(super) fn new(fd: &OwnedFd, pages: u32) -> Result<Self, RingError> {
        const DOING: &str = "mapping the perf buffer of a CPU (its pages count against \
                             kernel.perf_event_mlock_kb without CAP_IPC_LOCK)";
        let page = rustix::param::page_size();
        let size = page * usize::try_from(pages).expect("usize has 64 bits here");
        let both = ProtFlags::READ | ProtFlags::WRITE;
        let range =
            Range::map(fd.as_fd(), both, 0, page + size).map_err(|e| RingError::io(DOING, e))?;
        Ok(Self { range, page, size })
    }

    /// What a walk needs of it.
    #[inline]
    pub(super) fn view(&self) -> View<'_> {
        View { mapping: self }
    }

    fn position(&self, offset: usize) -> &AtomicU64 {
        let at = self.range.at(offset, 8).cast::<u64>();
        // SAFETY: eight mapped, writable, aligned bytes, alive as long as `self`; the kernel, too,
        // accesses the two positions only atomically.
        unsafe { AtomicU64::from_ptr(at.as_ptr()) }
    }
}

/// A borrowed [`Mapping`].
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'m> {
    mapping: &'m Mapping,
}

impl Memory for View<'_> {
    #[inline]
    fn size(&self) -> u64 {
        self.mapping.size as u64
    }

    #[inline]
    fn head(&self) -> &AtomicU64 {
        self.mapping.position(DATA_HEAD)
    }

    #[inline]
    fn tail(&self) -> &AtomicU64 {
        self.mapping.position(DATA_TAIL)
    }

    #[inline]
    fn bytes(&self, position: u64, len: u64) -> &[u8] {
        let Mapping { range, page, size } = self.mapping;
        let offset = position as usize & (size - 1);
        let len = len as usize;
        assert!(
            len <= size - offset,
            "what wraps is asked for in two halves"
        );
        let at = range.at(page + offset, len);
        // SAFETY: `len` mapped bytes, checked by `at`, alive as long as the mapping. The walker
        // names only bytes between data_tail and data_head, which the kernel does not write again
        // until the tail has passed them, and whoever moves it ends the borrow of these bytes.
        unsafe { std::slice::from_raw_parts(at.as_ptr(), len) }
    }
}
