//! The memory in which open containers remember their entries.

#[cfg(feature = "alloc")]
use alloc::vec::Vec;

use crate::buf::Buf;
use crate::error::{Code, Fail};
use crate::order::{KeyRules, leading_eight};

/// Entries that are kept without allocating, unless the caller says otherwise.
pub(crate) const INLINE: usize = 32;

/// Memory is set aside for this many announced entries at most; what is announced need not be true.
#[cfg(feature = "alloc")]
const ANNOUNCED_MAX: usize = 1 << 16;

/// What is remembered of an entry.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    /// [`KeyRules::rank`] of the key.
    pub(crate) rank: u64,
    /// Where it starts and, in the upper half, how long it is: one word, so that it is written and read as one.
    place: u64,
}

impl Slot {
    const EMPTY: Slot = Slot { rank: 0, place: 0 };

    /// `start` counts from the container's first entry on. Beyond 4 GiB it wraps: such a container must not become
    /// disordered. `len` is that of the key while the container is open.
    #[inline(always)]
    pub(super) fn new(rank: u64, start: usize, len: usize) -> Slot {
        Slot {
            rank,
            place: start as u64 & u64::from(u32::MAX) | (len as u64) << 32,
        }
    }

    /// The same with the length of the whole entry, up to `end`: with the separator behind it.
    #[inline(always)]
    pub(crate) fn ending_at(self, end: usize) -> Slot {
        Slot::new(self.rank, self.start(), end - self.start())
    }

    #[inline(always)]
    pub(crate) fn start(self) -> usize {
        self.place as u32 as usize
    }

    #[inline(always)]
    pub(crate) fn len(self) -> usize {
        (self.place >> 32) as usize
    }
}

/// What only a heap makes possible.
#[cfg(feature = "alloc")]
pub(crate) struct Heap {
    slots: Vec<Slot>,
    /// For sorting, beside those.
    sorted: Vec<Slot>,
    bytes: Vec<u8>,
}

/// There is none.
#[cfg(not(feature = "alloc"))]
pub(crate) enum Heap {}

/// The reusable memory of an encoder, with `F` as its fixed part.
pub(crate) struct ScratchOf<F: ?Sized> {
    /// How much of the fixed part is in use.
    pub(super) len: usize,
    heap: Option<Heap>,
    pub(super) fixed: F,
}

/// The same, whatever the size of its fixed part.
pub(crate) type Scratch = ScratchOf<[Slot]>;

/// The usual one.
pub(crate) type Usual = ScratchOf<[Slot; INLINE]>;

impl Usual {
    /// Takes from the heap what the fixed part cannot hold, where there is a heap.
    #[inline]
    pub(crate) const fn new() -> Usual {
        ScratchOf {
            len: 0,
            #[cfg(feature = "alloc")]
            heap: Some(Heap {
                slots: Vec::new(),
                sorted: Vec::new(),
                bytes: Vec::new(),
            }),
            #[cfg(not(feature = "alloc"))]
            heap: None,
            fixed: [Slot::EMPTY; INLINE],
        }
    }
}

impl<const N: usize> ScratchOf<[Slot; N]> {
    /// Never touches the heap.
    pub(crate) const fn fixed() -> Self {
        ScratchOf {
            len: 0,
            heap: None,
            fixed: [Slot::EMPTY; N],
        }
    }
}

impl Scratch {
    /// A further entry of a container that has moved to the heap.
    #[cfg(feature = "alloc")]
    #[inline(always)]
    pub(super) fn push_on_heap(&mut self, slot: Slot) {
        if let Some(heap) = &mut self.heap {
            heap.slots.push(slot);
        }
    }

    /// Gives back what a container had on the heap.
    pub(super) fn leave_heap(&mut self, lost: Lost) {
        #[cfg(feature = "alloc")]
        if let (Some(heap), true) = (&mut self.heap, lost.heap_base != NOT_ON_HEAP) {
            heap.slots.truncate(lost.heap_base);
        }
        _ = lost;
    }

    /// Forgets what an earlier failure left behind.
    pub(crate) fn reset(&mut self) {
        self.len = 0;
        #[cfg(feature = "alloc")]
        if let Some(heap) = &mut self.heap {
            heap.slots.clear();
        }
    }

    /// The entries of a disordered container, and the heap's memory for copies.
    #[inline(always)]
    pub(super) fn parts(&mut self, lost: Lost) -> (&mut [Slot], Spare<'_>) {
        let Lost {
            base,
            count,
            heap_base,
            ..
        } = lost;
        let fixed = self
            .fixed
            .get_mut(base..)
            .and_then(|rest| rest.get_mut(..count));
        #[cfg(feature = "alloc")]
        if let Some(heap) = &mut self.heap {
            let slots = match heap_base {
                NOT_ON_HEAP => fixed.expect("entries that are not on the heap fit the fixed part"),
                base => &mut heap.slots[base..],
            };
            return (slots, Spare(Some((&mut heap.bytes, &mut heap.sorted))));
        }
        debug_assert_eq!(heap_base, NOT_ON_HEAP, "there is no heap");
        (
            fixed.expect("entries that are not on the heap fit the fixed part"),
            Spare::none(),
        )
    }

