//! An allocator that counts, for `#[global_allocator]` of a bench.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<i64> = const { Cell::new(0) };
}

/// The system's allocator with a counter per thread in front.
#[derive(Debug)]
pub struct Counting;

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        grow(layout.size() as i64);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        grow(-(layout.size() as i64));
        // SAFETY: the pointer came from `alloc` above, which is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        grow(size as i64 - layout.size() as i64);
        // SAFETY: as in `dealloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn grow(by: i64) {
    BYTES.with(|bytes| bytes.set(bytes.get() + by));
}

/// Bytes that this thread has asked for and not given back; stays zero unless [`Counting`] is the allocator.
pub fn bytes_live() -> i64 {
    BYTES.get()
}

/// Allocations of this thread so far, growing reallocations included; stays zero unless [`Counting`] is the allocator.
pub fn allocations() -> u64 {
    COUNT.get()
}
