//! The record walker of a perf buffer, over any memory.
//!
//! Source: `kernel/events/ring_buffer.c`, and `struct perf_event_mmap_page` in
//! `include/uapi/linux/perf_event.h`. A buffer has two positions, byte counts that only grow: the
//! kernel moves `data_head` past records that are complete, the consumer gives space back by moving
//! `data_tail`. A record starts at a multiple of 8 with `{u32 type; u16 misc; u16 size}`, header
//! and padding included in `size`.
//!
//! ```text
//! PERF_RECORD_SAMPLE (PERF_SAMPLE_RAW alone)   |header|u32 raw_size|raw_size bytes, padding included|
//! PERF_RECORD_LOST                             |header|u64 id|u64 lost|
//! ```
//!
//! The data is mapped once, so a record that wraps around the end is put together in a scratch.
//!
//! Nothing read from the buffer is believed: a size that is none, or reaches beyond the head, is a
//! [`Corrupt`], and no byte outside of the data is ever named.

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::walk::{Corrupt, CorruptKind, Look, Stop};

const RECORD_LOST: u32 = 2;
const RECORD_SAMPLE: u32 = 9;

/// Bytes before a record's own.
const HEADER_BYTES: u64 = 8;
const LOST_BYTES: u64 = 24;
/// The header and `raw_size`, in whole words.
const SAMPLE_BYTES_MIN: u64 = 16;
/// The header and `raw_size`.
const BEFORE_RAW: u64 = 12;

/// Where a perf buffer lives: a view of the kernel's mapping, or a test's heap.
pub(crate) trait Memory: Copy {
    /// Bytes of the data area: a power of two, at least 8.
    fn size(&self) -> u64;
    fn head(&self) -> &AtomicU64;
    fn tail(&self) -> &AtomicU64;
    /// `len` bytes at `position`, which lie between tail and head and do not wrap.
    fn bytes(&self, position: u64, len: u64) -> &[u8];
}

/// A consumer's own state: its copy of `data_tail`, and what it took since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Consumer {
    pub(crate) position: u64,
    /// Samples.
    pub(crate) records: u64,
    /// Their raw bytes.
    pub(crate) bytes: u64,
    /// What LOST records said.
    pub(crate) lost: u64,
    /// Records of every type.
    pub(crate) steps: u64,
}

impl Consumer {
    /// Takes the buffer over where its last consumer stopped.
    pub(crate) fn new(memory: impl Memory) -> Result<Self, Corrupt> {
        let position = memory.tail().load(Ordering::Relaxed);
        let end = head(memory, position)?;
        if !position.is_multiple_of(8) {
            let kind = CorruptKind::Producer(end);
            return Err(Corrupt { position, kind });
        }
        Ok(Self {
            position,
            ..Self::default()
        })
    }
}

/// The kernel's position, if it can be true for a consumer at `position`.
#[inline]
fn head(memory: impl Memory, position: u64) -> Result<u64, Corrupt> {
    // The read barrier after data_head: pairs with the smp_wmb() of perf_output_put_handle().
    let end = memory.head().load(Ordering::Acquire);
    let ahead = end.wrapping_sub(position);
    if ahead > memory.size() || !ahead.is_multiple_of(8) {
        let kind = CorruptKind::Producer(end);
        return Err(Corrupt { position, kind });
    }
    Ok(end)
}

enum Item {
    /// `len` raw bytes at `at`.
    Sample {
        at: u64,
        len: u64,
    },
    Lost(u64),
    /// A type that was not asked for; only its size matters.
    Other,
}

/// Reads the record at `position`, which is before `end`; also where the next one is.
#[inline]
fn record(memory: impl Memory, position: u64, end: u64) -> Result<(Item, u64), Corrupt> {
    let header = word(memory, position).to_ne_bytes();
    let [t0, t1, t2, t3, _, _, s0, s1] = header;
    let size = u64::from(u16::from_ne_bytes([s0, s1]));
    let damage = |claimed: u64, kind: fn(u32) -> CorruptKind| {
        let kind = kind(u32::try_from(claimed).unwrap_or(u32::MAX));
        Corrupt { position, kind }
    };
    if size > end.wrapping_sub(position) {
        return Err(damage(size, CorruptKind::Length));
    }
    if size < HEADER_BYTES || !size.is_multiple_of(8) {
        return Err(damage(size, CorruptKind::Size));
    }
    let at = |offset: u64| position.wrapping_add(offset);
    let item = match u32::from_ne_bytes([t0, t1, t2, t3]) {
        RECORD_SAMPLE if size < SAMPLE_BYTES_MIN => return Err(damage(size, CorruptKind::Size)),
        RECORD_SAMPLE => {
            let [r0, r1, r2, r3, ..] = word(memory, at(HEADER_BYTES)).to_ne_bytes();
            let len = u64::from(u32::from_ne_bytes([r0, r1, r2, r3]));
            if len > size - BEFORE_RAW {
                return Err(damage(len, CorruptKind::Size));
            }
            let at = at(BEFORE_RAW);
            Item::Sample { at, len }
        }
        RECORD_LOST if size < LOST_BYTES => return Err(damage(size, CorruptKind::Size)),
        RECORD_LOST => Item::Lost(word(memory, at(LOST_BYTES - 8))),
        _ => Item::Other,
    };
    Ok((item, at(size)))
}

