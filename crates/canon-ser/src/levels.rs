//! A stack of open containers whose first levels need no allocation.

#[cfg(feature = "alloc")]
use alloc::vec::Vec;

/// Levels that are kept without allocating, below the innermost one.
const INLINE: usize = 127;

/// How deep anything may be that keeps its levels here.
#[cfg(not(feature = "alloc"))]
const LEVELS_MAX: usize = INLINE + 1;
#[cfg(feature = "alloc")]
const LEVELS_MAX: usize = usize::MAX;

/// A depth limit that can be kept.
pub(crate) const fn within_levels(depth_max: usize) -> usize {
    if depth_max < LEVELS_MAX {
        depth_max
    } else {
        LEVELS_MAX
    }
}

pub(crate) struct Levels<T> {
    /// The innermost level, where nothing has to be looked up.
    top: T,
    /// Those around it, from the outermost on.
    below: [T; INLINE],
    #[cfg(feature = "alloc")]
    more: Vec<T>,
    len: usize,
}

impl<T: Copy> Levels<T> {
    /// `empty` fills the unused levels.
    #[inline]
    pub(crate) fn new(empty: T) -> Levels<T> {
        Levels {
            top: empty,
            below: [empty; INLINE],
            #[cfg(feature = "alloc")]
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
        if let Some(around) = self.len.checked_sub(1) {
            match self.below.get_mut(around) {
                Some(slot) => *slot = self.top,
                #[cfg(feature = "alloc")]
                None => self.more.push(self.top),
                #[cfg(not(feature = "alloc"))]
                None => unreachable!("without a heap nothing goes deeper than LEVELS_MAX"),
            }
        }
        self.top = level;
        self.len += 1;
    }

    #[inline]
    pub(crate) fn pop(&mut self) {
        self.len = self.len.saturating_sub(1);
        let Some(around) = self.len.checked_sub(1) else {
            return;
        };
        let level = match self.below.get(around) {
            Some(level) => Some(*level),
            #[cfg(feature = "alloc")]
            None => self.more.pop(),
            #[cfg(not(feature = "alloc"))]
            None => None,
        };
        self.top = level.expect("a level that is open was pushed");
    }

    /// All open levels, the innermost last.
    #[cfg(feature = "std")]
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let around = self.len.saturating_sub(1);
        let below = self.below.iter_mut().chain(&mut self.more).take(around);
        below.chain((self.len > 0).then_some(&mut self.top))
    }

    #[inline]
    pub(crate) fn last(&self) -> Option<&T> {
        (self.len > 0).then_some(&self.top)
    }

    #[inline]
    pub(crate) fn last_mut(&mut self) -> Option<&mut T> {
        (self.len > 0).then_some(&mut self.top)
    }
}

#[cfg(all(test, feature = "alloc"))]
mod tests {
    use super::Levels;

    #[test]
    fn levels_come_back_in_reverse() {
        let mut levels = Levels::new(0);
        for level in 1..=300 {
            levels.push(level);
            assert_eq!((levels.len(), levels.last()), (level, Some(&level)));
            #[cfg(feature = "std")]
            assert!(levels.iter_mut().map(|level| *level).eq(1..=level));
        }
        for level in (1..=300).rev() {
            assert_eq!(levels.last_mut().copied(), Some(level));
            levels.pop();
        }
        assert_eq!((levels.len(), levels.last()), (0, None));
    }
}
