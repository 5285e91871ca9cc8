//! The shard's connections: fixed chunks of slots, so that an insert never moves what is there.
//!
//! A slot has a generation that counts up when it is freed; a token carries the generation it was made with. Freed
//! slots are kept aside until [`Slab::release`] (the end of a turn), so a slot is never used twice within one batch
//! of events. A chunk without connections gives its memory back and remembers the highest generation it had.

use crate::token::{SLOTS_MAX, Token};

const CHUNK_BITS: u32 = 10;
const CHUNK: usize = 1 << CHUNK_BITS;
/// Four million slots.
const CHUNKS_EXPECTED_MAX: usize = 4096;
const NONE: u32 = u32::MAX;

/// One place: free (`value` is `None`) or taken.
struct Slot<T> {
    generation: u32,
    next_free: u32,
    value: Option<T>,
}

struct Chunk<T> {
    /// Empty when the chunk gave its memory back.
    slots: Box<[Slot<T>]>,
    free_head: u32,
    taken: u32,
    /// The generation that new slots of this chunk start with.
    base_generation: u32,
}

impl<T> Chunk<T> {
    fn new() -> Self {
        Self {
            slots: Box::default(),
            free_head: NONE,
            taken: 0,
            base_generation: 0,
        }
    }

    fn allocate(&mut self) {
        let generation = self.base_generation;
        self.slots = (0..CHUNK as u32)
            .map(|index| Slot {
                generation,
                next_free: if index + 1 == CHUNK as u32 {
                    NONE
                } else {
                    index + 1
                },
                value: None,
            })
            .collect();
        self.free_head = 0;
    }

    fn give_back(&mut self) {
        let highest = self
            .slots
            .iter()
            .map(|slot| slot.generation.wrapping_sub(self.base_generation))
            .max();
        self.base_generation = self.base_generation.wrapping_add(highest.unwrap_or(0));
        self.slots = Box::default();
        self.free_head = NONE;
    }
}

/// Values named by tokens. Insert, get and remove are O(1).
pub(crate) struct Slab<T> {
    chunks: Vec<Chunk<T>>,
    /// One bit per chunk that has room (or has given its memory back), so that low chunks fill first.
    room: Vec<u64>,
    /// Every word of `room` before this one is zero.
    room_hint: usize,
    /// Slots freed in this turn; not used again before `release`.
    resting: Vec<u32>,
    len: usize,
}

