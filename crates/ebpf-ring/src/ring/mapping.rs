//! The room with unsafe code of ring buffers: the kernel's memory, mapped.

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::error::RingError;
use crate::sync::{AtomicU32, AtomicU64};
use crate::walk::{HEADER_BYTES, Memory, overwrite};

/// One mapped range, unmapped on drop.
#[derive(Debug)]
pub(crate) struct Range {
    start: NonNull<u8>,
    bytes: usize,
}

impl Range {
    pub(crate) fn map(
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

    /// Where `offset` lies, with `len` bytes behind it. Panics when they are not all mapped.
    #[inline]
    pub(crate) fn at(&self, offset: usize, len: usize) -> NonNull<u8> {
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
            return Err(RingError::wrong_map(why));
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

    /// What a walk needs of it.
    #[inline]
    pub(crate) fn view(&self) -> View<'_> {
        let data = self.producer.at(self.page, 2 * self.size);
        let consumer = self.consumer.at(0, 8).cast::<u64>();
        let producer = self.producer.at(0, 8).cast::<u64>();
        View {
            // SAFETY: eight mapped, writable bytes at the start of a page, alive as long as
            // `self`; the kernel, too, accesses them only atomically.
            consumer: unsafe { AtomicU64::from_ptr(consumer.as_ptr()) },
            // SAFETY: eight mapped bytes at the start of a page, alive as long as `self`. The page
            // is read only, which relaxed loads of this width, the only access made, are defined
            // for.
            producer: unsafe { AtomicU64::from_ptr(producer.as_ptr()) },
            data,
            size: self.size,
        }
    }
}

/// Of the producer page: `overwrite_pos` behind `producer_pos` and `pending_pos`, on kernels whose
/// rings overwrite.
const OVERWRITE_POS: usize = 16;

/// A borrowed [`Mapping`] of a ring that overwrites.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OverwriteView<'m> {
    view: View<'m>,
    overwrite: &'m AtomicU64,
}

impl Mapping {
    /// What a walk needs of a ring that overwrites.
    pub(crate) fn overwrite_view(&self) -> OverwriteView<'_> {
        let at = self.producer.at(OVERWRITE_POS, 8).cast::<u64>();
        OverwriteView {
            view: self.view(),
            // SAFETY: eight mapped, aligned bytes of the producer page, alive as long as `self`,
            // and read by relaxed loads only, as in `view`.
            overwrite: unsafe { AtomicU64::from_ptr(at.as_ptr()) },
        }
    }
}

impl overwrite::Memory for OverwriteView<'_> {
    fn size(&self) -> u64 {
        self.view.size as u64
    }

    fn consumer(&self) -> &AtomicU64 {
        self.view.consumer
    }

    fn producer(&self) -> &AtomicU64 {
        self.view.producer
    }

    fn overwrite(&self) -> &AtomicU64 {
        self.overwrite
    }

    fn word(&self, position: u64) -> &AtomicU64 {
        let offset = position as usize & (self.view.size - 1) & !7;
        // SAFETY: at most `size - 8`, of twice `size` bytes.
        let at = unsafe { self.view.data.add(offset) };
        // SAFETY: eight mapped bytes at a multiple of 8, alive as long as the mapping. The kernel
        // may write them meanwhile, in pieces; a word that is torn is thrown away by the walker,
        // which asks `overwrite_pos` afterwards.
        unsafe { AtomicU64::from_ptr(at.cast::<u64>().as_ptr()) }
    }
}

/// A borrowed [`Mapping`], in registers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'m> {
    consumer: &'m AtomicU64,
    producer: &'m AtomicU64,
    /// `2 * size` bytes, alive for `'m`.
    data: NonNull<u8>,
    size: usize,
}

impl<'m> Memory for View<'m> {
    type Bytes = &'m [u8];

    #[inline]
    fn size(&self) -> u64 {
        self.size as u64
    }

    #[inline]
    fn consumer(&self) -> &AtomicU64 {
        self.consumer
    }

    #[inline]
    fn producer(&self) -> &AtomicU64 {
        self.producer
    }

    #[inline]
    fn header(&self, position: u64) -> &AtomicU32 {
        let at = self.at(position).cast::<u32>();
        // SAFETY: eight mapped bytes, aligned, alive for `'m`; only loaded, as with the producer's
        // position.
        unsafe { AtomicU32::from_ptr(at.as_ptr()) }
    }

    #[inline]
    fn bytes(&self, position: u64, len: u64) -> &'m [u8] {
        assert!(len <= self.size as u64, "no record is larger than the ring");
        // SAFETY: a header of eight bytes lies at `at`, so this is within or just behind the data.
        let at = unsafe { self.at(position).add(HEADER_BYTES as usize) };
        // SAFETY: `at` is at most `size` bytes into the `2 * size` that are mapped, and `len` at
        // most `size`; alive for `'m`. The walker names only submitted records between
        // consumer_pos and producer_pos, which the kernel does not write again until consumer_pos
        // has passed them, and whoever moves it ends the borrow of these bytes.
        unsafe { std::slice::from_raw_parts(at.as_ptr(), len as usize) }
    }
}

impl View<'_> {
    /// Where the header of `position` lies: eight bytes, aligned, in the first of the two mappings
    /// of the data, whatever `position` is.
    #[inline]
    fn at(&self, position: u64) -> NonNull<u8> {
        // A ring is whole pages, a power of two of bytes.
        let offset = position as usize & (self.size - HEADER_BYTES as usize);
        // SAFETY: `offset` is at most `size - 8`, and `2 * size` bytes are mapped.
        unsafe { self.data.add(offset) }
    }
}
