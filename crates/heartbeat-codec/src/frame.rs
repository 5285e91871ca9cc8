//! Frames: `kind: u8 | length: varint | body`, the framing of the device protocol, version 1.
//!
//! The length counts the bytes of the body, as an unsigned LEB128 number (seven bits a byte, the lowest
//! first, the top bit set on all but the last; DWARF 5, section 7.6) in its shortest spelling and at most
//! three bytes. Kinds from 0x80 up are reserved for the one-byte beats of a later version.
//!
//! A frame that can never become valid is refused at its first wrong byte: an over-long body is an error
//! before a byte of it has arrived, so a receiver never buffers for a sender that lies.

use core::fmt;

/// The longest header: a kind and three bytes of length.
pub const HEADER_BYTES_MAX: usize = 4;

/// The longest body that three bytes of length can announce.
pub const BODY_BYTES_MAX: usize = (1 << 21) - 1;

/// Kinds from here up are reserved.
pub const KIND_RESERVED_MIN: u8 = 0x80;

/// What stands at the start of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A whole frame.
    Frame {
        /// What the frame is; below 0x80.
        kind: u8,
        /// The body, borrowed from the input.
        body: &'a [u8],
        /// Bytes of the input that the frame took; the next frame starts there.
        consumed: usize,
    },
    /// The start of a frame that may still become valid.
    NeedMore {
        /// The length that the whole input must have before decoding can get further: that of the frame once
        /// its header is complete, one more byte (at least two) before that.
        bytes_min: usize,
    },
}

/// Decodes the frame at the start of `input`. O(1); the body is not looked at.
///
/// `body_bytes_max` is the receiver's limit; values above [`BODY_BYTES_MAX`] change nothing.
///
/// # Errors
///
/// As soon as the bytes at hand cannot begin a valid frame: reserved kind, length not in its shortest form or
/// longer than three bytes, body longer than the limit. The stream is then lost: close it.
///
/// ```
/// use heartbeat_codec::frame::{decode, Decoded};
///
/// assert_eq!(decode(&[0x07, 0x02, b'h'], 64), Ok(Decoded::NeedMore { bytes_min: 4 }));
/// assert_eq!(
///     decode(&[0x07, 0x02, b'h', b'i', 0x01], 64),
///     Ok(Decoded::Frame { kind: 0x07, body: b"hi", consumed: 4 })
/// );
/// assert!(decode(&[0x07, 65], 64).unwrap_err().is_body_too_long());
/// ```
pub fn decode(input: &[u8], body_bytes_max: usize) -> Result<Decoded<'_>, FrameError> {
    let Some((&kind, rest)) = input.split_first() else {
        return Ok(Decoded::NeedMore { bytes_min: 2 });
    };
    if kind >= KIND_RESERVED_MIN {
        return Err(FrameError(Problem::ReservedKind(kind)));
    }
    let Some((length, length_bytes)) = decode_length(rest, body_bytes_max)? else {
        let bytes_min = input.len() + 1;
        return Ok(Decoded::NeedMore { bytes_min });
    };
    let consumed = 1 + length_bytes + length;
    match rest.get(length_bytes..length_bytes + length) {
        Some(body) => Ok(Decoded::Frame {
            kind,
            body,
            consumed,
        }),
        None => Ok(Decoded::NeedMore {
            bytes_min: consumed,
        }),
    }
}

/// The length at the start of `input` and the bytes it took; `None` when it goes on past the input.
fn decode_length(input: &[u8], limit: usize) -> Result<Option<(usize, usize)>, FrameError> {
    let mut length = 0;
    for (at, byte) in input.iter().take(HEADER_BYTES_MAX - 1).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            if *byte == 0 && at > 0 {
                return Err(FrameError(Problem::LengthNotShortest));
            }
            check_limit(length, limit)?;
            return Ok(Some((length, at + 1)));
        }
        if at == HEADER_BYTES_MAX - 2 {
            return Err(FrameError(Problem::LengthTooLong));
        }
        // The next byte is at least one, else the length is not in its shortest form.
        check_limit(length + (1 << (7 * (at + 1))), limit)?;
    }
    Ok(None)
}