impl<T> Slab<T> {
    /// An empty slab whose own tables need not grow up to `expected_max` values: a table that moves behind the chunks
    /// would keep the allocator from giving them back to the system. Untouched, its room is not resident.
    pub(crate) fn new(expected_max: usize) -> Self {
        let chunks = expected_max.div_ceil(CHUNK).min(CHUNKS_EXPECTED_MAX);
        Self {
            chunks: Vec::with_capacity(chunks),
            room: Vec::with_capacity(chunks.div_ceil(64)),
            room_hint: 0,
            resting: Vec::with_capacity(CHUNK),
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Stores a value, or gives it back when 2^31 slots are taken.
    pub(crate) fn insert(&mut self, value: T) -> Result<Token, T> {
        let Some(at) = self.chunk_with_room() else {
            return Err(value);
        };
        let chunk = &mut self.chunks[at];
        if chunk.slots.is_empty() {
            chunk.allocate();
        }
        let index = chunk.free_head;
        let slot = &mut chunk.slots[index as usize];
        chunk.free_head = slot.next_free;
        chunk.taken += 1;
        slot.value = Some(value);
        let token = Token::new(((at as u32) << CHUNK_BITS) | index, slot.generation);
        if chunk.free_head == NONE {
            self.room[at / 64] &= !(1 << (at % 64));
        }
        self.len += 1;
        Ok(token)
    }

    fn chunk_with_room(&mut self) -> Option<usize> {
        while self.room.get(self.room_hint) == Some(&0) {
            self.room_hint += 1;
        }
        if let Some(word) = self.room.get(self.room_hint) {
            return Some(self.room_hint * 64 + word.trailing_zeros() as usize);
        }
        let at = self.chunks.len();
        if at >= (SLOTS_MAX >> CHUNK_BITS) as usize {
            return None;
        }
        self.chunks.push(Chunk::new());
        self.mark_room(at);
        Some(at)
    }

    fn mark_room(&mut self, at: usize) {
        if self.room.len() <= at / 64 {
            self.room.push(0);
        }
        self.room[at / 64] |= 1 << (at % 64);
        self.room_hint = self.room_hint.min(at / 64);
    }

    #[inline]
    pub(crate) fn get(&self, token: Token) -> Option<&T> {
        let chunk = self.chunks.get((token.slot() >> CHUNK_BITS) as usize)?;
        let slot = chunk.slots.get(token.slot() as usize & (CHUNK - 1))?;
        if slot.generation == token.generation() {
            slot.value.as_ref()
        } else {
            None
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        let chunk = self.chunks.get_mut((token.slot() >> CHUNK_BITS) as usize)?;
        let slot = chunk.slots.get_mut(token.slot() as usize & (CHUNK - 1))?;
        if slot.generation == token.generation() {
            slot.value.as_mut()
        } else {
            None
        }
    }

    /// Takes a value out. Its token is stale from here on; its slot rests until [`release`](Self::release).
    pub(crate) fn remove(&mut self, token: Token) -> Option<T> {
        let chunk = self.chunks.get_mut((token.slot() >> CHUNK_BITS) as usize)?;
        let slot = chunk.slots.get_mut(token.slot() as usize & (CHUNK - 1))?;
        if slot.generation != token.generation() {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.resting.push(token.slot());
        self.len -= 1;
        Some(value)
    }

    /// Makes the slots freed since the last call usable again, and gives empty chunks back.
    pub(crate) fn release(&mut self) {
        if self.resting.is_empty() {
            return;
        }
        let mut resting = std::mem::take(&mut self.resting);
        for index in resting.drain(..) {
            let at = (index >> CHUNK_BITS) as usize;
            let chunk = &mut self.chunks[at];
            let within = index & (CHUNK as u32 - 1);
            chunk.slots[within as usize].next_free = chunk.free_head;
            chunk.free_head = within;
            chunk.taken -= 1;
            // The first chunk stays: a shard that goes from one connection to none and back shall not pay for it.
            if chunk.taken == 0 && at != 0 {
                chunk.give_back();
            }
            self.mark_room(at);
        }
        self.resting = shrunk(resting, CHUNK);
    }

    /// The tokens of all values. O(slots).
    pub(crate) fn tokens(&self) -> Vec<Token> {
        let mut tokens = Vec::with_capacity(self.len);
        for (at, chunk) in self.chunks.iter().enumerate() {
            for (index, slot) in chunk.slots.iter().enumerate() {
                if slot.value.is_some() {
                    tokens.push(Token::new(
                        ((at as u32) << CHUNK_BITS) | index as u32,
                        slot.generation,
                    ));
                }
            }
        }
        tokens
    }
}

/// An emptied list, with the memory for `kept` elements if it had more. A new one and not the front of the old one:
/// that lies behind what was allocated while the list grew, and would keep all of it resident.
pub(crate) fn shrunk<T>(list: Vec<T>, kept: usize) -> Vec<T> {
    if list.capacity() <= kept {
        return list;
    }
    drop(list);
    Vec::with_capacity(kept)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_removed_slot_rests_until_release_and_comes_back_with_another_generation() {
        let mut slab = Slab::new(0);
        let first = slab.insert('a').unwrap();
        assert_eq!(slab.remove(first), Some('a'));
        let other = slab.insert('b').unwrap();
        assert_ne!(
            other.slot(),
            first.slot(),
            "the slot was used again within the turn"
        );
        slab.release();
        let again = slab.insert('c').unwrap();
        assert_eq!(again.slot(), first.slot());
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(again), Some(&'c'));
    }

    #[test]
    fn values_do_not_move_and_empty_chunks_give_their_memory_back() {
        let mut slab = Slab::new(5 * CHUNK);
        let tables = (slab.chunks.as_ptr(), slab.room.as_ptr());
        let first = slab.insert(0).unwrap();
        let place: *const i32 = slab.get(first).unwrap();
        let tokens: Vec<_> = (1..5 * CHUNK as i32)
            .map(|value| slab.insert(value).unwrap())
            .collect();
        assert_eq!(place, slab.get(first).unwrap() as *const i32);
        for &token in &tokens {
            slab.remove(token).unwrap();
        }
        slab.release();
        assert_eq!(tables, (slab.chunks.as_ptr(), slab.room.as_ptr()));
        assert_eq!(slab.resting.capacity(), CHUNK, "a long list is not kept");
        assert_eq!(
            slab.chunks
                .iter()
                .filter(|chunk| !chunk.slots.is_empty())
                .count(),
            1
        );
        let again: Vec<_> = tokens.iter().map(|_| slab.insert(7).unwrap()).collect();
        for token in tokens {
            assert_eq!(slab.get(token), None, "{token:?} is stale");
            assert!(!again.contains(&token), "{token:?} was given out twice");
        }
    }

    #[test]
    fn a_slot_costs_at_most_32_bytes_besides_the_callers_state() {
        assert!(size_of::<Slot<crate::conn::Connection<()>>>() <= 24);
        assert!(size_of::<Slot<crate::conn::Connection<[u64; 4]>>>() <= 24 + 8 + 32);
    }

    proptest! {
        /// Against a map: what was inserted is found under its token, and under no other that ever was.
        #[test]
        fn behaves_as_a_map(steps in prop::collection::vec((0u8..10, any::<u16>()), 1..4000)) {
            let mut slab = Slab::new(0);
            let mut model = HashMap::new();
            let mut known = Vec::new();
            for (index, (step, choice)) in steps.into_iter().enumerate() {
                match step {
                    0..=4 => {
                        let token = slab.insert(index).unwrap();
                        prop_assert!(model.insert(token, index).is_none());
                        known.push(token);
                    }
                    5..=8 if !known.is_empty() => {
                        let token = known[choice as usize % known.len()];
                        prop_assert_eq!(slab.get(token), model.get(&token));
                        prop_assert_eq!(slab.remove(token), model.remove(&token));
                    }
                    _ => slab.release(),
                }
                prop_assert_eq!(slab.len(), model.len());
            }
            for token in known {
                prop_assert_eq!(slab.get_mut(token).copied(), model.get(&token).copied());
            }
            let mut tokens = slab.tokens();
            tokens.sort();
            let mut expected: Vec<_> = model.into_keys().collect();
            expected.sort();
            prop_assert_eq!(tokens, expected);
        }
    }
}
