//! The walker of a ring whose new records replace the oldest (`BPF_F_RB_OVERWRITE`), over any memory.
//!
//! Source: the commit "bpf: Add overwrite mode for BPF ring buffer" (October 2025), first released
//! after 6.18. Beside `producer_pos`, its page holds `pending_pos` and `overwrite_pos`: the oldest
//! record that is still whole. A producer that needs room moves `overwrite_pos` past whole records,
//! then publishes `producer_pos` with a release. It never waits for the consumer, so:
//!
//! ```text
//!   consumer_pos      overwrite_pos                 producer_pos
//!        v                  v                             v
//!        |...overwritten....|rec|rec|rec|rec|rec|rec|rec|
//! ```
//!
//! - the consumer starts at the later of `consumer_pos` and `overwrite_pos`; what lies between was
//!   lost, in bytes that are known and records that are not;
//! - a record can be overwritten while it is read. So it is copied, by atomic words, and counts only
//!   if `overwrite_pos` has still not passed it afterwards: the reading half of a seqlock.

use super::{BUSY, Consumer, Corrupt, CorruptKind, DISCARD, HEADER_BYTES, Look, Pending, Stop};
use crate::sync::{AtomicU64, Ordering, fence};

/// Where such a ring lives.
pub(crate) trait Memory: Copy {
    /// Bytes of the data area: a power of two, at least 8.
    fn size(&self) -> u64;
    fn consumer(&self) -> &AtomicU64;
    fn producer(&self) -> &AtomicU64;
    fn overwrite(&self) -> &AtomicU64;
    /// The word at `position`, a multiple of 8: a header, or eight bytes of a record.
    fn word(&self, position: u64) -> &AtomicU64;
}

/// What there is for a consumer.
struct Bounds {
    /// The end of it.
    end: u64,
    /// The oldest position that is whole, not before the consumer's.
    start: u64,
    /// Producers went around the ring since `end` was read: there are records behind it.
    is_old: bool,
}

fn bounds<M: Memory>(memory: M, position: u64) -> Result<Bounds, Corrupt> {
    // Pairs with the store-release of producer_pos: a producer that overwrote has said so before.
    let end = memory.producer().load(Ordering::Relaxed);
    fence(Ordering::Acquire);
    let oldest = memory.overwrite().load(Ordering::Relaxed);
    // Whoever asks again finds an end that is not before `oldest`.
    fence(Ordering::Acquire);
    let damage = |kind| Err(Corrupt { position, kind });
    if !end.is_multiple_of(8) || !oldest.is_multiple_of(8) {
        return damage(CorruptKind::Producer(end));
    }
    if is_before(end, position) {
        return damage(CorruptKind::Producer(end));
    }
    let is_old = is_before(end, oldest);
    let end = if is_old { oldest } else { end };
    let start = if is_before(position, oldest) {
        oldest
    } else {
        position
    };
    match end.wrapping_sub(start) > memory.size() {
        true => damage(CorruptKind::Producer(end)),
        false => Ok(Bounds { end, start, is_old }),
    }
}

/// Positions only grow, and wrap: the one that is less than half a circle behind is before.
fn is_before(one: u64, other: u64) -> bool {
    (one.wrapping_sub(other) as i64) < 0
}

/// What one drain met besides records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Skipped {
    /// Overwritten before they were read, with headers and padding.
    pub(crate) bytes: u64,
}

enum Step {
    Record(usize),
    Discarded,
    Stop(Stop),
    /// It was overwritten while it was read.
    Gone,
}

/// Copies the record at the consumer's position to `scratch`.
fn step<M: Memory>(
    memory: M,
    consumer: &mut Consumer,
    end: u64,
    scratch: &mut Vec<[u8; 8]>,
) -> Result<Step, Corrupt> {
    let position = consumer.position;
    if position == end {
        return Ok(Step::Stop(Stop::Empty));
    }
    let header = Header::read(memory, position);
    let next = header.next(position, end);
    let is_record = next.is_ok() && header.word & (BUSY | DISCARD) == 0;
    scratch.clear();
    if is_record {
        let words = (HEADER_BYTES..header.total()).step_by(8);
        let load = |at| {
            memory
                .word(position.wrapping_add(at))
                .load(Ordering::Relaxed)
        };
        scratch.extend(words.map(load).map(u64::to_ne_bytes));
    }
    // The loads above come before this one: if it does not tell that the record was given up, they
    // saw it whole. (The kernel moves overwrite_pos before it writes over.)
    fence(Ordering::Acquire);
    if is_before(position, memory.overwrite().load(Ordering::Relaxed)) {
        return Ok(Step::Gone);
    }
    let next = next?;
    if header.word & BUSY != 0 {
        return Ok(Step::Stop(Stop::Busy));
    }
    consumer.position = next;
    if header.word & DISCARD != 0 {
        consumer.discarded += 1;
        return Ok(Step::Discarded);
    }
    consumer.records += 1;
    consumer.bytes += header.len();
    Ok(Step::Record(header.len() as usize))
}

/// The `len` word of a record's header.
struct Header {
    word: u32,
}

