//! The slab: timers in chunks, found by index, guarded by a generation and a stamp.
//!
//! The generation belongs to the key: it changes when a timer leaves. The stamp belongs to the entries in the
//! buckets: it also changes when a timer is rescheduled to another bucket, so that the entry left behind is
//! known to be dead.
//!
//! Free nodes are bits, not list links: taking the lowest free bit of one chunk until it is full keeps new
//! timers together in memory, and freeing touches no other node.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::num::NonZeroU32;

use crate::buckets::Entry;

/// Nodes per chunk: 64 words of 64 bits, summed up in one more word.
pub(crate) const CHUNK: usize = 4096;
const CHUNK_BITS: u32 = CHUNK.trailing_zeros();

/// A wheel holds at most so many timers: entries name them in 28 bits.
const NODES_MAX: usize = 1 << 28;

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

/// Where a timer's entry lies, in the top bits of [`Live::stamp`].
const PLACE: u32 = 0b11 << 30;
/// In a bucket of the lowest level, where the living are counted.
pub(crate) const IN_LOWEST: u32 = 0b01 << 30;
/// In no bucket: it has come out and waits for its turn.
pub(crate) const READY: u32 = 0b10 << 30;
/// Stamps have 20 bits and come round: an entry that has been dead for 2^20 stamps of its node speaks for the
/// timer again. It then does what a second entry of the same timer does: it looks at the deadline, and nothing
/// happens early or twice.
const STAMP: u32 = (1 << 20) - 1;

/// A timer that waits.
pub(crate) struct Live<T> {
    generation: NonZeroU32,
    /// The stamp in the lower 20 bits, the place in the upper two.
    stamp: u32,
    pub(crate) deadline: u64,
    pub(crate) value: T,
}

impl<T> Live<T> {
    #[inline]
    pub(crate) fn stamp(&self) -> u32 {
        self.stamp & STAMP
    }

    #[inline]
    pub(crate) fn is_in(&self, place: u32) -> bool {
        self.stamp & PLACE == place
    }

    #[inline]
    pub(crate) fn set_place(&mut self, place: u32) {
        self.stamp = self.stamp() | place;
    }

    /// Makes the timer's entries dead; returns the stamp of the next one.
    pub(crate) fn restamp(&mut self) -> u32 {
        self.stamp = self.stamp.wrapping_add(1) & STAMP;
        self.stamp
    }

    #[inline]
    fn key(&self, index: u32) -> Key {
        let generation = self.generation;
        Key { index, generation }
    }
}

enum Node<T> {
    Live(Live<T>),
    /// The stamp of the next entry and the generation of the next timer; none when they are used up.
    Free {
        stamp: u32,
        generation: Option<NonZeroU32>,
    },
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

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Stores a timer; returns its key and the stamp for its entry.
    #[inline]
    pub(crate) fn insert(&mut self, deadline: u64, value: T) -> (Key, u32) {
        self.len += 1;
        let Some(&chunk) = self.open.last() else {
            return self.insert_fresh(deadline, value);
        };
        let offset = self.take_free_bit(chunk as usize);
        let index = (chunk << CHUNK_BITS) | offset;
        let node = &mut self.chunks[chunk as usize][offset as usize];
        let Node::Free {
            stamp,
            generation: Some(generation),
        } = *node
        else {
            unreachable!("a set bit means a free node with generations left")
        };
        *node = Node::Live(Live {
            generation,
            stamp,
            deadline,
            value,
        });
        (Key { index, generation }, stamp)
    }

    #[inline]
    fn take_free_bit(&mut self, chunk: usize) -> u32 {
        let bits = &mut *self.free[chunk];
        let word = bits.summary.trailing_zeros() % 64;
        let bit = bits.words[word as usize].trailing_zeros();
        bits.words[word as usize] &= bits.words[word as usize].wrapping_sub(1);
        if bits.words[word as usize] == 0 {
            bits.summary &= bits.summary.wrapping_sub(1);
            if bits.summary == 0 {
                self.open.pop();
            }
        }
        word * 64 + bit
    }

