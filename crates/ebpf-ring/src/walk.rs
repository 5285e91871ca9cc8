//! The record walker: what a consumer of a BPF ring buffer does, over any memory.
//!
//! Source: `kernel/bpf/ringbuf.c`. A ring has two positions, byte counts that only grow: the
//! producer reserves by moving `producer_pos`, the consumer gives space back by moving
//! `consumer_pos`. A record is an 8-byte header `{u32 len; u32 pg_off}` and its bytes, padded to 8.
//! In `len`, bit 31 (BUSY) says "reserved, not yet submitted" and bit 30 (DISCARD) "skip me".
//!
//! ```text
//!            consumer_pos                     producer_pos
//!                 v                                v
//!   ... free ... |len|pg|bytes..pad|len|pg|bytes..|  ... free ...
//! ```
//!
//! The data area is mapped twice in a row, so a record that wraps is still one slice.
//!
//! Nothing read from the ring is believed: a header that reaches beyond the producer's position,
//! or a producer beyond the ring, is a [`Corrupt`], and no byte outside `2 * size` is ever named.
//!
//! Acquire loads are written as a relaxed load and an acquire fence: headers and `producer_pos`
//! are mapped read-only, and only relaxed loads are promised not to write
//! (`std::sync::atomic`, "Atomic accesses to read-only memory").

pub(crate) mod overwrite;
#[cfg(test)]
mod tests;

use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

/// The header's first word: not yet submitted.
pub(crate) const BUSY: u32 = 1 << 31;
/// The header's first word: submitted, to be skipped.
pub(crate) const DISCARD: u32 = 1 << 30;
/// Bytes before a record's own.
pub(crate) const HEADER_BYTES: u64 = 8;

/// Where a ring lives: a view of the kernel's mapping, or a test's heap.
///
/// A value of a few words that a walk keeps in registers: behind a reference, each acquire fence
/// would have them loaded again.
pub(crate) trait Memory: Copy {
    /// A record's bytes. A slice for real memory; loom's fake checks each access instead.
    type Bytes;

    /// Bytes of the data area: a power of two, at least 8.
    fn size(&self) -> u64;
    fn consumer(&self) -> &AtomicU64;
    fn producer(&self) -> &AtomicU64;
    /// The `len` word of the header at `position`.
    fn header(&self, position: u64) -> &AtomicU32;
    /// The `len` bytes behind the header at `position`, with the header not more than `size`.
    fn bytes(&self, position: u64, len: u64) -> Self::Bytes;
}

/// The ring's memory contradicts itself at `position`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Corrupt {
    pub(crate) position: u64,
    pub(crate) kind: CorruptKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CorruptKind {
    /// The producer is behind the consumer, or more than the ring ahead, or between two words.
    Producer(u64),
    /// A record claims this many bytes and so reaches beyond the producer's position.
    Length(u32),
    /// A perf record claims this many bytes, which no record of its type has.
    Size(u32),
}

/// Why [`RingReader::drain`](crate::RingReader::drain) returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stop {
    /// Nothing was left. The consumer may sleep; the next record wakes it.
    Empty,
    /// The next record is reserved and not yet submitted. The consumer may sleep as after `Empty`.
    Busy,
    /// The budget was used up; there may be more.
    Budget,
}

/// What one [`RingReader::drain`](crate::RingReader::drain) did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Drained {
    /// Records handed to the callback.
    pub records: u64,
    /// Their bytes, without headers and padding.
    pub bytes: u64,
    /// Records that the program gave up itself; they were skipped.
    pub discarded: u64,
    /// Why the call returned.
    pub stop: Stop,
}

impl Drained {
    pub(crate) const NOTHING: Self = Self {
        records: 0,
        bytes: 0,
        discarded: 0,
        stop: Stop::Empty,
    };

    /// What a consumer took since `before`.
    pub(crate) fn since(before: Consumer, now: Consumer, stop: Stop) -> Self {
        Self {
            records: now.records - before.records,
            bytes: now.bytes - before.bytes,
            discarded: now.discarded - before.discarded,
            stop,
        }
    }

    /// Adds another drain's counts, not its reason to return.
    pub(crate) fn add(&mut self, other: Self) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.discarded += other.discarded;
    }
}

/// What lies unread in a ring.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pending {
    /// Submitted or reserved.
    pub(crate) records: u64,
    /// Given up by the program, not yet skipped.
    pub(crate) discarded: u64,
    /// With headers and padding: the ring's fill.
    pub(crate) bytes: u64,
}

enum Head {
    End,
    Busy { next: u64 },
    Discarded { next: u64 },
    Record { len: u64, next: u64 },
}