impl Header {
    fn read(memory: impl Memory, position: u64) -> Self {
        let header = memory.word(position).load(Ordering::Relaxed);
        // Pairs with the xchg of bpf_ringbuf_commit().
        fence(Ordering::Acquire);
        let [b0, b1, b2, b3, ..] = header.to_ne_bytes();
        let word = u32::from_ne_bytes([b0, b1, b2, b3]);
        Self { word }
    }

    fn len(&self) -> u64 {
        u64::from(self.word & !(BUSY | DISCARD))
    }

    /// With header and padding.
    fn total(&self) -> u64 {
        (self.len() + HEADER_BYTES).next_multiple_of(8)
    }

    /// Where the next record is, if it can be true.
    fn next(&self, position: u64, end: u64) -> Result<u64, Corrupt> {
        if self.total() > end.wrapping_sub(position) {
            let kind = CorruptKind::Length(self.word & !(BUSY | DISCARD));
            return Err(Corrupt { position, kind });
        }
        Ok(position.wrapping_add(self.total()))
    }
}

/// Hands at most `records_max` records to `each`, oldest first, each a copy in `scratch`. Skipped
/// records count against `records_max` too.
///
/// On `Err` the consumer stays at the damage. A record whose callback panics counts as taken.
pub(crate) fn drain<M: Memory>(
    memory: M,
    consumer: &mut Consumer,
    skipped: &mut Skipped,
    scratch: &mut Vec<[u8; 8]>,
    records_max: u64,
    mut each: impl FnMut(&[u8]),
) -> Result<Stop, Corrupt> {
    let mut left = records_max;
    let mut is_last_look = false;
    'look: while left > 0 {
        let Bounds { end, start, is_old } = bounds(memory, consumer.position)?;
        let is_behind = start != consumer.position;
        skipped.bytes += start.wrapping_sub(consumer.position);
        consumer.position = start;
        // Behind, the record at hand wakes nobody before this position is published.
        if is_old || is_behind && is_last_look {
            publish(memory, *consumer);
            left -= 1;
            is_last_look = false;
            continue 'look;
        }
        while left > 0 {
            let step = step(memory, consumer, end, scratch)?;
            publish(memory, *consumer);
            match step {
                Step::Record(len) => each(&scratch.as_flattened()[..len]),
                Step::Discarded => {}
                Step::Gone => {
                    left -= 1;
                    continue 'look;
                }
                Step::Stop(stop) if is_last_look => return Ok(stop),
                Step::Stop(_) => {
                    // As in an ordinary ring: publish, and only then (StoreLoad) look again.
                    fence(Ordering::SeqCst);
                    is_last_look = true;
                    continue 'look;
                }
            }
            left -= 1;
            is_last_look = false;
        }
    }
    Ok(Stop::Budget)
}

/// Counts what is unread and whole without consuming it. O(unread records). Exact once no program
/// writes; before, records that are overwritten meanwhile are left out.
pub(crate) fn pending<M: Memory>(memory: M, position: u64) -> Result<Pending, Corrupt> {
    let Bounds { end, start, .. } = bounds(memory, position)?;
    let mut pending = Pending::default();
    let mut at = start;
    while at != end {
        let header = Header::read(memory, at);
        fence(Ordering::Acquire);
        let oldest = memory.overwrite().load(Ordering::Relaxed);
        if is_before(at, oldest) {
            if is_before(end, oldest) {
                break;
            }
            at = oldest;
            continue;
        }
        at = header.next(at, end)?;
        pending.bytes += header.total();
        match header.word & DISCARD {
            0 => pending.records += 1,
            _ => pending.discarded += 1,
        }
    }
    Ok(pending)
}

/// What a consumer at `position` would meet.
pub(crate) fn look<M: Memory>(memory: M, position: u64) -> Result<Look, Corrupt> {
    let Bounds { end, start, .. } = bounds(memory, position)?;
    // Behind, the consumer is woken by no record before it has published where it goes on.
    if start != position {
        return Ok(Look::Ready);
    }
    if start == end {
        return Ok(Look::Empty);
    }
    // What has been overwritten since is a record by now, or a look says so the next time.
    Ok(match Header::read(memory, start).word & BUSY {
        0 => Look::Ready,
        _ => Look::Busy,
    })
}

/// Bytes that were overwritten ahead of a consumer at `position`, which has not skipped them yet.
pub(crate) fn behind<M: Memory>(memory: M, position: u64) -> Result<u64, Corrupt> {
    let Bounds { start, .. } = bounds(memory, position)?;
    Ok(start.wrapping_sub(position))
}

/// Tells the kernel how far this is, by which it decides whom to wake.
fn publish<M: Memory>(memory: M, consumer: Consumer) {
    memory
        .consumer()
        .store(consumer.position, Ordering::Release);
}

/// Takes the ring over where its last consumer stopped.
pub(crate) fn consumer<M: Memory>(memory: M) -> Result<Consumer, Corrupt> {
    let position = memory.consumer().load(Ordering::Acquire);
    let Bounds { end, .. } = bounds(memory, position)?;
    match position.is_multiple_of(8) {
        true => Ok(Consumer::at(position)),
        false => Err(Corrupt {
            position,
            kind: CorruptKind::Producer(end),
        }),
    }
}

#[cfg(all(any(test, fuzzing), not(loom)))]
pub(crate) mod heap;
#[cfg(all(test, loom))]
mod model;
#[cfg(all(test, not(loom)))]
mod tests;
