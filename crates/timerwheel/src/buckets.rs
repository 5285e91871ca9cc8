//! The buckets: per slot a queue of packed entries, in chunks of four cache lines.
//!
//! An entry says when and who; moving it to a lower level reads memory in sequence and touches no timer. It is
//! dead when its stamp is no longer its timer's: cancelling a timer does not look for its entry.

use alloc::vec::Vec;

/// The index that no chunk has.
const NONE: u32 = u32::MAX;

/// One timer's place in a bucket, in eight bytes: the low 16 bits of the tick at which it is due, its index of 28
/// bits, and 20 bits of its stamp.
#[derive(Clone, Copy, Default)]
pub(crate) struct Entry(u64);

impl Entry {
    #[inline]
    pub(crate) fn new(when: u64, index: u32, stamp: u32) -> Self {
        Entry(when << 48 | u64::from(index) << 20 | u64::from(stamp))
    }

    /// The low bits of the tick.
    #[inline]
    pub(crate) fn when(self) -> u64 {
        self.0 >> 48
    }

    #[inline]
    pub(crate) fn index(self) -> u32 {
        (self.0 >> 20) as u32 % (1 << 28)
    }

    #[inline]
    pub(crate) fn stamp(self) -> u32 {
        self.0 as u32 % (1 << 20)
    }
}

/// Entries per chunk: with the header, 256 bytes.
pub(crate) const ENTRIES: usize = 31;

/// Entries that lie together; the header comes first, so that a short queue is one cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Chunk {
    next: u32,
    /// The entries from here to `end` wait.
    start: u8,
    end: u8,
    entries: [Entry; ENTRIES],
}

impl Chunk {
    const EMPTY: Chunk = Chunk {
        next: NONE,
        start: 0,
        end: 0,
        entries: [Entry(0); ENTRIES],
    };

    #[inline]
    pub(crate) fn entries(&self) -> &[Entry] {
        self.entries
            .get(usize::from(self.start)..usize::from(self.end))
            .unwrap_or_default()
    }
}

/// One entry and the next of its queue.
#[derive(Clone, Copy)]
pub(crate) struct Link {
    entry: Entry,
    next: u32,
}

/// A queue: of chunks with at least one entry each, or of links.
#[derive(Clone, Copy)]
pub(crate) struct List {
    head: u32,
    tail: u32,
}

impl List {
    pub(crate) const EMPTY: List = List {
        head: NONE,
        tail: NONE,
    };

    #[inline]
    pub(crate) fn is_empty(self) -> bool {
        self.head == NONE
    }
}

/// What an arena is made of.
pub(crate) trait Linked: Copy {
    /// The binary logarithm of the nodes per allocation.
    const BLOCK_BITS: u32;

    fn next(&mut self) -> &mut u32;
}

impl Linked for Chunk {
    /// 4 KiB.
    const BLOCK_BITS: u32 = 4;

    #[inline]
    fn next(&mut self) -> &mut u32 {
        &mut self.next
    }
}

impl Linked for Link {
    /// 2 KiB.
    const BLOCK_BITS: u32 = 7;

    #[inline]
    fn next(&mut self) -> &mut u32 {
        &mut self.next
    }
}

/// Memory for the nodes of many queues, in blocks that never move.
pub(crate) struct Arena<N> {
    blocks: Vec<Vec<N>>,
    /// The first of the linked free nodes.
    free: u32,
    /// Nodes below this were in use since the last reset.
    fresh: u32,
    /// Entries in all queues, the dead included.
    entries: usize,
}

impl<N: Linked> Arena<N> {
    const BLOCK: usize = 1 << N::BLOCK_BITS;

    pub(crate) fn new() -> Self {
        Arena {
            blocks: Vec::new(),
            free: NONE,
            fresh: 0,
            entries: 0,
        }
    }

    /// Entries in all queues, the dead included.
    #[inline]
    pub(crate) fn entries(&self) -> usize {
        self.entries
    }

    #[inline]
    fn node(&self, at: u32) -> &N {
        &self.blocks[(at >> N::BLOCK_BITS) as usize][at as usize % Self::BLOCK]
    }

    #[inline]
    fn node_mut(&mut self, at: u32) -> &mut N {
        &mut self.blocks[(at >> N::BLOCK_BITS) as usize][at as usize % Self::BLOCK]
    }

    /// Adds a node at the end.
    #[inline]
    fn append(&mut self, list: &mut List, node: N) {
        let at = self.take(node);
        if list.tail == NONE {
            list.head = at;
        } else {
            *self.node_mut(list.tail).next() = at;
        }
        list.tail = at;
    }

    #[inline]
    fn take(&mut self, node: N) -> u32 {
        if self.free == NONE {
            return self.take_fresh(node);
        }
        let at = self.free;
        let slot = self.node_mut(at);
        let free = *slot.next();
        *slot = node;
        self.free = free;
        at
    }

