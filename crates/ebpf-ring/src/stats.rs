use crate::counters::{Counters, DropReason};
#[cfg(all(target_os = "linux", target_pointer_width = "64", not(loom)))]
use crate::{
    counters::CounterSource,
    error::RingError,
    walk::{Consumer, Memory, pending},
};

/// Where every record went.
///
/// Once no program writes to the ring any more, for a reader that opened it before the first
/// record and has the counters,
///
/// ```text
/// seen = delivered + discarded + pending + dropped (+ overwritten)
/// ```
///
/// holds exactly. Only a ring that is made so overwrites; how many records that were is what the
/// others leave of `seen`, since nobody else knows. While programs write, the parts are read one after the other and so may
/// differ by what happened in between.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RingStats {
    /// Records handed to a callback of this reader.
    pub delivered: u64,
    /// Their bytes, without headers and padding.
    pub delivered_bytes: u64,
    /// Records that the program gave up after reserving them: skipped by this reader, or about to be.
    pub discarded: u64,
    /// Records that lie in the ring: reserved, or submitted and unread.
    pub pending: u64,
    /// The ring's fill, with headers and padding.
    pub pending_bytes: u64,
    /// Bytes of records that new ones replaced before they were read, with headers and padding; 0 but
    /// for an [`OverwriteReader`](crate::OverwriteReader).
    pub overwritten_bytes: u64,
    /// What the programs counted on each CPU; `None` for a reader without counters.
    pub per_cpu: Option<Vec<Counters>>,
}

#[cfg(all(target_os = "linux", target_pointer_width = "64", not(loom)))]
impl RingStats {
    /// What a consumer took, what lies behind it, and what the counters say.
    pub(crate) fn of<M: Memory>(
        memory: M,
        consumer: Consumer,
        counters: Option<&dyn CounterSource>,
    ) -> Result<Self, RingError> {
        let pending = pending(memory, consumer.position)?;
        let per_cpu = counters.map(CounterSource::per_cpu).transpose();
        Ok(RingStats {
            delivered: consumer.records,
            delivered_bytes: consumer.bytes,
            discarded: consumer.discarded + pending.discarded,
            pending: pending.records,
            pending_bytes: pending.bytes,
            overwritten_bytes: 0,
            per_cpu: per_cpu.map_err(|e| RingError::io("reading the counter map", e))?,
        })
    }
}

impl RingStats {
    /// Adds what another ring's consumer took and what lies behind it, not its counters.
    #[cfg(all(target_os = "linux", target_pointer_width = "64", not(loom)))]
    pub(crate) fn add(&mut self, other: &Self) {
        self.delivered += other.delivered;
        self.delivered_bytes += other.delivered_bytes;
        self.discarded += other.discarded;
        self.pending += other.pending;
        self.pending_bytes += other.pending_bytes;
    }

    /// The counters of all CPUs together.
    #[must_use]
    pub fn counters(&self) -> Option<Counters> {
        self.per_cpu.as_ref().map(|all| all.iter().copied().sum())
    }

    /// Records that the programs wanted to write.
    #[must_use]
    pub fn seen(&self) -> Option<u64> {
        self.counters().map(|c| c.seen())
    }

    /// Records that could not be written.
    #[must_use]
    pub fn dropped(&self) -> Option<u64> {
        self.counters().map(|c| c.dropped())
    }

    /// Records that could not be written for `reason`.
    #[must_use]
    pub fn dropped_for(&self, reason: DropReason) -> Option<u64> {
        self.counters().map(|c| c.dropped_for(reason))
    }

    /// Records that new ones replaced before they were read: what is seen and nowhere else.
    #[must_use]
    pub fn overwritten(&self) -> Option<u64> {
        match self.overwritten_bytes {
            0 => Some(0),
            _ => Some(self.counters()?.seen().wrapping_sub(self.found()?)),
        }
    }

    /// Whether the equation above holds; `None` for a reader without counters.
    ///
    /// Of a ring that overwrites: whether the records that are missing fit into the bytes that were
    /// overwritten.
    #[must_use]
    pub fn is_balanced(&self) -> Option<bool> {
        let missing = self.counters()?.seen().wrapping_sub(self.found()?);
        /// A header without a byte behind it.
        const RECORD_BYTES_MIN: u64 = 8;
        let is_any = missing > 0;
        let fits = missing <= self.overwritten_bytes / RECORD_BYTES_MIN;
        Some(fits && is_any == (self.overwritten_bytes > 0))
    }

    fn found(&self) -> Option<u64> {
        let dropped = self.dropped()?;
        let found = [self.delivered, self.discarded, self.pending, dropped];
        Some(found.iter().fold(0, |sum, n| sum.wrapping_add(*n)))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::RingStats;
    use crate::counters::Counters;

    /// Of a ring that overwrites, with 100 records seen and 40 of them found.
    fn stats(overwritten_bytes: u64, delivered: u64) -> RingStats {
        let mut counters = [0; Counters::BYTES];
        counters[..8].copy_from_slice(&100u64.to_ne_bytes());
        RingStats {
            delivered,
            discarded: 10,
            pending: 20,
            overwritten_bytes,
            per_cpu: Some(vec![Counters::from_bytes(&counters)]),
            ..RingStats::default()
        }
    }

    #[test]
    fn what_is_seen_and_nowhere_else_was_overwritten() {
        assert_eq!(stats(60 * 16, 10).overwritten(), Some(60));
        assert_eq!(stats(0, 70).overwritten(), Some(0));
        let unknown = RingStats {
            per_cpu: None,
            ..stats(60 * 16, 10)
        };
        assert_eq!((unknown.overwritten(), unknown.is_balanced()), (None, None));
    }

    #[test]
    fn the_missing_records_fit_into_the_overwritten_bytes() {
        assert_eq!(stats(60 * 8, 10).is_balanced(), Some(true));
        assert_eq!(stats(60 * 8 - 1, 10).is_balanced(), Some(false), "too few");
        assert_eq!(stats(0, 10).is_balanced(), Some(false), "60 are lost");
        assert_eq!(stats(0, 70).is_balanced(), Some(true));
        assert_eq!(stats(8, 70).is_balanced(), Some(false), "none is missing");
        assert_eq!(stats(0, 71).is_balanced(), Some(false), "one too many");
    }
}