    /// The fixed part is full: the entries of a disordered container move to the heap, `slot` behind them.
    /// Returns where they start.
    #[inline(never)]
    pub(super) fn spill(&mut self, lost: Lost, slot: Slot) -> Result<usize, Fail> {
        #[cfg(feature = "alloc")]
        if let Some(heap) = &mut self.heap {
            let mut base = lost.heap_base;
            if base == NOT_ON_HEAP {
                base = heap.slots.len();
                let recorded = &self.fixed[lost.base..][..lost.count];
                heap.slots
                    .reserve(lost.announced.clamp(lost.count + 1, ANNOUNCED_MAX));
                heap.slots.extend_from_slice(recorded);
                self.len = lost.base;
            }
            heap.slots.push(slot);
            return Ok(base);
        }
        _ = (lost, slot);
        Err(Fail::new(Code::Scratch))
    }

    /// The moment a container loses its order: its entries, which end at `upto`, move to the heap, and those that were
    /// not recorded are read again. Returns where they start on the heap.
    #[cold]
    #[inline(never)]
    pub(super) fn turn_disordered<B: Buf, K: KeyRules>(
        &mut self,
        rules: K,
        out: &B,
        upto: usize,
        mut lost: Lost,
    ) -> Result<usize, Fail> {
        let bytes = &out.bytes()[..upto];
        let recorded = lost.count.min(self.fixed.len().saturating_sub(lost.base));
        let missing = lost.count - recorded;
        within_four_gib(bytes.len() - lost.first)?;
        let mut start = lost.first;
        if recorded > 0 {
            start += self.fixed[lost.base + recorded - 1].start();
            start = rules.entry_end(bytes, rules.key_end(bytes, start));
        }
        lost.count = recorded;
        for _ in 0..missing {
            let key_end = rules.key_end(bytes, start);
            let rank = rules.rank(leading_eight(bytes, start + K::KEY_SKIP..key_end));
            let slot = Slot::new(rank, start - lost.first, key_end - start);
            lost.heap_base = self.spill(lost, slot)?;
            start = rules.entry_end(bytes, key_end);
        }
        Ok(lost.heap_base)
    }
}

/// Entries of a disordered container know their places within 4 GiB.
pub(crate) fn within_four_gib(size: usize) -> Result<(), Fail> {
    match u32::try_from(size) {
        Ok(_) => Ok(()),
        Err(_) => Err(Fail::new(Code::TooLarge)),
    }
}

/// Memory of the heap for a copy, if there is a heap.
pub(crate) struct Spare<'s>(
    #[cfg(feature = "alloc")] Option<(&'s mut Vec<u8>, &'s mut Vec<Slot>)>,
    #[cfg(not(feature = "alloc"))] core::marker::PhantomData<&'s mut [u8]>,
);

impl Spare<'_> {
    const fn none() -> Self {
        #[cfg(feature = "alloc")]
        return Spare(None);
        #[cfg(not(feature = "alloc"))]
        Spare(core::marker::PhantomData)
    }

    /// As many entries as there are, to sort them beside their place.
    pub(crate) fn slots(&mut self, like: &[Slot]) -> Option<&mut [Slot]> {
        #[cfg(feature = "alloc")]
        if let Some((_, sorted)) = &mut self.0 {
            sorted.clear();
            sorted.extend_from_slice(like);
            return Some(sorted);
        }
        _ = like;
        None
    }

    /// A copy of the bytes, and of the separator behind them.
    pub(crate) fn copy(&mut self, bytes: &[u8], separator: Option<u8>) -> Option<&[u8]> {
        #[cfg(feature = "alloc")]
        if let Some((spare, _)) = &mut self.0 {
            spare.clear();
            spare.reserve(bytes.len() + 1);
            spare.extend_from_slice(bytes);
            spare.extend(separator);
            return Some(spare);
        }
        _ = (bytes, separator);
        None
    }
}

/// The entries of a container are in the fixed part.
pub(super) const NOT_ON_HEAP: usize = usize::MAX;

/// What is known of a container that is not in order.
#[derive(Clone, Copy)]
pub(crate) struct Lost {
    /// Where its first entry starts.
    pub(crate) first: usize,
    /// Where its entries are in the fixed part, or were.
    pub(super) base: usize,
    /// Where they are on the heap.
    pub(super) heap_base: usize,
    pub(super) announced: usize,
    pub(super) count: usize,
    pub(crate) escaped: bool,
}