/// The word at `position`, a multiple of 8: such never wrap.
#[inline]
fn word(memory: impl Memory, position: u64) -> u64 {
    let bytes = memory.bytes(position, 8);
    u64::from_ne_bytes(*bytes.first_chunk().expect("eight were asked for"))
}

/// Gives space back, on every way out.
struct Walk<'c, M: Memory> {
    memory: M,
    consumer: &'c mut Consumer,
    committed: u64,
}

impl<M: Memory> Walk<'_, M> {
    fn uncommitted(&self) -> u64 {
        self.consumer.position.wrapping_sub(self.committed)
    }

    fn commit(&mut self) {
        if self.committed == self.consumer.position {
            return;
        }
        // Pairs with the control dependency on data_tail in __perf_output_begin(): the kernel may
        // overwrite what lies before this position, so every read of it must be done.
        fence(Ordering::SeqCst);
        let tail = self.memory.tail();
        tail.store(self.consumer.position, Ordering::Relaxed);
        self.committed = self.consumer.position;
    }
}

impl<M: Memory> Drop for Walk<'_, M> {
    fn drop(&mut self) {
        self.commit();
    }
}

/// Hands the samples among the next `steps_max` records to `each`, oldest first, and gives their
/// space back: after each quarter of the buffer, and at the end.
///
/// `scratch` is where a sample is put together that wraps. On `Err` the consumer stays at the
/// damage. A record whose callback panics counts as taken.
pub(crate) fn drain<M: Memory>(
    memory: M,
    consumer: &mut Consumer,
    scratch: &mut Vec<u8>,
    steps_max: u64,
    mut each: impl FnMut(&[u8]),
) -> Result<Stop, Corrupt> {
    let mut end = head(memory, consumer.position)?;
    let mut walk = Walk {
        memory,
        committed: consumer.position,
        consumer,
    };
    for _ in 0..steps_max {
        if walk.uncommitted() >= memory.size() / 4 {
            walk.commit();
        }
        if walk.consumer.position == end {
            end = head(memory, end)?;
            if walk.consumer.position == end {
                return Ok(Stop::Empty);
            }
        }
        let (item, next) = record(memory, walk.consumer.position, end)?;
        walk.consumer.position = next;
        walk.consumer.steps += 1;
        match item {
            Item::Sample { at, len } => {
                walk.consumer.records += 1;
                walk.consumer.bytes += len;
                each(raw(&memory, scratch, at, len));
            }
            Item::Lost(lost) => walk.consumer.lost = walk.consumer.lost.wrapping_add(lost),
            Item::Other => {}
        }
    }
    Ok(Stop::Budget)
}

/// A sample's bytes: in place, or in `scratch` when they wrap.
#[inline]
fn raw<'r>(memory: &'r impl Memory, scratch: &'r mut Vec<u8>, at: u64, len: u64) -> &'r [u8] {
    let to_the_end = memory.size() - (at & (memory.size() - 1));
    if len <= to_the_end {
        return memory.bytes(at, len);
    }
    scratch.clear();
    scratch.extend_from_slice(memory.bytes(at, to_the_end));
    let rest = at.wrapping_add(to_the_end);
    scratch.extend_from_slice(memory.bytes(rest, len - to_the_end));
    scratch
}

/// What lies unread in a buffer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pending {
    /// Samples.
    pub(crate) records: u64,
    /// The fill, with headers, padding and records of other types.
    pub(crate) bytes: u64,
}

/// Counts what is unread without consuming it. O(unread records).
pub(crate) fn pending(memory: impl Memory, position: u64) -> Result<Pending, Corrupt> {
    let end = head(memory, position)?;
    let mut pending = Pending {
        records: 0,
        bytes: end.wrapping_sub(position),
    };
    let mut at = position;
    while at != end {
        let (item, next) = record(memory, at, end)?;
        pending.records += u64::from(matches!(item, Item::Sample { .. }));
        at = next;
    }
    Ok(pending)
}

/// Whether there is something to drain.
#[inline]
pub(crate) fn look(memory: impl Memory, position: u64) -> Result<Look, Corrupt> {
    Ok(match head(memory, position)? {
        end if end == position => Look::Empty,
        _ => Look::Ready,
    })
}
