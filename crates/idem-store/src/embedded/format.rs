//! The bytes on the disk, pure: docs/FORMAT.md in code. No file, clock or thread here.

/// Bytes of the segment header region; the first batch starts here.
pub(crate) const BLOCK: u32 = 4096;
/// Bytes of a batch header.
pub(crate) const BATCH_HEADER: usize = 32;
/// Bytes of a record header.
pub(crate) const RECORD_HEADER: usize = 24;
/// Bytes of the part that claims and outcomes add: fingerprint and a time.
pub(crate) const BODY: usize = 40;
/// The smallest batch: its header and one record.
pub(crate) const BATCH_MIN: usize = BATCH_HEADER + RECORD_HEADER;
/// Every record starts at a multiple of this.
pub(crate) const ALIGN: usize = 8;
/// The newest format version that this code reads and the one that it writes.
pub(crate) const VERSION: u16 = 2;

const MAGIC: [u8; 8] = *b"\x89IDEM\r\n\x1a";

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A key is held by the holder of a token.
    Claim = 1,
    /// A key has its outcome.
    Outcome = 2,
    /// The claim with this token ended without an outcome.
    Release = 3,
    /// Whatever is known of the key is forgotten.
    Forget = 4,
    /// The store was opened: every earlier lease has ended.
    Opened = 5,
    /// The store was closed in order.
    Closed = 6,
    /// Segments below the number in the token field are no longer part of the log.
    Head = 7,
    /// What a repair gave up; the token is the sequence that follows it.
    Hole = 8,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Claim,
            2 => Self::Outcome,
            3 => Self::Release,
            4 => Self::Forget,
            5 => Self::Opened,
            6 => Self::Closed,
            7 => Self::Head,
            8 => Self::Hole,
            _ => return None,
        })
    }

    fn has_body(self) -> bool {
        matches!(self, Self::Claim | Self::Outcome)
    }
}

/// Claim: the effect may have happened from here on.
pub(crate) const FLAG_DECLARED: u8 = 1;
/// Outcome: it is a final failure.
pub(crate) const FLAG_FAILED: u8 = 1;

/// One record, borrowed from the bytes or from the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    pub(crate) token: u64,
    pub(crate) fingerprint: [u8; 32],
    /// Claim: when it was made. Outcome: until when it is retained. Unix milliseconds.
    pub(crate) time_ms: u64,
    pub(crate) key: &'a [u8],
    /// Claim: the memo. Outcome: the outcome.
    pub(crate) payload: &'a [u8],
}

impl<'a> Record<'a> {
    /// A record without a body.
    pub(crate) fn bare(kind: Kind, token: u64, key: &'a [u8]) -> Self {
        Self {
            kind,
            flags: 0,
            token,
            fingerprint: [0; 32],
            time_ms: 0,
            key,
            payload: &[],
        }
    }

    /// Bytes that this record takes in the log, padding included.
    pub(crate) fn padded_len(&self) -> usize {
        self.len().next_multiple_of(ALIGN)
    }

    fn len(&self) -> usize {
        let body = if self.kind.has_body() { BODY } else { 0 };
        RECORD_HEADER + body + self.key.len() + self.payload.len()
    }

