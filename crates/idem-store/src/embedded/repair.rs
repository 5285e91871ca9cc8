//! Making a damaged store usable again, without hiding what was lost.

use std::path::Path;

use crate::embedded::format::{
    BATCH_HEADER, BLOCK, BatchHeader, Kind, RECORD_HEADER, Record, SegmentHeader, seal_record,
    segment_name,
};
use crate::embedded::handle::{OPEN_GAP, take_lock};
use crate::embedded::index_snapshot;
use crate::embedded::inspect::{Bad, bad_of, verify_on};
use crate::embedded::replay::{ASTRAY, FOREIGN, GAP, MISSING, Replay, SHORT, read_all, replay};
use crate::embedded::scan::{Damage, salvage};
use crate::embedded::vfs::{OsVfs, Vfs};
use crate::error::Error;

/// The name of a repaired segment while it is written.
pub(crate) const TEMPORARY: &str = "repair.tmp";

/// What [`repair`] did, or would do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repair {
    /// Every damaged range that was found.
    pub bad: Vec<Bad>,
    /// Valid records within those ranges, which are kept.
    pub records_salvaged: u64,
    /// Bytes of those ranges that are given up. Keys that were only there are unknown from now on:
    /// their effects could happen again.
    pub bytes_lost: u64,
    /// Copies of the damaged segments, in the same directory.
    pub backups: Vec<String>,
    /// An index snapshot was there that cannot be used, or that the repair makes useless: it is
    /// removed, nothing is lost with it.
    pub index_removed: bool,
    /// Whether anything was written.
    pub changed: bool,
}

/// Repairs the store in `dir`: each damaged segment is copied to `NAME.damaged` (or `NAME.2.damaged`
/// and so on: no copy is ever overwritten), then replaced by one with all its valid records and a mark where something is missing. A segment whose file is
/// gone is replaced by an empty one. With `dry_run` nothing is written.
///
/// # Errors
/// [`is_locked`](Error::is_locked) when the store is open, [`is_damaged`](Error::is_damaged) when
/// a file cannot be part of this store, and I/O errors.
pub fn repair(dir: impl AsRef<Path>, dry_run: bool) -> Result<Repair, Error> {
    let dir = dir.as_ref();
    let opened = if dry_run {
        OsVfs::read_only(dir)
    } else {
        // Reading first tells a mistyped directory, which must not be made.
        OsVfs::read_only(dir).and_then(|_| OsVfs::create(dir))
    };
    let vfs = opened.map_err(|error| Error::io("read the store's directory", error))?;
    repair_on(&vfs, dry_run)
}

#[doc(hidden)]
pub fn repair_on(vfs: &dyn Vfs, dry_run: bool) -> Result<Repair, Error> {
    let _lock = match dry_run {
        true => None,
        false => Some(take_lock(vfs)?),
    };
    let mut report = Repair {
        bad: Vec::new(),
        records_salvaged: 0,
        bytes_lost: 0,
        backups: Vec::new(),
        index_removed: false,
        changed: false,
    };
    if !verify_on(vfs)?.ok {
        report.index_removed = vfs.open(index_snapshot::NAME).is_ok();
    }
    if report.index_removed && !dry_run {
        // Before anything moves: its places would lead astray.
        let removed = vfs.remove(index_snapshot::NAME);
        let removed = removed.and_then(|()| vfs.sync_dir());
        removed.map_err(|error| Error::io("remove the index", error))?;
        report.changed = true;
    }
    // Knowing a segment's header can show more in its neighbour, so look again a few times.
    for _ in 0..4 {
        let found = replay(vfs)?;
        if found.damage.is_empty() {
            return Ok(report);
        }
        report.bad.extend(bad_of(&found));
        let mut segments: Vec<u32> = found.damage.iter().map(|(segment, _)| *segment).collect();
        segments.dedup();
        for segment in segments {
            repair_segment(vfs, &found, segment, dry_run, &mut report)?;
        }
        if dry_run {
            return Ok(report);
        }
        report.changed = true;
    }
    let found = replay(vfs)?;
    match found.damage.first() {
        None => Ok(report),
        Some((segment, damage)) => {
            let offset = u64::from(damage.offset);
            Err(Error::damaged(*segment, offset, damage.reason))
        }
    }
}

fn repair_segment(
    vfs: &dyn Vfs,
    found: &Replay,
    number: u32,
    dry_run: bool,
    report: &mut Repair,
) -> Result<(), Error> {
    let failed = |error| Error::io("write the repaired segment", error);
    let damage = found.damage.iter().filter(|(at, _)| *at == number);
    let damage: Vec<&Damage> = damage.map(|(_, damage)| damage).collect();
    let foreign = |damage: &&&Damage| [FOREIGN, ASTRAY, GAP].contains(&damage.reason);
    if let Some(foreign) = damage.iter().find(foreign) {
        return Err(Error::damaged(number, 0, foreign.reason));
    }
    let old = match found.segments.get(&number) {
        Some(segment) => read_all(segment)?,
        None => Vec::new(),
    };
    let new = rebuild(found, number, &old, &damage, vfs.random(), report);
    if dry_run {
        return Ok(());
    }
    let name = segment_name(number);
    if damage.iter().all(|damage| damage.reason != MISSING) {
        let backup = backup_name(vfs, &name)?;
        let file = vfs.create(&backup, old.len() as u64).map_err(failed)?;
        file.write_all_at(&old, 0).map_err(failed)?;
        file.sync_data().map_err(failed)?;
        report.backups.push(backup);
    }
    // The copy keeps its name whatever becomes of the segment.
    vfs.sync_dir().map_err(failed)?;
    let whole = SegmentHeader::decode(&new, number).map_or(0, |header| header.segment_bytes);
    let size = new.len().max(old.len()).max(whole as usize);
    let size = size.next_multiple_of(BLOCK as usize);
    let file = vfs.create(TEMPORARY, size as u64).map_err(failed)?;
    file.write_all_at(&new, 0).map_err(failed)?;
    file.sync_data().map_err(failed)?;
    vfs.rename(TEMPORARY, &name).map_err(failed)?;
    vfs.sync_dir().map_err(failed)
}

