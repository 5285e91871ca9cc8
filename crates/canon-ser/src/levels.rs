//! A stack of open containers whose first levels need no allocation.

use alloc::vec::Vec;

/// Levels that are kept without allocating.
const INLINE: usize = 128;

pub(crate) struct Levels<T> {
    inline: [T; INLINE],
    more: Vec<T>,
    len: usize,
}

impl<T: Copy> Levels<T> {
    /// `empty` fills the unused levels.
    #[inline]
    pub(crate) fn new(empty: T) -> Levels<T> {
        Levels {
            inline: [empty; INLINE],
            more: Vec::new(),
            len: 0,
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn push(&mut self, level: T) {
        match self.inline.get_mut(self.len) {
            Some(slot) => *slot = level,
            None => self.more.push(level),
        }
        self.len += 1;
    }

    #[inline]
    pub(crate) fn pop(&mut self) {
        self.more.pop();
        self.len = self.len.saturating_sub(1);
    }

    #[inline]
    pub(crate) fn last(&self) -> Option<&T> {
        let at = self.len.checked_sub(1)?;
        if at < INLINE {
            self.inline.get(at)
        } else {
            self.more.last()
        }
    }

    #[inline]
    pub(crate) fn last_mut(&mut self) -> Option<&mut T> {
        let at = self.len.checked_sub(1)?;
        if at < INLINE {
            self.inline.get_mut(at)
        } else {
            self.more.last_mut()
        }
    }
}