    /// Appends the record with its checksum still zero, see [`seal_record`].
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let key_len = u16::try_from(self.key.len()).expect("limits keep keys below 64 KiB");
        let payload_len = u32::try_from(self.payload.len()).expect("limits keep payloads small");
        let len = u32::try_from(self.len()).expect("limits keep records below a segment");
        let mut head = [0; RECORD_HEADER + BODY];
        head[4..8].copy_from_slice(&len.to_le_bytes());
        head[8..10].copy_from_slice(&[self.kind as u8, self.flags]);
        head[10..12].copy_from_slice(&key_len.to_le_bytes());
        head[12..16].copy_from_slice(&payload_len.to_le_bytes());
        head[16..24].copy_from_slice(&self.token.to_le_bytes());
        head[24..56].copy_from_slice(&self.fingerprint);
        head[56..64].copy_from_slice(&self.time_ms.to_le_bytes());
        let body = if self.kind.has_body() { BODY } else { 0 };
        out.reserve(self.padded_len());
        out.extend_from_slice(&head[..RECORD_HEADER + body]);
        out.extend_from_slice(self.key);
        out.extend_from_slice(self.payload);
        out.resize(start + self.padded_len(), 0);
    }

    /// Reads the record at the start of `bytes`, which lie at `offset` of `segment`.
    /// Returns it with the bytes it takes, padding included.
    pub(crate) fn decode(
        bytes: &'a [u8],
        segment: u32,
        offset: u32,
    ) -> Result<(Self, usize), &'static str> {
        let len = record_len(bytes).ok_or("record length out of range")?;
        let (kind, key_len, payload_len) = record_shape(bytes).ok_or("record of unknown type")?;
        let body = if kind.has_body() { BODY } else { 0 };
        if RECORD_HEADER + body + key_len + payload_len != len {
            return Err("record lengths disagree");
        }
        if u32_at(bytes, 0) != checksum(segment, offset, &bytes[4..len]) {
            return Err("record checksum does not match");
        }
        if bytes[len..len.next_multiple_of(ALIGN)]
            != [0; ALIGN][..len.next_multiple_of(ALIGN) - len]
        {
            return Err("record padding is not zero");
        }
        let (fingerprint, time_ms) = if kind.has_body() {
            let fingerprint = bytes[24..56].try_into().expect("the range has 32 bytes");
            (fingerprint, u64_at(bytes, 56))
        } else {
            ([0; 32], 0)
        };
        let (key, payload) = bytes[RECORD_HEADER + body..len].split_at(key_len);
        let record = Self {
            kind,
            flags: bytes[9],
            token: u64_at(bytes, 16),
            fingerprint,
            time_ms,
            key,
            payload,
        };
        Ok((record, len.next_multiple_of(ALIGN)))
    }
}

/// The length that the record at the start of `bytes` claims, when it lies within them.
pub(crate) fn record_len(bytes: &[u8]) -> Option<usize> {
    if bytes.len() < RECORD_HEADER {
        return None;
    }
    let len = u32_at(bytes, 4) as usize;
    (len >= RECORD_HEADER && len.next_multiple_of(ALIGN) <= bytes.len()).then_some(len)
}

fn record_shape(bytes: &[u8]) -> Option<(Kind, usize, usize)> {
    let kind = Kind::from_byte(bytes[8])?;
    let key_len = u16::from_le_bytes([bytes[10], bytes[11]]);
    Some((kind, usize::from(key_len), u32_at(bytes, 12) as usize))
}

/// Bytes that the batch at the start of `header` claims to take.
pub(crate) fn batch_len_hint(header: &[u8; BATCH_HEADER]) -> usize {
    u32_at(header, 4) as usize
}

/// Bytes of a record of which the header is known: what a reader must fetch.
pub(crate) fn record_len_hint(header: &[u8; RECORD_HEADER]) -> usize {
    (u32_at(header, 4) as usize).next_multiple_of(ALIGN)
}

/// The header of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    /// Bytes of the whole batch, a multiple of [`ALIGN`].
    pub(crate) len: u32,
    /// The number of its records, which have consecutive sequences.
    pub(crate) count: u32,
    /// Sequence of the first record.
    pub(crate) sequence: u64,
    /// Every record with a lower sequence than this was synced before this batch was written.
    pub(crate) synced_below: u64,
}

