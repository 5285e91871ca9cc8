//! The slab: nodes in chunks, found by index, guarded by a generation.
//!
//! Free nodes are bits, not list links: taking the lowest free bit of one chunk until it is full keeps new
//! timers together in memory, and freeing touches no other node.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::num::NonZeroU32;

/// Nodes per chunk: 64 words of 64 bits, summed up in one more word.
pub(crate) const CHUNK: usize = 4096;
const CHUNK_BITS: u32 = CHUNK.trailing_zeros();

/// The index that no node has.
pub(crate) const NONE: u32 = u32::MAX;

/// Names one timer of one wheel.
///
/// A key goes stale when its timer fires or is cancelled. A stale key is refused for ever: it never names a
/// later timer that happens to use the same memory. A key of one wheel means nothing to another wheel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    index: u32,
    generation: NonZeroU32,
}

impl core::fmt::Debug for Key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Key({}v{})", self.index, self.generation)
    }
}

pub(crate) struct Node<T> {
    pub(crate) deadline: u64,
    pub(crate) next: u32,
    pub(crate) prev: u32,
    generation: NonZeroU32,
    pub(crate) slot: u16,
    value: Option<T>,
}

/// Which nodes of a chunk were used once and are free now.
struct FreeBits {
    /// Bit w is set when `words[w]` is not zero.
    summary: u64,
    words: [u64; CHUNK / 64],
}

pub(crate) struct Slab<T> {
    chunks: Vec<Vec<Node<T>>>,
    #[expect(
        clippy::vec_box,
        reason = "growing the table must not move the bitmaps"
    )]
    free: Vec<Box<FreeBits>>,
    /// The chunks that have a free bit, each once.
    open: Vec<u32>,
    /// The first chunk with room for a node that was never used.
    fresh: usize,
    /// Generation of never-used nodes: above that of every node that was ever given back to the allocator.
    generation_first: NonZeroU32,
    len: usize,
}

impl<T> Slab<T> {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        let mut slab = Slab {
            chunks: Vec::new(),
            free: Vec::new(),
            open: Vec::new(),
            fresh: 0,
            generation_first: NonZeroU32::MIN,
            len: 0,
        };
        let mut rest = capacity;
        while rest > 0 {
            slab.push_chunk(rest.min(CHUNK));
            rest -= rest.min(CHUNK);
        }
        slab
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Stores a timer that is not linked anywhere yet; returns its index and key.
    pub(crate) fn insert(&mut self, deadline: u64, value: T) -> (u32, Key) {
        self.len += 1;
        let Some(&chunk) = self.open.last() else {
            return self.insert_fresh(deadline, value);
        };
        let offset = self.take_free_bit(chunk as usize);
        let index = (chunk << CHUNK_BITS) | offset;
        let node = &mut self.chunks[chunk as usize][offset as usize];
        node.deadline = deadline;
        node.value = Some(value);
        let generation = node.generation;
        (index, Key { index, generation })
    }

    fn take_free_bit(&mut self, chunk: usize) -> u32 {
        let bits = &mut self.free[chunk];
        let word = bits.summary.trailing_zeros();
        let bit = bits.words[word as usize].trailing_zeros();
        bits.words[word as usize] &= bits.words[word as usize] - 1;
        if bits.words[word as usize] == 0 {
            bits.summary &= bits.summary - 1;
            if bits.summary == 0 {
                self.open.pop();
            }
        }
        word * 64 + bit
    }

    fn insert_fresh(&mut self, deadline: u64, value: T) -> (u32, Key) {
        if self.fresh == self.chunks.len() {
            // The first chunk grows as a vector does, so that a small wheel stays small.
            let capacity = if self.fresh == 0 { 0 } else { CHUNK };
            self.push_chunk(capacity);
        }
        let chunk = &mut self.chunks[self.fresh];
        let index = u32::try_from((self.fresh << CHUNK_BITS) | chunk.len())
            .ok()
            .filter(|index| *index != NONE)
            .expect("a wheel holds fewer than 2^32 - 1 timers");
        let generation = self.generation_first;
        chunk.push(Node {
            deadline,
            next: NONE,
            prev: NONE,
            generation,
            slot: 0,
            value: Some(value),
        });
        if chunk.len() == CHUNK {
            self.fresh += 1;
        }
        (index, Key { index, generation })
    }

    fn push_chunk(&mut self, capacity: usize) {
        self.chunks.push(Vec::with_capacity(capacity));
        self.free.push(Box::new(FreeBits {
            summary: 0,
            words: [0; CHUNK / 64],
        }));
    }

    /// Takes the value out of a live node, which must be unlinked already, and makes its keys stale.
    pub(crate) fn remove(&mut self, index: u32) -> (Key, T) {
        let node = self.node_mut(index);
        let value = node
            .value
            .take()
            .expect("only live nodes are linked and removed");
        let key = Key {
            index,
            generation: node.generation,
        };
        // A node whose generations are used up is never used again: no stale key can come alive.
        if let Some(generation) = node.generation.checked_add(1) {
            node.generation = generation;
            self.set_free_bit(index);
        }
        self.len -= 1;
        (key, value)
    }

    fn set_free_bit(&mut self, index: u32) {
        let chunk = index >> CHUNK_BITS;
        let offset = index as usize & (CHUNK - 1);
        let bits = &mut self.free[chunk as usize];
        if bits.summary == 0 {
            self.open.push(chunk);
        }
        bits.summary |= 1 << (offset / 64);
        bits.words[offset / 64] |= 1 << (offset % 64);
    }

