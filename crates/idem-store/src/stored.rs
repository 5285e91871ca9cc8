//! Outcomes, and reading them from the log.

use std::fmt;

use crate::book::Location;
use crate::error::Error;
use crate::format::{FLAG_FAILED, Kind, RECORD_HEADER, Record, record_len_hint};
use crate::permit::Fingerprint;
use crate::vfs::VfsFile;

/// The outcome of a key, as it was stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Stored {
    pub(crate) outcome: Vec<u8>,
    pub(crate) fingerprint: [u8; 32],
    pub(crate) failed: bool,
    pub(crate) token: u64,
    pub(crate) retain_until_ms: u64,
    pub(crate) record_bytes: u32,
}

impl Stored {
    /// The bytes that the holder gave.
    #[must_use]
    pub fn outcome(&self) -> &[u8] {
        &self.outcome
    }

    /// The bytes that the holder gave, without a copy.
    #[must_use]
    pub fn into_outcome(self) -> Vec<u8> {
        self.outcome
    }

    /// Digest of the request that it answers.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(self.fingerprint)
    }

    /// Whether it is a final failure ([`Failure::Final`](crate::Failure::Final)).
    #[must_use]
    pub fn is_failure(&self) -> bool {
        self.failed
    }

    /// The token of the holder that ended the key.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Until when it is replayed, in Unix milliseconds of the caller's clock.
    #[must_use]
    pub fn retain_until_ms(&self) -> u64 {
        self.retain_until_ms
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored")
            .field("outcome_bytes", &self.outcome.len())
            .field("failed", &self.failed)
            .field("token", &self.token)
            .field("retain_until_ms", &self.retain_until_ms)
            .finish()
    }
}

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