impl BatchHeader {
    /// The header as bytes for a batch at `offset` of `segment`.
    pub(crate) fn encode(&self, segment: u32, offset: u32) -> [u8; BATCH_HEADER] {
        let mut out = [0; BATCH_HEADER];
        out[4..8].copy_from_slice(&self.len.to_le_bytes());
        out[8..12].copy_from_slice(&self.count.to_le_bytes());
        out[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        out[24..32].copy_from_slice(&self.synced_below.to_le_bytes());
        let crc = checksum(segment, offset, &out[4..]);
        out[..4].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the header of a batch at `offset`; its length is checked against `bytes`.
    pub(crate) fn decode(bytes: &[u8], segment: u32, offset: u32) -> Result<Self, &'static str> {
        if bytes.len() < BATCH_MIN {
            return Err("no room for a batch");
        }
        let len = u32_at(bytes, 4) as usize;
        if len < BATCH_MIN || !len.is_multiple_of(ALIGN) || len > bytes.len() {
            return Err("batch length out of range");
        }
        if u32_at(bytes, 0) != checksum(segment, offset, &bytes[4..BATCH_HEADER]) {
            return Err("batch checksum does not match");
        }
        if u32_at(bytes, 12) != 0 {
            return Err("batch has unknown flags");
        }
        Ok(Self {
            len: u32_at(bytes, 4),
            count: u32_at(bytes, 8),
            sequence: u64_at(bytes, 16),
            synced_below: u64_at(bytes, 24),
        })
    }
}

/// The header of a segment file, at offset 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) segment: u32,
    pub(crate) segment_bytes: u32,
    /// Random, the same in all segments of one store.
    pub(crate) store_id: u64,
    /// Where the log goes on in it, if that was known when the segment was made: in version 1, and
    /// in what a repair makes. Else `synced_below` of its first batch tells.
    pub(crate) sequence: Option<u64>,
    /// Segments below this one were no longer part of the log when this one was made.
    pub(crate) head: u32,
}

/// Why a segment header was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    Damaged(&'static str),
    Newer(u16),
}

impl SegmentHeader {
    /// The 64 bytes at the start of the segment file.
    pub(crate) fn encode(&self) -> [u8; 64] {
        let mut out = [0; 64];
        out[..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[10] = 3; // log2 of ALIGN: batches of this version start at multiples of 8
        out[12..16].copy_from_slice(&self.segment.to_le_bytes());
        out[16..24].copy_from_slice(&u64::from(self.segment_bytes).to_le_bytes());
        out[24..32].copy_from_slice(&self.store_id.to_le_bytes());
        out[32..40].copy_from_slice(&self.sequence.unwrap_or(0).to_le_bytes());
        out[40..44].copy_from_slice(&self.head.to_le_bytes());
        let crc = crc32c::crc32c(&out[..60]);
        out[60..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the header of the file that is named after `segment`.
    pub(crate) fn decode(bytes: &[u8], segment: u32) -> Result<Self, BadHeader> {
        if bytes.len() < 64 || bytes[..8] != MAGIC {
            return Err(BadHeader::Damaged("not a segment: magic is missing"));
        }
        if u32_at(bytes, 60) != crc32c::crc32c(&bytes[..60]) {
            return Err(BadHeader::Damaged("segment header checksum does not match"));
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if version > VERSION || bytes[10] != 3 {
            return Err(BadHeader::Newer(version));
        }
        let header = Self {
            segment: u32_at(bytes, 12),
            segment_bytes: u32_at(bytes, 16),
            store_id: u64_at(bytes, 24),
            sequence: Some(u64_at(bytes, 32)).filter(|&sequence| sequence > 0),
            head: u32_at(bytes, 40),
        };
        if header.segment != segment {
            return Err(BadHeader::Damaged("file name and segment number disagree"));
        }
        Ok(header)
    }
}

/// Fills in the checksum of the encoded record at the start of `bytes`; returns its padded length.
pub(crate) fn seal_record(bytes: &mut [u8], segment: u32, offset: u32) -> usize {
    let len = record_len(bytes).expect("the record was encoded by this module");
    let crc = checksum(segment, offset, &bytes[4..len]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    len.next_multiple_of(ALIGN)
}

/// CRC-32C over where the bytes belong and the bytes, so that a block that was written to the
/// wrong place, or left over from an earlier use, is never taken for valid.
fn checksum(segment: u32, offset: u32, bytes: &[u8]) -> u32 {
    let mut place = [0; 8];
    place[..4].copy_from_slice(&segment.to_le_bytes());
    place[4..].copy_from_slice(&offset.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&place), bytes)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("the range has 4 bytes"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("the range has 8 bytes"))
}

/// The name of a segment's file.
pub(crate) fn segment_name(segment: u32) -> String {
    format!("{segment:010}.seg")
}

/// The segment that a file of this name holds.
pub(crate) fn segment_of_name(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".seg")?;
    (digits.len() == 10 && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().ok())
        .flatten()
}