/// A name that no copy has yet: what an earlier repair kept may be all that is left of something.
fn backup_name(vfs: &dyn Vfs, segment: &str) -> Result<String, Error> {
    let names = vfs.list();
    let names = names.map_err(|error| Error::io("list the store's directory", error))?;
    let mut name = format!("{segment}.damaged");
    for number in 2.. {
        if !names.contains(&name) {
            break;
        }
        name = format!("{segment}.{number}.damaged");
    }
    Ok(name)
}

/// The segment again, with the valid batches and records of the old one.
fn rebuild(
    found: &Replay,
    number: u32,
    old: &[u8],
    damage: &[&Damage],
    random: u64,
    report: &mut Repair,
) -> Vec<u8> {
    let known = SegmentHeader::decode(old, number).ok();
    let first = damage.iter().map(|damage| damage.sequence).min();
    let start = found.starts.get(&number).copied();
    let header = known.unwrap_or(SegmentHeader {
        segment: number,
        segment_bytes: old.len() as u32,
        store_id: found.store_id.unwrap_or(random),
        sequence: start.or(first).or(Some(found.next_sequence)),
        head: found.head,
    });
    let mut out = header.encode().to_vec();
    out.resize(BLOCK as usize, 0);
    let mut at = BLOCK;
    for damage in damage.iter().filter(|d| d.end > 0 || d.reason == MISSING) {
        copy_batches(old, at..damage.offset, number, &mut out);
        let kept = salvage(old, number, damage);
        let end = damage.end.min(old.len() as u32);
        report.records_salvaged += kept.len() as u64;
        report.bytes_lost += hole(old, number, damage, &kept, &mut out);
        at = end.max(at);
    }
    let end = found.ends.get(&number).copied().unwrap_or(at);
    copy_batches(old, at..end, number, &mut out);
    out
}

/// Copies whole valid batches to their new places.
fn copy_batches(old: &[u8], range: std::ops::Range<u32>, number: u32, out: &mut Vec<u8>) {
    let mut at = range.start;
    while at < range.end {
        let Ok(header) = BatchHeader::decode(&old[at as usize..], number, at) else {
            return;
        };
        let place = out.len();
        out.extend_from_slice(&old[at as usize..(at + header.len) as usize]);
        seal(out, place, number, header);
        at += header.len;
    }
}

/// Writes what is left of a damaged range as one batch that ends with a mark; the bytes that are
/// given up.
fn hole(old: &[u8], number: u32, damage: &Damage, kept: &[u32], out: &mut Vec<u8>) -> u64 {
    let place = out.len();
    out.resize(place + BATCH_HEADER, 0);
    let end = (damage.end as usize).min(old.len());
    for &at in kept {
        let bytes = &old[at as usize..end];
        let (record, _) = Record::decode(bytes, number, at).expect("salvage saw it valid");
        record.encode(out);
    }
    let records = (out.len() - place - BATCH_HEADER) as u64;
    let least = damage.sequence + kept.len() as u64;
    let after = damage
        .sequence_after
        .unwrap_or_else(|| match damage.reason {
            SHORT => least + jumps_max(damage),
            _ => least,
        });
    Record::bare(Kind::Hole, after, &[]).encode(out);
    let header = BatchHeader {
        len: (out.len() - place) as u32,
        count: kept.len() as u32 + 1,
        sequence: damage.sequence,
        synced_below: damage.sequence,
    };
    seal(out, place, number, header);
    u64::from(damage.end.saturating_sub(damage.offset)).saturating_sub(records)
}

/// How far openings can have jumped ahead in a range that is gone: the tokens that were given behind
/// them must not be given again.
fn jumps_max(damage: &Damage) -> u64 {
    let bytes = damage.end.saturating_sub(damage.offset);
    let openings = u64::from(bytes) / (BATCH_HEADER + RECORD_HEADER) as u64 + 1;
    openings * OPEN_GAP
}

fn seal(out: &mut [u8], place: usize, number: u32, header: BatchHeader) {
    let end = place + header.len as usize;
    let mut at = place + BATCH_HEADER;
    while at < end {
        at += seal_record(&mut out[at..end], number, at as u32);
    }
    let bytes = header.encode(number, place as u32);
    out[place..place + BATCH_HEADER].copy_from_slice(&bytes);
}
