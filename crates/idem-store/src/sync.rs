//! Locks, atomics and sleeping: the real ones, or loom's under `--cfg loom`, so that the tests can
//! walk every interleaving of the hand-off from callers to the flusher and back.

#[cfg(loom)]
pub(crate) use modelled::{AtomicBool, AtomicU32, Condvar, Mutex, MutexGuard, Word, fence};
#[cfg(not(loom))]
pub(crate) use real::{AtomicBool, AtomicU32, Condvar, Mutex, MutexGuard, Word, fence};

pub(crate) use std::sync::atomic::Ordering;

#[cfg(not(loom))]
mod real {
    use rustix::thread::futex;

    pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, fence};

    use super::Ordering;

    /// A word that threads sleep on until it changes.
    pub(crate) struct Word(AtomicU32);

    impl Word {
        pub(crate) fn new(value: u32) -> Self {
            Self(AtomicU32::new(value))
        }

        pub(crate) fn load(&self, ordering: Ordering) -> u32 {
            self.0.load(ordering)
        }

        pub(crate) fn store(&self, value: u32, ordering: Ordering) {
            self.0.store(value, ordering);
        }

        /// Sleeps until a [`wake_all`](Self::wake_all), unless the word is not `expected` any more
        /// (the kernel compares in the same order as it wakes). May return without a reason.
        pub(crate) fn sleep_while(&self, expected: u32) {
            // Errors are wake-ups like any other: the caller looks at the word.
            let _ = futex::wait(&self.0, futex::Flags::PRIVATE, expected, None);
        }

        pub(crate) fn wake_one(&self) {
            // It fails only for a bad address.
            let _ = futex::wake(&self.0, futex::Flags::PRIVATE, 1);
        }

        pub(crate) fn wake_all(&self) {
            // It fails only for a bad address.
            let _ = futex::wake(&self.0, futex::Flags::PRIVATE, i32::MAX as u32);
        }
    }
}

#[cfg(loom)]
mod modelled {
    use std::ops::{Deref, DerefMut};
    use std::time::Instant;

    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, fence};

    use super::Ordering;

    const SOUND: &str = "a panic ends the whole model";

    /// `parking_lot`'s face on loom's lock.
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    pub(crate) struct MutexGuard<'a, T>(Option<loom::sync::MutexGuard<'a, T>>);

    pub(crate) struct Condvar(loom::sync::Condvar);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard(Some(self.0.lock().expect(SOUND)))
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            Some(MutexGuard(Some(self.0.try_lock().ok()?)))
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_deref().expect("taken only while it waits")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_deref_mut().expect("taken only while it waits")
        }
    }

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self(loom::sync::Condvar::new())
        }

        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }

        pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            let inner = guard.0.take().expect("taken only while it waits");
            guard.0 = Some(self.0.wait(inner).expect(SOUND));
        }

        /// Time does not pass in a model: what only a timeout would wake is a lost wake-up.
        pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _deadline: Instant) {
            self.wait(guard);
        }
    }

    /// As the kernel's futex: comparing and going to sleep are one step against waking.
    pub(crate) struct Word {
        value: AtomicU32,
        queue: loom::sync::Mutex<()>,
        woken: loom::sync::Condvar,
    }

    impl Word {
        pub(crate) fn new(value: u32) -> Self {
            Self {
                value: AtomicU32::new(value),
                queue: loom::sync::Mutex::new(()),
                woken: loom::sync::Condvar::new(),
            }
        }

        pub(crate) fn load(&self, ordering: Ordering) -> u32 {
            self.value.load(ordering)
        }

        pub(crate) fn store(&self, value: u32, ordering: Ordering) {
            self.value.store(value, ordering);
        }

        pub(crate) fn sleep_while(&self, expected: u32) {
            let queue = self.queue.lock().expect(SOUND);
            if self.value.load(Ordering::Relaxed) == expected {
                drop(self.woken.wait(queue).expect(SOUND));
            }
        }

        pub(crate) fn wake_one(&self) {
            let _queue = self.queue.lock().expect(SOUND);
            self.woken.notify_one();
        }

        pub(crate) fn wake_all(&self) {
            let _queue = self.queue.lock().expect(SOUND);
            self.woken.notify_all();
        }
    }
}