    /// The index of a key's live node; `None` for a stale key.
    pub(crate) fn find(&self, key: Key) -> Option<u32> {
        let chunk = self.chunks.get((key.index >> CHUNK_BITS) as usize)?;
        let node = chunk.get(key.index as usize & (CHUNK - 1))?;
        (node.generation == key.generation && node.value.is_some()).then_some(key.index)
    }

    pub(crate) fn node(&self, index: u32) -> &Node<T> {
        &self.chunks[(index >> CHUNK_BITS) as usize][index as usize & (CHUNK - 1)]
    }

    pub(crate) fn node_mut(&mut self, index: u32) -> &mut Node<T> {
        &mut self.chunks[(index >> CHUNK_BITS) as usize][index as usize & (CHUNK - 1)]
    }

    pub(crate) fn value(&self, index: u32) -> Option<&T> {
        self.node(index).value.as_ref()
    }

    pub(crate) fn value_mut(&mut self, index: u32) -> Option<&mut T> {
        self.node_mut(index).value.as_mut()
    }

    /// The live nodes from `from` on, in memory order.
    pub(crate) fn next_live(&self, from: u32) -> Option<(u32, Key, &Node<T>, &T)> {
        let mut index = from;
        while let Some(chunk) = self.chunks.get((index >> CHUNK_BITS) as usize) {
            let offset = index as usize & (CHUNK - 1);
            for (at, node) in chunk.iter().enumerate().skip(offset) {
                if let Some(value) = &node.value {
                    let index = (index & !(CHUNK as u32 - 1)) | at as u32;
                    let generation = node.generation;
                    return Some((index, Key { index, generation }, node, value));
                }
            }
            index = (index & !(CHUNK as u32 - 1)).checked_add(CHUNK as u32)?;
        }
        None
    }

    /// Gives the chunks behind the last live node back to the allocator.
    pub(crate) fn shrink_to_fit(&mut self) {
        while let Some(chunk) = self.chunks.last() {
            let spent = chunk.iter().map(|node| node.generation).max();
            // Nodes made later must start above every generation that a key may still carry.
            let Some(next) = spent.map_or(Some(self.generation_first), |g| g.checked_add(1)) else {
                break;
            };
            if chunk.iter().any(|node| node.value.is_some()) {
                break;
            }
            self.generation_first = self.generation_first.max(next);
            self.chunks.pop();
            self.free.pop();
        }
        if let Some(last) = self.chunks.last_mut() {
            last.shrink_to_fit();
        }
        self.fresh = self.chunks.iter().take_while(|c| c.len() == CHUNK).count();
        let chunks = self.chunks.len() as u32;
        self.open.retain(|chunk| *chunk < chunks);
        self.open.shrink_to_fit();
        self.chunks.shrink_to_fit();
        self.free.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl<T> Slab<T> {
        /// Bytes that the slab holds, used or not.
        fn bytes(&self) -> usize {
            let nodes: usize = self.chunks.iter().map(Vec::capacity).sum();
            let per_chunk = size_of::<Vec<Node<T>>>() + size_of::<usize>() + size_of::<FreeBits>();
            nodes * size_of::<Node<T>>() + self.chunks.capacity() * per_chunk
        }
    }

    /// 24 bytes and an `Option<T>`, as the documentation says.
    #[test]
    fn a_node_is_as_small_as_promised() {
        assert_eq!(size_of::<Node<Box<u8>>>(), 24 + 8);
        assert_eq!(size_of::<Node<u32>>(), 24 + 8);
        assert_eq!(size_of::<Node<u64>>(), 24 + 16);
    }

    #[test]
    fn memory_is_in_proportion_at_a_thousand_and_at_a_million() {
        for (timers, overhead_bytes_max) in [(1_000, 64), (1_000_000, 40)] {
            let mut slab = Slab::with_capacity(0);
            for n in 0..timers {
                slab.insert(0, n as u64);
            }
            let overhead = slab.bytes() / timers - size_of::<u64>();
            assert!(overhead <= overhead_bytes_max, "{timers}: {overhead}");
        }
    }

    #[test]
    fn a_node_whose_generations_are_used_up_is_never_used_again() {
        let mut slab = Slab::with_capacity(0);
        let (index, _) = slab.insert(0, "a");
        slab.node_mut(index).generation = NonZeroU32::MAX;
        let (key, _) = slab.remove(index);
        let (other, _) = slab.insert(0, "b");
        assert_ne!(other, index);
        assert_eq!(slab.find(key), None);
        slab.remove(other);
        // Its chunk stays, or new nodes would start below its generation.
        slab.shrink_to_fit();
        assert_eq!(slab.chunks.len(), 1);
    }

    #[test]
    fn freed_nodes_are_used_before_new_ones() {
        let mut slab = Slab::with_capacity(0);
        let indices: Vec<u32> = (0..3 * CHUNK).map(|n| slab.insert(0, n).0).collect();
        for index in &indices {
            slab.remove(*index);
        }
        assert_eq!(slab.open.len(), 3);
        for n in 0..3 * CHUNK {
            slab.insert(0, n);
        }
        assert_eq!(slab.chunks.len(), 3);
        assert!(slab.open.is_empty());
    }
}