/// Reads the head at `position`, which is not beyond `end`, the producer's position.
#[inline(always)]
fn head<M: Memory>(memory: M, position: u64, end: u64) -> Result<Head, Corrupt> {
    if position == end {
        return Ok(Head::End);
    }
    // Pairs with the xchg of bpf_ringbuf_commit(): the bytes were written before BUSY went away.
    let word = memory.header(position).load(Ordering::Relaxed);
    fence(Ordering::Acquire);
    let len = word & !(BUSY | DISCARD);
    // Where the next header lies hangs on this one: next_multiple_of would be two steps more in
    // the chain that sets the pace for small records.
    let total = (u64::from(len) + HEADER_BYTES + 7) & !7;
    if total > end.wrapping_sub(position) {
        let kind = CorruptKind::Length(len);
        return Err(Corrupt { position, kind });
    }
    let next = position.wrapping_add(total);
    Ok(if word & BUSY != 0 {
        Head::Busy { next }
    } else if word & DISCARD != 0 {
        Head::Discarded { next }
    } else {
        Head::Record {
            len: u64::from(len),
            next,
        }
    })
}

/// The producer's position, if it can be true for a consumer at `position`.
#[inline]
pub(crate) fn producer<M: Memory>(memory: M, position: u64) -> Result<u64, Corrupt> {
    // Pairs with the store-release in __bpf_ringbuf_reserve(): the headers before it are set.
    let end = memory.producer().load(Ordering::Relaxed);
    fence(Ordering::Acquire);
    let ahead = end.wrapping_sub(position);
    if ahead > memory.size() || !ahead.is_multiple_of(8) {
        let kind = CorruptKind::Producer(end);
        return Err(Corrupt { position, kind });
    }
    Ok(end)
}

/// A consumer's own state: its copy of `consumer_pos`, and what it took since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Consumer {
    pub(crate) position: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) discarded: u64,
}

impl Consumer {
    /// Takes the ring over where its last consumer stopped.
    pub(crate) fn new<M: Memory>(memory: M) -> Result<Self, Corrupt> {
        let position = memory.consumer().load(Ordering::Acquire);
        let end = producer(memory, position)?;
        if !position.is_multiple_of(8) {
            let kind = CorruptKind::Producer(end);
            return Err(Corrupt { position, kind });
        }
        Ok(Self::at(position))
    }

    /// At a position that is known to be one of the ring's.
    pub(crate) fn at(position: u64) -> Self {
        Self {
            position,
            records: 0,
            bytes: 0,
            discarded: 0,
        }
    }

    /// Takes the next record before `end`, which [`producer`] gave.
    ///
    /// On `Err` the consumer stays at the damage.
    // In the loop of a drain, or its state lives in memory: half the speed for small records.
    #[inline(always)]
    pub(crate) fn step<M: Memory>(
        &mut self,
        memory: M,
        end: u64,
    ) -> Result<Step<M::Bytes>, Corrupt> {
        Ok(match head(memory, self.position, end)? {
            Head::Record { len, next } => {
                let bytes = memory.bytes(self.position, len);
                self.position = next;
                self.records += 1;
                self.bytes += len;
                Step::Record(bytes)
            }
            Head::Discarded { next } => {
                self.position = next;
                self.discarded += 1;
                Step::Discarded
            }
            Head::Busy { .. } => Step::Stop(Stop::Busy),
            Head::End => Step::Stop(Stop::Empty),
        })
    }
}

/// When a reader gives the space of records back to the kernel. In every case also at the end of a
/// drain, and when its callback panics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Commit {
    /// After each quarter of the ring: often enough that programs find room while a long drain
    /// runs, rarely enough that the cache line of the position stays out of the way.
    #[default]
    Quarter,
    /// After each record: the most room for programs, at the cost of a shared cache line per record.
    Record,
    /// At the end only: what a drain hands out stays in the ring until the drain is over.
    End,
}

impl Commit {
    /// Bytes after which space goes back.
    fn every(self, ring_size: u64) -> u64 {
        match self {
            Self::Record => 1,
            Self::Quarter => ring_size / 4,
            Self::End => u64::MAX,
        }
    }
}

/// What a consumer met.
pub(crate) enum Step<B> {
    Record(B),
    Discarded,
    Stop(Stop),
}

/// A walk on behalf of the ring's consumer. Its drop gives space back, on every way out.
#[derive(Debug)]
pub(crate) struct Walk<'c, M: Memory> {
    memory: M,
    /// Told at the end: `now`, which a walk can keep in registers, runs ahead of it.
    consumer: &'c mut Consumer,
    now: Consumer,
    committed: u64,
    /// The producer's position when it was read last.
    end: u64,
}

