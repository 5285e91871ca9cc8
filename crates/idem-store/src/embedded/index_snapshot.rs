//! The index on the disk: docs/FORMAT.md in code, and reading it back. It is never believed over the
//! log: any doubt is an error here, and then the whole log is read.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use crate::embedded::book::{Book, Entry, HashKey, Location, SHARDS, shard_of};
use crate::embedded::format::{BLOCK, u32_at, u64_at};
use crate::embedded::vfs::{Vfs, VfsFile};

/// The name of the index snapshot, and of the next one while it is written.
pub(crate) const NAME: &str = "index.snap";
pub(crate) const TEMPORARY: &str = "index.tmp";
/// Where the first section starts.
pub(crate) const FIRST_SECTION: u64 = BLOCK as u64;

const MAGIC: [u8; 8] = *b"\x89IDXS\r\n\x1a";
/// The newest version that this code reads and the one that it writes. Version 1 had zeros for `head`.
const VERSION: u16 = 2;
const HEADER: usize = 128;
const SECTION_HEADER: usize = 32;
const ENTRY: usize = 16;
/// The section of the retentions, behind those of the keys.
const EXPIRING: usize = SHARDS;

/// What stands in front of the sections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) store_id: u64,
    pub(crate) hash_key: HashKey,
    /// Where the last section ends.
    pub(crate) bytes: u64,
    /// The log is read from here on: its place, the sequence there, and that of its segment.
    pub(crate) start: Location,
    pub(crate) start_sequence: u64,
    pub(crate) segment_sequence: u64,
    /// The log reached to here, and was durable to here.
    pub(crate) end: Location,
    pub(crate) end_sequence: u64,
    pub(crate) outcomes: u64,
    pub(crate) claims: u64,
    pub(crate) expired_below_ms: u64,
    /// The lowest segment of the log, as far as it was told before the end.
    pub(crate) head: u32,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[10..12].copy_from_slice(&(SHARDS as u16 + 1).to_le_bytes());
        out[16..24].copy_from_slice(&self.store_id.to_le_bytes());
        out[24..40].copy_from_slice(&self.hash_key);
        out[40..48].copy_from_slice(&self.bytes.to_le_bytes());
        put_location(&mut out[48..56], self.start);
        out[56..64].copy_from_slice(&self.start_sequence.to_le_bytes());
        out[64..72].copy_from_slice(&self.segment_sequence.to_le_bytes());
        put_location(&mut out[72..80], self.end);
        out[80..88].copy_from_slice(&self.end_sequence.to_le_bytes());
        out[88..96].copy_from_slice(&self.outcomes.to_le_bytes());
        out[96..104].copy_from_slice(&self.claims.to_le_bytes());
        out[104..112].copy_from_slice(&self.expired_below_ms.to_le_bytes());
        out[112..116].copy_from_slice(&self.head.to_le_bytes());
        let crc = crc32c::crc32c(&out[..124]);
        out[124..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        if bytes.len() < HEADER || bytes[..8] != MAGIC {
            return Err("its magic is missing");
        }
        if u32_at(bytes, 124) != crc32c::crc32c(&bytes[..124]) {
            return Err("the checksum of its header does not match");
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        let sections = u16::from_le_bytes([bytes[10], bytes[11]]);
        if !(1..=VERSION).contains(&version) || usize::from(sections) != SHARDS + 1 {
            return Err("it is of another version");
        }
        let header = Self {
            store_id: u64_at(bytes, 16),
            hash_key: bytes[24..40].try_into().expect("the range has 16 bytes"),
            bytes: u64_at(bytes, 40),
            start: location_at(bytes, 48),
            start_sequence: u64_at(bytes, 56),
            segment_sequence: u64_at(bytes, 64),
            end: location_at(bytes, 72),
            end_sequence: u64_at(bytes, 80),
            outcomes: u64_at(bytes, 88),
            claims: u64_at(bytes, 96),
            expired_below_ms: u64_at(bytes, 104),
            head: u32_at(bytes, 112),
        };
        if header.start > header.end || header.start.offset < BLOCK {
            return Err("its places are out of order");
        }
        Ok(header)
    }
}

