//! Bytes waiting for a socket: a bounded queue that owns memory only while something waits.

/// A first-in first-out byte queue.
#[derive(Default)]
pub(crate) struct WriteQueue {
    bytes: Vec<u8>,
    /// Bytes at the front that were sent already.
    sent: usize,
}

impl WriteQueue {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What waits, oldest first.
    pub(crate) fn front(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// Appends. The sent front is dropped when it is the larger half, so each byte is moved at most once on average.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.sent > self.len() {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Drops `count` sent bytes from the front, and the memory with the last one.
    pub(crate) fn consume(&mut self, count: usize) {
        self.sent += count;
        debug_assert!(self.sent <= self.bytes.len());
        if self.sent >= self.bytes.len() {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a VecDeque, with every mix of pushes and partial sends.
        #[test]
        fn keeps_order_and_frees_when_empty(steps in prop::collection::vec((any::<bool>(), 0usize..600), 0..200)) {
            let mut queue = WriteQueue::default();
            let mut model = VecDeque::new();
            let mut next = 0u8;
            for (push, count) in steps {
                if push {
                    let bytes: Vec<u8> = (0..count).map(|_| { next = next.wrapping_add(1); next }).collect();
                    queue.push(&bytes);
                    model.extend(bytes);
                } else {
                    let count = count.min(queue.len());
                    queue.consume(count);
                    model.drain(..count);
                }
                prop_assert_eq!(queue.front(), model.make_contiguous());
                prop_assert_eq!(queue.is_empty(), model.is_empty());
                prop_assert!(!model.is_empty() || queue.bytes.capacity() == 0 || push);
                prop_assert!(!push || queue.bytes.len() <= 2 * model.len(), "sent bytes pile up");
            }
        }
    }
}