impl<'c, M: Memory> Walk<'c, M> {
    pub(crate) fn new(memory: M, consumer: &'c mut Consumer) -> Result<Self, Corrupt> {
        let now = *consumer;
        let end = producer(memory, now.position)?;
        Ok(Self {
            memory,
            consumer,
            now,
            committed: now.position,
            end,
        })
    }

    /// Takes the next record, without giving its space back.
    #[inline(always)]
    pub(crate) fn step(&mut self) -> Result<Step<M::Bytes>, Corrupt> {
        self.now.step(self.memory, self.end)
    }

    /// Looks how far the producer is by now.
    #[inline]
    pub(crate) fn refresh(&mut self) -> Result<(), Corrupt> {
        self.end = producer(self.memory, self.now.position)?;
        Ok(())
    }

    /// Looks how far the producer is by now, and says whether that is further than before.
    #[inline]
    fn has_grown(&mut self) -> Result<bool, Corrupt> {
        let before = self.end;
        self.refresh()?;
        Ok(self.end != before)
    }

    /// Gives the space of all records taken so far back: their bytes may be overwritten.
    #[inline]
    fn commit(&mut self) {
        if self.committed != self.now.position {
            // Pairs with the load-acquire in __bpf_ringbuf_reserve(): the kernel may overwrite
            // what lies before this position, so every read of it must be done.
            self.memory
                .consumer()
                .store(self.now.position, Ordering::Release);
            self.committed = self.now.position;
        }
    }

    #[inline]
    fn uncommitted(&self) -> u64 {
        self.now.position.wrapping_sub(self.committed)
    }
}

impl<M: Memory> Drop for Walk<'_, M> {
    fn drop(&mut self) {
        *self.consumer = self.now;
        self.commit();
    }
}

/// Hands at most `records_max` records to `each`, oldest first, and gives their space back.
/// Skipped records count against `records_max` too.
///
/// On `Err` the consumer stays at the damage. A record whose callback panics counts as taken.
pub(crate) fn drain<M: Memory>(
    memory: M,
    consumer: &mut Consumer,
    commit: Commit,
    records_max: u64,
    mut each: impl FnMut(M::Bytes),
) -> Result<Stop, Corrupt> {
    let every = commit.every(memory.size());
    let mut walk = Walk::new(memory, consumer)?;
    let mut left = records_max;
    let mut is_last_look = false;
    while left > 0 {
        if walk.uncommitted() >= every {
            walk.commit();
        }
        match walk.step()? {
            Step::Record(bytes) => each(bytes),
            Step::Discarded => {}
            Step::Stop(stop) if is_last_look => return Ok(stop),
            // While the producer runs along, this is not yet the end. Publishing at each of these
            // moments would have it wake somebody who is awake.
            Step::Stop(Stop::Empty) if walk.has_grown()? => continue,
            Step::Stop(_) => {
                // A producer wakes a sleeping consumer only if it sees that consumer_pos has
                // reached its record. So publish ours, and only then (StoreLoad: a full fence)
                // look again: either we see the record, or the producer sees us and wakes.
                walk.commit();
                fence(Ordering::SeqCst);
                walk.refresh()?;
                is_last_look = true;
                continue;
            }
        }
        left -= 1;
        is_last_look = false;
    }
    Ok(Stop::Budget)
}

/// Counts what is unread without consuming it. O(unread records).
///
/// A record reserved meanwhile may or may not be in it.
pub(crate) fn pending<M: Memory>(memory: M, position: u64) -> Result<Pending, Corrupt> {
    let end = producer(memory, position)?;
    let mut pending = Pending {
        bytes: end.wrapping_sub(position),
        ..Pending::default()
    };
    let mut at = position;
    loop {
        at = match head(memory, at, end)? {
            Head::End => return Ok(pending),
            Head::Record { next, .. } | Head::Busy { next } => {
                pending.records += 1;
                next
            }
            Head::Discarded { next } => {
                pending.discarded += 1;
                next
            }
        };
    }
}

/// What a consumer would meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// A record, or one to skip.
    Ready,
    Empty,
    Busy,
}

/// What a consumer at `position` would meet.
#[inline]
pub(crate) fn look<M: Memory>(memory: M, position: u64) -> Result<Look, Corrupt> {
    let end = producer(memory, position)?;
    Ok(match head(memory, position, end)? {
        Head::End => Look::Empty,
        Head::Busy { .. } => Look::Busy,
        Head::Record { .. } | Head::Discarded { .. } => Look::Ready,
    })
}