/// Appends the section of one shard as the book knows it now, all but its checksum; how many
/// outcomes and claims it has.
pub(crate) fn encode_shard(
    book: &Book,
    number: usize,
    position: Location,
    out: &mut Vec<u8>,
) -> (u64, u64) {
    let start = out.len();
    out.resize(start + SECTION_HEADER, 0);
    let mut outcomes = 0_u32;
    for entry in book.shard_places(number) {
        put_entry(out, entry.hash, entry.location);
        outcomes += 1;
    }
    let mut claims = 0_u32;
    // Claims without an effect mean nothing to whoever reads this.
    for claim in book.shard_claims(number).filter(|claim| claim.declared) {
        put_entry(out, claim.hash, claim.location);
        claims += 1;
    }
    let header = &mut out[start..start + SECTION_HEADER];
    fill_section(header, number, [outcomes, claims], position);
    (u64::from(outcomes), u64::from(claims))
}

/// Appends the section of the retentions, all but its checksum.
pub(crate) fn encode_expiring(book: &Book, position: Location, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + SECTION_HEADER, 0);
    let buckets = book.expiring();
    let count = u32::try_from(buckets.len()).expect("2^32 buckets are 140,000 years");
    for (bucket, bytes) in buckets {
        out.extend_from_slice(&bucket.to_le_bytes());
        out.extend_from_slice(&bytes.to_le_bytes());
    }
    let header = &mut out[start..start + SECTION_HEADER];
    fill_section(header, EXPIRING, [count, 0], position);
}

fn fill_section(header: &mut [u8], number: usize, counts: [u32; 2], position: Location) {
    header[4..8].copy_from_slice(&(number as u32).to_le_bytes());
    header[8..12].copy_from_slice(&counts[0].to_le_bytes());
    header[12..16].copy_from_slice(&counts[1].to_le_bytes());
    put_location(&mut header[16..24], position);
}

/// Fills in the checksums of the sections that `bytes` is made of.
pub(crate) fn seal_sections(mut bytes: &mut [u8]) {
    while !bytes.is_empty() {
        let len = SECTION_HEADER + Section::decode(bytes).payload();
        let (section, rest) = bytes.split_at_mut(len);
        let crc = crc32c::crc32c(&section[4..]);
        section[..4].copy_from_slice(&crc.to_le_bytes());
        bytes = rest;
    }
}

/// The header of a section.
struct Section {
    crc: u32,
    number: u32,
    outcomes: u32,
    claims: u32,
    position: Location,
}

impl Section {
    fn decode(bytes: &[u8]) -> Self {
        Self {
            crc: u32_at(bytes, 0),
            number: u32_at(bytes, 4),
            outcomes: u32_at(bytes, 8),
            claims: u32_at(bytes, 12),
            position: location_at(bytes, 16),
        }
    }

    fn payload(&self) -> usize {
        (self.outcomes as usize + self.claims as usize) * ENTRY
    }
}

/// An index as it was read: what it knows, and what of the log is still to be applied.
pub(crate) struct Index {
    pub(crate) header: Header,
    /// Has the outcomes; the claims are read from the log.
    pub(crate) book: Book,
    pub(crate) claims: Vec<Entry>,
    /// Per shard: records before this place are taken into account.
    pub(crate) covered: Vec<Location>,
}

/// Why an index snapshot is not used.
#[derive(Debug)]
pub(crate) enum Doubt {
    /// The log begins behind the place that it tells of. No fault: the log has moved on.
    Outdated,
    Reason(&'static str),
    Io(io::Error),
}

impl From<&'static str> for Doubt {
    fn from(reason: &'static str) -> Self {
        Self::Reason(reason)
    }
}

impl From<io::Error> for Doubt {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outdated => f.write_str("the log begins behind it"),
            Self::Reason(reason) => f.write_str(reason),
            Self::Io(error) => write!(f, "it cannot be read: {error}"),
        }
    }
}

type Found = (Header, Arc<dyn VfsFile>);

/// Reads the header of the index snapshot; none when there is none.
pub(crate) fn load_header(vfs: &dyn Vfs) -> Result<Option<Found>, Doubt> {
    let file = match vfs.open(NAME) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = [0; HEADER];
    let got = file.read_at(&mut bytes, 0)?;
    Ok(Some((Header::decode(&bytes[..got])?, file)))
}

