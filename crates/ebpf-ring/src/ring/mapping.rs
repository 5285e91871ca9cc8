//! The one room with unsafe code: the kernel's memory, mapped.

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::error::RingError;
use crate::sync::{AtomicU32, AtomicU64};
use crate::walk::Memory;

/// One mapped range, unmapped on drop.
#[derive(Debug)]
struct Range {
    start: NonNull<u8>,
    bytes: usize,
}

impl Range {
    fn map(
        fd: BorrowedFd<'_>,
        prot: ProtFlags,
        offset: u64,
        bytes: usize,
    ) -> rustix::io::Result<Self> {
        let anywhere = std::ptr::null_mut();
        // SAFETY: without MAP_FIXED the kernel chooses a free range, so no memory that is in use
        // changes. The range is shared with the kernel, which is why it is only ever read through
        // atomics, or as bytes that the kernel has finished writing.
        let start = unsafe { mmap(anywhere, bytes, prot, MapFlags::SHARED, fd, offset) }?;
        let start =
            NonNull::new(start.cast::<u8>()).expect("mmap returns no null without MAP_FIXED");
        Ok(Self { start, bytes })
    }

    #[inline]
    fn at(&self, offset: usize, len: usize) -> NonNull<u8> {
        let end = offset
            .checked_add(len)
            .expect("offsets are below twice the ring");
        assert!(
            end <= self.bytes,
            "{offset} + {len} lies outside of the {} mapped bytes",
            self.bytes
        );
        // SAFETY: `offset` is within the range, asserted above.
        unsafe { self.start.add(offset) }
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `map` with this start and length, and every borrow of
        // it borrows `self`. A failure leaves it mapped, which is a leak and no more.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// A ring of the kernel's: consumer page (writable), producer page and twice the data (read only).
#[derive(Debug)]
pub(crate) struct Mapping {
    consumer: Range,
    /// The producer page, then the data twice.
    producer: Range,
    /// Bytes of the data area.
    size: usize,
    page: usize,
}

// SAFETY: a Mapping owns its ranges; nothing about them belongs to the thread that mapped them.
unsafe impl Send for Mapping {}
// SAFETY: what `&Mapping` gives out is atomics, and bytes that nobody writes until the consumer
// position moves past them, which takes `&mut RingReader`.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the ring buffer map `fd`, whose data area has `size` bytes.
    pub(crate) fn new(fd: BorrowedFd<'_>, size: u32) -> Result<Self, RingError> {
        let page = rustix::param::page_size();
        let size = usize::try_from(size).expect("usize has 64 bits here");
        if !size.is_power_of_two() || !size.is_multiple_of(page) {
            let why = format!("its size of {size} bytes is not a power of two of whole pages");
            return Err(RingError::not_a_ring(why));
        }
        let both = ProtFlags::READ | ProtFlags::WRITE;
        let consumer = Range::map(fd, both, 0, page)
            .map_err(|e| RingError::io("mapping the ring's consumer page", e))?;
        let producer = Range::map(fd, ProtFlags::READ, page as u64, page + 2 * size)
            .map_err(|e| RingError::io("mapping the ring's data", e))?;
        Ok(Self {
            consumer,
            producer,
            page,
            size,
        })
    }

    #[inline]
    fn data(&self, offset: u64, len: u64) -> NonNull<u8> {
        let index = |n: u64| usize::try_from(n).expect("usize has 64 bits here");
        let offset = index(offset)
            .checked_add(self.page)
            .expect("offsets are below twice the ring");
        self.producer.at(offset, index(len))
    }
}

impl Memory for Mapping {
    type Bytes<'a> = &'a [u8];

    #[inline]
    fn size(&self) -> u64 {
        self.size as u64
    }

    #[inline]
    fn consumer(&self) -> &AtomicU64 {
        let at = self.consumer.at(0, 8).cast::<u64>();
        // SAFETY: eight mapped, writable bytes at the start of a page, alive as long as `self`;
        // the kernel, too, accesses them only atomically.
        unsafe { AtomicU64::from_ptr(at.as_ptr()) }
    }

    #[inline]
    fn producer(&self) -> &AtomicU64 {
        let at = self.producer.at(0, 8).cast::<u64>();
        // SAFETY: eight mapped bytes at the start of a page, alive as long as `self`. The page is
        // read only, which relaxed loads of this width, the only access made, are defined for.
        unsafe { AtomicU64::from_ptr(at.as_ptr()) }
    }

    #[inline]
    fn header(&self, offset: u64) -> &AtomicU32 {
        assert!(offset.is_multiple_of(8), "headers lie at multiples of 8");
        let at = self.data(offset, 4).cast::<u32>();
        // SAFETY: four mapped bytes, aligned (page + a multiple of 8), alive as long as `self`;
        // only loaded, as with the producer's position.
        unsafe { AtomicU32::from_ptr(at.as_ptr()) }
    }

    #[inline]
    fn bytes(&self, offset: u64, len: u64) -> &[u8] {
        let at = self.data(offset, len);
        let len = usize::try_from(len).expect("usize has 64 bits here");
        // SAFETY: `len` mapped bytes, alive as long as `self`. The walker names only submitted
        // records between consumer_pos and producer_pos, which the kernel does not write again
        // until consumer_pos has passed them, and that takes the end of this borrow.
        unsafe { std::slice::from_raw_parts(at.as_ptr(), len) }
    }
}
