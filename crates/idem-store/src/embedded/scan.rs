//! Reading a segment back: its batches in order, what is damaged, and where the log ends. Pure.

use std::collections::VecDeque;

use crate::embedded::format::{ALIGN, BATCH_HEADER, BATCH_MIN, BatchHeader, Kind, Record};

/// A range of a segment that should hold batches and does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) offset: u32,
    /// Where valid batches go on, or the end of the segment.
    pub(crate) end: u32,
    /// The sequence that was expected here, and the one that follows the range if it is known.
    pub(crate) sequence: u64,
    pub(crate) sequence_after: Option<u64>,
    pub(crate) reason: &'static str,
}

/// How a segment reads.
#[derive(Debug, Default)]
pub(crate) struct Scanned {
    pub(crate) records: u64,
    pub(crate) damage: Vec<Damage>,
    /// Where the next batch would go.
    pub(crate) end: u32,
    /// The sequence after the last record.
    pub(crate) next_sequence: u64,
    /// The batches that no later batch proves to be durable, by sequence and offset.
    pub(crate) unproven: VecDeque<(u64, u32)>,
    /// Bytes from `end` up to the last one that is not zero: what a crash left of a batch that was
    /// never acknowledged, or what the file held as an earlier segment.
    pub(crate) torn_bytes: u32,
}

/// What the scanner needs to know of the segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expect {
    pub(crate) segment: u32,
    /// Where to start, and the sequence of the first record there.
    pub(crate) offset: u32,
    pub(crate) sequence: u64,
    /// Sequence of the first record of the next segment; none for the last segment.
    pub(crate) next_segment: Option<u64>,
}

/// A record, where it lies, how long it is with padding, and its sequence.
pub(crate) struct Visited<'a> {
    pub(crate) record: Record<'a>,
    pub(crate) offset: u32,
    pub(crate) len: u32,
    pub(crate) sequence: u64,
}

/// Walks the batches of a segment and hands each record to `visit`.
///
/// A batch is written only after the one before it was synced, or else says up to where the log
/// was synced (`synced_below`). So an invalid range is a torn tail when nothing behind it proves
/// that it was durable, and damage when something does.
pub(crate) fn scan(bytes: &[u8], expect: Expect, mut visit: impl FnMut(&Visited<'_>)) -> Scanned {
    let mut out = Scanned {
        end: expect.offset,
        next_sequence: expect.sequence,
        ..Scanned::default()
    };
    loop {
        if expect.next_segment == Some(out.next_sequence) {
            return out;
        }
        let at = out.end as usize;
        let rest = bytes.get(at..).unwrap_or_default();
        let reason = match whole_batch(rest, expect.segment, out.end) {
            Ok(header) if follows(&header, bytes, out.next_sequence, expect.segment, out.end) => {
                take(&mut out, bytes, &header, expect.segment, &mut visit);
                continue;
            }
            Ok(_) => "batch out of sequence",
            Err(reason) => reason,
        };
        let found = next_batch(bytes, expect, at, out.next_sequence);
        if found.is_none() && expect.next_segment.is_none() {
            out.torn_bytes = torn_bytes(bytes, at);
            return out;
        }
        let (end, after) = found.unwrap_or((bytes.len() as u32, 0));
        let known = found.map(|_| after).or(expect.next_segment);
        out.damage.push(Damage {
            offset: out.end,
            end,
            sequence: out.next_sequence,
            sequence_after: known,
            reason,
        });
        out.end = end;
        out.next_sequence = known.unwrap_or(out.next_sequence);
    }
}

/// The valid records within a damaged range, for a repair to keep. Each carries a checksum over its
/// place, so that it is recognised on its own.
pub(crate) fn salvage(bytes: &[u8], segment: u32, damage: &Damage) -> Vec<u32> {
    let mut found = Vec::new();
    let mut at = damage.offset as usize;
    let end = (damage.end as usize).min(bytes.len());
    while at < end {
        match Record::decode(&bytes[at..end], segment, at as u32) {
            Ok((_, len)) => {
                found.push(at as u32);
                at += len;
            }
            Err(_) => at += ALIGN,
        }
    }
    found
}

/// The header of the batch at the start of `bytes`, which lie at `offset`, when the batch is valid to
/// its last record.
pub(crate) fn whole_batch(
    bytes: &[u8],
    segment: u32,
    offset: u32,
) -> Result<BatchHeader, &'static str> {
    let header = BatchHeader::decode(bytes, segment, offset)?;
    let mut at = BATCH_HEADER;
    let mut count = 0;
    while at < header.len as usize {
        let place = offset + at as u32;
        let (_, len) = Record::decode(&bytes[at..header.len as usize], segment, place)?;
        at += len;
        count += 1;
    }
    if count != header.count {
        return Err("batch count does not match");
    }
    Ok(header)
}