/// Reads and checks the index snapshot, all but what only the log can tell; none when there is none.
/// O(keys).
pub(crate) fn load(vfs: &dyn Vfs) -> Result<Option<Index>, Doubt> {
    let Some((header, file)) = load_header(vfs)? else {
        return Ok(None);
    };
    let mut index = Index {
        header,
        book: Book::new(header.hash_key),
        claims: Vec::new(),
        covered: Vec::with_capacity(SHARDS),
    };
    let mut at = FIRST_SECTION;
    let mut bytes = Vec::new();
    for number in 0..=SHARDS {
        let section = read_section(&*file, &header, number, at, &mut bytes)?;
        at += bytes.len() as u64;
        if number == EXPIRING {
            index.take_expiring(&bytes[SECTION_HEADER..]);
        } else {
            index.take_shard(&section, &bytes[SECTION_HEADER..])?;
        }
    }
    let counts = (index.book.stored() as u64, index.claims.len() as u64);
    if at != header.bytes || counts != (header.outcomes, header.claims) {
        return Err("its counts disagree".into());
    }
    Ok(Some(index))
}

fn read_section(
    file: &dyn VfsFile,
    header: &Header,
    number: usize,
    at: u64,
    bytes: &mut Vec<u8>,
) -> Result<Section, Doubt> {
    const SHORT: &str = "it ends too early";
    bytes.resize(SECTION_HEADER, 0);
    if file.read_at(bytes, at)? < SECTION_HEADER {
        return Err(SHORT.into());
    }
    let section = Section::decode(bytes);
    let len = SECTION_HEADER + section.payload();
    // Also: a damaged count must not make us allocate.
    if len as u64 > header.bytes.saturating_sub(at) || len as u64 > file.bytes()? {
        return Err(SHORT.into());
    }
    bytes.resize(len, 0);
    if file.read_at(&mut bytes[SECTION_HEADER..], at + SECTION_HEADER as u64)?
        < len - SECTION_HEADER
    {
        return Err(SHORT.into());
    }
    if section.crc != crc32c::crc32c(&bytes[4..]) || section.number as usize != number {
        return Err("the checksum of a section does not match".into());
    }
    if !(header.start..=header.end).contains(&section.position) {
        return Err("its places are out of order".into());
    }
    Ok(section)
}

impl Index {
    fn take_shard(&mut self, section: &Section, payload: &[u8]) -> Result<(), Doubt> {
        let (outcomes, claims) = payload.split_at(section.outcomes as usize * ENTRY);
        let checked = |chunk: &[u8; ENTRY]| {
            let entry = Entry {
                hash: u64_at(chunk, 0),
                location: location_at(chunk, 8),
            };
            let fits = shard_of(entry.hash) == section.number as usize
                && entry.location < section.position;
            fits.then_some(entry).ok_or("a place is out of range")
        };
        let number = section.number as usize;
        self.book.reserve(number, section.outcomes as usize);
        for chunk in outcomes.as_chunks().0 {
            self.book.insert_entry(checked(chunk)?);
        }
        for chunk in claims.as_chunks().0 {
            self.claims.push(checked(chunk)?);
        }
        self.covered.push(section.position);
        Ok(())
    }

    fn take_expiring(&mut self, payload: &[u8]) {
        let chunks = payload.as_chunks::<ENTRY>().0.iter();
        let buckets: BTreeMap<_, _> = chunks
            .map(|chunk| (u64_at(chunk, 0), u64_at(chunk, 8)))
            .collect();
        let expired_below_ms = self.header.expired_below_ms;
        self.book.resume(buckets, expired_below_ms);
    }
}

fn put_entry(out: &mut Vec<u8>, hash: u64, location: Location) {
    let mut bytes = [0; ENTRY];
    bytes[..8].copy_from_slice(&hash.to_le_bytes());
    put_location(&mut bytes[8..], location);
    out.extend_from_slice(&bytes);
}

fn put_location(out: &mut [u8], location: Location) {
    out[..4].copy_from_slice(&location.segment.to_le_bytes());
    out[4..8].copy_from_slice(&location.offset.to_le_bytes());
}

fn location_at(bytes: &[u8], at: usize) -> Location {
    Location {
        segment: u32_at(bytes, at),
        offset: u32_at(bytes, at + 4),
    }
}