fn check_limit(bytes: usize, bytes_max: usize) -> Result<(), FrameError> {
    if bytes > bytes_max {
        return Err(FrameError(Problem::BodyTooLong { bytes, bytes_max }));
    }
    Ok(())
}

/// Writes the header of a frame whose body is `body_bytes` long; returns the header's length, 2 to 4.
///
/// # Errors
///
/// A reserved kind, or a body longer than [`BODY_BYTES_MAX`]; nothing is written then.
///
/// ```
/// let mut header = [0; 4];
/// let len = heartbeat_codec::frame::encode_header(0x05, 300, &mut header)?;
/// assert_eq!(header[..len], [0x05, 0xac, 0x02]);
/// # Ok::<(), heartbeat_codec::frame::FrameError>(())
/// ```
pub fn encode_header(
    kind: u8,
    body_bytes: usize,
    out: &mut [u8; HEADER_BYTES_MAX],
) -> Result<usize, FrameError> {
    if kind >= KIND_RESERVED_MIN {
        return Err(FrameError(Problem::ReservedKind(kind)));
    }
    check_limit(body_bytes, BODY_BYTES_MAX)?;
    let low = |shift: u32| (body_bytes >> shift) as u8 & 0x7f;
    let (header, len) = match body_bytes {
        0..0x80 => ([kind, low(0), 0, 0], 2),
        0x80..0x4000 => ([kind, low(0) | 0x80, low(7), 0], 3),
        _ => ([kind, low(0) | 0x80, low(7) | 0x80, low(14)], 4),
    };
    out[..len].copy_from_slice(&header[..len]);
    Ok(len)
}

/// Appends a whole frame to a `Vec<u8>` or another buffer that extends by bytes.
///
/// # Errors
///
/// As [`encode_header`]; nothing is appended then.
pub fn encode_into<B>(out: &mut B, kind: u8, body: &[u8]) -> Result<(), FrameError>
where
    B: for<'a> Extend<&'a u8>,
{
    let mut header = [0; HEADER_BYTES_MAX];
    let len = encode_header(kind, body.len(), &mut header)?;
    out.extend(&header[..len]);
    out.extend(body);
    Ok(())
}

/// Why bytes are not a frame, or why a frame cannot be written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FrameError(Problem);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Problem {
    ReservedKind(u8),
    LengthNotShortest,
    LengthTooLong,
    BodyTooLong { bytes: usize, bytes_max: usize },
}

impl FrameError {
    /// The kind is 0x80 or higher: the sender may speak a later version.
    pub fn is_reserved_kind(&self) -> bool {
        matches!(self.0, Problem::ReservedKind(_))
    }

    /// The length is not a shortest-form number of at most three bytes: these are not frames at all.
    pub fn is_malformed_length(&self) -> bool {
        matches!(self.0, Problem::LengthNotShortest | Problem::LengthTooLong)
    }

    /// The announced body is longer than the limit.
    pub fn is_body_too_long(&self) -> bool {
        matches!(self.0, Problem::BodyTooLong { .. })
    }
}

impl fmt::Debug for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrameError({:?})", self.0)
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Problem::ReservedKind(kind) => write!(
                f,
                "frame kind {kind:#04x} is reserved; this version has kinds below 0x80: \
                 use one of them, or agree on a later version first"
            ),
            Problem::LengthNotShortest => f.write_str(
                "the frame's length is not in its shortest form; encode it as a minimal LEB128 number",
            ),
            Problem::LengthTooLong => f.write_str(
                "the frame's length takes more than three bytes; check that both sides speak this protocol",
            ),
            Problem::BodyTooLong { bytes, bytes_max } => write!(
                f,
                "the frame's body has {bytes} bytes or more and the limit is {bytes_max}: \
                 send less, or raise the limit"
            ),
        }
    }
}

impl core::error::Error for FrameError {}