/// Whether a valid batch is the next one of the log. Opening a store jumps ahead in sequence.
fn follows(header: &BatchHeader, bytes: &[u8], next: u64, segment: u32, offset: u32) -> bool {
    if header.sequence == next {
        return true;
    }
    let at = offset as usize + BATCH_HEADER;
    let first = Record::decode(&bytes[at..], segment, at as u32);
    header.sequence > next && first.is_ok_and(|(record, _)| record.kind == Kind::Opened)
}

fn take(
    out: &mut Scanned,
    bytes: &[u8],
    header: &BatchHeader,
    segment: u32,
    visit: &mut impl FnMut(&Visited<'_>),
) {
    while let Some(&(sequence, _)) = out.unproven.front() {
        if sequence >= header.synced_below {
            break;
        }
        out.unproven.pop_front();
    }
    out.unproven.push_back((header.sequence, out.end));
    let end = (out.end + header.len) as usize;
    let mut at = out.end as usize + BATCH_HEADER;
    let mut sequence = header.sequence;
    while at < end {
        let (record, len) = Record::decode(&bytes[at..end], segment, at as u32)
            .expect("the batch was checked before");
        visit(&Visited {
            record,
            offset: at as u32,
            len: len as u32,
            sequence,
        });
        sequence += 1;
        out.records += u64::from(record.kind != Kind::Hole);
        at += len;
        out.next_sequence = match record.kind {
            Kind::Hole => record.token,
            _ => header.sequence + u64::from(header.count),
        };
    }
    out.end = end as u32;
}

/// The first batch behind `at` that proves that the bytes at `at` were durable, with its sequence.
fn next_batch(bytes: &[u8], expect: Expect, at: usize, next: u64) -> Option<(u32, u64)> {
    // Behind the last byte that is not zero there is no batch to look for.
    let end = at + torn_bytes(bytes, at) as usize;
    let mut offset = at + ALIGN;
    while offset < end && offset + BATCH_MIN <= bytes.len() {
        let header = BatchHeader::decode(&bytes[offset..], expect.segment, offset as u32);
        if let Ok(header) = header {
            // In a segment that is not the last one everything was synced.
            let proof = header.synced_below > next || expect.next_segment.is_some();
            let newer = header.sequence > next;
            let rest = &bytes[offset..];
            if newer && proof && whole_batch(rest, expect.segment, offset as u32).is_ok() {
                return Some((offset as u32, header.sequence));
            }
        }
        offset += ALIGN;
    }
    None
}

/// Bytes from `at` up to the last one that is not zero. Mostly all are zero: looked at in blocks.
fn torn_bytes(bytes: &[u8], at: usize) -> u32 {
    static ZEROS: [u8; 4_096] = [0; 4_096];
    let mut tail = bytes.get(at..).unwrap_or_default();
    while let Some((rest, block)) = tail.split_last_chunk::<4_096>()
        && *block == ZEROS
    {
        tail = rest;
    }
    tail.iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last as u32 + 1)
}
