//! The name of a connection: a slot and the generation of that slot.

use std::num::NonZeroU32;

/// Names one connection of one shard.
///
/// A token stays valid from [`opened`](crate::Handler::opened) to [`closed`](crate::Handler::closed). After that
/// it is *stale*: its slot may hold another connection, but that one has another generation, so a stale token is an
/// error and never another connection. (A slot's generation wraps after 2^32 connections in that one slot.)
///
/// ```
/// # use conn_reactor::Token;
/// let token = Token::from_u64(0x0000_0007_0000_0003);
/// assert_eq!((token.slot(), token.generation()), (3, 7));
/// assert_eq!(token.as_u64(), 0x0000_0007_0000_0003);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// One more than the slot, so that an `Option` of a token, or an enum with one more case, is no larger.
    slot_and_one: NonZeroU32,
    generation: u32,
}

/// Slots from here up name no connection: they are the keys of listeners and of the mailbox.
pub(crate) const SLOTS_MAX: u32 = 1 << 31;
const LISTENER: u32 = u32::MAX - 2;
const WAKER: u32 = u32::MAX - 3;

impl Token {
    #[inline]
    pub(crate) const fn new(slot: u32, generation: u32) -> Self {
        // The one slot that does not fit names nothing, and neither does its neighbour.
        let slot_and_one = NonZeroU32::MIN.saturating_add(slot);
        Self {
            slot_and_one,
            generation,
        }
    }

    pub(crate) const fn listener(index: u32) -> Self {
        Self::new(LISTENER, index)
    }

    pub(crate) const fn waker() -> Self {
        Self::new(WAKER, 0)
    }

    pub(crate) fn source(self) -> Source {
        match self.slot() {
            LISTENER => Source::Listener(self.generation as usize),
            WAKER => Source::Waker,
            _ => Source::Connection(self),
        }
    }

    /// The slot in the shard's slab: small numbers, used again and again.
    #[must_use]
    pub const fn slot(self) -> u32 {
        self.slot_and_one.get() - 1
    }

    /// How often the slot had been used before this connection.
    #[must_use]
    pub const fn generation(self) -> u32 {
        self.generation
    }

    /// The token as one integer: generation in the upper half, slot in the lower.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        ((self.generation as u64) << 32) | self.slot() as u64
    }

    /// The token of an integer made by [`as_u64`](Self::as_u64). Any integer is accepted: one that never was a
    /// token is merely stale.
    #[must_use]
    pub const fn from_u64(packed: u64) -> Self {
        Self::new(packed as u32, (packed >> 32) as u32)
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({}.{})", self.slot(), self.generation)
    }
}

/// What an event of the poller is about.
pub(crate) enum Source {
    Listener(usize),
    Waker,
    Connection(Token),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_integer_is_a_token_and_none_that_is_not_one_names_something_else() {
        for slot in [0, 1, SLOTS_MAX, WAKER, LISTENER, u32::MAX - 1] {
            let packed = 7 << 32 | u64::from(slot);
            assert_eq!(Token::from_u64(packed).as_u64(), packed);
        }
        let no_slot = Token::from_u64(u64::MAX);
        assert!(matches!(no_slot.source(), Source::Connection(token) if token.slot() >= SLOTS_MAX));
        assert_eq!(size_of::<Option<Token>>(), size_of::<u64>());
    }
}