    #[cold]
    fn take_fresh(&mut self, node: N) -> u32 {
        let at = self.fresh;
        self.fresh += 1;
        let block = (at >> N::BLOCK_BITS) as usize;
        if block == self.blocks.len() {
            // The first block grows as a vector does, so that a small wheel stays small.
            let capacity = if block == 0 { 0 } else { Self::BLOCK };
            self.blocks.push(Vec::with_capacity(capacity));
        }
        let block = &mut self.blocks[block];
        match block.get_mut(at as usize % Self::BLOCK) {
            Some(slot) => *slot = node,
            None => block.push(node),
        }
        at
    }

    #[inline]
    fn drop_head(&mut self, list: &mut List) {
        let at = list.head;
        let free = self.free;
        let next = self.node_mut(at).next();
        list.head = core::mem::replace(next, free);
        self.free = at;
        if list.head == NONE {
            list.tail = NONE;
        }
    }

    /// Appends `other` to `list`.
    pub(crate) fn join(&mut self, list: &mut List, other: List) {
        if other.is_empty() {
            return;
        }
        if list.tail == NONE {
            list.head = other.head;
        } else {
            *self.node_mut(list.tail).next() = other.head;
        }
        list.tail = other.tail;
    }

    /// Forgets all entries; the caller forgets all lists. O(1).
    pub(crate) fn reset(&mut self) {
        self.free = NONE;
        self.fresh = 0;
        self.entries = 0;
    }

    #[cfg(test)]
    fn nodes(&self) -> usize {
        self.blocks.iter().map(Vec::len).sum()
    }
}

impl Arena<Chunk> {
    /// Adds an entry at the end.
    #[inline]
    pub(crate) fn push(&mut self, list: &mut List, entry: Entry) {
        self.entries += 1;
        if list.tail != NONE {
            let chunk = self.node_mut(list.tail);
            if let Some(place) = chunk.entries.get_mut(usize::from(chunk.end)) {
                *place = entry;
                chunk.end += 1;
                return;
            }
        }
        self.push_chunk(list, entry);
    }

    #[inline(never)]
    fn push_chunk(&mut self, list: &mut List, entry: Entry) {
        let mut chunk = Chunk::EMPTY;
        chunk.entries[0] = entry;
        chunk.end = 1;
        self.append(list, chunk);
    }

    /// Takes up to `count_max` entries of the first chunk out; the list must not be empty.
    #[inline]
    pub(crate) fn pop_chunk(&mut self, list: &mut List, count_max: usize) -> Chunk {
        let chunk = self.node_mut(list.head);
        let mut out = *chunk;
        if chunk.entries().len() > count_max {
            out.end = chunk.start + count_max as u8;
            chunk.start = out.end;
        } else {
            self.drop_head(list);
        }
        self.entries -= out.entries().len();
        out
    }
}

impl Arena<Link> {
    /// Adds an entry at the end.
    #[inline]
    pub(crate) fn push(&mut self, list: &mut List, entry: Entry) {
        self.entries += 1;
        self.append(list, Link { entry, next: NONE });
    }

    /// Takes the first entry out.
    #[inline]
    pub(crate) fn pop(&mut self, list: &mut List) -> Option<Entry> {
        if list.head == NONE {
            return None;
        }
        let entry = self.node(list.head).entry;
        self.drop_head(list);
        self.entries -= 1;
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u32) -> Entry {
        Entry::new(7, index, 9)
    }

    #[test]
    fn a_chunk_is_four_cache_lines() {
        assert_eq!(size_of::<Chunk>(), 256);
        assert_eq!(size_of::<Link>(), 16);
    }

    #[test]
    fn lists_of_chunks_are_queues_and_chunks_come_back() {
        let mut arena = Arena::<Chunk>::new();
        let (mut a, mut b) = (List::EMPTY, List::EMPTY);
        for _ in 0..50 {
            for n in 0..95 {
                arena.push(&mut a, entry(n));
                arena.push(&mut b, entry(n + 1_000));
            }
            let some = arena.pop_chunk(&mut a, 4);
            assert_eq!((some.entries()[3].index(), some.entries().len()), (3, 4));
            arena.join(&mut a, b);
            b = List::EMPTY;
            assert_eq!(arena.entries(), 186);
            let mut seen = Vec::new();
            while !a.is_empty() {
                let chunk = arena.pop_chunk(&mut a, 9);
                seen.extend(chunk.entries().iter().map(|entry| entry.index()));
            }
            assert!(seen.into_iter().eq((4..95).chain(1_000..1_095)));
        }
        assert_eq!(arena.nodes(), 8);
    }

    #[test]
    fn lists_of_links_are_queues_and_links_come_back() {
        let mut arena = Arena::<Link>::new();
        let mut list = List::EMPTY;
        for _ in 0..3 {
            for n in 0..600 {
                arena.push(&mut list, entry(n));
            }
            for n in 0..600 {
                assert_eq!(arena.pop(&mut list).map(Entry::index), Some(n));
            }
            assert!(arena.pop(&mut list).is_none() && list.is_empty());
        }
        assert_eq!((arena.nodes(), arena.entries()), (600, 0));
    }
}
