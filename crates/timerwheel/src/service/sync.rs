//! Atomics, the queue of commands, sleeping: the real ones, or loom's under `--cfg loom`, so that a test can walk
//! every interleaving of callers and a shard.

#[cfg(loom)]
pub(crate) use modelled::{ArrayQueue, AtomicBool, AtomicU32, AtomicU64, Word, fence};
#[cfg(not(loom))]
pub(crate) use real::{ArrayQueue, AtomicBool, AtomicU32, AtomicU64, Word, fence};
pub(crate) use std::sync::atomic::Ordering;

#[cfg(not(loom))]
mod real {
    pub(crate) use crossbeam_queue::ArrayQueue;
    use rustix::thread::futex;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, fence};

    use super::Ordering;
    use crate::service::sleeper::timespec;

    /// A word that a thread sleeps on until it changes.
    pub(crate) struct Word(AtomicU32);

    impl Word {
        pub(crate) fn new() -> Self {
            Word(AtomicU32::new(0))
        }

        pub(crate) fn load(&self) -> u32 {
            self.0.load(Ordering::SeqCst)
        }

        /// Sleeps until `until_ns` on CLOCK_MONOTONIC, for ever when it is `u64::MAX`, or until a
        /// [`change`](Self::change); not at all when the word is not `expected` any more. May return without a
        /// reason.
        pub(crate) fn sleep_while(&self, expected: u32, until_ns: u64) {
            let timeout = timespec(until_ns);
            let timeout = (until_ns != u64::MAX).then_some(&timeout);
            // Time-out, change and interruption are all reasons to look again.
            let _ = futex::wait_bitset(
                &self.0,
                futex::Flags::PRIVATE,
                expected,
                timeout,
                core::num::NonZeroU32::MAX,
            );
        }

        /// Changes the word, and wakes the thread if it sleeps on it.
        pub(crate) fn change(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
            // It fails only for a bad address.
            let _ = futex::wake(&self.0, futex::Flags::PRIVATE, 1);
        }
    }
}

#[cfg(loom)]
mod modelled {
    use std::collections::VecDeque;

    use loom::sync::atomic::AtomicUsize;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, fence};

    use super::Ordering;

    const SOUND: &str = "a panic ends the whole model";

    /// The face of crossbeam's queue; whether it is empty is told with less order than crossbeam's tells it.
    pub(crate) struct ArrayQueue<T> {
        values: loom::sync::Mutex<VecDeque<T>>,
        len: AtomicUsize,
        capacity: usize,
    }

    impl<T> ArrayQueue<T> {
        pub(crate) fn new(capacity: usize) -> Self {
            ArrayQueue {
                values: loom::sync::Mutex::new(VecDeque::new()),
                len: AtomicUsize::new(0),
                capacity,
            }
        }

        pub(crate) fn push(&self, value: T) -> Result<(), T> {
            let mut values = self.values.lock().expect(SOUND);
            if values.len() == self.capacity {
                return Err(value);
            }
            self.len.fetch_add(1, Ordering::Relaxed);
            values.push_back(value);
            Ok(())
        }

        pub(crate) fn pop(&self) -> Option<T> {
            let value = self.values.lock().expect(SOUND).pop_front()?;
            self.len.fetch_sub(1, Ordering::Relaxed);
            Some(value)
        }

        pub(crate) fn is_empty(&self) -> bool {
            self.len() == 0
        }

        pub(crate) fn len(&self) -> usize {
            self.len.load(Ordering::Relaxed)
        }

        pub(crate) fn capacity(&self) -> usize {
            self.capacity
        }
    }

    /// As the kernel's futex: comparing and going to sleep are one step against waking. Time does not pass in a
    /// model: what only a deadline would wake is a lost wake-up.
    pub(crate) struct Word {
        value: AtomicU32,
        queue: loom::sync::Mutex<()>,
        woken: loom::sync::Condvar,
    }

    impl Word {
        pub(crate) fn new() -> Self {
            Word {
                value: AtomicU32::new(0),
                queue: loom::sync::Mutex::new(()),
                woken: loom::sync::Condvar::new(),
            }
        }

        pub(crate) fn load(&self) -> u32 {
            self.value.load(Ordering::SeqCst)
        }

        pub(crate) fn sleep_while(&self, expected: u32, _until_ns: u64) {
            let queue = self.queue.lock().expect(SOUND);
            if self.value.load(Ordering::SeqCst) == expected {
                drop(self.woken.wait(queue).expect(SOUND));
            }
        }

        pub(crate) fn change(&self) {
            self.value.fetch_add(1, Ordering::SeqCst);
            let _queue = self.queue.lock().expect(SOUND);
            self.woken.notify_one();
        }
    }
}
