use super::mapping::View;
use super::reader::Record;
use crate::error::RingError;
use crate::walk::{Step, Walk};

/// A part of a ring that is read by iteration and stays readable until this is dropped: then its
/// space goes back to the kernel.
///
/// Made by [`RingReader::batch`](crate::RingReader::batch). Records may be kept, compared and
/// sorted while the batch lives, without a copy. Meanwhile their space is not free: what does not
/// fit into the rest of the ring is lost (and counted, with the counters).
#[derive(Debug)]
pub struct Batch<'r> {
    walk: Walk<'r, View<'r>>,
}

impl<'r> Batch<'r> {
    pub(crate) fn new(walk: Walk<'r, View<'r>>) -> Self {
        Self { walk }
    }

    /// The next records, oldest first, up to one that is not yet submitted or the end.
    ///
    /// Another call goes on behind the last one. Records that the program discarded are skipped.
    /// After an error, which is [`is_corrupt`](RingError::is_corrupt), the iterator ends.
    pub fn iter(&mut self) -> BatchIter<'_, 'r> {
        BatchIter {
            walk: Some(&mut self.walk),
        }
    }
}

impl<'b, 'r> IntoIterator for &'b mut Batch<'r> {
    type Item = Result<Record<'b>, RingError>;
    type IntoIter = BatchIter<'b, 'r>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The records of a [`Batch`].
#[derive(Debug)]
pub struct BatchIter<'b, 'r> {
    /// None after the end.
    walk: Option<&'b mut Walk<'r, View<'r>>>,
}

impl<'b> Iterator for BatchIter<'b, '_> {
    type Item = Result<Record<'b>, RingError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let mut looked_again = false;
        loop {
            let walk = self.walk.as_mut()?;
            let step = match walk.step() {
                Ok(Step::Record(bytes)) => return Some(Ok(Record::new(bytes))),
                Ok(Step::Discarded) => continue,
                Ok(Step::Stop(_)) if !looked_again => walk.refresh(),
                Ok(Step::Stop(_)) => {
                    self.walk = None;
                    return None;
                }
                Err(damage) => Err(damage),
            };
            looked_again = true;
            if let Err(damage) = step {
                self.walk = None;
                return Some(Err(damage.into()));
            }
        }
    }
}
