//! Reading an outcome from the log.

use crate::embedded::book::{Claim, Location};
use crate::embedded::format::{FLAG_FAILED, Kind, RECORD_HEADER, Record, record_len_hint};
use crate::embedded::vfs::VfsFile;
use crate::embedded::view::claim_of;
use crate::error::Error;
use crate::stored::Stored;

/// Most records are shorter, so that one read fetches them.
const FIRST_READ: usize = 1024;

/// Reads the outcome at `place` when it is the one of `key`; none when another key lies there.
pub(crate) fn read_stored(
    file: &dyn VfsFile,
    place: Location,
    key: &[u8],
) -> Result<Option<Stored>, Error> {
    with_record(file, place, |record, len| {
        (record.kind == Kind::Outcome && record.key == key).then(|| Stored {
            outcome: record.payload.to_vec(),
            fingerprint: record.fingerprint,
            failed: record.flags & FLAG_FAILED != 0,
            token: record.token,
            retain_until_ms: record.time_ms,
            record_bytes: len as u32,
        })
    })
}

/// Reads the claim at `place`; none when something else lies there.
pub(crate) fn read_claim(
    file: &dyn VfsFile,
    place: Location,
    hash_of: impl FnOnce(&[u8]) -> u64,
) -> Result<Option<Claim>, Error> {
    with_record(file, place, |record, len| {
        let is_claim = record.kind == Kind::Claim;
        is_claim.then(|| claim_of(record, hash_of(record.key), place, len as u32))
    })
}

/// Until when the outcome at `place` is retained; none when something else lies there.
pub(crate) fn read_retention(file: &dyn VfsFile, place: Location) -> Result<Option<u64>, Error> {
    with_record(file, place, |record, _| {
        (record.kind == Kind::Outcome).then_some(record.time_ms)
    })
}

fn with_record<R>(
    file: &dyn VfsFile,
    place: Location,
    visit: impl FnOnce(&Record<'_>, usize) -> R,
) -> Result<R, Error> {
    let failed = |error| Error::io("read a stored outcome", error);
    let damaged = |reason| Error::damaged(place.segment, u64::from(place.offset), reason);
    let offset = u64::from(place.offset);
    let mut first = [0; FIRST_READ];
    let got = file.read_at(&mut first, offset).map_err(failed)?;
    let header = first[..got]
        .first_chunk::<RECORD_HEADER>()
        .ok_or_else(|| damaged("the segment ends too early"))?;
    let len = record_len_hint(header);
    if len <= got {
        let (record, len) =
            Record::decode(&first[..got], place.segment, place.offset).map_err(damaged)?;
        return Ok(visit(&record, len));
    }
    // A damaged length must not make us allocate more than a segment.
    let rest = file.bytes().map_err(failed)?.saturating_sub(offset);
    if len as u64 > rest {
        return Err(damaged("record length out of range"));
    }
    let mut bytes = vec![0; len];
    bytes[..got].copy_from_slice(&first[..got]);
    let more = file
        .read_at(&mut bytes[got..], offset + got as u64)
        .map_err(failed)?;
    let (record, len) =
        Record::decode(&bytes[..got + more], place.segment, place.offset).map_err(damaged)?;
    Ok(visit(&record, len))
}
