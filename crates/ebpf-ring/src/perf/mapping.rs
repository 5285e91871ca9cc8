//! The room with unsafe code of perf buffers: the system call that opens one, and its memory.

use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};
use std::sync::atomic::AtomicU64;

use rustix::mm::ProtFlags;

use super::walk::Memory;
use crate::error::RingError;
use crate::ring::Range;

/// `struct perf_event_attr` up to PERF_ATTR_SIZE_VER0, which every kernel takes.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct Attr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    /// `wakeup_events`, or with WATERMARK `wakeup_watermark`.
    wake_up: u32,
    bp_type: u32,
    bp_addr: u64,
}

const _: () = assert!(size_of::<Attr>() == Attr::SIZE as usize);
const _: () = assert!(offset_of!(Attr, config) == 8);
const _: () = assert!(offset_of!(Attr, sample_period) == 16);
const _: () = assert!(offset_of!(Attr, sample_type) == 24);
const _: () = assert!(offset_of!(Attr, flags) == 40);
const _: () = assert!(offset_of!(Attr, wake_up) == 48);

impl Attr {
    const SIZE: u32 = 64;
    const TYPE_SOFTWARE: u32 = 1;
    const COUNT_SW_BPF_OUTPUT: u64 = 10;
    const SAMPLE_RAW: u64 = 1 << 10;
    const WATERMARK: u64 = 1 << 14;

    /// What bpf_perf_event_output() writes to.
    fn bpf_output(flags: u64, wake_up: u32) -> Self {
        Self {
            kind: Self::TYPE_SOFTWARE,
            size: Self::SIZE,
            config: Self::COUNT_SW_BPF_OUTPUT,
            sample_period: 1,
            sample_type: Self::SAMPLE_RAW,
            flags,
            wake_up,
            ..Self::default()
        }
    }

    /// Wakes after `events` records.
    pub(super) fn waking_by_events(events: u32) -> Self {
        Self::bpf_output(0, events)
    }

    /// Wakes after more than `bytes`.
    pub(super) fn waking_by_bytes(bytes: u32) -> Self {
        Self::bpf_output(Self::WATERMARK, bytes)
    }
}

/// Opens the event of `cpu`, for all its tasks.
pub(super) fn perf_event_open(attr: &Attr, cpu: u32) -> io::Result<OwnedFd> {
    const NO_PID: libc::pid_t = -1;
    const NO_GROUP: libc::c_int = -1;
    const FD_CLOEXEC: libc::c_ulong = 8;
    let cpu = libc::c_int::try_from(cpu).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the kernel reads `attr.size` bytes, all of them `attr`'s, and writes none (only for
    // a size that it does not know, which this one, its oldest, is not); the other arguments are
    // numbers.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            std::ptr::from_ref(attr),
            NO_PID,
            cpu,
            NO_GROUP,
            FD_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).expect("descriptors are ints");
    // SAFETY: a descriptor that the kernel has just made, and that nobody else knows of.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

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