    fn insert_fresh(&mut self, deadline: u64, value: T) -> (Key, u32) {
        if self.fresh == self.chunks.len() {
            // The first chunk grows as a vector does, so that a small wheel stays small.
            let capacity = if self.fresh == 0 { 0 } else { CHUNK };
            self.push_chunk(capacity);
        }
        let chunk = &mut self.chunks[self.fresh];
        let index = (self.fresh << CHUNK_BITS) | chunk.len();
        assert!(index < NODES_MAX, "a wheel holds fewer than 2^28 timers");
        let generation = self.generation_first;
        chunk.push(Node::Live(Live {
            generation,
            stamp: 0,
            deadline,
            value,
        }));
        if chunk.len() == CHUNK {
            self.fresh += 1;
        }
        let index = index as u32;
        (Key { index, generation }, 0)
    }

    fn push_chunk(&mut self, capacity: usize) {
        self.chunks.push(Vec::with_capacity(capacity));
        self.free.push(Box::new(FreeBits {
            summary: 0,
            words: [0; CHUNK / 64],
        }));
    }

    /// Takes a timer out and makes its keys and entries dead; nothing happens unless `wanted` agrees.
    #[inline(always)]
    pub(crate) fn remove_if(
        &mut self,
        index: u32,
        wanted: impl FnOnce(&Live<T>) -> bool,
    ) -> Option<(Key, Live<T>)> {
        let node = self
            .chunks
            .get_mut((index >> CHUNK_BITS) as usize)?
            .get_mut(index as usize % CHUNK)?;
        let (stamp, generation) = match node {
            Node::Live(live) if wanted(live) => {
                // A node whose generations are used up is never used again: no stale key can come alive.
                let generation = live.generation.checked_add(1);
                (live.stamp.wrapping_add(1) & STAMP, generation)
            }
            _ => return None,
        };
        let Node::Live(live) = core::mem::replace(node, Node::Free { stamp, generation }) else {
            return None;
        };
        if generation.is_some() {
            self.set_free_bit(index);
        }
        self.len -= 1;
        Some((live.key(index), live))
    }

    /// Takes out the timer of a key; `None` for a stale one.
    #[inline]
    pub(crate) fn remove_key(&mut self, key: Key) -> Option<Live<T>> {
        let (_, live) = self.remove_if(key.index, |live| live.generation == key.generation)?;
        Some(live)
    }

    #[inline]
    fn set_free_bit(&mut self, index: u32) {
        let chunk = index >> CHUNK_BITS;
        let offset = index as usize % CHUNK;
        let bits = &mut *self.free[chunk as usize];
        if bits.summary == 0 {
            self.open.push(chunk);
        }
        bits.summary |= 1 << (offset / 64);
        bits.words[offset / 64] |= 1 << (offset % 64);
    }

    /// The timer of a key; `None` for a stale one.
    #[inline]
    pub(crate) fn find(&self, key: Key) -> Option<&Live<T>> {
        self.live(key.index)
            .filter(|live| live.generation == key.generation)
    }

    #[inline]
    pub(crate) fn find_mut(&mut self, key: Key) -> Option<&mut Live<T>> {
        self.live_mut(key.index)
            .filter(|live| live.generation == key.generation)
    }

    #[inline]
    pub(crate) fn live(&self, index: u32) -> Option<&Live<T>> {
        let chunk = self.chunks.get((index >> CHUNK_BITS) as usize)?;
        match chunk.get(index as usize % CHUNK)? {
            Node::Live(live) => Some(live),
            Node::Free { .. } => None,
        }
    }

    #[inline]
    pub(crate) fn live_mut(&mut self, index: u32) -> Option<&mut Live<T>> {
        let chunk = self.chunks.get_mut((index >> CHUNK_BITS) as usize)?;
        match chunk.get_mut(index as usize % CHUNK)? {
            Node::Live(live) => Some(live),
            Node::Free { .. } => None,
        }
    }

    /// Whether an entry is its timer's present one.
    #[inline]
    pub(crate) fn is_live(&self, entry: Entry) -> bool {
        self.live(entry.index())
            .is_some_and(|live| live.stamp() == entry.stamp())
    }

    /// Takes out whatever timer has this index.
    pub(crate) fn remove_index(&mut self, index: u32) -> Option<T> {
        let (_, live) = self.remove_if(index, |_| true)?;
        Some(live.value)
    }

    /// The first timer from `from` on, in memory order.
    pub(crate) fn next_live(&self, from: u32) -> Option<(u32, Key, &Live<T>)> {
        let mut index = from;
        while let Some(chunk) = self.chunks.get((index >> CHUNK_BITS) as usize) {
            let offset = index as usize % CHUNK;
            for (at, node) in chunk.iter().enumerate().skip(offset) {
                if let Node::Live(live) = node {
                    let index = (index & !(CHUNK as u32 - 1)) | at as u32;
                    return Some((index, live.key(index), live));
                }
            }
            index = (index & !(CHUNK as u32 - 1)).checked_add(CHUNK as u32)?;
        }
        None
    }

    /// Gives the chunks behind the last timer back to the allocator. No entry may name a dead timer: nodes made
    /// later begin with the first stamp again.
    pub(crate) fn shrink_to_fit(&mut self) {
        while let Some(chunk) = self.chunks.last() {
            // Nodes made later must start above every generation that a key may still carry.
            let spent = chunk.iter().try_fold(None, |most, node| match node {
                Node::Live(_) => None,
                Node::Free { generation, .. } => generation.map(|g| most.max(Some(g))),
            });
            let Some(next) = spent else { break };
            self.generation_first = self.generation_first.max(next.unwrap_or(NonZeroU32::MIN));
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

impl Key {
    #[inline]
    pub(crate) fn index(self) -> u32 {
        self.index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 16 bytes and a `T`: the generation is never zero, and that tells the free nodes.
    #[test]
    fn a_node_is_as_small_as_promised() {
        assert_eq!(size_of::<Node<()>>(), 16);
        assert_eq!(size_of::<Node<Box<u8>>>(), 16 + 8);
        assert_eq!(size_of::<Node<u32>>(), 16 + 8);
        assert_eq!(size_of::<Node<u64>>(), 16 + 8);
        assert_eq!(size_of::<Node<[u64; 5]>>(), 16 + 40);
    }

    #[test]
    fn a_node_whose_generations_are_used_up_is_never_used_again() {
        let mut slab = Slab::with_capacity(0);
        let (key, _) = slab.insert(0, "a");
        slab.live_mut(key.index).expect("lives").generation = NonZeroU32::MAX;
        let key = Key {
            index: key.index,
            generation: NonZeroU32::MAX,
        };
        slab.remove_key(key).expect("lives");
        let (other, _) = slab.insert(0, "b");
        assert_ne!(other.index, key.index);
        assert!(slab.find(key).is_none());
        slab.remove_key(other);
        // Its chunk stays, or new nodes would start below its generation.
        slab.shrink_to_fit();
        assert_eq!(slab.chunks.len(), 1);
    }

    #[test]
    fn freed_nodes_are_used_before_new_ones() {
        let mut slab = Slab::with_capacity(0);
        let keys: Vec<Key> = (0..3 * CHUNK).map(|n| slab.insert(0, n).0).collect();
        for key in &keys {
            slab.remove_key(*key);
        }
        assert_eq!(slab.open.len(), 3);
        for n in 0..3 * CHUNK {
            slab.insert(0, n);
        }
        assert_eq!(slab.chunks.len(), 3);
        assert!(slab.open.is_empty());
        assert_eq!(slab.len(), 3 * CHUNK);
    }
}
